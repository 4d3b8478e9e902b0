//! What all calls share, and what each worker has of its own: data-plane state, read from snapshots that the control
//! plane swaps as a whole.

use super::heartbeat::Heartbeats;
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
use crate::registry::{self, AdminEventKey, GrantView, Snapshot};
use crate::status::{Reason, Refusal};
use crate::telemetry::{AccessLines, ExchangeMetrics, Metrics, OperationMetrics};
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

/// Most reads that are shadowed at once; further ones are not.
const MAX_SHADOWED: usize = 64;

/// Memory for large request messages (over 16 kB) while they come: 64 of the largest by default. More are refused
/// (`GATEWAY_OVERLOADED`; `RATE_LIMITED` where it is one client that has too many).
const LARGE_MESSAGES: usize = 256 << 20;

/// What all calls of a gateway share.
pub struct Shared {
    /// Which workers turn.
    pub lifetime: Heartbeats,
    /// This gateway's name in the log.
    pub node: String,
    /// The data folder.
    pub data: PathBuf,
    /// The registry as calls see it.
    pub registry: Arc<ArcSwap<Snapshot>>,
    /// Told after each change of the registry.
    pub registry_changed: watch::Sender<()>,
    /// Checks tokens.
    pub tokens: TokenChecker,
    /// Certificates of open connections.
    pub certificates: Certificates,
    /// How many handshakes there may be.
    pub handshakes: Arc<HandshakeLimits>,
    /// Rates and quotas.
    pub limits: GrantLimits,
    /// The exchange log.
    pub log: ExchangeLog,
    /// Keys of pseudonyms and salts.
    pub pseudonyms: Pseudonyms,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// What of the sources' responses is not as their contracts say.
    pub drift: DriftTable,
    /// Days until the disk is full, where they are few.
    pub days_remaining: DaysRemaining,
    /// Logs what is refused before a right is found.
    pub refusals: Arc<RefusalLog>,
    /// The faults that keep it from doing its work.
    pub readiness: Readiness,
    /// What is served, for reflection.
    pub served: ArcSwap<Served>,
    /// Its generation: read by calls under way, which hold on to what they began with.
    pub generation: AtomicU64,
    /// Permits for shadowed reads.
    pub shadowed: Arc<Semaphore>,
    /// Room for large request messages while they come.
    pub message_memory: MessageMemory,
    /// Places of calls of the gateway's own services.
    pub(super) own_calls: OwnCallPermits,
    /// Largest request message in bytes.
    pub max_message: usize,
    /// Where the registry's file is not what the exchange log says.
    pub registry_differences: ArcSwap<Vec<crate::audit::replay::RegistryDifference>>,
    /// What the log tells of files that the gateway keeps for itself; `None` until it was read at the start.
    pub(super) state_files: Mutex<Option<LoggedFiles>>,
    /// What is wrong with acts in the registry's file, a line each.
    pub event_alarm: ArcSwap<String>,
    /// Takes a line for each exchange that has ended, where the configuration has them.
    pub access_lines: AccessLines,
    /// Told when the gateway is to end.
    pub stop: CancellationToken,
}

/// How long a stream may say nothing when the gateway ends.
const SILENCE: Duration = Duration::from_secs(1);

impl Shared {
    /// State for a configuration; the registry is put in by the control plane before the listeners open.
    pub fn new(config: &Config, log: ExchangeLog, pseudonyms: Pseudonyms) -> Self {
        let (tokens, metrics) = (&config.tokens, Arc::new(Metrics::default()));
        let admin_event_key = AdminEventKey::read(&super::registry_path(&config.data), &config.vault).ok().flatten();
        Shared {
            lifetime: Heartbeats::default(),
            node: config.node.clone(),
            data: config.data.clone(),
            registry: Arc::default(),
            registry_changed: watch::Sender::new(()),
            tokens: TokenChecker::new(&tokens.issuer, &tokens.audience, tokens.leeway_s),
            certificates: Certificates::default(),
            handshakes: config.listen.handshake_limits(),
            limits: GrantLimits::default(),
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
            access_lines: AccessLines::default(),
            stop: CancellationToken::new(),
        }
    }
}

impl Shared {
    /// Waits for a stream's next message until the gateway ends. Then it may take a moment longer: a list that is being read continues, but
    /// a watched request, which may last for an hour, must not delay a restart.
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

    /// Counts by what an exchange's answers have drifted since this was called last.
    pub fn drifted(&self, operation: &Operation, policy: DriftPolicy, observed: &Observed) {
        let found = observed.new_drift();
        if !found.is_empty() {
            self.drift.note(operation, policy, &found, registry::now());
        }
    }

    /// From now on, this is served.
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
        self.metrics.text()
    }
}

/// Masks of granted fields over operations, worked out once. The key is two addresses: each kept mask holds both owners,
/// so an address cannot be another's while it stands here. Grants of equal fields have one list, and so one mask.
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
    /// The mask of a grant over an operation's answer.
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
    /// Grows with each load.
    pub generation: u64,
    /// Contracts and connections.
    pub catalogue: Catalogue,
    /// Masks of grants over the contracts' operations; they go with these.
    masks: Arc<Masks>,
    /// The guard of each source, and of each operation that has its own (`population/GetHousehold`); one whose bounds did not
    /// change lives on, with its breaker's state.
    guards: HashMap<String, (GuardSettings, Arc<Guard>)>,
    /// Whether the first hub of a source that has two answers.
    hubs: HashMap<String, Arc<HubHealth>>,
    /// The endpoints of each source, by its first and its second way.
    pub endpoints: HashMap<(String, UpstreamRank), Arc<Endpoints>>,
}

/// Which of a source's ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamRank {
    /// The one, or the first.
    First,
    /// Through the second hub.
    Second,
}

/// The name of the guard that an operation has of its own.
fn own_guard(source: &str, operation: &str) -> String {
    format!("{source}/{operation}")
}

/// Every way of every source.
fn upstreams(catalogue: &Catalogue) -> impl Iterator<Item = (&SourceEntry, UpstreamRank, &UpstreamTarget)> {
    catalogue.sources.values().flat_map(|entry| {
        let second = entry.second.as_ref().map(|(_, reach)| (entry.as_ref(), UpstreamRank::Second, reach));
        std::iter::once((entry.as_ref(), UpstreamRank::First, &entry.first)).chain(second)
    })
}

impl Served {
    /// Follows `before` with a newly loaded catalogue.
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
        Served { generation: before.generation + 1, catalogue, masks: Arc::default(), guards, hubs, endpoints }
    }

    /// The guard of an operation: its own, or its source's.
    fn guard(&self, operation: &Operation) -> Option<OperationGuard> {
        let own = self.guards.get(&own_guard(&operation.source.id, &operation.name));
        let (_, guard) = own.or_else(|| self.guards.get(&operation.source.id))?;
        Some(guard.before(&operation.name, operation.indicates_load()))
    }

    /// The ways that have several endpoints, for health checks.
    pub fn balanced(&self) -> impl Iterator<Item = (&UpstreamTarget, &Arc<Endpoints>)> {
        let several = upstreams(&self.catalogue).filter(|(_, _, reach)| reach.addresses.len() > 1);
        several.filter_map(|(entry, nth, reach)| Some((reach, self.endpoints.get(&(entry.source.clone(), nth))?)))
    }
}

/// A way to a source: its endpoints, with an adapter for each.
pub struct Upstream {
    /// The hub's id; `None`: direct.
    pub hub: Option<String>,
    /// Where calls may go, as all workers have seen it.
    pub endpoints: Arc<Endpoints>,
    /// This worker's adapters, in the order of the endpoints.
    pub adapters: Vec<Adapter>,
}

/// The second way to a source.
#[derive(Clone)]
pub struct SecondaryUpstream {
    /// What it is for.
    pub mode: SecondMode,
    /// The way.
    pub upstream: Arc<Upstream>,
    /// Whether the first one's hub answers, as all workers have seen it.
    pub first_health: OperationHub,
}

/// One operation with the way to its source.
#[derive(Clone)]
pub struct Route {
    /// The operation.
    pub operation: Arc<Operation>,
    /// The way to its source.
    pub upstream: Arc<Upstream>,
    /// Another one, through a second hub.
    pub second: Option<SecondaryUpstream>,
    /// Its guard, or its source's, shared by all workers.
    pub guard: OperationGuard,
    /// Its metrics.
    pub metrics: Arc<OperationMetrics>,
    /// What becomes of responses that have drifted.
    pub drift: DriftPolicy,
}

/// A worker's routes, with connections of its own.
#[derive(Default)]
pub struct Routes {
    /// Of what is served by them.
    pub generation: u64,
    by_path: HashMap<String, Route>,
    /// Masks of grants over these routes' operations, shared by all workers.
    pub masks: Arc<Masks>,
}

impl Routes {
    /// Routes for every operation whose source has a connection entry.
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
            // Of several contracts of one source, the entry has chosen one.
            if served.catalogue.sources.get(id)?.contract != operation.source.version {
                return None;
            }
            let (upstream, mut second) = ways.get(id)?.clone();
            let drift = served.catalogue.sources.get(id)?.drift.of(operation);
            if let (Some(second), Some(hub)) = (&mut second, served.hubs.get(id)) {
                second.first_health = hub.before(&operation.name);
            }
            let guard = served.guard(operation)?;
            let metrics = Arc::new(metrics.of(id, &operation.full_name));
            let route = Route { operation: operation.clone(), upstream, second, guard, metrics, drift };
            Some((operation.path.clone(), route))
        };
        let by_path = served.catalogue.contracts.operations().into_iter().filter_map(route).collect();
        Routes { generation: served.generation, by_path, masks: served.masks.clone() }
    }

    /// The route of a gRPC path.
    pub fn find(&self, path: &str) -> Option<&Route> {
        self.by_path.get(path)
    }
}
