//! A gradient limit: how many calls a source should have in flight at once, found from their latency. More than it can work at only wait for
//! each other there: each takes longer, and no more complete (Little's law).
//!
//! The published name is Envoy's gradient controller (also Netflix's Gradient2): limit × base latency ÷ latency, with headroom. Four things
//! differ, each for a case in which the published ones fail (`comparison.rs`; the table is in `docs/decisions/0007-own-limit-and-queue.md`):
//! - The base latency is an operation's, since a source's operations differ, and is learnt from calls that hardly any other disturbs, as they
//!   come. Envoy measures one for all, at three calls at once, every minute.
//! - The limit goes down only while calls wait for a permit: nothing is won otherwise.
//! - After it went down by half, what completes is looked at: where that fell with it, calls are slow for another reason. The limit goes
//!   back, and their latency is learnt anew.
//! - The gradient has a tolerance of twice the base latency, and the queue in front ([`queue`](super::queue)) takes half of it.
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
/// How long a call may take at most, in times of an undisturbed one: with the wait for its permit, which is half of one at most
/// (`queue.rs`), less than three times. A quick source's calls may be disturbed for `ROOM` more, up to three times, since each costs less
/// where many are in flight.
const TOLERANCE: (u64, u64) = (2, 3);
/// A disturbance that is no trouble, in microseconds.
const ROOM: u64 = 1_000;
/// How often the bound is looked at: not before so long, and not before so many calls that began since.
const INTERVAL: Duration = Duration::from_millis(100);
const CALLS: u64 = 16;
/// After how many looks at a full source, none of which taught anything about undisturbed calls, room is made for some; and after
/// how many where the bound is as low as it can be, which costs nothing then.
const STALE: (u32, u32) = (200, 10);
/// Undisturbed calls that are enough for it.
const PROBES: u64 = 8;

/// How long an operation's call takes when hardly any other is in flight at its source.
pub(super) type BaseLatency = MovingAverage<3>;

/// How a call began.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallStart {
    /// How many began before it.
    pub(super) number: u64,
    /// Hardly any other was in flight.
    pub(super) alone: bool,
}

/// The bound of one source.
pub(super) struct AdaptiveLimit {
    most: usize,
    least: usize,
    now: usize,
    /// Of the calls that began since the last look: others tell of the bound before it.
    since: LimitSample,
    began: Instant,
    first: u64,
    /// Most calls were undisturbed before the last look.
    quiet: bool,
    /// Looks in a row at a full source that taught nothing about undisturbed calls.
    stale: u32,
    /// The bound to go back to when room was made for undisturbed calls.
    probing: Option<usize>,
    lowered: Option<BeforeDecrease>,
    /// The paces are wrong: whatever is answered teaches them.
    relearning: bool,
}

/// The throughput before the limit began to fall.
#[derive(Clone, Copy)]
struct BeforeDecrease {
    bound: usize,
    /// Calls a second.
    rate: f64,
    /// The last look has shown far fewer. (It may have been a pause of the machine.)
    suspected: bool,
}

impl BeforeDecrease {
    /// Whether it did harm: what is answered fell with the bound. Where calls only wait for each other, it hardly does; where
    /// they do not, it falls as much. Half way between (on a scale of ratios) lies the root.
    fn harmed(&self, bound: usize, rate: f64) -> bool {
        bound * 2 <= self.bound && rate < self.rate * (bound as f64 / self.bound as f64).sqrt()
    }
}

#[derive(Default)]
struct LimitSample {
    calls: u64,
    /// Their time, and what it would have been undisturbed, in microseconds.
    took: u64,
    pace: u64,
    undisturbed: u64,
    /// Something was learnt of an operation's pace.
    learnt: bool,
    /// A call had to wait for a permit.
    waited: bool,
    /// Calls that were answered, those that began before the last look among them.
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

    /// Calls at once, for now.
    pub(super) fn now(&self) -> usize {
        self.now
    }

    #[cfg(test)]
    pub(super) fn set(&mut self, now: usize) {
        self.now = now;
    }

    /// A call has to wait.
    pub(super) fn record_wait(&mut self) {
        self.since.waited = true;
    }

    /// A call was answered, after so many others had begun in all.
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
        // Few were there when it came, and few came after it.
        let undisturbed = call.alone && others.saturating_sub(call.number) <= 2 * FEWEST as u64;
        self.since.undisturbed += u64::from(undisturbed);
        // Among many others, a call that is alone is so because something held all of them up.
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
                // It is not the others that make a call slow.
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

    /// A source that works at so many calls at once, each for so long; more than that wait there for their turn.
    struct Source {
        at_once: usize,
        work: Duration,
        bound: AdaptiveLimit,
        pace: BaseLatency,
        now: Instant,
        /// Calls under way, with the moment at which each will be answered.
        there: VecDeque<(CallStart, Instant, Instant)>,
        begun: u64,
    }

    impl Source {
        fn new(at_once: usize, work: Duration) -> Self {
            let bound = AdaptiveLimit::new(64, FEWEST);
            let there = VecDeque::new();
            Source { at_once, work, now: bound.began, bound, pace: BaseLatency::default(), there, begun: 0 }
        }

        /// For so long, so many calls are there or wait for a permit: how many were answered.
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
        // Less than two in a hundred for the looks at undisturbed calls.
        let answered = source.load(500, SECOND * 300);
        assert!(answered >= 64 * 1_000 * 98 / 100, "{answered}");
        assert_eq!(source.bound.now(), 64);
        // It becomes slower by itself, for all alike: that is soon understood.
        source.work = Duration::from_secs(2);
        let answered = source.load(500, SECOND * 200);
        assert!(answered >= 64 * 100 * 85 / 100, "{answered}");
        // Only somewhat slower, so that the bound goes down in small steps.
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
        // It becomes ten times as fast, and what was learnt is forgotten.
        source.work = Duration::from_micros(100);
        source.load(500, SECOND * 120);
        assert!((8..=14).contains(&source.bound.now()), "{}", source.bound.now());
    }
}
