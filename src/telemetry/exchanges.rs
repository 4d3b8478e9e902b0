//! Metrics of exchanges: counts by outcome and by fault, and durations. A route holds the handles of its operation's usual outcome, so that
//! a call looks up no label.

use super::stages::{StageHistograms, StageLabels, StageTimes, histograms, stage_times};
use super::{SourceLabels, times};
use crate::exchange_log::Entry;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    source: String,
    operation: String,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabels {
    source: String,
    fault: String,
}

/// A response field that differs from its contract. A path of the contract, never a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DriftLabels {
    source: String,
    operation: String,
    field: String,
    kind: &'static str,
}

type Seconds = Family<SourceLabels, Histogram>;

/// Who can have the fault of a failed exchange.
const FAULTS: [&str; 4] = ["caller", "gateway", "hub", "source"];

/// The families, shared by all operations.
#[derive(Debug, Clone)]
pub struct ExchangeMetrics {
    ended: Family<OutcomeLabels, Counter>,
    faults: Family<FaultLabels, Counter>,
    seconds: Seconds,
    source_seconds: Seconds,
    stages: Family<StageLabels, Histogram>,
}

/// Drift of responses from their contracts, by path. The caller of these functions bounds the paths.
#[derive(Debug, Clone, Default)]
pub struct DriftMetrics(Family<DriftLabels, Counter>);

impl DriftMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let all = DriftMetrics::default();
        let help = "Responses that differ from their contract, by path: added, missing, retyped, unknown_code, dropped; other: paths beyond the bound";
        registry.register("response_drift", help, all.0.clone());
        all
    }

    /// Returns the family, so that another registry can register it.
    #[cfg(test)]
    pub(crate) fn family(
        &self,
    ) -> &Family<impl Clone + std::hash::Hash + Eq + EncodeLabelSet + std::fmt::Debug + Send + Sync + 'static, Counter>
    {
        &self.0
    }

    /// Returns the counter of one path: a contract field or a path at the source, never a value.
    pub fn of(&self, source: &str, operation: &str, field: &str, kind: &'static str) -> Counter {
        self.0.get_or_create_owned(&drifted(source, operation, field, kind))
    }

    /// Removes the counter of a path that was not seen for long.
    pub fn forget(&self, source: &str, operation: &str, field: &str, kind: &'static str) {
        self.0.remove(&drifted(source, operation, field, kind));
    }
}

fn drifted(source: &str, operation: &str, field: &str, kind: &'static str) -> DriftLabels {
    DriftLabels { source: source.to_owned(), operation: operation.to_owned(), field: field.to_owned(), kind }
}

impl ExchangeMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let seconds = || Seconds::new_with_constructor(times as fn() -> Histogram);
        let all = ExchangeMetrics {
            ended: Family::default(),
            faults: Family::default(),
            seconds: seconds(),
            source_seconds: seconds(),
            stages: Family::new_with_constructor(stage_times as fn() -> Histogram),
        };
        all.register_again(registry);
        let help = "Time of exchanges by stage: access, request, guard, source, response, log";
        registry.register("stage_seconds", help, all.stages.clone());
        all
    }

    /// Registers the families: in the registry of all metrics, or in one with only these.
    pub(super) fn register_again(&self, registry: &mut Registry) {
        registry.register("exchanges", "Exchanges by operation and reason (OK: succeeded)", self.ended.clone());
        let help = "Exchanges that failed or were refused, by fault: caller, gateway, hub, source";
        registry.register("exchange_faults", help, self.faults.clone());
        registry.register("exchange_seconds", "Time from arrival to the durable entry", self.seconds.clone());
        registry.register("source_seconds", "Time of exchanges at the source", self.source_seconds.clone());
    }

    /// Returns the handles of one operation; empty names mean calls of no known operation.
    pub fn of(&self, source: &str, operation: &str) -> OperationMetrics {
        let label = SourceLabels { source: source.to_owned() };
        // Starts at zero, so that the first one is visible as an increase.
        for fault in FAULTS.iter().filter(|_| !source.is_empty()) {
            let labels = FaultLabels { source: source.to_owned(), fault: (*fault).to_owned() };
            let _ = self.faults.get_or_create(&labels);
        }
        OperationMetrics {
            succeeded: self.ended.get_or_create_owned(&outcome(source, operation, "OK")),
            seconds: self.seconds.get_or_create_owned(&label),
            source_seconds: self.source_seconds.get_or_create_owned(&label),
            stages: histograms(&self.stages, source),
            families: self.clone(),
        }
    }
}

fn outcome(source: &str, operation: &str, reason: &str) -> OutcomeLabels {
    OutcomeLabels { source: source.to_owned(), operation: operation.to_owned(), reason: reason.to_owned() }
}

/// The metrics of one operation's exchanges.
#[derive(Debug, Clone)]
pub struct OperationMetrics {
    succeeded: Counter,
    seconds: Histogram,
    source_seconds: Histogram,
    stages: StageHistograms,
    families: ExchangeMetrics,
}

impl OperationMetrics {
    /// Counts the stages of an exchange whose last entry is durable or has failed.
    pub fn count_stages(&self, stages: &StageTimes) {
        for (stage, _, time) in stages.each() {
            self.stages[stage as usize].observe(time.as_secs_f64());
        }
    }

    /// Counts a finished exchange of this operation.
    pub fn count(&self, entry: &Entry) {
        if entry.reason.is_empty() {
            self.succeeded.inc();
        } else {
            let outcome = outcome(&entry.source, &entry.operation, &entry.reason);
            self.families.ended.get_or_create(&outcome).inc();
        }
        self.seconds.observe(entry.total_us as f64 / 1e6);
        if !entry.fault.is_empty() {
            let labels = FaultLabels { source: entry.source.clone(), fault: entry.fault.clone() };
            self.families.faults.get_or_create(&labels).inc();
        }
        // If the caller cancelled, or sent at its own pace, the duration says nothing about the source.
        let callers = entry.reason == "CALLER_DEADLINE" || entry.request_messages > 1;
        if entry.source_us > 0 && !callers {
            self.source_seconds.observe(entry.source_us as f64 / 1e6);
        }
    }
}
