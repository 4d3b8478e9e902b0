//! Admission to a worker: how many calls it has in flight. The measure is queue delay, as in CoDel (RFC 8289). A burst makes a delay that
//! passes; a delay that never went away for a whole interval is a standing queue, which only makes every response late. Calls queue in two
//! places: between their arrival and the moment at which the worker gets to them, all together; and, before that, in the socket of their
//! connection. The worker's connections take turns, so one that sends more than its share is refused for its own queue (as in FQ-CoDel, RFC
//! 8290), and the others are not.

use crate::status::{Reason, Refusal};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A delay that does no harm: a few dozen calls' work.
const TARGET: Duration = Duration::from_millis(2);
/// How long a delay must persist before anything is refused, and how often the limit is adjusted.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long a connection's socket may go without being read empty: longer than it takes to read a large message.
const BACKLOG: Duration = Duration::from_millis(20);
/// Calls that are always admitted: enough to keep a core busy and the log's batches full.
const MIN_CALLS: usize = 32;
/// Maximum concurrent calls without a standing delay: the bound is memory (some 10 kB each).
const MAX_CALLS: usize = 16_384;
/// Minimum and maximum delay of a refusal's response. The call keeps its stream meanwhile, so a caller that ignores
/// `RetryInfo` is slowed down by its own HTTP/2 stream limit (RFC 9113, section 5.1.2). A refusal costs nearly half as
/// much as a call, so that without the delay, ten times the load would leave no time for calls.
const HOLD: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// Target number of refusals a second: the more are held, the longer each is held.
const REFUSALS: u64 = 1_000;
/// Maximum number of refusals that are held at once (some 10 kB each); further ones are sent at once.
const MAX_HELD: usize = 8_192;

/// Calls of the gateway's own services that a worker accepts a second while a delay persists: some percent of its time.
/// Operators need them during an overload, so they never wait for exchanges, and exchanges never wait for them.
const OWN_UNDER_DELAY: f64 = 500.0;

/// Admission to one worker.
pub struct Admission {
    under_way: AtomicUsize,
    held: AtomicUsize,
    window: Mutex<DelayWindow>,
}

struct DelayWindow {
    began: Instant,
    /// The smallest delay in this interval.
    least: Duration,
    /// Whether the limit was reached in this interval.
    met: bool,
    bound: usize,
    /// Whether there was a standing delay when the last interval ended.
    standing: bool,
    /// Burst of calls of the gateway's own services while the delay persists.
    own: f64,
    own_filled: Instant,
}

/// An admitted call; another one may be admitted when it is dropped.
pub struct AdmittedCall(Arc<Admission>);

impl Drop for AdmittedCall {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

struct HeldRefusal<'a>(&'a Admission);

impl Drop for HeldRefusal<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Admission {
    fn default() -> Self {
        let began = Instant::now();
        let window = DelayWindow {
            began,
            least: Duration::MAX,
            met: false,
            bound: MAX_CALLS,
            standing: false,
            own: OWN_UNDER_DELAY,
            own_filled: began,
        };
        Admission { under_way: AtomicUsize::new(0), held: AtomicUsize::new(0), window: Mutex::new(window) }
    }
}

impl Admission {
    /// Admits a call that has waited this long since it was read, on a connection with a backlog of this age.
    ///
    /// # Errors
    /// GATEWAY_OVERLOADED, with the time after which to retry.
    pub fn admit(self: &Arc<Self>, delay: Duration, backlog: Duration) -> Result<AdmittedCall, Refusal> {
        self.admit_at(Instant::now(), delay, backlog)
    }

    fn admit_at(self: &Arc<Self>, now: Instant, delay: Duration, backlog: Duration) -> Result<AdmittedCall, Refusal> {
        let under_way = self.under_way.load(Ordering::Relaxed);
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.look(now, delay, under_way);
        let full = under_way >= window.bound;
        window.met |= full;
        if full || (backlog > BACKLOG && under_way >= MIN_CALLS) {
            return Err(Refusal::retry(Reason::GatewayOverloaded, self.held_for()));
        }
        drop(window);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Ok(AdmittedCall(self.clone()))
    }

    /// Admits a call of one of the gateway's own services, as [`Admission::admit`] does, but from a share that
    /// exchanges cannot take.
    ///
    /// # Errors
    /// `GATEWAY_OVERLOADED` while a delay persists and these calls have used their share of this second.
    pub fn admit_own(&self, delay: Duration) -> Result<(), Refusal> {
        self.admit_own_at(Instant::now(), delay)
    }

    fn admit_own_at(&self, now: Instant, delay: Duration) -> Result<(), Refusal> {
        let under_way = self.under_way.load(Ordering::Relaxed);
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.look(now, delay, under_way);
        let passed = now.saturating_duration_since(window.own_filled).as_secs_f64();
        window.own = (window.own + passed * OWN_UNDER_DELAY).min(OWN_UNDER_DELAY);
        window.own_filled = now;
        if window.standing && window.own < 1.0 {
            return Err(Refusal::retry(Reason::GatewayOverloaded, self.held_for()));
        }
        window.own = (window.own - 1.0).max(0.0);
        Ok(())
    }

    /// Returns whether a delay persists.
    pub fn is_late(&self) -> bool {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).standing
    }

    /// Returns how long a refusal is held at present.
    fn held_for(&self) -> Duration {
        let held = self.held.load(Ordering::Relaxed) as u64;
        Duration::from_millis(held * 1_000 / REFUSALS).clamp(HOLD.0, HOLD.1)
    }

    /// Holds a refusal back, unless too many are held already; for at most half of the caller's timeout, so that the
    /// caller receives the reason.
    pub async fn hold(&self, timeout: Option<Duration>) {
        // A quarter more or less, so that calls that were refused together do not return together.
        let hold = self.held_for().mul_f32(0.75 + fastrand::f32() / 2.0).min(timeout.unwrap_or(HOLD.1) / 2);
        let held = HeldRefusal(self);
        if self.held.fetch_add(1, Ordering::Relaxed) < MAX_HELD {
            tokio::time::sleep(hold).await;
        }
        drop(held);
    }
}

impl DelayWindow {
    /// Adds one delay. At the end of an interval it adjusts the limit: down by an eighth of the calls in flight if a
    /// delay persisted, up by an eighth if the limit was reached without one.
    fn look(&mut self, now: Instant, delay: Duration, under_way: usize) {
        self.least = self.least.min(delay);
        if now.saturating_duration_since(self.began) < INTERVAL {
            return;
        }
        self.standing = self.least > TARGET;
        if self.standing {
            self.bound = (under_way.min(self.bound) * 7 / 8).max(MIN_CALLS);
        } else if self.met {
            self.bound = (self.bound + self.bound / 8).min(MAX_CALLS);
        }
        (self.began, self.least, self.met) = (now, Duration::MAX, false);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Simulates a worker with this work per call and this distance between calls, for two seconds: returns how many
    /// calls are admitted, and their longest delay in the second half.
    fn run(work: Duration, distance: Duration) -> (usize, usize, Duration) {
        let admission = Arc::new(Admission::default());
        let start = Instant::now();
        let (mut free_at, mut inside, mut let_in, mut refused, mut longest) = (start, Vec::new(), 0, 0, Duration::ZERO);
        for number in 0..(Duration::from_secs(2).as_nanos() / distance.as_nanos()) as u32 {
            let arrived = start + distance * number;
            inside.retain(|(ends, _)| *ends > arrived);
            let now = free_at.max(arrived);
            match admission.admit_at(now, now - arrived, Duration::ZERO) {
                Ok(call) => {
                    let_in += 1;
                    free_at = now + work;
                    inside.push((free_at, call));
                    if arrived > start + Duration::from_secs(1) {
                        longest = longest.max(free_at - arrived);
                    }
                }
                Err(refusal) => {
                    assert_eq!(refusal.reason, Reason::GatewayOverloaded);
                    refused += 1;
                }
            }
        }
        (let_in, refused, longest)
    }

    #[test]
    fn below_the_capacity_nothing_is_refused() {
        let (let_in, refused, longest) = run(Duration::from_micros(100), Duration::from_micros(110));
        assert_eq!((let_in, refused), (18_181, 0));
        assert!(longest < Duration::from_millis(1));
    }

    #[test]
    fn at_ten_times_the_capacity_the_work_goes_on_and_nobody_waits_long() {
        let (let_in, refused, longest) = run(Duration::from_micros(100), Duration::from_micros(10));
        assert!(let_in >= 19_000, "the worker was idle: {let_in} of 20,000");
        assert!(refused > 150_000);
        assert!(longest <= Duration::from_millis(10), "{longest:?}");
    }

    #[test]
    fn a_burst_is_let_in_and_a_bound_that_is_too_low_rises_again() {
        let admission = Arc::new(Admission::default());
        let start = Instant::now();
        let burst: Vec<_> =
            (0..1_000).map(|_| admission.admit_at(start, Duration::from_millis(30), Duration::ZERO).unwrap()).collect();
        // The same delay for an interval more: it persists.
        let late = start + INTERVAL + Duration::from_millis(30);
        assert!(admission.admit_at(late, late - start, Duration::ZERO).is_err());
        drop(burst);
        let mut now = late;
        let mut most = 0;
        for _ in 0..40 {
            now += INTERVAL + Duration::from_millis(1);
            let inside: Vec<_> = std::iter::from_fn(|| admission.admit_at(now, Duration::ZERO, Duration::ZERO).ok())
                .take(2_000)
                .collect();
            most = inside.len();
        }
        assert_eq!(most, 2_000);
    }

    #[test]
    fn d1_own_services_have_a_share_under_overload_and_no_bound_without_one() {
        let admission = Arc::new(Admission::default());
        let start = Instant::now();
        let own = |at: Instant, delay: Duration| admission.admit_own_at(at, delay).is_ok();
        assert!((0..10_000).all(|_| own(start, Duration::ZERO)), "no delay, no bound");
        // A delay that persists excludes exchanges, as far as there are many, and leaves these calls their share.
        let delay = Duration::from_millis(30);
        let mut now = start + Duration::from_secs(2);
        let mut inside: Vec<_> =
            (0..MIN_CALLS).map(|_| admission.admit_at(now, delay, Duration::ZERO).unwrap()).collect();
        while let Ok(call) = admission.admit_at(now, delay, Duration::ZERO) {
            inside.push(call);
            now += INTERVAL / 20;
        }
        assert!(own(now, delay), "operators are not locked out");
        let later = now + Duration::from_secs(1);
        let let_in = (0..10_000u32).filter(|number| own(later + Duration::from_micros(100) * *number, delay)).count();
        assert!((900..=1_100).contains(&let_in), "{let_in} in a second: what was saved up, and a second's share");
        // It is over.
        let over = later + Duration::from_secs(5);
        assert!(own(over, Duration::ZERO));
        assert!((0..10_000).all(|_| own(over + 2 * INTERVAL, Duration::ZERO)));
    }

    #[tokio::test]
    async fn refusals_are_held_back_but_not_without_bound() {
        let admission = Admission::default();
        let began = Instant::now();
        admission.hold(None).await;
        assert!(began.elapsed() >= HOLD.0 * 3 / 4);
        // With so many held, the next one is held for the longest time unless its caller's deadline is sooner; beyond the bound, none is.
        let longest = HOLD.1 * 3 / 4;
        for (held, timeout) in [(MAX_HELD - 1, Some(Duration::from_millis(20))), (MAX_HELD, None)] {
            admission.held.store(held, Ordering::Relaxed);
            let began = Instant::now();
            admission.hold(timeout).await;
            assert!(began.elapsed() < longest, "{:?}", began.elapsed());
        }
        assert_eq!(admission.held_for(), HOLD.1);
        assert_eq!(admission.held.load(Ordering::Relaxed), MAX_HELD);
    }
}
