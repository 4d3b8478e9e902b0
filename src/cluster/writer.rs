//! A gateway's batches: numbered, chained, and durable on the own disk and in etcd before any response is sent.
//!
//! The put is conditional: the key must be new, and its number above the mark. So whatever becomes of a request, the same
//! put can be repeated, also by a later start of the gateway, and a put that arrives late has no effect.

use super::ClusterError;
use super::batch::{self, BatchHash, EncodedBatch, MAX_BATCH_BYTES, MAX_BATCH_ENTRIES, WriterBatch};
use super::keys::{self, CLUSTER, GatewayName, Incarnation};
use super::member::{EtcdMember, RangeRead, Txn, TxnCondition, TxnOperation, TxnOutcome};
use super::members::EtcdMembers;
use super::own_disk::OwnDisk;
use super::state::SealedState;
use super::timers::Timers;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Maximum number of batches in flight. Two are enough where the members are within 10 ms of each other.
pub const MAX_IN_FLIGHT: usize = 8;
/// Pause before the first repetition of a put at all members; doubled up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Maximum pause between two repetitions.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Writes the batches of one start of a gateway.
pub struct BatchWriter<M, T, D> {
    members: Arc<EtcdMembers<M, T>>,
    disk: Arc<D>,
    incarnation: Incarnation,
    position: Mutex<WriterPosition>,
}

/// What the next batch follows.
#[derive(Debug, Default)]
struct WriterPosition {
    seq: u64,
    hash: BatchHash,
    in_flight: usize,
}

impl<M: EtcdMember, T: Timers, D: OwnDisk> BatchWriter<M, T, D> {
    /// Begins an incarnation: its mark must not exist yet.
    ///
    /// # Errors
    /// [`ClusterError::IncarnationTaken`] if it exists, perhaps by a request of this call whose outcome was unknown: another
    /// number is drawn then. [`ClusterError::NoLog`]; otherwise as for [`EtcdMembers::settle`].
    pub async fn begin(
        members: Arc<EtcdMembers<M, T>>,
        disk: Arc<D>,
        gateway: GatewayName,
        number: u64,
    ) -> Result<Self, ClusterError> {
        let incarnation = Incarnation { gateway, number };
        let mark = incarnation.mark_key();
        let log = members.range(&RangeRead::key(CLUSTER)).await?;
        let begun = log.entries.first().ok_or(ClusterError::NoLog)?.created;
        let txn = Txn {
            // A log that leaves etcd takes its id with it: no mark is made afterwards by a start that has not seen that.
            conditions: vec![
                TxnCondition::CreatedAt(mark.clone(), 0),
                TxnCondition::CreatedAt(CLUSTER.to_vec(), begun),
            ],
            then: vec![TxnOperation::Put(mark, keys::number(0), 0)],
            otherwise: Vec::new(),
        };
        if !members.settle(&txn).await?.succeeded {
            return Err(ClusterError::IncarnationTaken(incarnation));
        }
        Ok(BatchWriter { members, disk, incarnation, position: Mutex::default() })
    }

    /// The incarnation.
    pub fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    /// Numbers a batch. From now on it has to be [`written`](BatchWriter::write), whatever becomes of its callers.
    ///
    /// # Errors
    /// [`ClusterError::Overloaded`] while as many as permitted are in flight; [`ClusterError::Refused`] for a batch without
    /// entries, or one that is too large.
    pub fn next_batch(&self, entries: Vec<Vec<u8>>) -> Result<EncodedBatch, ClusterError> {
        self.number(entries, MAX_IN_FLIGHT)
    }

    fn number(&self, entries: Vec<Vec<u8>>, max_in_flight: usize) -> Result<EncodedBatch, ClusterError> {
        let size = entries.iter().map(Vec::len).sum::<usize>();
        if entries.is_empty() || entries.len() > MAX_BATCH_ENTRIES || size > MAX_BATCH_BYTES {
            return Err(ClusterError::Refused(format!("a batch of {} entries, {size} bytes", entries.len())));
        }
        let mut position = self.position();
        if position.in_flight >= max_in_flight {
            return Err(ClusterError::Overloaded(format!("{max_in_flight} batches are in flight")));
        }
        let (writer, seq, before) = (self.incarnation.clone(), position.seq + 1, position.hash);
        let batch = WriterBatch { writer, seq, before, entries }.encode();
        position.seq = seq;
        position.hash = batch::hash(&batch.bytes);
        position.in_flight += 1;
        Ok(batch)
    }

    /// Numbers a batch that is kept on the own disk alone for now, whatever is in flight before it. From now on it has to be
    /// [`kept`](BatchWriter::keep) and [`put`](BatchWriter::put), in the order of the numbers.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] as for [`next_batch`](BatchWriter::next_batch).
    pub fn spooled_batch(&self, entries: Vec<Vec<u8>>) -> Result<EncodedBatch, ClusterError> {
        self.number(entries, usize::MAX)
    }

    /// Makes a batch durable on the own disk; repeated until it succeeds.
    ///
    /// # Errors
    /// Only such that do not pass.
    pub async fn keep(&self, batch: &EncodedBatch) -> Result<(), ClusterError> {
        keep(&*self.disk, batch, self.members.timers(), &|_| ()).await
    }

    /// Makes a batch durable in etcd that is on the own disk; repeated until it succeeds.
    ///
    /// # Errors
    /// As for [`write`](BatchWriter::write).
    pub async fn put(&self, batch: &EncodedBatch) -> Result<(), ClusterError> {
        put(&self.members, batch, &|_| ()).await?;
        self.position().in_flight -= 1;
        Ok(())
    }

    /// Makes a batch durable, and returns when it is so: on the own disk and in etcd. Its responses may be sent then.
    /// Without a success it is repeated without end, with the same bytes; each time that all members or the own disk have
    /// failed, `unavailable` is called with the reason, so that its callers can be refused; `is_kept` once it is on the own
    /// disk. The future has to be run to its end.
    ///
    /// # Errors
    /// Only such that do not pass: [`ClusterError::Conflict`], [`ClusterError::RolledBack`] … The batch counts as not
    /// written, and the log stops on this gateway.
    pub async fn write(
        &self,
        batch: &EncodedBatch,
        unavailable: impl Fn(&ClusterError) + Send + Sync,
        is_kept: impl FnOnce() + Send,
    ) -> Result<(), ClusterError> {
        let kept = async {
            keep(&*self.disk, batch, self.members.timers(), &unavailable).await?;
            is_kept();
            Ok(())
        };
        tokio::try_join!(kept, put(&self.members, batch, &unavailable))?;
        self.position().in_flight -= 1;
        Ok(())
    }

    fn position(&self) -> MutexGuard<'_, WriterPosition> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Offers the batches of earlier starts again that are not known to be sealed, before the gateway serves; returns the
/// number of the last one of each start. They keep their incarnations and numbers.
///
/// # Errors
/// As for [`BatchWriter::write`]; the own disk's.
pub async fn offer_unsealed<M: EtcdMember, T: Timers, D: OwnDisk>(
    members: &EtcdMembers<M, T>,
    disk: &D,
    state: &SealedState,
) -> Result<BTreeMap<Incarnation, u64>, ClusterError> {
    let mut last = BTreeMap::new();
    for batch in disk.unsealed(state).await? {
        put(members, &batch, &|_| ()).await?;
        last.insert(batch.writer, batch.seq);
    }
    Ok(last)
}

/// Repeats the append to the own disk until it has succeeded: the batches there follow each other without a gap, also where
/// a disk was full for a while.
async fn keep<T: Timers, D: OwnDisk>(
    disk: &D,
    batch: &EncodedBatch,
    timers: &T,
    unavailable: &(impl Fn(&ClusterError) + Sync),
) -> Result<(), ClusterError> {
    let mut pause = FIRST_PAUSE;
    loop {
        match disk.append(batch).await {
            Err(error @ ClusterError::OwnDisk(_)) => unavailable(&error),
            kept => return kept,
        }
        timers.sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Repeats the put of a batch until its outcome is known.
async fn put<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    batch: &EncodedBatch,
    unavailable: &(impl Fn(&ClusterError) + Sync),
) -> Result<(), ClusterError> {
    let (txn, mut pause) = (put_txn(batch), FIRST_PAUSE);
    loop {
        match members.settle(&txn).await {
            Ok(outcome) => return judge(batch, &outcome),
            Err(error) if error.may_pass() => unavailable(&error),
            Err(error) => return Err(error),
        }
        members.timers().sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// The put of a batch: only if its key is new, and its number above the mark.
fn put_txn(batch: &EncodedBatch) -> Txn {
    let (key, mark) = (batch.key(), batch.writer.mark_key());
    Txn {
        conditions: vec![
            TxnCondition::CreatedAt(key.clone(), 0),
            TxnCondition::ValueBelow(mark.clone(), keys::number(batch.seq)),
        ],
        then: vec![TxnOperation::Put(key.clone(), batch.bytes.clone(), 0)],
        otherwise: vec![TxnOperation::Get(key), TxnOperation::Get(mark)],
    }
}

/// Whether the batch is in etcd or sealed.
fn judge(batch: &EncodedBatch, outcome: &TxnOutcome) -> Result<(), ClusterError> {
    if outcome.succeeded {
        return Ok(());
    }
    let [there, mark] = outcome.found.as_slice() else {
        return Err(ClusterError::Refused("the response lacks what was there".into()));
    };
    let Some(mark) = mark else {
        return Err(ClusterError::RolledBack(format!("the mark of {} is gone", batch.writer)));
    };
    let is_sealed = keys::parse_number(&mark.value).is_some_and(|mark| mark >= batch.seq);
    match there {
        Some(there) if there.value == batch.bytes => Ok(()),
        None if is_sealed => Ok(()),
        _ => Err(ClusterError::Conflict { key: String::from_utf8_lossy(&batch.key()).into_owned() }),
    }
}
