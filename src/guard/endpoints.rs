//! The endpoints of a source or hub that has several: calls go where the fewest are under way; an endpoint that keeps failing
//! is left alone until a health check has reached it again.

use crate::status::SourceHealth;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Failures in a row after which an endpoint is left alone.
const FAILURES: u32 = 3;
/// How long it is left alone at least, and at most: twice as long each time that it comes back and fails again.
const LEFT_ALONE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// The endpoints of one way to a source, shared by all workers.
pub struct Endpoints {
    /// Of what, for the log.
    name: String,
    start: Instant,
    each: Vec<Endpoint>,
    /// HTTP/2 connections to them that are open.
    connections: Arc<AtomicUsize>,
}

struct Endpoint {
    address: String,
    under_way: AtomicUsize,
    failures: AtomicU32,
    out: AtomicBool,
    /// How often it was left alone since it last answered.
    times: AtomicU32,
    /// Until when it is left alone at least, in milliseconds after the start.
    until: AtomicU64,
}

/// A call on its way to one endpoint.
pub struct Picked {
    endpoints: Arc<Endpoints>,
    at: usize,
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.endpoints.each[self.at].under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Endpoints {
    /// Of these addresses, at least one.
    pub fn new(name: &str, addresses: &[String]) -> Arc<Self> {
        let each = addresses.iter().map(|address| Endpoint {
            address: address.clone(),
            under_way: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            out: AtomicBool::new(false),
            times: AtomicU32::new(0),
            until: AtomicU64::new(0),
        });
        Arc::new(Endpoints {
            name: name.to_owned(),
            start: Instant::now(),
            each: each.collect(),
            connections: Arc::default(),
        })
    }

    /// Counts the HTTP/2 connections to them that are open, of all workers.
    pub fn connections(&self) -> &Arc<AtomicUsize> {
        &self.connections
    }

    /// Whether they are at these addresses.
    pub fn are_at(&self, addresses: &[String]) -> bool {
        self.each.iter().map(|one| &one.address).eq(addresses)
    }

    /// Each address, and whether calls go there.
    pub fn states(&self) -> impl Iterator<Item = (&str, bool)> {
        self.each.iter().map(|one| (one.address.as_str(), !one.out.load(Ordering::Relaxed)))
    }

    /// The endpoint with the fewest calls under way, but for the one just tried; where none is left, it comes second. Where
    /// all are left alone, they are all asked: better a try than none.
    pub fn pick(self: &Arc<Self>, tried: Option<usize>) -> Picked {
        let count = self.each.len();
        let from = if count > 1 { fastrand::usize(0..count) } else { 0 };
        let rank = |at: &usize| {
            let one = &self.each[*at];
            (one.out.load(Ordering::Relaxed), Some(*at) == tried, one.under_way.load(Ordering::Relaxed))
        };
        let at = (0..count).map(|step| (from + step) % count).min_by_key(rank).unwrap_or(0);
        self.each[at].under_way.fetch_add(1, Ordering::Relaxed);
        Picked { endpoints: self.clone(), at }
    }

    /// Whether there is another one to go to.
    pub fn other_than(&self, at: usize) -> bool {
        self.each.iter().enumerate().any(|(other, one)| other != at && !one.out.load(Ordering::Relaxed))
    }

    /// Takes down what a health check of an address has found.
    pub fn checked(&self, address: &str, reached: bool) {
        let Some(at) = self.each.iter().position(|one| one.address == address) else { return };
        let one = &self.each[at];
        if !reached {
            return self.failed(at);
        }
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        if one.out.load(Ordering::Relaxed) && now >= one.until.load(Ordering::Relaxed) {
            one.failures.store(0, Ordering::Relaxed);
            one.out.store(false, Ordering::Relaxed);
            tracing::info!(of = self.name, address, "an endpoint is reached again: calls go there");
        }
    }

    fn failed(&self, at: usize) {
        let one = &self.each[at];
        let failures = one.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if self.each.len() > 1 && failures >= FAILURES && !one.out.swap(true, Ordering::Relaxed) {
            let times = one.times.fetch_add(1, Ordering::Relaxed).min(5);
            let alone = (LEFT_ALONE.0 * 2u32.pow(times)).min(LEFT_ALONE.1);
            let until = u64::try_from((self.start.elapsed() + alone).as_millis()).unwrap_or(u64::MAX);
            one.until.store(until, Ordering::Relaxed);
            tracing::warn!(
                of = self.name,
                address = one.address,
                failures,
                "an endpoint keeps failing: it is left alone"
            );
        }
    }
}

impl Picked {
    /// Which one it is.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Tells how the call ended. One that is dropped instead counts as nothing.
    pub fn tell(self, health: SourceHealth) {
        match health {
            SourceHealth::Unknown => {}
            SourceHealth::Failed | SourceHealth::Unreachable => self.endpoints.failed(self.at),
            SourceHealth::Answered => {
                let one = &self.endpoints.each[self.at];
                one.failures.store(0, Ordering::Relaxed);
                one.times.store(0, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn three() -> Arc<Endpoints> {
        Endpoints::new("business", &["https://a", "https://b", "https://c"].map(str::to_owned))
    }

    #[test]
    fn calls_go_where_the_fewest_are_and_not_where_one_was_just_tried() {
        let endpoints = three();
        let first: Vec<Picked> = (0..3).map(|_| endpoints.pick(None)).collect();
        let mut places: Vec<usize> = first.iter().map(Picked::at).collect();
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2]);
        let free = first.into_iter().find(|one| one.at() == 1);
        free.into_iter().for_each(|one| one.tell(SourceHealth::Answered));
        assert!((0..20).all(|_| endpoints.pick(None).at() != 3));
        let held = [endpoints.pick(Some(0)), endpoints.pick(Some(0))];
        assert!(held.iter().all(|one| one.at() != 0));
    }

    #[test]
    fn one_that_keeps_failing_is_left_alone_until_it_is_reached_again() {
        let endpoints = three();
        let out = |endpoints: &Endpoints| {
            endpoints.states().filter(|(_, up)| !up).map(|(a, _)| a.to_owned()).collect::<Vec<_>>()
        };
        for _ in 0..FAILURES {
            let picked = std::iter::repeat_with(|| endpoints.pick(None)).find(|one| one.at() == 2).unwrap();
            picked.tell(SourceHealth::Failed);
        }
        assert_eq!(out(&endpoints), ["https://c"]);
        assert!((0..50).all(|_| endpoints.pick(None).at() != 2));
        assert!(endpoints.other_than(0) && endpoints.other_than(2));
        // Reached too soon: it failed a moment ago.
        endpoints.checked("https://c", true);
        assert_eq!(out(&endpoints), ["https://c"]);
        endpoints.each[2].until.store(0, Ordering::Relaxed);
        endpoints.checked("https://c", true);
        assert!(out(&endpoints).is_empty());
        // Checks alone find a dead one, too; and where all are dead, they are asked all the same.
        for address in ["https://a", "https://b", "https://c"] {
            (0..FAILURES).for_each(|_| endpoints.checked(address, false));
        }
        assert_eq!(out(&endpoints).len(), 3);
        assert!(endpoints.pick(Some(1)).at() != 1 && !endpoints.other_than(0));
    }

    #[test]
    fn a_single_one_is_never_left_alone() {
        let one = Endpoints::new("business", &["https://a".to_owned()]);
        (0..10).for_each(|_| one.pick(None).tell(SourceHealth::Failed));
        assert!(one.states().all(|(_, up)| up));
    }
}
