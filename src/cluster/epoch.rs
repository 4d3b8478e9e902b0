//! The end of an epoch: etcd was restored as a whole, every gateway that had seen more has stopped, and an administrator,
//! with a second person, begins again from what the sites store.
//!
//! [`begin`] puts a checkpoint that is never smaller than what the witnesses have cosigned, with the marks of its writers:
//! what was published stays a beginning of the log, and what is sealed is sealed once. [`enter`] is each gateway's part at
//! its next start: it accepts the new epoch if its own tiles are a beginning of it, and makes the marks of its earlier
//! starts that the restored etcd does not have, so that what is only on its disk can be offered again.
//!
//! etcd has to be restored with `--bump-revision` and `--mark-compacted`, and with a new token: no revision of before is
//! given again, and no request of before arrives.

use super::ClusterError;
use super::collect;
use super::guard::{self, ConfirmedCheckpoint};
use super::highest::HighestSeen;
use super::keys::{self, CHECKPOINT, CLUSTER, Incarnation};
use super::member::{EtcdMember, Txn, TxnCondition, TxnOperation};
use super::members::EtcdMembers;
use super::own_disk::OwnDisk;
use super::site::SiteTiles;
use super::state::SealedState;
use super::timers::Timers;
use crate::exchange_log::tree::Hash;
use std::collections::BTreeSet;

/// What a new epoch is begun from.
#[derive(Debug, Clone)]
pub struct EpochBasis {
    /// The largest state that a site stores.
    pub stored: SealedState,
    /// Size and root of the largest checkpoint that any witness has cosigned.
    pub cosigned: Option<(u64, Hash)>,
    /// The root of as many entries by the tiles of that site.
    pub root_at_cosigned: Option<Hash>,
}

/// Begins the next epoch in a restored etcd, or in an empty one; returns its first state. Repeating it after a failure does
/// no harm.
///
/// # Errors
/// [`ClusterError::RolledBack`] if the basis lacks what was cosigned, or etcd holds another log;
/// [`ClusterError::Diverged`] if the restored checkpoint and the basis do not continue each other;
/// [`ClusterError::TermEnded`] if the checkpoint moves meanwhile: a gateway still seals; as for [`EtcdMembers::settle`].
pub async fn begin<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    basis: &EpochBasis,
) -> Result<SealedState, ClusterError> {
    let restored = match guard::confirmed(members).await {
        Ok(restored) => Some(restored),
        Err(ClusterError::NoLog) => None,
        Err(error) => return Err(error),
    };
    let largest = largest(members, &basis.stored, restored.as_ref()).await?;
    check_cosigned(&largest, basis)?;
    let epoch = restored.as_ref().map_or(0, |restored| restored.state.epoch).max(basis.stored.epoch) + 1;
    let state = SealedState { epoch, revision: 0, ..largest };
    for (writer, progress) in &state.writers {
        raise_mark(members, writer, progress.mark).await?;
    }
    let modified = restored.map_or(0, |restored| restored.entry.modified);
    let (put, value) = (|key: &[u8], value: Vec<u8>| TxnOperation::Put(key.to_vec(), value, 0), state.encode());
    let txn = Txn {
        conditions: vec![TxnCondition::ModifiedAt(CHECKPOINT.to_vec(), modified)],
        then: vec![put(CLUSTER, state.log.to_vec()), put(CHECKPOINT, value.clone())],
        otherwise: vec![TxnOperation::Get(CHECKPOINT.to_vec())],
    };
    if members.settle_put(&txn, &value).await? { Ok(state) } else { Err(ClusterError::TermEnded) }
}

/// Returns the larger one of the stored and the restored state, if it continues the other.
async fn largest<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    stored: &SealedState,
    restored: Option<&ConfirmedCheckpoint>,
) -> Result<SealedState, ClusterError> {
    let Some(ConfirmedCheckpoint { header, state, .. }) = restored else { return Ok(stored.clone()) };
    if state.log != stored.log {
        return Err(ClusterError::RolledBack("etcd holds another log".to_owned()));
    }
    if state.size() < stored.size() {
        return Ok(stored.clone());
    }
    if state.size() == stored.size() {
        return match state.root() == stored.root() {
            true => Ok(state.clone()),
            false => Err(ClusterError::Diverged(format!("etcd has another tree of {} entries", state.size()))),
        };
    }
    match collect::rebuild(members, stored, state, header.revision).await? {
        Some(_) => Ok(state.clone()),
        None => Err(ClusterError::Diverged(format!(
            "the {} entries of the restored checkpoint cannot be shown to continue the {} that a site stores",
            state.size(),
            stored.size()
        ))),
    }
}

fn check_cosigned(state: &SealedState, basis: &EpochBasis) -> Result<(), ClusterError> {
    let Some((size, root)) = basis.cosigned else { return Ok(()) };
    let there = if state.size() == size { Some(state.root()) } else { basis.root_at_cosigned };
    if state.size() < size {
        let (most, what) = (state.size(), "find the site that stores them");
        return Err(ClusterError::RolledBack(format!("{size} entries were cosigned, {most} are there: {what}")));
    }
    match there == Some(root) {
        true => Ok(()),
        false => Err(ClusterError::RolledBack(format!("the witnesses have cosigned another tree of {size} entries"))),
    }
}

/// Raises a mark, or makes it; one that is as high stays.
pub(super) async fn raise_mark<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    writer: &Incarnation,
    mark: u64,
) -> Result<(), ClusterError> {
    let (key, value) = (writer.mark_key(), keys::number(mark));
    for condition in [TxnCondition::ValueBelow(key.clone(), value.clone()), TxnCondition::CreatedAt(key.clone(), 0)] {
        let then = vec![TxnOperation::Put(key.clone(), value.clone(), 0)];
        members.settle(&Txn { conditions: vec![condition], then, otherwise: Vec::new() }).await?;
    }
    Ok(())
}

/// Enters the epoch that etcd is in, if this gateway has not; returns whether it has now. Before everything else of a start:
/// afterwards, [`guard::checked`] holds and [`offer_unsealed`](super::writer::offer_unsealed) can be called.
///
/// # Errors
/// [`ClusterError::RolledBack`] if the epoch is of another log, or this site stores what the epoch does not have; as for
/// [`guard::confirmed`] and [`EtcdMembers::settle`]; the own disk's.
pub async fn enter<M: EtcdMember, T: Timers, D: OwnDisk, S: SiteTiles>(
    members: &EtcdMembers<M, T>,
    disk: &D,
    tiles: &S,
) -> Result<bool, ClusterError> {
    let Some(highest) = disk.highest().await? else { return Ok(false) };
    let ConfirmedCheckpoint { header, state, .. } = guard::confirmed(members).await?;
    if state.epoch <= highest.epoch {
        return Ok(false);
    }
    if state.log != highest.log {
        return Err(ClusterError::RolledBack("epoch of another log".to_owned()));
    }
    let stored = tiles.stored().await?;
    if stored.size() > state.size() || stored.size() == state.size() && stored.root() != state.root() {
        let (here, there) = (stored.size(), state.size());
        let what = format!("this site stores {here} entries that epoch {} with {there} does not continue", state.epoch);
        return Err(ClusterError::RolledBack(what));
    }
    members.accept(&header);
    let open = disk.unsealed(&state).await?;
    let writers: BTreeSet<&Incarnation> = open.iter().map(|batch| &batch.writer).collect();
    for writer in writers {
        let mark = state.writers.get(writer).map_or(0, |progress| progress.mark);
        raise_mark(members, writer, mark).await?;
    }
    disk.store_highest(&HighestSeen::of(&header, &state)).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_epoch_is_never_below_what_was_cosigned() {
        let mut stored = SealedState::begin([1; 16]);
        let basis =
            |cosigned, root_at_cosigned| EpochBasis { stored: SealedState::begin([1; 16]), cosigned, root_at_cosigned };
        assert_eq!(check_cosigned(&stored, &basis(None, None)), Ok(()));
        stored.peaks.push(b"entry");
        let root = stored.root();
        stored.peaks.push(b"another");
        assert!(check_cosigned(&stored, &basis(Some((1, root)), Some(root))).is_ok());
        assert!(check_cosigned(&stored, &basis(Some((2, stored.root())), None)).is_ok());
        for wrong in [(1, [7; 32]), (2, [7; 32]), (3, root)] {
            assert!(check_cosigned(&stored, &basis(Some(wrong), Some(root))).is_err(), "{wrong:?}");
        }
        assert!(check_cosigned(&stored, &basis(Some((1, root)), None)).is_err());
    }
}
