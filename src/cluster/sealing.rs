//! The next sealed state: a function of the one before and the batches in their order.

use super::ClusterError;
use super::batch::{BatchHash, WriterBatch};
use super::keys::Incarnation;
use super::state::SealedState;
use std::collections::{BTreeMap, BTreeSet};

/// A batch that is not sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectedBatch {
    /// The batch.
    pub batch: WriterBatch,
    /// The hash of its bytes.
    pub hash: BatchHash,
    /// Its modification revision.
    pub modified: i64,
}

/// Batches that are not sealed, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collection {
    /// Every batch that was put up to this revision is here or sealed.
    pub revision: i64,
    /// The batches.
    pub batches: Vec<CollectedBatch>,
    /// Writers with batches in etcd that are sealed.
    pub deletable: BTreeSet<Incarnation>,
}

/// A sealing that is not committed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealing {
    /// The next state.
    pub state: SealedState,
    /// The entries that it adds, in the order of the log.
    pub entries: Vec<Vec<u8>>,
    /// The writers whose batches it adds: number and modification revision of the last one of each.
    pub last: BTreeMap<Incarnation, (u64, i64)>,
}

/// Computes the state after these batches.
///
/// # Errors
/// [`ClusterError::ChainBroken`].
pub fn plan(base: &SealedState, collection: &Collection) -> Result<Sealing, ClusterError> {
    let mut state = SealedState { note: String::new(), revision: collection.revision, ..base.clone() };
    let (mut entries, mut last) = (Vec::new(), BTreeMap::new());
    for collected in &collection.batches {
        state.add(&collected.batch, collected.hash)?;
        entries.extend(collected.batch.entries.iter().cloned());
        last.insert(collected.batch.writer.clone(), (collected.batch.seq, collected.modified));
    }
    Ok(Sealing { state, entries, last })
}
