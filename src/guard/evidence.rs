//! What the last calls of one circuit show about its source, and for which clients it counts.
//!
//! A failure may be the source's, or may be caused by one client's requests: a request that makes a source return 500,
//! or keeps it busy for a minute. The gateway cannot distinguish these by one client's calls alone. So failures are
//! counted by client:
//! - Failures of one client's calls alone count against that client ([`TripScope::OpenForClient`]).
//! - They count against the source ([`TripScope::OpenForAll`]) if enough calls fail without those of the client with
//!   the most failures; or if that client makes nearly all calls, and another client's circuit is open already.
//! - A missing connection is the gateway's own observation, which no request causes: it counts for every client.

use super::breaker_settings::BreakerSettings;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

/// Minimum share of the last calls (one in this number) that must remain without those of one operation or of one
/// client: fewer prove nothing.
const ENOUGH: usize = 4;

/// A client's key in the evidence: a keyed hash of its id. Two clients collide with a probability of 1 in 2^64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientKey(u64);

impl ClientKey {
    /// The key of a client's id, within this process.
    pub fn of(client: &str) -> Self {
        static SEED: OnceLock<RandomState> = OnceLock::new();
        ClientKey(SEED.get_or_init(RandomState::new).hash_one(client))
    }
}

/// How one call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallOutcome {
    pub(super) operation: usize,
    pub(super) client: ClientKey,
    pub(super) failed: bool,
    /// There was no connection, whichever client called.
    pub(super) unreachable: bool,
    pub(super) slow: bool,
}

impl CallOutcome {
    pub(super) fn is_good(&self) -> bool {
        !self.failed && !self.slow
    }

    /// Whether its client may have caused the failure.
    fn is_bad_by_client(&self) -> bool {
        !self.is_good() && !self.unreachable
    }
}

/// For which clients a circuit opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TripScope {
    /// For none.
    Stay,
    /// For the client whose call has just ended.
    OpenForClient,
    /// For everybody.
    OpenForAll,
}

/// The last calls, oldest first: as many as the window of the settings.
#[derive(Debug, Default)]
pub(super) struct CallWindow {
    calls: VecDeque<CallOutcome>,
    /// Returns how many of them failed, and how many were slow; called at the end of every call.
    failed: usize,
    slow: usize,
}

impl CallWindow {
    pub(super) fn add(&mut self, outcome: CallOutcome, window: usize) {
        if self.calls.len() >= window
            && let Some(oldest) = self.calls.pop_front()
        {
            self.failed -= usize::from(oldest.failed);
            self.slow -= usize::from(oldest.slow);
        }
        self.failed += usize::from(outcome.failed);
        self.slow += usize::from(outcome.slow);
        self.calls.push_back(outcome);
    }

    /// Forgets a client's calls: its circuit is open, and they are no longer evidence.
    pub(super) fn forget(&mut self, client: ClientKey) {
        self.calls.retain(|one| one.client != client || one.unreachable);
        self.failed = self.count(|one| one.failed);
        self.slow = self.count(|one| one.slow);
    }

    pub(super) fn count(&self, which: impl Fn(&CallOutcome) -> bool) -> usize {
        self.calls.iter().filter(|one| which(one)).count()
    }

    /// Returns whether too many of these calls are bad, in one of the two ways.
    fn is_bad(&self, settings: &BreakerSettings, among: impl Fn(&CallOutcome) -> bool) -> bool {
        let calls = self.count(&among);
        let failed = self.count(|one| among(one) && one.failed);
        let slow = self.count(|one| among(one) && one.slow);
        calls > 0 && settings.are_bad(calls, failed, slow)
    }

    /// Returns whether the window is full and its calls are bad: only then is there anything to find.
    fn is_full_and_bad(&self, settings: &BreakerSettings) -> bool {
        self.calls.len() >= settings.window && settings.are_bad(self.calls.len(), self.failed, self.slow)
    }

    /// Returns the key with the most bad calls among these.
    fn worst<K: std::hash::Hash + Eq + Copy>(
        &self,
        bad: impl Fn(&CallOutcome) -> bool,
        key: impl Fn(&CallOutcome) -> K,
    ) -> Option<K> {
        let mut counts = HashMap::new();
        self.calls.iter().filter(|one| bad(one)).for_each(|one| *counts.entry(key(one)).or_insert(0) += 1);
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(key, _)| key)
    }

    /// Returns for which clients the circuit of one operation opens, at the end of a call of `client`; `another`:
    /// whether it is open for another client.
    pub(super) fn of_operation(&self, settings: &BreakerSettings, client: ClientKey, another: bool) -> TripScope {
        match self.is_full_and_bad(settings) {
            true => self.by_client(settings, client, another, |_| true),
            false => TripScope::Stay,
        }
    }

    /// The same for the circuit of the source: it opens if the source cannot be reached, or if enough calls remain
    /// without the operation that fails most, and they fail, too.
    pub(super) fn of_source(&self, settings: &BreakerSettings, client: ClientKey, another: bool) -> TripScope {
        if !self.is_full_and_bad(settings) {
            return TripScope::Stay;
        }
        if self.count(|one| one.unreachable) * 100 >= settings.window * settings.failures_percent {
            return TripScope::OpenForAll;
        }
        let worst = self.worst(|one| !one.is_good(), |one| one.operation);
        let rest = |one: &CallOutcome| Some(one.operation) != worst;
        match self.count(rest) * ENOUGH >= settings.window && self.is_bad(settings, rest) {
            true => self.by_client(settings, client, another, rest),
            false => TripScope::Stay,
        }
    }

    /// Returns the clients for which bad calls count.
    fn by_client(
        &self,
        settings: &BreakerSettings,
        client: ClientKey,
        another: bool,
        among: impl Fn(&CallOutcome) -> bool,
    ) -> TripScope {
        let worst = self.worst(|one| among(one) && one.is_bad_by_client(), |one| one.client);
        let Some(worst) = worst else { return TripScope::OpenForAll };
        let of_worst = |one: &CallOutcome| among(one) && one.client == worst && !one.unreachable;
        let others = |one: &CallOutcome| among(one) && (one.client != worst || one.unreachable);
        match self.count(others) * ENOUGH >= self.count(&among) {
            true if self.is_bad(settings, others) => TripScope::OpenForAll,
            false if another && self.is_bad(settings, of_worst) => TripScope::OpenForAll,
            _ if client == worst && self.is_bad(settings, of_worst) => TripScope::OpenForClient,
            _ => TripScope::Stay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BreakerSettings = BreakerSettings {
        window: 8,
        failures_percent: 50,
        slow: std::time::Duration::from_secs(1),
        slow_percent: 80,
        open_for: std::time::Duration::from_secs(5),
    };

    /// Calls by letter: its client, a capital if the call failed; `!` before it if there was no connection.
    fn of_operation(calls: &str, another: bool) -> TripScope {
        let (mut recent, mut unreachable, mut last) = (CallWindow::default(), false, None);
        for letter in calls.chars() {
            if letter == '!' {
                unreachable = true;
                continue;
            }
            let client = ClientKey::of(&letter.to_lowercase().to_string());
            let failed = letter.is_uppercase() || unreachable;
            recent.add(CallOutcome { operation: 0, client, failed, unreachable, slow: false }, SETTINGS.window);
            (unreachable, last) = (false, Some(client));
        }
        last.map_or(TripScope::Stay, |last| recent.of_operation(&SETTINGS, last, another))
    }

    #[test]
    fn what_is_counted_along_is_what_a_recount_says() {
        let mut recent = CallWindow::default();
        for nth in 0..500_u32 {
            let (client, failed) = (ClientKey::of(&(nth % 7).to_string()), nth % 3 == 0);
            let outcome = CallOutcome { operation: 0, client, failed, unreachable: nth % 33 == 0, slow: nth % 5 == 0 };
            recent.add(outcome, SETTINGS.window);
            if nth % 41 == 0 {
                recent.forget(client);
            }
            let recount = (recent.count(|one| one.failed), recent.count(|one| one.slow));
            assert_eq!((recent.failed, recent.slow), recount, "{nth}");
            assert!(recent.calls.len() <= SETTINGS.window);
        }
    }

    #[test]
    fn b1_one_client_s_failures_count_for_it_and_two_clients_for_all() {
        for (calls, another, verdict) in [
            // Too few, too good.
            ("AAAAAAA", false, TripScope::Stay),
            ("aaaaaAAA", false, TripScope::Stay),
            // A client alone; beside others that get responses; however often it calls.
            ("AAAAAAAA", false, TripScope::OpenForClient),
            ("bAbAbAbA", false, TripScope::OpenForClient),
            ("bbbbAAAA", false, TripScope::OpenForClient),
            ("AAAAAAbA", false, TripScope::OpenForClient),
            // Its failures count for it when one of its own calls ends, not when another client's does.
            ("AAAAAAAb", false, TripScope::Stay),
            // A client that failed for a reason of its own does not exclude the others.
            ("AbAcAbAB", false, TripScope::Stay),
            ("AbAcABcA", false, TripScope::OpenForClient),
            // Two of them, three of them.
            ("AAAAABBB", false, TripScope::OpenForAll),
            ("AbAcBcCB", false, TripScope::OpenForAll),
            // One client makes nearly all calls: it counts together with another for which the circuit is open.
            ("AAAAAAAA", true, TripScope::OpenForAll),
            ("bAbAbAbA", true, TripScope::OpenForClient),
            // No connection: it counts for every client.
            ("!a!a!a!aaaaa", false, TripScope::OpenForAll),
            ("!aA!aA!aA!aA", false, TripScope::OpenForAll),
        ] {
            assert_eq!(of_operation(calls, another), verdict, "{calls}");
        }
    }
}
