//! How long calls may wait for a place at a source. The queue is there for bursts: as long as it has been empty a moment ago, it
//! may fill up. A queue that stands is of no use (CoDel, RFC 8289): it only makes every call late. Then calls that would wait
//! longer than the source takes for one are refused at once, so that those that are let in take about twice as long as ever.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a queue may stand.
const INTERVAL: Duration = Duration::from_millis(100);
/// A wait that is no trouble, however quick the source.
const TARGET: Duration = Duration::from_millis(5);
/// Share of the newest call in the mean time, as a power of two: 1/16.
const WEIGHT: u32 = 4;

/// The wait of one source's calls.
pub(super) struct Wait {
    start: Instant,
    /// Since when calls wait, in microseconds after the start; 0: none waits.
    since: AtomicU64,
    /// How long the source takes for a call, in microseconds.
    mean: AtomicU64,
}

impl Wait {
    pub(super) fn new() -> Self {
        Wait { start: Instant::now(), since: AtomicU64::new(0), mean: AtomicU64::new(0) }
    }

    /// A call has found a place without waiting.
    pub(super) fn none(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// The source took so long for a call.
    pub(super) fn took(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX >> WEIGHT);
        let mean = self.mean.load(Ordering::Relaxed);
        // What another thread adds at the same moment may be lost: it is a mean.
        let next = if mean == 0 { took } else { mean - (mean >> WEIGHT) + (took >> WEIGHT) };
        self.mean.store(next, Ordering::Relaxed);
    }

    /// How long the last of so many will wait for one of these places.
    pub(super) fn expected(&self, ahead: usize, places: usize) -> Duration {
        let mean = self.mean.load(Ordering::Relaxed);
        Duration::from_micros(mean.saturating_mul(ahead as u64) / places.max(1) as u64)
    }

    /// Whether a call may wait behind those ahead of it (itself among them); an error says when it is worth to come again.
    pub(super) fn admits(&self, ahead: usize, places: usize, now: Instant) -> Result<(), Duration> {
        let at = u64::try_from(now.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX).max(1);
        let since = self.since.load(Ordering::Relaxed);
        if since == 0 {
            self.since.store(at, Ordering::Relaxed);
            return Ok(());
        }
        let standing = at.saturating_sub(since);
        if self.mean.load(Ordering::Relaxed) == 0 {
            // No call has come back yet: it takes at least so long.
            self.mean.store(standing, Ordering::Relaxed);
        }
        let expected = self.expected(ahead, places);
        let longest = TARGET.max(Duration::from_micros(self.mean.load(Ordering::Relaxed)));
        let stands = standing > INTERVAL.as_micros() as u64;
        if stands && expected > longest { Err(expected) } else { Ok(()) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_may_wait_and_a_standing_queue_is_cut_to_one_call_s_time() {
        let wait = Wait::new();
        (0..100).for_each(|_| wait.took(Duration::from_millis(50)));
        let start = wait.start;
        assert_eq!(wait.expected(8, 4), Duration::from_millis(100));
        // A burst: 40 calls for 4 places.
        (1..=40).for_each(|ahead| wait.admits(ahead, 4, start + Duration::from_millis(1)).unwrap());
        let later = start + INTERVAL + Duration::from_millis(2);
        assert_eq!(wait.admits(40, 4, later), Err(Duration::from_millis(500)));
        assert_eq!(wait.admits(5, 4, later), Err(Duration::from_micros(62_500)));
        wait.admits(4, 4, later).unwrap();
        // It ran empty: the next burst is let in.
        wait.none();
        wait.admits(40, 4, later).unwrap();
        wait.admits(40, 4, later).unwrap();
    }

    #[test]
    fn the_mean_follows_a_source_that_becomes_slow() {
        let wait = Wait::new();
        wait.took(Duration::from_millis(10));
        assert_eq!(wait.expected(1, 1), Duration::from_millis(10));
        (0..100).for_each(|_| wait.took(Duration::from_millis(100)));
        assert!(wait.expected(1, 1) > Duration::from_millis(95));
    }
}
