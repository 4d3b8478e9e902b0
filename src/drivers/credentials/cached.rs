//! A cached secret: a hub's token, a source's session. It is fetched once for all callers that need it, in a separate
//! task: a caller that gives up does not cancel the fetch for the others. If a hub has several endpoints and one of
//! them hangs, callers still get the secret from another.

use super::Secret;
use crate::drivers::{SourceError, SourceFault};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Longest fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// A secret that is cached until it expires or is dropped.
#[derive(Debug, Default)]
pub(super) struct CachedSecret(Arc<SecretCache>);

#[derive(Debug, Default)]
struct SecretCache {
    state: Mutex<SecretState>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct SecretState {
    secret: Option<(Secret, Option<Instant>)>,
    /// Incremented with each new secret.
    epoch: u64,
    /// Fetches in flight, by address: at most one at each endpoint.
    fetches: HashMap<String, SecretFetch>,
}

/// The secret with its epoch.
type FetchedSecret = Result<(Secret, u64), SourceError>;
type SecretFetch = Shared<BoxFuture<'static, FetchedSecret>>;

/// The result of a look-up of the secret.
enum SecretLookup {
    /// It is cached.
    Kept(Secret, u64),
    /// It is being fetched.
    Fetch(SecretFetch),
}

impl SecretState {
    /// Returns the cached secret if it is still valid.
    fn good(&self) -> Option<(Secret, u64)> {
        let (secret, until) = self.secret.as_ref()?;
        until.is_none_or(|until| Instant::now() < until).then(|| (secret.clone(), self.epoch))
    }
}

impl CachedSecret {
    /// Returns the secret and its epoch: cached, fetched from this address by `fetch` (which also returns its
    /// lifetime), or delivered meanwhile by another address. A fetch ends after 10 s at the latest.
    pub(super) async fn get<F>(&self, address: &str, fetch: impl FnOnce() -> F) -> FetchedSecret
    where
        F: Future<Output = Result<(Secret, Option<Duration>), SourceError>> + Send + 'static,
    {
        let mut fetched = match self.0.join(address, fetch) {
            SecretLookup::Kept(secret, epoch) => return Ok((secret, epoch)),
            SecretLookup::Fetch(fetch) => fetch,
        };
        loop {
            // Created before the look-up, so that a notification between the two is not missed.
            let arrived = self.0.arrived.notified();
            if let Some(good) = self.0.state().good() {
                return Ok(good);
            }
            tokio::select! {
                fetched = &mut fetched => return fetched,
                () = arrived => {}
            }
        }
    }

    /// Drops the secret of this epoch; a newer one stays.
    pub(super) fn forget(&self, epoch: u64) {
        let mut state = self.0.state();
        if state.epoch == epoch {
            state.secret = None;
        }
    }
}

impl SecretCache {
    fn state(&self) -> MutexGuard<'_, SecretState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the cached secret if it is valid; otherwise joins the fetch in flight at an address, or begins one.
    fn join<F>(self: &Arc<Self>, address: &str, fetch: impl FnOnce() -> F) -> SecretLookup
    where
        F: Future<Output = Result<(Secret, Option<Duration>), SourceError>> + Send + 'static,
    {
        let mut state = self.state();
        if let Some((secret, epoch)) = state.good() {
            return SecretLookup::Kept(secret, epoch);
        }
        if let Some(under_way) = state.fetches.get(address).filter(|fetch| fetch.peek().is_none()) {
            return SecretLookup::Fetch(under_way.clone());
        }
        let (inner, at, fetch) = (self.clone(), address.to_owned(), fetch());
        let task = tokio::spawn(async move {
            let fetched = tokio::time::timeout(FETCH_TIMEOUT, fetch).await.unwrap_or(Err(SourceFault::Timeout.into()));
            inner.ended(&at, fetched)
        });
        let ended = || Err(SourceError::internal("the fetch of its credentials was given up"));
        let fetch = async move { task.await.unwrap_or_else(|_| ended()) }.boxed().shared();
        state.fetches.insert(address.to_owned(), fetch.clone());
        SecretLookup::Fetch(fetch)
    }

    /// Ends a fetch at an address. It does this in one step, so that later callers either find the result or begin
    /// another fetch, and never join a fetch with a secret that was dropped meanwhile.
    fn ended(&self, address: &str, fetched: Result<(Secret, Option<Duration>), SourceError>) -> FetchedSecret {
        let mut state = self.state();
        state.fetches.remove(address);
        let (secret, good_for) = fetched?;
        state.epoch += 1;
        state.secret = Some((secret.clone(), good_for.map(|good_for| Instant::now() + good_for)));
        self.arrived.notify_waiters();
        Ok((secret, state.epoch))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn gives(secret: String) -> Result<(Secret, Option<Duration>), SourceError> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok((Secret::new(&secret), None))
    }

    #[tokio::test]
    async fn one_gets_it_for_all_and_an_address_that_hangs_holds_up_nobody() {
        let kept = CachedSecret::default();
        let all = futures_util::future::join_all((0..5).map(|number| {
            let kept = &kept;
            async move { kept.get("a", || gives(number.to_string())).await.unwrap() }
        }));
        let hangs = kept.get("b", std::future::pending);
        let (all, from_b) =
            tokio::time::timeout(Duration::from_secs(5), async { tokio::join!(all, hangs) }).await.unwrap();
        assert!(all.iter().all(|(secret, epoch)| secret.reveal() == "0" && *epoch == 1));
        assert_eq!(from_b.unwrap().1, 1);
        kept.forget(0);
        assert_eq!(kept.get("a", || gives("x".into())).await.unwrap().0.reveal(), "0");
        kept.forget(1);
        assert_eq!(kept.get("a", || gives("new".into())).await.unwrap().0.reveal(), "new");
        // A failure is returned, and the next caller tries again.
        kept.forget(2);
        assert!(kept.get("a", || async { Err(SourceFault::Timeout.into()) }).await.is_err());
        assert_eq!(kept.get("a", || gives("newer".into())).await.unwrap().1, 3);
    }

    #[tokio::test]
    async fn b1_callers_in_a_hurry_end_no_fetch_and_the_next_one_has_it() {
        let kept = CachedSecret::default();
        for number in 0..3 {
            let hurried = kept.get("a", || gives(number.to_string()));
            assert!(tokio::time::timeout(Duration::from_millis(5), hurried).await.is_err());
        }
        // The first fetch's secret, though no caller waited until its end; and there was no other fetch.
        let (secret, epoch) = kept.get("a", || gives("late".into())).await.unwrap();
        assert_eq!((secret.reveal(), epoch), ("0", 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_hangs_ends_and_another_one_begins() {
        let kept = CachedSecret::default();
        assert!(matches!(kept.get("a", std::future::pending).await, Err(SourceError::Source(SourceFault::Timeout))));
        assert_eq!(kept.get("a", || gives("new".into())).await.unwrap().0.reveal(), "new");
    }

    #[tokio::test]
    async fn what_was_brought_and_forgotten_is_not_brought_again() {
        let kept = CachedSecret::default();
        // No caller takes what the fetch returns: all find the cached result.
        let hurried = kept.get("a", || gives("old".into()));
        assert!(tokio::time::timeout(Duration::from_millis(5), hurried).await.is_err());
        tokio::time::timeout(Duration::from_secs(5), async {
            while kept.0.state().good().is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        kept.forget(1);
        assert_eq!(kept.get("a", || gives("new".into())).await.unwrap().0.reveal(), "new");
    }
}
