//! What is got once and kept: a hub's token, a source's session. One request gets it for all; and where a hub has several
//! endpoints, one that hangs holds up nobody who can get it from another.

use super::Secret;
use crate::drivers::SourceError;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A secret that is kept until its time is over, or it is forgotten.
#[derive(Debug, Default)]
pub(super) struct Kept {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    secret: Option<(Secret, Option<Instant>)>,
    /// Grows with each new one.
    epoch: u64,
    /// Whoever holds an address's turn gets the secret there; the others wait.
    turns: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
}

impl Kept {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept and good for now.
    fn good(&self) -> Option<(Secret, u64)> {
        let state = self.state();
        let (secret, until) = state.secret.as_ref()?;
        until.is_none_or(|until| Instant::now() < until).then(|| (secret.clone(), state.epoch))
    }

    /// The secret and its epoch: kept, or got by `get` from this address, with how long it is good, or as another address has
    /// given it meanwhile.
    pub(super) async fn get<F>(&self, address: &str, get: impl FnOnce() -> F) -> Result<(Secret, u64), SourceError>
    where
        F: Future<Output = Result<(Secret, Option<Duration>), SourceError>>,
    {
        let got = async {
            let turn = self.state().turns.entry(address.to_owned()).or_default().clone();
            let _turn = turn.lock().await;
            match self.good() {
                Some(good) => Ok(good),
                None => get().await.map(|(secret, good_for)| self.keep(secret, good_for)),
            }
        };
        let mut got = std::pin::pin!(got);
        loop {
            // Made before the look, so that what comes between the two is not missed.
            let arrived = self.arrived.notified();
            if let Some(good) = self.good() {
                return Ok(good);
            }
            tokio::select! {
                got = got.as_mut() => return got,
                () = arrived => {}
            }
        }
    }

    fn keep(&self, secret: Secret, good_for: Option<Duration>) -> (Secret, u64) {
        let mut state = self.state();
        state.secret = Some((secret.clone(), good_for.map(|time| Instant::now() + time)));
        state.epoch += 1;
        self.arrived.notify_waiters();
        (secret, state.epoch)
    }

    /// Forgets the secret of this epoch; a newer one stays.
    pub(super) fn forget(&self, epoch: u64) {
        let mut state = self.state();
        if state.epoch == epoch {
            state.secret = None;
        }
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
        let kept = Kept::default();
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
        assert!(kept.get("a", || async { Err(SourceError::Timeout) }).await.is_err());
        assert_eq!(kept.get("a", || gives("newer".into())).await.unwrap().1, 3);
    }
}
