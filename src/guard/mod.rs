//! The guard: one slow or broken source must not hurt the others. Per source: a bulkhead that finds its size by itself, with
//! a bounded queue, a breaker, a budget of retries, and the deadline. Per worker: admission.
//!
//! **What counts for a source.** Only what it did within the operation's own time, which begins when it is asked:
//! - It answered, it failed, or it let that time pass: this counts, whoever called.
//! - The caller's own deadline passed before, the caller went away, was shut out, or sent what cannot be sent on: this counts as
//!   nothing ([`SourceHealth::Unknown`]), for breaker, hub, endpoint, bound, queue and metrics.
//! - A call whose request is a stream goes at its caller's pace ([`Permit::is_paced`]): it is neither probe, nor slow, nor a failure.
//!
//! So that callers cannot hide a source that never answers: where the last `SILENT_AFTER` calls were all left by their callers and
//! nothing was answered in between, the gateway lets a call that is left go on at the source until the operation's own time is over,
//! and what the source does then counts. One of a source at a time; it keeps its permit. (A write's source is told no later deadline
//! than its caller's: a write is not done because of this which would not have been done without it.)
//!
//! **By client.** What one client asks may make a source fail. So ill health that one client's calls alone show counts for this client
//! alone, for breaker (`evidence.rs`, `circuit.rs`), hub and endpoint (`endpoints.rs`): for all it counts as soon as other clients'
//! calls show it, too, or where the gateway finds no connection, which no request can bring about.
//!
//! **Shares.** Nothing that one client does takes a source from the others: permits, queue and retries are shared among those that
//! want them (`permits.rs`, `retry.rs`), streams by halves (`streams.rs`).
//!
//! **Probes** of a source whose breaker was open are the gateway's own choice: a read (which goes on in the same way when its caller
//! leaves), or a write that has the operation's own time. A stream, a stream's further request, and a write with a shorter deadline
//! never probe. They do not wait for somebody else's probe either, which may never come: once the breaker's time is over and no
//! probe is under way, they pass beside it; an answer to one of them closes it, anything else counts as nothing.

mod adaptive_limit;
mod admission;
mod breaker;
mod breaker_settings;
mod circuit;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stdout)]
mod comparison;
mod endpoints;
mod evidence;
mod health;
mod moving_average;
mod permits;
mod queue;
mod retry;
mod streams;

use crate::deadline::{Deadline, DeadlineOwner};
use crate::status::{Reason, Refusal, SourceHealth};
use adaptive_limit::BaseLatency;
use breaker::{Breaker, CircuitPass};
use permits::{Acquired, PermitPool, TakenPermit};
use queue::QueueWait;
use retry::Budget;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use streams::Streams;

pub use admission::Admission;
pub use breaker::{BreakerSettings, BreakerState};
pub use endpoints::{EndpointCall, Endpoints};
pub use evidence::ClientKey;
pub use health::{HubCall, HubHealth, OperationHub};
pub use retry::RetrySettings;
pub use streams::StreamPermit;

/// After how many calls in a row that were left by their callers one goes on, to see whether the source answers.
const SILENT_AFTER: u32 = 4;

/// Bounds of one source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuardSettings {
    /// Calls at once, at most.
    pub concurrency: usize,
    /// Calls at once that it is always given; as many as `concurrency`, or more: never fewer than that.
    pub min: usize,
    /// Calls that may wait for a permit.
    pub queue: usize,
    /// Streams that may go on at once, beside the calls; one client may have half of them.
    pub streams: usize,
    /// The breaker.
    pub breaker: BreakerSettings,
    /// Retries of reads.
    pub retry: RetrySettings,
    /// After how long without an answer a read is asked of another endpoint as well; within the budget of retries.
    pub hedge: Option<Duration>,
}

impl Default for GuardSettings {
    /// 64 calls at once and 128 waiting: a source that answers in 100 ms then serves 640 a second, and a wait is at most
    /// twice as long as a call.
    fn default() -> Self {
        GuardSettings {
            concurrency: 64,
            min: 4,
            queue: 128,
            streams: 256,
            breaker: BreakerSettings::default(),
            retry: RetrySettings::default(),
            hedge: None,
        }
    }
}

/// The guard of one source.
pub struct Guard {
    permits: PermitPool,
    streams: Arc<Streams>,
    settings: GuardSettings,
    wait: QueueWait,
    breaker: Breaker,
    retries: Budget,
    /// Calls that their callers left since the source last answered, failed or timed out.
    left: AtomicU32,
    /// One of them goes on, or will.
    goes_on: AtomicBool,
    /// Of each operation, by name.
    paces: Mutex<HashMap<String, Arc<BaseLatency>>>,
}

/// The guard of a source, as it stands before one of its operations.
#[derive(Clone)]
pub struct OperationGuard {
    guard: Arc<Guard>,
    /// `None` where the time of a call does not tell how busy the source is.
    pace: Option<Arc<BaseLatency>>,
    /// Its number at the breaker.
    operation: usize,
}

/// A permit at the source; released when dropped. A call that is dropped before [`Permit::record`] counts as nothing.
pub struct Permit {
    guard: Arc<Guard>,
    client: Arc<str>,
    /// Where it is a stream's, beside those of calls.
    stream: Option<StreamPermit>,
    pace: Option<Arc<BaseLatency>>,
    /// A call's permit among the others'; none where it is a stream's.
    taken: Option<TakenPermit>,
    operation: usize,
    passage: CircuitPass,
    /// Whether the call was one that the gateway may probe by when it began.
    may_probe: bool,
    /// It is the one of its source that goes on although its caller leaves.
    goes_on: bool,
    told: bool,
}

impl Guard {
    /// A guard of a source, with these bounds.
    pub fn new(source: &str, settings: GuardSettings) -> Arc<Self> {
        Arc::new(Guard {
            permits: PermitPool::new(settings.concurrency, settings.min, settings.queue),
            streams: Arc::new(Streams::new(settings.streams)),
            settings,
            wait: QueueWait::new(),
            breaker: Breaker::new(source, settings.breaker),
            retries: Budget::new(settings.retry),
            left: AtomicU32::new(0),
            goes_on: AtomicBool::new(false),
            paces: Mutex::default(),
        })
    }

    /// The guard before an operation; `judged`: whether the time of its calls tells how busy the source is.
    pub fn before(self: &Arc<Self>, operation: &str, judged: bool) -> OperationGuard {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = judged.then(|| paces.entry(operation.to_owned()).or_default().clone());
        OperationGuard { guard: self.clone(), pace, operation: self.breaker.number(operation) }
    }

    /// How the breaker stands for all clients: for all operations, or for the one that is worst off.
    pub fn breaker_state(&self) -> BreakerState {
        self.breaker.state()
    }

    /// Circuits that are open for one client alone, of all operations together.
    pub fn breaker_clients(&self) -> usize {
        self.breaker.clients()
    }

    /// Calls that the source is given at once, for now.
    pub fn concurrency_limit(&self) -> usize {
        self.permits.size()
    }

    /// Calls that wait for a permit.
    pub fn queued(&self) -> usize {
        self.permits.queued()
    }

    /// Streams that go on.
    pub fn streams(&self) -> usize {
        self.streams.count()
    }
}

impl OperationGuard {
    /// Waits for a permit at the source for a client's call, at most until `deadline`; refused at once where the wait would be too
    /// long, or as soon as the call has to give way to another client's. `may_probe`: whether the call, when it begins, is one that
    /// the gateway may probe the source by.
    pub async fn admit(
        &self,
        client: &str,
        deadline: Deadline,
        may_probe: impl FnOnce(Instant) -> bool,
    ) -> Result<Permit, Refusal> {
        let guard = &*self.guard;
        let began = Instant::now();
        let taken = match guard.permits.acquire(client, &guard.wait, &guard.retries, began) {
            Acquired::Place(taken) => {
                guard.wait.record_wait(None, began);
                taken
            }
            Acquired::Waits(waiting) => {
                let taken = deadline.bound(waiting.permitted()).await.map_err(no_permit)?;
                let taken = taken.ok_or_else(|| queue_share_exceeded(guard.wait.expected(1, guard.permits.size())))?;
                let now = Instant::now();
                guard.wait.record_wait(Some(now - began), now);
                taken
            }
            Acquired::Refused(full) if full.crowds => return Err(queue_share_exceeded(full.after)),
            Acquired::Refused(full) => return Err(Refusal::retry(Reason::GatewayOverloaded, full.after)),
        };
        self.begin(client, PermitKind::Call(taken), may_probe)
    }

    /// Waits for a permit for a further request of a client's stream that goes on, at most until `deadline`. It was let in when it
    /// began, so it is not refused because others wait.
    pub async fn admit_next(&self, client: &str, deadline: Deadline) -> Result<Permit, Refusal> {
        let taken = match self.guard.permits.acquire_next(client, &self.guard.retries) {
            Acquired::Place(taken) => Some(taken),
            Acquired::Waits(waiting) => deadline.bound(waiting.permitted()).await.map_err(no_permit)?,
            Acquired::Refused(_) => None,
        };
        let taken = taken.ok_or(Reason::GatewayOverloaded)?;
        self.begin(client, PermitKind::Call(taken), |_| false)
    }

    /// A permit for a call whose request is a stream: how long it takes is up to its caller.
    pub fn admit_stream(&self, client: &str) -> Result<Permit, Refusal> {
        self.begin(client, PermitKind::Stream(self.stream(client)?), |_| false)
    }

    /// A permit for a stream of this client, which may go on for long.
    pub fn stream(&self, client: &str) -> Result<StreamPermit, Refusal> {
        self.guard.streams.begin(client)
    }

    /// A call that has got its permit.
    fn begin(
        &self,
        client: &str,
        kind: PermitKind,
        may_probe: impl FnOnce(Instant) -> bool,
    ) -> Result<Permit, Refusal> {
        let now = Instant::now();
        // From here on the permit is released, whatever happens.
        let (guard, pace, operation) = (self.guard.clone(), self.pace.clone(), self.operation);
        let (taken, stream) = match kind {
            PermitKind::Call(taken) => (Some(taken), None),
            PermitKind::Stream(stream) => (None, Some(stream)),
        };
        let (key, client, may_probe) = (ClientKey::of(client), Arc::from(client), may_probe(now));
        let (passage, told) = (CircuitPass::closed(key), stream.is_some());
        let mut permit =
            Permit { guard, client, stream, pace, taken, operation, passage, may_probe, goes_on: false, told };
        // Asked last: a call that waited must not reach a source that failed meanwhile.
        let acquired = permit.guard.breaker.try_acquire(operation, key, now, may_probe);
        permit.passage = acquired.map_err(|shut| {
            permit.told = true;
            let refusal = Refusal::retry(Reason::SourceCircuitOpen, shut.after);
            let detail = if shut.for_client { "the source fails at this client's calls" } else { "" };
            Refusal { detail: detail.to_owned(), ..refusal }
        })?;
        Ok(permit)
    }
}

/// What a call holds at a source.
enum PermitKind {
    Call(TakenPermit),
    Stream(StreamPermit),
}

impl Permit {
    /// Whether the call's request is a stream, which comes at its caller's pace. How long such a call takes says nothing of its source.
    /// This is the one place in which that is decided.
    pub fn is_paced(&self) -> bool {
        self.stream.is_some()
    }

    /// Whose call it is.
    pub fn client(&self) -> &Arc<str> {
        &self.client
    }

    /// The same, as evidence is counted.
    pub fn client_key(&self) -> ClientKey {
        self.passage.client()
    }

    /// Whether the call is one that the gateway may probe a source or a hub by.
    pub fn may_probe(&self) -> bool {
        self.may_probe
    }

    /// Tells the guard how an attempt ended, how long it took, and when that was.
    pub fn record(&mut self, health: SourceHealth, took: Duration, now: Instant) {
        let guard = &self.guard;
        if health == SourceHealth::Unknown {
            return;
        }
        let Some(taken) = self.taken else {
            // At its caller's pace, however long it took.
            if health == SourceHealth::Responded && self.passage.is_bypass() {
                guard.breaker.record(self.operation, (&self.client, self.passage), health, Duration::ZERO, now);
            }
            return;
        };
        self.told = true;
        if guard.left.load(Ordering::Relaxed) > 0 {
            guard.left.store(0, Ordering::Relaxed);
        }
        guard.wait.record_latency(took, self.pace.as_ref().map_or(0, |pace| pace.get()));
        if let (Some(pace), SourceHealth::Responded) = (&self.pace, health) {
            guard.permits.record_latency(pace, taken.began, took, now);
        }
        guard.breaker.record(self.operation, (&self.client, self.passage), health, took, now);
    }

    fn take_retry(&self) -> bool {
        self.taken.is_some_and(|taken| self.guard.permits.retry(taken.share, &self.guard.retries))
    }

    /// Whether this call goes on at the source when its caller leaves: it probes, or nothing is known of the source but that callers
    /// left it. Once it has said so, the source may be given the operation's own time.
    pub fn survives_caller(&mut self) -> bool {
        if self.is_paced() || self.passage.is_bypass() {
            return false;
        }
        if !self.goes_on && !self.passage.probes() {
            let silent = self.guard.left.load(Ordering::Relaxed) >= SILENT_AFTER;
            self.goes_on = silent && !self.guard.goes_on.swap(true, Ordering::Relaxed);
        }
        self.goes_on || self.passage.probes()
    }

    /// After how long a read may be asked of another endpoint as well.
    pub fn hedge_after(&self) -> Option<Duration> {
        self.guard.settings.hedge.filter(|_| !self.passage.probes())
    }

    /// Whether a read may be asked of another endpoint as well, now.
    pub fn may_hedge(&self) -> bool {
        self.guard.breaker.is_closed(self.operation, self.client_key()) && self.take_retry()
    }

    /// How long to wait before another attempt, after `attempts` have failed and the source has asked for so long; `None`
    /// where there is to be none: no retry is left to the source, no time to the call, or the breaker has opened.
    pub fn retry_in(&self, attempts: u32, asked: Option<Duration>, deadline: Instant) -> Option<Duration> {
        if self.passage.probes() || !self.guard.breaker.is_closed(self.operation, self.client_key()) {
            return None;
        }
        self.guard.retries.next(attempts, asked, deadline, || self.take_retry())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.told {
            self.guard.left.fetch_add(1, Ordering::Relaxed);
            if self.passage.probes() {
                self.guard.breaker.abandon_probe(self.operation, self.passage);
            }
        }
        if self.goes_on {
            self.guard.goes_on.store(false, Ordering::Relaxed);
        }
        if let Some(taken) = self.taken {
            self.guard.permits.release(taken.share);
        }
    }
}

/// A call of a client that has most of those that wait.
fn queue_share_exceeded(after: Duration) -> Refusal {
    let detail = "most calls that wait at the source are this client's".to_owned();
    Refusal { detail, ..Refusal::retry(Reason::RateLimited, after) }
}

/// Why there was no permit in time: the caller would not wait as long, or none came free.
fn no_permit(whose: DeadlineOwner) -> Refusal {
    match whose {
        DeadlineOwner::Caller => Reason::CallerDeadline.into(),
        DeadlineOwner::Operation => Reason::GatewayOverloaded.into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use proptest::prelude::*;

    /// What callers can do to a call.
    #[derive(Debug, Clone, Copy)]
    enum CallerInfluence {
        Leaves,
        RunsOut,
        SendsWhatCannotBeSent,
        /// An upload, however it ends.
        Uploads(SourceHealth),
        /// A call that the gateway might have let go on.
        LeavesLate,
    }

    fn by_caller() -> impl Strategy<Value = CallerInfluence> {
        use SourceHealth::{Failed, Responded, Unknown, Unreachable};
        prop_oneof![
            Just(CallerInfluence::Leaves),
            Just(CallerInfluence::RunsOut),
            Just(CallerInfluence::SendsWhatCannotBeSent),
            Just(CallerInfluence::LeavesLate),
            prop::sample::select(vec![Responded, Failed, Unknown, Unreachable]).prop_map(CallerInfluence::Uploads),
        ]
    }

    proptest! {
        #[test]
        fn nothing_that_callers_do_changes_what_is_thought_of_a_source(
            steps in prop::collection::vec((0usize..2, by_caller()), 0..100), ill in any::<bool>(),
        ) {
            let guard = Guard::new("test", GuardSettings::default());
            let operations = [guard.before("Get", true), guard.before("List", true)];
            let now = Instant::now();
            let far = Deadline::own(now, Duration::from_secs(60));
            let admit = |at: usize| operations[at].admit("one", far, |_| true).now_or_never().unwrap();
            if ill {
                (0..20).for_each(|_| admit(0).unwrap().record(SourceHealth::Unreachable, Duration::ZERO, now));
            }
            let thought = || (guard.breaker_state(), guard.concurrency_limit(), guard.wait.expected(100, 1), guard.streams());
            let before = thought();
            for (at, step) in steps {
                // Where the breaker is open, nobody gets in.
                let (late, unknown) = (Duration::from_secs(59), SourceHealth::Unknown);
                match step {
                    CallerInfluence::Leaves => drop(admit(at)),
                    CallerInfluence::RunsOut => admit(at).iter_mut().for_each(|permit| permit.record(unknown, late, now)),
                    CallerInfluence::SendsWhatCannotBeSent => {
                        admit(at).iter_mut().for_each(|permit| permit.record(unknown, Duration::ZERO, now));
                    }
                    CallerInfluence::LeavesLate => admit(at).iter_mut().for_each(|permit| {
                        permit.survives_caller();
                    }),
                    CallerInfluence::Uploads(health) => {
                        operations[at].admit_stream("one").iter_mut().for_each(|permit| permit.record(health, late, now));
                    }
                }
                prop_assert_eq!(thought(), before);
            }
            prop_assert!(!guard.goes_on.load(Ordering::Relaxed));
        }
    }

    #[test]
    fn one_call_at_a_time_goes_on_where_callers_left_all() {
        let guard = Guard::new("test", GuardSettings::default());
        let operation = guard.before("Get", true);
        let far = Deadline::own(Instant::now(), Duration::from_secs(60));
        let admit = || operation.admit("one", far, |_| true).now_or_never().unwrap().unwrap();
        for _ in 0..SILENT_AFTER {
            assert!(!admit().survives_caller());
        }
        let (mut first, mut second) = (admit(), admit());
        assert!(first.survives_caller() && first.survives_caller() && !second.survives_caller());
        first.record(SourceHealth::Responded, Duration::from_millis(1), Instant::now());
        drop((first, second));
        // It answers, so callers are only in a hurry.
        assert!(!admit().survives_caller());
    }

    #[tokio::test]
    async fn a_full_source_queues_and_then_refuses() {
        let settings = GuardSettings { concurrency: 1, queue: 1, ..GuardSettings::default() };
        let guard = Guard::new("test", settings).before("Get", true);
        let soon = Deadline::own(Instant::now(), Duration::from_millis(30));
        let first = guard.admit("one", soon, |_| true).await.unwrap();
        let hasty = Deadline { owner: DeadlineOwner::Caller, ..soon };
        let (waits, refused) = tokio::join!(guard.admit("one", hasty, |_| true), async {
            tokio::task::yield_now().await;
            guard.admit("one", soon, |_| true).await.err().map(|refusal| refusal.reason)
        });
        assert_eq!(waits.err().map(|refusal| refusal.reason), Some(Reason::CallerDeadline));
        assert_eq!(refused, Some(Reason::GatewayOverloaded));
        drop(first);
        assert!(guard.admit("one", Deadline::own(Instant::now(), Duration::from_secs(1)), |_| true).await.is_ok());
    }
}
