//! What is got once and kept: a hub's token, a source's session. It is fetched once for all who need it, in a task of its own: callers
//! in a hurry who leave it do not end it, so that they keep it from nobody else. Where a hub has several endpoints, one that hangs holds
//! up nobody who can get it from another.

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

/// A secret that is kept until its time is over, or it is forgotten.
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
    /// Grows with each new one.
    epoch: u64,
    /// Fetches under way, by address: at most one at each endpoint.
    fetches: HashMap<String, SecretFetch>,
}

/// The secret with its epoch.
type FetchedSecret = Result<(Secret, u64), SourceError>;
type SecretFetch = Shared<BoxFuture<'static, FetchedSecret>>;

/// What a caller finds who needs the secret.
enum SecretLookup {
    /// It is kept.
    Kept(Secret, u64),
    /// It is being fetched.
    Fetch(SecretFetch),
}

impl SecretState {
    /// What is kept and good for now.
    fn good(&self) -> Option<(Secret, u64)> {
        let (secret, until) = self.secret.as_ref()?;
        until.is_none_or(|until| Instant::now() < until).then(|| (secret.clone(), self.epoch))
    }
}

impl CachedSecret {
    /// The secret and its epoch: kept, or fetched by `fetch` from this address, with how long it is good, or as another address has
    /// given it meanwhile. A fetch ends by itself after 10 s.
    pub(super) async fn get<F>(&self, address: &str, fetch: impl FnOnce() -> F) -> FetchedSecret
    where
        F: Future<Output = Result<(Secret, Option<Duration>), SourceError>> + Send + 'static,
    {
        let mut fetched = match self.0.join(address, fetch) {
            SecretLookup::Kept(secret, epoch) => return Ok((secret, epoch)),
            SecretLookup::Fetch(fetch) => fetch,
        };
        loop {
            // Made before the look, so that what comes between the two is not missed.
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

    /// Forgets the secret of this epoch; a newer one stays.
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

    /// What is kept and good; else joins the fetch that is under way at an address, or begins one.
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

    /// A fetch at an address is over. In one step, so that whoever comes from now on finds what it has brought or begins another one,
    /// and never joins one whose secret was forgotten meanwhile.
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
        // A failure is told, and the next one tries again.
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
        // The first one's, though nobody waited for it to its end; and there was no other.
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
        // Nobody takes what the fetch returns: all find what it has brought.
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
