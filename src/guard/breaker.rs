//! A circuit breaker: a source that keeps failing, or keeps being slow, is left alone for a moment, then probed by one call.
//!
//! There is one circuit for the source and one for each of its operations. What fails at one operation alone opens that
//! operation's circuit only. The source's opens when it cannot be reached, or when calls keep failing even without those of the
//! operation that fails most.

use crate::status::SourceHealth;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When the breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// Calls that are looked back on.
    pub window: usize,
    /// Failures among them, in per cent, at which it opens.
    pub failures_percent: usize,
    /// A call that takes longer is slow.
    pub slow: Duration,
    /// Slow calls among them, in per cent, at which it opens.
    pub slow_percent: usize,
    /// How long it stays open.
    pub open_for: Duration,
}

impl Default for BreakerSettings {
    /// Half of the last 20 calls failed, or four fifths of them took more than ten seconds: for five seconds.
    fn default() -> Self {
        BreakerSettings {
            window: 20,
            failures_percent: 50,
            slow: Duration::from_secs(10),
            slow_percent: 80,
            open_for: Duration::from_secs(5),
        }
    }
}

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BreakerState {
    /// Calls go.
    Closed,
    /// A call probes the source.
    HalfOpen,
    /// No call goes.
    Open,
}

/// When it is worth to come again while another call probes.
const WHILE_PROBED: Duration = Duration::from_millis(500);

/// How a call passes one circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// It is closed.
    Usual,
    /// The call probes.
    Probe,
    /// It has been open for long enough and waits for a call that may probe.
    Beside,
}

/// How a call passes both circuits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Passage {
    whole: Pass,
    operation: Pass,
}

impl Passage {
    /// Through closed circuits.
    pub(super) const USUAL: Self = Passage { whole: Pass::Usual, operation: Pass::Usual };

    /// Whether the call probes.
    pub(super) fn probes(self) -> bool {
        self.whole == Pass::Probe || self.operation == Pass::Probe
    }

    /// Whether it passes beside an open circuit.
    pub(super) fn is_beside(self) -> bool {
        self.whole == Pass::Beside || self.operation == Pass::Beside
    }
}

/// How one call went.
#[derive(Debug, Clone, Copy, Default)]
struct Went {
    operation: usize,
    failed: bool,
    unreachable: bool,
    slow: bool,
}

/// The last calls.
#[derive(Default)]
struct Recent {
    calls: Vec<Went>,
    next: usize,
}

enum Circuit {
    Closed(Recent),
    Open { until: Instant },
    HalfOpen { probing: bool },
}

struct Circuits {
    whole: Circuit,
    /// By number, with the operation's name.
    operations: Vec<(String, Circuit)>,
}

pub(super) struct Breaker {
    source: String,
    settings: BreakerSettings,
    circuits: Mutex<Circuits>,
}

impl Recent {
    fn add(&mut self, went: Went, window: usize) {
        if self.calls.len() < window {
            self.calls.push(went);
        } else if let Some(oldest) = self.calls.get_mut(self.next) {
            *oldest = went;
            self.next = (self.next + 1) % window;
        }
    }

    fn count(&self, which: impl Fn(&Went) -> bool) -> usize {
        self.calls.iter().filter(|went| which(went)).count()
    }

    /// Whether so many calls of these are bad, in one of the two ways.
    fn much(&self, settings: &BreakerSettings, among: impl Fn(&Went) -> bool) -> bool {
        let calls = self.count(&among);
        let failed = self.count(|went| among(went) && went.failed);
        let slow = self.count(|went| among(went) && went.slow);
        failed * 100 >= calls * settings.failures_percent || slow * 100 >= calls * settings.slow_percent
    }

    /// Whether it is the source that fails, and not one operation: it cannot be reached; or enough calls of others are left
    /// (a quarter), and they fail, too.
    fn is_the_source(&self, settings: &BreakerSettings) -> bool {
        let unreachable = self.count(|went| went.unreachable);
        if unreachable * 100 >= settings.window * settings.failures_percent {
            return true;
        }
        let bad = |operation: usize| self.count(|went| went.operation == operation && (went.failed || went.slow));
        let worst = self.calls.iter().map(|went| went.operation).max_by_key(|operation| bad(*operation));
        let other = |went: &Went| Some(went.operation) != worst;
        self.count(other) * 4 >= settings.window && self.much(settings, other)
    }
}

impl Circuit {
    fn closed() -> Self {
        Circuit::Closed(Recent::default())
    }

    fn state(&self) -> BreakerState {
        match self {
            Circuit::Closed(_) => BreakerState::Closed,
            Circuit::HalfOpen { .. } => BreakerState::HalfOpen,
            Circuit::Open { .. } => BreakerState::Open,
        }
    }

    /// How a call may pass; an error says how long to wait.
    fn pass(&self, now: Instant, may_probe: bool) -> Result<Pass, Duration> {
        match self {
            Circuit::Closed(_) => Ok(Pass::Usual),
            Circuit::Open { until } if now < *until => Err(*until - now),
            Circuit::HalfOpen { probing: true } => Err(WHILE_PROBED),
            Circuit::Open { .. } | Circuit::HalfOpen { .. } => Ok(if may_probe { Pass::Probe } else { Pass::Beside }),
        }
    }

    fn passed(&mut self, pass: Pass) {
        if pass == Pass::Probe {
            *self = Circuit::HalfOpen { probing: true };
        }
    }

    fn forget_probe(&mut self, pass: Pass) {
        if let (Pass::Probe, Circuit::HalfOpen { probing }) = (pass, self) {
            *probing = false;
        }
    }
}

impl Breaker {
    pub(super) fn new(source: &str, settings: BreakerSettings) -> Self {
        let circuits = Circuits { whole: Circuit::closed(), operations: Vec::new() };
        Breaker { source: source.to_owned(), settings, circuits: Mutex::new(circuits) }
    }

    fn lock(&self) -> MutexGuard<'_, Circuits> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of an operation.
    pub(super) fn number(&self, operation: &str) -> usize {
        let operations = &mut self.lock().operations;
        operations.iter().position(|(known, _)| known == operation).unwrap_or_else(|| {
            operations.push((operation.to_owned(), Circuit::closed()));
            operations.len() - 1
        })
    }

    /// How it stands: as the source's circuit, or the worst of its operations'.
    pub(super) fn state(&self) -> BreakerState {
        let circuits = self.lock();
        let all = std::iter::once(&circuits.whole).chain(circuits.operations.iter().map(|(_, circuit)| circuit));
        all.map(Circuit::state).max().unwrap_or(BreakerState::Closed)
    }

    /// Whether calls of an operation go as usual.
    pub(super) fn is_closed(&self, operation: usize) -> bool {
        let circuits = self.lock();
        let own = circuits.operations.get(operation).map(|(_, circuit)| circuit.state());
        circuits.whole.state() == BreakerState::Closed && own.is_none_or(|state| state == BreakerState::Closed)
    }

    /// May a call go, and how? An error says how long to wait. One that may not probe, since its caller could spin it out or take
    /// it away, is not kept waiting for one that may: it goes beside the open circuit.
    pub(super) fn ask(&self, operation: usize, now: Instant, may_probe: bool) -> Result<Passage, Duration> {
        let Circuits { whole, operations } = &mut *self.lock();
        let own = operations.get_mut(operation).map(|(_, circuit)| circuit);
        let of_own = own.as_ref().map_or(Ok(Pass::Usual), |own| own.pass(now, may_probe))?;
        let passage = Passage { whole: whole.pass(now, may_probe)?, operation: of_own };
        whole.passed(passage.whole);
        if let Some(own) = own {
            own.passed(passage.operation);
        }
        Ok(passage)
    }

    /// Takes down how a call went.
    pub(super) fn tell(&self, operation: usize, health: SourceHealth, took: Duration, passage: Passage, now: Instant) {
        let unreachable = health == SourceHealth::Unreachable;
        let failed = unreachable || health == SourceHealth::Failed;
        let went = Went { operation, failed, unreachable, slow: took > self.settings.slow };
        let Circuits { whole, operations } = &mut *self.lock();
        if let Some((name, own)) = operations.get_mut(operation) {
            // Whatever failed, it failed for this operation.
            let bad = went.failed || went.slow;
            self.change(own, name, went, passage.operation, bad, now, |_| true);
        }
        self.change(whole, "", went, passage.whole, went.unreachable, now, |recent| {
            recent.is_the_source(&self.settings)
        });
    }

    /// Takes down in one circuit how a call went: whether it was `bad` as a probe, and whether the last calls, where many are bad,
    /// are a reason to open it.
    #[allow(
        clippy::too_many_arguments,
        reason = "one circuit, one call, and the two rules in which the circuits differ"
    )]
    fn change(
        &self,
        circuit: &mut Circuit,
        operation: &str,
        went: Went,
        pass: Pass,
        bad: bool,
        now: Instant,
        opens: impl Fn(&Recent) -> bool,
    ) {
        let open = Circuit::Open { until: now + self.settings.open_for };
        let good = !went.failed && !went.slow;
        match (&mut *circuit, pass) {
            (Circuit::Open { .. } | Circuit::HalfOpen { .. }, Pass::Probe | Pass::Beside) if good => {
                tracing::info!(source = self.source, operation, "a source answers again: its breaker closes");
                *circuit = Circuit::closed();
            }
            (Circuit::HalfOpen { .. }, Pass::Probe) if bad => *circuit = open,
            // One operation's failure: another call may show that the source is well.
            (Circuit::HalfOpen { .. }, Pass::Probe) => circuit.forget_probe(pass),
            (Circuit::Closed(recent), Pass::Usual) => {
                recent.add(went, self.settings.window);
                let full = recent.calls.len() == self.settings.window;
                if full && recent.much(&self.settings, |_| true) && opens(recent) {
                    let (failed, slow) = (recent.count(|went| went.failed), recent.count(|went| went.slow));
                    let (source, of) = (&self.source, self.settings.window);
                    tracing::warn!(
                        source,
                        operation,
                        failed,
                        slow,
                        of,
                        "a source keeps failing or is slow: its breaker opens"
                    );
                    *circuit = open;
                }
            }
            _ => {}
        }
    }

    /// A probe went away without an answer: the next call is the probe.
    pub(super) fn forget_probe(&self, operation: usize, passage: Passage) {
        let Circuits { whole, operations } = &mut *self.lock();
        whole.forget_probe(passage.whole);
        if let Some((_, own)) = operations.get_mut(operation) {
            own.forget_probe(passage.operation);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUICK: Duration = Duration::from_millis(1);
    const SLOW: Duration = Duration::from_secs(11);

    fn breaker() -> Breaker {
        let settings = BreakerSettings { window: 4, ..BreakerSettings::default() };
        let breaker = Breaker::new("test", settings);
        assert_eq!((breaker.number("Get"), breaker.number("List"), breaker.number("Get")), (0, 1, 0));
        breaker
    }

    fn told(breaker: &Breaker, operation: usize, health: SourceHealth, took: Duration, now: Instant) {
        let passage = breaker.ask(operation, now, true).unwrap();
        breaker.tell(operation, health, took, passage, now);
    }

    #[test]
    fn it_opens_on_failures_probes_once_and_closes_on_an_answer() {
        let (breaker, start) = (breaker(), Instant::now());
        for health in [SourceHealth::Answered, SourceHealth::Answered, SourceHealth::Unreachable] {
            told(&breaker, 0, health, QUICK, start);
            assert_eq!(breaker.ask(0, start, true), Ok(Passage::USUAL));
        }
        told(&breaker, 0, SourceHealth::Unreachable, QUICK, start);
        assert_eq!(breaker.ask(1, start, true), Err(Duration::from_secs(5)));
        let later = start + Duration::from_secs(5);
        let probe = breaker.ask(1, later, true).unwrap();
        assert!(probe.probes() && breaker.ask(1, later, true).is_err(), "only one probe at a time");
        breaker.tell(1, SourceHealth::Unreachable, QUICK, probe, later);
        let again = later + Duration::from_secs(5);
        assert!(breaker.ask(1, later, true).is_err());
        let probe = breaker.ask(1, again, true).unwrap();
        breaker.forget_probe(1, probe);
        told(&breaker, 0, SourceHealth::Answered, QUICK, again);
        assert_eq!((breaker.ask(0, again, true), breaker.state()), (Ok(Passage::USUAL), BreakerState::Closed));
    }

    #[test]
    fn it_opens_on_slowness_and_a_slow_probe_does_not_close_it() {
        let (breaker, start) = (breaker(), Instant::now());
        for took in [SLOW, QUICK, SLOW, SLOW] {
            told(&breaker, 0, SourceHealth::Answered, took, start);
        }
        assert!(breaker.is_closed(0), "three of four are not four fifths");
        told(&breaker, 0, SourceHealth::Answered, SLOW, start);
        told(&breaker, 0, SourceHealth::Answered, SLOW, start);
        assert_eq!(breaker.state(), BreakerState::Open);
        told(&breaker, 0, SourceHealth::Answered, SLOW, start + Duration::from_secs(5));
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn one_operation_that_always_fails_shuts_itself_and_no_other() {
        let (breaker, start) = (breaker(), Instant::now());
        (0..4).for_each(|_| told(&breaker, 0, SourceHealth::Failed, QUICK, start));
        assert!(breaker.ask(0, start, true).is_err() && breaker.is_closed(1));
        told(&breaker, 1, SourceHealth::Answered, QUICK, start);
        // Where the others fail as well, it is the source.
        told(&breaker, 1, SourceHealth::Failed, QUICK, start);
        assert!(breaker.number("Sync") == 2 && breaker.ask(2, start, true).is_err());
    }

    #[test]
    fn a_failing_operation_as_the_source_s_probe_does_not_keep_it_shut() {
        let (breaker, start) = (breaker(), Instant::now());
        (0..4).for_each(|_| told(&breaker, 1, SourceHealth::Unreachable, QUICK, start));
        let later = start + Duration::from_secs(5);
        told(&breaker, 0, SourceHealth::Failed, QUICK, later);
        told(&breaker, 1, SourceHealth::Answered, QUICK, later);
        assert!(breaker.is_closed(0) && breaker.is_closed(1));
    }

    #[test]
    fn what_may_not_probe_passes_beside_and_only_an_answer_to_it_counts() {
        let (breaker, start) = (breaker(), Instant::now());
        (0..4).for_each(|_| told(&breaker, 0, SourceHealth::Unreachable, QUICK, start));
        assert!(breaker.ask(0, start, false).is_err(), "not before its time is over");
        let later = start + Duration::from_secs(5);
        let beside = breaker.ask(0, later, false).unwrap();
        assert!(beside.is_beside() && !beside.probes());
        breaker.tell(0, SourceHealth::Failed, QUICK, beside, later);
        let probe = breaker.ask(0, later, true).unwrap();
        assert!(probe.probes() && breaker.ask(0, later, false).is_err(), "it is being probed");
        breaker.forget_probe(0, probe);
        breaker.tell(0, SourceHealth::Answered, QUICK, beside, later);
        assert!(breaker.is_closed(0));
    }

    proptest! {
        #[test]
        fn probes_that_go_away_never_shut_out_the_next_call(leaves in proptest::collection::vec((0usize..2, any::<bool>()), 0..50)) {
            let (breaker, start) = (breaker(), Instant::now());
            (0..4).for_each(|_| told(&breaker, 0, SourceHealth::Unreachable, QUICK, start));
            let later = start + Duration::from_secs(5);
            for (operation, may_probe) in leaves {
                let passage = breaker.ask(operation, later, may_probe).unwrap();
                breaker.forget_probe(operation, passage);
            }
            prop_assert!(breaker.ask(1, later, true).unwrap().probes());
        }
    }
}
