//! Limits of reads of the log's files: how many may be in flight, in all and by person or client, and how many a second
//! each may begin. Reads run on separate threads ([`WorkPool`]).

use crate::shares::{ShareError, ShareMetrics, ShareRate};
use crate::status::{Reason, Refusal};
use crate::work::{WorkLimits, WorkPermit, WorkPool};
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The retry delay of an owner with too many reads in flight.
const RETRY: Duration = Duration::from_millis(500);

/// Returns the limits of one kind of reads, with the rate at which one holder may begin them.
pub const fn limits(running: usize, all: usize, each: usize, per_second: u32, burst: u32) -> WorkLimits {
    WorkLimits { running, all, each, rate: Some(ShareRate { per_second, burst }) }
}

/// Hands out permits for reads.
#[derive(Debug)]
pub struct ReadPermits(WorkPool);

/// Permission for one call to read.
pub type ReadPermit = WorkPermit;

impl ReadPermits {
    /// Makes permits with these limits.
    pub fn new(limits: WorkLimits) -> Arc<Self> {
        Self::counted(limits, Counter::default())
    }

    /// The same; `refused` counts the refused reads.
    pub fn counted(limits: WorkLimits, refused: Counter) -> Arc<Self> {
        Arc::new(ReadPermits(WorkPool::new(limits, ShareMetrics { refused, ..ShareMetrics::default() })))
    }

    /// Returns a permit for a holder, by the id of a client or a person.
    ///
    /// # Errors
    /// `RATE_LIMITED` if the owner has too many reads in flight or starts them too fast, `GATEWAY_OVERLOADED` if all holders together
    /// have too many; both say when to try again.
    pub fn begin(&self, holder: &str) -> Result<ReadPermit, Refusal> {
        self.begin_at(holder, Instant::now())
    }

    fn begin_at(&self, holder: &str, now: Instant) -> Result<ReadPermit, Refusal> {
        self.0.begin_at(holder, now).map_err(|error| {
            let (reason, wait) = match error {
                ShareError::OwnerFull(_) => (Reason::RateLimited, RETRY),
                ShareError::TooFast(wait) => (Reason::RateLimited, wait),
                ShareError::Full(_) => (Reason::GatewayOverloaded, RETRY),
            };
            Refusal { retry_after: Some(wait), ..Refusal::with(reason, format!("reads of the log: {error}")) }
        })
    }

    /// Returns the reads in flight, including those that wait for a thread.
    pub fn in_flight(&self) -> usize {
        self.0.in_flight()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn bounds() -> WorkLimits {
        limits(1, 3, 2, 10, 5)
    }

    #[test]
    fn d3_permits_are_bounded_by_holder_and_in_all_and_come_back() {
        let reads = ReadPermits::new(bounds());
        let first = reads.begin("a").unwrap();
        let second = reads.begin("a").unwrap();
        assert_eq!(reads.begin("a").unwrap_err().reason, Reason::RateLimited);
        let _third = reads.begin("b").unwrap();
        assert_eq!(reads.begin("b").unwrap_err().reason, Reason::GatewayOverloaded);
        drop(first.clone());
        assert_eq!(reads.in_flight(), 3, "a clone holds the same permit");
        drop((first, second));
        assert!(reads.begin("b").is_ok() && reads.in_flight() == 1);
    }

    #[test]
    fn d3_reads_that_begin_too_fast_are_told_when_to_come_again() {
        let (reads, start) = (ReadPermits::new(bounds()), Instant::now());
        assert_eq!((0..40).filter(|_| reads.begin_at("a", start).is_ok()).count(), 15);
        let refusal = reads.begin_at("a", start).unwrap_err();
        assert_eq!((refusal.reason, refusal.retry_after), (Reason::RateLimited, Some(Duration::from_millis(100))));
        assert!(reads.begin_at("b", start).is_ok());
    }

    #[tokio::test]
    async fn d3_a_read_that_nobody_waits_for_keeps_its_permit_and_its_thread() {
        let reads = ReadPermits::new(bounds());
        let (release, held) = std::sync::mpsc::channel::<()>();
        let permit = reads.begin("a").unwrap();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let mut first = Box::pin(async move {
            let read = move || {
                begun.send(()).unwrap();
                held.recv()
            };
            permit.run(read).await
        });
        tokio::select! {
            _ = &mut first => panic!("it reads"),
            begun = begins => begun.unwrap(),
        }
        drop(first);
        assert_eq!(reads.in_flight(), 1);
        let other = reads.begin("b").unwrap();
        let mut second = Box::pin(other.run(|| 7));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut second).await.is_err(), "one thread");
        release.send(()).unwrap();
        assert_eq!(second.await, Some(7));
    }
}
