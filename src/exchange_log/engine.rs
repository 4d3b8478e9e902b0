//! What an open log needs of the engine below it. There are two: the embedded one, on this machine's disk
//! alone, and that of `cluster_log`, over etcd, for a log that several gateways write.

use super::LogError;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Makes entries durable and seals them. Every response relies on this contract, which both engines have:
///
/// - **Durable**: when [`EngineWriter::write`] tells `Ok`, every entry of the batch survives a crash of the process and
///   of the machine; over etcd, also the loss of the machine and of any one data centre. Only then are its appenders told,
///   and only then may responses be sent.
/// - **Once**: each of these entries is in the log exactly once, and those of a batch follow each other in their order.
///   Their indexes are consecutive from the one that `write` tells; with `None`, they are known when the entries are
///   sealed.
/// - **Failed**: when `write` tells an error, its appenders get the error. Entries of the batch may be in the log
///   nevertheless, now or later, and once at most: that is an entry too many, never one too few. Meanwhile
///   [`admits`](LogEngine::admits) or the next `write` refuses; when the cause is gone, both succeed by themselves.
/// - **Sealed**: whatever is durable comes under a signed checkpoint without further calls, in about a second where nothing
///   has failed. A number that [`watch_sealed`](LogEngine::watch_sealed) has shown never falls.
/// - **Closed**: when [`close`](LogEngine::close) returns, nothing of this process uses the log's files any more. What is
///   durable and not sealed is sealed by the next start or by another gateway.
pub trait LogEngine: Send + Sync {
    /// Returns at once whether entries are accepted now.
    ///
    /// # Errors
    /// [`LogError::Full`] while too much waits; [`LogError::Unavailable`] while nothing can be made durable.
    fn admits(&self) -> Result<(), LogError>;

    /// Returns whether the last batch could be written, or the next one can.
    fn is_writable(&self) -> bool;

    /// Returns the number of durable entries, sealed or not. An entry whose index was returned is counted; over etcd, of
    /// entries that are not sealed only those of this gateway are known.
    fn durable(&self) -> u64;

    /// Returns a number of entries among which are all that earlier processes of this gateway have appended; `None` while it
    /// is not known yet where some of them are.
    fn earlier(&self) -> Option<u64>;

    /// Watches the number of entries that are sealed, and whose checkpoint is published here.
    fn watch_sealed(&self) -> watch::Receiver<u64>;

    /// Makes entries durable on this gateway's own disk alone, while no majority of etcd responds; they join the log by
    /// themselves, in their order, when one does. The embedded engine never needs that.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] while entries can be appended, or if the disk fails; [`LogError::Full`] beyond a bound.
    fn spool(&self, _entries: Vec<Vec<u8>>) -> Pin<Box<dyn Future<Output = Result<(), LogError>> + Send>> {
        let reason = "this log is written on this machine alone";
        Box::pin(async move { Err(LogError::Unavailable(reason.into())) })
    }

    /// Returns the present state of the log.
    fn health(&self) -> Health;

    /// Has everything sealed that is durable by this gateway's writes, and returns the size of the checkpoint. May block
    /// for some seconds.
    ///
    /// # Errors
    /// The reason that it is not sealed; it stays durable.
    fn seal(&self) -> Result<u64, LogError>;

    /// Ends the engine's own threads; [`EngineWriter::write`] is not called any more.
    fn close(&self);
}

/// The side of an engine to which one thread writes batches, one after the other.
pub trait EngineWriter: Send {
    /// Makes a batch (not empty, within [`limits`](EngineWriter::limits)) durable, and tells its outcome: the index of its
    /// first entry, or `None` if that is known only when it is sealed; [`LogError`] if it is not known to be durable, see
    /// *Failed* in the contract. Returns when the next batch may come, which may be before the outcome is told.
    fn write(&mut self, batch: Vec<Vec<u8>>, outcome: BatchOutcome);

    /// Returns when the outcome of every batch was told.
    fn finish(&mut self);

    /// Returns how much a batch may have, and how soon it may follow the one before.
    fn limits(&self) -> BatchLimits;
}

/// Receives the outcome of a batch, once.
pub type BatchOutcome = Box<dyn FnOnce(Result<Option<u64>, LogError>) + Send>;

/// An engine that is open: the side that all share, and that of the thread that writes.
pub type OpenEngine = (Arc<dyn LogEngine>, Box<dyn EngineWriter>);

/// How much a batch may have, and how soon it may follow the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Bytes of its entries.
    pub bytes: usize,
    /// Entries.
    pub entries: usize,
    /// After a batch of at least this many entries, waiting before the next write pays.
    pub interval_from: usize,
    /// Minimum time between the beginnings of two writes then, on average.
    pub interval: Duration,
    /// So many writes in a row may begin sooner after a pause.
    pub burst: u32,
}

impl BatchLimits {
    /// When writes have used up the time that they may, after one that begins now with so many entries; `spent` is the same
    /// after the one before (GCRA, the virtual scheduling of ITU-T I.371).
    pub(super) fn spend(&self, spent: Instant, now: Instant, entries: usize) -> Instant {
        let more = if entries >= self.interval_from { self.interval } else { Duration::ZERO };
        // A write that did not wait, since there was enough to write, is no debt of those after it.
        (spent.max(now) + more).min(now + self.interval * self.burst)
    }

    /// When the next write may begin.
    pub(super) fn turn(&self, spent: Instant) -> Option<Instant> {
        spent.checked_sub(self.interval * self.burst.saturating_sub(1))
    }
}

/// The states in which a log that several gateways write stops on one of them; what to do about each is in docs/cluster.md.
pub const STOPPED: [&str; 7] =
    ["ETCD_ROLLED_BACK", "ETCD_DIVERGED", "ETCD_TOO_OLD", "ETCD_EMPTY", "ETCD_REFUSES", "LOG_INCONSISTENT", "OWN_DISK"];

/// The state of the log.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Entries that are durable and not sealed.
    pub unsealed_entries: u64,
    /// Their bytes.
    pub unsealed_bytes: u64,
    /// Maximum age of the oldest of them.
    pub unsealed_age: Duration,
    /// Time since the last checkpoint was signed, or the log was opened.
    pub checkpoint_age: Duration,
    /// How long the last batch took to become durable; zero before the first.
    pub last_sync: Duration,
    /// The reason that the last sealing failed.
    pub seal_error: Option<LogError>,
    /// So many entries wait to be sealed that no more are accepted.
    pub is_full: bool,
    /// Entries that are on this gateway's own disk alone, until a majority of etcd responds.
    pub spooled: u64,
    /// The name of the state in which the log has stopped here for good, until a person has looked: one of [`STOPPED`].
    pub stopped: Option<&'static str>,
}

/// Entries are sealed at least every second: a delay of this length is a fault.
const BEHIND: Duration = Duration::from_secs(60);

impl Health {
    /// Returns whether sealing makes no progress.
    pub fn is_behind(&self) -> bool {
        self.unsealed_age > BEHIND || self.seal_error.is_some()
    }
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (entries, age) = (self.unsealed_entries, self.unsealed_age.as_secs());
        write!(f, "the exchange log is not sealed: {entries} entries wait, for {age} s")?;
        self.seal_error.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Begins writes of so many entries, each as soon as it may; returns when they have begun, in milliseconds.
    fn begin(limits: BatchLimits, start: Instant, spent: &mut Instant, sizes: &[usize]) -> Vec<u128> {
        let mut now = start;
        let begin = |entries: &usize| {
            now = limits.turn(*spent).map_or(now, |turn| turn.max(now));
            *spent = limits.spend(*spent, now, *entries);
            now.duration_since(start).as_millis()
        };
        sizes.iter().map(begin).collect()
    }

    #[test]
    fn writes_keep_their_interval_after_a_burst_and_a_pause_permits_another_one() {
        let limits = BatchLimits { bytes: 1, entries: 1, interval_from: 1, interval: 20 * MS, burst: 3 };
        let start = Instant::now() + Duration::from_secs(3_600);
        let mut spent = start;
        assert_eq!(begin(limits, start, &mut spent, &[1; 6]), [0, 0, 0, 20, 40, 60]);
        assert_eq!(begin(limits, start + 100 * MS, &mut spent, &[1; 3]), [0, 0, 20], "two of three after 40 ms");
        assert_eq!(begin(limits, start + 3_600_000 * MS, &mut spent, &[1; 4]), [0, 0, 0, 20], "never more");
        // Writes that had enough to begin at once are no debt.
        (0..100).for_each(|_| spent = limits.spend(spent, start + 3_700_000 * MS, 64));
        assert_eq!(begin(limits, start + 3_700_000 * MS, &mut spent, &[1, 1]), [20, 40]);
    }

    #[test]
    fn only_a_large_write_makes_the_next_one_wait_where_the_disk_is_this_machine_s() {
        let limits = BatchLimits { bytes: 1, entries: 1, interval_from: 20, interval: MS, burst: 1 };
        let start = Instant::now();
        assert_eq!(begin(limits, start, &mut start.clone(), &[1, 19, 20, 1, 20, 20]), [0, 0, 0, 1, 1, 2]);
    }
}
