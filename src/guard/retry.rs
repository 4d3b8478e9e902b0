//! Retries of reads: few, spread out, and never more than a share of all calls, so that a failing source does not get
//! the load that would keep it failing. Each client earns a share of the retry budget by its own calls. A client may
//! also use what others have earned, as long as the budget is more than half full.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Thousandths of a retry: the cost of one retry.
const RETRY_COST: u64 = 1_000;
/// Maximum balance of the budget, and its initial one: a quiet source's first failures may be retried.
const MAX_BALANCE: u64 = 10 * RETRY_COST;
/// Maximum balance of one client, and its initial one.
pub(super) const SHARE: u64 = MAX_BALANCE / 2;
/// Longest `Retry-After` that the gateway waits for; a longer one is passed to the caller.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// When reads are retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySettings {
    /// Attempts in all; 1: no retry.
    pub attempts: u32,
    /// Mean wait before the first retry; each further one waits twice as long.
    pub backoff: Duration,
    /// Retries as a percentage of all calls.
    pub budget_percent: u64,
}

impl Default for RetrySettings {
    /// One retry, after about 50 ms, for at most a tenth of the calls.
    fn default() -> Self {
        RetrySettings { attempts: 2, backoff: Duration::from_millis(50), budget_percent: 10 }
    }
}

/// The retry budget of a source.
pub(super) struct Budget {
    settings: RetrySettings,
    left: AtomicU64,
}

impl Budget {
    pub(super) fn new(settings: RetrySettings) -> Self {
        Budget { settings, left: AtomicU64::new(MAX_BALANCE) }
    }

    /// A call begins: it adds its share of a retry to the budget and to its client's balance (`own`).
    pub(super) fn call(&self, own: &mut u64) {
        let share = self.settings.budget_percent * RETRY_COST / 100;
        *own = (*own + share).min(SHARE);
        let put = |left: u64| (left < MAX_BALANCE).then(|| (left + share).min(MAX_BALANCE));
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, put);
    }

    /// Returns how long to wait before the next attempt, after `attempts` have failed; `None` if there is none. `take`
    /// takes one retry from the budget.
    pub(super) fn next(
        &self,
        attempts: u32,
        retry_after: Option<Duration>,
        deadline: Instant,
        take: impl FnOnce() -> bool,
    ) -> Option<Duration> {
        if attempts >= self.settings.attempts || retry_after.is_some_and(|retry_after| retry_after > MAX_WAIT) {
            return None;
        }
        let whole = self.settings.backoff * 2u32.saturating_pow(attempts.saturating_sub(1));
        // Between half and one and a half of it, so that callers do not return together.
        let wait = whole.mul_f64(0.5 + fastrand::f64()).max(retry_after.unwrap_or_default());
        if Instant::now() + wait >= deadline {
            return None;
        }
        take().then_some(wait)
    }

    /// Takes one retry from the budget, for a client with this balance of its own (`own`).
    pub(super) fn take(&self, own: &mut u64) -> bool {
        let has = *own >= RETRY_COST;
        let take = |left: u64| if has || left > SHARE { left.checked_sub(RETRY_COST) } else { None };
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        if taken {
            *own = own.saturating_sub(RETRY_COST);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_calls_and_end_with_the_deadline() {
        let budget = Budget::new(RetrySettings::default());
        let own = std::cell::Cell::new(SHARE);
        let take = || {
            let mut now = own.get();
            let taken = budget.take(&mut now);
            own.set(now);
            taken
        };
        let call = || {
            let mut now = own.get();
            budget.call(&mut now);
            own.set(now);
        };
        let far = Instant::now() + Duration::from_secs(60);
        let next = |attempts, retry_after, deadline| budget.next(attempts, retry_after, deadline, take);
        assert_eq!((0..100).filter(|_| next(1, None, far).is_some()).count(), 5);
        (0..50).for_each(|_| call());
        assert_eq!((0..100).filter(|_| next(1, None, far).is_some()).count(), 5);
        (0..1_000).for_each(|_| call());
        assert_eq!(next(2, None, far), None, "two attempts are all");
        assert_eq!(next(1, None, Instant::now() + Duration::from_millis(10)), None, "no time is left");
        assert_eq!(next(1, Some(Duration::from_secs(3)), far), None, "the source wants to be left alone");
        assert!(next(1, Some(Duration::from_secs(1)), far).is_some_and(|wait| wait >= Duration::from_secs(1)));
        let waits: Vec<Duration> = (0..4).filter_map(|_| next(1, None, far)).collect();
        assert!(waits.iter().all(|wait| (25..=75).contains(&wait.as_millis())), "{waits:?}");
        assert!(waits.windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn what_one_client_has_put_by_is_not_another_s() {
        let budget = Budget::new(RetrySettings::default());
        let (mut crowd, mut other) = (SHARE, SHARE);
        assert_eq!((0..100).filter(|_| budget.take(&mut crowd)).count(), 5, "half of what there is");
        assert_eq!((0..100).filter(|_| budget.take(&mut other)).count(), 5, "the other half is there still");
        // What the other client earns now belongs to the other.
        (0..50).for_each(|_| budget.call(&mut other));
        assert!(!budget.take(&mut crowd));
        assert_eq!((0..100).filter(|_| budget.take(&mut other)).count(), 5);
        // A client alone has all that it earned.
        (0..30).for_each(|_| budget.call(&mut crowd));
        assert_eq!((0..100).filter(|_| budget.take(&mut crowd)).count(), 3);
    }
}
