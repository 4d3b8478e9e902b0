//! Whether the hub of a source that has two answers.

use super::breaker::{Breaker, BreakerSettings, Passage};
use crate::status::SourceHealth;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whether a hub answers, where its sources have another one to go to.
pub struct HubHealth(Breaker);

/// The same, as it stands before one operation.
#[derive(Clone)]
pub struct OperationHub {
    health: Arc<HubHealth>,
    operation: usize,
}

impl HubHealth {
    /// Of the hub of a source. It is left alone sooner than a source without another way: after three of five failures.
    pub fn new(source: &str, hub: &str) -> Arc<Self> {
        let settings = BreakerSettings { window: 5, failures_percent: 60, ..BreakerSettings::default() };
        Arc::new(HubHealth(Breaker::new(&format!("{source} through {hub}"), settings)))
    }

    /// As it stands before an operation.
    pub fn before(self: &Arc<Self>, operation: &str) -> OperationHub {
        OperationHub { health: self.clone(), operation: self.0.number(operation) }
    }
}

impl OperationHub {
    /// A call by it now; `None` while it is left alone. One that may not probe is for the other hub until another has.
    pub fn ask(&self, may_probe: bool) -> Option<HubAsked> {
        let passage = self.health.0.ask(self.operation, Instant::now(), may_probe).ok()?;
        (!passage.is_beside()).then(|| HubAsked { hub: self.clone(), passage, told: false })
    }
}

/// A call on its way through a hub. One that is dropped before [`HubAsked::tell`] counts as nothing.
pub struct HubAsked {
    hub: OperationHub,
    passage: Passage,
    told: bool,
}

impl HubAsked {
    /// Whether it is the hub's probe.
    pub fn probes(&self) -> bool {
        self.passage.probes()
    }

    /// Tells how it went, and how long it took.
    pub fn tell(mut self, health: SourceHealth, took: Duration) {
        if health != SourceHealth::Unknown {
            self.told = true;
            self.hub.health.0.tell(self.hub.operation, health, took, self.passage, Instant::now());
        }
    }
}

impl Drop for HubAsked {
    fn drop(&mut self) {
        if self.passage.probes() && !self.told {
            self.hub.health.0.forget_probe(self.hub.operation, self.passage);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_goes_away_leaves_the_next_call_as_the_probe() {
        let health = HubHealth::new("business", "ndxp");
        let hub = health.before("GetEnterprise");
        for _ in 0..5 {
            hub.ask(true).unwrap().tell(SourceHealth::Unreachable, Duration::ZERO);
        }
        assert!(hub.ask(true).is_none(), "left alone after five failures");
        let later = Instant::now() + BreakerSettings::default().open_for;
        let passage = health.0.ask(0, later, true).unwrap();
        assert!(passage.probes());
        drop(HubAsked { hub: hub.clone(), passage, told: false });
        assert!(hub.ask(false).is_none(), "what may not probe goes by the other one");
        let asked = hub.ask(true).unwrap();
        assert!(asked.probes() && hub.ask(true).is_none());
        asked.tell(SourceHealth::Unknown, Duration::ZERO);
        hub.ask(true).unwrap().tell(SourceHealth::Answered, Duration::ZERO);
        assert!(hub.ask(true).is_some_and(|asked| !asked.probes()));
    }
}
