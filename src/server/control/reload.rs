//! The control plane: watches the registry and the configuration's files, and swaps the state that the workers use. It
//! reports every fault and then keeps the state that is in force.

use super::disk::DiskMonitor;
use super::expiry::Expiry;
use super::own_services::OwnServices;
use super::state_files;
use crate::admin::Admin;
use crate::audit::service::Audit;
use crate::config::{Config, OfficialNames};
use crate::contract::ContractSet;
use crate::identity::crl::CrlFetcher;
use crate::identity::tls::TlsAcceptors;
use crate::registry::usage::UsageStore;
use crate::registry::{Snapshot, Store};
use crate::server::StartError;
use crate::server::readiness::Component;
use crate::server::shared::{Served, Shared};
use crate::server::thread;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;

/// How often the registry's revision, certificates and revocation lists are checked: a withdrawal or revocation takes
/// effect within a second.
pub(in crate::server) const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The other files are checked only each time after this number of checks: there may be thousands.
const ALL_FILES: u64 = 5;
/// Rejected TLS files are tried again after this number of checks: the fault may have been a missing read permission,
/// or the time.
const TRY_AGAIN: u64 = 25;

/// Reloads what can change while the gateway runs.
pub(in crate::server) struct Reloader {
    pub config: Config,
    pub shared: Arc<Shared>,
    pub store: Arc<dyn Store>,
    pub usage: UsageStore,
    pub served: watch::Sender<Arc<Served>>,
    pub infra: watch::Sender<Arc<OwnServices>>,
    pub gate: watch::Sender<Arc<TlsAcceptors>>,
    pub health: HealthReporter,
    pub admin: Admin,
    pub audit: Audit,
    pub contracts: Arc<ArcSwap<ContractSet>>,
    pub names: Arc<ArcSwap<OfficialNames>>,
    /// State of the files when they were last loaded.
    pub files: Mutex<Stamp>,
    /// Held while anything is reloaded: one load at a time.
    pub loading: Mutex<()>,
}

/// A pause between attempts, which doubles with each that fails: from [`LOOK_EVERY`] to [`MAX_PAUSE`].
#[derive(Debug, Default)]
pub(in crate::server) struct ReloadBackoff {
    length: Duration,
    until: Option<Instant>,
}

/// Longest pause between two attempts to read the whole registry.
const MAX_PAUSE: Duration = Duration::from_secs(30);

impl ReloadBackoff {
    /// Returns whether it is not over yet.
    fn lasts(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// Begins again, with twice the length.
    fn grow(&mut self) {
        self.length = (2 * self.length).clamp(LOOK_EVERY, MAX_PAUSE);
        self.until = Some(Instant::now() + self.length);
    }
}

/// State of the files: path, size, modification time.
pub(in crate::server) type Stamp = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

impl Reloader {
    /// Reloads contracts, connections and certificates. The material for TLS does not wait for the rest to be valid: a
    /// revocation takes effect even while a source's entry is wrong.
    pub(in crate::server) fn reload(&self) -> Result<(), StartError> {
        let _alone = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before the files are read: a change in the meantime is read once more, what is read now is not.
        let seen = stamp(&self.config, &self.served.borrow().catalogue.files);
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        let gate = self.load_tls();
        let rest = self.load_catalogue();
        self.shared.readiness.set(Component::Configuration, rest.as_ref().err().map(faults_of).unwrap_or_default());
        if let (Err(_), Err(error)) = (&gate, &rest) {
            tracing::error!(%error, "the configuration was not taken; what runs stays");
        }
        gate.and(rest)
    }

    fn load_catalogue(&self) -> Result<(), StartError> {
        let catalogue = self.config.catalogue()?;
        let infra = OwnServices::new(&self.health, self.admin.clone(), self.audit.clone(), &catalogue.contracts)
            .ok_or(StartError::Reflection)?;
        let served = Served::following(&self.served.borrow(), catalogue);
        self.contracts.store(Arc::new(served.catalogue.contracts.clone()));
        self.names.store(served.catalogue.names.clone());
        self.infra.send_replace(Arc::new(infra));
        let served = Arc::new(served);
        self.shared.serve(served.clone());
        self.served.send_replace(served);
        // Calls in flight check whether their contracts still allow what they disclose.
        self.shared.registry_changed.send_replace(());
        tracing::info!("contracts and connections were loaded anew");
        Ok(())
    }

    /// Reloads only the material for TLS: connections to sources are kept if only a revocation list is new.
    fn reload_tls(&self) -> Result<(), StartError> {
        let _alone = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        self.load_tls()
    }

    /// If something cannot be read, what was loaded last stays in force, and readiness reports the fault.
    fn load_tls(&self) -> Result<(), StartError> {
        let before = self.gate.borrow().clone();
        match before.reload(&self.config.tls) {
            Ok(gate) => {
                self.gate.send_replace(Arc::new(gate));
                self.shared.readiness.set(Component::TlsFiles, Vec::new());
                self.check_tls_state();
                tracing::info!("the gateway's certificate, CAs and revocation lists were reloaded");
                Ok(())
            }
            Err(fault) => {
                let reason = format!("{fault} (what was loaded before it stays in force)");
                self.shared.readiness.set(Component::TlsFiles, vec![reason]);
                Err(fault.into())
            }
        }
    }

    /// Reports what does not work of the TLS material in force, and records its lists for the next start.
    fn check_tls_state(&self) {
        let gate = self.gate.borrow().clone();
        let kept = state_files::keep(&self.shared, &gate.trust);
        let mut faults = gate.faults(crate::registry::now());
        faults.extend(kept);
        self.shared.readiness.set(Component::Tls, faults);
    }

    /// Applies the changes of the registry. If they cannot be followed, it reads the whole registry: one row that
    /// cannot be understood must not keep a revocation from taking effect. If that fails, too, readiness reports it,
    /// and it is retried after a growing pause, since reading everything takes a while.
    pub(in crate::server) fn follow_registry(&self, pause: &mut ReloadBackoff) {
        let known = self.shared.registry.load();
        // Read first: what is followed has at least this.
        let applied = self.shared.cluster.as_ref().and_then(|cluster| cluster.position());
        let next = match known.follow(self.store.as_ref()) {
            Ok(next) => Ok(next),
            Err(_) if pause.lasts() => return,
            Err(error) => {
                tracing::warn!(%error, "changes of the registry cannot be followed: all of it is read again");
                Snapshot::read(self.store.as_ref()).map(Some)
            }
        };
        let fault = match next {
            Ok(next) => {
                *pause = ReloadBackoff::default();
                let outdated = self.shared.cluster.as_ref().is_some_and(|cluster| cluster.is_outdated());
                let next = next.or_else(|| (outdated != known.is_outdated()).then(|| Snapshot::clone(&known)));
                if let Some(next) = next {
                    let next = Arc::new(next.known_as(outdated));
                    self.shared.registry.store(next.clone());
                    self.shared.revocations.apply(|token| next.has_revoked(token), Instant::now());
                    self.shared.registry_changed.send_replace(());
                }
                self.shared.cluster.as_ref().and_then(|cluster| {
                    cluster.note_in_force(applied.as_ref());
                    cluster.fault()
                })
            }
            Err(error) => {
                pause.grow();
                Some(format!("{error}; what was read last stays in force, revocations since then do not count"))
            }
        };
        self.shared.readiness.set(Component::Registry, fault.into_iter().collect());
    }

    /// Ends pending changes that nobody approved in time.
    fn end_pending(&self) {
        if self.shared.registry.load().is_outdated() {
            return;
        }
        if let Err(error) = self.store.end_pending_changes() {
            tracing::error!(%error, "changes whose time is over are still listed; nobody can approve them");
        }
        match self.store.count_pending() {
            Ok(waiting) => self.shared.metrics.pending_changes(waiting),
            Err(error) => tracing::warn!(%error, "changes that wait for a second person cannot be counted"),
        }
    }

    /// Saves the use of rates and quotas for the next start.
    fn keep_usage(&self) {
        // Taken before the counts are read: calls counted after it may be in them, calls counted before it are.
        let until_us = crate::exchange_log::clock::now_us();
        let changed = self.shared.limits.changed();
        if let Err(error) = self.usage.save(&changed, until_us) {
            tracing::error!(%error, "the usage of quotas could not be saved");
        }
    }

    fn keep_drift(&self, ends: bool) {
        if let Err(error) = self.shared.drift.keep(&self.config.data, crate::registry::now(), ends) {
            tracing::error!(%error, "the drift records could not be saved");
        }
    }

    /// Returns which of the files have changed.
    fn changed_files(&self, all: bool) -> Option<ReloadScope> {
        let mut known = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let served = self.served.borrow().clone();
        let named = &served.catalogue.files;
        let (mut at_the_gate, mut behind) = (false, false);
        for file in self.config.tls.files() {
            let changed = note(&file, &mut known);
            at_the_gate |= changed;
            // The gateway may use the same certificate towards sources and callers.
            behind |= changed && named.contains(&file);
        }
        if all {
            let now = stamp(&self.config, named);
            behind |= *known != now;
            *known = now;
        }
        match (behind, at_the_gate) {
            (true, _) => Some(Reloader::reload),
            (false, true) => Some(Reloader::reload_tls),
            (false, false) => None,
        }
    }

    /// Returns every file that may hold certificates.
    fn certificates(&self) -> Vec<PathBuf> {
        let mut files = self.config.tls.files();
        files.extend(self.served.borrow().catalogue.files.iter().cloned());
        files
    }

    fn reload_or_report(&self, load: ReloadScope) {
        if let Err(error) = load(self) {
            tracing::error!(%error, "the configuration was not taken; what runs stays");
        }
    }

    /// Loads on a separate thread: a revocation list may have hundreds of thousands of entries, and neither calls nor
    /// the registry wait for it.
    fn load_in_background(self: &Arc<Self>, load: ReloadScope) {
        let reloader = self.clone();
        tokio::task::spawn_blocking(move || reloader.reload_or_report(load));
    }
}

/// The faults of a rejected reload, a line each.
fn faults_of(error: &StartError) -> Vec<String> {
    let kept = |fault: String| format!("{fault} (what was loaded before stays in force)");
    match error {
        StartError::Config(faults) => faults.iter().map(|fault| kept(fault.to_string())).collect(),
        other => vec![kept(other.to_string())],
    }
}

/// The scope of a reload.
type ReloadScope = fn(&Reloader) -> Result<(), StartError>;

/// Stamps every file that a reload would read.
pub(in crate::server) fn stamp(config: &Config, named: &[PathBuf]) -> Stamp {
    let mut found = Stamp::new();
    let folders = [Some(&config.hubs_dir), Some(&config.sources_dir), config.contracts_dir.as_ref()];
    for folder in folders.into_iter().flatten() {
        walk(folder, 0, &mut found);
    }
    // Secrets and certificates of sources and hubs too, wherever they are.
    for file in config.tls.files().iter().chain(named) {
        note(file, &mut found);
    }
    found
}

/// Adds a file's state; returns true if it is new.
fn note(path: &Path, found: &mut Stamp) -> bool {
    match std::fs::metadata(path).map(|data| (data.len(), data.modified().ok())) {
        Ok(seen) => found.insert(path.to_owned(), seen) != Some(seen),
        Err(_) => found.remove(path).is_some(),
    }
}

/// Contracts are a few folders deep (`ndxp/population/v1`).
fn walk(folder: &Path, depth: usize, found: &mut Stamp) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() && depth < 8 {
            walk(&path, depth + 1, found);
        } else {
            note(&path, found);
        }
    }
}

/// Fetches the revocation lists of a URL repeatedly, and triggers their load.
async fn follow_lists(mut fetcher: CrlFetcher, reloader: Arc<Reloader>) {
    let mut tick = tokio::time::interval(fetcher.every());
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut reported = None;
    loop {
        tick.tick().await;
        let (replaced, taken) = fetcher.fetch().await;
        reloader.shared.metrics.list_fetched(&fetcher.url().to_string(), taken.is_ok());
        if replaced {
            tracing::info!(url = %fetcher.url(), "a new revocation list was fetched");
            reloader.load_in_background(Reloader::reload_tls);
        }
        match taken {
            Ok(()) => reported = None,
            // Once for each kind of failure, not twice a second.
            Err(error) if reported.as_ref() == Some(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "the list from before stays in force");
                reported = Some(error);
            }
        }
    }
}

/// Starts the control plane's thread: it never shares a thread with calls.
pub(in crate::server) fn spawn(
    reloader: Arc<Reloader>,
    lists: Vec<CrlFetcher>,
    operator_http: Option<std::net::TcpListener>,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, StartError> {
    thread::spawn("control", move || async move {
        reloader.check_tls_state();
        for fetcher in lists {
            tokio::spawn(follow_lists(fetcher, reloader.clone()));
        }
        tokio::spawn(super::health::check_endpoints(reloader.shared.clone()));
        if let Some(listener) = operator_http {
            tokio::spawn(super::operator_http::serve(listener, reloader.shared.clone()));
        }
        let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok();
        let mut tick = tokio::time::interval(LOOK_EVERY);
        let (mut expiry, mut disk) = (Expiry::default(), DiskMonitor::default());
        let mut turn = 0;
        loop {
            let on_demand = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = tick.tick() => {
                    reloader.keep_usage();
                    reloader.keep_drift(false);
                    turn += 1;
                    let all = turn % ALL_FILES == 0;
                    match reloader.changed_files(all) {
                        Some(load) => reloader.load_in_background(load),
                        None if turn % TRY_AGAIN == 0 && reloader.shared.readiness.is_at_fault(Component::TlsFiles) => {
                            let again = reloader.clone();
                            // Reported once for each kind of failure.
                            tokio::task::spawn_blocking(move || again.reload_tls());
                        }
                        None => {}
                    }
                    if all {
                        reloader.shared.refusals.log_omitted(false);
                        let config = &reloader.config;
                        disk.look(&config.data, config.log.disk_warn_days, &reloader.shared);
                    }
                    if all || turn == 1 {
                        reloader.check_tls_state();
                        let gate = reloader.gate.borrow().clone();
                        expiry.look(&reloader.certificates(), &gate, &reloader.shared);
                        reloader.end_pending();
                    }
                }
                _ = on_demand => reloader.load_in_background(Reloader::reload),
                () = stop.cancelled() => break,
            }
        }
        reloader.keep_usage();
        reloader.keep_drift(true);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_and_has_a_longest() {
        let mut pause = ReloadBackoff::default();
        assert!(!pause.lasts(), "the first attempt is at once");
        let mut lengths = Vec::new();
        for _ in 0..10 {
            pause.grow();
            assert!(pause.lasts());
            lengths.push(pause.length);
        }
        assert_eq!(lengths[..3], [LOOK_EVERY, 2 * LOOK_EVERY, 4 * LOOK_EVERY]);
        assert_eq!(lengths.last(), Some(&MAX_PAUSE));
    }
}
