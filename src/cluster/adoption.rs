//! How a log that one gateway has written alone comes into etcd, and goes back to one gateway.
//!
//! It comes in two transactions. The first [claims](claim) etcd for a log by its id, so that no other folder fills the same
//! etcd; then whatever belongs to it is put. The second ([`begin`]) puts the sealed state, and with it the log is there.
//!
//! It goes by one ([`leave`]): the checkpoint becomes a [`LeftLog`], and the marks and the id are deleted. A batch is put
//! only above its mark, and a mark is made only beside the id, so nothing is accepted into the log from then on; and every
//! gateway that reads the checkpoint stops. A log that has left can be begun again where it was continued: in the next
//! epoch, with the marks of its writers, so that what is sealed is sealed once.

use super::ClusterError;
use super::collect;
use super::epoch::raise_mark;
use super::guard::ConfirmedCheckpoint;
use super::keys::{self, CHECKPOINT, CLUSTER, GatewayName, MARKS, SEALER};
use super::left::LeftLog;
use super::member::{EtcdMember, KeyValue, RangeRead, Txn, TxnCondition, TxnOperation};
use super::members::EtcdMembers;
use super::state::{LogId, SealedState};
use super::timers::Timers;
use std::time::Duration;

/// How often is looked for a sealer before it is believed that no gateway runs: between two terms there is none for less than
/// a second.
const LOOKS: usize = 10;
/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// The log that etcd holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EtcdLog {
    /// None.
    Empty,
    /// One that was begun.
    Begun(SealedState),
    /// One that has left.
    Left(LeftLog),
}

/// A claim on etcd: what [`begin`] builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogClaim {
    /// The modification revision of the id.
    claimed: i64,
    /// That of the checkpoint; 0: there is none.
    checkpoint: i64,
}

async fn key_of<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    key: &[u8],
) -> Result<Option<KeyValue>, ClusterError> {
    Ok(members.range(&RangeRead::key(key)).await?.entries.into_iter().next())
}

/// Returns the log that etcd holds, whether gateways may use it or not.
///
/// # Errors
/// [`ClusterError::Malformed`]; as for [`EtcdMembers::range`].
pub async fn present<M: EtcdMember, T: Timers>(members: &EtcdMembers<M, T>) -> Result<EtcdLog, ClusterError> {
    let Some(entry) = key_of(members, CHECKPOINT).await? else { return Ok(EtcdLog::Empty) };
    match LeftLog::decode(&entry.value)? {
        Some(left) => Ok(EtcdLog::Left(left)),
        None => Ok(EtcdLog::Begun(SealedState::decode(&entry.value)?)),
    }
}

/// Claims an etcd in which no log is, or this one was until it left; repeating it does no harm.
///
/// # Errors
/// [`ClusterError::Refused`] if a log is there, or another one has claimed it; as for [`EtcdMembers::settle`].
pub async fn claim<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    log: LogId,
) -> Result<LogClaim, ClusterError> {
    let there = key_of(members, CHECKPOINT).await?;
    if let Some(entry) = &there {
        let left = LeftLog::decode(&entry.value)?;
        left.filter(|left| left.state.log == log)
            .ok_or_else(|| ClusterError::Refused("etcd holds another log".into()))?;
    }
    let checkpoint = there.map_or(0, |there| there.modified);
    let txn = Txn {
        conditions: vec![
            TxnCondition::ModifiedAt(CHECKPOINT.to_vec(), checkpoint),
            TxnCondition::CreatedAt(CLUSTER.to_vec(), 0),
        ],
        then: vec![TxnOperation::Put(CLUSTER.to_vec(), log.to_vec(), 0)],
        otherwise: vec![TxnOperation::Get(CLUSTER.to_vec())],
    };
    if !members.settle_put(&txn, &log).await? {
        let what = "another data folder fills this etcd: finish there, or give etcd's members empty folders";
        return Err(ClusterError::Refused(what.into()));
    }
    let claimed = key_of(members, CLUSTER).await?.filter(|there| there.value == log);
    let claimed = claimed.ok_or_else(|| ClusterError::Refused("the claim on etcd was taken back".into()))?.modified;
    Ok(LogClaim { claimed, checkpoint })
}

/// Puts the state that the log begins with, under a claim; repeating it does no harm. Every gateway may write from then on.
///
/// # Errors
/// [`ClusterError::Refused`] if the claim does not hold any more; as for [`EtcdMembers::settle`].
pub async fn begin<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    claim: LogClaim,
    state: &SealedState,
) -> Result<(), ClusterError> {
    for (writer, progress) in &state.writers {
        raise_mark(members, writer, progress.mark).await?;
    }
    let value = state.encode();
    let txn = Txn {
        conditions: vec![
            TxnCondition::ModifiedAt(CLUSTER.to_vec(), claim.claimed),
            TxnCondition::ModifiedAt(CHECKPOINT.to_vec(), claim.checkpoint),
        ],
        then: vec![TxnOperation::Put(CHECKPOINT.to_vec(), value.clone(), 0)],
        otherwise: vec![TxnOperation::Get(CHECKPOINT.to_vec())],
    };
    match members.settle_put(&txn, &value).await? {
        true => Ok(()),
        false => Err(ClusterError::Refused("another log was begun in this etcd meanwhile".into())),
    }
}

/// Checks that a log may leave etcd: no gateway runs, and nothing waits to be sealed.
///
/// # Errors
/// [`ClusterError::Refused`], with what to do; as for [`EtcdMembers::range`].
pub async fn may_leave<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    checkpoint: &ConfirmedCheckpoint,
) -> Result<(), ClusterError> {
    for _ in 0..LOOKS {
        if let Some(sealer) = key_of(members, SEALER).await? {
            let who = String::from_utf8_lossy(&sealer.value).into_owned();
            let who = who.split('.').next().unwrap_or_default();
            return Err(ClusterError::Refused(format!("gateway {who} runs: stop every gateway first")));
        }
        members.timers().sleep(LOOK_PAUSE).await;
    }
    unsealed(members, &checkpoint.state).await
}

async fn unsealed<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    state: &SealedState,
) -> Result<(), ClusterError> {
    let revision = members.range(&RangeRead::key(CHECKPOINT)).await?.header.revision;
    match collect::collect(members, state, revision).await?.batches.len() {
        0 => Ok(()),
        some => {
            let what = format!("{some} batches are not sealed: start a gateway, and stop it once it has sealed them");
            Err(ClusterError::Refused(what))
        }
    }
}

/// Takes the log out of etcd, for a gateway that stores all of it; repeating it does no harm.
///
/// # Errors
/// [`ClusterError::Refused`] if the checkpoint moves; as for [`confirm`] and [`EtcdMembers::settle`].
pub async fn leave<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    checkpoint: &ConfirmedCheckpoint,
    gateway: &GatewayName,
) -> Result<LeftLog, ClusterError> {
    let left = LeftLog { gateway: gateway.clone(), state: checkpoint.state.clone() };
    let value = left.encode();
    let txn = Txn {
        conditions: vec![
            TxnCondition::ModifiedAt(CHECKPOINT.to_vec(), checkpoint.entry.modified),
            TxnCondition::CreatedAt(SEALER.to_vec(), 0),
        ],
        then: vec![
            TxnOperation::Put(CHECKPOINT.to_vec(), value.clone(), 0),
            TxnOperation::DeleteRange(MARKS.to_vec(), keys::prefix_end(MARKS)),
            TxnOperation::DeleteRange(CLUSTER.to_vec(), [CLUSTER, &[0]].concat()),
        ],
        otherwise: vec![TxnOperation::Get(CHECKPOINT.to_vec())],
    };
    if !members.settle_put(&txn, &value).await? {
        return Err(ClusterError::Refused("a gateway seals meanwhile: stop every gateway first".into()));
    }
    confirm(members, &left).await?;
    Ok(left)
}

/// Checks that a log that has left took everything with it; otherwise puts it back. Before it is continued elsewhere.
///
/// # Errors
/// [`ClusterError::Refused`] if it was put back, since a batch had come in; as for [`EtcdMembers::range`].
pub async fn confirm<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    left: &LeftLog,
) -> Result<(), ClusterError> {
    let checked = unsealed(members, &left.state).await;
    if matches!(checked, Err(ClusterError::Refused(_))) {
        take_back(members, left).await?;
    }
    checked
}

/// Puts a log back that has left and was not continued, in the next epoch.
///
/// # Errors
/// As for [`claim`] and [`begin`].
pub async fn take_back<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    left: &LeftLog,
) -> Result<(), ClusterError> {
    let claim = claim(members, left.state.log).await?;
    begin(members, claim, &left.next_epoch(left.state.clone())).await
}

impl LeftLog {
    /// Returns the state with which the log is begun again, from a continuation of what it has left with.
    pub fn next_epoch(&self, continued: SealedState) -> SealedState {
        let SealedState { log, epoch, writers, .. } = self.state.clone();
        SealedState { log, epoch: epoch + 1, writers, revision: 0, ..continued }
    }
}
