//! The value of the key `checkpoint`: everything that the next sealing builds on, in one value, so that it moves as one.

use super::ClusterError;
use super::batch::{BatchHash, WriterBatch};
use super::codec::{Decoder, Encoder};
use super::keys::{GatewayName, Incarnation};
use super::peaks::Peaks;
use crate::exchange_log::tree::Hash;
use std::collections::BTreeMap;

/// Before each value: the format and its version.
const MAGIC: &[u8; 8] = b"ndxpseal";
/// Maximum number of batches of one writer that are sealed while one before them is missing: more than are ever in flight.
pub const MAX_AHEAD: usize = 64;

/// The random id of a log, made once.
pub type LogId = [u8; 16];

/// What is sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SealedState {
    /// The log.
    pub log: LogId,
    /// Raised each time that an administrator has restored etcd.
    pub epoch: u64,
    /// The tree.
    pub peaks: Peaks,
    /// The signed note of its root; empty before the first.
    pub note: String,
    /// Every batch whose modification revision is not above this is sealed.
    pub revision: i64,
    /// How far each writer's batches are sealed.
    pub writers: BTreeMap<Incarnation, WriterProgress>,
    /// The incarnations of each gateway below this number have ended: all that they have written is sealed.
    pub retired: BTreeMap<GatewayName, u64>,
}

/// How far batches are sealed in a state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SealedMarks {
    marks: BTreeMap<Incarnation, u64>,
    retired: BTreeMap<GatewayName, u64>,
}

impl SealedMarks {
    /// Whether a writer's batches up to a number are sealed.
    pub fn covers(&self, writer: &Incarnation, seq: u64) -> bool {
        is_retired(&self.retired, writer) || self.marks.get(writer).is_some_and(|mark| seq <= *mark)
    }
}

fn is_retired(retired: &BTreeMap<GatewayName, u64>, writer: &Incarnation) -> bool {
    retired.get(&writer.gateway).is_some_and(|below| writer.number < *below)
}

/// How far one writer's batches are sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriterProgress {
    /// All batches up to this number are sealed.
    pub mark: u64,
    /// The hash of the batch of that number.
    pub hash: BatchHash,
    /// Batches above it that are sealed while one before them is missing.
    pub ahead: BTreeMap<u64, AheadBatch>,
}

/// A batch that was sealed before the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AheadBatch {
    /// What it names as the hash of the batch before it.
    pub before: BatchHash,
    /// Its own hash.
    pub hash: BatchHash,
}

impl SealedState {
    /// The state of a log without entries.
    pub fn begin(log: LogId) -> Self {
        SealedState { log, ..SealedState::default() }
    }

    /// Number of entries.
    pub fn size(&self) -> u64 {
        self.peaks.size()
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        self.peaks.root()
    }

    /// Whether a batch is sealed.
    pub fn is_sealed(&self, writer: &Incarnation, seq: u64) -> bool {
        let progress = self.writers.get(writer);
        is_retired(&self.retired, writer)
            || progress.is_some_and(|progress| seq <= progress.mark || progress.ahead.contains_key(&seq))
    }

    /// Returns up to which number the batches of each writer are sealed.
    pub fn marks(&self) -> SealedMarks {
        let marks = self.writers.iter().map(|(writer, progress)| (writer.clone(), progress.mark));
        SealedMarks { marks: marks.collect(), retired: self.retired.clone() }
    }

    /// Returns how many batches are sealed in this state and not in an earlier one, of writers that it still knows.
    pub fn batches_since(&self, earlier: &SealedState) -> u64 {
        let sealed = |progress: &WriterProgress| progress.mark + progress.ahead.len() as u64;
        let since = |(writer, progress): (&Incarnation, &WriterProgress)| {
            sealed(progress).saturating_sub(earlier.writers.get(writer).map_or(0, sealed))
        };
        self.writers.iter().map(since).sum()
    }

    /// Adds a batch that is not sealed yet.
    ///
    /// # Errors
    /// [`ClusterError::ChainBroken`] if it does not follow the one before it, or too many before it are missing.
    pub fn add(&mut self, batch: &WriterBatch, hash: BatchHash) -> Result<(), ClusterError> {
        let progress = self.writers.entry(batch.writer.clone()).or_default();
        progress.ahead.insert(batch.seq, AheadBatch { before: batch.before, hash });
        let broken = |seq| ClusterError::ChainBroken { writer: batch.writer.clone(), seq };
        while let Some(next) = progress.ahead.remove(&(progress.mark + 1)) {
            if next.before != progress.hash {
                return Err(broken(progress.mark + 1));
            }
            (progress.mark, progress.hash) = (progress.mark + 1, next.hash);
        }
        if progress.ahead.len() > MAX_AHEAD {
            return Err(broken(batch.seq));
        }
        batch.entries.iter().for_each(|entry| self.peaks.push(entry));
        Ok(())
    }

    /// Returns the value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.fixed(MAGIC).fixed(&self.log).u64(self.epoch).u64(self.revision.unsigned_abs());
        out.bytes(self.note.as_bytes()).u64(self.peaks.size()).u64(self.peaks.hashes().len() as u64);
        out.fixed(self.peaks.hashes().as_flattened()).u64(self.writers.len() as u64);
        for (writer, progress) in &self.writers {
            out.bytes(writer.to_string().as_bytes()).u64(progress.mark).fixed(&progress.hash);
            out.u64(progress.ahead.len() as u64);
            for (seq, batch) in &progress.ahead {
                out.u64(*seq).fixed(&batch.before).fixed(&batch.hash);
            }
        }
        out.u64(self.retired.len() as u64);
        for (gateway, below) in &self.retired {
            out.bytes(gateway.to_string().as_bytes()).u64(*below);
        }
        out.0
    }

    /// Reads the value.
    ///
    /// # Errors
    /// [`ClusterError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ClusterError> {
        read(bytes).ok_or_else(|| ClusterError::malformed("checkpoint", "not in the form of a sealed state"))
    }
}

fn read(bytes: &[u8]) -> Option<SealedState> {
    let mut decoder = Decoder(bytes.strip_prefix(MAGIC)?);
    let (log, epoch, revision) = (decoder.fixed()?, decoder.u64()?, i64::try_from(decoder.u64()?).ok()?);
    let (note, size) = (decoder.text()?.to_owned(), decoder.u64()?);
    let hashes = (0..decoder.count(32)?).map(|_| decoder.fixed()).collect::<Option<_>>()?;
    let peaks = Peaks::new(size, hashes)?;
    let mut writers = BTreeMap::new();
    for _ in 0..decoder.count(48)? {
        let writer = Incarnation::decode(&mut decoder)?;
        let (mark, hash) = (decoder.u64()?, decoder.fixed()?);
        let ahead = (0..decoder.count(72)?)
            .map(|_| Some((decoder.u64()?, AheadBatch { before: decoder.fixed()?, hash: decoder.fixed()? })));
        writers.insert(writer, WriterProgress { mark, hash, ahead: ahead.collect::<Option<_>>()? });
    }
    let retired = (0..decoder.count(13)?).map(|_| Some((GatewayName::parse(decoder.text()?)?, decoder.u64()?)));
    let retired = retired.collect::<Option<_>>()?;
    decoder.end()?;
    Some(SealedState { log, epoch, peaks, note, revision, writers, retired })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cluster::batch;

    fn chain(count: u64) -> Vec<(WriterBatch, BatchHash)> {
        let writer = Incarnation::parse("dc1.0123456789abcdef").unwrap();
        let mut before = BatchHash::default();
        let next = |seq: u64| {
            let batch = WriterBatch { writer: writer.clone(), seq, before, entries: vec![seq.to_be_bytes().to_vec()] };
            before = batch::hash(&batch.encode().bytes);
            (batch, before)
        };
        (1..=count).map(next).collect()
    }

    #[test]
    fn batches_are_marked_in_any_order_and_the_state_is_read_back() {
        let chain = chain(4);
        let writer = &chain[0].0.writer;
        let mut state = SealedState { note: "note".into(), revision: 7, ..SealedState::begin([9; 16]) };
        state.retired = [("dc1", 5), ("dc2", 9)].map(|(name, below)| (GatewayName::parse(name).unwrap(), below)).into();
        for at in [1, 0, 3] {
            state.add(&chain[at].0, chain[at].1).unwrap();
            assert_eq!(SealedState::decode(&state.encode()).unwrap(), state);
        }
        assert_eq!((state.writers[writer].mark, state.size()), (2, 3));
        assert_eq!([1, 2, 3, 4].map(|seq| state.is_sealed(writer, seq)), [true, true, false, true]);
        state.add(&chain[2].0, chain[2].1).unwrap();
        assert_eq!(state.writers[writer], WriterProgress { mark: 4, hash: chain[3].1, ahead: BTreeMap::new() });
    }

    #[test]
    fn all_that_a_retired_writer_has_written_counts_as_sealed() {
        let writer = |number| Incarnation { gateway: GatewayName::parse("dc1").unwrap(), number };
        let mut state = SealedState::begin([9; 16]);
        state.writers.insert(writer(7), WriterProgress { mark: 3, ..WriterProgress::default() });
        state.retired.insert(writer(7).gateway, 7);
        let other = Incarnation { gateway: GatewayName::parse("dc2").unwrap(), number: 6 };
        for (writer, seq, is_sealed) in [
            (writer(6), 1, true),
            (writer(6), 99, true),
            (writer(7), 3, true),
            (writer(7), 4, false),
            (other, 1, false),
        ] {
            assert_eq!(state.is_sealed(&writer, seq), is_sealed, "{writer} {seq}");
            assert_eq!(state.marks().covers(&writer, seq), is_sealed, "{writer} {seq}");
        }
    }

    #[test]
    fn a_batch_that_names_another_one_before_it_is_refused() {
        let mut chain = chain(2);
        chain[1].0.before = [1; 32];
        for order in [[0, 1], [1, 0]] {
            let mut state = SealedState::begin([9; 16]);
            let added: Vec<_> = order.into_iter().map(|at: usize| state.add(&chain[at].0, chain[at].1)).collect();
            assert!(added[0].is_ok() && matches!(added[1], Err(ClusterError::ChainBroken { seq: 2, .. })), "{added:?}");
        }
    }

    #[test]
    fn no_bytes_beside_a_state_are_accepted() {
        let mut state = SealedState::begin([9; 16]);
        chain(3).iter().skip(1).for_each(|(batch, hash)| state.add(batch, *hash).unwrap());
        state.retired.insert(GatewayName::parse("dc2").unwrap(), 9);
        let bytes = state.encode();
        for length in 0..bytes.len() {
            assert!(SealedState::decode(&bytes[..length]).is_err(), "{length}");
        }
        assert!(SealedState::decode(&[bytes.as_slice(), b"x"].concat()).is_err());
    }
}
