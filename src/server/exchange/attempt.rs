//! One attempt at an endpoint of a source, and what happens to it when its caller leaves.

use crate::contract::Binding;
use crate::deadline::{Deadline, DeadlineOwner};
use crate::drivers::{Call, CallerFault, GatewayFault, SourceError, SourceFault, SourceResponse};
use crate::guard::{EndpointCall, HubCall, Permit};
use crate::http2::client::StreamWait;
use crate::server::shared::Upstream;
use crate::status::SourceHealth;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// The share of an operation's own time that a call may wait for a stream and still leave the source its time: one
/// twentieth, as in the propagation of a deadline (`deadline.rs`).
const WAIT_SHARE: u32 = 20;

/// A request that is on its way to an endpoint.
pub(in crate::server) struct Attempt {
    request: BoxFuture<'static, Result<SourceResponse, SourceError>>,
    /// `None` once it has ended.
    picked: Option<EndpointCall>,
    /// Whether its request arrives at its caller's pace.
    paced: bool,
    began: Instant,
    /// The deadline that was sent to the source.
    until: Option<Deadline>,
    /// Of a gRPC source, if it may have to wait for a stream.
    stream_wait: Option<Arc<StreamWait>>,
}

/// What the end of an attempt shows about its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct AttemptEvidence {
    pub health: SourceHealth,
    /// The source's duration.
    pub elapsed: Duration,
}

impl AttemptEvidence {
    /// Evaluates a result and its duration. The duration of a call whose request arrives at its caller's pace says nothing.
    fn of<T>(result: &Result<T, SourceError>, elapsed: Duration, paced: bool) -> Self {
        match result {
            Err(SourceError::Source(SourceFault::Timeout)) if paced => {
                AttemptEvidence { health: SourceHealth::Unknown, elapsed: Duration::ZERO }
            }
            result => AttemptEvidence {
                health: SourceError::health(result),
                elapsed: if paced { Duration::ZERO } else { elapsed },
            },
        }
    }
}

impl Attempt {
    /// Begins an attempt at one endpoint of an upstream.
    pub(in crate::server) fn new(upstream: &Upstream, picked: EndpointCall, mut call: Call, paced: bool) -> Self {
        if let Binding::Grpc(_) = call.operation.binding {
            call.stream_wait = Some(Arc::default());
        }
        let (until, stream_wait) = (call.until, call.stream_wait.clone());
        let request = upstream.adapters[picked.at()].call(call);
        Attempt { request, picked: Some(picked), paced, began: Instant::now(), until, stream_wait }
    }

    /// Waits for its end, and reports it to the endpoint. After a deadline of the caller's it has not ended, and may be
    /// awaited again.
    pub(in crate::server) async fn ended(&mut self, deadline: Deadline) -> Result<SourceResponse, SourceError> {
        let result = match deadline.bound(&mut self.request).await {
            Err(DeadlineOwner::Caller) => return Err(CallerFault::Deadline.into()),
            Err(DeadlineOwner::Operation) => Err(self.not_in_time(deadline)),
            Ok(Err(error)) if self.is_by_deadline(&error, deadline) => Err(CallerFault::Deadline.into()),
            Ok(result) => result,
        };
        let seen = self.seen(&result, Instant::now());
        if let Some(picked) = self.picked.take() {
            picked.record(seen.health);
        }
        result
    }

    /// Returns what its end shows about the source.
    fn seen(&self, result: &Result<SourceResponse, SourceError>, ended: Instant) -> AttemptEvidence {
        let waited = self.stream_wait.as_ref().map_or(Duration::ZERO, |wait| wait.waited());
        AttemptEvidence::of(result, ended.saturating_duration_since(self.began).saturating_sub(waited), self.paced)
    }

    /// Returns the reason that there is no response when the operation's own time is over.
    fn not_in_time(&self, deadline: Deadline) -> SourceError {
        let whole = deadline.at.saturating_duration_since(self.began);
        match &self.stream_wait {
            Some(wait) if wait.is_waiting() => GatewayFault::NoStream.into(),
            Some(wait) if wait.waited() > whole / WAIT_SHARE => GatewayFault::Late.into(),
            _ => SourceFault::Timeout.into(),
        }
    }

    /// Returns whether the caller's deadline may have caused the failure: a source that knows the deadline ends the
    /// call too, and so do intermediaries, each a little sooner than the next.
    fn is_by_deadline(&self, error: &SourceError, deadline: Deadline) -> bool {
        let hurried = |one: Deadline| one.owner == DeadlineOwner::Caller;
        hurried(deadline)
            && self.until.is_some_and(hurried)
            && error.blame().health.is_unhealthy()
            && deadline.is_near(self.began)
    }

    fn survives_caller(&self) -> bool {
        self.picked.is_some()
    }
}

/// A call on its way to its source, with its permit. If its caller leaves and the guard needs to know whether the
/// source responds, it continues until the operation's own time is over; otherwise it ends.
pub(in crate::server) struct InFlight {
    /// `None` once it continues in the background.
    permit: Option<Permit>,
    /// The hub that it goes through, if that has a breaker.
    pub hub: Option<HubCall>,
    /// In flight, or ended.
    pub first: Option<Attempt>,
    /// Until when it may continue.
    until: Option<Deadline>,
    paced: bool,
}

impl InFlight {
    /// Makes a call that is dispatched now; `whole`: when the operation's own time is over.
    pub(in crate::server) fn new(permit: Permit, whole: Deadline) -> Self {
        let paced = permit.is_paced();
        InFlight { permit: Some(permit), hub: None, first: None, until: (!paced).then_some(whole), paced }
    }

    /// Its permit.
    pub(in crate::server) fn permit(&mut self) -> Option<&mut Permit> {
        self.permit.as_mut()
    }

    /// Begins an attempt at an endpoint of an upstream.
    pub(in crate::server) fn begins(&mut self, upstream: &Upstream, picked: EndpointCall, call: Call) -> &mut Attempt {
        let attempt = Attempt::new(upstream, picked, call, self.paced);
        self.first.insert(attempt)
    }

    /// Ends the call, and returns what its end shows about the source.
    pub(in crate::server) fn over(
        &mut self,
        result: &Result<SourceResponse, SourceError>,
        ended: Instant,
    ) -> AttemptEvidence {
        let first = self.first.take();
        first.map_or(AttemptEvidence::of(result, Duration::ZERO, self.paced), |first| first.seen(result, ended))
    }

    /// Returns the operation's own deadline, if the source gets it whatever the caller's is.
    pub(in crate::server) fn whole(&mut self) -> Option<Deadline> {
        let until = self.until?;
        let by_hub = self.hub.as_ref().is_some_and(HubCall::probes);
        (by_hub || self.permit.as_mut().is_some_and(Permit::survives_caller)).then_some(until)
    }

    /// Continues a call that its caller left.
    async fn go_on(mut attempt: Attempt, mut permit: Permit, hub: Option<HubCall>, until: Deadline) {
        let result = attempt.ended(until).await;
        let ended = Instant::now();
        let seen = attempt.seen(&result, ended);
        if let Some(hub) = hub {
            hub.record(seen.health, seen.elapsed);
        }
        permit.record(seen.health, seen.elapsed, ended);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some(attempt) = self.first.take().filter(Attempt::survives_caller) else { return };
        let Some(until) = self.whole() else { return };
        if let (Some(permit), Ok(runtime)) = (self.permit.take(), Handle::try_current()) {
            runtime.spawn(InFlight::go_on(attempt, permit, self.hub.take(), until));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::HubFault;

    #[test]
    fn b1_how_long_a_paced_request_takes_says_nothing_of_its_source() {
        let long = Duration::from_secs(20);
        let seen = |result: Result<(), SourceError>, paced| AttemptEvidence::of(&result, long, paced);
        let timeout = || Err(SourceFault::Timeout.into());
        assert_eq!(seen(timeout(), true).health, SourceHealth::Unknown);
        assert!(seen(timeout(), false).health.is_unhealthy() && seen(timeout(), false).elapsed == long);
        assert!(seen(Err(HubFault::Unreachable("no connection").into()), true).health.is_unhealthy());
        assert_eq!(seen(Ok(()), true), AttemptEvidence { health: SourceHealth::Responded, elapsed: Duration::ZERO });
    }
}
