//! The endpoints of a source or hub that has several: each call goes to the endpoint with the fewest calls in flight;
//! an endpoint that keeps failing is ejected until a health check has reached it again.
//!
//! Failures count in a row: a response to any client ends the row. If all failures of a row are of one client's calls,
//! which may have caused them, the endpoint is ejected for this client only. It is ejected for all as soon as another
//! client's call fails there, too, or nobody can connect to it ([`SourceHealth::Unreachable`], or a health check):
//!
//! ```text
//!   Nobody --a fails--> One(a) --b fails, or no connection--> Several
//!     ^                                                          |
//!     +------ a response, or left alone and reached again --------+
//! ```

use super::evidence::ClientKey;
use crate::status::SourceHealth;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Consecutive failures after which an endpoint is ejected.
const FAILURES: u32 = 3;
/// Minimum and maximum ejection time; it doubles each time that the endpoint returns and fails again.
const EJECTION_TIME: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// The endpoints of one way to a source, shared by all workers.
pub struct Endpoints {
    /// What they belong to, for the log.
    name: String,
    each: Vec<Endpoint>,
    /// Open HTTP/2 connections to them.
    connections: Arc<AtomicUsize>,
}

struct Endpoint {
    address: String,
    under_way: AtomicUsize,
    /// Whether it is ejected for anyone; its record has the scope. Read before each call, without a lock.
    out: AtomicBool,
    record: Mutex<FailureRecord>,
}

/// Failures in a row at one endpoint.
#[derive(Debug)]
struct FailureRecord {
    failures: u32,
    by: FailureScope,
    /// How often it was ejected since its last response.
    times: u32,
    /// Earliest end of its ejection.
    until: Instant,
}

/// Clients with failed calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailureScope {
    Nobody,
    /// Only this client.
    One(ClientKey),
    /// Several clients, or any client that would call.
    Several,
}

impl FailureScope {
    /// Adds a further failure, of a client's call; `None`: of any client that would call.
    fn and(self, client: Option<ClientKey>) -> Self {
        match (self, client) {
            (FailureScope::Nobody, Some(client)) => FailureScope::One(client),
            (FailureScope::One(before), Some(client)) if before == client => self,
            _ => FailureScope::Several,
        }
    }
}

impl Endpoint {
    fn new(address: &str) -> Self {
        let record = FailureRecord { failures: 0, by: FailureScope::Nobody, times: 0, until: Instant::now() };
        let (under_way, out) = (AtomicUsize::new(0), AtomicBool::new(false));
        Endpoint { address: address.to_owned(), under_way, out, record: Mutex::new(record) }
    }

    fn record(&self) -> MutexGuard<'_, FailureRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether it is ejected for a client; `None`: whether for all.
    fn is_ejected_for(&self, client: Option<ClientKey>) -> bool {
        self.out.load(Ordering::Relaxed)
            && match self.record().by {
                FailureScope::Nobody => false,
                FailureScope::One(one) => Some(one) == client,
                FailureScope::Several => true,
            }
    }
}

/// A client's call on its way to one endpoint.
pub struct EndpointCall {
    endpoints: Arc<Endpoints>,
    at: usize,
    client: ClientKey,
}

impl Drop for EndpointCall {
    fn drop(&mut self) {
        self.endpoints.each[self.at].under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Endpoints {
    /// Makes the endpoints of these addresses, at least one.
    pub fn new(name: &str, addresses: &[String]) -> Arc<Self> {
        let each = addresses.iter().map(|address| Endpoint::new(address)).collect();
        Arc::new(Endpoints { name: name.to_owned(), each, connections: Arc::default() })
    }

    /// Counts the open HTTP/2 connections to them, of all workers.
    pub fn connections(&self) -> &Arc<AtomicUsize> {
        &self.connections
    }

    /// Returns whether they are at these addresses.
    pub fn are_at(&self, addresses: &[String]) -> bool {
        self.each.iter().map(|one| &one.address).eq(addresses)
    }

    /// Returns each address, and whether calls go there; ejections for a single client are not considered.
    pub fn states(&self) -> impl Iterator<Item = (&str, bool)> {
        self.each.iter().map(|one| (one.address.as_str(), !one.is_ejected_for(None)))
    }

    /// Returns the endpoint with the fewest calls in flight for a client's call; the one just tried comes last. If all
    /// are ejected, all are used: an attempt is better than none.
    pub fn pick(self: &Arc<Self>, client: ClientKey, tried: Option<usize>) -> EndpointCall {
        let count = self.each.len();
        let from = if count > 1 { fastrand::usize(0..count) } else { 0 };
        let rank = |at: &usize| {
            let one = &self.each[*at];
            (one.is_ejected_for(Some(client)), Some(*at) == tried, one.under_way.load(Ordering::Relaxed))
        };
        let at = (0..count).map(|step| (from + step) % count).min_by_key(rank).unwrap_or(0);
        self.each[at].under_way.fetch_add(1, Ordering::Relaxed);
        EndpointCall { endpoints: self.clone(), at, client }
    }

    /// Returns whether there is another endpoint for a client's call.
    pub fn has_other(&self, client: ClientKey, at: usize) -> bool {
        self.each.iter().enumerate().any(|(other, one)| other != at && !one.is_ejected_for(Some(client)))
    }

    /// Records the result of a health check of an address.
    pub fn record_health_check(&self, address: &str, reached: bool) {
        let Some(at) = self.each.iter().position(|one| one.address == address) else { return };
        if !reached {
            return self.failed(at, None);
        }
        let one = &self.each[at];
        let mut record = one.record();
        if one.out.load(Ordering::Relaxed) && Instant::now() >= record.until {
            (record.failures, record.by) = (0, FailureScope::Nobody);
            one.out.store(false, Ordering::Relaxed);
            tracing::info!(of = self.name, address, "an endpoint is reached again: calls go there");
        }
    }

    /// Records a failed call of a client at an endpoint; `None`: of any client that would call.
    fn failed(&self, at: usize, client: Option<ClientKey>) {
        let one = &self.each[at];
        let mut record = one.record();
        record.failures = record.failures.saturating_add(1);
        let before = record.by;
        record.by = before.and(client);
        if self.each.len() < 2 || record.failures < FAILURES {
            return;
        }
        let left = one.out.swap(true, Ordering::Relaxed);
        if left && before == record.by {
            return;
        }
        let alone = (EJECTION_TIME.0 * 2u32.pow(record.times.min(5))).min(EJECTION_TIME.1);
        record.times = record.times.saturating_add(1);
        record.until = Instant::now() + alone;
        let for_all = record.by == FailureScope::Several;
        let (of, address, failures) = (&self.name, &one.address, record.failures);
        tracing::warn!(of, address, failures, for_all, "an endpoint keeps failing: it is left alone");
    }

    fn answered(&self, at: usize) {
        let one = &self.each[at];
        let mut record = one.record();
        (record.failures, record.times) = (0, 0);
        if record.by == FailureScope::Several && one.out.load(Ordering::Relaxed) {
            // A call that was in flight: a health check decides when others go there again.
            return;
        }
        record.by = FailureScope::Nobody;
        one.out.store(false, Ordering::Relaxed);
    }
}

impl EndpointCall {
    /// Returns the number of the endpoint.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Records how the call ended. A call that is dropped instead does not count.
    pub fn record(self, health: SourceHealth) {
        match health {
            SourceHealth::Unknown => {}
            SourceHealth::Failed => self.endpoints.failed(self.at, Some(self.client)),
            SourceHealth::Unreachable => self.endpoints.failed(self.at, None),
            SourceHealth::Responded => self.endpoints.answered(self.at),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn a() -> ClientKey {
        ClientKey::of("a")
    }

    fn three() -> Arc<Endpoints> {
        Endpoints::new("business", &["https://a", "https://b", "https://c"].map(str::to_owned))
    }

    #[test]
    fn calls_go_where_the_fewest_are_and_not_where_one_was_just_tried() {
        let endpoints = three();
        let first: Vec<EndpointCall> = (0..3).map(|_| endpoints.pick(a(), None)).collect();
        let mut places: Vec<usize> = first.iter().map(EndpointCall::at).collect();
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2]);
        let free = first.into_iter().find(|one| one.at() == 1);
        free.into_iter().for_each(|one| one.record(SourceHealth::Responded));
        assert!((0..20).all(|_| endpoints.pick(a(), None).at() != 3));
        let held = [endpoints.pick(a(), Some(0)), endpoints.pick(a(), Some(0))];
        assert!(held.iter().all(|one| one.at() != 0));
    }

    #[test]
    fn one_that_keeps_failing_is_left_alone_until_it_is_reached_again() {
        let endpoints = three();
        let out = |endpoints: &Endpoints| {
            endpoints.states().filter(|(_, up)| !up).map(|(a, _)| a.to_owned()).collect::<Vec<_>>()
        };
        for _ in 0..FAILURES {
            let picked = std::iter::repeat_with(|| endpoints.pick(a(), None)).find(|one| one.at() == 2).unwrap();
            picked.record(SourceHealth::Unreachable);
        }
        assert_eq!(out(&endpoints), ["https://c"]);
        assert!((0..50).all(|_| endpoints.pick(a(), None).at() != 2));
        assert!(endpoints.has_other(a(), 0) && endpoints.has_other(a(), 2));
        // Reached too soon: it failed a moment ago.
        endpoints.record_health_check("https://c", true);
        assert_eq!(out(&endpoints), ["https://c"]);
        endpoints.each[2].record().until = Instant::now();
        endpoints.record_health_check("https://c", true);
        assert!(out(&endpoints).is_empty());
        // Health checks alone find a dead endpoint, too; and if all are dead, they are used all the same.
        for address in ["https://a", "https://b", "https://c"] {
            (0..FAILURES).for_each(|_| endpoints.record_health_check(address, false));
        }
        assert_eq!(out(&endpoints).len(), 3);
        assert!(endpoints.pick(a(), Some(1)).at() != 1 && !endpoints.has_other(a(), 0));
    }

    #[test]
    fn b1_one_client_s_failures_mark_an_endpoint_for_this_client_alone() {
        let (endpoints, b) = (three(), ClientKey::of("b"));
        let fails = |client| {
            let picked = std::iter::repeat_with(|| endpoints.pick(client, None)).take(1_000).find(|one| one.at() == 2);
            picked.unwrap().record(SourceHealth::Failed);
        };
        let (all_up, goes) = (
            || endpoints.states().all(|(_, up)| up),
            |client| std::iter::repeat_with(|| endpoints.pick(client, None).at()).take(100).any(|at| at == 2),
        );
        (0..FAILURES).for_each(|_| fails(a()));
        assert!(all_up() && !goes(a()) && goes(b));
        // A response to another client shows that it works.
        std::iter::repeat_with(|| endpoints.pick(b, None))
            .find(|one| one.at() == 2)
            .unwrap()
            .record(SourceHealth::Responded);
        assert!(goes(a()));
        // Another client's failure shows that it does not.
        (0..FAILURES).for_each(|_| fails(a()));
        fails(b);
        assert!(!all_up() && !goes(a()) && !goes(b) && !goes(ClientKey::of("c")));
    }

    #[test]
    fn a_single_one_is_never_left_alone() {
        let one = Endpoints::new("business", &["https://a".to_owned()]);
        (0..10).for_each(|_| one.pick(a(), None).record(SourceHealth::Failed));
        assert!(one.states().all(|(_, up)| up));
    }
}
