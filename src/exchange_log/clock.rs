//! The gateway's time of day, which does not go back. It decides when rights end and when quotas' days begin, and it
//! stamps entries.
//!
//! It follows the wall clock as long as that moves forward. If the wall clock is set back by up to a minute, this clock
//! waits for it. If it is set back further, this clock continues from its last time, by the monotonic clock, and
//! reports this ([`Clock::behind`]) until the wall clock has caught up. After a restart it begins no earlier than the
//! log's newest entry. It follows a wall clock that is set forward: that ends rights early, and never late.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Up to this step back, the clock waits for the wall clock.
const STANDSTILL_US: i64 = 60_000_000;
/// How often a pair of wall time and monotonic time is recorded.
const NOTE_EVERY_US: i64 = 1_000_000;

/// A time of day that does not go back.
pub struct Clock {
    /// The latest time that was returned, in Unix microseconds.
    latest: AtomicI64,
    /// The wall time of the last record.
    noted: AtomicI64,
    /// A monotonic time, and the time of day that belongs to it.
    note: Mutex<(Duration, i64)>,
    behind: AtomicI64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// Makes a clock that follows the wall clock.
    pub const fn new() -> Self {
        let (latest, noted, behind) = (AtomicI64::new(i64::MIN), AtomicI64::new(i64::MIN), AtomicI64::new(0));
        Clock { latest, noted, note: Mutex::new((Duration::ZERO, i64::MIN)), behind }
    }

    /// Returns the time if the wall clock shows `wall_us` (Unix time in microseconds). The monotonic clock is read once
    /// a second, and while the wall clock is behind.
    pub fn at(&self, wall_us: i64, monotonic: impl FnOnce() -> Duration) -> i64 {
        let latest = self.latest.fetch_max(wall_us, Ordering::Relaxed);
        if wall_us >= latest {
            if wall_us.saturating_sub(self.noted.load(Ordering::Relaxed)) >= NOTE_EVERY_US {
                self.note(wall_us, monotonic());
            }
            // Every call reads the time: an unchanged value is not written again.
            if self.behind.load(Ordering::Relaxed) != 0 {
                self.behind.store(0, Ordering::Relaxed);
            }
            return wall_us;
        }
        if latest.saturating_sub(wall_us) <= STANDSTILL_US {
            return latest;
        }
        let (since, us) = *self.note.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = monotonic().saturating_sub(since).as_micros();
        let time = us.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX)).max(latest);
        self.latest.fetch_max(time, Ordering::Relaxed);
        self.behind.store(time.saturating_sub(wall_us), Ordering::Relaxed);
        time
    }

    fn note(&self, us: i64, monotonic: Duration) {
        let mut note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        if us > note.1 {
            *note = (monotonic, us);
            self.noted.store(us, Ordering::Relaxed);
        }
    }

    /// Sets the earliest time from now on.
    pub fn not_before(&self, us: i64, monotonic: Duration) {
        if self.latest.fetch_max(us, Ordering::Relaxed) < us {
            self.note(us, monotonic);
        }
    }

    /// Returns how far the wall clock is behind; zero while the clock follows it.
    pub fn behind(&self) -> Duration {
        Duration::from_micros(self.behind.load(Ordering::Relaxed).unsigned_abs())
    }
}

static CLOCK: Clock = Clock::new();

fn monotonic() -> Duration {
    static BEGAN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    BEGAN.elapsed()
}

/// Returns the wall clock's time in Unix microseconds: negative before 1970.
fn wall_us() -> i64 {
    let us = |passed: Duration| i64::try_from(passed.as_micros()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => us(since),
        Err(before) => -us(before.duration()),
    }
}

/// Returns the time of day of this process, in Unix microseconds.
pub fn now_us() -> i64 {
    CLOCK.at(wall_us().saturating_add(set_by()), monotonic)
}

/// Sets the earliest time, whatever the wall clock shows: an entry of this time was written.
pub fn not_before(us: i64) {
    CLOCK.not_before(us, monotonic());
}

/// Returns how far the wall clock is behind; zero while the clock follows it.
pub fn behind() -> Duration {
    CLOCK.behind()
}

/// Returns by how much a test has set the wall clock: microseconds in the file that `NDXP_CLOCK` names. Builds without
/// debug assertions do not read it.
#[cfg(debug_assertions)]
fn set_by() -> i64 {
    static FILE: std::sync::LazyLock<Option<std::path::PathBuf>> =
        std::sync::LazyLock::new(|| std::env::var_os("NDXP_CLOCK").map(Into::into));
    let text = FILE.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(not(debug_assertions))]
fn set_by() -> i64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn after(us: i64) -> Duration {
        Duration::from_micros(us.unsigned_abs())
    }

    #[test]
    fn l11_a_wall_clock_that_is_set_back_is_not_followed_and_one_that_is_set_forward_is() {
        let clock = Clock::new();
        assert_eq!(clock.at(100 * HOUR, || after(0)), 100 * HOUR);
        assert_eq!(clock.at(101 * HOUR, || after(HOUR)), 101 * HOUR);
        // A day back: the clock continues, and reports how far the wall clock is behind.
        assert_eq!(clock.at(77 * HOUR + 5, || after(HOUR + 5)), 101 * HOUR + 5);
        assert_eq!(clock.behind(), after(24 * HOUR));
        assert_eq!(clock.at(78 * HOUR, || after(2 * HOUR)), 102 * HOUR);
        // To 1970, too.
        assert_eq!(clock.at(0, || after(3 * HOUR)), 103 * HOUR);
        // Corrected: the clock follows it again.
        assert_eq!(clock.at(104 * HOUR, || after(4 * HOUR)), 104 * HOUR);
        assert!(clock.behind().is_zero());
        assert_eq!(clock.at(500 * HOUR, || after(5 * HOUR)), 500 * HOUR);
    }

    #[test]
    fn a_small_step_back_is_waited_for() {
        let clock = Clock::new();
        assert_eq!(clock.at(HOUR, || after(0)), HOUR);
        for wall in [HOUR - 2_000_000, HOUR - 1, HOUR] {
            assert_eq!(clock.at(wall, || after(1)), HOUR);
        }
        assert_eq!(clock.at(HOUR + 1, || after(2)), HOUR + 1);
        assert!(clock.behind().is_zero());
    }

    #[test]
    fn l11_after_a_restart_it_is_no_earlier_than_the_newest_entry() {
        let clock = Clock::new();
        assert_eq!(clock.at(10 * HOUR, || after(0)), 10 * HOUR);
        clock.not_before(34 * HOUR, after(HOUR));
        assert_eq!(clock.at(11 * HOUR, || after(HOUR)), 34 * HOUR);
        assert_eq!(clock.at(12 * HOUR, || after(2 * HOUR)), 35 * HOUR);
        // An older one changes nothing.
        clock.not_before(20 * HOUR, after(2 * HOUR));
        assert_eq!(clock.at(36 * HOUR, || after(3 * HOUR)), 36 * HOUR);
    }
}
