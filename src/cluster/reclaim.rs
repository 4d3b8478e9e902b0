//! Room in etcd: sealed batches are deleted when a majority of the sites stores them, in a transaction of their own (in the
//! commit's, a machine that is gateway and sealer at once would leave them on one disk), and old revisions are compacted.

use super::ClusterError;
use super::commit::term_conditions;
use super::election::Leadership;
use super::keys::{self, COLLECTED, GatewayName, Incarnation, STORED};
use super::member::{EtcdMember, RangeRead, Txn, TxnOperation};
use super::members::EtcdMembers;
use super::state::SealedState;
use super::timers::Timers;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Maximum number of batches of one writer that a transaction deletes.
const MAX_DELETED: u64 = 5_000;
/// Maximum number of writers whose batches a transaction deletes: 128 operations are permitted.
const MAX_RANGES: usize = 60;
/// Maximum number of sealings that are remembered until a majority stores them; beyond, every other one is forgotten.
const MAX_SEALINGS: usize = 1024;
/// How often old revisions are compacted.
pub const COMPACT_EACH: Duration = Duration::from_secs(10);

/// Says that a site stores the first `size` entries durably.
///
/// # Errors
/// As for [`EtcdMembers::settle`].
pub async fn put_stored<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    site: &GatewayName,
    size: u64,
) -> Result<(), ClusterError> {
    let then = vec![TxnOperation::Put(site.stored_key(), keys::number(size), 0)];
    members.settle(&Txn { then, ..Txn::default() }).await.map(drop)
}

/// Returns how many entries a majority of the sites stores.
///
/// # Errors
/// As for [`EtcdMembers::range`].
pub async fn stored_by_majority<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    sites: usize,
) -> Result<u64, ClusterError> {
    let page = members.range(&RangeRead::prefix(STORED)).await?;
    let mut sizes: Vec<u64> = page.entries.iter().filter_map(|entry| keys::parse_number(&entry.value)).collect();
    sizes.sort_by(|one, other| other.cmp(one));
    Ok(sizes.get(sites / 2).copied().unwrap_or(0))
}

/// What one term has sealed and not deleted yet.
#[derive(Debug, Default)]
pub struct Reclaimer {
    /// Size and marks of sealings, oldest first.
    sealings: VecDeque<(u64, BTreeMap<Incarnation, u64>)>,
    /// Up to which number batches were deleted.
    deleted: BTreeMap<Incarnation, u64>,
    /// The revision of the last transaction of this term that put something.
    last_put: i64,
    compacted: i64,
}

impl Reclaimer {
    /// Remembers a committed state, and the revision of its transaction.
    pub fn sealed(&mut self, state: &SealedState, revision: i64) {
        let marks = state.writers.iter().map(|(writer, progress)| (writer.clone(), progress.mark));
        self.sealings.push_back((state.size(), marks.collect()));
        self.last_put = self.last_put.max(revision);
        if self.sealings.len() > MAX_SEALINGS {
            let mut index = 0usize;
            self.sealings.retain(|_| {
                index += 1;
                index.is_multiple_of(2)
            });
        }
    }

    /// Returns what may be deleted of the writers with batches in etcd: up to which number of each.
    pub fn due(&mut self, stored: u64, deletable: &BTreeSet<Incarnation>) -> Vec<(Incarnation, u64)> {
        let covered = self.sealings.iter().take_while(|(size, _)| *size <= stored).count();
        self.sealings.drain(..covered.saturating_sub(1));
        let Some((_, marks)) = self.sealings.front().filter(|(size, _)| *size <= stored) else { return Vec::new() };
        let due = deletable.iter().filter_map(|writer| {
            let (mark, deleted) = (*marks.get(writer)?, self.deleted.get(writer).copied().unwrap_or(0));
            (mark > deleted).then(|| (writer.clone(), mark.min(deleted.saturating_add(MAX_DELETED))))
        });
        due.take(MAX_RANGES).collect()
    }

    /// Deletes what is due.
    ///
    /// # Errors
    /// [`ClusterError::TermEnded`] if the checkpoint was moved by another one; as for [`EtcdMembers::transact`].
    pub async fn delete<M: EtcdMember, T: Timers>(
        &mut self,
        members: &EtcdMembers<M, T>,
        due: Vec<(Incarnation, u64)>,
        (base, leadership): (i64, Leadership),
    ) -> Result<(), ClusterError> {
        if due.is_empty() {
            return Ok(());
        }
        let outcome = members.transact(&deletion_txn(&due, base, leadership)).await?;
        if !outcome.succeeded {
            return Err(ClusterError::TermEnded);
        }
        self.last_put = self.last_put.max(outcome.header.revision);
        self.deleted.extend(due);
        Ok(())
    }

    /// Compacts below the last revision of this term at which something was put: never at the head, where a crash may lose
    /// the revision itself.
    ///
    /// # Errors
    /// As for [`EtcdMembers::send`].
    pub async fn compact<M: EtcdMember, T: Timers>(&mut self, members: &EtcdMembers<M, T>) -> Result<(), ClusterError> {
        let revision = self.last_put - 1;
        if revision <= self.compacted {
            return Ok(());
        }
        match members.send(super::members::DEADLINE, |member| member.compact(revision)).await {
            Ok(()) | Err(ClusterError::Compacted) => self.compacted = revision,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn deletion_txn(due: &[(Incarnation, u64)], base: i64, leadership: Leadership) -> Txn {
    let delete = |(writer, last): &(Incarnation, u64)| {
        TxnOperation::DeleteRange(writer.batch_key(0), writer.batch_key(last.saturating_add(1)))
    };
    let put = TxnOperation::Put(COLLECTED.to_vec(), keys::number(leadership.created.unsigned_abs()), 0);
    let then = due.iter().map(delete).chain([put]).collect();
    Txn { conditions: term_conditions(base, leadership), then, otherwise: Vec::new() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cluster::peaks::Peaks;
    use crate::cluster::state::WriterProgress;

    #[test]
    fn only_what_a_majority_stores_is_due() {
        let writer = Incarnation::parse("dc1.0000000000000001").unwrap();
        let (mut reclaimer, mut state) = (Reclaimer::default(), SealedState::begin([1; 16]));
        for mark in 1..=3 {
            state.peaks.push(b"entry");
            state.writers.insert(writer.clone(), WriterProgress { mark, ..WriterProgress::default() });
            reclaimer.sealed(&state, 10);
        }
        assert_eq!(state.peaks.size(), Peaks::default().size() + 3);
        let there = BTreeSet::from([writer.clone()]);
        assert_eq!(reclaimer.due(0, &there), []);
        assert_eq!(reclaimer.due(2, &there), [(writer.clone(), 2)]);
        assert_eq!(reclaimer.due(2, &BTreeSet::new()), []);
        reclaimer.deleted.insert(writer.clone(), 2);
        assert_eq!(reclaimer.due(2, &there), []);
        assert_eq!(reclaimer.due(9, &there), [(writer, 3)]);
    }
}
