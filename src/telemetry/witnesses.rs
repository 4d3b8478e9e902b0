//! Metrics of the log's witnesses.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WitnessLabels {
    witness: String,
}

/// The state of a witness.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WitnessState {
    /// Whether it cosigned the last request.
    pub up: bool,
    /// Entries under the newest checkpoint that it has cosigned since this process started.
    pub entries: u64,
}

/// Metrics of the log's witnesses.
#[derive(Debug, Clone, Default)]
pub struct WitnessMetrics {
    /// By name; the witness policy bounds them.
    states: Arc<Mutex<BTreeMap<String, WitnessState>>>,
    up: Family<WitnessLabels, Gauge>,
    failures: Family<WitnessLabels, Counter>,
    cosigned: Family<WitnessLabels, Gauge>,
    entries: Gauge,
    time: Gauge,
}

impl WitnessMetrics {
    /// Counts a response of a witness, with the number of entries that it has cosigned since this process started.
    pub fn responded(&self, witness: &str, cosigned: bool, size: u64) {
        let state = WitnessState { up: cosigned, entries: size };
        self.states.lock().unwrap_or_else(PoisonError::into_inner).insert(witness.to_owned(), state);
        let of = WitnessLabels { witness: witness.to_owned() };
        self.up.get_or_create(&of).set(cosigned.into());
        self.cosigned.get_or_create(&of).set(i64::try_from(size).unwrap_or(i64::MAX));
        // Starts at zero, so that the first one is visible as an increase.
        self.failures.get_or_create(&of).inc_by(u64::from(!cosigned));
    }

    /// Returns the state of each witness that was requested.
    pub fn states(&self) -> BTreeMap<String, WitnessState> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the size of the newest checkpoint with enough cosignatures, and its time (Unix seconds).
    pub fn cosigned_now(&self) -> (u64, i64) {
        (u64::try_from(self.entries.get()).unwrap_or(0), self.time.get())
    }

    /// Sets the size of the newest checkpoint with enough cosignatures, and its time (Unix seconds).
    pub fn cosigned(&self, entries: u64, time: i64) {
        self.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.time.set(time);
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("witness_up", "1 if the witness cosigned the last request", self.up.clone());
        let help = "Requests to a witness without a cosignature";
        registry.register("witness_failures", help, self.failures.clone());
        let help = "Entries of the exchange log that a witness has cosigned since the gateway started";
        registry.register("witness_cosigned_entries", help, self.cosigned.clone());
        let help = "Entries under the newest checkpoint with the cosignatures that the policy requires";
        registry.register("log_cosigned_entries", help, self.entries.clone());
        let help = "Publication of the newest checkpoint with enough cosignatures, Unix time";
        registry.register("log_cosigned_timestamp_seconds", help, self.time.clone());
    }
}
