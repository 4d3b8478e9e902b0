//! The server, in three parts. Each uses those below it:
//! - [`front`]: listeners, TLS, connections;
//! - [`control`]: the control plane, which swaps what exchanges see (reload, expiry, drain, retention, health);
//! - [`exchange`]: one exchange, and nothing else.
//!
//! State that all parts share is beside them, [`shared`] first.

mod cluster;
mod control;
mod exchange;
mod front;
mod heartbeat;
mod operations;
mod own_calls;
mod readiness;
mod shared;
mod thread;

use crate::access::limits::GrantLimits;
use crate::access::staff::StaffAuthorizer;
use crate::admin::{Admin, AdminWork};
use crate::audit::index::IndexThread;
use crate::audit::service::Audit;
use crate::config::{Config, ConfigFault, fault_at};
use crate::console::Console;
use crate::exchange_log::key::{self, LogKeyError};
use crate::exchange_log::pseudonym::{self, Pseudonyms};
use crate::exchange_log::reader::POLICY_FILE;
use crate::exchange_log::{ExchangeLog, LogError, LogPaths, remove_file, write_atomically};
use crate::identity::connections::Connections;
use crate::identity::crl::CrlFetcher;
use crate::identity::tls::{CrlSources, Revocation, TlsAcceptors, TlsFault, TlsFiles};
use crate::keyfile::private_folder;
use crate::registry::sqlite::SqliteStore;
use crate::registry::usage::{self, UsageStore};
use crate::registry::{RegistryError, Snapshot, Store};
use crate::telemetry::{AccessLines, Tracer};
use crate::web::Web;
use crate::witness::client::{Alarms, WitnessClient};
use arc_swap::ArcSwap;
use cluster::Cluster;
use control::own_services::OwnServices;
use control::reload::{self, Reloader};
use control::{background, compare, health, object_store, overview, quota, retention, unfinished_writes};
use front::files;
use front::listener::{self, ControlSignals};
use front::refusals::Refusals;
use front::web_calls::{self, WebCalls};
use shared::{Served, Shared};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use cluster::{EtcdSecrets, connect, other_sites, share_keys};
pub use control::admin_events::entry as admin_entry;
pub use exchange::response::{EXCHANGE_ID, LOG_INDEX, REQUEST_SALT, RESPONSE_SALT};
pub use front::sockets::Sockets;
pub use front::takeover::take_over;
pub use heartbeat::{Heartbeats, watch};

/// The reason that a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<ConfigFault>),
    /// Certificates or keys.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// The data folder.
    #[error("the data folder {0} cannot be made its owner's only (0700): {1}")]
    Folder(PathBuf, String),
    /// The exchange log.
    #[error("the exchange log: {0}")]
    Log(#[from] LogError),
    /// The key of the exchange log.
    #[error("the exchange log's key: {0}")]
    LogKey(#[from] LogKeyError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// What several gateways share over etcd.
    #[error("the cluster: {0}")]
    Cluster(String),
    /// The contracts cannot be described for reflection.
    #[error("the contracts cannot be described for reflection")]
    Reflection,
    /// The port.
    #[error("{0} cannot be listened on: {1}")]
    Bind(SocketAddr, String),
    /// A socket from systemd.
    #[error("a socket that systemd handed over cannot be used: {0}")]
    HandedOver(String),
    /// The gateway that runs.
    #[error("the gateway that runs cannot be taken over: {0}")]
    TakeOver(String),
    /// A thread.
    #[error("a thread cannot be started: {0}")]
    Thread(String),
}

impl From<Vec<ConfigFault>> for StartError {
    fn from(faults: Vec<ConfigFault>) -> Self {
        StartError::Config(faults)
    }
}

/// Returns the path of the registry in a data folder.
pub fn registry_path(data: &Path) -> PathBuf {
    data.join(crate::registry::sqlite::FILE)
}

/// A running gateway. Dropping it stops it at once; [`Gateway::stop`] lets calls finish.
pub struct Gateway {
    /// Address of the gRPC port.
    pub address: SocketAddr,
    /// Address of the HTTPS port, if it has one.
    pub https: Option<SocketAddr>,
    /// Address of health and metrics, if it has one.
    pub operator_http: Option<SocketAddr>,
    stop: CancellationToken,
    workers: Vec<JoinHandle<()>>,
    reloader: Arc<Reloader>,
    control: Option<JoinHandle<()>>,
    _following: Option<IndexThread>,
}

impl Gateway {
    /// Starts a gateway at the ports of the configuration; when this returns, it serves calls.
    ///
    /// # Errors
    /// The first part that cannot be opened or started: see [`StartError`].
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::start_at(config, None, false)
    }

    /// Starts a gateway at these sockets; without them, it binds its own when all else is ready. `clock_ahead`: an
    /// operator states that the clock was ahead when entries were written with times later than the present one.
    ///
    /// # Errors
    /// The first part that cannot be opened or started: see [`StartError`].
    pub fn start_at(mut config: Config, sockets: Option<Sockets>, clock_ahead: bool) -> Result<Self, StartError> {
        let folder = |error: std::io::Error| StartError::Folder(config.data.clone(), error.to_string());
        private_folder(&config.data).map_err(folder)?;
        if let Some(own) = LogPaths::new(&config.data).own_gateway()?.filter(|own| *own != config.node) {
            let what =
                format!("the folder's log has entries of several gateways, and this one is {own:?}: it must stay so");
            return Err(StartError::Config(vec![fault_at(&config.file, "node", what)]));
        }
        let catalogue = config.catalogue()?;
        let cluster = config.cluster.as_ref().map(|own| Cluster::join(own, &config)).transpose()?;
        config.shared_secrets = cluster.as_ref().map(|cluster| cluster.secrets());
        let log_key = key::read(&config.data, &config.vault, &config.log.origin)?;
        // Changes from here on are reloaded.
        let files = reload::stamp(&config, &catalogue.files);
        let (gate, crl) = first_tls(&config)?;
        let (gate_to, gate) = watch::channel(Arc::new(gate));
        let log = match &cluster {
            Some(cluster) => cluster.open_log(&config.data, log_key)?,
            None => ExchangeLog::open(&config.data, log_key)?,
        };
        quota::go_on_in_time(&log, &config.data, (&config.node, config.cluster.is_none()), clock_ahead)?;
        keep_policy(&config)?;
        let mut pseudonyms = Pseudonyms::open(&pseudonym::folder(&config.data))?;
        if let Some(secrets) = &config.shared_secrets {
            pseudonyms = pseudonyms.shared(secrets.clone());
        }
        let mut registry = SqliteStore::open_with(&registry_path(&config.data), &config.vault)?;
        if let Some(cluster) = &cluster {
            registry = cluster.replicate(&registry, &config.node)?;
        }
        let store: Arc<dyn Store> = Arc::new(registry.clone());
        let mut shared = Shared::new(&config, log, pseudonyms);
        if let Some(cluster) = cluster {
            cluster.report(shared.log.clone());
            let gateways = config.cluster.as_ref().map_or(1, |own| own.sites);
            (shared.limits, shared.cluster) = (Arc::new(GrantLimits::one_of(gateways)), Some(cluster));
        }
        if config.telemetry.access_lines {
            let started = AccessLines::start(&shared.metrics.access_lines);
            shared.access_lines = started.map_err(|error| StartError::Thread(error.to_string()))?;
        }
        if let Some(traces) = &config.telemetry.traces {
            let started = Tracer::start(traces, &config.node, &shared.metrics.traces);
            shared.tracer = started.map_err(|error| StartError::Thread(error.to_string()))?;
        }
        let shared = Arc::new(shared);
        if let Some(cluster) = &shared.cluster {
            cluster.share_rates(shared.limits.clone());
        }
        let usage = UsageStore::open(&config.data.join(usage::FILE), registry.key().clone())?;
        quota::restore(&shared, &usage, &config.data)?;
        shared.registry.store(Arc::new(Snapshot::read(store.as_ref())?));

        let served = Arc::new(Served::following(&Served::default(), catalogue));
        shared.serve(served.clone());
        let (health, _) = tonic_health::server::health_reporter();
        let contracts = Arc::new(ArcSwap::from_pointee(served.catalogue.contracts.clone()));
        let names = Arc::new(ArcSwap::new(served.catalogue.names.clone()));
        let door =
            StaffAuthorizer::new(shared.registry.clone(), shared.log.clone(), shared.refusals.clone(), &config.node);
        let following = config.log.index.then(|| IndexThread::start(&config.data, &config.vault)).transpose();
        let following = following.map_err(|error| StartError::Thread(error.to_string()))?;
        let pool = |name| shared.metrics.work(name);
        let work = AdminWork::new(pool("admin_reads"), pool("admin_changes"), pool("admin_clients"));
        let admin = Admin::new(Arc::new(config.clone()), store.clone(), contracts.clone(), door.clone(), work);
        let of = shared.clone();
        let admin =
            admin.with_overview(Arc::new(move || overview::of(&of))).with_revocations(shared.revocations.clone());
        let mut admin = admin.with_checker(health::checker(shared.clone()));
        if let Some(cluster) = &shared.cluster {
            admin = admin.with_cluster(cluster.reader(shared.log.clone()));
        }
        let audit = Audit::new(&config.data, door.clone(), shared.registry.clone(), shared.log.clone(), &config.vault)?;
        let infra = OwnServices::new(&health, admin.clone(), audit.clone(), &served.catalogue.contracts)
            .ok_or(StartError::Reflection)?;
        let (served_to, served) = watch::channel(served);
        let (infra_to, infra) = watch::channel(Arc::new(infra));
        let stop = shared.stop.clone();
        let control = ControlSignals { served, infra, gate: gate.clone() };

        files::allow_connections(&config.listen);
        let sockets = sockets.map_or_else(|| Sockets::bind(&config.listen), Ok)?;
        let Sockets { grpc: listeners, https: https_listener, operator_http: operator_listener, address } = sockets;
        let refusals = Arc::new(Refusals::new(shared.clone()));
        let (max, per_peer) = (config.listen.max_connections, config.listen.max_connections_per_peer);
        let open = Connections::counted(max, per_peer, shared.metrics.port("grpc").connections);
        let mut workers = vec![unfinished_writes::spawn((&config.data, registry.key()), &shared, stop.clone())?];
        let mut web_workers = Vec::new();
        for (number, listener) in listeners.into_iter().enumerate() {
            let (to_worker, web_calls) = mpsc::channel(web_calls::QUEUE);
            web_workers.push(to_worker);
            let (listen, shared, refusals) = (config.listen.clone(), shared.clone(), refusals.clone());
            let served_by = (listen, shared, refusals);
            workers.push(listener::spawn(number, (listener, web_calls), served_by, open.clone(), control.clone())?);
        }
        let https = https_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        if let Some(listener) = https_listener {
            let (registry, log, refused) = (shared.registry.clone(), shared.log.clone(), shared.refusals.clone());
            let web = Web::new(
                config.clone(),
                store.clone(),
                registry,
                log,
                refused,
                shared.handshakes.clone(),
                shared.metrics.oauth(),
            );
            let web = Arc::new(web.map_err(|error| StartError::Thread(error.to_string()))?);
            let (registry, contracts) = (shared.registry.clone(), contracts.clone());
            let (admin, audit) = (admin.clone(), audit.clone());
            let console = Console::new(admin, audit, door, registry, contracts, &config, &shared.metrics);
            let console = console.with_names(names.clone());
            let pages = if config.web.console { console.router() } else { axum::Router::new() };
            let calls = WebCalls {
                workers: web_workers,
                served: served_to.subscribe(),
                refusals: refusals.clone(),
                next: Default::default(),
                server: config.tokens.issuer.clone(),
            };
            workers.push(spawn_web(web, (pages, calls.router()), listener, gate, stop.clone())?);
        }
        workers.extend(spawn_witness_client(&config, &shared, stop.clone())?);
        workers.extend(retention::spawn(&config, &shared, &registry, stop.clone())?);
        workers.extend(object_store::spawn(&config, &shared, stop.clone())?);
        let operator_http = operator_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let reloader = Arc::new(Reloader {
            files: Mutex::new(files),
            loading: Mutex::default(),
            config,
            shared,
            store,
            usage,
            served: served_to,
            infra: infra_to,
            gate: gate_to,
            health,
            admin,
            audit,
            contracts,
            names,
        });
        workers.push(compare::spawn(&reloader.config.data, registry.key(), &reloader.shared, stop.clone())?);
        workers.extend(background::spawn(&reloader, registry.key(), &stop)?);
        let control = reload::spawn(reloader.clone(), crl, operator_listener, stop.clone())?;
        Ok(Gateway {
            address,
            https,
            operator_http,
            stop,
            workers,
            reloader,
            control: Some(control),
            _following: following,
        })
    }

    /// Reloads contracts, connections and certificates. On an error nothing changes.
    ///
    /// # Errors
    /// The faults of the files, all together.
    pub fn reload(&self) -> Result<(), StartError> {
        self.reloader.reload()
    }

    /// Returns the registry's revision that decides calls now.
    pub fn registry_revision(&self) -> u64 {
        self.reloader.shared.registry.load().revision()
    }

    /// Returns the exchange log.
    pub fn log(&self) -> &ExchangeLog {
        &self.reloader.shared.log
    }

    /// Returns the workers' heartbeats, for the watchdog.
    pub fn heartbeats(&self) -> Heartbeats {
        self.reloader.shared.lifetime.clone()
    }

    /// Stops accepting, lets calls in flight finish, seals the log.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.cancel();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        if let Some(control) = self.control.take() {
            let _ = control.join();
        }
        self.reloader.shared.refusals.log_omitted(true);
        self.reloader.shared.access_lines.flush();
        self.reloader.shared.tracer.flush();
        if let Some(cluster) = &self.reloader.shared.cluster {
            cluster.leave();
        }
    }
}

/// Loads the TLS material. Published revocation lists are fetched before the first connection; if that fails, the
/// previous ones stay in force until they expire. If a CA of the clients has no list, the start fails.
fn first_tls(config: &Config) -> Result<(TlsAcceptors, Vec<CrlFetcher>), StartError> {
    if config.tls.revocation == Revocation::Unchecked {
        tracing::warn!("revoked certificates are accepted: the configuration says revocation = \"none\"");
    }
    let Some(sources) = config.tls.published() else { return Ok((TlsAcceptors::load(&config.tls)?, Vec::new())) };
    let mut fetchers = CrlFetcher::all(sources, &config.tls.client_ca)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| StartError::Thread(error.to_string()))?;
    let fetching = futures_util::future::join_all(fetchers.iter_mut().map(CrlFetcher::fetch));
    let fetched = std::thread::scope(|scope| scope.spawn(move || runtime.block_on(fetching)).join());
    let fetched = fetched.map_err(|_| StartError::Thread("revocation lists".into()))?;
    let faults: Vec<String> = fetched.into_iter().filter_map(|(_, taken)| Some(taken.err()?.to_string())).collect();
    for error in &faults {
        tracing::warn!(error, "the list from before stays in force");
    }
    let gate = TlsAcceptors::load(&config.tls).map_err(|fault| {
        let reason = std::iter::once(fault.reason).chain(faults).collect::<Vec<_>>().join("; ");
        TlsFault { path: fault.path, reason }
    })?;
    // Connections belong to the runtime that ends here.
    Ok((gate, CrlFetcher::all(sources, &config.tls.client_ca)?))
}

/// Reads certificates, CAs and revocation lists as [`Gateway::start`] would, and stores nothing: published lists that
/// are not stored yet are fetched for this check.
///
/// # Errors
/// As for [`Gateway::start`], of certificates, CAs and lists.
pub fn check_tls(config: &Config) -> Result<TlsAcceptors, StartError> {
    let Some(sources) = config.tls.published() else { return Ok(TlsAcceptors::load(&config.tls)?) };
    if let Ok(gate) = TlsAcceptors::load(&config.tls) {
        return Ok(gate);
    }
    let folder = tempfile::tempdir().map_err(|error| StartError::Thread(error.to_string()))?;
    let sources = CrlSources { cached: folder.path().to_owned(), ..sources.clone() };
    let tls = TlsFiles { revocation: Revocation::Checked(sources), ..config.tls.clone() };
    Ok(first_tls(&Config { tls, ..config.clone() })?.0)
}

/// The witness policy is stored with the log, so that a reader of its files knows which checkpoints count.
fn keep_policy(config: &Config) -> Result<(), LogError> {
    let path = LogPaths::new(&config.data).tiles.join(POLICY_FILE);
    match &config.log.policy_text {
        Some(text) => write_atomically(&path, text.as_bytes()),
        None => remove_file(&path).map(|_| ()),
    }
}

/// Starts the thread that requests cosignatures, if the policy names witnesses.
fn spawn_witness_client(
    config: &Config,
    shared: &Shared,
    stop: CancellationToken,
) -> Result<Option<JoinHandle<()>>, StartError> {
    if !config.log.policy.needs_witnesses() {
        return Ok(None);
    }
    let ca = config.log.witness_ca.as_ref().unwrap_or(&config.tls.client_ca);
    let tls = crate::identity::tls::client_config(ca, None, &[])?;
    let (metrics, log, node) = (shared.metrics.witnesses.clone(), shared.log.clone(), shared.node.clone());
    let client = WitnessClient::new(&config.data, config.log.policy.clone(), &tls, Alarms { metrics, log, node });
    let run = move || async move {
        tokio::select! {
            () = client.run() => {}
            () = stop.cancelled() => {}
        }
    };
    thread::spawn("witnesses", run).map(Some)
}

/// Starts the HTTPS port's thread.
fn spawn_web(
    web: Arc<Web>,
    (pages, calls): (axum::Router, axum::Router),
    listener: std::net::TcpListener,
    gate: watch::Receiver<Arc<TlsAcceptors>>,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, StartError> {
    thread::spawn("web", move || async move {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => web.serve(pages, calls, listener, gate, stop).await,
            Err(error) => tracing::error!(%error, "the HTTPS port cannot be served"),
        }
    })
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.end();
    }
}
