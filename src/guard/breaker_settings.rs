//! When a circuit breaker opens, for how long, and its states.

use std::time::Duration;

/// When the breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// Number of calls in the window.
    pub window: usize,
    /// Failures among them, in per cent, at which it opens.
    pub failures_percent: usize,
    /// A call that takes longer is slow.
    pub slow: Duration,
    /// Slow calls among them, in per cent, at which it opens.
    pub slow_percent: usize,
    /// How long it stays open.
    pub open_for: Duration,
}

impl BreakerSettings {
    /// Returns whether this many failed, or this many slow ones, are too many of these calls.
    pub(super) fn are_bad(&self, calls: usize, failed: usize, slow: usize) -> bool {
        failed * 100 >= calls * self.failures_percent || slow * 100 >= calls * self.slow_percent
    }
}

impl Default for BreakerSettings {
    /// Half of the last 20 calls failed, or four fifths of them took more than ten seconds: for five seconds.
    fn default() -> Self {
        BreakerSettings {
            window: 20,
            failures_percent: 50,
            slow: Duration::from_secs(10),
            slow_percent: 80,
            open_for: Duration::from_secs(5),
        }
    }
}

/// The state of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// A call probes the source.
    HalfOpen,
    /// No call passes.
    Open,
}
