//! One circuit of a breaker: of a source, or of one of its operations.
//!
//! It may be open for all clients, or for single clients if only their calls fail (`evidence.rs` decides which). For
//! all:
//!
//! ```text
//!             bad without any one client,               `open_for` is over: one call of
//!             or no connection                          a client, of two clients at most
//!   Closed ------------------------------> Open -----------------------------------------> HalfOpen
//!     ^                                     ^                                               |  |  |
//!     |                                     +------ no connection, or probes of two --------+  |  |
//!     |                                             clients failed                             |  |
//!     |                                                                                        |  |
//!     |            a probe failed that one client may have brought about:  ClientOpen <--------+  |
//!     |            the next probe is another client's                                             |
//!     +------------------------------------ a response to anybody ---------------------------------+
//! ```
//!
//! For one client, beside `Closed` and `HalfOpen`:
//!
//! ```text
//!               bad by its calls alone                  `open_for` is over: one call
//!   (no entry) ------------------------> ClientOpen -----------------------------------> ClientHalfOpen
//!       ^                                    ^                                               |  |
//!       |                                    +------------------- it failed -----------------+  |
//!       +------------------------------------ a response to the client --------------------------+
//! ```
//!
//! A source with one client is protected by that client's circuit, which has the same effect. At most [`MAX_CLIENTS`]
//! circuits of clients are kept: beyond that, the one that has been open for longest is closed.

use super::breaker_settings::{BreakerSettings, BreakerState};
use super::evidence::{CallOutcome, CallWindow, ClientKey, TripScope};
use std::time::{Duration, Instant};

/// Retry delay while another call probes.
const WHILE_PROBED: Duration = Duration::from_millis(500);
/// Maximum number of clients that probe at once: if one client's probe hangs, because that client made it hang, other
/// clients can still probe.
const MAX_PROBES: usize = 2;
/// Maximum number of clients for which alone a circuit is open.
pub(super) const MAX_CLIENTS: usize = 32;

/// How a call passes one circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// It is closed.
    Usual,
    /// The call probes.
    Probe,
    /// The circuit has been open for long enough and waits for a call that may probe.
    Beside,
}

/// A call does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CircuitOpen {
    /// When to retry.
    pub(super) after: Duration,
    /// Only the client's own calls are refused.
    pub(super) for_client: bool,
}

/// The state transition that a call caused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transition {
    Nothing,
    /// It opens for all: this many of the last calls failed, this many were slow.
    OpensForAll {
        failed: usize,
        slow: usize,
    },
    OpensForClient,
    ClosesForAll,
    ClosesForClient,
}

#[derive(Debug)]
pub(super) struct Circuit {
    all: CircuitState,
    clients: Vec<ClientCircuit>,
}

/// The state for all clients.
#[derive(Debug)]
enum CircuitState {
    Closed(CallWindow),
    Open {
        until: Instant,
    },
    HalfOpen {
        /// Clients with a call that probes.
        probing: Vec<ClientKey>,
    },
}

/// A client for which it is open.
#[derive(Debug)]
struct ClientCircuit {
    client: ClientKey,
    until: Instant,
    /// One of its calls probes.
    probing: bool,
}

impl Circuit {
    pub(super) fn closed() -> Self {
        Circuit { all: CircuitState::Closed(CallWindow::default()), clients: Vec::new() }
    }

    /// The state for all clients.
    pub(super) fn state(&self) -> BreakerState {
        match self.all {
            CircuitState::Closed(_) => BreakerState::Closed,
            CircuitState::HalfOpen { .. } => BreakerState::HalfOpen,
            CircuitState::Open { .. } => BreakerState::Open,
        }
    }

    /// Returns the number of clients for which alone it is not closed.
    pub(super) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Returns whether it is closed for a client's calls.
    pub(super) fn is_closed(&self, client: ClientKey) -> bool {
        matches!(self.all, CircuitState::Closed(_)) && self.clients.iter().all(|one| one.client != client)
    }

    fn of_client(&mut self, client: ClientKey) -> Option<&mut ClientCircuit> {
        self.clients.iter_mut().find(|one| one.client == client)
    }

    /// Returns how a client's call may pass.
    pub(super) fn pass(&self, client: ClientKey, now: Instant, may_probe: bool) -> Result<Pass, CircuitOpen> {
        let own = self.clients.iter().find(|one| one.client == client);
        match &self.all {
            CircuitState::Open { until } if now < *until => {
                return Err(CircuitOpen { after: *until - now, for_client: false });
            }
            CircuitState::HalfOpen { probing } if probing.len() >= MAX_PROBES || probing.contains(&client) => {
                return Err(CircuitOpen { after: WHILE_PROBED, for_client: false });
            }
            CircuitState::Open { .. } | CircuitState::HalfOpen { .. } | CircuitState::Closed(_) => {}
        }
        match own {
            Some(own) if now < own.until => Err(CircuitOpen { after: own.until - now, for_client: true }),
            Some(own) if own.probing => Err(CircuitOpen { after: WHILE_PROBED, for_client: true }),
            None if matches!(self.all, CircuitState::Closed(_)) => Ok(Pass::Usual),
            _ => Ok(if may_probe { Pass::Probe } else { Pass::Beside }),
        }
    }

    /// Records that a client's call has passed.
    pub(super) fn on_pass(&mut self, client: ClientKey, pass: Pass) {
        if pass != Pass::Probe {
            return;
        }
        match &mut self.all {
            CircuitState::HalfOpen { probing } => probing.push(client),
            CircuitState::Open { .. } => self.all = CircuitState::HalfOpen { probing: vec![client] },
            CircuitState::Closed(_) => {}
        }
        if let Some(own) = self.of_client(client) {
            own.probing = true;
        }
    }

    /// A probe ended without a result: the next call may probe.
    pub(super) fn abandon_probe(&mut self, client: ClientKey, pass: Pass) {
        if pass != Pass::Probe {
            return;
        }
        if let CircuitState::HalfOpen { probing } = &mut self.all {
            probing.retain(|one| *one != client);
        }
        if let Some(own) = self.of_client(client) {
            own.probing = false;
        }
    }

    /// Records how a call ended that passed in this way. `bad`: whether it counts as a failed probe. `verdict`: what
    /// the last calls show, given whether the circuit is open for another client.
    pub(super) fn record(
        &mut self,
        settings: &BreakerSettings,
        outcome: CallOutcome,
        (pass, bad): (Pass, bool),
        now: Instant,
        verdict: impl FnOnce(&CallWindow, bool) -> TripScope,
    ) -> Transition {
        self.abandon_probe(outcome.client, pass);
        if pass != Pass::Usual && outcome.is_good() {
            return self.answered(outcome.client);
        }
        let another = self.clients.iter().any(|one| one.client != outcome.client);
        let own = self.clients.iter().any(|one| one.client == outcome.client);
        let until = now + settings.open_for;
        match &mut self.all {
            CircuitState::Closed(recent) if pass == Pass::Usual => {
                recent.add(outcome, settings.window);
                match verdict(recent, another) {
                    TripScope::Stay => Transition::Nothing,
                    TripScope::OpenForClient => self.open_for(outcome.client, until),
                    TripScope::OpenForAll => {
                        let (failed, slow) = (recent.count(|one| one.failed), recent.count(|one| one.slow));
                        self.open(until);
                        Transition::OpensForAll { failed, slow }
                    }
                }
            }
            CircuitState::HalfOpen { .. } if pass == Pass::Probe && bad && (another || outcome.unreachable) => {
                self.open(until);
                Transition::Nothing
            }
            CircuitState::HalfOpen { .. } if pass == Pass::Probe && bad => self.open_for(outcome.client, until),
            CircuitState::Closed(_) if pass == Pass::Probe && bad && own => {
                self.open_for(outcome.client, until);
                Transition::Nothing
            }
            _ => Transition::Nothing,
        }
    }

    fn answered(&mut self, client: ClientKey) -> Transition {
        self.clients.retain(|one| one.client != client);
        match self.all {
            CircuitState::Closed(_) => Transition::ClosesForClient,
            CircuitState::Open { .. } | CircuitState::HalfOpen { .. } => {
                self.all = CircuitState::Closed(CallWindow::default());
                Transition::ClosesForAll
            }
        }
    }

    fn open(&mut self, until: Instant) {
        self.all = CircuitState::Open { until };
        self.clients.clear();
    }

    fn open_for(&mut self, client: ClientKey, until: Instant) -> Transition {
        if let CircuitState::Closed(recent) = &mut self.all {
            recent.forget(client);
        }
        self.clients.retain(|one| one.client != client);
        if self.clients.len() >= MAX_CLIENTS {
            // They are in the order in which they last opened.
            self.clients.remove(0);
        }
        self.clients.push(ClientCircuit { client, until, probing: false });
        Transition::OpensForClient
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTINGS: BreakerSettings = BreakerSettings {
        window: 8,
        failures_percent: 50,
        slow: Duration::from_secs(1),
        slow_percent: 80,
        open_for: Duration::from_secs(5),
    };

    /// How one client's call goes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Goes {
        Well,
        Fails,
        IsSlow,
        Unreachable,
        /// It never ends, or its caller cancels it.
        Hangs,
        IsLeft,
    }

    fn ends(circuit: &mut Circuit, client: ClientKey, pass: Pass, goes: Goes, now: Instant) {
        let (unreachable, slow) = (goes == Goes::Unreachable, goes == Goes::IsSlow);
        let outcome =
            CallOutcome { operation: 0, client, failed: goes == Goes::Fails || unreachable, unreachable, slow };
        match goes {
            Goes::Hangs => {}
            Goes::IsLeft => circuit.abandon_probe(client, pass),
            _ => {
                let bad = !outcome.is_good();
                circuit.record(&SETTINGS, outcome, (pass, bad), now, |recent, another| {
                    recent.of_operation(&SETTINGS, client, another)
                });
            }
        }
    }

    /// A client's call, where it passes.
    fn call(circuit: &mut Circuit, client: ClientKey, goes: Goes, now: Instant) -> Result<Pass, CircuitOpen> {
        let pass = circuit.pass(client, now, true)?;
        circuit.on_pass(client, pass);
        ends(circuit, client, pass, goes, now);
        Ok(pass)
    }

    fn client(number: usize) -> ClientKey {
        ClientKey::of(&format!("c{number}"))
    }

    /// Fails for two clients until it is open for all.
    fn opened(now: Instant) -> Circuit {
        let mut circuit = Circuit::closed();
        (0..SETTINGS.window).for_each(|number| {
            call(&mut circuit, client(number % 2), Goes::Fails, now).ok();
        });
        assert_eq!(circuit.state(), BreakerState::Open);
        circuit
    }

    #[test]
    fn b1_a_client_whose_calls_alone_fail_is_shut_out_alone_and_comes_back() {
        let (mut circuit, now) = (Circuit::closed(), Instant::now());
        (0..8).for_each(|_| assert_eq!(call(&mut circuit, client(0), Goes::Fails, now), Ok(Pass::Usual)));
        let shut = CircuitOpen { after: SETTINGS.open_for, for_client: true };
        assert_eq!(call(&mut circuit, client(0), Goes::Fails, now), Err(shut));
        assert_eq!((circuit.state(), circuit.clients()), (BreakerState::Closed, 1));
        assert_eq!(call(&mut circuit, client(1), Goes::Well, now), Ok(Pass::Usual));
        // It probes for itself, and what it finds is its own.
        let later = now + SETTINGS.open_for;
        assert_eq!(call(&mut circuit, client(0), Goes::Fails, later), Ok(Pass::Probe));
        assert_eq!(call(&mut circuit, client(0), Goes::Fails, later), Err(shut));
        assert_eq!(call(&mut circuit, client(1), Goes::Well, later), Ok(Pass::Usual));
        assert_eq!(call(&mut circuit, client(0), Goes::Well, later + SETTINGS.open_for), Ok(Pass::Probe));
        assert!(circuit.is_closed(client(0)) && circuit.clients() == 0);
    }

    #[test]
    fn b1_one_client_s_probe_neither_reopens_a_circuit_for_all_nor_holds_it() {
        let now = Instant::now();
        let later = now + SETTINGS.open_for;
        // A probe that fails: the next probe is another client's, and its response closes the circuit.
        let mut circuit = opened(now);
        assert_eq!(call(&mut circuit, client(0), Goes::Fails, later), Ok(Pass::Probe));
        assert!(call(&mut circuit, client(0), Goes::Fails, later).is_err_and(|shut| shut.for_client));
        assert_eq!(call(&mut circuit, client(1), Goes::Well, later), Ok(Pass::Probe));
        assert_eq!(call(&mut circuit, client(2), Goes::Well, later), Ok(Pass::Usual));
        // A probe that hangs.
        let mut circuit = opened(now);
        assert_eq!(call(&mut circuit, client(0), Goes::Hangs, later), Ok(Pass::Probe));
        assert!(call(&mut circuit, client(0), Goes::Well, later).is_err());
        assert_eq!(call(&mut circuit, client(1), Goes::Well, later), Ok(Pass::Probe));
        assert_eq!(circuit.state(), BreakerState::Closed);
        // Two probes that fail, or one without a connection: the circuit opens again.
        let mut circuit = opened(now);
        assert!(call(&mut circuit, client(0), Goes::Fails, later).is_ok());
        assert!(call(&mut circuit, client(1), Goes::IsSlow, later).is_ok());
        assert_eq!((circuit.state(), circuit.clients()), (BreakerState::Open, 0));
        let mut circuit = opened(now);
        assert!(call(&mut circuit, client(0), Goes::Unreachable, later).is_ok());
        assert_eq!(circuit.state(), BreakerState::Open);
    }

    #[test]
    fn b1_circuits_of_clients_are_bounded() {
        let (mut circuit, now) = (Circuit::closed(), Instant::now());
        for number in 0..2 * MAX_CLIENTS {
            let fails = client(number + 1);
            // Other clients get responses meanwhile, so each failing client is the only one that fails.
            for _ in 0..SETTINGS.window {
                call(&mut circuit, client(0), Goes::Well, now).ok();
                call(&mut circuit, fails, Goes::Fails, now).ok();
            }
            assert!(!circuit.is_closed(fails) && circuit.is_closed(client(0)));
        }
        assert_eq!((circuit.state(), circuit.clients()), (BreakerState::Closed, MAX_CLIENTS));
        assert!(circuit.is_closed(client(1)) && !circuit.is_closed(client(2 * MAX_CLIENTS)));
    }

    fn goes() -> impl Strategy<Value = Goes> {
        prop::sample::select(vec![Goes::Well, Goes::Fails, Goes::Fails, Goes::IsSlow, Goes::Hangs, Goes::IsLeft])
    }

    proptest! {
        /// Whatever one client's calls do, other clients that get responses are never refused.
        #[test]
        fn b1_nothing_that_one_client_does_shuts_others_out(
            steps in prop::collection::vec((0usize..5, goes(), 0u64..3_000), 0..300),
        ) {
            let (mut circuit, mut now) = (Circuit::closed(), Instant::now());
            for (number, goes, wait_ms) in steps {
                now += Duration::from_millis(wait_ms);
                if number == 0 {
                    call(&mut circuit, client(0), goes, now).ok();
                } else {
                    prop_assert_eq!(call(&mut circuit, client(number), Goes::Well, now), Ok(Pass::Usual));
                }
                prop_assert_eq!(circuit.state(), BreakerState::Closed);
            }
        }

        /// A source that fails for everybody, is slow for everybody, or cannot be reached, soon gets no calls.
        #[test]
        fn b1_a_source_that_fails_for_all_is_shut_for_all(
            calls in prop::collection::vec(0usize..4, 100),
            goes in prop::sample::select(vec![Goes::Fails, Goes::IsSlow, Goes::Unreachable]),
        ) {
            let (mut circuit, now) = (Circuit::closed(), Instant::now());
            for number in &calls {
                call(&mut circuit, client(*number), goes, now).ok();
            }
            prop_assert!(calls.iter().all(|number| call(&mut circuit, client(*number), Goes::Well, now).is_err()));
        }
    }
}
