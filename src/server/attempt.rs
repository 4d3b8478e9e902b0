//! One attempt at an endpoint of a source, and what becomes of it when its caller leaves.

use super::shared::Way;
use crate::deadline::{Deadline, Whose};
use crate::drivers::{Call, SourceAnswer, SourceError};
use crate::guard::{HubAsked, Picked, Place};
use crate::status::SourceHealth;
use futures_util::future::BoxFuture;
use std::time::Instant;
use tokio::runtime::Handle;

/// A request that is on its way to an endpoint.
pub(super) struct Attempt {
    request: BoxFuture<'static, Result<SourceAnswer, SourceError>>,
    /// Until it has ended.
    picked: Option<Picked>,
    /// Whether its request comes at its caller's pace.
    paced: bool,
}

/// How a call says that its source is. How long one takes whose request comes at its caller's pace says nothing of it.
pub(super) fn health<T>(result: &Result<T, SourceError>, paced: bool) -> SourceHealth {
    match result {
        Err(SourceError::Timeout) if paced => SourceHealth::Unknown,
        result => SourceError::health(result),
    }
}

impl Attempt {
    /// Begins with a call at one endpoint of a way.
    pub(super) fn new(way: &Way, picked: Picked, call: Call) -> Self {
        let paced = call.is_paced();
        Attempt { request: way.adapters[picked.at()].call(call), picked: Some(picked), paced }
    }

    /// Waits for its end, which is told to the endpoint. After a deadline of the caller's it has not ended, and may be waited for
    /// again.
    pub(super) async fn ended(&mut self, deadline: Deadline) -> Result<SourceAnswer, SourceError> {
        let result = match deadline.bound(&mut self.request).await {
            Err(Whose::Caller) => return Err(SourceError::CallerDeadline),
            Err(Whose::Operation) => Err(SourceError::Timeout),
            // What fails in the last moment may fail because of it: a source that knows the deadline ends the call, too.
            Ok(Err(error))
                if deadline.whose == Whose::Caller && error.blame().health.is_ill() && deadline.is_near() =>
            {
                Err(SourceError::CallerDeadline)
            }
            Ok(result) => result,
        };
        if let Some(picked) = self.picked.take() {
            picked.tell(health(&result, self.paced));
        }
        result
    }

    fn goes_on(&self) -> bool {
        self.picked.is_some()
    }
}

/// A call on its way to its source, with its permit. Where the caller leaves it and the guard wants to know whether the source
/// answers, it goes on until the operation's own time is over; else it ends.
pub(super) struct Flight {
    /// Taken away when it goes on.
    place: Option<Place>,
    /// The hub that it goes through, where that is watched.
    pub hub: Option<HubAsked>,
    /// Under way, or ended.
    pub first: Option<Attempt>,
    /// A read that may go on, and until when.
    until: Option<Deadline>,
    asked: Instant,
}

impl Flight {
    /// A call to a source, which is asked now; `whole`: for a read, when the operation's own time is over.
    pub(super) fn new(place: Place, whole: Option<Deadline>) -> Self {
        Flight { place: Some(place), hub: None, first: None, until: whole, asked: Instant::now() }
    }

    /// Its permit.
    pub(super) fn place(&mut self) -> Option<&mut Place> {
        self.place.as_mut()
    }

    /// An attempt begins.
    pub(super) fn begins(&mut self, attempt: Attempt) -> &mut Attempt {
        self.asked = Instant::now();
        self.first.insert(attempt)
    }

    /// The operation's own time, where the source is to have it whatever the caller's deadline is.
    pub(super) fn whole(&mut self) -> Option<Deadline> {
        let until = self.until?;
        let by_hub = self.hub.as_ref().is_some_and(HubAsked::probes);
        (by_hub || self.place.as_mut().is_some_and(Place::goes_on)).then_some(until)
    }

    /// Goes on with the call that its caller left.
    async fn go_on(mut attempt: Attempt, mut place: Place, hub: Option<HubAsked>, until: Deadline, asked: Instant) {
        let result = attempt.ended(until).await;
        let (health, ended) = (SourceError::health(&result), Instant::now());
        if let Some(hub) = hub {
            hub.tell(health, ended - asked);
        }
        place.tell(health, ended - asked, ended);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let Some(attempt) = self.first.take().filter(Attempt::goes_on) else { return };
        let Some(until) = self.whole() else { return };
        if let (Some(place), Ok(runtime)) = (self.place.take(), Handle::try_current()) {
            runtime.spawn(Flight::go_on(attempt, place, self.hub.take(), until, self.asked));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b1_how_long_a_paced_request_takes_says_nothing_of_its_source() {
        let timeout = || Err::<(), _>(SourceError::Timeout);
        assert_eq!(health(&timeout(), true), SourceHealth::Unknown);
        assert!(health(&timeout(), false).is_ill());
        let unreachable = Err::<(), _>(SourceError::Unreachable("no connection"));
        assert!(health(&unreachable, true).is_ill() && !health(&Ok::<_, SourceError>(()), true).is_ill());
    }
}
