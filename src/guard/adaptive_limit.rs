//! A gradient limit: the number of calls that a source should have in flight at once, derived from their latency. More
//! calls than the source can work on only wait for each other there: each takes longer, and no more of them complete
//! (Little's law).
//!
//! The published name is Envoy's gradient controller (also Netflix's Gradient2): limit × base latency ÷ latency, with
//! headroom. This one differs in four ways, each for a case in which the published ones fail (`comparison.rs`; the
//! table is in `docs/decisions/0007-own-limit-and-queue.md`):
//! - The base latency belongs to an operation, since a source's operations differ. It is learnt from calls that hardly
//!   any other call disturbs, as they come. Envoy measures one for all, at three calls at once, every minute.
//! - The limit decreases only while calls wait for a permit: otherwise a decrease gains nothing.
//! - After it has decreased by half, the throughput is compared. If it fell with the limit, calls are slow for another
//!   reason: the limit is restored, and the base latency is learnt again.
//! - The gradient has a tolerance of twice the base latency, and the queue in front ([`queue`](super::queue)) takes
//!   half of it.
//!
//! ```text
//!              nobody waits, or took < 4/5 of what is allowed: limit + 1/8 + 1
//!                ┌───┐
//!                │   ▼      calls wait, took > allowed: limit × allowed ÷ took
//!   start ──▶ ┌────────┐ ─────────────────────────────────────▶ ┌─────────┐ ──┐ the same:
//!             │ STEADY │                                        │ LOWERED │   │ lower still
//!             └────────┘ ◀───────────────────────────────────── └─────────┘ ◀─┘
//!               │    ▲      nobody waits, or back at the limit     │    ▲
//!   200 windows │    │ 8 undisturbed               half of it, far │    │ as many
//!   that taught │    │ calls, or 64                fewer completed ▼    │ as before
//!   nothing     ▼    │                                          ┌───────────┐
//!             ┌─────────┐      one window, of which all         │ SUSPECTED │
//!             │ PROBING │      calls teach the base latency     └───────────┘
//!             │ limit 4 │             ┌────────────┐  once more       │
//!             └─────────┘  STEADY ◀── │ RELEARNING │ ◀────────────────┘
//!                                     │ old limit  │
//!                                     └────────────┘
//! ```
//! A window is 100 ms, and 16 calls that began in it.

use super::moving_average::{MovingAverage, micros};
use std::time::{Duration, Instant};

/// With no more than these in flight, a call counts as undisturbed.
pub(super) const FEWEST: usize = 4;
/// Maximum latency of a call, as a multiple of an undisturbed one: with the wait for its permit, which is at most half
/// of one (`queue.rs`), less than three times. A quick source's calls may be disturbed for `ROOM` more, up to three
/// times, since each costs less if many are in flight.
const TOLERANCE: (u64, u64) = (2, 3);
/// A disturbance that does no harm, in microseconds.
const ROOM: u64 = 1_000;
/// Minimum time between two adjustments of the limit, and the minimum number of calls that began in it.
const INTERVAL: Duration = Duration::from_millis(100);
const CALLS: u64 = 16;
/// Number of adjustments at a full source without any undisturbed call after which the limit makes room for some; and
/// the number if the limit is at its minimum, where making room costs nothing.
const STALE: (u32, u32) = (200, 10);
/// Undisturbed calls that are enough for it.
const PROBES: u64 = 8;

/// How long an operation's call takes if hardly any other call is in flight at its source.
pub(super) type BaseLatency = MovingAverage<3>;

/// How a call began.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallStart {
    /// Number of calls that began before it.
    pub(super) number: u64,
    /// Hardly any other call was in flight.
    pub(super) alone: bool,
}

/// The adaptive concurrency limit of one source.
pub(super) struct AdaptiveLimit {
    most: usize,
    least: usize,
    now: usize,
    /// Sample of the calls that began since the last adjustment: earlier calls show the effect of the limit before it.
    since: LimitSample,
    began: Instant,
    first: u64,
    /// Most calls were undisturbed before the last adjustment.
    quiet: bool,
    /// Consecutive adjustments at a full source without an undisturbed call.
    stale: u32,
    /// The limit to restore after the probe for undisturbed calls.
    probing: Option<usize>,
    lowered: Option<BeforeDecrease>,
    /// The base latencies are wrong: every completed call updates them.
    relearning: bool,
}

/// The throughput before the limit began to fall.
#[derive(Clone, Copy)]
struct BeforeDecrease {
    bound: usize,
    /// Calls a second.
    rate: f64,
    /// The last adjustment has seen far fewer. (The cause may have been a pause of the machine.)
    suspected: bool,
}

impl BeforeDecrease {
    /// Returns whether the decrease did harm, that is, the throughput fell with the limit. If calls only wait for each
    /// other, it hardly falls; if they do not, it falls as much as the limit. The threshold is the root, half way
    /// between (on a scale of ratios).
    fn harmed(&self, bound: usize, rate: f64) -> bool {
        bound * 2 <= self.bound && rate < self.rate * (bound as f64 / self.bound as f64).sqrt()
    }
}

#[derive(Default)]
struct LimitSample {
    calls: u64,
    /// Their total latency, and what it would have been undisturbed, in microseconds.
    took: u64,
    pace: u64,
    undisturbed: u64,
    /// A base latency was updated.
    learnt: bool,
    /// A call had to wait for a permit.
    waited: bool,
    /// Completed calls, including those that began before the last adjustment.
    answered: u64,
}

impl AdaptiveLimit {
    pub(super) fn new(most: usize, least: usize) -> Self {
        let began = Instant::now();
        AdaptiveLimit {
            most,
            least: least.min(most),
            now: most,
            since: LimitSample::default(),
            began,
            first: 0,
            quiet: true,
            stale: 0,
            probing: None,
            lowered: None,
            relearning: false,
        }
    }

    /// Returns the present limit.
    pub(super) fn now(&self) -> usize {
        self.now
    }

    #[cfg(test)]
    pub(super) fn set(&mut self, now: usize) {
        self.now = now;
    }

    /// Records that a call has to wait.
    pub(super) fn record_wait(&mut self) {
        self.since.waited = true;
    }

    /// Records that a call has completed, after this number of others had begun in all.
    pub(super) fn record_latency(
        &mut self,
        pace: &BaseLatency,
        call: CallStart,
        took: Duration,
        others: u64,
        now: Instant,
    ) {
        if self.least == self.most {
            return;
        }
        self.since.answered += 1;
        if call.number < self.first {
            return;
        }
        let took = micros(took).max(1);
        // Few calls were in flight when it came, and few came after it.
        let undisturbed = call.alone && others.saturating_sub(call.number) <= 2 * FEWEST as u64;
        self.since.undisturbed += u64::from(undisturbed);
        // Among many others, a call is alone only because something delayed all of them.
        let tells = undisturbed && ((self.quiet && !self.since.waited) || self.probing.is_some());
        if tells || self.relearning {
            pace.add(took);
            self.since.learnt = true;
        }
        self.since.calls += 1;
        let pace = pace.get();
        if pace > 0 {
            self.since.took += took;
            self.since.pace += pace;
        }
        let enough = match self.probing {
            Some(_) => self.since.undisturbed >= PROBES || self.since.calls >= 8 * PROBES,
            None => self.since.calls >= CALLS && now.saturating_duration_since(self.began) >= INTERVAL,
        };
        if enough {
            self.look(now.saturating_duration_since(self.began));
            (self.since, self.began, self.first) = (LimitSample::default(), now, others);
        }
    }

    fn look(&mut self, time: Duration) {
        let seen = &self.since;
        self.quiet = seen.undisturbed * 2 >= seen.calls;
        self.relearning = false;
        if let Some(before) = self.probing.take() {
            (self.now, self.stale) = (before, 0);
            return;
        }
        self.stale = if seen.waited && !seen.learnt { self.stale + 1 } else { 0 };
        let patience = if self.now > FEWEST.max(self.least) { STALE.0 } else { STALE.1 };
        if self.stale >= patience || (self.stale > 0 && seen.pace == 0) {
            (self.probing, self.now) = (Some(self.now), FEWEST.min(self.now));
            return;
        }
        let rate = seen.answered as f64 / time.as_secs_f64();
        let before = self.lowered.filter(|_| seen.waited);
        if let Some(before) = before.filter(|before| before.harmed(self.now, rate)) {
            if before.suspected {
                // Other calls are not what makes a call slow.
                (self.now, self.relearning, self.lowered) = (before.bound, true, None);
            } else {
                self.lowered = Some(BeforeDecrease { suspected: true, ..before });
            }
            return;
        }
        self.lowered = before.map(|before| BeforeDecrease { suspected: false, ..before });
        let allowed = (seen.pace * TOLERANCE.0 + seen.calls * ROOM).min(seen.pace * TOLERANCE.1);
        if seen.waited && seen.took > allowed {
            let scaled = u64::try_from(self.now).unwrap_or(u64::MAX).saturating_mul(allowed) / seen.took;
            let lower = usize::try_from(scaled).unwrap_or(self.now).max(self.now / 4).max(self.least).min(self.now);
            self.lowered = before.or(Some(BeforeDecrease { bound: self.now, rate, suspected: false }));
            self.now = lower;
        } else if !seen.waited || seen.took < allowed / 5 * 4 {
            self.now = (self.now + self.now / 8 + 1).min(self.most);
            self.lowered = self.lowered.filter(|before| before.bound > self.now);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// A source that works on a number of calls at once, each for the same time; further calls wait there for their
    /// turn.
    struct Source {
        at_once: usize,
        work: Duration,
        bound: AdaptiveLimit,
        pace: BaseLatency,
        now: Instant,
        /// Calls in flight, with the time at which each will complete.
        there: VecDeque<(CallStart, Instant, Instant)>,
        begun: u64,
    }

    impl Source {
        fn new(at_once: usize, work: Duration) -> Self {
            let bound = AdaptiveLimit::new(64, FEWEST);
            let there = VecDeque::new();
            Source { at_once, work, now: bound.began, bound, pace: BaseLatency::default(), there, begun: 0 }
        }

        /// Keeps this number of calls in flight or waiting, for this time, and returns how many completed.
        fn load(&mut self, calls: usize, time: Duration) -> usize {
            let (ends, mut answered) = (self.now + time, 0);
            while self.now < ends {
                while self.there.len() < calls.min(self.bound.now()) {
                    // Behind as many as are ahead, but for those that the source works at with it.
                    let turn = self.there.len().checked_sub(self.at_once).map_or(self.now, |ahead| self.there[ahead].2);
                    let began = CallStart { number: self.begun, alone: self.there.len() < FEWEST };
                    self.there.push_back((began, self.now, turn + self.work));
                    self.begun += 1;
                }
                if calls > self.there.len() {
                    self.bound.record_wait();
                }
                let (began, at, done) = self.there.pop_front().unwrap();
                self.now = self.now.max(done);
                self.bound.record_latency(&self.pace, began, done - at, self.begun, self.now);
                answered += 1;
            }
            answered
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_source_that_is_made_slow_by_many_gets_as_many_as_it_can_work_at() {
        let mut source = Source::new(4, Duration::from_millis(1));
        source.load(1, SECOND);
        assert_eq!(source.bound.now(), 64);
        source.load(500, SECOND);
        let places = source.bound.now();
        assert!((8..=14).contains(&places), "{places}");
        assert!(source.load(500, SECOND) >= 3_990);
        // When nobody waits any more, a burst may come again.
        source.load(2, SECOND * 3);
        assert_eq!(source.bound.now(), 64);
    }

    #[test]
    fn a_slow_source_s_calls_take_twice_as_long_at_most() {
        let mut source = Source::new(4, Duration::from_millis(50));
        source.load(1, SECOND * 2);
        source.load(500, SECOND * 20);
        let places = source.bound.now();
        assert!((6..=9).contains(&places), "{places}");
        assert!(source.load(500, SECOND * 10) >= 795);
    }

    #[test]
    fn a_source_that_many_do_not_slow_down_keeps_all_its_places() {
        let mut source = Source::new(1_000, Duration::from_millis(300));
        source.load(2, SECOND * 10);
        // Less than two per cent for probes of undisturbed calls.
        let answered = source.load(500, SECOND * 300);
        assert!(answered >= 64 * 1_000 * 98 / 100, "{answered}");
        assert_eq!(source.bound.now(), 64);
        // It becomes slower by itself, for all calls alike: the limit soon recovers.
        source.work = Duration::from_secs(2);
        let answered = source.load(500, SECOND * 200);
        assert!(answered >= 64 * 100 * 85 / 100, "{answered}");
        // Only somewhat slower, so that the limit decreases in small steps.
        source.work = Duration::from_millis(7_000);
        source.load(500, SECOND * 700);
        assert!(source.bound.now() > 48, "{}", source.bound.now());
        // And faster again.
        source.work = Duration::from_millis(20);
        let answered = source.load(500, SECOND * 30);
        assert!(answered >= 64 * 1_500 * 85 / 100, "{answered}");
    }

    #[test]
    fn one_that_is_always_to_have_all_its_places_has_them() {
        let mut source = Source::new(4, Duration::from_millis(1));
        source.bound = AdaptiveLimit::new(64, 100);
        source.load(1, SECOND);
        source.load(500, SECOND * 60);
        assert_eq!(source.bound.now(), 64);
        assert_eq!(source.there.len(), 63);
    }

    #[test]
    fn under_load_from_the_start_it_finds_out_what_an_undisturbed_call_takes() {
        let mut source = Source::new(4, Duration::from_millis(1));
        source.load(500, SECOND * 2);
        let places = source.bound.now();
        assert!((8..=14).contains(&places), "{places}");
        // It becomes ten times as fast, and the learnt latency is forgotten.
        source.work = Duration::from_micros(100);
        source.load(500, SECOND * 120);
        assert!((8..=14).contains(&source.bound.now()), "{}", source.bound.now());
    }
}
