//! Blocking work of the control plane (the registry's store, signing keys), off the threads that serve calls: a bounded
//! number runs at once, a bounded number waits, each person or client has a bounded share, and more is refused at once.

use crate::status::{Reason, Refusal};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// How much work may be under way.
#[derive(Debug, Clone, Copy)]
pub struct WorkLimits {
    /// Running at once: threads, each with a connection to the store.
    pub running: usize,
    /// Running and waiting.
    pub all: usize,
    /// Running and waiting for one person or client.
    pub each: usize,
}

/// What is counted of a pool's work.
#[derive(Debug, Clone, Default)]
pub struct WorkMetrics {
    /// Work that runs or waits.
    pub under_way: Gauge,
    /// Work that was refused.
    pub refused: Counter,
}

/// A pool of work. Cheap to clone.
#[derive(Clone)]
pub struct WorkPool {
    limits: WorkLimits,
    running: Arc<Semaphore>,
    under_way: Arc<Mutex<UnderWay>>,
    metrics: WorkMetrics,
}

#[derive(Default)]
struct UnderWay {
    all: usize,
    by_owner: HashMap<String, usize>,
}

/// One piece of work that runs or waits; dropped, it is over.
struct Slot {
    pool: WorkPool,
    owner: String,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut under_way = self.pool.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.all = under_way.all.saturating_sub(1);
        if let Some(count) = under_way.by_owner.get_mut(&self.owner) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                under_way.by_owner.remove(&self.owner);
            }
        }
        self.pool.metrics.under_way.set(under_way.all as i64);
    }
}

impl WorkPool {
    /// A pool with these limits.
    pub fn new(limits: WorkLimits, metrics: WorkMetrics) -> Self {
        WorkPool { limits, running: Arc::new(Semaphore::new(limits.running)), under_way: Arc::default(), metrics }
    }

    /// Runs blocking work for a person or client. Work that has begun runs to its end, also where nobody waits for it any
    /// more.
    ///
    /// # Errors
    /// [`Reason::AdministrationBusy`] where too much is under way, for this owner or in all.
    pub async fn run<T: Send + 'static>(
        &self,
        owner: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let slot = self.take(owner)?;
        let unavailable = || Refusal::from(Reason::RegistryUnavailable);
        let running = self.running.clone().acquire_owned().await.map_err(|_| unavailable())?;
        let run = move || {
            let done = work();
            drop((running, slot));
            done
        };
        tokio::task::spawn_blocking(run).await.map_err(|error| {
            tracing::error!(%error, "work of the control plane broke off");
            unavailable()
        })
    }

    fn take(&self, owner: &str) -> Result<Slot, Refusal> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let own = under_way.by_owner.get(owner).copied().unwrap_or_default();
        if under_way.all >= self.limits.all || own >= self.limits.each {
            self.metrics.refused.inc();
            return Err(Reason::AdministrationBusy.into());
        }
        under_way.all += 1;
        *under_way.by_owner.entry(owner.to_owned()).or_default() += 1;
        self.metrics.under_way.set(under_way.all as i64);
        Ok(Slot { pool: self.clone(), owner: owner.to_owned() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_pool_refuses_beyond_its_limits_and_is_free_again_afterwards() {
        let metrics = WorkMetrics::default();
        let pool = WorkPool::new(WorkLimits { running: 1, all: 3, each: 2 }, metrics.clone());
        let (go, wait) = mpsc::channel::<()>();
        let slow = |owner: &'static str, wait: mpsc::Receiver<()>| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.run(owner, move || wait.recv().is_ok()).await })
        };
        let first = slow("lan", wait);
        let waiting = {
            let pool = pool.clone();
            tokio::spawn(async move { pool.run("lan", || true).await })
        };
        while metrics.under_way.get() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run("lan", || true).await.unwrap_err().reason, Reason::AdministrationBusy);
        let other = {
            let pool = pool.clone();
            tokio::spawn(async move { pool.run("minh", || true).await })
        };
        while metrics.under_way.get() < 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run("hoa", || true).await.unwrap_err().reason, Reason::AdministrationBusy, "in all");
        // Who gives up waiting is counted no more.
        other.abort();
        assert!(other.await.is_err());
        go.send(()).unwrap();
        assert!(first.await.unwrap().unwrap() && waiting.await.unwrap().unwrap());
        assert!(pool.run("lan", || true).await.unwrap());
        assert_eq!((metrics.under_way.get(), metrics.refused.get()), (0, 2));
        assert!(pool.run::<()>("lan", || panic!("on purpose")).await.is_err(), "a panic is an error");
        assert!(pool.run("lan", || true).await.unwrap());
    }
}
