//! State that all calls share, and state of each worker: data-plane state, read from snapshots that the control plane
//! swaps as a whole.

use super::cluster::Cluster;
use super::heartbeat::Heartbeats;
use super::operations::{ServedOperations, connected};
use super::own_calls::OwnCallPermits;
use super::readiness::{Component, DaysRemaining, Readiness};
use crate::access;
use crate::access::limits::GrantLimits;
use crate::access::refusals::RefusalLog;
use crate::access::token::TokenChecker;
use crate::audit::logged_files::LoggedFiles;
use crate::config::entries::UpstreamTarget;
use crate::config::{Catalogue, Config, SecondMode, SourceEntry};
use crate::contract::Operation;
use crate::contract::drift::DriftPolicy;
use crate::contract::fields::Mask;
use crate::contract::notes::Observed;
use crate::drift::DriftTable;
use crate::drivers::Adapter;
use crate::exchange_log::ExchangeLog;
use crate::exchange_log::pseudonym::Pseudonyms;
use crate::frame::MessageMemory;
use crate::guard::{Endpoints, Guard, GuardSettings, HubHealth, OperationGuard, OperationHub};
use crate::identity::certificates::Certificates;
use crate::identity::handshake_limits::HandshakeLimits;
use crate::pki::Ending;
use crate::registry::{self, AdminEventKey, GrantView, Snapshot};
use crate::status::{Reason, Refusal};
use crate::telemetry::{AccessLines, ExchangeMetrics, Metrics, OperationMetrics, Revocations, Tracer, Traffic};
use crate::witness::alarm;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// Cached masks: every operation of a few hundred grants. A miss costs some microseconds.
const MAX_MASKS: usize = 10_000;

/// Maximum number of concurrent shadowed reads; further ones are not shadowed.
const MAX_SHADOWED: usize = 64;

/// Memory for large request messages (over 16 kB) while they arrive: 64 of the largest by default. Further ones are
/// refused (`GATEWAY_OVERLOADED`; `RATE_LIMITED` if one client has too many).
const LARGE_MESSAGES: usize = 256 << 20;

/// State that all calls of a gateway share.
pub struct Shared {
    /// The workers' heartbeats.
    pub lifetime: Heartbeats,
    /// This gateway's name in the log.
    pub node: String,
    /// The data folder.
    pub data: PathBuf,
    /// The registry as calls see it.
    pub registry: Arc<ArcSwap<Snapshot>>,
    /// Notified after each change of the registry.
    pub registry_changed: watch::Sender<()>,
    /// What revocations have done here.
    pub revocations: Arc<Revocations>,
    /// Checks tokens.
    pub tokens: TokenChecker,
    /// Certificates of open connections.
    pub certificates: Certificates,
    /// Limits of handshakes.
    pub handshakes: Arc<HandshakeLimits>,
    /// Rates and quotas.
    pub limits: Arc<GrantLimits>,
    /// The exchange log.
    pub log: ExchangeLog,
    /// Keys of pseudonyms and salts.
    pub pseudonyms: Pseudonyms,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The last minutes of these.
    pub traffic: Traffic,
    /// Certificates, CAs and revocation lists in force, each with its file and its end.
    pub ends: ArcSwap<Vec<(PathBuf, Ending)>>,
    /// Drift of the sources' responses from their contracts.
    pub drift: DriftTable,
    /// Days until the disk is full, if they are few.
    pub days_remaining: DaysRemaining,
    /// Logs refusals before a grant is found.
    pub refusals: Arc<RefusalLog>,
    /// The faults that make it not ready.
    pub readiness: Readiness,
    /// What is served at present, for reflection.
    pub served: ArcSwap<Served>,
    /// Its generation: calls in flight read it, which keep what they began with.
    pub generation: AtomicU64,
    /// Permits for shadowed reads.
    pub shadowed: Arc<Semaphore>,
    /// Memory for large request messages while they arrive.
    pub message_memory: MessageMemory,
    /// Permits for calls of the gateway's own services.
    pub(super) own_calls: OwnCallPermits,
    /// Largest request message in bytes.
    pub max_message: usize,
    /// Differences of the registry's file from the exchange log.
    pub registry_differences: ArcSwap<Vec<crate::audit::replay::RegistryDifference>>,
    /// What the log records of the gateway's own files; `None` until it was read at the start.
    pub(super) state_files: Mutex<Option<LoggedFiles>>,
    /// Faults of events in the registry's file, one a line.
    pub event_alarm: ArcSwap<String>,
    /// What it shares with other gateways; `None`: it is alone.
    pub(super) cluster: Option<Arc<Cluster>>,
    /// Takes a line for each exchange that has ended, where the configuration has them.
    pub access_lines: AccessLines,
    /// Takes those that are sampled, if the configuration has traces.
    pub tracer: Tracer,
    /// Cancelled when the gateway is to end.
    pub stop: CancellationToken,
}

/// How long a stream may send nothing when the gateway ends.
const SILENCE: Duration = Duration::from_secs(1);

impl Shared {
    /// Makes the state for a configuration; the control plane sets the registry before the listeners open.
    pub fn new(config: &Config, log: ExchangeLog, pseudonyms: Pseudonyms) -> Self {
        let (tokens, metrics) = (&config.tokens, Arc::new(Metrics::default()));
        let admin_event_key = AdminEventKey::read(&super::registry_path(&config.data), &config.vault).ok().flatten();
        Shared {
            lifetime: Heartbeats::default(),
            node: config.node.clone(),
            data: config.data.clone(),
            registry: Arc::default(),
            registry_changed: watch::Sender::new(()),
            revocations: Arc::default(),
            tokens: TokenChecker::new(&tokens.issuer, &tokens.audience, tokens.leeway_s),
            certificates: Certificates::default(),
            handshakes: config.listen.handshake_limits(),
            limits: Arc::default(),
            traffic: Traffic::new(&metrics.exchanges),
            ends: ArcSwap::default(),
            drift: DriftTable::new(&config.data, admin_event_key, metrics.drift.clone()),
            days_remaining: DaysRemaining::default(),
            refusals: Arc::new(RefusalLog::new(log.clone(), metrics.clone())),
            message_memory: MessageMemory::of(
                LARGE_MESSAGES.max(4 * config.listen.max_message),
                metrics.large_messages(),
            ),
            own_calls: OwnCallPermits::new(&metrics),
            log,
            pseudonyms,
            metrics,
            readiness: Readiness::default(),
            served: ArcSwap::default(),
            generation: AtomicU64::new(0),
            shadowed: Arc::new(Semaphore::new(MAX_SHADOWED)),
            max_message: config.listen.max_message,
            registry_differences: ArcSwap::default(),
            state_files: Mutex::default(),
            event_alarm: ArcSwap::default(),
            cluster: None,
            access_lines: AccessLines::default(),
            tracer: Tracer::default(),
            stop: CancellationToken::new(),
        }
    }
}

impl Shared {
    /// Waits for a stream's next message until the gateway ends. Then it waits a little longer: a list that is being
    /// read continues, but a watched request, which may last for an hour, must not delay a restart.
    ///
    /// # Errors
    /// GATEWAY_ENDING once the gateway drains.
    pub async fn unless_ending<T>(&self, next: impl Future<Output = T>) -> Result<T, Refusal> {
        let ends = async {
            self.stop.cancelled().await;
            tokio::time::sleep(SILENCE).await;
        };
        tokio::select! {
            biased;
            next = next => Ok(next),
            () = ends => Err(Refusal::retry(Reason::GatewayEnding, SILENCE)),
        }
    }

    /// Counts the drift of an exchange's responses since the last call of this function.
    pub fn drifted(&self, operation: &Operation, policy: DriftPolicy, observed: &Observed) {
        let found = observed.new_drift();
        if !found.is_empty() {
            self.drift.note(operation, policy, &found, registry::now());
        }
    }

    /// Sets what is served from now on.
    pub fn serve(&self, served: Arc<Served>) {
        let generation = served.generation;
        self.served.store(served);
        self.generation.store(generation, Ordering::Release);
    }

    /// Returns the metrics, with the present states of breakers and endpoints.
    pub fn metrics_text(&self) -> String {
        let served = self.served.load();
        self.metrics.fork_alarm(alarm::read(&self.data).is_some());
        for part in Component::ALL {
            self.metrics.faults(part.label(), self.readiness.count(part) as i64);
        }
        for (name, (_, guard)) in &served.guards {
            self.metrics.sources.guard(name, guard);
        }
        for source in served.catalogue.sources.keys() {
            let ways =
                [UpstreamRank::First, UpstreamRank::Second].map(|nth| served.endpoints.get(&(source.clone(), nth)));
            let open = |upstream: &Arc<Endpoints>| upstream.connections().load(Ordering::Relaxed);
            self.metrics.sources.connections(source, ways.into_iter().flatten().map(open).sum());
        }
        for ((source, _), endpoints) in &served.endpoints {
            endpoints.states().for_each(|(address, up)| self.metrics.sources.endpoint(source, address, up));
        }
        let sealed = *self.log.watch_sealed().borrow();
        self.metrics.log(&self.log.health(), (self.log.durable(), sealed), crate::audit::index::rebuilt());
        self.metrics.registry(&self.registry.load(), registry::now());
        self.metrics.view_age(self.cluster.as_ref().and_then(|cluster| cluster.view_age()).unwrap_or_default());
        self.metrics.text()
    }
}

/// Masks of granted fields over operations, each computed once. The key is two addresses: each cached mask holds both
/// owners, so an address cannot be reused while it is in the cache. Grants with equal fields have one list, and so one
/// mask.
pub struct Masks(quick_cache::sync::Cache<(usize, usize, bool), CachedMask>);

#[derive(Clone)]
struct CachedMask {
    fields: Arc<[String]>,
    operation: Arc<Operation>,
    mask: Arc<Mask>,
}

impl Default for Masks {
    fn default() -> Self {
        Masks(quick_cache::sync::Cache::new(MAX_MASKS))
    }
}

impl Masks {
    /// Returns the mask of a grant over an operation's response.
    pub fn of(&self, grant: &GrantView, operation: &Arc<Operation>) -> Arc<Mask> {
        let fields = Arc::as_ptr(&grant.fields).cast::<String>() as usize;
        let key = (fields, Arc::as_ptr(operation) as usize, grant.approved);
        if let Some(kept) = self.0.get(&key)
            && Arc::ptr_eq(&kept.fields, &grant.fields)
            && Arc::ptr_eq(&kept.operation, operation)
        {
            return kept.mask;
        }
        let mask = Arc::new(access::mask(grant, operation));
        let kept = CachedMask { fields: grant.fields.clone(), operation: operation.clone(), mask: mask.clone() };
        self.0.insert(key, kept);
        mask
    }
}

/// What is served from one load of contracts and connections to the next.
#[derive(Default)]
pub struct Served {
    /// Incremented with each load.
    pub generation: u64,
    /// Contracts and connections.
    pub catalogue: Catalogue,
    /// What is served of them.
    pub operations: ServedOperations,
    /// Masks of grants over the contracts' operations; they end with these.
    masks: Arc<Masks>,
    /// The guard of each source, and of each operation that has its own (`population/GetHousehold`); a guard with
    /// unchanged limits is kept, with its breaker's state.
    guards: HashMap<String, (GuardSettings, Arc<Guard>)>,
    /// Health of the first hub of a source that has two.
    hubs: HashMap<String, Arc<HubHealth>>,
    /// The endpoints of each source, of its primary and its secondary upstream.
    pub endpoints: HashMap<(String, UpstreamRank), Arc<Endpoints>>,
}

/// The rank of a source's upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamRank {
    /// The only one, or the primary.
    First,
    /// Through the second hub.
    Second,
}

/// Returns the name of an operation's own guard.
fn own_guard(source: &str, operation: &str) -> String {
    format!("{source}/{operation}")
}

/// Returns every upstream of every source.
fn upstreams(catalogue: &Catalogue) -> impl Iterator<Item = (&SourceEntry, UpstreamRank, &UpstreamTarget)> {
    catalogue.sources.values().flat_map(|entry| {
        let second = entry.second.as_ref().map(|(_, reach)| (entry.as_ref(), UpstreamRank::Second, reach));
        std::iter::once((entry.as_ref(), UpstreamRank::First, &entry.first)).chain(second)
    })
}

impl Served {
    /// Makes the successor of `before` with a newly loaded catalogue.
    pub fn following(before: &Served, catalogue: Catalogue) -> Self {
        let named = |entry: &SourceEntry| {
            let own = entry.own_guards.iter().map(|(operation, bounds)| (own_guard(&entry.source, operation), *bounds));
            std::iter::once((entry.source.clone(), entry.guard)).chain(own).collect::<Vec<_>>()
        };
        let guards = catalogue.sources.values().flat_map(|entry| named(entry)).map(|(name, bounds)| {
            let kept = before.guards.get(&name).filter(|(before, _)| *before == bounds).map(|(_, guard)| guard.clone());
            let guard = kept.unwrap_or_else(|| Guard::new(&name, bounds));
            (name, (bounds, guard))
        });
        let guards = guards.collect();
        let hub = |entry: &SourceEntry| entry.first.hub.clone().unwrap_or_default();
        let hubs = catalogue.sources.iter().filter(|(_, entry)| entry.second.is_some()).map(|(id, entry)| {
            let same = before.catalogue.sources.get(id).is_some_and(|other| hub(other) == hub(entry));
            let kept = before.hubs.get(id).filter(|_| same).cloned();
            (id.clone(), kept.unwrap_or_else(|| HubHealth::new(id, &hub(entry))))
        });
        let hubs = hubs.collect();
        let endpoints = upstreams(&catalogue).map(|(entry, nth, reach)| {
            let key = (entry.source.clone(), nth);
            let kept = before.endpoints.get(&key).filter(|kept| kept.are_at(&reach.addresses)).cloned();
            (key, kept.unwrap_or_else(|| Endpoints::new(&entry.source, &reach.addresses)))
        });
        let endpoints = endpoints.collect();
        let (generation, operations) = (before.generation + 1, ServedOperations::of(&catalogue));
        Served { generation, catalogue, operations, masks: Arc::default(), guards, hubs, endpoints }
    }

    /// Returns a source's guards by name, each with its bounds: its own, and those that operations of it have of their own.
    pub fn guards_of(&self, source: &str) -> impl Iterator<Item = (&str, &GuardSettings, &Arc<Guard>)> {
        let own = move |name: &str| name.split('/').next() == Some(source);
        let all = self.guards.iter().filter(move |(name, _)| own(name));
        all.map(|(name, (settings, guard))| (name.as_str(), settings, guard))
    }

    /// Returns the guard of an operation: its own, or its source's.
    fn guard(&self, operation: &Operation) -> Option<OperationGuard> {
        let own = self.guards.get(&own_guard(&operation.source.id, &operation.name));
        let (_, guard) = own.or_else(|| self.guards.get(&operation.source.id))?;
        Some(guard.before(&operation.name, operation.indicates_load()))
    }

    /// Returns the upstreams with several endpoints, for health checks.
    pub fn balanced(&self) -> impl Iterator<Item = (&UpstreamTarget, &Arc<Endpoints>)> {
        let several = upstreams(&self.catalogue).filter(|(_, _, reach)| reach.addresses.len() > 1);
        several.filter_map(|(entry, nth, reach)| Some((reach, self.endpoints.get(&(entry.source.clone(), nth))?)))
    }
}

/// An upstream of a source: its endpoints, with an adapter for each.
pub struct Upstream {
    /// The hub's id; `None`: direct.
    pub hub: Option<String>,
    /// Its endpoints, shared by all workers.
    pub endpoints: Arc<Endpoints>,
    /// This worker's adapters, in the order of the endpoints.
    pub adapters: Vec<Adapter>,
}

/// The secondary upstream of a source.
#[derive(Clone)]
pub struct SecondaryUpstream {
    /// Its purpose.
    pub mode: SecondMode,
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// Health of the primary upstream's hub, shared by all workers.
    pub first_health: OperationHub,
}

/// One operation with the upstreams of its source.
#[derive(Clone)]
pub struct Route {
    /// The operation.
    pub operation: Arc<Operation>,
    /// The upstream of its source.
    pub upstream: Arc<Upstream>,
    /// A secondary one, through a second hub.
    pub second: Option<SecondaryUpstream>,
    /// Its guard, or its source's, shared by all workers.
    pub guard: OperationGuard,
    /// Its metrics.
    pub metrics: Arc<OperationMetrics>,
    /// The policy for responses with drift.
    pub drift: DriftPolicy,
    /// Whether the exchange's trace goes to the source.
    pub trace_context: bool,
    /// Whether it is answered from the own disk alone while no majority of etcd responds.
    pub spools: bool,
}

/// A worker's routes, with its own connections.
#[derive(Default)]
pub struct Routes {
    /// Generation of what they serve.
    pub generation: u64,
    by_path: HashMap<String, Route>,
    /// Masks of grants over these routes' operations, shared by all workers.
    pub masks: Arc<Masks>,
}

impl Routes {
    /// Makes routes for every operation of a source with a connection entry.
    pub fn new(served: &Served, metrics: &ExchangeMetrics) -> Self {
        let upstream = |entry: &SourceEntry, nth, reach: &UpstreamTarget| {
            let endpoints = served.endpoints.get(&(entry.source.clone(), nth))?.clone();
            let adapter =
                |address: &String| Adapter::new(Arc::new(entry.connect(reach, address, endpoints.connections())));
            let adapters = reach.addresses.iter().map(adapter).collect();
            Some(Arc::new(Upstream { hub: reach.hub.clone(), endpoints, adapters }))
        };
        let both = |id: &str, entry: &SourceEntry| {
            let second = entry.second.as_ref().and_then(|(mode, reach)| {
                let first_health = served.hubs.get(id)?.before("");
                Some(SecondaryUpstream {
                    mode: *mode,
                    upstream: upstream(entry, UpstreamRank::Second, reach)?,
                    first_health,
                })
            });
            Some((upstream(entry, UpstreamRank::First, &entry.first)?, second))
        };
        let ways: HashMap<&str, (Arc<Upstream>, Option<SecondaryUpstream>)> =
            served.catalogue.sources.iter().filter_map(|(id, entry)| Some((id.as_str(), both(id, entry)?))).collect();
        let route = |operation: &Arc<Operation>| {
            let id = operation.source.id.as_str();
            let (upstream, mut second) = ways.get(id)?.clone();
            let entry = served.catalogue.sources.get(id)?;
            let (drift, trace_context) = (entry.drift.of(operation), entry.trace_context);
            if let (Some(second), Some(hub)) = (&mut second, served.hubs.get(id)) {
                second.first_health = hub.before(&operation.name);
            }
            let guard = served.guard(operation)?;
            let metrics = Arc::new(metrics.of(id, &operation.full_name));
            let (path, operation) = (operation.path.clone(), operation.clone());
            let spools = served.catalogue.spooled.contains(&path);
            let route = Route { operation, upstream, second, guard, metrics, drift, trace_context, spools };
            Some((path, route))
        };
        let by_path = connected(&served.catalogue).filter_map(route).collect();
        Routes { generation: served.generation, by_path, masks: served.masks.clone() }
    }

    /// Returns the route of a gRPC path.
    pub fn find(&self, path: &str) -> Option<&Route> {
        self.by_path.get(path)
    }
}
