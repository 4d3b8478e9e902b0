//! A circuit breaker: a source that keeps failing is left alone for a moment, then probed by one call.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When the breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// Calls that are looked back on.
    pub window: usize,
    /// Failures among them, in per cent, at which it opens.
    pub failures_percent: usize,
    /// How long it stays open.
    pub open_for: Duration,
}

impl Default for BreakerSettings {
    /// Half of the last 20 calls, for five seconds.
    fn default() -> Self {
        BreakerSettings { window: 20, failures_percent: 50, open_for: Duration::from_secs(5) }
    }
}

enum State {
    Closed { recent: Vec<bool>, next: usize },
    Open { until: Instant },
    HalfOpen { probing: bool },
}

pub(super) struct Breaker {
    settings: BreakerSettings,
    state: Mutex<State>,
}

fn closed() -> State {
    State::Closed { recent: Vec::new(), next: 0 }
}

impl Breaker {
    pub(super) fn new(settings: BreakerSettings) -> Self {
        Breaker { settings, state: Mutex::new(closed()) }
    }

    /// May a call go? Ok(true) makes it the probe; an error says how long to wait.
    pub(super) fn ask(&self, now: Instant) -> Result<bool, Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            State::Closed { .. } => Ok(false),
            State::Open { until } if now < *until => Err(*until - now),
            State::Open { .. } => {
                *state = State::HalfOpen { probing: true };
                Ok(true)
            }
            State::HalfOpen { probing: true } => Err(Duration::from_millis(500)),
            State::HalfOpen { probing } => {
                *probing = true;
                Ok(true)
            }
        }
    }

    pub(super) fn tell(&self, answered: bool, probe: bool, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            State::HalfOpen { .. } if probe && answered => {
                tracing::info!("a source answers again: its breaker closes");
                *state = closed();
            }
            State::HalfOpen { .. } if probe => *state = State::Open { until: now + self.settings.open_for },
            State::Closed { recent, next } => {
                if recent.len() < self.settings.window {
                    recent.push(answered);
                } else {
                    recent[*next] = answered;
                    *next = (*next + 1) % self.settings.window;
                }
                let failed = recent.iter().filter(|answered| !**answered).count();
                if recent.len() == self.settings.window
                    && failed * 100 >= self.settings.window * self.settings.failures_percent
                {
                    tracing::warn!(failed, of = self.settings.window, "a source keeps failing: its breaker opens");
                    *state = State::Open { until: now + self.settings.open_for };
                }
            }
            State::Open { .. } | State::HalfOpen { .. } => {}
        }
    }

    /// The probe went away without an answer: the next call is the probe.
    pub(super) fn forget_probe(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::HalfOpen { probing } = &mut *state {
            *probing = false;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_on_failures_probes_once_and_closes_on_an_answer() {
        let settings = BreakerSettings { window: 4, failures_percent: 50, open_for: Duration::from_secs(5) };
        let (breaker, start) = (Breaker::new(settings), Instant::now());
        for answered in [true, true, false] {
            breaker.tell(answered, false, start);
            assert_eq!(breaker.ask(start), Ok(false));
        }
        breaker.tell(false, false, start);
        assert_eq!(breaker.ask(start), Err(Duration::from_secs(5)));
        let later = start + Duration::from_secs(5);
        assert_eq!(breaker.ask(later), Ok(true));
        assert!(breaker.ask(later).is_err(), "only one probe at a time");
        breaker.tell(false, true, later);
        assert!(breaker.ask(later).is_err());
        let again = later + Duration::from_secs(5);
        assert_eq!(breaker.ask(again), Ok(true));
        breaker.forget_probe();
        assert_eq!(breaker.ask(again), Ok(true));
        breaker.tell(true, true, again);
        assert_eq!(breaker.ask(again), Ok(false));
    }
}
