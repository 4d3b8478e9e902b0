//! How many reads of the log's files may be under way: in all and by person or client, and how many a second each may
//! begin. Reads run on threads of their own, at most so many; a read whose caller is gone keeps its permit until its
//! thread is free again, so giving calls up gains nothing.

use crate::shares::{Rate, Share, ShareError, ShareLimits, ShareMetrics, Shares};
use crate::status::{Reason, Refusal};
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The bounds of one kind of reads.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Reads under way in all, those that wait for a thread included.
    pub total: usize,
    /// The same of one holder.
    pub per_holder: usize,
    /// Reads that one holder may begin a second, sustained.
    pub per_second: u32,
    /// Reads that one holder may begin at once above that.
    pub burst: u32,
    /// Threads that read at once.
    pub threads: usize,
}

/// When a holder with too many reads under way may try again.
const RETRY: Duration = Duration::from_millis(500);

/// Hands out permits for reads.
#[derive(Debug)]
pub struct Reads {
    shares: Arc<Shares<String>>,
    threads: Arc<Semaphore>,
}

/// Leave for one call to read; given back when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct ReadPermit(Arc<Held>);

#[derive(Debug)]
struct Held {
    threads: Arc<Semaphore>,
    _share: Share<String>,
}

impl Reads {
    /// Reads within these bounds.
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Self::counted(bounds, Counter::default())
    }

    /// The same; `refused` counts those that were not let through.
    pub fn counted(bounds: Bounds, refused: Counter) -> Arc<Self> {
        let Bounds { total, per_holder, per_second, burst, threads } = bounds;
        let limits = ShareLimits { total, per_holder, ample: 0, rate: Some(Rate { per_second, burst }) };
        let shares = Shares::new(limits, ShareMetrics { refused, ..ShareMetrics::default() });
        Arc::new(Reads { shares, threads: Arc::new(Semaphore::new(threads)) })
    }

    /// A permit for a holder, by the id of a client or a person.
    ///
    /// # Errors
    /// `RATE_LIMITED` where the holder has too many reads under way or begins them too fast, `GATEWAY_OVERLOADED` where
    /// all holders together have too many; both say when to try again.
    pub fn begin(self: &Arc<Self>, holder: &str) -> Result<ReadPermit, Refusal> {
        self.begin_at(holder, Instant::now())
    }

    fn begin_at(self: &Arc<Self>, holder: &str, now: Instant) -> Result<ReadPermit, Refusal> {
        let share = self.shares.take_at(&holder.to_owned(), 1, now).map_err(|error| {
            let (reason, wait) = match error {
                ShareError::HolderFull(_) => (Reason::RateLimited, RETRY),
                ShareError::TooFast(wait) => (Reason::RateLimited, wait),
                ShareError::Full(_) => (Reason::GatewayOverloaded, RETRY),
            };
            Refusal { retry_after: Some(wait), ..Refusal::with(reason, format!("reads of the log: {error}")) }
        })?;
        Ok(ReadPermit(Arc::new(Held { threads: self.threads.clone(), _share: share })))
    }

    /// Reads under way, those that wait for a thread included.
    pub fn under_way(&self) -> usize {
        self.shares.held()
    }
}

impl ReadPermit {
    /// Reads on a thread of the blocking pool, as soon as one of this kind is free; `None` where the read panicked or the
    /// runtime ends.
    pub async fn run<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let thread = self.0.threads.clone().acquire_owned().await.ok()?;
        let permit = self.clone();
        let read = move || {
            let read = read();
            drop((thread, permit));
            read
        };
        tokio::task::spawn_blocking(read).await.ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn bounds() -> Bounds {
        Bounds { total: 3, per_holder: 2, per_second: 10, burst: 5, threads: 1 }
    }

    #[test]
    fn d3_permits_are_bounded_by_holder_and_in_all_and_come_back() {
        let reads = Reads::new(bounds());
        let first = reads.begin("a").unwrap();
        let second = reads.begin("a").unwrap();
        assert_eq!(reads.begin("a").unwrap_err().reason, Reason::RateLimited);
        let _third = reads.begin("b").unwrap();
        assert_eq!(reads.begin("b").unwrap_err().reason, Reason::GatewayOverloaded);
        drop(first.clone());
        assert_eq!(reads.under_way(), 3, "a clone holds the same permit");
        drop((first, second));
        assert!(reads.begin("b").is_ok() && reads.under_way() == 1);
    }

    #[test]
    fn d3_reads_that_begin_too_fast_are_told_when_to_come_again() {
        let (reads, start) = (Reads::new(bounds()), Instant::now());
        assert_eq!((0..40).filter(|_| reads.begin_at("a", start).is_ok()).count(), 15);
        let refusal = reads.begin_at("a", start).unwrap_err();
        assert_eq!((refusal.reason, refusal.retry_after), (Reason::RateLimited, Some(Duration::from_millis(100))));
        assert!(reads.begin_at("b", start).is_ok());
    }

    #[tokio::test]
    async fn d3_a_read_that_nobody_waits_for_keeps_its_permit_and_its_thread() {
        let reads = Reads::new(bounds());
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
        assert_eq!(reads.under_way(), 1);
        let other = reads.begin("b").unwrap();
        let mut second = Box::pin(other.run(|| 7));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut second).await.is_err(), "one thread");
        release.send(()).unwrap();
        assert_eq!(second.await, Some(7));
    }
}
