//! Reads the batches that are not sealed yet, at one revision: keys first, then the values of those that are needed, page
//! by page. The order of the log is the order of their modification revisions.

use super::ClusterError;
use super::batch::{self, WriterBatch};
use super::keys::{self, Incarnation, LOG};
use super::member::{EtcdMember, KeyValue, RangeRead};
use super::members::EtcdMembers;
use super::sealing::{CollectedBatch, Collection, plan};
use super::state::SealedState;
use super::timers::Timers;
use std::collections::{BTreeMap, BTreeSet};

/// Keys of a page without values: some 60 kB.
const KEY_PAGE: i64 = 1000;
/// Batches of a page: 2 MB at most, below the 4 MB that gRPC's clients accept.
const BATCH_PAGE: i64 = 16;
/// Maximum number of batches of a sealing: 64 MB.
pub const MAX_BATCHES: usize = 512;
/// Maximum number of writers of a sealing: a commit puts a mark for each, and etcd permits 128 operations.
pub const MAX_WRITERS: usize = 100;

/// The keys of the batches in etcd.
#[derive(Default)]
struct BatchKeys {
    /// Of those that are not sealed: modification revision, writer and number.
    open: Vec<(i64, Incarnation, u64)>,
    deletable: BTreeSet<Incarnation>,
}

/// Collects the batches that are not sealed in `state`, as they are at `revision`.
///
/// # Errors
/// [`ClusterError::Malformed`] if there is anything else under their prefix; as for [`EtcdMembers::range`].
pub async fn collect<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    state: &SealedState,
    revision: i64,
) -> Result<Collection, ClusterError> {
    let BatchKeys { mut open, deletable } = batch_keys(members, state, revision).await?;
    let revision = cut(&mut open, revision);
    let batches = read_batches(members, &open, revision).await?;
    Ok(Collection { revision, batches, deletable })
}

/// Rebuilds the entries from one sealed state to a later one, from the batches that are still in etcd; `None` if some of
/// them are not: another site has the tiles.
///
/// # Errors
/// As for [`collect`].
pub async fn rebuild<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    from: &SealedState,
    to: &SealedState,
    revision: i64,
) -> Result<Option<Vec<Vec<u8>>>, ClusterError> {
    let mut open = batch_keys(members, from, revision).await?.open;
    open.retain(|(modified, writer, seq)| *modified <= to.revision && to.is_sealed(writer, *seq));
    open.sort();
    let batches = read_batches(members, &open, revision).await?;
    let collection = Collection { revision: to.revision, batches, deletable: BTreeSet::new() };
    let rebuilt = plan(from, &collection);
    Ok(rebuilt.ok().filter(|rebuilt| rebuilt.state.peaks == to.peaks).map(|rebuilt| rebuilt.entries))
}

async fn batch_keys<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    state: &SealedState,
    revision: i64,
) -> Result<BatchKeys, ClusterError> {
    let mut found = BatchKeys::default();
    let all = RangeRead { limit: KEY_PAGE, keys_only: true, ..RangeRead::prefix(LOG).at(revision) };
    for entry in pages(members, all).await? {
        let (writer, seq) = keys::parse_batch_key(&entry.key)?;
        if state.is_sealed(&writer, seq) {
            found.deletable.insert(writer);
        } else {
            found.open.push((entry.modified, writer, seq));
        }
    }
    Ok(found)
}

/// Sorts the batches, and takes as many as one sealing may have; returns the revision up to which all are taken.
fn cut(open: &mut Vec<(i64, Incarnation, u64)>, revision: i64) -> i64 {
    open.sort();
    let mut writers = BTreeSet::new();
    let mut fits = |(_, writer, _): &(i64, Incarnation, u64)| {
        writers.insert(writer.clone());
        writers.len() <= MAX_WRITERS
    };
    let fitting = open.iter().take_while(|batch| fits(batch)).count().min(MAX_BATCHES);
    if fitting == open.len() {
        return revision;
    }
    open.truncate(fitting);
    open.last().map_or(0, |(modified, ..)| *modified)
}

/// Reads batches whose keys are known, in this order.
async fn read_batches<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    open: &[(i64, Incarnation, u64)],
    revision: i64,
) -> Result<Vec<CollectedBatch>, ClusterError> {
    let mut spans: BTreeMap<&Incarnation, (u64, u64)> = BTreeMap::new();
    for (_, writer, seq) in open {
        let span = spans.entry(writer).or_insert((*seq, *seq));
        *span = (span.0.min(*seq), span.1.max(*seq));
    }
    let mut values = BTreeMap::new();
    for (writer, (first, last)) in spans {
        let (from, end) = (writer.batch_key(first), writer.batch_key(last.saturating_add(1)));
        let span = RangeRead { from, end, limit: BATCH_PAGE, revision, keys_only: false };
        values.extend(pages(members, span).await?.into_iter().map(|entry| (entry.key, entry.value)));
    }
    let read = |(modified, writer, seq): &(i64, Incarnation, u64)| {
        let missing = || ClusterError::malformed(format!("batch {seq} of {writer}"), "was not there a moment later");
        let bytes = values.get(&writer.batch_key(*seq)).ok_or_else(missing)?;
        let (batch, hash) = (WriterBatch::decode(bytes, writer, *seq)?, batch::hash(bytes));
        Ok(CollectedBatch { batch, hash, modified: *modified })
    };
    open.iter().map(read).collect()
}

/// Reads a range to its end, by pages of its limit.
async fn pages<M: EtcdMember, T: Timers>(
    members: &EtcdMembers<M, T>,
    mut read: RangeRead,
) -> Result<Vec<KeyValue>, ClusterError> {
    let mut all = Vec::new();
    loop {
        let page = members.range(&read).await?;
        let last = page.entries.last().map(|entry| entry.key.clone());
        all.extend(page.entries);
        let Some(last) = last.filter(|_| page.has_more) else { return Ok(all) };
        read.from = [last.as_slice(), &[0]].concat();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_sealing_takes_the_oldest_batches_up_to_its_bounds() {
        let writer = |number| Incarnation::parse(&format!("dc1.{number:016x}")).unwrap();
        let mut few: Vec<_> = (1..=10).rev().map(|at: i64| (at, writer(1), at.unsigned_abs())).collect();
        assert_eq!((cut(&mut few, 99), few.len(), few[0].0), (99, 10, 1));
        let mut many: Vec<_> = (1..=600).rev().map(|at: i64| (at, writer(1), at.unsigned_abs())).collect();
        assert_eq!((cut(&mut many, 999), many.len()), (512, MAX_BATCHES));
        let mut writers: Vec<_> = (1..=150).map(|at: i64| (at, writer(at.unsigned_abs()), 1)).collect();
        assert_eq!((cut(&mut writers, 999), writers.len()), (100, MAX_WRITERS));
    }
}
