//! The guard: one slow or broken source must not hurt the others. Per source: a bulkhead that finds its size by itself, with
//! a bounded queue, a breaker, a budget of retries, and the deadline. Per worker: admission.

mod admission;
mod bound;
mod breaker;
mod endpoints;
mod mean;
mod places;
mod queue;
mod retry;
mod streams;

use crate::status::{Reason, Refusal};
use bound::{Began, Pace};
use breaker::Breaker;
use places::Places;
use queue::Wait;
use retry::Budget;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use streams::Streams;

pub use admission::{Admission, UnderWay};
pub use breaker::{BreakerSettings, BreakerState};
pub use endpoints::{Endpoints, Picked};
pub use retry::RetrySettings;
pub use streams::StreamPlace;

/// Bounds of one source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuardSettings {
    /// Calls at once, at most.
    pub concurrency: usize,
    /// Calls at once that it is always given; as many as `concurrency`, or more: never fewer than that.
    pub least: usize,
    /// Calls that may wait for a place.
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
            least: 4,
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
    places: Places,
    streams: Arc<Streams>,
    settings: GuardSettings,
    wait: Wait,
    breaker: Breaker,
    retries: Budget,
    /// Of each operation, by name.
    paces: Mutex<HashMap<String, Arc<Pace>>>,
}

/// The guard of a source, as it stands before one of its operations.
#[derive(Clone)]
pub struct OperationGuard {
    guard: Arc<Guard>,
    /// `None` where the time of a call does not tell how busy the source is.
    pace: Option<Arc<Pace>>,
}

/// How a call to the source ended, as the breaker sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceHealth {
    /// It answered, be it with a refusal.
    Answered,
    /// It failed or took too long.
    Failed,
}

/// Whether a hub answers, where its sources have another one to go to.
pub struct HubHealth(Breaker);

impl HubHealth {
    /// Of the hub of a source. It is left alone sooner than a source without another way: after three of five failures.
    pub fn new(source: &str, hub: &str) -> Arc<Self> {
        let settings = BreakerSettings { window: 5, failures_percent: 60, ..BreakerSettings::default() };
        Arc::new(HubHealth(Breaker::new(&format!("{source} through {hub}"), settings)))
    }

    /// Leave to ask it now; `None` while it is left alone.
    pub fn ask(self: &Arc<Self>) -> Option<HubAsked> {
        let probe = self.0.ask(Instant::now()).ok()?;
        Some(HubAsked { health: self.clone(), probe, told: false })
    }
}

/// A call on its way through a hub. One that is dropped before [`HubAsked::tell`] counts as nothing.
pub struct HubAsked {
    health: Arc<HubHealth>,
    probe: bool,
    told: bool,
}

impl HubAsked {
    /// Tells how it went, and how long it took.
    pub fn tell(mut self, health: SourceHealth, took: Duration) {
        self.told = true;
        self.health.0.tell(health == SourceHealth::Answered, took, self.probe, Instant::now());
    }
}

impl Drop for HubAsked {
    fn drop(&mut self) {
        if self.probe && !self.told {
            self.health.0.forget_probe();
        }
    }
}

/// A place at the source; freed when dropped. A call that is dropped before [`Place::tell`] counts as nothing.
pub struct Place {
    guard: Arc<Guard>,
    /// Where it is a stream's, beside those of calls.
    stream: Option<StreamPlace>,
    pace: Option<Arc<Pace>>,
    began: Began,
    probe: bool,
    told: bool,
}

impl Guard {
    /// A guard of a source, with these bounds.
    pub fn new(source: &str, settings: GuardSettings) -> Arc<Self> {
        Arc::new(Guard {
            places: Places::new(settings.concurrency, settings.least),
            streams: Arc::new(Streams::new(settings.streams)),
            settings,
            wait: Wait::new(),
            breaker: Breaker::new(source, settings.breaker),
            retries: Budget::new(settings.retry),
            paces: Mutex::default(),
        })
    }

    /// The guard before an operation; `judged`: whether the time of its calls tells how busy the source is.
    pub fn before(self: &Arc<Self>, operation: &str, judged: bool) -> OperationGuard {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = judged.then(|| paces.entry(operation.to_owned()).or_default().clone());
        OperationGuard { guard: self.clone(), pace }
    }

    /// How the breaker stands.
    pub fn breaker_state(&self) -> BreakerState {
        self.breaker.state()
    }

    /// Calls that the source is given at once, for now.
    pub fn places(&self) -> usize {
        self.places.size()
    }

    /// Streams that go on.
    pub fn streams(&self) -> usize {
        self.streams.count()
    }
}

impl OperationGuard {
    /// Waits for a place at the source, at most until `deadline`; refused at once where the wait would be too long.
    pub async fn admit(&self, deadline: Instant) -> Result<Place, Refusal> {
        let guard = &*self.guard;
        let busy = |after| Refusal::retry(Reason::GatewayOverloaded, after);
        let mut now = Instant::now();
        if guard.places.take() {
            guard.wait.waited(None, now);
        } else {
            let (longest, places) = (guard.settings.queue, guard.places.size());
            let waiting = guard.places.queue(longest).ok_or_else(|| busy(guard.wait.expected(longest, places)))?;
            let began = now;
            guard.wait.admits(waiting.ahead, places, began).map_err(busy)?;
            within(deadline, waiting.place()).await?;
            now = Instant::now();
            guard.wait.waited(Some(now - began), now);
        }
        self.begin(now, None)
    }

    /// Waits for a place for a further request of a stream that goes on, at most until `deadline`. It was let in when it
    /// began, so it is not refused because others wait.
    pub async fn admit_again(&self, deadline: Instant) -> Result<Place, Refusal> {
        if !self.guard.places.take() {
            within(deadline, self.guard.places.wait()).await?;
        }
        self.begin(Instant::now(), None)
    }

    /// A place for a call whose request is a stream: how long it takes is up to its caller.
    pub fn admit_stream(&self, client: &str) -> Result<Place, Refusal> {
        self.begin(Instant::now(), Some(self.stream(client)?))
    }

    /// A place for a stream of this client, which may go on for long.
    pub fn stream(&self, client: &str) -> Result<StreamPlace, Refusal> {
        self.guard.streams.begin(client)
    }

    /// A call that has got its place.
    fn begin(&self, now: Instant, stream: Option<StreamPlace>) -> Result<Place, Refusal> {
        // From here on the place is given back, whatever happens.
        let (guard, pace) = (self.guard.clone(), self.pace.clone());
        let began = guard.places.begins();
        let mut place = Place { guard, stream, pace, began, probe: false, told: false };
        // Asked last: a call that waited must not reach a source that failed meanwhile.
        let asked = place.guard.breaker.ask(now);
        place.probe = asked.map_err(|after| Refusal::retry(Reason::SourceCircuitOpen, after))?;
        place.guard.retries.call();
        Ok(place)
    }
}

impl Place {
    /// Tells the guard how an attempt ended, how long it took, and when that was.
    pub fn tell(&mut self, health: SourceHealth, took: Duration, now: Instant) {
        self.told = true;
        self.guard.wait.took(took, self.pace.as_ref().map_or(0, |pace| pace.get()));
        if let (Some(pace), SourceHealth::Answered) = (&self.pace, health) {
            self.guard.places.answered(pace, self.began, took, now);
        }
        self.guard.breaker.tell(health == SourceHealth::Answered, took, self.probe, now);
    }

    /// After how long a read may be asked of another endpoint as well.
    pub fn hedge_after(&self) -> Option<Duration> {
        self.guard.settings.hedge.filter(|_| !self.probe)
    }

    /// Whether a read may be asked of another endpoint as well, now.
    pub fn may_hedge(&self) -> bool {
        self.guard.breaker.state() == BreakerState::Closed && self.guard.retries.take()
    }

    /// How long to wait before another attempt, after `attempts` have failed and the source has asked for so long; `None`
    /// where there is to be none: no retry is left to the source, no time to the call, or the breaker has opened.
    pub fn retry_in(&self, attempts: u32, asked: Option<Duration>, deadline: Instant) -> Option<Duration> {
        if self.probe || self.guard.breaker.state() != BreakerState::Closed {
            return None;
        }
        self.guard.retries.next(attempts, asked, deadline)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.probe && !self.told {
            self.guard.breaker.forget_probe();
        }
        if self.stream.is_none() {
            self.guard.places.give_back();
        }
    }
}

/// A future, until a deadline.
pub async fn within<T>(deadline: Instant, future: impl Future<Output = T>) -> Result<T, Refusal> {
    tokio::time::timeout_at(deadline.into(), future).await.map_err(|_| Reason::SourceTimeout.into())
}

/// `grpc-timeout` is there, but says no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("grpc-timeout is not one to eight digits and a unit")]
pub struct TimeoutMalformed;

/// Reads `grpc-timeout` (at most 8 digits and a unit: gRPC over HTTP/2, "Timeout").
pub fn grpc_timeout(headers: &http::HeaderMap) -> Result<Option<Duration>, TimeoutMalformed> {
    let mut values = headers.get_all("grpc-timeout").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none()).ok_or(TimeoutMalformed)?;
    let at = text.len().checked_sub(1).ok_or(TimeoutMalformed)?;
    let (digits, unit) = text.split_at_checked(at).ok_or(TimeoutMalformed)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TimeoutMalformed);
    }
    let number: u64 = digits.parse().map_err(|_| TimeoutMalformed)?;
    Ok(Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return Err(TimeoutMalformed),
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_goes_away_leaves_the_next_call_as_the_probe() {
        let health = HubHealth::new("business", "ndxp");
        for _ in 0..5 {
            health.ask().unwrap().tell(SourceHealth::Failed, Duration::ZERO);
        }
        assert!(health.ask().is_none(), "left alone after five failures");
        let later = Instant::now() + BreakerSettings::default().open_for;
        assert_eq!(health.0.ask(later), Ok(true));
        drop(HubAsked { health: health.clone(), probe: true, told: false });
        let asked = health.ask().unwrap();
        assert!(asked.probe && health.ask().is_none());
        asked.tell(SourceHealth::Answered, Duration::ZERO);
        assert!(health.ask().is_some_and(|asked| !asked.probe));
    }

    #[tokio::test]
    async fn a_full_source_queues_and_then_refuses() {
        let settings = GuardSettings { concurrency: 1, queue: 1, ..GuardSettings::default() };
        let guard = Guard::new("test", settings).before("Get", true);
        let soon = Instant::now() + Duration::from_millis(30);
        let first = guard.admit(soon).await.unwrap();
        let (waits, refused) = tokio::join!(guard.admit(soon), async {
            tokio::task::yield_now().await;
            guard.admit(soon).await.err().map(|refusal| refusal.reason)
        });
        assert_eq!(waits.err().map(|refusal| refusal.reason), Some(Reason::SourceTimeout));
        assert_eq!(refused, Some(Reason::GatewayOverloaded));
        drop(first);
        assert!(guard.admit(Instant::now() + Duration::from_secs(1)).await.is_ok());
    }
}
