//! The end of writers: an incarnation whose gateway has begun a later one leaves the sealed state, and its mark is deleted,
//! so that neither grows with every start of every gateway.
//!
//! What makes it safe, without any clock:
//! - A gateway begins an incarnation only after it has offered again what earlier ones have left on its disk
//!   ([`BatchWriter::begin`](super::BatchWriter::begin)). After a restore of etcd, that counts only if it was in this epoch:
//!   what was in etcd before may be on the disk alone again.
//! - The transaction holds only while no batch of the incarnation is in etcd. All that it has written is sealed then, and a
//!   majority of the sites stores it.
//! - In that transaction the mark goes. A put that arrives later, of a process that was paused or that the network has held
//!   back, has no mark to be above: it is refused, and nobody takes that for a success.
//! - The state keeps the number below which the incarnations of a gateway have ended. So whoever finds a batch of one of
//!   them, on an own disk that was away for a year, knows that it is sealed, or that it was never acknowledged.

use super::ClusterError;
use super::collect::{self, KEY_PAGE};
use super::commit::term_conditions;
use super::election::Leadership;
use super::keys::{self, CHECKPOINT, GatewayName, Incarnation, MARKS};
use super::member::{EtcdMember, RangeRead, Txn, TxnCondition, TxnOperation};
use super::members::EtcdMembers;
use super::registry::WRITER;
use super::state::SealedState;
use super::timers::Timers;
use std::collections::{BTreeMap, BTreeSet};

/// Maximum number of writers that a transaction retires: it has a condition and an operation for each, of 128.
const MAX_RETIRED: usize = 60;

/// Writers that have ended, and the state without them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retirement {
    /// The next state: the same tree.
    pub state: SealedState,
    writers: Vec<Incarnation>,
}

/// Returns what can be retired of a state; `None` if nothing can now.
///
/// # Errors
/// As for [`EtcdMembers::range`].
pub async fn plan<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    state: &SealedState,
    revision: i64,
) -> Result<Option<Retirement>, ClusterError> {
    let marks = RangeRead { limit: KEY_PAGE, keys_only: true, ..RangeRead::prefix(MARKS).at(revision) };
    let marks = collect::pages(members, marks).await?;
    let marks = marks.iter().filter_map(|entry| keys::parse_mark_key(&entry.key));
    let mut next = Retirement { state: state.clone(), writers: Vec::new() };
    for (_, ended) in ended(state, marks.chain(state.writers.keys().cloned())) {
        for writer in ended.into_iter().take(MAX_RETIRED - next.writers.len()) {
            let (from, end) = writer.batches();
            let batches = RangeRead { from, end, limit: 1, revision, keys_only: true };
            if !members.range(&batches).await?.entries.is_empty() {
                // Those above it wait for it: their end is one number.
                break;
            }
            next.retire(writer);
        }
    }
    Ok((!next.writers.is_empty()).then_some(next))
}

/// The incarnations of each gateway that have ended, lowest first: up to the first one of which a batch is missing.
fn ended(state: &SealedState, known: impl Iterator<Item = Incarnation>) -> BTreeMap<GatewayName, Vec<Incarnation>> {
    let known: BTreeSet<Incarnation> = known.collect();
    let mut latest: BTreeMap<GatewayName, u64> = BTreeMap::new();
    for writer in known.iter().filter(|writer| writer.is_of(state.epoch)) {
        latest.insert(writer.gateway.clone(), writer.number);
    }
    let mut ended: BTreeMap<GatewayName, Vec<Incarnation>> = BTreeMap::new();
    for writer in known {
        let is_later = |latest: &&u64| writer.number < **latest && writer.gateway.to_string() != WRITER;
        if latest.get(&writer.gateway).filter(is_later).is_none() {
            continue;
        }
        let has_gap = state.writers.get(&writer).is_some_and(|progress| !progress.ahead.is_empty());
        if has_gap {
            latest.remove(&writer.gateway);
        } else {
            ended.entry(writer.gateway.clone()).or_default().push(writer);
        }
    }
    ended
}

impl Retirement {
    fn retire(&mut self, writer: Incarnation) {
        self.state.writers.remove(&writer);
        self.state.retired.insert(writer.gateway.clone(), writer.number.saturating_add(1));
        self.writers.push(writer);
    }

    /// The transaction that commits it, built on the checkpoint of revision `base`.
    pub fn txn(&self, base: i64, leadership: Leadership) -> Txn {
        let mut conditions = term_conditions(base, leadership);
        let none = |writer: &Incarnation| {
            let (from, end) = writer.batches();
            TxnCondition::NoneIn(from, end)
        };
        conditions.extend(self.writers.iter().map(none));
        let mut then = vec![TxnOperation::Put(CHECKPOINT.to_vec(), self.state.encode(), 0)];
        then.extend(self.writers.iter().map(|writer| {
            let mark = writer.mark_key();
            TxnOperation::DeleteRange(mark.clone(), [mark.as_slice(), &[0]].concat())
        }));
        Txn { conditions, then, otherwise: Vec::new() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cluster::state::{AheadBatch, WriterProgress};

    fn writer(name: &str, number: u64) -> Incarnation {
        Incarnation { gateway: GatewayName::parse(name).unwrap(), number }
    }

    /// What has ended in a state of this epoch, with marks of these writers.
    fn ended_of(epoch: u64, writers: &[Incarnation], gap: Option<&Incarnation>) -> Vec<Incarnation> {
        let mut state = SealedState { epoch, ..SealedState::begin([1; 16]) };
        if let Some(gap) = gap {
            let ahead = [(7, AheadBatch { before: [0; 32], hash: [1; 32] })].into();
            state.writers.insert(gap.clone(), WriterProgress { ahead, ..WriterProgress::default() });
        }
        ended(&state, writers.iter().cloned()).into_values().flatten().collect()
    }

    #[test]
    fn only_a_writer_before_a_later_one_of_this_epoch_has_ended() {
        let first = Incarnation::next_number(0, 0, 3).unwrap();
        let second = Incarnation::next_number(0, first, 9).unwrap();
        let third = Incarnation::next_number(0, second, 1).unwrap();
        let dc1 = [first, second, third].map(|number| writer("dc1", number));
        assert_eq!(ended_of(0, &dc1, None), dc1[..2]);
        assert_eq!(ended_of(0, &dc1[..1], None), []);
        // A batch before one that is sealed is missing: it, and those after it, wait.
        assert_eq!(ended_of(0, &dc1, Some(&dc1[0])), []);
        assert_eq!(ended_of(0, &dc1, Some(&dc1[1])), dc1[..1]);
        // Other gateways say nothing about it.
        assert_eq!(ended_of(0, &[dc1[0].clone(), writer("dc2", third)], None), []);
        // After a restore of etcd, its gateway has to begin again first.
        assert_eq!(ended_of(1, &dc1, None), []);
        let again = writer("dc1", Incarnation::next_number(1, third, 0).unwrap());
        assert_eq!(ended_of(1, &[&dc1[..], &[again]].concat(), None), dc1);
        // The registry's writer does not begin with each start of a gateway.
        assert_eq!(ended_of(0, &[first, second].map(|number| writer(WRITER, number)), None), []);
    }

    #[test]
    fn a_transaction_has_as_many_operations_as_etcd_permits() {
        let mut all = Retirement { state: SealedState::begin([1; 16]), writers: Vec::new() };
        (0..MAX_RETIRED as u64).for_each(|number| all.retire(writer("dc1", number)));
        let txn = all.txn(7, Leadership { lease: 1, created: 2 });
        assert!(txn.conditions.len() <= 128 && txn.then.len() <= 128);
        assert!((0..MAX_RETIRED as u64).all(|number| all.state.is_sealed(&writer("dc1", number), 1)));
        assert!(!all.state.is_sealed(&writer("dc1", MAX_RETIRED as u64), 1));
    }
}
