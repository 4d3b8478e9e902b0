//! The guard: one slow or broken source must not hurt the others. Each source has a bulkhead that adapts its size, with
//! a bounded queue, a breaker, a retry budget, and the deadline. Each worker has admission control.
//!
//! **What counts for a source.** Only what it does within the operation's own time, which begins with the dispatch:
//! - It responded, it failed, or it let that time pass: this counts for every caller.
//! - The caller's own deadline passed before, the caller disconnected, lost its right, or sent what cannot be
//!   forwarded: this does not count ([`SourceHealth::Unknown`]), for breaker, hub, endpoint, limit, queue and metrics.
//! - A call with a request stream runs at its caller's pace ([`Permit::is_paced`]): it is neither probe, nor slow, nor
//!   a failure.
//!
//! Callers cannot hide a source that never responds. If the last `SILENT_AFTER` calls were all cancelled by their
//! callers and no response came in between, the gateway lets a cancelled call continue at the source until the
//! operation's own time is over, and what the source does then counts. One call of a source at a time continues; it
//! keeps its permit. (A write's source gets no later deadline than its caller's: the rule causes no write that would
//! not happen without it.)
//!
//! **By client.** One client's requests may make a source fail. So failures that only one client's calls show count for this client alone,
//! for breaker (`evidence.rs`, `circuit.rs`), hub and endpoint (`endpoints.rs`): they count for all as soon as other clients' calls show
//! them, too, or if the gateway gets no connection, which no request can cause.
//!
//! **Shares.** Nothing that one client does takes a source from the others: permits, queue and retries are shared among those that
//! want them (`permits.rs`, `retry.rs`), streams by halves (`streams.rs`).
//!
//! **Probes** of a source with an open breaker are the gateway's own choice: a read (which continues in the same way
//! when its caller cancels), or a write that has the operation's own time. A stream, a stream's further request, and a
//! write with a shorter deadline never probe. They do not wait for another call's probe either, which may never come:
//! once the breaker's open time is over and no probe is in flight, they bypass the open breaker; a response to one of
//! them closes it, anything else does not count.

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

pub use admission::{Admission, AdmittedCall};
pub use breaker::{BreakerSettings, BreakerState};
pub use endpoints::{EndpointCall, Endpoints};
pub use evidence::ClientKey;
pub use health::{HubCall, HubHealth, OperationHub};
pub use retry::RetrySettings;
pub use streams::StreamPermit;

/// After how many consecutive calls that their callers cancelled one continues, to see whether the source responds.
const SILENT_AFTER: u32 = 4;

/// Limits of one source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuardSettings {
    /// Maximum number of concurrent calls.
    pub concurrency: usize,
    /// Minimum of the adaptive concurrency limit; with as many as `concurrency`, or more, the limit is fixed.
    pub min: usize,
    /// Calls that may wait for a permit.
    pub queue: usize,
    /// Maximum number of concurrent streams, in addition to the calls; one client may have half of them.
    pub streams: usize,
    /// The breaker.
    pub breaker: BreakerSettings,
    /// Retries of reads.
    pub retry: RetrySettings,
    /// After how long without a response a read is hedged at another endpoint, within the retry budget.
    pub hedge: Option<Duration>,
}

impl Default for GuardSettings {
    /// 64 calls at once and 128 waiting: a source that responds in 100 ms then serves 640 a second, and a wait is at
    /// most twice as long as a call.
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
    /// Calls that their callers cancelled since the source last responded, failed or timed out.
    left: AtomicU32,
    /// Whether one of them continues, or will.
    goes_on: AtomicBool,
    /// The base latency of each operation, by name.
    paces: Mutex<HashMap<String, Arc<BaseLatency>>>,
}

/// The guard of a source, for one of its operations.
#[derive(Clone)]
pub struct OperationGuard {
    guard: Arc<Guard>,
    /// `None` if a call's duration does not indicate the source's load.
    pace: Option<Arc<BaseLatency>>,
    /// Its number at the breaker.
    operation: usize,
}

/// A permit at the source; released when dropped. A call that is dropped before [`Permit::record`] does not count.
pub struct Permit {
    guard: Arc<Guard>,
    client: Arc<str>,
    /// The permit of a stream, beside those of calls.
    stream: Option<StreamPermit>,
    pace: Option<Arc<BaseLatency>>,
    /// A call's permit; none if it is a stream's.
    taken: Option<TakenPermit>,
    operation: usize,
    passage: CircuitPass,
    /// Whether the gateway may probe by this call, decided when it began.
    may_probe: bool,
    /// Whether it is the one call of its source that continues although its caller cancels.
    goes_on: bool,
    recorded: bool,
}

impl Guard {
    /// Makes the guard of a source, with these limits.
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

    /// Returns the guard of an operation; `judged`: whether its calls' duration indicates the source's load.
    pub fn before(self: &Arc<Self>, operation: &str, judged: bool) -> OperationGuard {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = judged.then(|| paces.entry(operation.to_owned()).or_default().clone());
        OperationGuard { guard: self.clone(), pace, operation: self.breaker.number(operation) }
    }

    /// Returns the breaker's state for all clients: of all operations, or of the worst one.
    pub fn breaker_state(&self) -> BreakerState {
        self.breaker.state()
    }

    /// Returns the number of circuits that are open for a single client, of all operations together.
    pub fn breaker_clients(&self) -> usize {
        self.breaker.clients()
    }

    /// Returns the present concurrency limit.
    pub fn concurrency_limit(&self) -> usize {
        self.permits.size()
    }

    /// Returns the number of calls that wait for a permit.
    pub fn queued(&self) -> usize {
        self.permits.queued()
    }

    /// Returns the number of open streams.
    pub fn streams(&self) -> usize {
        self.streams.count()
    }
}

impl OperationGuard {
    /// Waits for a permit at the source for a client's call, at most until `deadline`. If the wait would be too long,
    /// or if the call has to give way to another client's, it is refused at once. `may_probe`: whether the gateway may
    /// probe the source by this call.
    ///
    /// # Errors
    /// SOURCE_CIRCUIT_OPEN while the breaker is open, GATEWAY_OVERLOADED if the queue is full or standing, RATE_LIMITED
    /// if it is full of this client's calls, CALLER_DEADLINE if the caller's deadline is too short for the wait.
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

    /// Waits for a permit for a further request of a client's running stream, at most until `deadline`. The stream was
    /// admitted when it began, so this request is not refused because of the queue.
    ///
    /// # Errors
    /// As for [`Self::admit`], except for those of the queue.
    pub async fn admit_next(&self, client: &str, deadline: Deadline) -> Result<Permit, Refusal> {
        let taken = match self.guard.permits.acquire_next(client, &self.guard.retries) {
            Acquired::Place(taken) => Some(taken),
            Acquired::Waits(waiting) => deadline.bound(waiting.permitted()).await.map_err(no_permit)?,
            Acquired::Refused(_) => None,
        };
        let taken = taken.ok_or(Reason::GatewayOverloaded)?;
        self.begin(client, PermitKind::Call(taken), |_| false)
    }

    /// Returns a permit for a call with a request stream: its caller determines its duration.
    ///
    /// # Errors
    /// As for [`Self::stream`]; SOURCE_CIRCUIT_OPEN while the breaker is open.
    pub fn admit_stream(&self, client: &str) -> Result<Permit, Refusal> {
        self.begin(client, PermitKind::Stream(self.stream(client)?), |_| false)
    }

    /// Returns a permit for a response stream of this client, which may run for long.
    ///
    /// # Errors
    /// RATE_LIMITED if this client has the maximum number of its streams, GATEWAY_OVERLOADED if the source has.
    pub fn stream(&self, client: &str) -> Result<StreamPermit, Refusal> {
        self.guard.streams.begin(client)
    }

    /// Begins a call that has its permit.
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
        let (passage, recorded) = (CircuitPass::closed(key), stream.is_some());
        let mut permit =
            Permit { guard, client, stream, pace, taken, operation, passage, may_probe, goes_on: false, recorded };
        // Checked last: a call that waited must not reach a source that has failed in the meantime.
        let acquired = permit.guard.breaker.try_acquire(operation, key, now, may_probe);
        permit.passage = acquired.map_err(|shut| {
            permit.recorded = true;
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
    /// Returns whether the call's request is a stream, which arrives at its caller's pace. The duration of such a call
    /// indicates nothing about its source. Only this function decides it.
    pub fn is_paced(&self) -> bool {
        self.stream.is_some()
    }

    /// Returns the client that made the call.
    pub fn client(&self) -> &Arc<str> {
        &self.client
    }

    /// Returns the client's key in the evidence.
    pub fn client_key(&self) -> ClientKey {
        self.passage.client()
    }

    /// Returns whether the gateway may probe a source or a hub by this call.
    pub fn may_probe(&self) -> bool {
        self.may_probe
    }

    /// Records how an attempt ended, how long it took, and when that was.
    pub fn record(&mut self, health: SourceHealth, took: Duration, now: Instant) {
        let guard = &self.guard;
        if health == SourceHealth::Unknown {
            return;
        }
        let Some(taken) = self.taken else {
            // The call ran at its caller's pace, however long it took.
            if health == SourceHealth::Responded && self.passage.is_bypass() {
                guard.breaker.record(self.operation, (&self.client, self.passage), health, Duration::ZERO, now);
            }
            return;
        };
        self.recorded = true;
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

    /// Returns whether this call continues at the source when its caller cancels: it probes, or the last calls of the source were all
    /// cancelled. Once this has returned true, the source may be given the operation's own time.
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

    /// Returns after how long a read may be hedged at another endpoint.
    pub fn hedge_after(&self) -> Option<Duration> {
        self.guard.settings.hedge.filter(|_| !self.passage.probes())
    }

    /// Returns whether a read may be hedged at another endpoint now.
    pub fn may_hedge(&self) -> bool {
        self.guard.breaker.is_closed(self.operation, self.client_key()) && self.take_retry()
    }

    /// Returns how long to wait before another attempt, after `attempts` have failed and the source has sent this
    /// `Retry-After`; `None` if there is no further attempt: the source's retry budget or the call's time is used up,
    /// or the breaker has opened.
    pub fn retry_in(&self, attempts: u32, retry_after: Option<Duration>, deadline: Instant) -> Option<Duration> {
        if self.passage.probes() || !self.guard.breaker.is_closed(self.operation, self.client_key()) {
            return None;
        }
        self.guard.retries.next(attempts, retry_after, deadline, || self.take_retry())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.recorded {
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

/// Refuses a call of the client with most of the waiting calls.
fn queue_share_exceeded(after: Duration) -> Refusal {
    let detail = "most calls that wait at the source are this client's".to_owned();
    Refusal { detail, ..Refusal::retry(Reason::RateLimited, after) }
}

/// The refusal for a permit that was not released in time: by the caller's deadline, or by the operation's.
fn no_permit(whose: DeadlineOwner) -> Refusal {
    match whose {
        DeadlineOwner::Caller => Reason::CallerDeadline.into(),
        DeadlineOwner::Operation => Reason::GatewayOverloaded.into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
