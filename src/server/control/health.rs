//! Health checks of endpoints, for a source or hub with several.

use crate::drivers::reachability::reachable;
use crate::server::shared::Shared;
use std::sync::Arc;
use std::time::Duration;

/// How often each endpoint is checked.
const EVERY: Duration = Duration::from_secs(2);

/// Checks them for ever, each independently, so that one that hangs does not delay the others.
pub(in crate::server) async fn check_endpoints(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let mut checks = tokio::task::JoinSet::new();
        for (reach, endpoints) in shared.served.load().balanced() {
            for address in reach.addresses.clone() {
                let (tls, path, endpoints) = (reach.tls.clone(), reach.health_path.clone(), endpoints.clone());
                checks.spawn(async move {
                    let reached = reachable(&address, &tls, path.as_deref()).await;
                    endpoints.record_health_check(&address, reached);
                });
            }
        }
        checks.join_all().await;
    }
}
