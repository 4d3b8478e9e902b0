//! The states of sources, by their guards and endpoints; set whenever the metrics are read.

use super::SourceLabels;
use crate::guard::{BreakerState, Guard};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    source: String,
    address: String,
}

/// The states of sources.
#[derive(Debug, Clone, Default)]
pub struct SourceGauges {
    breakers: Family<SourceLabels, Gauge>,
    breaker_clients: Family<SourceLabels, Gauge>,
    permits: Family<SourceLabels, Gauge>,
    queued: Family<SourceLabels, Gauge>,
    connections: Family<SourceLabels, Gauge>,
    streams: Family<SourceLabels, Gauge>,
    endpoints: Family<EndpointLabels, Gauge>,
}

impl SourceGauges {
    /// Sets what the guard of this name shows: of a source, or of one of its operations.
    pub fn guard(&self, name: &str, guard: &Guard) {
        let set = |family: &Family<SourceLabels, Gauge>, value: usize| {
            let labels = SourceLabels { source: name.to_owned() };
            family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        let state = match guard.breaker_state() {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        set(&self.breakers, state);
        set(&self.breaker_clients, guard.breaker_clients());
        set(&self.permits, guard.concurrency_limit());
        set(&self.queued, guard.queued());
        set(&self.streams, guard.streams());
    }

    /// Sets how many HTTP/2 connections to a gRPC source are open.
    pub fn connections(&self, source: &str, open: usize) {
        let open = i64::try_from(open).unwrap_or(i64::MAX);
        self.connections.get_or_create(&SourceLabels { source: source.to_owned() }).set(open);
    }

    /// Sets whether calls go to an endpoint of a source.
    pub fn endpoint(&self, source: &str, address: &str, up: bool) {
        let labels = EndpointLabels { source: source.to_owned(), address: address.to_owned() };
        self.endpoints.get_or_create(&labels).set(i64::from(up));
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "State of a source's breaker for all clients: 0 closed, 1 half open, 2 open";
        registry.register("breaker_state", help, self.breakers.clone());
        let help = "Circuits of a source that are open for one client alone, whose calls alone fail";
        registry.register("breaker_clients", help, self.breaker_clients.clone());
        registry.register("source_permits", "Calls that may be at a source at once, for now", self.permits.clone());
        registry.register("source_queued", "Calls that wait for a place at a source", self.queued.clone());
        registry.register("source_connections", "HTTP/2 connections to a gRPC source", self.connections.clone());
        registry.register("source_streams", "Streams that go on at a source", self.streams.clone());
        let help = "Whether calls go to an endpoint of a source: 0 left alone, 1 up";
        registry.register("endpoint_up", help, self.endpoints.clone());
    }
}
