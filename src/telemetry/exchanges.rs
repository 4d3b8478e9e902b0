//! Metrics of exchanges: how many ended how, by whose fault, and how long they took. A route holds the handles of its
//! operation's usual outcome, so that a call looks up no label.

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

/// A field of a response that is not what its contract says. A path of the contract's, never what stands there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DriftLabels {
    source: String,
    operation: String,
    field: String,
    kind: &'static str,
}

type Seconds = Family<SourceLabels, Histogram>;

/// Whose fault an exchange's failure can be.
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

/// Drift of answers from their contracts, by path. Who counts bounds the paths.
#[derive(Debug, Clone, Default)]
pub struct DriftMetrics(Family<DriftLabels, Counter>);

impl DriftMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let all = DriftMetrics::default();
        let help = "Answers that are not as their contract says, by path: added, missing, retyped, unknown_code, dropped; other: paths beyond those that are kept";
        registry.register("response_drift", help, all.0.clone());
        all
    }

    /// The family, for who registers it elsewhere.
    #[cfg(test)]
    pub(crate) fn family(
        &self,
    ) -> &Family<impl Clone + std::hash::Hash + Eq + EncodeLabelSet + std::fmt::Debug + Send + Sync + 'static, Counter>
    {
        &self.0
    }

    /// The counter of one path: a field of the contract's, or a path at the source, never what stands there.
    pub fn of(&self, source: &str, operation: &str, field: &str, kind: &'static str) -> Counter {
        self.0.get_or_create_owned(&drifted(source, operation, field, kind))
    }

    /// Ends the counter of a path that was not seen for long.
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

    /// Puts the same families into a registry: that of all metrics, or one that holds these alone.
    pub(super) fn register_again(&self, registry: &mut Registry) {
        registry.register("exchanges", "Exchanges by operation and reason (OK: succeeded)", self.ended.clone());
        let help = "Exchanges that did not succeed, by whose fault it is: caller, gateway, hub, source";
        registry.register("exchange_faults", help, self.faults.clone());
        registry.register("exchange_seconds", "Time from arrival to the durable entry", self.seconds.clone());
        registry.register("source_seconds", "Time of these at the source", self.source_seconds.clone());
    }

    /// The handles of one operation; empty names stand for calls of no known operation.
    pub fn of(&self, source: &str, operation: &str) -> OperationMetrics {
        let label = SourceLabels { source: source.to_owned() };
        // From zero on, so that the first one shows as a rise.
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
    /// Counts the stages of an exchange whose last entry is durable, or will not be.
    pub fn count_stages(&self, stages: &StageTimes) {
        for (stage, _, time) in stages.each() {
            self.stages[stage as usize].observe(time.as_secs_f64());
        }
    }

    /// Counts an exchange of this operation that has ended.
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
        // What its caller cut short, or sent at its own pace, tells nothing of the source's time.
        let callers = entry.reason == "CALLER_DEADLINE" || entry.request_messages > 1;
        if entry.source_us > 0 && !callers {
            self.source_seconds.observe(entry.source_us as f64 / 1e6);
        }
    }
}
