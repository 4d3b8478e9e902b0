//! Reads the batches that are not sealed yet, at one revision: keys first, then the values of those that are needed, page
//! by page. The order of the log is the order of their modification revisions.

use super::ClusterError;
use super::batch::{self, WriterBatch};
use super::keys::{self, Incarnation, LOG};
use super::member::{EtcdMember, KeyValue, RangeRead};
use super::members::EtcdMembers;
use super::peaks::Peaks;
use super::sealing::{CollectedBatch, Collection, Sealing, plan};
use super::state::SealedState;
use super::timers::Timers;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Keys of a page without values: some 60 kB.
pub(super) const KEY_PAGE: i64 = 1000;
/// Batches of a page: 2 MB at most, below the 4 MB that gRPC's clients accept.
const BATCH_PAGE: i64 = 16;
/// Batches of a piece of what is rebuilt: 8 MB at most. The simulator's logs are short, and have several pieces all the same.
const PIECE_BATCHES: usize = if cfg!(simulator) { 3 } else { 64 };
/// Maximum number of batches of a sealing: 64 MB. In the simulator, a sealing often leaves some for the next one.
pub const MAX_BATCHES: usize = if cfg!(simulator) { 64 } else { 512 };
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
    let taken = cut(&mut open, revision);
    // At the revision of the keys, not at that of the last one taken, which may be compacted by now: a batch is put once.
    let batches = read_batches(members, &open, revision).await?;
    Ok(Collection { revision: taken, batches, deletable })
}

/// The entries between two sealed states, by the batches that are still in etcd: proven as a whole, and read once more
/// piece by piece, so that memory holds one of them at a time.
pub struct Rebuild {
    revision: i64,
    /// The tree before the next piece.
    before: Peaks,
    pieces: VecDeque<BatchPiece>,
}

/// Batches that follow each other, and the tree after them.
struct BatchPiece {
    batches: Vec<(i64, Incarnation, u64)>,
    after: Peaks,
    /// If it is the only one.
    entries: Option<Vec<Vec<u8>>>,
}

/// Entries that follow each other.
pub struct RebuiltPiece {
    /// The tree before them.
    pub before: Peaks,
    /// The entries.
    pub entries: Vec<Vec<u8>>,
    /// The tree after them.
    pub after: Peaks,
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
) -> Result<Option<Rebuild>, ClusterError> {
    let mut open = batch_keys(members, from, revision).await?.open;
    open.retain(|(modified, writer, seq)| *modified <= to.revision && to.is_sealed(writer, *seq));
    // Without reading any of them: some are deleted.
    if (open.len() as u64) < to.batches_since(from) {
        return Ok(None);
    }
    open.sort();
    let (mut state, mut pieces) = (from.clone(), VecDeque::new());
    let is_one = open.len() <= PIECE_BATCHES;
    for batches in open.chunks(PIECE_BATCHES) {
        let collection = Collection {
            revision: to.revision,
            batches: read_batches(members, batches, revision).await?,
            deletable: BTreeSet::new(),
        };
        let Ok(Sealing { state: next, entries, .. }) = plan(&state, &collection) else { return Ok(None) };
        let (batches, after) = (batches.to_vec(), next.peaks.clone());
        pieces.push_back(BatchPiece { batches, after, entries: is_one.then_some(entries) });
        state = next;
    }
    let before = from.peaks.clone();
    Ok((state.peaks == to.peaks).then_some(Rebuild { revision, before, pieces }))
}

impl Rebuild {
    /// Returns the next piece; `None` after the last one.
    ///
    /// # Errors
    /// [`ClusterError::OutcomeUnknown`] if etcd does not return what it has returned before; as for [`collect`].
    pub async fn next<M: EtcdMember, T: Timers>(
        &mut self,
        members: &EtcdMembers<M, T>,
    ) -> Result<Option<RebuiltPiece>, ClusterError> {
        let Some(BatchPiece { batches, after, entries }) = self.pieces.pop_front() else { return Ok(None) };
        let before = std::mem::replace(&mut self.before, after.clone());
        let entries = match entries {
            Some(entries) => entries,
            None => {
                let read = read_batches(members, &batches, self.revision).await?;
                read.into_iter().flat_map(|collected| collected.batch.entries).collect()
            }
        };
        let mut grown = before.clone();
        entries.iter().for_each(|entry| grown.push(entry));
        if grown != after {
            return Err(ClusterError::OutcomeUnknown("etcd returns other batches than a moment ago".into()));
        }
        Ok(Some(RebuiltPiece { before, entries, after }))
    }
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
pub(super) async fn pages<M: EtcdMember, T: Timers>(
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
