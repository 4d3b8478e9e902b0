//! Retries of reads: few, spread out, and never more than a share of all calls, so that a source in trouble does not get the
//! load that would keep it there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Thousandths of a retry that a call may put by, and what a retry takes.
const WHOLE: u64 = 1_000;
/// Retries that are put by at most, and at the beginning: a quiet source's first failures may be tried again.
const MOST: u64 = 10 * WHOLE;
/// Longest wait that a source may ask for; a longer one is the caller's to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// When reads are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySettings {
    /// Attempts in all; 1: never again.
    pub attempts: u32,
    /// Wait before the first retry, on the average; each further one waits twice as long.
    pub backoff: Duration,
    /// Retries among all calls, in per cent.
    pub budget_percent: u64,
}

impl Default for RetrySettings {
    /// Once more, after 50 ms or so, for at most a tenth of the calls.
    fn default() -> Self {
        RetrySettings { attempts: 2, backoff: Duration::from_millis(50), budget_percent: 10 }
    }
}

/// What may be retried still.
pub(super) struct Budget {
    settings: RetrySettings,
    left: AtomicU64,
}

impl Budget {
    pub(super) fn new(settings: RetrySettings) -> Self {
        Budget { settings, left: AtomicU64::new(MOST) }
    }

    /// A call begins: a share of a retry is put by.
    pub(super) fn call(&self) {
        let share = self.settings.budget_percent * WHOLE / 100;
        let put = |left: u64| (left < MOST).then(|| (left + share).min(MOST));
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, put);
    }

    /// How long to wait before the next attempt, after `attempts` have failed; `None` where there is to be none.
    pub(super) fn next(&self, attempts: u32, asked: Option<Duration>, deadline: Instant) -> Option<Duration> {
        if attempts >= self.settings.attempts || asked.is_some_and(|asked| asked > LONGEST_WAIT) {
            return None;
        }
        let whole = self.settings.backoff * 2u32.saturating_pow(attempts - 1);
        // Between half and one and a half of it, so that callers do not come back together.
        let wait = whole.mul_f64(0.5 + fastrand::f64()).max(asked.unwrap_or_default());
        if Instant::now() + wait >= deadline {
            return None;
        }
        self.take().then_some(wait)
    }

    /// Takes one of what may be retried still.
    pub(super) fn take(&self) -> bool {
        let take = |left: u64| left.checked_sub(WHOLE);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_calls_and_end_with_the_deadline() {
        let budget = Budget::new(RetrySettings::default());
        let far = Instant::now() + Duration::from_secs(60);
        assert_eq!((0..100).filter(|_| budget.next(1, None, far).is_some()).count(), 10);
        (0..50).for_each(|_| budget.call());
        assert_eq!((0..100).filter(|_| budget.next(1, None, far).is_some()).count(), 5);
        (0..1_000).for_each(|_| budget.call());
        assert_eq!(budget.next(2, None, far), None, "two attempts are all");
        assert_eq!(budget.next(1, None, Instant::now() + Duration::from_millis(10)), None, "no time is left");
        assert_eq!(budget.next(1, Some(Duration::from_secs(3)), far), None, "the source wants to be left alone");
        assert!(budget.next(1, Some(Duration::from_secs(1)), far).is_some_and(|wait| wait >= Duration::from_secs(1)));
        let waits: Vec<Duration> = (0..5).filter_map(|_| budget.next(1, None, far)).collect();
        assert!(waits.iter().all(|wait| (25..=75).contains(&wait.as_millis())), "{waits:?}");
        assert!(waits.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
