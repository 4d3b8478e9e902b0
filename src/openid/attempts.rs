//! Pending OpenID sign-ins: each is bound to one browser by a secret cookie, expires after ten minutes and is redeemed at most once.
//! Their number is bounded per network and in total. At a bound, the network with the most attempts loses its oldest one, so that a
//! flood evicts its own attempts first.

use crate::identity::connections::PeerNetwork;
use crate::secret::Secret;
use crate::shares::ShareMetrics;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lifetime of an attempt: the time a person has at the provider.
pub const MAX_AGE: Duration = Duration::from_secs(600);
/// Bounds of attempts, in total and per network: about 300 bytes each.
pub const MAX_ATTEMPTS: (usize, usize) = (10_000, 100);

/// Returns 32 random bytes as 43 characters of base64url; `None` if the system has no randomness.
pub fn secret() -> Option<String> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

/// The parameters of an authorization request that its response must match.
#[derive(Debug)]
pub struct Attempt {
    /// `state`, returned with the code.
    pub state: String,
    /// `nonce`, returned in the ID token.
    pub nonce: String,
    /// The PKCE verifier (RFC 7636) behind the challenge.
    pub verifier: Secret,
}

#[derive(Debug)]
struct Pending {
    attempt: Attempt,
    /// The browser's earlier session, which ends when the new one begins.
    session: Option<String>,
    of: PeerNetwork,
    began: Instant,
}

/// The SHA-256 of a cookie, the key of its owner's state: a dump of this memory contains no usable cookie.
pub type CookieDigest = [u8; 32];

/// Returns the digest of a cookie's value.
pub fn cookie_digest(cookie: &str) -> CookieDigest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, cookie.as_bytes()).as_ref());
    bytes
}

/// The attempts in order of their start: all of them, and by network.
#[derive(Debug, Default)]
struct Queue {
    pending: HashMap<CookieDigest, Pending>,
    /// May still contain expired attempts.
    order: VecDeque<CookieDigest>,
    by_network: HashMap<PeerNetwork, VecDeque<CookieDigest>>,
}

impl Queue {
    fn remove(&mut self, key: &CookieDigest) -> Option<Pending> {
        let removed = self.pending.remove(key)?;
        if let Some(own) = self.by_network.get_mut(&removed.of) {
            own.retain(|other| other != key);
            if own.is_empty() {
                self.by_network.remove(&removed.of);
            }
        }
        Some(removed)
    }

    /// Removes expired attempts; each is visited once or twice.
    fn expire(&mut self, now: Instant) {
        while let Some(first) = self.order.front().copied() {
            let is_live = |one: &Pending| now.duration_since(one.began) < MAX_AGE;
            if self.pending.get(&first).is_some_and(is_live) {
                break;
            }
            self.order.pop_front();
            self.remove(&first);
        }
        if self.order.len() > 2 * MAX_ATTEMPTS.0 {
            self.order.retain(|key| self.pending.contains_key(key));
        }
    }

    /// Returns the attempt to evict before this network adds another: its own oldest, or the oldest of the network with the most; if each
    /// has only one, the oldest of all.
    fn surplus(&self, of: PeerNetwork) -> Option<CookieDigest> {
        let own = self.by_network.get(&of).filter(|own| own.len() >= MAX_ATTEMPTS.1);
        if own.is_some() || self.pending.len() < MAX_ATTEMPTS.0 {
            return own.and_then(|own| own.front().copied());
        }
        let most = self.by_network.values().max_by_key(|own| own.len())?;
        if most.len() > 1 { most.front().copied() } else { self.order.front().copied() }
    }

    fn push(&mut self, key: CookieDigest, pending: Pending) {
        self.order.push_back(key);
        self.by_network.entry(pending.of).or_default().push_back(key);
        self.pending.insert(key, pending);
    }
}

/// The pending sign-ins of a gateway.
#[derive(Debug)]
pub struct Attempts {
    queue: Mutex<Queue>,
    metrics: ShareMetrics,
}

impl Attempts {
    /// Returns an empty collection. `metrics` counts the pending and the evicted ones.
    pub fn new(metrics: ShareMetrics) -> Self {
        Attempts { queue: Mutex::default(), metrics }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an attempt and returns its cookie's value; replaces the browser's earlier attempt. Returns `None` if the system has no
    /// randomness.
    pub fn add(
        &self,
        attempt: Attempt,
        of: PeerNetwork,
        (before, session): (Option<&str>, Option<String>),
        now: Instant,
    ) -> Option<String> {
        let cookie = secret()?;
        let mut queue = self.queue();
        before.map(|before| queue.remove(&cookie_digest(before)));
        queue.expire(now);
        if let Some(surplus) = queue.surplus(of) {
            queue.remove(&surplus);
            self.metrics.refused.inc();
        }
        queue.push(cookie_digest(&cookie), Pending { attempt, session, of, began: now });
        self.metrics.held.set(i64::try_from(queue.pending.len()).unwrap_or(i64::MAX));
        Some(cookie)
    }

    /// Removes and returns the attempt with this cookie and this `state`, with the browser's earlier session. Returns `None` if there is
    /// none, or the `state` is another attempt's.
    pub fn take(&self, cookie: &str, state: &str, now: Instant) -> Option<(Attempt, Option<String>)> {
        let (mut queue, key) = (self.queue(), cookie_digest(cookie));
        let known = &queue.pending.get(&key)?.attempt.state;
        // Another site may send this browser here with what it likes: that ends nothing.
        verify_slices_are_equal(known.as_bytes(), state.as_bytes()).ok()?;
        let taken = queue.remove(&key)?;
        self.metrics.held.set(i64::try_from(queue.pending.len()).unwrap_or(i64::MAX));
        (now.duration_since(taken.began) < MAX_AGE).then_some((taken.attempt, taken.session))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn attempt(state: &str) -> Attempt {
        Attempt { state: state.into(), nonce: "n".into(), verifier: Secret::new("v") }
    }

    fn network(number: u32) -> PeerNetwork {
        IpAddr::V4(Ipv4Addr::from_bits(number)).into()
    }

    const NONE: (Option<&str>, Option<String>) = (None, None);

    #[test]
    fn an_attempt_is_of_one_browser_once_and_not_for_long() {
        let (attempts, now) = (Attempts::new(ShareMetrics::default()), Instant::now());
        let first = attempts.add(attempt("s1"), network(1), (None, Some("old".into())), now).unwrap();
        let other = attempts.add(attempt("s2"), network(2), NONE, now).unwrap();
        for (cookie, state) in [(&first, "s2"), (&other, "s1"), (&first, ""), (&"invented".to_owned(), "s1")] {
            assert!(attempts.take(cookie, state, now).is_none(), "{cookie} {state}");
        }
        let (taken, session) = attempts.take(&first, "s1", now).unwrap();
        assert_eq!((taken.state.as_str(), session.as_deref()), ("s1", Some("old")));
        assert!(attempts.take(&first, "s1", now).is_none(), "it was good for once");
        assert!(attempts.take(&other, "s2", now + MAX_AGE).is_none(), "it is over");
        // Another attempt of the same browser ends the one before.
        let third = attempts.add(attempt("s3"), network(1), NONE, now).unwrap();
        let fourth = attempts.add(attempt("s4"), network(1), (Some(&third), None), now).unwrap();
        assert!(attempts.take(&third, "s3", now).is_none() && attempts.take(&fourth, "s4", now).is_some());
        assert_eq!(attempts.metrics.held.get(), 0);
    }

    #[test]
    fn a_flooding_address_loses_only_its_own_attempts() {
        let (attempts, now) = (Attempts::new(ShareMetrics::default()), Instant::now());
        let at = |ms: usize| now + Duration::from_millis(ms as u64);
        let honest = attempts.add(attempt("honest"), network(0), NONE, now).unwrap();
        // One address.
        (0..1_000).for_each(|ms| assert!(attempts.add(attempt("x"), network(1), NONE, at(ms)).is_some()));
        assert_eq!(attempts.metrics.held.get(), 101);
        // Two hundred addresses, each with all that it may have.
        for ms in 0..200 * 100_u32 {
            assert!(attempts.add(attempt("x"), network(2 + ms % 200), NONE, at(1_000 + ms as usize)).is_some());
        }
        assert_eq!(attempts.metrics.held.get(), MAX_ATTEMPTS.0 as i64);
        assert_eq!(attempts.metrics.refused.get(), 900 + 20_101 - 10_000);
        assert!(attempts.take(&honest, "honest", at(30_000)).is_some());
        // What is over makes room.
        assert!(attempts.add(attempt("x"), network(7), NONE, at(30_000) + MAX_AGE).is_some());
        assert_eq!(attempts.metrics.held.get(), 1);
    }

    #[test]
    fn as_many_addresses_as_attempts_are_needed_to_lose_one() {
        let (attempts, now) = (Attempts::new(ShareMetrics::default()), Instant::now());
        let honest = attempts.add(attempt("honest"), network(0), NONE, now).unwrap();
        let fill = |from: u32, to: u32| {
            for number in from..to {
                let began = now + Duration::from_millis(u64::from(number));
                let one = Pending { attempt: attempt("x"), session: None, of: network(number), began };
                attempts.queue().push(cookie_digest(&number.to_string()), one);
            }
        };
        fill(1, MAX_ATTEMPTS.0 as u32);
        let later = now + Duration::from_secs(20);
        let newest = attempts.add(attempt("new"), network(20_000), NONE, later).unwrap();
        assert!(attempts.take(&newest, "new", later).is_some(), "who comes is never turned away");
        assert!(attempts.take(&honest, "honest", later).is_none(), "the oldest of all went");
    }
}
