//! Blocking work (the registry's store, signing keys, the log's files), off the threads that serve calls: a bounded
//! number runs at once, a bounded number waits, each person or client has a bounded share of both, and further work is
//! refused at once. Work keeps its permit until its thread is free again, even if its caller is gone, so giving calls
//! up gains nothing.

use crate::shares::{Share, ShareError, ShareLimits, ShareMetrics, ShareRate, Shares};
use crate::status::{Reason, Refusal};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;
use tokio::sync::Semaphore;

/// Limits of work in flight.
#[derive(Debug, Clone, Copy)]
pub struct WorkLimits {
    /// Running at once: threads. One holder has at most half of them.
    pub running: usize,
    /// Running and waiting.
    pub all: usize,
    /// Running and waiting for one holder: a person or a client.
    pub each: usize,
    /// How often one holder may begin; `None`: as often as it likes.
    pub rate: Option<ShareRate>,
}

/// A pool of work. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WorkPool {
    shares: Arc<Shares<String>>,
    turns: Arc<HolderThreads>,
}

/// The threads of a pool.
#[derive(Debug)]
struct HolderThreads {
    all: Arc<Semaphore>,
    /// Those of one holder.
    each: usize,
    of_holder: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// A permit for one piece of work; released when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct WorkPermit(Arc<WorkSlot>);

#[derive(Debug)]
struct WorkSlot {
    turns: Arc<HolderThreads>,
    own: Arc<Semaphore>,
    _share: Share<String>,
}

impl HolderThreads {
    /// The turns of one owner, as long as it holds a permit.
    fn of(&self, holder: &str) -> Arc<Semaphore> {
        let mut of_holder = self.of_holder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = of_holder.get(holder).and_then(Weak::upgrade) {
            return known;
        }
        let own = Arc::new(Semaphore::new(self.each));
        if of_holder.len() == of_holder.capacity() {
            of_holder.retain(|_, turns| turns.strong_count() > 0);
            // So that the next look through all of them is as many new ones away.
            let place = of_holder.len() + 1;
            of_holder.reserve(place);
        }
        of_holder.insert(holder.to_owned(), Arc::downgrade(&own));
        own
    }
}

impl WorkPool {
    /// A pool with these limits.
    pub fn new(limits: WorkLimits, metrics: ShareMetrics) -> Self {
        let WorkLimits { running, all, each, rate } = limits;
        let shares = Shares::new(ShareLimits { total: all, per_owner: each, has_headroom: 0, rate }, metrics);
        let of_one = (running / 2).max(1);
        let turns = HolderThreads { all: Arc::new(Semaphore::new(running)), each: of_one, of_holder: Mutex::default() };
        WorkPool { shares, turns: Arc::new(turns) }
    }

    /// A permit for a holder.
    ///
    /// # Errors
    /// The holder, or all together, have too much under way, or the holder begins too often.
    pub fn begin(&self, holder: &str) -> Result<WorkPermit, ShareError> {
        self.begin_at(holder, Instant::now())
    }

    /// [`WorkPool::begin`] at a given time.
    ///
    /// # Errors
    /// As there.
    pub fn begin_at(&self, holder: &str, now: Instant) -> Result<WorkPermit, ShareError> {
        let share = self.shares.take_at(&holder.to_owned(), 1, now)?;
        Ok(WorkPermit(Arc::new(WorkSlot { turns: self.turns.clone(), own: self.turns.of(holder), _share: share })))
    }

    /// Runs work of the control plane for an owner. Work that has begun runs to its end, also where nobody waits for it any more.
    ///
    /// # Errors
    /// [`Reason::AdministrationBusy`] if too much is in flight, for this owner or in all; [`Reason::RegistryUnavailable`] if the work
    /// panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        holder: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let permit = self.begin(holder).map_err(|_| Refusal::from(Reason::AdministrationBusy))?;
        permit.run(work).await.ok_or_else(|| Reason::RegistryUnavailable.into())
    }

    /// Work that runs or waits.
    pub fn in_flight(&self) -> usize {
        self.shares.held()
    }
}

impl WorkPermit {
    /// Runs on a thread of the blocking pool, as soon as one of this kind is free; `None` if the work panicked or the
    /// runtime ends.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let own = self.0.own.clone().acquire_owned().await.ok()?;
        let thread = self.0.turns.all.clone().acquire_owned().await.ok()?;
        let permit = self.clone();
        let work = move || {
            let done = work();
            drop((thread, own, permit));
            done
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.inspect_err(|error| tracing::error!(%error, "background work failed")).ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_pool_refuses_beyond_its_limits_and_is_free_again_afterwards() {
        let metrics = ShareMetrics::default();
        let pool = WorkPool::new(WorkLimits { running: 1, all: 3, each: 2, rate: None }, metrics.clone());
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
        while metrics.held.get() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run("lan", || true).await.unwrap_err().reason, Reason::AdministrationBusy);
        let other = {
            let pool = pool.clone();
            tokio::spawn(async move { pool.run("minh", || true).await })
        };
        while metrics.held.get() < 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run("hoa", || true).await.unwrap_err().reason, Reason::AdministrationBusy, "in all");
        // Who gives up waiting is counted no more.
        other.abort();
        assert!(other.await.is_err());
        go.send(()).unwrap();
        assert!(first.await.unwrap().unwrap() && waiting.await.unwrap().unwrap());
        assert!(pool.run("lan", || true).await.unwrap());
        assert_eq!((metrics.held.get(), metrics.refused.get()), (0, 2));
        assert!(pool.run::<()>("lan", || panic!("on purpose")).await.is_err(), "a panic is an error");
        assert!(pool.run("lan", || true).await.unwrap());
    }

    #[tokio::test]
    async fn d2_one_holder_runs_on_half_of_the_threads_at_most_and_the_rest_is_there_for_others() {
        let limits = WorkLimits { running: 4, all: 64, each: 16, rate: None };
        let pool = WorkPool::new(limits, ShareMetrics::default());
        let running = Arc::new(AtomicUsize::new(0));
        let work = |owner: &'static str, wait: mpsc::Receiver<()>| {
            let (pool, running) = (pool.clone(), running.clone());
            let work = move || {
                running.fetch_add(1, Ordering::SeqCst);
                wait.recv().is_ok()
            };
            tokio::spawn(async move { pool.run(owner, work).await })
        };
        let mut greedy = Vec::new();
        for _ in 0..8 {
            let (go, wait) = mpsc::channel::<()>();
            greedy.push((work("lan", wait), go));
        }
        while running.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        // Another's work is done while all of the greedy one's is still there, and so is a third's beside it.
        let (go, wait) = mpsc::channel::<()>();
        let other = work("minh", wait);
        while running.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        assert!(pool.run("hoa", || true).await.unwrap());
        assert_eq!(running.load(Ordering::SeqCst), 3, "one holder runs on more than half of the threads");
        go.send(()).unwrap();
        assert!(other.await.unwrap().unwrap());
        for (work, go) in greedy {
            go.send(()).unwrap();
            assert!(work.await.unwrap().unwrap());
        }
        assert_eq!(running.load(Ordering::SeqCst), 9);
        for number in 0..1_000 {
            pool.run(&format!("holder {number}"), || true).await.unwrap();
        }
        assert!(pool.turns.of_holder.lock().unwrap().len() < 100, "holders that are gone are remembered");
    }
}
