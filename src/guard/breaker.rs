//! A circuit breaker: a source that keeps failing, or keeps being slow, is left alone for a moment, then probed by one call.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When the breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// Calls that are looked back on.
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

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls go.
    Closed,
    /// A call probes the source.
    HalfOpen,
    /// No call goes.
    Open,
}

/// How one call went.
#[derive(Clone, Copy, Default)]
struct Went {
    failed: bool,
    slow: bool,
}

enum State {
    Closed { recent: Vec<Went>, next: usize },
    Open { until: Instant },
    HalfOpen { probing: bool },
}

pub(super) struct Breaker {
    source: String,
    settings: BreakerSettings,
    state: Mutex<State>,
}

fn closed() -> State {
    State::Closed { recent: Vec::new(), next: 0 }
}

impl Breaker {
    pub(super) fn new(source: &str, settings: BreakerSettings) -> Self {
        Breaker { source: source.to_owned(), settings, state: Mutex::new(closed()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> BreakerState {
        match &*self.lock() {
            State::Closed { .. } => BreakerState::Closed,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
            State::Open { .. } => BreakerState::Open,
        }
    }

    /// May a call go? Ok(true) makes it the probe; an error says how long to wait.
    pub(super) fn ask(&self, now: Instant) -> Result<bool, Duration> {
        let mut state = self.lock();
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

    pub(super) fn tell(&self, answered: bool, took: Duration, probe: bool, now: Instant) {
        let BreakerSettings { window, failures_percent, slow, slow_percent, open_for } = self.settings;
        let went = Went { failed: !answered, slow: took > slow };
        let mut state = self.lock();
        match &mut *state {
            State::HalfOpen { .. } if probe && answered && !went.slow => {
                tracing::info!(source = self.source, "a source answers again: its breaker closes");
                *state = closed();
            }
            State::HalfOpen { .. } if probe => *state = State::Open { until: now + open_for },
            State::Closed { recent, next } => {
                if recent.len() < window {
                    recent.push(went);
                } else {
                    recent[*next] = went;
                    *next = (*next + 1) % window;
                }
                let failed = recent.iter().filter(|went| went.failed).count();
                let slow = recent.iter().filter(|went| went.slow).count();
                let much = failed * 100 >= window * failures_percent || slow * 100 >= window * slow_percent;
                if recent.len() == window && much {
                    let source = &self.source;
                    tracing::warn!(
                        source,
                        failed,
                        slow,
                        of = window,
                        "a source keeps failing or is slow: its breaker opens"
                    );
                    *state = State::Open { until: now + open_for };
                }
            }
            State::Open { .. } | State::HalfOpen { .. } => {}
        }
    }

    /// The probe went away without an answer: the next call is the probe.
    pub(super) fn forget_probe(&self) {
        if let State::HalfOpen { probing } = &mut *self.lock() {
            *probing = false;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(1);

    fn breaker() -> Breaker {
        let settings = BreakerSettings { window: 4, ..BreakerSettings::default() };
        Breaker::new("test", settings)
    }

    #[test]
    fn it_opens_on_failures_probes_once_and_closes_on_an_answer() {
        let (breaker, start) = (breaker(), Instant::now());
        for answered in [true, true, false] {
            breaker.tell(answered, QUICK, false, start);
            assert_eq!(breaker.ask(start), Ok(false));
        }
        breaker.tell(false, QUICK, false, start);
        assert_eq!(breaker.ask(start), Err(Duration::from_secs(5)));
        let later = start + Duration::from_secs(5);
        assert_eq!(breaker.ask(later), Ok(true));
        assert!(breaker.ask(later).is_err(), "only one probe at a time");
        breaker.tell(false, QUICK, true, later);
        assert!(breaker.ask(later).is_err());
        let again = later + Duration::from_secs(5);
        assert_eq!(breaker.ask(again), Ok(true));
        breaker.forget_probe();
        assert_eq!(breaker.ask(again), Ok(true));
        breaker.tell(true, QUICK, true, again);
        assert_eq!((breaker.ask(again), breaker.state()), (Ok(false), BreakerState::Closed));
    }

    #[test]
    fn it_opens_on_slowness_and_a_slow_probe_does_not_close_it() {
        let (breaker, start, slow) = (breaker(), Instant::now(), Duration::from_secs(11));
        for took in [slow, QUICK, slow, slow] {
            breaker.tell(true, took, false, start);
        }
        assert_eq!(breaker.ask(start), Ok(false), "three of four are not four fifths");
        breaker.tell(true, slow, false, start);
        breaker.tell(true, slow, false, start);
        assert_eq!(breaker.state(), BreakerState::Open);
        let later = start + Duration::from_secs(5);
        assert_eq!(breaker.ask(later), Ok(true));
        breaker.tell(true, slow, true, later);
        assert_eq!(breaker.state(), BreakerState::Open);
    }
}
