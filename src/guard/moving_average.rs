//! Mean latencies, in which the newest count most.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A time in whole microseconds; a time out of range becomes some years.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX >> 16)
}

/// A mean in microseconds; 0: nothing is known yet. The newest time's share in it is 1/2^`WEIGHT`.
#[derive(Debug, Default)]
pub(super) struct MovingAverage<const WEIGHT: u32>(AtomicU64);

impl<const WEIGHT: u32> MovingAverage<WEIGHT> {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the value if nothing is known yet.
    pub(super) fn set_initial(&self, time: u64) {
        self.0.store(time, Ordering::Relaxed);
    }

    /// Adds a time. A concurrent addition of another thread may be lost, which a mean tolerates.
    pub(super) fn add(&self, time: u64) {
        let mean = self.get();
        let next = if mean == 0 { time } else { mean - (mean >> WEIGHT) + (time >> WEIGHT) };
        self.0.store(next, Ordering::Relaxed);
    }
}
