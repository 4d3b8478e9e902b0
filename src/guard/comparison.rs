//! Compares the limit and the queue with published ones, in virtual time: a source with ten times the load that it can
//! serve, a source that is slow for another reason, operations that differ, and a burst.
//! `docs/decisions/0007-own-limit-and-queue.md` has the table; `cargo test --lib guard::comparison -- --nocapture`
//! prints it.

use super::adaptive_limit::BaseLatency;
use super::permits::{Acquired, PermitPool, QueuedCall, TakenPermit};
use super::queue::QueueWait;
use super::retry::{Budget, RetrySettings};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

const MAX: usize = 64;
const MIN: usize = 4;
const QUEUE: usize = 128;

/// A source that works on a number of calls at once; further calls wait there.
#[derive(Clone, Copy)]
struct Source {
    at_once: usize,
    /// For each operation: its share of the calls, in percent, and its time, before and after the source slows down.
    operations: &'static [(u32, u64, u64)],
}

/// The load: a number of calls a second that are light, then the load that is measured.
struct Scenario {
    name: &'static str,
    source: Source,
    light: f64,
    load: Load,
    /// Calls a second that the source can serve, with at most [`MAX`] calls at once.
    capacity: f64,
}

enum Load {
    /// Calls a second; after how many seconds they are counted.
    Steady(f64, u64),
    /// A number of calls at once, each second.
    Bursts(usize),
}

/// A call: which operation, and when it arrived.
#[derive(Clone, Copy)]
struct Arrival {
    operation: usize,
    at: Duration,
}

/// A limit with a queue.
trait Controller {
    /// A call arrives; `true`: it is dispatched. Otherwise it waits, or is refused.
    fn arrive(&mut self, call: Arrival, now: Duration) -> Option<usize>;
    /// A call has completed; returns the calls that are dispatched now.
    fn complete(&mut self, permit: usize, operation: usize, took: Duration, now: Duration) -> Vec<(Arrival, usize)>;
}

/// The gateway's own, as it runs.
struct Own {
    start: Instant,
    pool: &'static PermitPool,
    wait: QueueWait,
    retries: Budget,
    paces: [BaseLatency; 2],
    taken: Vec<TakenPermit>,
    waiting: VecDeque<(Arrival, QueuedCall<'static>)>,
}

impl Own {
    fn new() -> Self {
        // One for each run of a test: a permit that waits borrows its pool.
        let pool = Box::leak(Box::new(PermitPool::new(MAX, MIN, QUEUE)));
        let retries = Budget::new(RetrySettings::default());
        let (paces, taken, waiting) = Default::default();
        Own { start: Instant::now(), pool, wait: QueueWait::new(), retries, paces, taken, waiting }
    }
}

impl Controller for Own {
    fn arrive(&mut self, call: Arrival, now: Duration) -> Option<usize> {
        let now = self.start + now;
        match self.pool.acquire("client", &self.wait, &self.retries, now) {
            Acquired::Place(taken) => {
                self.wait.record_wait(None, now);
                self.taken.push(taken);
                Some(self.taken.len() - 1)
            }
            Acquired::Waits(waiting) => {
                self.waiting.push_back((call, waiting));
                None
            }
            Acquired::Refused(_) => None,
        }
    }

    fn complete(&mut self, permit: usize, operation: usize, took: Duration, now: Duration) -> Vec<(Arrival, usize)> {
        let (taken, pace) = (self.taken[permit], &self.paces[operation]);
        self.wait.record_latency(took, pace.get());
        self.pool.record_latency(pace, taken.began, took, self.start + now);
        self.pool.release(taken.share);
        let mut begun = Vec::new();
        let mut still = VecDeque::new();
        for (call, mut waiting) in self.waiting.drain(..) {
            match waiting.poll_permit() {
                Some(Some(taken)) => {
                    self.wait.record_wait(Some(now - call.at), self.start + now);
                    self.taken.push(taken);
                    begun.push((call, self.taken.len() - 1));
                }
                Some(None) => {}
                None => still.push_back((call, waiting)),
            }
        }
        self.waiting = still;
        begun
    }
}

/// A published limit: how many calls at once, from the time of each.
trait Limit {
    fn limit(&self) -> f64;
    fn sample(&mut self, rtt: f64, in_flight: usize, now: Duration);
}

/// Netflix concurrency-limits, `Gradient2Limit`: the long-term mean over the short one, tolerance 1.5, smoothing 0.2,
/// queue size 4.
struct Gradient2 {
    limit: f64,
    long: f64,
    samples: u64,
}

impl Limit for Gradient2 {
    fn limit(&self) -> f64 {
        self.limit
    }

    fn sample(&mut self, rtt: f64, in_flight: usize, _: Duration) {
        // An exponential mean over 600 samples, the first ten averaged.
        self.samples += 1;
        let weight = if self.samples <= 10 { 1.0 / self.samples as f64 } else { 2.0 / 601.0 };
        self.long += (rtt - self.long) * weight;
        if self.long / rtt > 2.0 {
            self.long *= 0.95;
        }
        if (in_flight as f64) < self.limit / 2.0 {
            return;
        }
        let gradient = (1.5 * self.long / rtt).clamp(0.5, 1.0);
        let next = self.limit * gradient + 4.0;
        self.limit = (self.limit * 0.8 + next * 0.2).clamp(MIN as f64, MAX as f64);
    }
}

/// Netflix concurrency-limits, `VegasLimit`: the queue at the source, from the smallest time seen, which is learnt
/// again now and then.
struct Vegas {
    limit: f64,
    least: f64,
    samples: u64,
}

impl Limit for Vegas {
    fn limit(&self) -> f64 {
        self.limit
    }

    fn sample(&mut self, rtt: f64, in_flight: usize, _: Duration) {
        self.samples += 1;
        if self.samples as f64 > 30.0 * self.limit {
            (self.samples, self.least) = (0, rtt);
            return;
        }
        if self.least == 0.0 || rtt < self.least {
            self.least = rtt;
            return;
        }
        if (in_flight as f64) * 2.0 < self.limit {
            return;
        }
        let queue = (self.limit * (1.0 - self.least / rtt)).ceil();
        let step = self.limit.log10().max(1.0);
        self.limit = match queue {
            queue if queue <= step => self.limit + 6.0 * step,
            queue if queue < 3.0 * step => self.limit + step,
            queue if queue > 6.0 * step => self.limit - step,
            _ => self.limit,
        }
        .clamp(MIN as f64, MAX as f64);
    }
}

/// Envoy's adaptive concurrency: the time of calls at three at once, measured once a minute, over the median of each 100 ms.
struct Envoy {
    limit: f64,
    least: f64,
    /// Samples of a window, or of the measurement.
    samples: Vec<f64>,
    window: Duration,
    /// The limit to restore after the measurement.
    measuring: Option<f64>,
    next: Duration,
}

impl Limit for Envoy {
    fn limit(&self) -> f64 {
        if self.measuring.is_some() { 3.0 } else { self.limit }
    }

    fn sample(&mut self, rtt: f64, _: usize, now: Duration) {
        self.samples.push(rtt);
        let median = |samples: &mut Vec<f64>| {
            samples.sort_by(f64::total_cmp);
            samples[samples.len() / 2]
        };
        if let Some(before) = self.measuring {
            if self.samples.len() >= 50 {
                self.least = median(&mut self.samples);
                (self.limit, self.measuring, self.next, self.window) =
                    (before, None, now + Duration::from_secs(60), now);
                self.samples.clear();
            }
            return;
        }
        if now >= self.next {
            self.measuring = Some(self.limit);
            self.samples.clear();
        } else if now - self.window >= Duration::from_millis(100) {
            // With a buffer of a quarter, and the root as headroom.
            let gradient = (self.least * 1.25 / median(&mut self.samples)).clamp(0.5, 2.0);
            let limit = self.limit * gradient;
            self.limit = (limit + limit.sqrt()).clamp(MIN as f64, MAX as f64);
            self.window = now;
            self.samples.clear();
        }
    }
}

/// A published limit, with the queue of "Fail at Scale" (ACM Queue 13.8): CoDel's target of 5 ms and interval of 100
/// ms. If no call of an interval waited less than the target, calls that waited longer than twice the target are
/// dropped. Or without a queue: a call is dispatched at once or refused.
struct Published<L> {
    limit: L,
    queue: Option<CoDel>,
    in_flight: usize,
    began: usize,
}

#[derive(Default)]
struct CoDel {
    waiting: VecDeque<Arrival>,
    least: Option<Duration>,
    interval: Duration,
    overloaded: bool,
}

impl CoDel {
    /// Returns whether a call that has waited this long may proceed.
    fn lets(&mut self, waited: Duration, now: Duration) -> bool {
        if now > self.interval {
            self.overloaded = self.least.is_some_and(|least| least > Duration::from_millis(5));
            (self.least, self.interval) = (None, now + Duration::from_millis(100));
        }
        self.least = Some(self.least.map_or(waited, |least| least.min(waited)));
        !self.overloaded || waited <= Duration::from_millis(10)
    }
}

impl<L: Limit> Published<L> {
    fn begin(&mut self) -> usize {
        self.in_flight += 1;
        self.began += 1;
        self.began
    }
}

impl<L: Limit> Controller for Published<L> {
    fn arrive(&mut self, call: Arrival, now: Duration) -> Option<usize> {
        if (self.in_flight as f64) < self.limit.limit().floor() {
            if let Some(queue) = &mut self.queue {
                queue.lets(Duration::ZERO, now);
            }
            return Some(self.begin());
        }
        if let Some(queue) = self.queue.as_mut().filter(|queue| queue.waiting.len() < QUEUE) {
            queue.waiting.push_back(call);
        }
        None
    }

    fn complete(&mut self, _: usize, _: usize, took: Duration, now: Duration) -> Vec<(Arrival, usize)> {
        self.limit.sample(took.as_secs_f64(), self.in_flight, now);
        self.in_flight -= 1;
        let mut begun = Vec::new();
        while (self.in_flight as f64) < self.limit.limit().floor() {
            let Some(queue) = &mut self.queue else { break };
            let Some(call) = queue.waiting.pop_front() else { break };
            if queue.lets(now - call.at, now) {
                begun.push((call, self.begin()));
            }
        }
        begun
    }
}

/// The result of a scenario: the share of the capacity (of a burst: of the calls) that was served, and p99 as a
/// multiple of an undisturbed call.
struct Served {
    share: f64,
    p99: f64,
}

/// A call at the source: when it ends, its permit, its operation, when it was sent, and when it arrived.
type CallAtSource = (Duration, usize, usize, Duration, Duration);

const WARM_UP: Duration = Duration::from_secs(2);
/// For how long calls are counted.
const COUNTED: Duration = Duration::from_secs(4);

fn run(scenario: &Scenario, controller: &mut dyn Controller) -> Served {
    let mut random = fastrand::Rng::with_seed(7);
    let counted_from = WARM_UP
        + match scenario.load {
            Load::Steady(_, after) => Duration::from_secs(after),
            Load::Bursts(_) => Duration::ZERO,
        };
    let ends = counted_from + COUNTED;
    let mut arrivals = Vec::new();
    let pick = |random: &mut fastrand::Rng| {
        let at = random.u32(0..100);
        if at < scenario.source.operations[0].0 { 0 } else { scenario.source.operations.len() - 1 }
    };
    let mut poisson = |arrivals: &mut Vec<Arrival>, from: Duration, until: Duration, rate: f64| {
        let mut at = from;
        while at < until {
            arrivals.push(Arrival { operation: pick(&mut random), at });
            at += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate);
        }
    };
    poisson(&mut arrivals, Duration::ZERO, WARM_UP, scenario.light);
    match scenario.load {
        Load::Steady(rate, _) => poisson(&mut arrivals, WARM_UP, ends, rate),
        Load::Bursts(size) => {
            for second in 0..COUNTED.as_secs() {
                let at = WARM_UP + Duration::from_secs(second);
                arrivals.extend((0..size).map(|_| Arrival { operation: 0, at }));
            }
        }
    }
    let mut random = fastrand::Rng::with_seed(11);
    // When each of the source's workers is free; and the calls there, by their end.
    let mut workers: BinaryHeap<Reverse<Duration>> =
        (0..scenario.source.at_once).map(|_| Reverse(Duration::ZERO)).collect();
    let mut there: BinaryHeap<Reverse<CallAtSource>> = BinaryHeap::new();
    let mut latencies = Vec::new();
    let mut begin = |call: Arrival, permit: usize, now: Duration, there: &mut BinaryHeap<_>| {
        let (_, before, after) = scenario.source.operations[call.operation];
        let work = if now < WARM_UP { before } else { after };
        // Ten per cent more or less.
        let work = Duration::from_micros(work * random.u64(900..1_100));
        let Reverse(free) = workers.pop().unwrap();
        let done = free.max(now) + work;
        workers.push(Reverse(done));
        there.push(Reverse((done, permit, call.operation, now, call.at)));
    };
    let mut arrivals = arrivals.into_iter().peekable();
    loop {
        let next = arrivals.peek().map(|call| call.at).unwrap_or(ends);
        match there.peek() {
            Some(Reverse((done, ..))) if *done <= next => {
                let Reverse((done, permit, operation, began, came)) = there.pop().unwrap();
                if came >= counted_from && done < ends {
                    latencies.push((done - came, operation));
                }
                for (call, permit) in controller.complete(permit, operation, done - began, done) {
                    begin(call, permit, done, &mut there);
                }
            }
            _ => {
                let Some(call) = arrivals.next() else { break };
                if let Some(permit) = controller.arrive(call, call.at) {
                    begin(call, permit, call.at, &mut there);
                }
            }
        }
    }
    let offered = match scenario.load {
        Load::Steady(..) => scenario.capacity * COUNTED.as_secs_f64(),
        Load::Bursts(size) => size as f64 * COUNTED.as_secs_f64(),
    };
    let share = latencies.len() as f64 / offered;
    let undisturbed = |operation: usize| scenario.source.operations[operation].2 as f64 * 1.1;
    let mut times: Vec<f64> =
        latencies.iter().map(|(time, operation)| time.as_secs_f64() * 1_000.0 / undisturbed(*operation)).collect();
    times.sort_by(f64::total_cmp);
    Served { share, p99: times.get(times.len() * 99 / 100).copied().unwrap_or(f64::INFINITY) }
}

fn scenarios() -> Vec<Scenario> {
    let overload = |name, at_once: usize, ms: u64, operations| {
        let capacity = at_once as f64 * 1_000.0 / ms as f64;
        let source = Source { at_once, operations };
        Scenario { name, source, light: capacity / 10.0, load: Load::Steady(capacity * 10.0, 3), capacity }
    };
    let wide = |name, operations, capacity: f64, after| Scenario {
        name,
        source: Source { at_once: 10_000, operations },
        light: capacity / 10.0,
        load: Load::Steady(capacity * 3.0, after),
        capacity,
    };
    vec![
        overload("8 at once, 4 ms", 8, 4, &[(100, 4, 4)]),
        overload("32 at once, 10 ms", 32, 10, &[(100, 10, 10)]),
        overload("16 at once, 20 ms", 16, 20, &[(100, 20, 20)]),
        overload("16 at once, 90 % of 2 ms and 10 % of 40 ms", 16, 6, &[(90, 2, 2), (10, 40, 40)]),
        wide("any number at once, 20 ms", &[(100, 20, 20)], 64.0 * 50.0, 3),
        wide("any number at once, 10 ms, then 60 ms: after 5 s", &[(100, 10, 60)], 64.0 * 1_000.0 / 60.0, 5),
        Scenario {
            name: "8 at once, 4 ms, bursts of 100",
            source: Source { at_once: 8, operations: &[(100, 4, 4)] },
            light: 200.0,
            load: Load::Bursts(100),
            capacity: 2_000.0,
        },
    ]
}

fn published<L: Limit>(limit: L, queue: bool) -> Published<L> {
    Published { limit, queue: queue.then(CoDel::default), in_flight: 0, began: 0 }
}

fn gradient2() -> Gradient2 {
    Gradient2 { limit: 20.0, long: 0.0, samples: 0 }
}

fn vegas() -> Vegas {
    Vegas { limit: 20.0, least: 0.0, samples: 0 }
}

fn envoy() -> Envoy {
    let zero = Duration::ZERO;
    Envoy { limit: 20.0, least: 0.0, samples: Vec::new(), window: zero, measuring: Some(20.0), next: zero }
}

#[test]
fn the_limit_and_queue_meet_their_figures_where_no_published_pair_meets_them_all() {
    /// Minimum share of the capacity, and maximum p99 as a multiple of an undisturbed call. If operations differ, the
    /// short ones wait for the long; of a burst, all are served, the last behind twelve others.
    const FIGURES: (f64, f64) = (0.9, 3.0);
    let meets = |scenario: &Scenario, result: &Served| match scenario.load {
        Load::Steady(..) if scenario.source.operations.len() > 1 => result.share >= FIGURES.0,
        Load::Steady(..) => result.share >= FIGURES.0 && result.p99 <= FIGURES.1,
        Load::Bursts(_) => result.share >= 0.99,
    };
    type Make = fn() -> Box<dyn Controller>;
    let all: [(&str, Make); 6] = [
        ("own", || Box::new(Own::new())),
        ("Gradient2 and CoDel", || Box::new(published(gradient2(), true))),
        ("Vegas and CoDel", || Box::new(published(vegas(), true))),
        ("Envoy and CoDel", || Box::new(published(envoy(), true))),
        ("Gradient2, no queue", || Box::new(published(gradient2(), false))),
        ("Envoy, no queue", || Box::new(published(envoy(), false))),
    ];
    for (name, make) in all {
        let mut met = Vec::new();
        for scenario in scenarios() {
            let result = run(&scenario, &mut *make());
            println!("{name:20} {:50} {:4.0} % p99 {:4.1} times", scenario.name, result.share * 100.0, result.p99);
            met.push(meets(&scenario, &result));
        }
        assert_eq!(met.iter().all(|met| *met), name == "own", "{name}: {met:?}");
    }
}
