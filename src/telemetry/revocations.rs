//! What a revocation has done on this gateway: how long it took until calls were decided by it, and how many calls and streams in flight
//! it ended. Kept in memory for the newest ones; the log has each revocation and each ended call in any case.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Revocations that are remembered; the oldest is forgotten first.
const MAX_REMEMBERED: usize = 1_000;

/// The effect of one revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevocationEffect {
    /// How long it took from the request until this gateway decided calls by it; `None`: it does not yet.
    pub duration: Option<Duration>,
    /// Calls and streams in flight that it ended.
    pub ended: u64,
}

/// The newest revocations of tokens.
#[derive(Debug, Default)]
pub struct Revocations(Mutex<VecDeque<TokenRevocation>>);

#[derive(Debug)]
struct TokenRevocation {
    token: String,
    began: Instant,
    effect: RevocationEffect,
}

impl Revocations {
    fn all(&self) -> MutexGuard<'_, VecDeque<TokenRevocation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a revocation that somebody requests. One that was requested before goes on.
    pub fn begin(&self, token: &str, now: Instant) {
        let mut all = self.all();
        if all.iter().any(|one| one.token == token) {
            return;
        }
        if all.len() >= MAX_REMEMBERED {
            all.pop_front();
        }
        let effect = RevocationEffect { duration: None, ended: 0 };
        all.push_back(TokenRevocation { token: token.to_owned(), began: now, effect });
    }

    /// Forgets one that was not made.
    pub fn cancel(&self, token: &str) {
        self.all().retain(|one| one.token != token || one.effect.duration.is_some());
    }

    /// Notes which of them calls are decided by from now on.
    pub fn apply(&self, is_revoked: impl Fn(&str) -> bool, now: Instant) {
        for one in self.all().iter_mut().filter(|one| one.effect.duration.is_none()) {
            if is_revoked(&one.token) {
                one.effect.duration = Some(now.saturating_duration_since(one.began));
            }
        }
    }

    /// Counts a call in flight that a revoked token ended.
    pub fn ended(&self, token: &str) {
        if let Some(one) = self.all().iter_mut().rev().find(|one| one.token == token) {
            one.effect.ended = one.effect.ended.saturating_add(1);
        }
    }

    /// Returns what the revocation of a token has done; `None` if it was not requested at this gateway, or long ago.
    pub fn of(&self, token: &str) -> Option<RevocationEffect> {
        self.all().iter().rev().find(|one| one.token == token).map(|one| one.effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_takes_as_long_as_the_gateway_needs_to_know_it_and_the_oldest_is_forgotten() {
        let (revocations, began) = (Revocations::default(), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        revocations.begin("a", at(0));
        revocations.begin("b", at(0));
        revocations.apply(|token| token == "a", at(80));
        revocations.apply(|_| true, at(90));
        revocations.begin("a", at(500));
        revocations.ended("a");
        revocations.ended("unknown");
        let effect =
            |duration, ended| Some(RevocationEffect { duration: Some(Duration::from_millis(duration)), ended });
        assert_eq!((revocations.of("a"), revocations.of("b")), (effect(80, 1), effect(90, 0)));
        revocations.begin("c", at(0));
        revocations.cancel("c");
        revocations.cancel("a");
        assert_eq!((revocations.of("c"), revocations.of("a")), (None, effect(80, 1)));
        (0..MAX_REMEMBERED).for_each(|number| revocations.begin(&number.to_string(), at(0)));
        assert_eq!((revocations.of("a"), revocations.all().len()), (None, MAX_REMEMBERED));
    }
}
