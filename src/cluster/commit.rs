//! The one transaction that makes a sealing count.
//!
//! Safety is here alone: the checkpoint moves only if it is still the one that this sealing was built on, this term is still
//! the elected one, and the batches are at the revisions at which they were read. Nothing that was signed for it leaves the process before that.

use super::ClusterError;
use super::election::Leadership;
use super::keys::{self, CHECKPOINT, CLUSTER, Incarnation, SEALER};
use super::member::{EtcdMember, Txn, TxnCondition, TxnOperation};
use super::members::EtcdMembers;
use super::sealing::Sealing;
use super::state::{LogId, SealedState};
use super::timers::Timers;

/// The transaction that commits a sealing built on the checkpoint of revision `base`.
pub fn commit_txn(sealing: &Sealing, base: i64, leadership: Leadership) -> Txn {
    let mark = |writer: &Incarnation| {
        let mark = sealing.state.writers.get(writer).map_or(0, |progress| progress.mark);
        TxnOperation::Put(writer.mark_key(), keys::number(mark), 0)
    };
    let checkpoint = TxnOperation::Put(CHECKPOINT.to_vec(), sealing.state.encode(), 0);
    let read = |(writer, (seq, modified)): (&Incarnation, &(u64, i64))| {
        TxnCondition::ModifiedAt(writer.batch_key(*seq), *modified)
    };
    let mut conditions = term_conditions(base, leadership);
    // A member that was restored from a snapshot has other revisions, and may lack batches: what was read from it commits
    // at none of the others.
    conditions.extend(sealing.last.iter().map(read));
    Txn {
        conditions,
        then: std::iter::once(checkpoint).chain(sealing.last.keys().map(mark)).collect(),
        otherwise: Vec::new(),
    }
}

/// What must hold for whatever a sealer changes: nobody has moved the checkpoint, and nobody else was elected.
pub fn term_conditions(base: i64, leadership: Leadership) -> Vec<TxnCondition> {
    vec![
        TxnCondition::ModifiedAt(CHECKPOINT.to_vec(), base),
        TxnCondition::CreatedAt(SEALER.to_vec(), leadership.created),
    ]
}

/// Begins a log in an empty etcd, by command, once; returns whether it was begun now.
///
/// # Errors
/// As for [`EtcdMembers::settle`].
pub async fn begin_log<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    log: LogId,
) -> Result<bool, ClusterError> {
    let conditions = [CLUSTER, CHECKPOINT].map(|key| TxnCondition::CreatedAt(key.to_vec(), 0)).to_vec();
    let put = |key: &[u8], value: Vec<u8>| TxnOperation::Put(key.to_vec(), value, 0);
    let then = vec![put(CLUSTER, log.to_vec()), put(CHECKPOINT, SealedState::begin(log).encode())];
    let otherwise = vec![TxnOperation::Get(CLUSTER.to_vec())];
    members.settle_put(&Txn { conditions, then, otherwise }, &log).await
}
