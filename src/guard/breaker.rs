//! A circuit breaker: a source that keeps failing, or keeps being slow, is not called for a while, then probed by one call.
//!
//! There is one circuit for the source and one for each of its operations. A failure of only one operation opens that
//! operation's circuit. The source's circuit opens if it cannot be reached, or if calls keep failing even without those
//! of the operation that fails most.
//!
//! Likewise by client: a circuit opens for one client if only this client's calls fail, and for all if calls fail
//! without those of any one client (`evidence.rs`). `circuit.rs` draws a circuit's states for all and for single
//! clients.

pub use super::breaker_settings::{BreakerSettings, BreakerState};
use super::circuit::{Circuit, CircuitOpen, Pass, Transition};
use super::evidence::{CallOutcome, CallWindow, ClientKey};
use crate::status::SourceHealth;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How a client's call passes both circuits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CircuitPass {
    client: ClientKey,
    whole: Pass,
    operation: Pass,
}

impl CircuitPass {
    /// Through closed circuits.
    pub(super) fn closed(client: ClientKey) -> Self {
        CircuitPass { client, whole: Pass::Usual, operation: Pass::Usual }
    }

    /// Returns the client that made the call.
    pub(super) fn client(self) -> ClientKey {
        self.client
    }

    /// Returns whether the call probes.
    pub(super) fn probes(self) -> bool {
        self.whole == Pass::Probe || self.operation == Pass::Probe
    }

    /// Returns whether it bypasses an open circuit.
    pub(super) fn is_bypass(self) -> bool {
        self.whole == Pass::Beside || self.operation == Pass::Beside
    }
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

impl Breaker {
    pub(super) fn new(source: &str, settings: BreakerSettings) -> Self {
        let circuits = Circuits { whole: Circuit::closed(), operations: Vec::new() };
        Breaker { source: source.to_owned(), settings, circuits: Mutex::new(circuits) }
    }

    fn lock(&self) -> MutexGuard<'_, Circuits> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of an operation.
    pub(super) fn number(&self, operation: &str) -> usize {
        let operations = &mut self.lock().operations;
        operations.iter().position(|(known, _)| known == operation).unwrap_or_else(|| {
            operations.push((operation.to_owned(), Circuit::closed()));
            operations.len() - 1
        })
    }

    /// Returns its state for all clients: that of the source's circuit, or the worst of its operations'.
    pub(super) fn state(&self) -> BreakerState {
        self.lock().all().map(Circuit::state).max().unwrap_or(BreakerState::Closed)
    }

    /// Returns the number of circuits that are open for a single client, of the source and its operations together.
    pub(super) fn clients(&self) -> usize {
        self.lock().all().map(Circuit::clients).sum()
    }

    /// Returns whether the circuits are closed for a client's calls of an operation.
    pub(super) fn is_closed(&self, operation: usize, client: ClientKey) -> bool {
        let circuits = self.lock();
        let own = circuits.operations.get(operation);
        circuits.whole.is_closed(client) && own.is_none_or(|(_, own)| own.is_closed(client))
    }

    /// Returns whether a client's call may pass, and how; an error has the time to wait. A call that may not probe,
    /// since its caller could prolong or cancel it, does not wait for a probe: it bypasses the open circuit.
    pub(super) fn try_acquire(
        &self,
        operation: usize,
        client: ClientKey,
        now: Instant,
        may_probe: bool,
    ) -> Result<CircuitPass, CircuitOpen> {
        let Circuits { whole, operations } = &mut *self.lock();
        let own = operations.get_mut(operation).map(|(_, circuit)| circuit);
        let of_own = own.as_ref().map_or(Ok(Pass::Usual), |own| own.pass(client, now, may_probe))?;
        let passage = CircuitPass { client, whole: whole.pass(client, now, may_probe)?, operation: of_own };
        whole.on_pass(client, passage.whole);
        if let Some(own) = own {
            own.on_pass(client, passage.operation);
        }
        Ok(passage)
    }

    /// Records how a call of this client ended.
    pub(super) fn record(
        &self,
        operation: usize,
        (client, passage): (&str, CircuitPass),
        health: SourceHealth,
        took: Duration,
        now: Instant,
    ) {
        let unreachable = health == SourceHealth::Unreachable;
        let (failed, slow) = (unreachable || health == SourceHealth::Failed, took > self.settings.slow);
        let (settings, key) = (&self.settings, passage.client);
        let outcome = CallOutcome { operation, client: key, failed, unreachable, slow };
        let Circuits { whole, operations } = &mut *self.lock();
        if let Some((name, own)) = operations.get_mut(operation) {
            // Every failure counts for its own operation.
            let pass = (passage.operation, !outcome.is_good());
            let verdict = |recent: &CallWindow, another| recent.of_operation(settings, key, another);
            self.log(own.record(settings, outcome, pass, now, verdict), name, client);
        }
        // One operation's failure: another call may show that the source is healthy.
        let pass = (passage.whole, unreachable);
        let verdict = |recent: &CallWindow, another| recent.of_source(settings, key, another);
        self.log(whole.record(settings, outcome, pass, now, verdict), "", client);
    }

    fn log(&self, change: Transition, operation: &str, client: &str) {
        let (source, of) = (&self.source, self.settings.window);
        match change {
            Transition::Nothing => {}
            Transition::OpensForAll { failed, slow } => {
                let what = "a source keeps failing or is slow: its breaker opens";
                tracing::warn!(source, operation, failed, slow, of, "{what}");
            }
            Transition::OpensForClient => {
                let what = "a source keeps failing or is slow for one client alone: its breaker opens for this client";
                tracing::warn!(source, operation, client, "{what}");
            }
            Transition::ClosesForAll => {
                tracing::info!(source, operation, "a source succeeds again: its breaker closes");
            }
            Transition::ClosesForClient => {
                tracing::info!(source, operation, client, "a source succeeds for a client again: its breaker closes");
            }
        }
    }

    /// A probe ended without a result: the next call is the probe.
    pub(super) fn abandon_probe(&self, operation: usize, passage: CircuitPass) {
        let Circuits { whole, operations } = &mut *self.lock();
        whole.abandon_probe(passage.client, passage.whole);
        if let Some((_, own)) = operations.get_mut(operation) {
            own.abandon_probe(passage.client, passage.operation);
        }
    }
}

impl Circuits {
    fn all(&self) -> impl Iterator<Item = &Circuit> {
        std::iter::once(&self.whole).chain(self.operations.iter().map(|(_, circuit)| circuit))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    const QUICK: Duration = Duration::from_millis(1);
    const SLOW: Duration = Duration::from_secs(11);

    fn breaker() -> Breaker {
        let settings = BreakerSettings { window: 4, ..BreakerSettings::default() };
        let breaker = Breaker::new("test", settings);
        assert_eq!((breaker.number("Get"), breaker.number("List"), breaker.number("Get")), (0, 1, 0));
        breaker
    }

    /// Records a call of one of three clients, in turn.
    fn record(breaker: &Breaker, operation: usize, health: SourceHealth, took: Duration, now: Instant) {
        thread_local!(static TURN: Cell<usize> = const { Cell::new(0) });
        let name = ["a", "b", "c"][TURN.replace(TURN.get() + 1) % 3];
        let passage = breaker.try_acquire(operation, ClientKey::of(name), now, true).unwrap();
        breaker.record(operation, (name, passage), health, took, now);
    }

    fn ask(breaker: &Breaker, operation: usize, now: Instant, may_probe: bool) -> Result<CircuitPass, Duration> {
        breaker.try_acquire(operation, ClientKey::of("a"), now, may_probe).map_err(|shut| shut.after)
    }

    fn is_closed(breaker: &Breaker, operation: usize) -> bool {
        breaker.is_closed(operation, ClientKey::of("a"))
    }

    fn usual() -> CircuitPass {
        CircuitPass::closed(ClientKey::of("a"))
    }

    #[test]
    fn it_opens_on_failures_probes_once_and_closes_on_an_answer() {
        let (breaker, start) = (breaker(), Instant::now());
        for health in [SourceHealth::Responded, SourceHealth::Responded, SourceHealth::Unreachable] {
            record(&breaker, 0, health, QUICK, start);
            assert_eq!(ask(&breaker, 0, start, true), Ok(usual()));
        }
        record(&breaker, 0, SourceHealth::Unreachable, QUICK, start);
        assert_eq!(ask(&breaker, 1, start, true), Err(Duration::from_secs(5)));
        let later = start + Duration::from_secs(5);
        let probe = ask(&breaker, 1, later, true).unwrap();
        assert!(probe.probes() && ask(&breaker, 1, later, true).is_err(), "only one probe at a time");
        breaker.record(1, ("a", probe), SourceHealth::Unreachable, QUICK, later);
        let again = later + Duration::from_secs(5);
        assert!(ask(&breaker, 1, later, true).is_err());
        let probe = ask(&breaker, 1, again, true).unwrap();
        breaker.abandon_probe(1, probe);
        record(&breaker, 0, SourceHealth::Responded, QUICK, again);
        assert_eq!((ask(&breaker, 0, again, true), breaker.state()), (Ok(usual()), BreakerState::Closed));
    }

    #[test]
    fn it_opens_on_slowness_and_a_slow_probe_does_not_close_it() {
        let (breaker, start) = (breaker(), Instant::now());
        for took in [SLOW, QUICK, SLOW, SLOW] {
            record(&breaker, 0, SourceHealth::Responded, took, start);
        }
        assert!(is_closed(&breaker, 0), "three of four are not four fifths");
        record(&breaker, 0, SourceHealth::Responded, SLOW, start);
        record(&breaker, 0, SourceHealth::Responded, SLOW, start);
        assert_eq!(breaker.state(), BreakerState::Open);
        let later = start + Duration::from_secs(5);
        record(&breaker, 0, SourceHealth::Responded, SLOW, later);
        assert_eq!((breaker.state(), breaker.clients()), (BreakerState::HalfOpen, 1), "one client's says so");
        record(&breaker, 0, SourceHealth::Responded, SLOW, later);
        assert_eq!((breaker.state(), breaker.clients()), (BreakerState::Open, 0));
    }

    #[test]
    fn one_operation_that_always_fails_shuts_itself_and_no_other() {
        let (breaker, start) = (breaker(), Instant::now());
        (0..4).for_each(|_| record(&breaker, 0, SourceHealth::Failed, QUICK, start));
        assert!(ask(&breaker, 0, start, true).is_err() && is_closed(&breaker, 1));
        record(&breaker, 1, SourceHealth::Responded, QUICK, start);
        assert!(ask(&breaker, 0, start, true).is_err() && is_closed(&breaker, 1));
    }

    #[test]
    fn where_operations_and_clients_fail_alike_it_is_the_source() {
        let start = Instant::now();
        let failing = |names: &[&str]| {
            let breaker = breaker();
            for (number, name) in names.iter().enumerate() {
                let passage = breaker.try_acquire(number % 2, ClientKey::of(name), start, true).unwrap();
                breaker.record(number % 2, (name, passage), SourceHealth::Failed, QUICK, start);
            }
            assert_eq!(breaker.number("Sync"), 2);
            breaker
        };
        let breaker = failing(&["a", "a", "b", "b"]);
        assert!(ask(&breaker, 2, start, true).is_err() && !breaker.is_closed(2, ClientKey::of("c")));
        // One client alone: for it alone.
        let breaker = failing(&["a", "a", "a", "a"]);
        assert!(ask(&breaker, 2, start, true).is_err() && breaker.is_closed(2, ClientKey::of("c")));
    }

    #[test]
    fn a_failing_operation_as_the_source_s_probe_does_not_keep_it_shut() {
        let (breaker, start) = (breaker(), Instant::now());
        (0..4).for_each(|_| record(&breaker, 1, SourceHealth::Unreachable, QUICK, start));
        let later = start + Duration::from_secs(5);
        record(&breaker, 0, SourceHealth::Failed, QUICK, later);
        record(&breaker, 1, SourceHealth::Responded, QUICK, later);
        assert!(is_closed(&breaker, 0) && is_closed(&breaker, 1));
    }

    #[test]
    fn what_may_not_probe_passes_beside_and_only_an_answer_to_it_counts() {
        let (breaker, start) = (breaker(), Instant::now());
        (0..4).for_each(|_| record(&breaker, 0, SourceHealth::Unreachable, QUICK, start));
        assert!(ask(&breaker, 0, start, false).is_err(), "not before its time is over");
        let later = start + Duration::from_secs(5);
        let beside = ask(&breaker, 0, later, false).unwrap();
        assert!(beside.is_bypass() && !beside.probes());
        breaker.record(0, ("a", beside), SourceHealth::Failed, QUICK, later);
        let probe = ask(&breaker, 0, later, true).unwrap();
        assert!(probe.probes() && ask(&breaker, 0, later, false).is_err(), "it is being probed");
        breaker.abandon_probe(0, probe);
        breaker.record(0, ("a", beside), SourceHealth::Responded, QUICK, later);
        assert!(is_closed(&breaker, 0));
    }

    proptest! {
        #[test]
        fn probes_that_go_away_never_shut_out_the_next_call(leaves in proptest::collection::vec((0usize..2, any::<bool>()), 0..50)) {
            let (breaker, start) = (breaker(), Instant::now());
            (0..4).for_each(|_| record(&breaker, 0, SourceHealth::Unreachable, QUICK, start));
            let later = start + Duration::from_secs(5);
            for (operation, may_probe) in leaves {
                let passage = ask(&breaker, operation, later, may_probe).unwrap();
                breaker.abandon_probe(operation, passage);
            }
            prop_assert!(ask(&breaker, 1, later, true).unwrap().probes());
        }
    }
}
