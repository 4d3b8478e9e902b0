//! Health checks of endpoints: for a source or hub with several, and on demand.

use crate::admin::{SourceChecker, api};
use crate::drivers::reachability::{check, reachable};
use crate::server::shared::Shared;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// Checks the addresses of a source when somebody asks for it.
pub(in crate::server) fn checker(shared: Arc<Shared>) -> SourceChecker {
    Arc::new(move |source| {
        let served = shared.served.load();
        let entry = served.catalogue.sources.get(&source)?;
        let targets = std::iter::once(&entry.first).chain(entry.second.as_ref().map(|(_, target)| target));
        let mut checks = Vec::new();
        for target in targets {
            for address in target.addresses.clone() {
                let (tls, path) = (target.tls.clone(), target.health_path.clone());
                let hub = target.hub.clone().unwrap_or_default();
                checks.push(async move {
                    let began = Instant::now();
                    let checked = check(&address, &tls, path.as_deref()).await;
                    let duration_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                    let fault = checked.as_ref().err().map(ToString::to_string).unwrap_or_default();
                    api::AddressCheck { address, hub, reachable: checked.is_ok(), duration_us, fault }
                });
            }
        }
        Some(Box::pin(futures_util::future::join_all(checks)))
    })
}
