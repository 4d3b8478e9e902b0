//! The engine: one batch is under way at a time, the next one gathers meanwhile.

use super::own_disk::FileDisk;
use super::progress::{Progress, unavailable};
use super::spool::Spool;
use crate::cluster::batch::{EncodedBatch, MAX_BATCH_BYTES, MAX_BATCH_ENTRIES};
use crate::cluster::etcd::{EtcdChannel, Members};
use crate::cluster::timers::RuntimeTimers;
use crate::cluster::{BatchWriter, ClusterError, Timers};
use crate::exchange_log::LogError;
use crate::exchange_log::engine::{BatchLimits, EngineWriter, Health, LogEngine};
use std::pin::Pin;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;

/// How long [`LogEngine::seal`] waits for the sealer.
const SEALED_WITHIN: Duration = Duration::from_secs(10);
/// Minimum time between the beginnings of two small batches. A put costs members and gateways some milliseconds of CPU
/// whatever its size, so at most a hundred a second come from each gateway until batches are large. Calls that are fewer
/// wait for none of it.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// How long the last batches may take to be sealed and stored here when the engine is closed: a site that has everything can
/// leave the cluster at once.
const LAST_SEALED_WITHIN: Duration = Duration::from_secs(2);
/// How long a file operation that has begun may take when the engine is closed.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// The engine over etcd.
pub(super) struct ClusterEngine {
    pub(super) progress: Arc<Progress>,
    pub(super) spool: Arc<Spool>,
    pub(super) tasks: Handle,
    /// `None` once it is closed.
    pub(super) runtime: Mutex<Option<Runtime>>,
}

/// Writes this gateway's batches.
pub(super) struct ClusterWriter {
    pub(super) progress: Arc<Progress>,
    pub(super) batches: Arc<BatchWriter<EtcdChannel, RuntimeTimers, FileDisk>>,
    pub(super) spool: Arc<Spool>,
    pub(super) members: Arc<Members>,
    pub(super) tasks: Handle,
    pub(super) refuse_after: Duration,
}

/// One batch on its way.
struct BatchOnItsWay {
    progress: Arc<Progress>,
    spool: Arc<Spool>,
    batch: EncodedBatch,
    contents: (u64, u64),
    told: Sender<Result<(), LogError>>,
}

impl EngineWriter for ClusterWriter {
    fn write(&mut self, batch: Vec<Vec<u8>>) -> Result<Option<u64>, LogError> {
        // Also what was queued before the log began to refuse.
        self.progress.admits()?;
        let contents = (batch.len() as u64, batch.iter().map(|entry| entry.len() as u64).sum());
        let batch = self.batches.next_batch(batch).map_err(|error| unavailable(&error))?;
        let (seq, began) = (batch.seq, Instant::now());
        self.progress.begin(seq);
        let (told, outcome) = channel();
        let way = BatchOnItsWay { progress: self.progress.clone(), spool: self.spool.clone(), batch, contents, told };
        let (batches, members, delay) = (self.batches.clone(), self.members.clone(), self.progress.delay());
        self.tasks.spawn(async move {
            // A timer of no time would wait for its next tick.
            if !delay.is_zero() {
                members.timers().sleep(delay).await;
            }
            way.go(&batches, began).await;
        });
        let outcome = outcome.recv_timeout(self.refuse_after).or_else(|error| match error {
            RecvTimeoutError::Timeout => {
                let reason = format!("no majority of etcd has responded for {} ms", self.refuse_after.as_millis());
                match self.progress.refuse(seq, &reason) {
                    // It joins the log, now or later: whoever appends again appends twice.
                    true => Ok(Err(LogError::Undecided(reason))),
                    // It has just come through, or was refused.
                    false => outcome.recv(),
                }
            }
            RecvTimeoutError::Disconnected => outcome.recv(),
        });
        outcome.unwrap_or(Err(LogError::Closed)).map(|()| None)
    }

    fn limits(&self) -> BatchLimits {
        BatchLimits { bytes: MAX_BATCH_BYTES, entries: MAX_BATCH_ENTRIES, interval_from: 1, interval: MIN_INTERVAL }
    }
}

impl BatchOnItsWay {
    /// Goes on until the batch is durable, whatever its appenders were told.
    async fn go(self, batches: &BatchWriter<EtcdChannel, RuntimeTimers, FileDisk>, began: Instant) {
        let seq = self.batch.seq;
        let failed = |error: &ClusterError| {
            // Of an unknown outcome another member may know more.
            if !matches!(error, ClusterError::OutcomeUnknown(_)) && self.progress.refuse(seq, &error.to_string()) {
                let _ = self.told.send(Err(LogError::Undecided(error.to_string())));
            }
        };
        let written = batches.write(&self.batch, failed, || self.progress.is_kept()).await;
        let through = || self.progress.is_durable(seq, self.contents, began.elapsed());
        let joined = match written {
            Ok(()) => self.spool.join(through).await,
            Err(error) => Err(error),
        };
        let told = match joined {
            Ok(()) => Ok(()),
            Err(error) => {
                self.progress.stop(&error);
                Err(unavailable(&error))
            }
        };
        // Nobody waits any more if it was refused.
        let _ = self.told.send(told);
    }
}

impl LogEngine for ClusterEngine {
    fn admits(&self) -> Result<(), LogError> {
        self.progress.admits()
    }

    fn is_writable(&self) -> bool {
        self.progress.is_writable()
    }

    fn durable(&self) -> u64 {
        self.progress.durable()
    }

    fn earlier(&self) -> Option<u64> {
        self.progress.earlier()
    }

    fn watch_sealed(&self) -> watch::Receiver<u64> {
        self.progress.watch_sealed()
    }

    fn health(&self) -> Health {
        Health { spooled: self.spool.len() as u64, ..self.progress.health() }
    }

    fn spool(&self, entries: Vec<Vec<u8>>) -> Pin<Box<dyn Future<Output = Result<(), LogError>> + Send>> {
        let spool = self.spool.clone();
        // To its end, also if the caller goes away: a batch that was numbered has to be kept.
        let kept = self.tasks.spawn(async move { spool.take(entries).await });
        Box::pin(async move { kept.await.unwrap_or(Err(LogError::Closed)) })
    }

    fn seal(&self) -> Result<u64, LogError> {
        self.progress.wait_until_sealed(SEALED_WITHIN)
    }

    fn close(&self) {
        let Some(runtime) = super::own_disk::locked(&self.runtime).take() else { return };
        // Without a majority nothing is sealed: what is durable is, by whoever comes later.
        if self.progress.is_writable() {
            let _ = self.progress.wait_until_sealed(LAST_SEALED_WITHIN);
        }
        // A task of another runtime may drop the log, and must not block in this one.
        let ends = std::thread::spawn(move || runtime.shutdown_timeout(CLOSE_WITHIN));
        let _ = ends.join();
    }
}
