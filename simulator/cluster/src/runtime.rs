//! A deterministic executor: tasks of several machines on simulated time. The seed chooses which task goes on next. A machine
//! can be killed, or paused as by SIGSTOP: its tasks stand still, what it has sent does not.

use crate::cluster::Timers;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// A machine: a process, or the network.
pub type Machine = usize;
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The executor.
#[derive(Clone)]
pub struct Runtime(Arc<Mutex<Core>>);

struct Core {
    rng: fastrand::Rng,
    now: Duration,
    timers: BTreeMap<(Duration, u64), Waker>,
    /// `None` while it runs.
    tasks: BTreeMap<u64, (Machine, Option<Work>)>,
    ready: Arc<Mutex<BTreeSet<u64>>>,
    paused: BTreeMap<Machine, Duration>,
    next: u64,
    trace: Option<Vec<String>>,
}

struct TaskWaker(u64, Arc<Mutex<BTreeSet<u64>>>);

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        locked(&self.1).insert(self.0);
    }
}

/// Locks; a panic elsewhere has ended the run anyway.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runtime {
    pub fn new(seed: u64, trace: bool) -> Self {
        Runtime(Arc::new(Mutex::new(Core {
            rng: fastrand::Rng::with_seed(seed),
            now: Duration::ZERO,
            timers: BTreeMap::new(),
            tasks: BTreeMap::new(),
            ready: Arc::default(),
            paused: BTreeMap::new(),
            next: 0,
            trace: trace.then(Vec::new),
        })))
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        locked(&self.0)
    }

    /// A number below `end`.
    pub fn below(&self, end: u64) -> u64 {
        self.core().rng.u64(0..end.max(1))
    }

    /// Whether one of so many chances occurs.
    pub fn one_in(&self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    /// A time up to this one.
    pub fn some_time(&self, max: Duration) -> Duration {
        Duration::from_micros(self.below(max.as_micros() as u64))
    }

    pub fn spawn(&self, machine: Machine, work: impl Future<Output = ()> + Send + 'static) {
        let mut core = self.core();
        let id = core.next;
        core.next += 1;
        core.tasks.insert(id, (machine, Some(Box::pin(work))));
        locked(&core.ready).insert(id);
    }

    /// Ends all tasks of a machine.
    pub fn kill(&self, machine: Machine) {
        let (ended, rest): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.core().tasks).into_iter().partition(|(_, (of, _))| *of == machine);
        {
            let mut core = self.core();
            core.tasks.extend(rest);
            core.paused.remove(&machine);
        }
        // Their futures take timers out of the core.
        drop(ended);
    }

    /// Stops a machine for a time, as SIGSTOP and SIGCONT do.
    pub fn pause(&self, machine: Machine, time: Duration) {
        let mut core = self.core();
        let until = core.now + time;
        core.paused.insert(machine, until);
    }

    pub fn resume_all(&self) {
        self.core().paused.clear();
    }

    pub fn timers(&self) -> SimTimers {
        SimTimers(self.clone())
    }

    /// Notes what happens, if a trace is wanted.
    pub fn note(&self, line: impl FnOnce() -> String) {
        let mut core = self.core();
        let now = core.now;
        if let Some(trace) = &mut core.trace {
            trace.push(format!("{:10.3} ms  {}", now.as_secs_f64() * 1e3, line()));
        }
    }

    pub fn trace(&self) -> Vec<String> {
        self.core().trace.take().unwrap_or_default()
    }

    /// Runs until a future is ready.
    pub fn run<T: Send + 'static>(&self, main: impl Future<Output = T> + Send + 'static) -> T {
        let result: Arc<Mutex<Option<T>>> = Arc::default();
        let there = result.clone();
        self.spawn(Machine::MAX, async move {
            let value = main.await;
            *locked(&there) = Some(value);
        });
        loop {
            self.step();
            if let Some(value) = locked(&result).take() {
                return value;
            }
        }
    }

    /// Lets one task go on, or time pass.
    fn step(&self) {
        let mut core = self.core();
        let now = core.now;
        core.paused.retain(|_, until| *until > now);
        let ready: Vec<u64> = locked(&core.ready).iter().copied().collect();
        let is_able = |id: &u64| core.tasks.get(id).is_none_or(|(machine, _)| !core.paused.contains_key(machine));
        let able: Vec<u64> = ready.into_iter().filter(is_able).collect();
        let Some(id) = core.rng.choice(able) else {
            core.pass_time();
            return;
        };
        locked(&core.ready).remove(&id);
        let Some(mut work) = core.tasks.get_mut(&id).and_then(|(_, work)| work.take()) else { return };
        let waker = Waker::from(Arc::new(TaskWaker(id, core.ready.clone())));
        drop(core);
        let polled = work.as_mut().poll(&mut Context::from_waker(&waker));
        let mut core = self.core();
        match polled {
            Poll::Pending => {
                if let Some(task) = core.tasks.get_mut(&id) {
                    task.1 = Some(work);
                    return;
                }
            }
            Poll::Ready(()) => drop(core.tasks.remove(&id)),
        }
        drop(core);
        drop(work);
    }
}

impl Core {
    fn pass_time(&mut self) {
        let timer = self.timers.keys().next().map(|(at, _)| *at);
        let resumed = self.paused.values().min().copied();
        let next = timer.into_iter().chain(resumed).min();
        // Nobody waits for anything: a deadlock of the simulation itself.
        self.now = self.now.max(next.unwrap_or(self.now + Duration::from_secs(1)));
        while let Some(first) = self.timers.first_entry().filter(|first| first.key().0 <= self.now) {
            first.remove().wake();
        }
    }
}

/// Timers on simulated time.
#[derive(Clone)]
pub struct SimTimers(Runtime);

impl Timers for SimTimers {
    fn now(&self) -> Duration {
        self.0.core().now
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        Sleep { runtime: self.0.clone(), duration, key: None }
    }
}

struct Sleep {
    runtime: Runtime,
    duration: Duration,
    key: Option<(Duration, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let runtime = self.runtime.clone();
        let mut core = runtime.core();
        let key = match self.key {
            Some(key) => key,
            None => {
                core.next += 1;
                let key = (core.now + self.duration, core.next);
                self.key = Some(key);
                key
            }
        };
        if key.0 <= core.now {
            return Poll::Ready(());
        }
        core.timers.insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.runtime.core().timers.remove(&key);
        }
    }
}
