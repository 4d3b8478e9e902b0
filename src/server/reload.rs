//! The control plane: watches the registry and the configuration's files, and swaps what the workers see. Whatever is
//! wrong is told, and what runs stays.

use super::StartError;
use super::infra::Infra;
use super::shared::{Served, Shared};
use crate::config::Config;
use crate::identity::tls;
use crate::registry::{Snapshot, Store};
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;

/// How often the registry is asked for its version: a withdrawn right is gone within a second.
const REGISTRY_EVERY: Duration = Duration::from_millis(200);
/// How many of these go by between two looks at the configuration's files.
const FILES_EVERY: u32 = 5;

/// Loads anew what can change while the gateway runs.
pub(super) struct Reloader {
    config: Config,
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    version: Mutex<u64>,
    served: watch::Sender<Arc<Served>>,
    infra: watch::Sender<Arc<Infra>>,
    tls: Arc<ArcSwap<rustls::ServerConfig>>,
    health: HealthReporter,
    files: Mutex<Stamp>,
}

/// What the files looked like: path, size, time of change.
type Stamp = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

impl Reloader {
    #[expect(clippy::too_many_arguments, reason = "called in one place, which puts the gateway together")]
    pub(super) fn new(
        config: Config,
        shared: Arc<Shared>,
        store: Arc<dyn Store>,
        version: u64,
        served: watch::Sender<Arc<Served>>,
        infra: watch::Sender<Arc<Infra>>,
        tls: Arc<ArcSwap<rustls::ServerConfig>>,
        health: HealthReporter,
    ) -> Self {
        let files = Mutex::new(stamp(&config));
        Reloader { config, shared, store, version: Mutex::new(version), served, infra, tls, health, files }
    }

    /// Reads contracts, connections and certificates again.
    pub(super) fn reload(&self) -> Result<(), StartError> {
        let catalogue = self.config.catalogue()?;
        let tls = tls::server_config(&self.config.tls)?;
        let infra = Infra::new(&self.health, &catalogue.contracts).ok_or(StartError::Reflection)?;
        let served = Served::following(&self.served.borrow(), catalogue);
        self.tls.store(Arc::new(tls));
        self.infra.send_replace(Arc::new(infra));
        self.served.send_replace(Arc::new(served));
        tracing::info!("contracts, connections and certificates were loaded anew");
        Ok(())
    }

    fn follow_registry(&self) {
        let mut known = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = match self.store.version() {
            Ok(version) if version == *known => return,
            Ok(version) => self.store.load().map(|loaded| (version, loaded)),
            Err(error) => Err(error),
        };
        match loaded {
            Ok((version, loaded)) => {
                self.shared.registry.store(Arc::new(Snapshot::new(loaded)));
                *known = version;
            }
            Err(error) => tracing::error!(%error, "the registry cannot be read; what was read last stays in force"),
        }
    }

    fn follow_files(&self) {
        let now = stamp(&self.config);
        let mut known = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != now {
            *known = now;
            drop(known);
            self.reload_or_tell();
        }
    }

    fn reload_or_tell(&self) {
        if let Err(error) = self.reload() {
            tracing::error!(%error, "the configuration was not taken; what runs stays");
        }
    }
}

fn stamp(config: &Config) -> Stamp {
    let mut found = Stamp::new();
    let folders = [Some(&config.hubs_dir), Some(&config.sources_dir), config.contracts_dir.as_ref()];
    for folder in folders.into_iter().flatten() {
        walk(folder, 0, &mut found);
    }
    let tls = &config.tls;
    for file in [Some(&tls.certificate), Some(&tls.key), Some(&tls.client_ca), tls.crl.as_ref()].into_iter().flatten() {
        note(file, &mut found);
    }
    found
}

fn note(path: &Path, found: &mut Stamp) {
    if let Ok(data) = std::fs::metadata(path) {
        found.insert(path.to_owned(), (data.len(), data.modified().ok()));
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

/// Starts the control plane's thread: it never shares a thread with calls.
pub(super) fn spawn(
    reloader: Arc<Reloader>,
    ops: Option<std::net::TcpListener>,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, StartError> {
    let fail = |error: std::io::Error| StartError::Thread(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
    let run = move || {
        runtime.block_on(async move {
            if let Some(listener) = ops {
                tokio::spawn(super::ops::serve(listener, reloader.shared.clone()));
            }
            let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok();
            let mut tick = tokio::time::interval(REGISTRY_EVERY);
            let mut count = 0u32;
            loop {
                let asked = async {
                    match &mut hangup {
                        Some(hangup) => hangup.recv().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    _ = tick.tick() => {
                        reloader.follow_registry();
                        count = count.wrapping_add(1);
                        if count.is_multiple_of(FILES_EVERY) {
                            reloader.follow_files();
                        }
                    }
                    _ = asked => reloader.reload_or_tell(),
                    () = stop.cancelled() => return,
                }
            }
        });
    };
    std::thread::Builder::new().name("control".into()).spawn(run).map_err(fail)
}
