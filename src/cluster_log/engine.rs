//! The engine: the next batch gathers while one is under way; where that takes long, it does not wait for it.

use super::own_disk::{FileDisk, locked};
use super::progress::{Progress, unavailable};
use super::spool::Spool;
use crate::cluster::batch::{EncodedBatch, MAX_BATCH_BYTES, MAX_BATCH_ENTRIES};
use crate::cluster::etcd::{EtcdChannel, Members};
use crate::cluster::timers::RuntimeTimers;
use crate::cluster::{BatchWriter, ClusterError, Timers};
use crate::exchange_log::LogError;
use crate::exchange_log::engine::{BatchLimits, BatchOutcome, EngineWriter, Health, LogEngine};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;

/// How long [`LogEngine::seal`] waits for the sealer.
const SEALED_WITHIN: Duration = Duration::from_secs(10);
/// Minimum time between the beginnings of two small batches, on average. A put costs members and gateways some milliseconds
/// of CPU whatever its size, so at most fifty a second come from each gateway until batches are large. Calls that are fewer
/// wait for none of it.
const MIN_INTERVAL: Duration = Duration::from_millis(20);
/// So many small batches in a row wait for nothing: the calls of a page that a person opens.
const BURST: u32 = 5;
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
    outcome: Mutex<Option<BatchOutcome>>,
    began: Instant,
}

impl EngineWriter for ClusterWriter {
    fn write(&mut self, batch: Vec<Vec<u8>>, outcome: BatchOutcome) {
        let contents = (batch.len() as u64, batch.iter().map(|entry| entry.len() as u64).sum());
        let batch = match self.progress.begin(|| self.batches.next_batch(batch)) {
            Ok(batch) => batch,
            Err(error) => return outcome(Err(error)),
        };
        let (progress, spool, outcome) = (self.progress.clone(), self.spool.clone(), Mutex::new(Some(outcome)));
        let way = BatchOnItsWay { progress, spool, batch, contents, outcome, began: Instant::now() };
        let (batches, members, refuse_after) = (self.batches.clone(), self.members.clone(), self.refuse_after);
        self.tasks.spawn(async move {
            let late = async {
                members.timers().sleep(refuse_after).await;
                let reason = format!("no majority of etcd has responded for {} ms", refuse_after.as_millis());
                way.refuse(&reason);
                std::future::pending::<Infallible>().await
            };
            tokio::select! {
                () = way.go(&batches, members.timers()) => {}
                never = late => match never {},
            }
        });
        // What comes meanwhile is taken along by the next one.
        self.progress.wait_for_room();
    }

    fn finish(&mut self) {
        self.progress.wait_until_told();
    }

    fn limits(&self) -> BatchLimits {
        let (bytes, entries) = (MAX_BATCH_BYTES, MAX_BATCH_ENTRIES);
        BatchLimits { bytes, entries, interval_from: 1, interval: MIN_INTERVAL, burst: BURST }
    }
}

impl BatchOnItsWay {
    /// Goes on until the batch is durable, whatever its appenders were told.
    async fn go(&self, batches: &BatchWriter<EtcdChannel, RuntimeTimers, FileDisk>, timers: &RuntimeTimers) {
        let delay = self.progress.delay();
        // A timer of no time would wait for its next tick.
        if !delay.is_zero() {
            timers.sleep(delay).await;
        }
        let seq = self.batch.seq;
        let failed = |error: &ClusterError| {
            // Of an unknown outcome another member may know more.
            if !matches!(error, ClusterError::OutcomeUnknown(_)) {
                self.refuse(&error.to_string());
            }
        };
        let written = batches.write(&self.batch, failed, || self.progress.is_kept(seq)).await;
        let through =
            |nothing_spooled| self.progress.is_durable(seq, self.contents, self.began.elapsed(), nothing_spooled);
        let joined = match written {
            Ok(()) => self.spool.join(seq, through).await,
            Err(error) => Err(error),
        };
        match joined {
            Ok(()) => self.tell(Ok(None)),
            Err(error) => {
                self.progress.stop(&error);
                self.tell(Err(unavailable(&error)));
                self.progress.refuse(seq, &error.to_string());
            }
        }
    }

    /// Tells its appenders that it is not through. It joins the log, now or later: whoever appends again appends twice.
    fn refuse(&self, reason: &str) {
        if self.progress.refuse(self.batch.seq, reason) {
            self.tell(Err(LogError::Undecided(reason.to_owned())));
        }
    }

    /// Nobody waits any more if it was refused.
    fn tell(&self, result: Result<Option<u64>, LogError>) {
        if let Some(outcome) = locked(&self.outcome).take() {
            outcome(result);
        }
    }
}

impl Drop for BatchOnItsWay {
    /// Whatever ends its task: nobody waits for it without end.
    fn drop(&mut self) {
        if locked(&self.outcome).is_some() {
            self.refuse("the task that writes it has ended");
        }
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
        let Some(runtime) = locked(&self.runtime).take() else { return };
        // Without a majority nothing is sealed: what is durable is, by whoever comes later.
        if self.progress.is_writable() {
            let _ = self.progress.wait_until_sealed(LAST_SEALED_WITHIN);
        }
        // A task of another runtime may drop the log, and must not block in this one.
        let ends = std::thread::spawn(move || runtime.shutdown_timeout(CLOSE_WITHIN));
        let _ = ends.join();
    }
}
