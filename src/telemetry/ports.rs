//! Metrics of connections and handshakes.

use crate::identity::refused::Cause;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The ports with TLS.
const PORTS: [&str; 2] = ["grpc", "https"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortLabels {
    port: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

/// Metrics of a port with TLS.
#[derive(Debug, Clone, Default)]
pub struct PortMetrics {
    /// Open connections.
    pub connections: Gauge,
    /// Completed handshakes.
    pub handshakes: Counter,
}

/// The families, shared by all ports.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionMetrics {
    connections: Family<PortLabels, Gauge>,
    completed: Family<PortLabels, Counter>,
    refused: Family<CauseLabels, Counter>,
    probes: Counter,
}

impl ConnectionMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let all = ConnectionMetrics::default();
        registry.register("connections", "Open connections, by port: grpc, https", all.connections.clone());
        let help = "Completed TLS handshakes, by port";
        registry.register("handshakes_completed", help, all.completed.clone());
        let help = "Connections refused before their first request, by cause";
        registry.register("handshakes_refused", help, all.refused.clone());
        registry.register("probes", "Connections closed without a byte", all.probes.clone());
        // Starts at zero, so that the first one is visible as an increase.
        for cause in Cause::ALL {
            let _ = all.refused.get_or_create(&CauseLabels { cause: cause.label() });
        }
        PORTS.into_iter().for_each(|port| drop(all.port(port)));
        all
    }

    pub fn port(&self, port: &'static str) -> PortMetrics {
        let labels = PortLabels { port };
        let handshakes = self.completed.get_or_create_owned(&labels);
        PortMetrics { connections: self.connections.get_or_create_owned(&labels), handshakes }
    }

    pub fn refused(&self, cause: &'static str) {
        self.refused.get_or_create(&CauseLabels { cause }).inc();
    }

    pub fn probe(&self) {
        self.probes.inc();
    }
}
