//! Logs, metrics and traces. None contains a secret, a payload or personal data: labels are names from contracts.

mod access_lines;
mod ended;
mod exchanges;
mod log;
mod ports;
mod revocations;
mod rights;
mod sign_in;
mod sources;
mod stages;
#[cfg(test)]
mod tests;
mod traces;
mod traffic;
mod witnesses;

use crate::exchange_log::Health;
use crate::exchange_log::clock;
use crate::registry::Snapshot;
use crate::shares::ShareMetrics;
use access_lines::AccessLineMetrics;
use log::LogGauges;
use ports::ConnectionMetrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use rights::RightsGauges;
use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tracing_subscriber::filter::{FilterExt, FilterFn, LevelFilter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

pub use access_lines::{ACCESS_TARGET, AccessLines};
pub use ended::EndedExchange;
pub use exchanges::{DriftMetrics, ExchangeMetrics, OperationMetrics};
pub use ports::PortMetrics;
pub use revocations::{RevocationEffect, Revocations};
pub use sign_in::SignInMetrics;
pub use sources::SourceGauges;
pub use stages::{Stage, StageTimes};
pub use traces::{CallerTrace, ExchangeTrace, TraceMetrics, TraceSettings, Tracer};
pub use traffic::{SAMPLE_EVERY, SourceTraffic, Traffic};
pub use witnesses::{WitnessMetrics, WitnessState};

/// Starts logging to standard error: readable text on a terminal, JSON lines elsewhere. `NDXP_LOG` filters (`ndxp_gateway=debug`);
/// without it, `level` applies. Access lines go to standard output, always as JSON. A slow reader of the log delays no thread that logs.
pub fn start_logging(level: &str) {
    let is_access = |metadata: &tracing::Metadata<'_>| metadata.target() == ACCESS_TARGET;
    let lines = fmt::layer().json().flatten_event(true).with_writer(std::io::stdout);
    let lines = lines.with_filter(FilterFn::new(is_access).with_max_level_hint(LevelFilter::INFO));
    let level = EnvFilter::try_from_env("NDXP_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let filter = level.and(FilterFn::new(move |metadata| !is_access(metadata)));
    let log = fmt::layer().with_writer(std::io::stderr);
    let log = if std::io::stderr().is_terminal() { log.with_target(false).boxed() } else { log.json().boxed() };
    // A second call in one process (tests) changes nothing.
    let _ = tracing_subscriber::registry().with(lines).with(log.with_filter(filter)).try_init();
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShadowLabels {
    source: String,
    operation: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DifferenceLabels {
    source: String,
    operation: String,
    field: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OAuthEndpoint {
    endpoint: &'static str,
}

/// Metrics of the OAuth2 endpoints.
#[derive(Debug, Clone, Default)]
pub struct OAuthMetrics {
    /// Blocking work.
    pub work: ShareMetrics,
    /// The port.
    pub port: PortMetrics,
    limited: Family<OAuthEndpoint, Counter>,
}

impl OAuthMetrics {
    /// Counts a request that was refused because its client exceeded its rate.
    pub fn limited(&self, endpoint: &'static str) {
        self.limited.get_or_create(&OAuthEndpoint { endpoint }).inc();
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OmittedLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListLabels {
    url: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabels {
    part: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    file: String,
    kind: &'static str,
}

/// The gateway's metrics, in the text format of Prometheus.
pub struct Metrics {
    registry: Registry,
    /// Exchanges.
    pub exchanges: ExchangeMetrics,
    /// Responses that differ from their contracts.
    pub drift: DriftMetrics,
    certificates: Family<CertificateLabels, Gauge>,
    faults: Family<PartLabels, Gauge>,
    lists: Family<ListLabels, Gauge>,
    shed: Counter,
    refusals_left_out: Family<OmittedLabels, Counter>,
    reads_refused: Family<OmittedLabels, Counter>,
    disk_free: Gauge,
    disk_days: Gauge<f64, AtomicU64>,
    clock_behind: Gauge<f64, AtomicU64>,
    view_age: Gauge<f64, AtomicU64>,
    log: LogGauges,
    shadowed: Family<ShadowLabels, Counter>,
    shadow_differences: Family<DifferenceLabels, Counter>,
    work_under_way: Family<PoolLabels, Gauge>,
    work_refused: Family<PoolLabels, Counter>,
    own_calls: Family<ServiceLabels, Gauge>,
    large_messages: ShareMetrics,
    own_calls_refused: Family<ServiceLabels, Counter>,
    tokens_removed: Counter,
    registry_differences: Gauge,
    admin_events_refused: Gauge,
    pending_changes: Gauge,
    admin_events_missing: Counter,
    fork_alarm: Gauge,
    object_store_pending: Gauge,
    /// The states of sources.
    pub sources: SourceGauges,
    /// The log's witnesses.
    pub witnesses: WitnessMetrics,
    oauth_limited: Family<OAuthEndpoint, Counter>,
    connections: ConnectionMetrics,
    rights: RightsGauges,
    /// Access lines.
    pub access_lines: AccessLineMetrics,
    /// Traces.
    pub traces: TraceMetrics,
    /// Of sign-ins at the console.
    pub sign_in: SignInMetrics,
}

/// Buckets from 0.25 ms to about a minute.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 18))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ndxp");
        let exchanges = ExchangeMetrics::register(&mut registry);
        let drift = DriftMetrics::register(&mut registry);
        let certificates = Family::<CertificateLabels, Gauge>::default();
        let help = "Expiry of a certificate or revocation list, Unix time, by file";
        registry.register("certificate_end_seconds", help, certificates.clone());
        let faults = Family::<PartLabels, Gauge>::default();
        registry.register("faults", "Faults that keep the gateway from being ready, by part", faults.clone());
        let connections = ConnectionMetrics::register(&mut registry);
        let lists = Family::<ListLabels, Gauge>::default();
        let help = "Whether the last response of a revocation list URL was accepted";
        registry.register("revocation_list_fetched", help, lists.clone());
        let sources = SourceGauges::default();
        sources.register(&mut registry);
        let shed = Counter::default();
        registry.register("shed_calls", "Calls that the overloaded gateway refused before reading them", shed.clone());
        let reads_refused = Family::<OmittedLabels, Counter>::default();
        let help = "Refused reads of the log's files: too many at once, or too fast";
        registry.register("log_reads_refused", help, reads_refused.clone());
        let (disk_free, disk_days) = (Gauge::default(), Gauge::<f64, AtomicU64>::default());
        registry.register("disk_free_bytes", "Free space on the data folder's disk", disk_free.clone());
        let help = "Days until the data folder's disk is full, by its growth; 3650 if it does not fill";
        registry.register("disk_days_remaining", help, disk_days.clone());
        let view_age = Gauge::<f64, AtomicU64>::default();
        let help = "How old this gateway's view of the registry of several gateways is at most; 0 where it is alone";
        registry.register("registry_view_age_seconds", help, view_age.clone());
        let clock_behind = Gauge::<f64, AtomicU64>::default();
        let help = "Seconds by which the system clock is behind the gateway's clock, which never goes back";
        registry.register("clock_behind_seconds", help, clock_behind.clone());
        let log = LogGauges::registered(&mut registry);
        let refusals_left_out = Family::<OmittedLabels, Counter>::default();
        let help = "Refusals without their own entry: counted in the next entry of the same identity";
        registry.register("refusals_suppressed", help, refusals_left_out.clone());
        let shadowed = Family::<ShadowLabels, Counter>::default();
        registry.register("shadowed_reads", "Shadow reads at a second hub, by result", shadowed.clone());
        let shadow_differences = Family::<DifferenceLabels, Counter>::default();
        let help = "Response fields that differ between the second hub and the first";
        registry.register("shadow_differences", help, shadow_differences.clone());
        let work_under_way = Family::<PoolLabels, Gauge>::default();
        let help = "Running and queued work of the control plane, by pool";
        registry.register("control_work_in_flight", help, work_under_way.clone());
        let work_refused = Family::<PoolLabels, Counter>::default();
        let help = "Work of the control plane refused because its pool was full, by pool";
        registry.register("control_work_refused", help, work_refused.clone());
        let own_calls = Family::<ServiceLabels, Gauge>::default();
        let help = "Calls of the gateway's own services in flight, by service";
        registry.register("own_calls", help, own_calls.clone());
        let large_messages = ShareMetrics::default();
        let help = "Memory reserved for large requests while they arrive";
        registry.register("large_message_bytes", help, large_messages.held.clone());
        let help = "Large requests refused for lack of memory";
        registry.register("large_messages_refused", help, large_messages.refused.clone());
        let own_calls_refused = Family::<ServiceLabels, Counter>::default();
        let help = "Refused calls of the gateway's own services: too many at once, or too fast";
        registry.register("own_calls_refused", help, own_calls_refused.clone());
        let oauth_limited = Family::<OAuthEndpoint, Counter>::default();
        let help = "OAuth2 requests refused because their client exceeded its rate, by endpoint";
        registry.register("oauth_limited", help, oauth_limited.clone());
        let registry_differences = Gauge::default();
        let help = "Registry records that differ from the exchange log";
        registry.register("registry_differences", help, registry_differences.clone());
        let admin_events_refused = Gauge::default();
        let help = "Admin event rows in the registry's file that this gateway did not record";
        registry.register("admin_events_refused", help, admin_events_refused.clone());
        let pending_changes = Gauge::default();
        let help = "Changes and grants waiting for a second person, at most 1,000";
        registry.register("pending_changes", help, pending_changes.clone());
        let admin_events_missing = Counter::default();
        let help = "Admin events removed from the registry's file before they were in the exchange log";
        registry.register("admin_events_missing", help, admin_events_missing.clone());
        let fork_alarm = Gauge::default();
        let help = "1 while a witness's report of a fork of the exchange log is not acknowledged";
        registry.register("log_fork_alarm", help, fork_alarm.clone());
        let object_store_pending = Gauge::default();
        let help = "Entries under the published checkpoint that are not in the object store yet";
        registry.register("log_object_store_pending_entries", help, object_store_pending.clone());
        let witnesses = WitnessMetrics::default();
        witnesses.register(&mut registry);
        let rights = RightsGauges::default();
        rights.register(&mut registry);
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running version", build);
        let started = Gauge::<i64>::default();
        started.set(crate::registry::now());
        registry.register("start_time_seconds", "Start of the gateway, Unix time", started);
        let access_lines = AccessLineMetrics::register(&mut registry);
        let traces = TraceMetrics::register(&mut registry);
        let sign_in = SignInMetrics::register(&mut registry);
        let tokens_removed = Counter::default();
        registry.register("tokens_removed", "Issued tokens removed after their expiry", tokens_removed.clone());
        Metrics {
            registry,
            exchanges,
            drift,
            certificates,
            faults,
            lists,
            shed,
            refusals_left_out,
            reads_refused,
            disk_free,
            disk_days,
            clock_behind,
            view_age,
            log,
            shadowed,
            shadow_differences,
            work_under_way,
            work_refused,
            own_calls,
            large_messages,
            own_calls_refused,
            tokens_removed,
            registry_differences,
            admin_events_refused,
            pending_changes,
            admin_events_missing,
            oauth_limited,
            connections,
            rights,
            access_lines,
            traces,
            sign_in,
            fork_alarm,
            object_store_pending,
            sources,
            witnesses,
        }
    }
}

impl Metrics {
    /// Sets whether a fork alarm is active.
    pub fn fork_alarm(&self, stands: bool) {
        self.fork_alarm.set(stands.into());
    }

    /// Sets how many published entries the object store does not have yet.
    pub fn object_store_pending(&self, entries: u64) {
        self.object_store_pending.set(i64::try_from(entries).unwrap_or(i64::MAX));
    }

    /// Counts a call that was shed.
    pub fn shed(&self) {
        self.shed.inc();
    }

    /// Counts a connection that was closed without a byte.
    pub fn probe(&self) {
        self.connections.probe();
    }

    /// Counts refused reads of the log's files, by kind.
    pub fn reads_refused(&self, kind: &'static str) -> Counter {
        self.reads_refused.get_or_create_owned(&OmittedLabels { kind })
    }

    /// Sets the free space on the data folder's disk in bytes, and the days until it is full.
    pub fn disk(&self, free: u64, days: f64) {
        self.disk_free.set(i64::try_from(free).unwrap_or(i64::MAX));
        self.disk_days.set(days);
    }

    /// Returns the last free space on that disk in bytes, and the days until it is full; `None` before the first.
    pub fn disk_now(&self) -> Option<(u64, f64)> {
        let free = u64::try_from(self.disk_free.get()).unwrap_or(0);
        (free > 0).then(|| (free, self.disk_days.get()))
    }

    /// Sets the state of the exchange log.
    pub fn log(&self, health: &Health, (durable, sealed): (u64, u64), index_rebuilt: u64) {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.log.entries.set(whole(durable));
        self.log.sealed_entries.set(whole(sealed));
        self.log.unsealed_entries.set(whole(health.unsealed_entries));
        self.log.unsealed_bytes.set(whole(health.unsealed_bytes));
        self.log.unsealed_age.set(health.unsealed_age.as_secs_f64());
        self.log.checkpoint_age.set(health.checkpoint_age.as_secs_f64());
        self.log.last_sync.set(health.last_sync.as_secs_f64());
        self.log.stop_in(health.stopped);
        self.log.spooled.set(whole(health.spooled));
        self.clock_behind.set(clock::behind().as_secs_f64());
        self.log.index_rebuilt.set(whole(index_rebuilt));
    }

    /// Counts a refusal without its own entry.
    pub fn refusal_suppressed(&self, kind: &'static str) {
        self.refusals_left_out.get_or_create(&OmittedLabels { kind }).inc();
    }

    /// Sets the earliest expiry of each file's certificates or revocation lists, Unix time in seconds.
    pub fn ends<'f>(&self, files: impl Iterator<Item = (&'f std::path::Path, &'static str, i64)>) {
        self.certificates.clear();
        for (file, kind, at) in files {
            self.certificates.get_or_create(&CertificateLabels { file: file.display().to_string(), kind }).set(at);
        }
    }

    /// Sets how old this gateway's view of the registry is at most.
    pub fn view_age(&self, age: Duration) {
        self.view_age.set(age.as_secs_f64());
    }

    /// Counts the clients and the rights of a registry.
    pub fn registry(&self, snapshot: &Snapshot, now: i64) {
        self.rights.count(snapshot, now);
    }

    /// Returns the metrics of a port.
    pub fn port(&self, port: &'static str) -> PortMetrics {
        self.connections.port(port)
    }

    /// Counts a shadow read at a second hub, with the fields in which its response differs; `None` if there was no response.
    pub fn shadowed(&self, source: &str, operation: &str, differing: Option<&BTreeSet<String>>) {
        let result = match differing {
            None => "failed",
            Some(none) if none.is_empty() => "same",
            Some(_) => "different",
        };
        let (source, operation) = (source.to_owned(), operation.to_owned());
        for field in differing.into_iter().flatten() {
            let (source, operation, field) = (source.clone(), operation.clone(), field.clone());
            self.shadow_differences.get_or_create(&DifferenceLabels { source, operation, field }).inc();
        }
        self.shadowed.get_or_create(&ShadowLabels { source, operation, result }).inc();
    }

    /// Returns the metrics of the OAuth2 endpoints.
    pub fn oauth(&self) -> OAuthMetrics {
        OAuthMetrics { work: self.work("oauth"), port: self.port("https"), limited: self.oauth_limited.clone() }
    }

    /// Sets the number of registry records that differ from the exchange log.
    pub fn registry_differences(&self, differences: usize) {
        self.registry_differences.set(i64::try_from(differences).unwrap_or(i64::MAX));
    }

    /// Sets the number of admin event rows that this gateway did not record.
    pub fn events_refused(&self, rows: u64) {
        self.admin_events_refused.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    /// Sets the number of changes and grants that wait for a second person.
    pub fn pending_changes(&self, waiting: u64) {
        self.pending_changes.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// Counts admin events that were removed before they were logged.
    pub fn admin_events_missing(&self, admin_events: u64) {
        self.admin_events_missing.inc_by(admin_events);
    }

    /// Counts removed issued tokens.
    pub fn tokens_removed(&self, tokens: u64) {
        self.tokens_removed.inc_by(tokens);
    }

    /// Returns the metrics of a pool's work.
    pub fn work(&self, pool: &'static str) -> ShareMetrics {
        let held = self.work_under_way.get_or_create(&PoolLabels { pool }).clone();
        ShareMetrics { held, refused: self.work_refused.get_or_create(&PoolLabels { pool }).clone() }
    }

    /// Returns the metrics of large requests while they arrive.
    pub fn large_messages(&self) -> ShareMetrics {
        self.large_messages.clone()
    }

    /// Returns the metrics of calls of one of the gateway's own services.
    pub fn own_calls(&self, service: &'static str) -> ShareMetrics {
        let labels = ServiceLabels { service };
        let held = self.own_calls.get_or_create_owned(&labels);
        ShareMetrics { held, refused: self.own_calls_refused.get_or_create_owned(&labels) }
    }

    /// Sets the faults of a part of the gateway.
    pub fn faults(&self, part: &'static str, count: i64) {
        self.faults.get_or_create(&PartLabels { part }).set(count);
    }

    /// Counts a connection refused before its first request.
    pub fn handshake_refused(&self, cause: &'static str) {
        self.connections.refused(cause);
    }

    /// Sets whether the last response of a revocation list URL was accepted.
    pub fn list_fetched(&self, url: &str, taken: bool) {
        self.lists.get_or_create(&ListLabels { url: url.to_owned() }).set(i64::from(taken));
    }

    /// Returns the text that a Prometheus server scrapes.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(_) => String::new(),
        }
    }
}
