//! How many reads of the log's files may be under way: in all and by person or client, and how many a second each may
//! begin. Reads run on threads of their own, at most so many; a read whose caller is gone keeps its permit until its
//! thread is free again, so giving calls up gains nothing.

use crate::status::{Reason, Refusal};
use foldhash::HashMap;
use prometheus_client::metrics::counter::Counter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// Holders that are remembered before those at rest are forgotten.
const MAX_AT_REST: usize = 1_024;
/// When a holder with too many reads under way may try again.
const RETRY: Duration = Duration::from_millis(500);

/// Hands out permits for reads. A lock for each beginning and end of a read, never over an await.
#[derive(Debug)]
pub struct Reads {
    bounds: Bounds,
    threads: Arc<Semaphore>,
    holders: Mutex<Holders>,
    refused: Counter,
}

#[derive(Debug, Default)]
struct Holders {
    under_way: usize,
    by_id: HashMap<String, Holder>,
}

#[derive(Debug)]
struct Holder {
    under_way: usize,
    tokens: f64,
    refilled: Instant,
}

/// Leave for one call to read; given back when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct ReadPermit(Arc<Held>);

#[derive(Debug)]
struct Held {
    reads: Arc<Reads>,
    holder: String,
}

impl Reads {
    /// Reads within these bounds.
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Self::counted(bounds, Counter::default())
    }

    /// The same; `refused` counts those that were not let through.
    pub fn counted(bounds: Bounds, refused: Counter) -> Arc<Self> {
        let threads = Arc::new(Semaphore::new(bounds.threads));
        Arc::new(Reads { bounds, threads, holders: Mutex::default(), refused })
    }

    /// A permit for a holder, by the id of a client or a person.
    ///
    /// # Errors
    /// `RATE_LIMITED` where the holder has too many reads under way or begins them too fast, `GATEWAY_OVERLOADED` where
    /// all holders together have too many; both say when to try again.
    pub fn begin(self: &Arc<Self>, holder: &str) -> Result<ReadPermit, Refusal> {
        self.begin_at(holder, Instant::now()).inspect_err(|_| {
            self.refused.inc();
        })
    }

    fn begin_at(self: &Arc<Self>, id: &str, now: Instant) -> Result<ReadPermit, Refusal> {
        let Bounds { total, per_holder, per_second, burst, .. } = self.bounds;
        let most = f64::from(per_second) + f64::from(burst);
        let mut holders = self.lock();
        let free = holders.under_way < total;
        if holders.by_id.len() >= MAX_AT_REST && !holders.by_id.contains_key(id) {
            // One that is at rest and has its whole rate is as good as unknown.
            let rest = Duration::from_secs_f64(most / f64::from(per_second.max(1)));
            holders.by_id.retain(|_, one| one.under_way > 0 || now.duration_since(one.refilled) < rest);
        }
        let holder = holders.by_id.entry(id.to_owned());
        let holder = holder.or_insert_with(|| Holder { under_way: 0, tokens: most, refilled: now });
        let passed = now.saturating_duration_since(holder.refilled).as_secs_f64();
        holder.tokens = (holder.tokens + passed * f64::from(per_second)).min(most);
        holder.refilled = now;
        if holder.under_way >= per_holder {
            let detail = format!("{per_holder} reads at once");
            return Err(Refusal { retry_after: Some(RETRY), ..Refusal::with(Reason::RateLimited, detail) });
        }
        if holder.tokens < 1.0 {
            let wait = Duration::from_secs_f64((1.0 - holder.tokens) / f64::from(per_second.max(1)));
            return Err(Refusal::retry(Reason::RateLimited, wait));
        }
        if !free {
            let detail = "too many reads of the log are under way";
            return Err(Refusal { retry_after: Some(RETRY), ..Refusal::with(Reason::GatewayOverloaded, detail) });
        }
        holder.tokens -= 1.0;
        holder.under_way += 1;
        holders.under_way += 1;
        Ok(ReadPermit(Arc::new(Held { reads: self.clone(), holder: id.to_owned() })))
    }

    /// Reads under way, those that wait for a thread included.
    pub fn under_way(&self) -> usize {
        self.lock().under_way
    }

    fn lock(&self) -> MutexGuard<'_, Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadPermit {
    /// Reads on a thread of the blocking pool, as soon as one of this kind is free; `None` where the read panicked or the
    /// runtime ends.
    pub async fn run<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let thread = self.0.reads.threads.clone().acquire_owned().await.ok()?;
        let permit = self.clone();
        let read = move || {
            let read = read();
            drop((thread, permit));
            read
        };
        tokio::task::spawn_blocking(read).await.ok()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut holders = self.reads.lock();
        holders.under_way -= 1;
        if let Some(holder) = holders.by_id.get_mut(&self.holder) {
            holder.under_way -= 1;
        }
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
    fn d3_a_rate_is_each_holder_s_own_and_holders_at_rest_are_forgotten() {
        let (reads, start) = (Reads::new(bounds()), Instant::now());
        assert_eq!((0..40).filter(|_| reads.begin_at("a", start).is_ok()).count(), 15);
        let refusal = reads.begin_at("a", start).unwrap_err();
        assert_eq!((refusal.reason, refusal.retry_after), (Reason::RateLimited, Some(Duration::from_millis(100))));
        assert!(reads.begin_at("b", start).is_ok());
        assert!(reads.begin_at("a", start + Duration::from_millis(101)).is_ok());
        for number in 0..10_000u64 {
            let at = start + Duration::from_millis(10 * number);
            assert!(reads.begin_at(&format!("c{number}"), at).is_ok());
        }
        assert!(reads.lock().by_id.len() <= MAX_AT_REST + 1);
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
