//! Chooses the next thread, by seed.

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What the scheduler and the simulation share.
#[derive(Debug, Default)]
pub struct Current {
    /// The running seed.
    pub seed: AtomicU64,
    /// No further seed is to run.
    pub stop: AtomicBool,
}

/// One run for each seed. At each point the running thread continues with a probability that the seed chooses, so that some
/// runs switch threads at every call and some hardly ever.
#[derive(Debug)]
pub struct BySeed {
    seeds: Range<u64>,
    current: Arc<Current>,
    rng: fastrand::Rng,
    stay: u32,
}

impl BySeed {
    /// Runs these seeds, in order.
    pub fn new(seeds: Range<u64>, current: Arc<Current>) -> Self {
        BySeed { seeds, current, rng: fastrand::Rng::with_seed(0), stay: 0 }
    }
}

impl Scheduler for BySeed {
    fn new_execution(&mut self) -> Option<Schedule> {
        let seed = self.seeds.next().filter(|_| !self.current.stop.load(Ordering::Relaxed))?;
        self.rng = fastrand::Rng::with_seed(!seed);
        self.stay = self.rng.choice([0, 50, 80, 95]).unwrap_or_default();
        self.current.seed.store(seed, Ordering::Relaxed);
        Some(Schedule::new(seed))
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, _yields: bool) -> Option<TaskId> {
        let here = current.filter(|here| runnable.iter().any(|task| task.id() == *here));
        match here.filter(|_| self.rng.u32(..100) < self.stay) {
            Some(here) => Some(here),
            None => self.rng.choice(runnable).map(|task| task.id()),
        }
    }

    fn next_u64(&mut self) -> u64 {
        self.rng.u64(..)
    }
}
