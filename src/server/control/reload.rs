//! The control plane: watches the registry and the configuration's files, and swaps what the workers see. Whatever is
//! wrong is told, and what runs stays.

use super::disk::DiskMonitor;
use super::expiry::Expiry;
use super::own_services::OwnServices;
use super::state_files;
use crate::admin::Admin;
use crate::audit::service::Audit;
use crate::config::Config;
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

/// How often the registry is asked for its revision, and certificates and revocation lists are looked at: what is withdrawn or
/// revoked is gone within a second.
pub(in crate::server) const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Every how-manieth time the other files are looked at: there may be thousands.
const ALL_FILES: u64 = 5;
/// Every how-manieth time files of TLS that were not taken are tried again: what was wrong may have been a right to read, or
/// the time.
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
    /// What the files looked like when they were last taken.
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
    /// Whether it is not over yet.
    fn lasts(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// Begins anew, twice as long.
    fn grow(&mut self) {
        self.length = (2 * self.length).clamp(LOOK_EVERY, MAX_PAUSE);
        self.until = Some(Instant::now() + self.length);
    }
}

/// What the files looked like: path, size, time of change.
pub(in crate::server) type Stamp = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

impl Reloader {
    /// Reads contracts, connections and certificates again. What callers are let in by does not wait for the rest to be in
    /// order: a revocation counts even while the entry of a source is wrong.
    pub(in crate::server) fn reload(&self) -> Result<(), StartError> {
        let _alone = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before the files are read: a change in the meantime is read once more, what is read now is not.
        let seen = stamp(&self.config, &self.served.borrow().catalogue.files);
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        let gate = self.load_tls();
        let rest = self.load_catalogue();
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
        self.infra.send_replace(Arc::new(infra));
        let served = Arc::new(served);
        self.shared.serve(served.clone());
        self.served.send_replace(served);
        // Calls under way look whether their contracts still allow what they disclose.
        self.shared.registry_changed.send_replace(());
        tracing::info!("contracts and connections were loaded anew");
        Ok(())
    }

    /// Reads what callers are let in by: connections to sources are kept when only a revocation list is new.
    fn reload_tls(&self) -> Result<(), StartError> {
        let _alone = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        self.load_tls()
    }

    /// What cannot be read does not take the place of what was loaded last, and readiness says so.
    fn load_tls(&self) -> Result<(), StartError> {
        let before = self.gate.borrow().clone();
        match before.reload(&self.config.tls) {
            Ok(gate) => {
                self.gate.send_replace(Arc::new(gate));
                self.shared.readiness.set(Component::TlsFiles, Vec::new());
                self.check_tls_state();
                tracing::info!("the gateway's certificate, CAs and revocation lists were loaded anew");
                Ok(())
            }
            Err(fault) => {
                let reason = format!("{fault} (what was loaded before it stays in force)");
                self.shared.readiness.set(Component::TlsFiles, vec![reason]);
                Err(fault.into())
            }
        }
    }

    /// Says what of TLS cannot work, as it is in force now, and notes its lists for the next start.
    fn check_tls_state(&self) {
        let gate = self.gate.borrow().clone();
        let kept = state_files::keep(&self.shared, &gate.trust);
        let mut faults = gate.faults(crate::registry::now());
        faults.extend(kept);
        self.shared.readiness.set(Component::Tls, faults);
    }

    /// Takes over what changed in the registry. Where that cannot be followed, all of it is read anew: one row that nobody
    /// understands must not keep a revocation from coming into force. What fails then is said by readiness, and tried again
    /// after a pause that grows: reading everything takes a while.
    pub(in crate::server) fn follow_registry(&self, pause: &mut ReloadBackoff) {
        let known = self.shared.registry.load();
        let next = match known.follow(self.store.as_ref()) {
            Ok(next) => Ok(next),
            Err(_) if pause.lasts() => return,
            Err(error) => {
                tracing::warn!(%error, "changes of the registry cannot be followed: all of it is read anew");
                Snapshot::read(self.store.as_ref()).map(Some)
            }
        };
        let fault = match next {
            Ok(next) => {
                *pause = ReloadBackoff::default();
                if let Some(next) = next {
                    self.shared.registry.store(Arc::new(next));
                    self.shared.registry_changed.send_replace(());
                }
                None
            }
            Err(error) => {
                pause.grow();
                Some(format!("{error}; what was read last stays in force, revocations since then do not count"))
            }
        };
        self.shared.readiness.set(Component::Registry, fault.into_iter().collect());
    }

    /// Ends changes that nobody approved in time.
    fn end_pending(&self) {
        if let Err(error) = self.store.end_pending_changes() {
            tracing::error!(%error, "changes whose time is over are still listed; nobody can approve them");
        }
        match self.store.count_pending() {
            Ok(waiting) => self.shared.metrics.pending_changes(waiting),
            Err(error) => tracing::warn!(%error, "changes that wait for a second person cannot be counted"),
        }
    }

    /// Keeps what was used of rates and quotas, for the next start.
    fn keep_usage(&self) {
        // Taken before the counts are: what is counted after it may be in them, what was counted before it is.
        let until_us = crate::exchange_log::clock::now_us();
        let changed = self.shared.limits.changed();
        if let Err(error) = self.usage.save(&changed, until_us) {
            tracing::error!(%error, "the usage of quotas could not be kept");
        }
    }

    fn keep_drift(&self, ends: bool) {
        if let Err(error) = self.shared.drift.keep(&self.config.data, crate::registry::now(), ends) {
            tracing::error!(%error, "what is known of drift could not be kept");
        }
    }

    /// Which of the files are others than before.
    fn changed_files(&self, all: bool) -> Option<ReloadScope> {
        let mut known = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let served = self.served.borrow().clone();
        let named = &served.catalogue.files;
        let (mut at_the_gate, mut behind) = (false, false);
        for file in self.config.tls.files() {
            let changed = note(&file, &mut known);
            at_the_gate |= changed;
            // The gateway may show sources the certificate that it shows callers.
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

    /// Every file that may hold certificates.
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

    /// Loads on a thread of its own: a revocation list may have hundreds of thousands of entries, and neither calls nor the
    /// registry wait for it.
    fn load_in_background(self: &Arc<Self>, load: ReloadScope) {
        let reloader = self.clone();
        tokio::task::spawn_blocking(move || reloader.reload_or_report(load));
    }
}

/// What is reloaded.
type ReloadScope = fn(&Reloader) -> Result<(), StartError>;

/// Looks at every file that a reload would read.
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

/// Notes what a file looks like; true where that is something new.
fn note(path: &Path, found: &mut Stamp) -> bool {
    match std::fs::metadata(path).map(|data| (data.len(), data.modified().ok())) {
        Ok(seen) => found.insert(path.to_owned(), seen) != Some(seen),
        Err(_) => found.remove(path).is_some(),
    }
}

/// Contracts stand a few folders deep (`ndxp/population/v1`).
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

/// Fetches the revocation lists of a URL again and again, and has them loaded.
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
            // Once for each kind of trouble, not twice a second.
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
                            // It is told once for each kind of trouble.
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
