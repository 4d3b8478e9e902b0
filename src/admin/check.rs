//! A check of a source on demand: whether each of its addresses can be reached now, by the same health check that the gateway makes of
//! sources with several addresses. It requests no personal data, and no breaker or endpoint changes by it.

use super::api;
use super::messages::refused;
use crate::access::staff::StaffAuthorizer;
use crate::exchange_log::Entry;
use crate::identity::principal::Principal;
use crate::registry::Actor;
use crate::status::{Reason, Refusal};
use futures_util::future::BoxFuture;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tonic::Status;

/// Checks the addresses of a source of a gateway that runs; `None` if there is no such source.
pub type SourceChecker = Arc<dyn Fn(String) -> Option<BoxFuture<'static, Vec<api::AddressCheck>>> + Send + Sync>;

/// Shortest time from one check of a source to the next, for all callers together.
const EVERY: Duration = Duration::from_secs(5);

/// When each source was checked last: as many as the configuration has.
#[derive(Debug, Default)]
pub(super) struct LastChecks(Mutex<HashMap<String, Instant>>);

impl LastChecks {
    /// Begins a check, or returns how long its source is left alone yet.
    fn begin(&self, source: &str, now: Instant) -> Result<(), Duration> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = all.get(source).map_or(now, |last| *last + EVERY);
        if next > now {
            return Err(next - now);
        }
        all.insert(source.to_owned(), now);
        Ok(())
    }
}

/// Checks a source in somebody's name; the entry `source.check` is in the log first.
pub(super) async fn check(
    (checker, last): (&SourceChecker, &LastChecks),
    (door, caller, actor): (&StaffAuthorizer, &Principal, &Actor),
    (event, source): (&str, String),
) -> Result<api::CheckSourceResponse, Status> {
    let unknown = || refused(Refusal::with(Reason::ObjectUnknown, "there is no such source"));
    let checks = checker(source.clone()).ok_or_else(unknown)?;
    last.begin(&source, Instant::now()).map_err(|wait| {
        let detail = format!("a source is checked every {} seconds at most", EVERY.as_secs());
        refused(Refusal { retry_after: Some(wait), ..Refusal::with(Reason::RateLimited, detail) })
    })?;
    let object = format!("source:{source}");
    let entry = Entry { actor: actor.to_string(), object, ..door.event(caller, event) };
    door.note(&entry).await.map_err(refused)?;
    Ok(api::CheckSourceResponse { checks: checks.await })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_left_alone_between_checks_and_the_others_are_not() {
        let (last, now) = (LastChecks::default(), Instant::now());
        assert_eq!((last.begin("land", now), last.begin("population", now)), (Ok(()), Ok(())));
        assert_eq!(last.begin("land", now + Duration::from_secs(2)), Err(Duration::from_secs(3)));
        assert_eq!(last.begin("land", now + EVERY), Ok(()));
    }
}
