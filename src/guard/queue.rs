//! How long calls may wait for a permit at a source: CoDel (RFC 8289) at the queue's entrance. The queue is for bursts:
//! it may fill up. A standing queue only makes every call late. CoDel drops a call that has waited too long when its
//! turn comes; here the wait is known when a call arrives (from the calls ahead and the time of a call), so the call is
//! refused at once, and its caller can go elsewhere. The target is no fixed 5 ms but half of an undisturbed call's
//! time, since sources take from 1 ms to seconds.
//!
//! The queue is standing if it has not been empty for an interval, or if calls have waited longer than the target on
//! average: calls that come and go in step leave it empty between them. If no call came for an interval, the burst is
//! over, and the next one is admitted.
//!
//! ```text
//!            a call waits            not empty for 100 ms, or the mean wait is over the target
//!   ┌───────┐ ──────────▶ ┌───────┐ ──────────────────────────────────────────────▶ ┌──────────┐
//!   │ EMPTY │             │ BURST │                                                 │ STANDING │
//!   └───────┘ ◀────────── └───────┘ ◀────────────────────────────────────────────── └──────────┘
//!            a call finds a permit   empty, and nobody refused for an interval        waits over the
//!                          all may wait                                              target are refused
//! ```

use super::moving_average::{MovingAverage, micros};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a queue may persist.
const INTERVAL: Duration = Duration::from_millis(100);
/// A wait that does no harm, however quick the source.
const TARGET: Duration = Duration::from_millis(1);

/// The wait of one source's calls.
pub(super) struct QueueWait {
    start: Instant,
    /// Since when calls wait, in microseconds after the start; 0: no call waits.
    since: AtomicU64,
    /// How long the source takes for a call.
    mean: MovingAverage<4>,
    /// How long it takes for an undisturbed call.
    undisturbed: MovingAverage<4>,
    lately: Mutex<RecentWaits>,
    /// Whether calls waited long on average.
    long: AtomicBool,
}

/// The calls of an interval that got a permit.
struct RecentWaits {
    began: Instant,
    /// When the last of them got one, or another was refused.
    last: Instant,
    calls: u64,
    /// The sum of their waits, in microseconds.
    waited: u64,
    /// Others would have waited too long.
    refused: bool,
}

impl QueueWait {
    pub(super) fn new() -> Self {
        let start = Instant::now();
        QueueWait {
            start,
            since: AtomicU64::new(0),
            mean: MovingAverage::default(),
            undisturbed: MovingAverage::default(),
            lately: Mutex::new(RecentWaits { began: start, last: start, calls: 0, waited: 0, refused: false }),
            long: AtomicBool::new(false),
        }
    }

    /// Records that a call has got a permit after this wait, or without one.
    pub(super) fn record_wait(&self, wait: Option<Duration>, now: Instant) {
        if wait.is_none() {
            self.since.store(0, Ordering::Relaxed);
        }
        let mut lately = self.lately();
        (lately.calls, lately.waited) = (lately.calls + 1, lately.waited + wait.map_or(0, micros));
        if now.saturating_duration_since(lately.began) >= INTERVAL {
            // If no call came for an interval, the burst that filled the queue is over. Calls in step come once in a
            // call's time.
            let pause = INTERVAL.max(Duration::from_micros(self.mean.get().saturating_mul(2)));
            let over = now.saturating_duration_since(lately.last) > pause;
            // As long as calls are refused, the queue is short because of that.
            let long = !over && (lately.refused || lately.waited / lately.calls > micros(self.max_wait()));
            self.long.store(long, Ordering::Relaxed);
            *lately = RecentWaits { began: now, last: now, calls: 0, waited: 0, refused: false };
        } else {
            lately.last = now;
        }
    }

    fn lately(&self) -> MutexGuard<'_, RecentWaits> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the time of a call, and that of an undisturbed call, in microseconds.
    pub(super) fn record_latency(&self, took: Duration, undisturbed: u64) {
        let took = micros(took);
        self.mean.add(took);
        self.undisturbed.add(if undisturbed > 0 { took.min(undisturbed) } else { took });
    }

    /// Returns how long the last of this number of calls will wait for one of these permits.
    pub(super) fn expected(&self, ahead: usize, places: usize) -> Duration {
        Duration::from_micros(self.mean.get().saturating_mul(ahead as u64) / places.max(1) as u64)
    }

    /// Returns the longest wait in a standing queue: half of an undisturbed call's time. A permit is released at any
    /// point of a call, so some calls wait for that much longer than others.
    fn max_wait(&self) -> Duration {
        TARGET.max(Duration::from_micros(self.undisturbed.get() / 2))
    }

    /// Returns whether a call may wait behind those ahead of it (itself included); an error has the time after which to retry.
    pub(super) fn admits(&self, ahead: usize, places: usize, now: Instant) -> Result<(), Duration> {
        let at = micros(now.saturating_duration_since(self.start)).max(1);
        let since = self.since.load(Ordering::Relaxed);
        if since == 0 {
            self.since.store(at, Ordering::Relaxed);
        }
        let standing = if since == 0 { 0 } else { at.saturating_sub(since) };
        if self.mean.get() == 0 {
            // No call has completed yet: it takes at least this long.
            self.mean.set_initial(standing);
            self.undisturbed.set_initial(standing);
        }
        let stands = standing > micros(INTERVAL) || self.long.load(Ordering::Relaxed);
        let expected = self.expected(ahead, places);
        if !stands || expected <= self.max_wait() {
            return Ok(());
        }
        let mut lately = self.lately();
        (lately.refused, lately.last) = (true, now);
        Err(expected)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_may_wait_and_a_standing_queue_is_cut_to_half_a_call_s_time() {
        let wait = QueueWait::new();
        (0..100).for_each(|_| wait.record_latency(Duration::from_millis(50), 0));
        let start = wait.start;
        assert_eq!(wait.expected(8, 4), Duration::from_millis(100));
        // A burst: 40 calls for 4 permits.
        (1..=40).for_each(|ahead| wait.admits(ahead, 4, start + Duration::from_millis(1)).unwrap());
        let later = start + INTERVAL + Duration::from_millis(2);
        assert_eq!(wait.admits(40, 4, later), Err(Duration::from_millis(500)));
        assert_eq!(wait.admits(5, 4, later), Err(Duration::from_micros(62_500)));
        wait.admits(2, 4, later).unwrap();
        // It ran empty, and no call was refused for an interval: the next burst is admitted.
        wait.record_wait(None, later);
        let then = later + INTERVAL;
        wait.record_wait(None, then);
        wait.admits(40, 4, then).unwrap();
        wait.admits(40, 4, then).unwrap();
    }

    #[test]
    fn before_the_first_answer_a_call_takes_as_long_as_has_been_waited() {
        let wait = QueueWait::new();
        wait.admits(1, 4, wait.start + Duration::from_millis(1)).unwrap();
        let later = wait.start + Duration::from_millis(201);
        wait.admits(2, 4, later).unwrap();
        assert_eq!(wait.admits(3, 4, later), Err(Duration::from_millis(150)));
    }

    #[test]
    fn calls_in_step_do_not_hide_a_queue_that_is_full_between_them() {
        let wait = QueueWait::new();
        (0..100).for_each(|_| wait.record_latency(Duration::from_millis(2), 0));
        let mut now = wait.start;
        let mut round = |longest: u64| {
            // A hundred come together, four at a time find a permit; then it is empty.
            now += Duration::from_millis(longest);
            wait.record_wait(None, now);
            (0..100).for_each(|call| wait.record_wait(Some(Duration::from_millis(longest * call / 100)), now));
            wait.admits(50, 4, now)
        };
        assert_eq!(round(50), Ok(()), "a burst");
        assert_eq!(round(50), Err(Duration::from_millis(25)));
        // It has become short, but only because calls are refused.
        (0..100).for_each(|_| assert!(round(3).is_err()));
        // For an interval, nobody came who would have had to wait.
        (0..100).for_each(|_| {
            wait.record_wait(None, {
                now += Duration::from_millis(2);
                now
            })
        });
        wait.admits(50, 4, now).unwrap();
    }

    #[test]
    fn a_burst_that_is_over_does_not_shut_the_next_one_out() {
        let wait = QueueWait::new();
        (0..100).for_each(|_| wait.record_latency(Duration::from_millis(4), 0));
        let mut now = wait.start;
        for pause in [1_000, 101, 5_000] {
            now += Duration::from_millis(pause);
            wait.record_wait(None, now);
            (1..=36).for_each(|ahead| wait.admits(ahead, 8, now).unwrap());
            (0..36).for_each(|call| {
                wait.record_wait(Some(Duration::from_millis(call)), now + Duration::from_millis(call));
            });
            now += Duration::from_millis(36);
        }
        // One that comes before an interval has passed finds a queue that stands.
        now += Duration::from_millis(90);
        wait.record_wait(None, now);
        assert!(wait.admits(36, 8, now).is_err());
    }

    #[test]
    fn a_slow_source_s_calls_in_step_are_no_bursts_that_are_over() {
        let wait = QueueWait::new();
        (0..100).for_each(|_| wait.record_latency(Duration::from_millis(200), 0));
        let mut now = wait.start;
        for round in 0..20 {
            // Four permits come free at once. After the first rush they are for two that wait, and for two that come.
            now += Duration::from_millis(200);
            let waited = if round == 0 { 900 } else { 100 };
            (0..2).for_each(|_| wait.record_wait(Some(Duration::from_millis(waited)), now));
            (0..2).for_each(|_| wait.record_wait(None, now));
            let comes = |ahead: usize| wait.admits(ahead, 4, now + Duration::from_millis(ahead as u64));
            let admitted = (1..=38).filter(|ahead| comes(*ahead).is_ok()).count();
            assert_eq!(admitted, 2, "half a call's time, in round {round}");
        }
    }

    #[test]
    fn the_mean_follows_a_source_that_becomes_slow() {
        let wait = QueueWait::new();
        wait.record_latency(Duration::from_millis(10), 0);
        assert_eq!(wait.expected(1, 1), Duration::from_millis(10));
        (0..100).for_each(|_| wait.record_latency(Duration::from_millis(100), 0));
        assert!(wait.expected(1, 1) > Duration::from_millis(95));
    }
}
