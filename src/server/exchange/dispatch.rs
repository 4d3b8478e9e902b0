//! Dispatches a call to its source: selects hub and endpoint, retries a read that did not reach the source, hedges a
//! slow read at another endpoint, and mirrors reads to a shadowed hub.

use super::attempt::{Attempt, AttemptEvidence, InFlight};
use super::context::ExchangeContext;
use crate::config::SecondMode;
use crate::contract::differences::differences;
use crate::contract::settings::CallContext;
use crate::contract::{CallShape, Operation};
use crate::deadline::{CallTime, Deadline, DeadlineOwner};
use crate::drivers::{
    Call, CallerFault, PageLimiter, Requested, SourceError, SourceFault, SourceRequest, SourceResponse,
};
use crate::guard::{ClientKey, EndpointCall, HubCall, OperationGuard, Permit};
use crate::server::shared::{Route, SecondaryUpstream, Shared, Upstream};
use crate::status::Refusal;
use bytes::Bytes;
use futures_util::future::{Either, select};
use prost_reflect::DynamicMessage;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The upstream of an attempt.
enum RouteChoice<'r> {
    /// The only one, or the first of two without a health check.
    First,
    /// The primary of two: if it fails, the secondary follows.
    Watched(&'r SecondaryUpstream),
    Second(&'r SecondaryUpstream),
}

impl<'r> RouteChoice<'r> {
    /// Selects the upstream of a call, with its hub if that is watched. A call that may probe the source may probe the
    /// hub.
    fn choose(route: &'r Route, permit: &Permit) -> (Self, Option<HubCall>) {
        let Some(second) = &route.second else { return (RouteChoice::First, None) };
        match second.mode {
            SecondMode::Share(percent) if fastrand::u32(0..100) < percent => (RouteChoice::Second(second), None),
            SecondMode::Share(_) | SecondMode::Shadow => (RouteChoice::First, None),
            SecondMode::Failover => match second.first_health.try_call(permit.client(), permit.may_probe()) {
                Some(retry_after) => (RouteChoice::Watched(second), Some(retry_after)),
                None => (RouteChoice::Second(second), None),
            },
        }
    }

    fn upstream(&self, route: &'r Route) -> &'r Arc<Upstream> {
        match self {
            RouteChoice::First | RouteChoice::Watched(..) => &route.upstream,
            RouteChoice::Second(second) => &second.upstream,
        }
    }
}

/// The attempts so far.
struct Attempts {
    /// The client that made the call.
    client: ClientKey,
    attempts: u32,
    /// The last endpoint, of the last upstream.
    last: Option<usize>,
}

impl Attempts {
    fn pick(&mut self, upstream: &Upstream) -> EndpointCall {
        let picked = upstream.endpoints.pick(self.client, self.last);
        self.attempts += 1;
        self.last = Some(picked.at());
        picked
    }
}

/// Makes one attempt. A read without a response in time is hedged at another endpoint, if so configured; the first
/// response counts.
async fn attempt(
    upstream: &Upstream,
    call: Call,
    again: Option<&RetryableRequest>,
    deadline: Deadline,
    flight: &mut InFlight,
    tried: &mut Attempts,
) -> Result<SourceResponse, SourceError> {
    let hedge = flight.permit().and_then(|permit| permit.hedge_after());
    let hedge = hedge.zip(again.filter(|again| again.operation.shape == CallShape::Unary));
    let picked = tried.pick(upstream);
    let first = flight.begins(upstream, picked, call);
    let Some((after, again)) = hedge else { return first.ended(deadline).await };
    match select(std::pin::pin!(first.ended(deadline)), std::pin::pin!(tokio::time::sleep(after))).await {
        Either::Left((answered, _)) => return answered,
        Either::Right(((), _)) => {}
    }
    let hedged = flight.permit().is_some_and(|permit| permit.may_hedge()).then(|| again.call()).flatten();
    let mut second = hedged.map(|call| Attempt::new(upstream, tried.pick(upstream), call, false));
    let (Some(first), Some(second)) = (&mut flight.first, &mut second) else {
        let Some(first) = &mut flight.first else { return Err(SourceError::internal("it was not begun")) };
        return first.ended(deadline).await;
    };
    let ill = |error: &SourceError| error.blame().health.is_unhealthy();
    match select(std::pin::pin!(first.ended(deadline)), std::pin::pin!(second.ended(deadline))).await {
        Either::Left((Err(error), second)) if ill(&error) => second.await,
        Either::Right((Err(error), first)) if ill(&error) => first.await,
        Either::Left((result, _)) | Either::Right((result, _)) => result,
    }
}

/// Dispatches the call, and reports its end to the guard. A read that did not reach its source is retried, within the
/// guard's limits, or at once at another endpoint or through the other hub.
pub(in crate::server) async fn dispatch(
    shared: &Arc<Shared>,
    route: &Route,
    mut call: Call,
    time: CallTime,
    permit: Permit,
    exchange: &mut ExchangeContext,
) -> Result<SourceResponse, Refusal> {
    let began = Instant::now();
    let deadline = time.source(began);
    let again = RetryableRequest::of(&call);
    let (client, (mut turn, watched)) = (permit.client_key(), RouteChoice::choose(route, &permit));
    let mut flight = InFlight::new(permit, time.full(began));
    flight.hub = watched;
    let limit = match deadline.owner {
        DeadlineOwner::Caller if again.is_some() => flight.whole().unwrap_or(deadline),
        _ => deadline,
    };
    call.until = match call.operation.shape {
        // A stream may last for as long as its caller likes; its first response has the operation's time.
        CallShape::ServerStream => time.caller().map(|at| match at > limit.at {
            true => Deadline { at, owner: DeadlineOwner::Caller },
            false => limit,
        }),
        _ => Some(limit),
    };
    let again = again.map(|again| RetryableRequest { until: call.until, ..again });
    let mut ended = began;
    let (mut next, mut tried) = (Some(call), Attempts { client, attempts: 0, last: None });
    let result = loop {
        let Some(call) = next.take() else { break Err(SourceError::internal("the request could not be sent again")) };
        let upstream = turn.upstream(route);
        exchange.upstream(upstream);
        let result = attempt(upstream, call, again.as_ref(), deadline, &mut flight, &mut tried).await;
        ended = Instant::now();
        if matches!(result, Err(SourceError::Caller(CallerFault::Deadline))) {
            // The call ends, or continues in the background.
            break result;
        }
        let AttemptEvidence { health, elapsed } = flight.over(&result, ended);
        let retry = result.as_ref().err().and_then(SourceError::retry);
        if let (Some(hub), RouteChoice::Watched(second)) = (flight.hub.take(), &turn) {
            hub.record(health, elapsed);
            // A failure at one hub does not count against the source before the other has been tried.
            if let (Some(again), Some(_)) = (&again, retry) {
                (turn, next, tried.last) = (RouteChoice::Second(second), again.call(), None);
                continue;
            }
        }
        let other = tried.last.is_some_and(|last| upstream.endpoints.has_other(client, last));
        let Some(permit) = flight.permit() else { break result };
        // Neither does a failure at one endpoint, if another one is tried next.
        let spared = health.is_unhealthy() && other;
        if !spared {
            permit.record(health, elapsed, ended);
        }
        let wait = again
            .as_ref()
            .zip(retry)
            .and_then(|(_, retry_after)| permit.retry_in(tried.attempts, retry_after, deadline.at));
        let Some(wait) = wait else {
            if spared {
                permit.record(health, elapsed, ended);
            }
            break result;
        };
        tokio::time::sleep(if other { Duration::ZERO } else { wait }).await;
        next = again.as_ref().and_then(RetryableRequest::call);
    };
    drop(flight);
    exchange.dispatched(ended - began, tried.attempts);
    if result.as_ref().is_err_and(|error| !error.leaves_open()) {
        exchange.not_done();
    }
    if let (Some(second), Some(again), Ok(SourceResponse::One(answer))) = (&route.second, again, &result)
        && second.mode == SecondMode::Shadow
        && exchange.shadow(&second.upstream)
    {
        shadow(shared, second.upstream.clone(), (client, again), answer.clone());
    }
    result.map_err(Refusal::from)
}

/// A read that may be retried. Its message is decoded again for the retry: most calls need it only once.
struct RetryableRequest {
    operation: Arc<Operation>,
    bytes: Bytes,
    context: Arc<CallContext>,
    until: Option<Deadline>,
    turns: Option<Arc<dyn PageLimiter>>,
}

impl RetryableRequest {
    /// Only of reads with one message: a write may have been processed although its response was lost.
    fn of(call: &Call) -> Option<Self> {
        let SourceRequest::One { bytes, .. } = &call.request else { return None };
        let Call { operation, context, until, page_limiter: turns, .. } = call;
        let kept = || RetryableRequest {
            operation: operation.clone(),
            bytes: bytes.clone(),
            context: context.clone(),
            until: *until,
            turns: turns.clone(),
        };
        (!operation.writes).then(kept)
    }

    fn call(&self) -> Option<Call> {
        let message = self.operation.decode(&self.bytes).ok()?;
        let request = SourceRequest::One { message, bytes: self.bytes.clone() };
        let (operation, context) = (self.operation.clone(), self.context.clone());
        Some(Call {
            operation,
            request,
            context,
            until: self.until,
            page_limiter: self.turns.clone(),
            stream_wait: None,
        })
    }
}

/// The permits of a stream's further requests.
pub(in crate::server) struct PagePermits {
    pub guard: OperationGuard,
    pub client: Arc<str>,
    pub operation: Arc<Operation>,
}

impl PageLimiter for PagePermits {
    fn run<'a>(&'a self, request: &'a (dyn Fn() -> Requested<'a> + Sync)) -> Requested<'a> {
        Box::pin(async move {
            let deadline = Deadline::own(Instant::now(), self.operation.timeout);
            let mut permit =
                self.guard.admit_next(&self.client, deadline).await.map_err(SourceError::not_dispatched)?;
            let deadline = Deadline::own(Instant::now(), self.operation.timeout);
            let mut attempts = 0;
            loop {
                attempts += 1;
                let began = Instant::now();
                let result = deadline.bound(request()).await.unwrap_or(Err(SourceFault::Timeout.into()));
                let ended = Instant::now();
                permit.record(SourceError::health(&result), ended - began, ended);
                let retry = result.as_ref().err().and_then(SourceError::retry).filter(|_| !self.operation.writes);
                match retry.and_then(|retry_after| permit.retry_in(attempts, retry_after, deadline.at)) {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return result,
                }
            }
        })
    }
}

/// Sends the request to the second hub, too, and counts the differences of the responses: by field, never by value. No
/// call waits for it.
fn shadow(
    shared: &Arc<Shared>,
    upstream: Arc<Upstream>,
    (client, again): (ClientKey, RetryableRequest),
    answer: Bytes,
) {
    let operation = again.operation.clone();
    let Ok(permit) = shared.shadowed.clone().try_acquire_owned() else { return };
    let Some(call) = again.call().filter(|_| operation.shape == CallShape::Unary) else { return };
    let shared = shared.clone();
    tokio::spawn(async move {
        let _permit = permit;
        let deadline = Deadline::own(Instant::now(), operation.timeout);
        // Notes of that response do not belong to the exchange.
        let context = Arc::new(CallContext { observed: Arc::default(), ..(*call.context).clone() });
        let call = Call { until: Some(deadline), context, ..call };
        let answered =
            Attempt::new(&upstream, upstream.endpoints.pick(client, None), call, false).ended(deadline).await;
        let differing = match answered {
            Ok(SourceResponse::One(other)) => compare(&operation, &answer, &other),
            _ => None,
        };
        shared.metrics.shadowed(&operation.source.id, &operation.full_name, differing.as_ref());
    });
}

/// Returns the paths of the fields in which two responses differ; `None` if one cannot be read.
fn compare(operation: &Operation, one: &Bytes, other: &Bytes) -> Option<BTreeSet<String>> {
    let read = |bytes: &Bytes| DynamicMessage::decode(operation.response.message.clone(), bytes.clone()).ok();
    let mut found = BTreeSet::new();
    differences(&read(one)?, &read(other)?, "", &mut found);
    Some(found)
}
