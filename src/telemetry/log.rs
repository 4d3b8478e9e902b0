//! The state of the exchange log as metrics.

use crate::exchange_log::engine::STOPPED;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

/// Updated whenever metrics are read.
#[derive(Debug, Default)]
pub(super) struct LogGauges {
    pub entries: Gauge,
    pub sealed_entries: Gauge,
    pub unsealed_entries: Gauge,
    pub unsealed_bytes: Gauge,
    pub unsealed_age: Gauge<f64, AtomicU64>,
    pub checkpoint_age: Gauge<f64, AtomicU64>,
    pub last_sync: Gauge<f64, AtomicU64>,
    pub index_rebuilt: Gauge,
    pub stopped: Family<StoppedLabels, Gauge>,
    pub spooled: Gauge,
}

/// The state of a log that has stopped.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StoppedLabels {
    pub state: &'static str,
}

impl LogGauges {
    /// Registers them.
    pub fn registered(registry: &mut Registry) -> Self {
        let log = LogGauges::default();
        registry.register("log_entries", "Durable entries of the exchange log", log.entries.clone());
        registry.register(
            "log_sealed_entries",
            "Entries of the exchange log under its newest checkpoint",
            log.sealed_entries.clone(),
        );
        let help = "Entries of the exchange log that are durable and not sealed yet";
        registry.register("log_unsealed_entries", help, log.unsealed_entries.clone());
        registry.register(
            "log_unsealed_bytes",
            "Bytes of the entries that are durable and not sealed yet",
            log.unsealed_bytes.clone(),
        );
        let help = "Upper bound of the time that the oldest unsealed entry has waited";
        registry.register("log_unsealed_age_seconds", help, log.unsealed_age.clone());
        let help = "Time since the last checkpoint was signed; it also grows while there is nothing to seal";
        registry.register("log_checkpoint_age_seconds", help, log.checkpoint_age.clone());
        let help = "Time that the last batch took to become durable";
        registry.register("log_sync_seconds", help, log.last_sync.clone());
        let help = "Parts of the search index that were wrong and were rebuilt from the log, since the start";
        registry.register("log_index_rebuilt", help, log.index_rebuilt.clone());
        let help = "1 while the log has stopped on this gateway in this state, until a person has looked";
        registry.register("log_stopped", help, log.stopped.clone());
        log.stop_in(None);
        let help = "Entries that are on this gateway's own disk alone, until a majority of etcd responds";
        registry.register("log_spooled_entries", help, log.spooled.clone());
        log
    }

    /// Sets in which state it has stopped, if it has.
    pub fn stop_in(&self, state: Option<&'static str>) {
        for known in STOPPED {
            self.stopped.get_or_create(&StoppedLabels { state: known }).set(i64::from(state == Some(known)));
        }
    }
}
