//! How the exchange log is, as metrics.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

/// Set whenever metrics are read.
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
}

impl LogGauges {
    /// Adds them to a registry.
    pub fn registered(registry: &mut Registry) -> Self {
        let log = LogGauges::default();
        registry.register("log_entries", "Entries of the exchange log that are durable", log.entries.clone());
        registry.register(
            "log_sealed_entries",
            "Those of them under its newest checkpoint",
            log.sealed_entries.clone(),
        );
        let help = "Entries of the exchange log that are durable and not sealed";
        registry.register("log_unsealed_entries", help, log.unsealed_entries.clone());
        registry.register("log_unsealed_bytes", "Their bytes", log.unsealed_bytes.clone());
        let help = "How long the oldest of them has waited at most";
        registry.register("log_unsealed_age_seconds", help, log.unsealed_age.clone());
        let help = "Time since a checkpoint was signed; it grows while there is nothing to seal, too";
        registry.register("log_checkpoint_age_seconds", help, log.checkpoint_age.clone());
        let help = "How long the last batch took to become durable";
        registry.register("log_sync_seconds", help, log.last_sync.clone());
        let help = "Parts of the search index that were found wrong and rebuilt from the log since the start";
        registry.register("log_index_rebuilt", help, log.index_rebuilt.clone());
        log
    }
}
