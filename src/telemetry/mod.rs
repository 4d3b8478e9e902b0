//! Logs and metrics. Neither ever holds a secret, a payload or anybody's data: labels are names of contracts.

mod access_lines;
mod ended;
mod exchanges;
mod log;
mod ports;
mod revocations;
mod rights;
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
use tracing_subscriber::filter::{FilterExt, FilterFn, LevelFilter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

pub use access_lines::{ACCESS_TARGET, AccessLines};
pub use ended::EndedExchange;
pub use exchanges::{DriftMetrics, ExchangeMetrics, OperationMetrics};
pub use ports::PortMetrics;
pub use revocations::{RevocationEffect, Revocations};
pub use sources::SourceGauges;
pub use stages::{Stage, StageTimes};
pub use traces::{CallerTrace, ExchangeTrace, TraceMetrics, TraceSettings, Tracer};
pub use traffic::{SAMPLE_EVERY, SourceTraffic, Traffic};
pub use witnesses::{WitnessMetrics, WitnessState};

/// Starts logging to standard error: for people on a terminal, as JSON lines elsewhere. `NDXP_LOG` filters
/// (`ndxp_gateway=debug`); without it, `level` counts. Access lines go to standard output, always as JSON: a log that is read slowly
/// holds up nobody who logs.
pub fn start_logging(level: &str) {
    let is_access = |metadata: &tracing::Metadata<'_>| metadata.target() == ACCESS_TARGET;
    let lines = fmt::layer().json().flatten_event(true).with_writer(std::io::stdout);
    let lines = lines.with_filter(FilterFn::new(is_access).with_max_level_hint(LevelFilter::INFO));
    let level = EnvFilter::try_from_env("NDXP_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let filter = level.and(FilterFn::new(move |metadata| !is_access(metadata)));
    let log = fmt::layer().with_writer(std::io::stderr);
    let log = if std::io::stderr().is_terminal() { log.with_target(false).boxed() } else { log.json().boxed() };
    // A second start in one process (tests) changes nothing.
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

/// What is counted of the OAuth2 endpoints.
#[derive(Debug, Clone, Default)]
pub struct OAuthMetrics {
    /// Their blocking work.
    pub work: ShareMetrics,
    /// Their port.
    pub port: PortMetrics,
    limited: Family<OAuthEndpoint, Counter>,
}

impl OAuthMetrics {
    /// Counts a request that was refused because its client exceeds its rate.
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
    /// Of exchanges.
    pub exchanges: ExchangeMetrics,
    /// Of answers that are not as their contracts say.
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
    /// The states of sources.
    pub sources: SourceGauges,
    /// Of the log's witnesses.
    pub witnesses: WitnessMetrics,
    oauth_limited: Family<OAuthEndpoint, Counter>,
    connections: ConnectionMetrics,
    rights: RightsGauges,
    /// Of access lines.
    pub access_lines: AccessLineMetrics,
    /// Of traces.
    pub traces: TraceMetrics,
}

/// From 0.25 ms to about a minute.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 18))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ndxp");
        let exchanges = ExchangeMetrics::register(&mut registry);
        let drift = DriftMetrics::register(&mut registry);
        let certificates = Family::<CertificateLabels, Gauge>::default();
        let help = "When a certificate or a revocation list ends, Unix time, by file";
        registry.register("certificate_end_seconds", help, certificates.clone());
        let faults = Family::<PartLabels, Gauge>::default();
        registry.register("faults", "What keeps the gateway from being ready, by part", faults.clone());
        let connections = ConnectionMetrics::register(&mut registry);
        let lists = Family::<ListLabels, Gauge>::default();
        let help = "Whether the last answer of a URL with revocation lists was taken";
        registry.register("revocation_list_fetched", help, lists.clone());
        let sources = SourceGauges::default();
        sources.register(&mut registry);
        let shed = Counter::default();
        registry.register("shed_calls", "Calls that an overloaded gateway refused unseen", shed.clone());
        let reads_refused = Family::<OmittedLabels, Counter>::default();
        let help = "Reads of the log's files that were refused: too many, or too fast";
        registry.register("log_reads_refused", help, reads_refused.clone());
        let (disk_free, disk_days) = (Gauge::default(), Gauge::<f64, AtomicU64>::default());
        registry.register("disk_free_bytes", "Free space on the data folder's disk", disk_free.clone());
        let help = "Days until the data folder's disk is full, by its growth; 3650 where it does not fill";
        registry.register("disk_days_remaining", help, disk_days.clone());
        let clock_behind = Gauge::<f64, AtomicU64>::default();
        let help = "Seconds by which the system's clock is behind the gateway's, which does not go back";
        registry.register("clock_behind_seconds", help, clock_behind.clone());
        let log = LogGauges::registered(&mut registry);
        let refusals_left_out = Family::<OmittedLabels, Counter>::default();
        let help = "Refusals without an entry of their own: counted in the next one of the same identity";
        registry.register("refusals_suppressed", help, refusals_left_out.clone());
        let shadowed = Family::<ShadowLabels, Counter>::default();
        registry.register("shadowed_reads", "Reads that a second hub was asked for, by result", shadowed.clone());
        let shadow_differences = Family::<DifferenceLabels, Counter>::default();
        let help = "Fields in which a second hub's answers differ from the first one's";
        registry.register("shadow_differences", help, shadow_differences.clone());
        let work_under_way = Family::<PoolLabels, Gauge>::default();
        let help = "Work of the control plane that runs or waits, by pool";
        registry.register("control_work_in_flight", help, work_under_way.clone());
        let work_refused = Family::<PoolLabels, Counter>::default();
        let help = "Work of the control plane that was refused because too much was under way, by pool";
        registry.register("control_work_refused", help, work_refused.clone());
        let own_calls = Family::<ServiceLabels, Gauge>::default();
        let help = "Calls of the gateway's own services that are under way, by service";
        registry.register("own_calls", help, own_calls.clone());
        let large_messages = ShareMetrics::default();
        let help = "Memory that is held for large requests while they arrive";
        registry.register("large_message_bytes", help, large_messages.held.clone());
        let help = "Large requests that were refused because there was no room for them";
        registry.register("large_messages_refused", help, large_messages.refused.clone());
        let own_calls_refused = Family::<ServiceLabels, Counter>::default();
        let help = "Calls of the gateway's own services that were refused: too many, or too fast";
        registry.register("own_calls_refused", help, own_calls_refused.clone());
        let oauth_limited = Family::<OAuthEndpoint, Counter>::default();
        let help = "Requests of OAuth2 that were refused because their client asks too often, by endpoint";
        registry.register("oauth_limited", help, oauth_limited.clone());
        let registry_differences = Gauge::default();
        let help = "Records of the registry that are not what the exchange log says";
        registry.register("registry_differences", help, registry_differences.clone());
        let admin_events_refused = Gauge::default();
        let help = "Rows among the admin events in the registry's file that this gateway did not record";
        registry.register("admin_events_refused", help, admin_events_refused.clone());
        let pending_changes = Gauge::default();
        let help = "Changes and grants that wait for a second person, at most 1,000";
        registry.register("pending_changes", help, pending_changes.clone());
        let admin_events_missing = Counter::default();
        let help = "Acts that were removed from the registry's file before they were in the exchange log";
        registry.register("admin_events_missing", help, admin_events_missing.clone());
        let fork_alarm = Gauge::default();
        let help = "1 while a witness's report of another history of the exchange log is not acknowledged";
        registry.register("log_fork_alarm", help, fork_alarm.clone());
        let witnesses = WitnessMetrics::default();
        witnesses.register(&mut registry);
        let rights = RightsGauges::default();
        rights.register(&mut registry);
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version that runs", build);
        let started = Gauge::<i64>::default();
        started.set(crate::registry::now());
        registry.register("start_time_seconds", "When the gateway was started, Unix time", started);
        let access_lines = AccessLineMetrics::register(&mut registry);
        let traces = TraceMetrics::register(&mut registry);
        let tokens_removed = Counter::default();
        registry.register("tokens_removed", "Issued tokens that were removed after their end", tokens_removed.clone());
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
            fork_alarm,
            sources,
            witnesses,
        }
    }
}

impl Metrics {
    /// Sets whether there is a fork alarm.
    pub fn fork_alarm(&self, stands: bool) {
        self.fork_alarm.set(stands.into());
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

    /// Tells how much of the data folder's disk is free, and for how many days.
    pub fn disk(&self, free: u64, days: f64) {
        self.disk_free.set(i64::try_from(free).unwrap_or(i64::MAX));
        self.disk_days.set(days);
    }

    /// Returns how much of that disk is free, in bytes, and the days it lasts, as was told last; `None` before.
    pub fn disk_now(&self) -> Option<(u64, f64)> {
        let free = u64::try_from(self.disk_free.get()).unwrap_or(0);
        (free > 0).then(|| (free, self.disk_days.get()))
    }

    /// Tells how the exchange log is.
    pub fn log(&self, health: &Health, (durable, sealed): (u64, u64), index_rebuilt: u64) {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.log.entries.set(whole(durable));
        self.log.sealed_entries.set(whole(sealed));
        self.log.unsealed_entries.set(whole(health.unsealed_entries));
        self.log.unsealed_bytes.set(whole(health.unsealed_bytes));
        self.log.unsealed_age.set(health.unsealed_age.as_secs_f64());
        self.log.checkpoint_age.set(health.checkpoint_age.as_secs_f64());
        self.log.last_sync.set(health.last_sync.as_secs_f64());
        self.clock_behind.set(clock::behind().as_secs_f64());
        self.log.index_rebuilt.set(whole(index_rebuilt));
    }

    /// Counts a refusal that has no entry of its own.
    pub fn refusal_suppressed(&self, kind: &'static str) {
        self.refusals_left_out.get_or_create(&OmittedLabels { kind }).inc();
    }

    /// Tells when the first of each file's certificates, or of its revocation lists, ends, Unix time in seconds.
    pub fn ends<'f>(&self, files: impl Iterator<Item = (&'f std::path::Path, &'static str, i64)>) {
        self.certificates.clear();
        for (file, kind, at) in files {
            self.certificates.get_or_create(&CertificateLabels { file: file.display().to_string(), kind }).set(at);
        }
    }

    /// Counts the clients and the rights of a registry.
    pub fn registry(&self, snapshot: &Snapshot, now: i64) {
        self.rights.count(snapshot, now);
    }

    /// What is counted of a port.
    pub fn port(&self, port: &'static str) -> PortMetrics {
        self.connections.port(port)
    }

    /// Counts a read that a second hub was asked for, too: in which fields its response differs; `None` if it has none.
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

    /// What is counted of the OAuth2 endpoints.
    pub fn oauth(&self) -> OAuthMetrics {
        OAuthMetrics { work: self.work("oauth"), port: self.port("https"), limited: self.oauth_limited.clone() }
    }

    /// Sets in how many records the registry differs from the exchange log.
    pub fn registry_differences(&self, differences: usize) {
        self.registry_differences.set(i64::try_from(differences).unwrap_or(i64::MAX));
    }

    /// Tells how many rows among the events are not what this gateway noted.
    pub fn events_refused(&self, rows: u64) {
        self.admin_events_refused.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    /// Tells how many changes and grants wait for a second person.
    pub fn pending_changes(&self, waiting: u64) {
        self.pending_changes.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// Counts acts that were removed before they were logged.
    pub fn admin_events_missing(&self, admin_events: u64) {
        self.admin_events_missing.inc_by(admin_events);
    }

    /// Counts issued tokens that were removed.
    pub fn tokens_removed(&self, tokens: u64) {
        self.tokens_removed.inc_by(tokens);
    }

    /// What is counted of a pool's work.
    pub fn work(&self, pool: &'static str) -> ShareMetrics {
        let held = self.work_under_way.get_or_create(&PoolLabels { pool }).clone();
        ShareMetrics { held, refused: self.work_refused.get_or_create(&PoolLabels { pool }).clone() }
    }

    /// What is counted of large requests while they arrive.
    pub fn large_messages(&self) -> ShareMetrics {
        self.large_messages.clone()
    }

    /// What is counted of the calls of one of the gateway's own services.
    pub fn own_calls(&self, service: &'static str) -> ShareMetrics {
        let labels = ServiceLabels { service };
        let held = self.own_calls.get_or_create_owned(&labels);
        ShareMetrics { held, refused: self.own_calls_refused.get_or_create_owned(&labels) }
    }

    /// Counts what is wrong with a part of the gateway.
    pub fn faults(&self, part: &'static str, count: i64) {
        self.faults.get_or_create(&PartLabels { part }).set(count);
    }

    /// Counts a connection that was refused before its first request.
    pub fn handshake_refused(&self, cause: &'static str) {
        self.connections.refused(cause);
    }

    /// Tells whether the last response of a URL with revocation lists was taken.
    pub fn list_fetched(&self, url: &str, taken: bool) {
        self.lists.get_or_create(&ListLabels { url: url.to_owned() }).set(i64::from(taken));
    }

    /// The text that a Prometheus server reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(_) => String::new(),
        }
    }
}
