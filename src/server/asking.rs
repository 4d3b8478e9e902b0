//! Asking the source: by which of its hubs, again where a read did not reach it, and beside it where a hub is only shadowed.

use super::exchange::decode;
use super::record::Record;
use super::shared::{Route, Second, Shared};
use crate::config::SecondMode;
use crate::contract::differences::differences;
use crate::contract::settings::CallContext;
use crate::contract::{Operation, Shape};
use crate::drivers::{Adapter, Call, SourceAnswer, SourceError, SourceRequest};
use crate::guard::{HubAsked, Place, SourceHealth, within};
use crate::status::Refusal;
use bytes::Bytes;
use prost_reflect::DynamicMessage;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// Most reads that are shadowed at once; further ones are not.
const MAX_SHADOWED: usize = 64;

/// Which way an attempt goes.
enum Way<'r> {
    /// The only one, or the first of two that are not watched.
    First,
    /// The first of two: if it fails, the second is there.
    Watched(&'r Second, HubAsked),
    Second(&'r Second),
}

impl<'r> Way<'r> {
    fn choose(route: &'r Route) -> Self {
        let Some(second) = &route.second else { return Way::First };
        match second.mode {
            SecondMode::Share(percent) if fastrand::u32(0..100) < percent => Way::Second(second),
            SecondMode::Share(_) | SecondMode::Shadow => Way::First,
            SecondMode::Failover => match second.first_health.ask() {
                Some(asked) => Way::Watched(second, asked),
                None => Way::Second(second),
            },
        }
    }

    fn adapter(&self, route: &'r Route) -> &'r Arc<Adapter> {
        match self {
            Way::First | Way::Watched(..) => &route.adapter,
            Way::Second(second) => &second.adapter,
        }
    }
}

/// Asks the source, and tells its guard how it went. A read that did not reach it is tried again, within the guard's bounds,
/// or at once by the other hub.
pub(super) async fn ask(
    shared: &Arc<Shared>,
    route: &Route,
    call: Call,
    deadline: Instant,
    place: &mut Place,
    record: &mut Record,
) -> Result<SourceAnswer, Refusal> {
    let began = Instant::now();
    let again = Again::of(&call);
    let (mut next, mut attempts, mut way) = (Some(call), 0, Way::choose(route));
    let result = loop {
        let Some(call) = next.take() else { break Err(SourceError::Unavailable("it could not be asked again")) };
        let (asked, adapter) = (Instant::now(), way.adapter(route));
        record.hub(adapter.connection.hub.as_deref());
        attempts += 1;
        let result = within(deadline, adapter.call(call)).await.unwrap_or(Err(SourceError::Timeout));
        let failed = result.as_ref().err().is_some_and(SourceError::is_failure);
        let health = if failed { SourceHealth::Failed } else { SourceHealth::Answered };
        let retry = result.as_ref().err().and_then(SourceError::retry);
        match std::mem::replace(&mut way, Way::First) {
            Way::Watched(second, hub) => {
                hub.tell(health, asked.elapsed());
                // What one hub failed at does not count against the source as long as the other has not been asked.
                if let (Some(again), Some(_)) = (&again, retry) {
                    (way, next) = (Way::Second(second), again.call());
                    continue;
                }
            }
            other => way = other,
        }
        place.tell(health, asked.elapsed());
        let wait = again.as_ref().zip(retry).and_then(|(_, asked)| place.retry_in(attempts, asked, deadline));
        let Some(wait) = wait else { break result };
        tokio::time::sleep(wait).await;
        next = again.as_ref().and_then(Again::call);
    };
    record.source_took(began);
    record.attempts(attempts);
    if let (Some(second), Some(again), Ok(SourceAnswer::One(answer))) = (&route.second, again, &result)
        && second.mode == SecondMode::Shadow
        && record.shadow(second.adapter.connection.hub.as_deref())
    {
        shadow(shared, second.adapter.clone(), again, answer.clone());
    }
    result.map_err(Refusal::from)
}

/// A read, to be asked once more. Its message is decoded anew: most calls need it only once.
struct Again {
    operation: Arc<Operation>,
    bytes: Bytes,
    context: Arc<CallContext>,
}

impl Again {
    /// Only of reads with one message: a write may have been done although its answer was lost.
    fn of(call: &Call) -> Option<Self> {
        let SourceRequest::One { bytes, .. } = &call.request else { return None };
        let Call { operation, context, .. } = call;
        let kept = || Again { operation: operation.clone(), bytes: bytes.clone(), context: context.clone() };
        (!operation.writes).then(kept)
    }

    fn call(&self) -> Option<Call> {
        let message = decode(&self.operation.request.message, &self.bytes).ok()?;
        let request = SourceRequest::One { message, bytes: self.bytes.clone() };
        Some(Call { operation: self.operation.clone(), request, context: self.context.clone() })
    }
}

/// Asks the second hub for what the first has answered, and counts how they differ: by field, never by value. Nobody waits
/// for it.
fn shadow(shared: &Arc<Shared>, adapter: Arc<Adapter>, again: Again, answer: Bytes) {
    let operation = again.operation.clone();
    let Ok(place) = shared.shadowed.clone().try_acquire_owned() else { return };
    let Some(call) = again.call().filter(|_| operation.shape == Shape::Unary) else { return };
    let shared = shared.clone();
    tokio::spawn(async move {
        let _place = place;
        let told = within(Instant::now() + operation.timeout, adapter.call(call)).await;
        let differing = match told {
            Ok(Ok(SourceAnswer::One(other))) => compare(&operation, &answer, &other),
            _ => None,
        };
        shared.metrics.shadowed(&operation.source.id, &operation.full_name, differing.as_ref());
    });
}

/// Paths of the fields in which two answers differ; `None` where one cannot be read.
fn compare(operation: &Operation, one: &Bytes, other: &Bytes) -> Option<BTreeSet<String>> {
    let read = |bytes: &Bytes| DynamicMessage::decode(operation.answer.message.clone(), bytes.clone()).ok();
    let mut found = BTreeSet::new();
    differences(&read(one)?, &read(other)?, "", &mut found);
    Some(found)
}

/// Places for shadowed reads.
pub(super) fn shadow_places() -> Arc<tokio::sync::Semaphore> {
    Arc::new(tokio::sync::Semaphore::new(MAX_SHADOWED))
}
