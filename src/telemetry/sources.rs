//! The states of sources, from their guards and endpoints; updated whenever the metrics are read.

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
    /// Sets the state of the guard with this name: of a source or of one of its operations.
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

    /// Sets the number of open HTTP/2 connections to a gRPC source.
    pub fn connections(&self, source: &str, open: usize) {
        let open = i64::try_from(open).unwrap_or(i64::MAX);
        self.connections.get_or_create(&SourceLabels { source: source.to_owned() }).set(open);
    }

    /// Sets whether an endpoint of a source is in use.
    pub fn endpoint(&self, source: &str, address: &str, up: bool) {
        let labels = EndpointLabels { source: source.to_owned(), address: address.to_owned() };
        self.endpoints.get_or_create(&labels).set(i64::from(up));
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "State of a source's breaker for all clients: 0 closed, 1 half open, 2 open";
        registry.register("breaker_state", help, self.breakers.clone());
        let help = "Breakers of a source that are open for one client only";
        registry.register("breaker_clients", help, self.breaker_clients.clone());
        registry.register("source_permits", "Current concurrency limit of a source", self.permits.clone());
        registry.register("source_queued", "Calls queued for a permit at a source", self.queued.clone());
        registry.register("source_connections", "HTTP/2 connections to a gRPC source", self.connections.clone());
        registry.register("source_streams", "Open streams at a source", self.streams.clone());
        let help = "Whether an endpoint of a source is in use: 0 ejected, 1 up";
        registry.register("endpoint_up", help, self.endpoints.clone());
    }
}
