//! Whether the hub of a source that has two answers.
//!
//! A hub that was left alone is probed by a call that may probe. Operations that have none (uploads, which go at their callers' pace,
//! and writes whose callers never give them their time) would stay with the other hub for ever: of these, one goes by the first hub now
//! and then, beside the open circuit. It holds nobody up, however long it takes; a response closes the circuit.

use super::breaker::{Breaker, BreakerSettings, CircuitPass};
use super::evidence::ClientKey;
use crate::status::SourceHealth;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest time between two calls of an operation that go beside the open circuit: twice as long after each that did not answer. Each of
/// them may fail, since it cannot be sent again by the other hub.
const MAX_BYPASS_INTERVAL: Duration = Duration::from_secs(300);

/// Whether a hub answers, where its sources have another one to go to.
pub struct HubHealth {
    breaker: Breaker,
    beside: Mutex<HashMap<usize, BypassCalls>>,
}

/// The calls of an operation that passed the open circuit.
struct BypassCalls {
    last: Instant,
    /// How long until the next.
    wait: Duration,
}

/// The same, for one operation.
#[derive(Clone)]
pub struct OperationHub {
    health: Arc<HubHealth>,
    operation: usize,
}

impl HubHealth {
    /// Of the hub of a source. It is left alone sooner than a source without another way: after three of five failures.
    pub fn new(source: &str, hub: &str) -> Arc<Self> {
        let settings = BreakerSettings { window: 5, failures_percent: 60, ..BreakerSettings::default() };
        let breaker = Breaker::new(&format!("{source} through {hub}"), settings);
        Arc::new(HubHealth { breaker, beside: Mutex::default() })
    }

    /// Returns it for an operation.
    pub fn before(self: &Arc<Self>, operation: &str) -> OperationHub {
        OperationHub { health: self.clone(), operation: self.breaker.number(operation) }
    }

    /// Whether it is the turn of one of an operation's calls to go beside the open circuit.
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
    /// A client's call by it now; `None` while it is left alone, by all or by this client. Most of those that may not probe are for the
    /// other hub until another has.
    pub fn try_call(&self, client: &Arc<str>, may_probe: bool) -> Option<HubCall> {
        self.try_call_at(client, Instant::now(), may_probe)
    }

    fn try_call_at(&self, client: &Arc<str>, now: Instant, may_probe: bool) -> Option<HubCall> {
        let passage = self.health.breaker.try_acquire(self.operation, ClientKey::of(client), now, may_probe).ok()?;
        let goes = !passage.is_bypass() || self.health.is_due(self.operation, now);
        goes.then(|| HubCall { hub: self.clone(), client: client.clone(), passage, recorded: false })
    }
}

/// A call on its way through a hub. One that is dropped before [`HubCall::record`] counts as nothing.
pub struct HubCall {
    hub: OperationHub,
    client: Arc<str>,
    passage: CircuitPass,
    recorded: bool,
}

impl HubCall {
    /// Whether it is the hub's probe.
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
        // Two clients' calls fail: for a third one, too.
        (0..4).for_each(|_| hub.try_call(&b, true).unwrap().record(SourceHealth::Failed, Duration::ZERO));
        assert!(hub.try_call(&Arc::from("c"), true).is_none());
    }

    #[test]
    fn b1_an_operation_of_uploads_alone_comes_back_to_its_hub() {
        let health = HubHealth::new("business", "ndxp");
        let (upload, read) = (health.before("Upload"), health.before("Get"));
        (0..5).for_each(|_| upload.try_call(&a(), false).unwrap().record(SourceHealth::Failed, Duration::ZERO));
        let start = Instant::now() + BreakerSettings::default().open_for;
        // One at a time goes by it, less and less often as long as none is answered; it holds up nobody's probe.
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
