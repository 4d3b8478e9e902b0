//! Health of the hub of a source that has two.
//!
//! A hub with an open circuit is probed by a call that may probe. Some operations have none: uploads, which run at
//! their callers' pace, and writes with deadlines that are always too short. They would stay with the other hub for
//! ever. So now and then one call of such an operation goes through the first hub, bypassing the open circuit. It
//! delays no other call, however long it takes; a response closes the circuit.

use super::breaker::{Breaker, BreakerSettings, CircuitPass};
use super::evidence::ClientKey;
use crate::status::SourceHealth;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest time between two calls of an operation that bypass the open circuit; it doubles after each that got no
/// response. Each of them may fail, since it cannot be sent again through the other hub.
const MAX_BYPASS_INTERVAL: Duration = Duration::from_secs(300);

/// Health of a hub with sources that can use another hub.
pub struct HubHealth {
    breaker: Breaker,
    beside: Mutex<HashMap<usize, BypassCalls>>,
}

/// The calls of an operation that passed the open circuit.
struct BypassCalls {
    last: Instant,
    /// Time until the next bypass.
    wait: Duration,
}

/// The same, for one operation.
#[derive(Clone)]
pub struct OperationHub {
    health: Arc<HubHealth>,
    operation: usize,
}

impl HubHealth {
    /// Makes it for the hub of a source. Its circuit opens sooner than that of a source without another hub: after
    /// three of five failures.
    pub fn new(source: &str, hub: &str) -> Arc<Self> {
        let settings = BreakerSettings { window: 5, failures_percent: 60, ..BreakerSettings::default() };
        let breaker = Breaker::new(&format!("{source} through {hub}"), settings);
        Arc::new(HubHealth { breaker, beside: Mutex::default() })
    }

    /// Returns it for an operation.
    pub fn before(self: &Arc<Self>, operation: &str) -> OperationHub {
        OperationHub { health: self.clone(), operation: self.breaker.number(operation) }
    }

    /// Returns whether an operation's call may bypass the open circuit now.
    fn is_due(&self, operation: usize, now: Instant) -> bool {
        let usual = BreakerSettings::default().open_for;
        let mut beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = match beside.get(&operation).map(|one| (now.saturating_duration_since(one.last), one.wait)) {
            Some((since, wait)) if since < wait => return false,
            // It has passed repeatedly without a response.
            Some((since, wait)) if since < 2 * MAX_BYPASS_INTERVAL => (wait * 2).min(MAX_BYPASS_INTERVAL),
            _ => usual,
        };
        beside.insert(operation, BypassCalls { last: now, wait });
        true
    }

    fn bypass_succeeded(&self, operation: usize) {
        self.beside.lock().unwrap_or_else(PoisonError::into_inner).remove(&operation);
    }
}

impl OperationHub {
    /// Returns a client's call through the hub; `None` while its circuit is open, for all or for this client. Most
    /// calls that may not probe go to the other hub until another call has probed.
    pub fn try_call(&self, client: &Arc<str>, may_probe: bool) -> Option<HubCall> {
        self.try_call_at(client, Instant::now(), may_probe)
    }

    fn try_call_at(&self, client: &Arc<str>, now: Instant, may_probe: bool) -> Option<HubCall> {
        let passage = self.health.breaker.try_acquire(self.operation, ClientKey::of(client), now, may_probe).ok()?;
        let goes = !passage.is_bypass() || self.health.is_due(self.operation, now);
        goes.then(|| HubCall { hub: self.clone(), client: client.clone(), passage, recorded: false })
    }
}

/// A call on its way through a hub. A call that is dropped before [`HubCall::record`] does not count.
pub struct HubCall {
    hub: OperationHub,
    client: Arc<str>,
    passage: CircuitPass,
    recorded: bool,
}

impl HubCall {
    /// Returns whether it is the hub's probe.
    pub fn probes(&self) -> bool {
        self.passage.probes()
    }

    /// Records how the call ended, and how long it took.
    pub fn record(mut self, health: SourceHealth, took: Duration) {
        if health != SourceHealth::Unknown {
            self.recorded = true;
            if health == SourceHealth::Responded && self.passage.is_bypass() {
                self.hub.health.bypass_succeeded(self.hub.operation);
            }
            let by = (&*self.client, self.passage);
            self.hub.health.breaker.record(self.hub.operation, by, health, took, Instant::now());
        }
    }
}

impl Drop for HubCall {
    fn drop(&mut self) {
        if self.passage.probes() && !self.recorded {
            self.hub.health.breaker.abandon_probe(self.hub.operation, self.passage);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn a() -> Arc<str> {
        Arc::from("a")
    }

    #[test]
    fn a_probe_that_goes_away_leaves_the_next_call_as_the_probe() {
        let health = HubHealth::new("business", "ndxp");
        let hub = health.before("GetEnterprise");
        for _ in 0..5 {
            hub.try_call(&a(), true).unwrap().record(SourceHealth::Unreachable, Duration::ZERO);
        }
        assert!(hub.try_call(&a(), true).is_none(), "left alone after five failures");
        let later = Instant::now() + BreakerSettings::default().open_for;
        let passage = health.breaker.try_acquire(0, ClientKey::of("a"), later, true).unwrap();
        assert!(passage.probes());
        drop(HubCall { hub: hub.clone(), client: a(), passage, recorded: false });
        assert!(hub.try_call(&a(), false).is_some_and(|call| !call.probes()), "one that may not probe goes beside");
        let call = hub.try_call(&a(), true).unwrap();
        assert!(call.probes() && hub.try_call(&a(), true).is_none());
        call.record(SourceHealth::Unknown, Duration::ZERO);
        hub.try_call(&a(), true).unwrap().record(SourceHealth::Responded, Duration::ZERO);
        assert!(hub.try_call(&a(), true).is_some_and(|call| !call.probes()));
    }

    #[test]
    fn b1_one_client_s_failures_move_this_client_alone() {
        let health = HubHealth::new("business", "ndxp");
        let (hub, b) = (health.before("GetEnterprise"), Arc::from("b"));
        (0..5).for_each(|_| hub.try_call(&a(), true).unwrap().record(SourceHealth::Failed, Duration::ZERO));
        assert!(hub.try_call(&a(), true).is_none());
        let other = hub.try_call(&b, true).unwrap();
        assert!(!other.probes());
        other.record(SourceHealth::Failed, Duration::ZERO);
        // Two clients' calls fail: the circuit is open for a third client, too.
        (0..4).for_each(|_| hub.try_call(&b, true).unwrap().record(SourceHealth::Failed, Duration::ZERO));
        assert!(hub.try_call(&Arc::from("c"), true).is_none());
    }

    #[test]
    fn b1_an_operation_of_uploads_alone_comes_back_to_its_hub() {
        let health = HubHealth::new("business", "ndxp");
        let (upload, read) = (health.before("Upload"), health.before("Get"));
        (0..5).for_each(|_| upload.try_call(&a(), false).unwrap().record(SourceHealth::Failed, Duration::ZERO));
        let start = Instant::now() + BreakerSettings::default().open_for;
        // One call at a time bypasses it, less and less often as long as none gets a response; it delays nobody's
        // probe.
        let mut went = Vec::new();
        for second in 0..200 {
            if let Some(call) = upload.try_call_at(&a(), start + Duration::from_secs(second), false) {
                assert!(!call.probes());
                call.record(SourceHealth::Failed, Duration::ZERO);
                went.push(second);
            }
        }
        assert_eq!(went, [0, 5, 15, 35, 75, 155]);
        assert!(read.try_call(&a(), true).is_some(), "another operation's calls go on");
        let later = start + Duration::from_secs(400);
        let dawdles = upload.try_call_at(&a(), later, false).unwrap();
        let probe = upload.try_call_at(&a(), later, true).unwrap();
        assert!(probe.probes());
        drop(probe);
        assert!(upload.try_call_at(&a(), later + Duration::from_secs(1), false).is_none());
        dawdles.record(SourceHealth::Responded, Duration::ZERO);
        assert!(upload.try_call(&a(), false).is_some_and(|call| !call.passage.is_bypass()), "it is closed");
    }
}
