//! What was promised, and whether it was kept.

use crate::cluster::batch::{EncodedBatch, WriterBatch};
use crate::cluster::peaks::Peaks;
use crate::cluster::state::SealedState;
use crate::cluster::{ClusterError, Incarnation};
use crate::exchange_log::tree::Hash;
use crate::runtime::Machine;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Everything that has left a process.
#[derive(Default)]
pub struct Model {
    /// Batches whose responses were sent.
    acknowledged: BTreeMap<(Incarnation, u64), Vec<Vec<u8>>>,
    /// Roots that were published, by size.
    published: BTreeMap<u64, Hash>,
    /// What the witnesses have cosigned last.
    pub cosigned: Option<(u64, Hash)>,
    /// Gateways that have stopped by themselves.
    pub stops: Vec<(Machine, ClusterError)>,
    /// What must never happen.
    pub violation: Option<String>,
}

impl Model {
    /// Remembers the first violation.
    pub fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// Responses were sent for a batch.
    pub fn acknowledge(&mut self, batch: &EncodedBatch) {
        let entries = WriterBatch::decode(&batch.bytes, &batch.writer, batch.seq).map(|batch| batch.entries);
        self.acknowledge_entries(batch.writer.clone(), batch.seq, entries.unwrap_or_default());
    }

    /// Responses were sent for these entries.
    pub fn acknowledge_entries(&mut self, writer: Incarnation, seq: u64, entries: Vec<Vec<u8>>) {
        let what = format!("batch {seq} of {writer} was acknowledged twice");
        if self.acknowledged.insert((writer, seq), entries).is_some() {
            self.violate(what);
        }
    }

    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    pub fn published(&self) -> u64 {
        self.published.last_key_value().map_or(0, |(size, _)| *size)
    }

    /// A checkpoint has left a process; the witnesses cosign it if they have cosigned nothing above.
    pub fn publish(&mut self, state: &SealedState) {
        if state.size() == 0 {
            return;
        }
        let (size, root) = (state.size(), state.root());
        if state.note != note(size, &root) {
            self.violate(format!("the note of {size} entries is not that of their root"));
        }
        self.publish_root(size, root);
    }

    /// A root has left a process.
    pub fn publish_root(&mut self, size: u64, root: Hash) {
        if *self.published.entry(size).or_insert(root) != root {
            self.violate(format!("two trees of {size} entries were published"));
        }
        if self.cosigned.is_none_or(|(cosigned, _)| cosigned < size) {
            self.cosigned = Some((size, root));
        }
    }

    /// Compares what was promised with the final log.
    pub fn check(&self, log: &[Vec<u8>]) -> Result<(), String> {
        let (mut peaks, mut roots) = (Peaks::default(), Vec::with_capacity(log.len() + 1));
        roots.push(peaks.root());
        for entry in log {
            peaks.push(entry);
            roots.push(peaks.root());
        }
        for (size, root) in &self.published {
            match roots.get(*size as usize) {
                None => return Err(format!("{size} entries were published, {} are there", log.len())),
                Some(there) if there != root => {
                    return Err(format!("what was published of {size} entries is no beginning"));
                }
                Some(_) => {}
            }
        }
        let mut positions: HashMap<&[u8], usize> = HashMap::new();
        for (at, entry) in log.iter().enumerate() {
            if let Some(before) = positions.insert(entry, at) {
                return Err(format!("entry {before} is sealed again at {at}"));
            }
        }
        let mut sealed = BTreeSet::new();
        for ((writer, seq), entries) in &self.acknowledged {
            let found: Option<Vec<usize>> =
                entries.iter().map(|entry| positions.get(entry.as_slice()).copied()).collect();
            let Some(found) = found.filter(|found| found.windows(2).all(|pair| pair[0] + 1 == pair[1])) else {
                return Err(format!("batch {seq} of {writer} was acknowledged and is not in the log"));
            };
            sealed.extend(found);
        }
        Ok(())
    }
}

/// A signed note, as far as the simulation has one.
pub fn note(size: u64, root: &Hash) -> String {
    use base64::Engine;
    format!("log.example\n{size}\n{}\n", base64::engine::general_purpose::STANDARD.encode(root))
}
