//! Counts of clients and grants, and of those that expire soon; updated whenever the metrics are read.

use crate::registry::Snapshot;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A grant that expires within this many seconds counts as ending.
const SOON_S: i64 = 30 * 86_400;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// Counts of the registry.
#[derive(Debug, Clone, Default)]
pub(super) struct RightsGauges {
    clients: Family<StateLabels, Gauge>,
    grants: Gauge,
    ending: Gauge,
    keys: Gauge,
}

impl RightsGauges {
    pub fn register(&self, registry: &mut Registry) {
        registry.register("clients", "Clients by state: active, suspended", self.clients.clone());
        registry.register("grants_in_force", "Valid grants", self.grants.clone());
        registry.register("grants_ending", "Valid grants that expire within 30 days", self.ending.clone());
        registry.register("signing_keys", "Signing keys whose tokens are or will be trusted", self.keys.clone());
    }

    /// Counts the records of a registry: some milliseconds for 10,000 clients.
    pub fn count(&self, snapshot: &Snapshot, now: i64) {
        let (mut active, mut suspended, mut grants, mut ending) = (0, 0, 0, 0);
        for view in snapshot.clients() {
            if view.client.suspended {
                suspended += 1;
            } else {
                active += 1;
            }
            for grant in view.grants.iter().filter(|grant| grant.in_force(now)) {
                grants += 1;
                ending += i64::from(grant.not_after - now <= SOON_S);
            }
        }
        self.clients.get_or_create(&StateLabels { state: "active" }).set(active);
        self.clients.get_or_create(&StateLabels { state: "suspended" }).set(suspended);
        self.grants.set(grants);
        self.ending.set(ending);
        self.keys.set(i64::try_from(snapshot.public_keys(now).count()).unwrap_or(i64::MAX));
    }
}
