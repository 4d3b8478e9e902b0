//! Entries that are answered while no majority of etcd responds, where policy permits it: durable on this gateway's own disk
//! alone, as batches that follow those that are stuck. They join the log in their order when these are through, before
//! anything else is accepted; a start offers them again like every batch. If this machine is lost meanwhile, they are lost.
//!
//! Bound: [`MAX_SPOOLED`] entries. Those that come while the disk is busy are written together.

use super::own_disk::{FileDisk, locked};
use super::progress::{Progress, not_kept, unavailable};
use crate::cluster::batch::{EncodedBatch, MAX_BATCH_BYTES, MAX_BATCH_ENTRIES};
use crate::cluster::etcd::EtcdChannel;
use crate::cluster::timers::RuntimeTimers;
use crate::cluster::{BatchWriter, ClusterError};
use crate::exchange_log::LogError;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

/// Entries that may wait on the own disk alone: some minutes of calls, and a few seconds of joining.
pub(super) const MAX_SPOOLED: usize = 50_000;

/// How often is looked whether the disk has the batch that is stuck, and the pause between.
const DISK_ATTEMPTS: usize = 100;
/// See [`DISK_ATTEMPTS`].
const DISK_PAUSE: Duration = Duration::from_millis(10);

type Batches = BatchWriter<EtcdChannel, RuntimeTimers, FileDisk>;

/// The entries of one gateway that wait for a majority.
pub(super) struct Spool {
    pub(super) progress: Arc<Progress>,
    pub(super) batches: Arc<Batches>,
    /// Entries that are not on the disk yet.
    waiting: Mutex<VecDeque<WaitingEntries>>,
    /// Batches that are, in their order; held while one is made.
    kept: tokio::sync::Mutex<VecDeque<(EncodedBatch, (u64, u64))>>,
    /// Number of entries in both.
    count: AtomicUsize,
}

struct WaitingEntries {
    entries: Vec<Vec<u8>>,
    told: oneshot::Sender<Result<(), LogError>>,
}

impl WaitingEntries {
    fn bytes(&self) -> usize {
        self.entries.iter().map(Vec::len).sum()
    }
}

impl Spool {
    pub(super) fn new(progress: Arc<Progress>, batches: Arc<Batches>) -> Self {
        let (waiting, kept, count) = (Mutex::default(), Default::default(), AtomicUsize::new(0));
        Spool { progress, batches, waiting, kept, count }
    }

    /// Number of entries that are on the own disk alone.
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Makes entries durable on the own disk; they stay together, and in order.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] while there is no outage, or the disk fails; [`LogError::Full`] beyond the bound.
    pub(super) async fn take(&self, entries: Vec<Vec<u8>>) -> Result<(), LogError> {
        self.wait_for_the_disk().await?;
        let number = entries.len();
        if self.count.fetch_add(number, Ordering::Relaxed) + number > MAX_SPOOLED {
            self.count.fetch_sub(number, Ordering::Relaxed);
            return Err(LogError::Full);
        }
        let (told, outcome) = oneshot::channel();
        locked(&self.waiting).push_back(WaitingEntries { entries, told });
        self.keep_waiting().await;
        let outcome = outcome.await.unwrap_or(Err(LogError::Closed));
        if outcome.is_err() {
            self.count.fetch_sub(number, Ordering::Relaxed);
        }
        outcome
    }

    /// etcd may have refused the batch that is stuck before the own disk has it.
    async fn wait_for_the_disk(&self) -> Result<(), LogError> {
        for _ in 0..DISK_ATTEMPTS {
            if self.progress.may_spool()? {
                return Ok(());
            }
            tokio::time::sleep(DISK_PAUSE).await;
        }
        Err(not_kept())
    }

    /// Writes what waits in one batch, if nobody else has meanwhile.
    async fn keep_waiting(&self) {
        let mut kept = self.kept.lock().await;
        let waiting = self.next();
        if waiting.is_empty() {
            return;
        }
        let (mut entries, mut told) = (Vec::new(), Vec::new());
        for one in waiting {
            entries.extend(one.entries);
            told.push(one.told);
        }
        let contents = (entries.len() as u64, entries.iter().map(|entry| entry.len() as u64).sum());
        // It may have ended just now: then they are appended as usual.
        let outcome = match self.progress.number_spooled(|| self.batches.spooled_batch(entries)) {
            Ok(batch) => {
                // Repeated until it succeeds: the batches on the disk follow each other without a gap.
                let stored = self.batches.keep(&batch).await.map_err(|error| unavailable(&error));
                kept.push_back((batch, contents));
                stored
            }
            Err(error) => Err(error),
        };
        // Nobody waits any more if its caller is gone.
        told.into_iter().for_each(|told| drop(told.send(outcome.clone())));
    }

    /// Takes as much of what waits as one batch has room for.
    fn next(&self) -> Vec<WaitingEntries> {
        let mut waiting = locked(&self.waiting);
        let (mut next, mut entries, mut bytes) = (Vec::new(), 0, 0);
        while let Some(one) = waiting.front() {
            entries += one.entries.len();
            bytes += one.bytes();
            if !next.is_empty() && (entries > MAX_BATCH_ENTRIES || bytes > MAX_BATCH_BYTES) {
                break;
            }
            next.extend(waiting.pop_front());
        }
        next
    }

    /// Puts everything that was kept into etcd, in order, once batch `after` is through; then `done` is called with whether
    /// nothing is left, before anything else can be kept. While other batches are under way, what is left joins after the last of
    /// them: so it is never far ahead of a batch that is missing, and none is accepted meanwhile that could be ahead of it.
    ///
    /// # Errors
    /// As for [`BatchWriter::write`]: only such that do not pass.
    pub(super) async fn join(&self, after: u64, done: impl FnOnce(bool)) -> Result<(), ClusterError> {
        let mut joined = 0;
        loop {
            let mut kept = self.kept.lock().await;
            let next = if self.progress.is_last(after) { kept.pop_front() } else { None };
            let Some((batch, contents)) = next else {
                done(kept.is_empty());
                if joined > 0 {
                    tracing::info!(entries = joined, "what was answered without a majority of etcd has joined the log");
                }
                return Ok(());
            };
            drop(kept);
            self.batches.put(&batch).await?;
            self.progress.has_joined(batch.seq, contents);
            joined += contents.0;
            self.count.fetch_sub(usize::try_from(contents.0).unwrap_or(usize::MAX), Ordering::Relaxed);
        }
    }
}
