//! A batch as it is on the gateway's own disk and in etcd: the same bytes.
//!
//! The bytes name the writer, the number, and the SHA-256 of the batch before it. So a batch that is put under another
//! key, left out or exchanged is noticed by the sealer.
//!
//! The entries are compressed together, as one LZ4 block: entries of one time name the same systems, operations and
//! officials, and each byte of a batch is encrypted, sent, synced and kept by three members, and read by every site.

use super::ClusterError;
use super::codec::{Decoder, Encoder};
use super::keys::Incarnation;
use aws_lc_rs::digest::{SHA256, digest};

/// Maximum bytes of a batch's entries, before they are compressed; etcd keeps thousands of puts in memory.
pub const MAX_BATCH_BYTES: usize = 128 << 10;
/// Maximum number of a batch's entries.
pub const MAX_BATCH_ENTRIES: usize = 4096;
/// Before each batch: the format and its version.
const MAGIC: &[u8; 8] = b"ndxpbat2";
/// Before a batch whose entries are not compressed. It is read alone: an own disk keeps such for a week.
const MAGIC_BEFORE: &[u8; 8] = b"ndxpbat1";
/// Maximum bytes of what is compressed: entries, each after its length, and their number. Whatever a block says of itself, no
/// more memory is taken for it.
const MAX_CONTENTS: usize = MAX_BATCH_BYTES + 4 * MAX_BATCH_ENTRIES + 8;

/// The SHA-256 of a batch; zeros before the first one.
pub type BatchHash = [u8; 32];

/// Entries that become durable together, by one writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterBatch {
    /// Who wrote it.
    pub writer: Incarnation,
    /// Its number, from 1. A number is never used for other bytes.
    pub seq: u64,
    /// The hash of the batch before it.
    pub before: BatchHash,
    /// Its entries, not none.
    pub entries: Vec<Vec<u8>>,
}

/// A batch that is ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedBatch {
    /// Who wrote it.
    pub writer: Incarnation,
    /// Its number.
    pub seq: u64,
    /// What is written.
    pub bytes: Vec<u8>,
}

/// The hash of a batch's bytes.
pub fn hash(bytes: &[u8]) -> BatchHash {
    let mut hash = BatchHash::default();
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

impl WriterBatch {
    /// Returns the bytes. The writer keeps the bounds ([`MAX_BATCH_BYTES`], [`MAX_BATCH_ENTRIES`]): a batch beyond them is
    /// not read by any sealer.
    pub fn encode(&self) -> EncodedBatch {
        let size = 8 + self.entries.iter().map(|entry| entry.len() + 4).sum::<usize>();
        let mut contents = Encoder(Vec::with_capacity(size));
        contents.u64(self.entries.len() as u64);
        for entry in &self.entries {
            contents.bytes(entry);
        }
        let mut out = Encoder::default();
        out.fixed(MAGIC).bytes(self.writer.to_string().as_bytes()).u64(self.seq).fixed(&self.before);
        out.u64(contents.0.len() as u64).bytes(&lz4_flex::block::compress(&contents.0));
        EncodedBatch { writer: self.writer.clone(), seq: self.seq, bytes: out.0 }
    }

    /// Reads a batch, and checks that it is the one that its key names.
    ///
    /// # Errors
    /// [`ClusterError::Malformed`].
    pub fn decode(bytes: &[u8], writer: &Incarnation, seq: u64) -> Result<Self, ClusterError> {
        let wrong = |reason: &str| ClusterError::malformed(format!("batch {seq} of {writer}"), reason);
        let batch = read(bytes).ok_or_else(|| wrong("not in the form of a batch"))?;
        if batch.writer != *writer || batch.seq != seq {
            return Err(wrong("is another batch"));
        }
        let size = batch.entries.iter().map(Vec::len).sum::<usize>();
        if batch.entries.is_empty() || batch.entries.len() > MAX_BATCH_ENTRIES || size > MAX_BATCH_BYTES {
            return Err(wrong("has no entries, or too many"));
        }
        Ok(batch)
    }
}

impl EncodedBatch {
    /// Reads the bytes of a batch from the own disk.
    ///
    /// # Errors
    /// [`ClusterError::Malformed`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, ClusterError> {
        let wrong = || ClusterError::malformed("a batch on the own disk", "not in the form of a batch");
        let WriterBatch { writer, seq, .. } = read(&bytes).ok_or_else(wrong)?;
        Ok(EncodedBatch { writer, seq, bytes })
    }

    /// The key in etcd.
    pub fn key(&self) -> Vec<u8> {
        self.writer.batch_key(self.seq)
    }
}

fn read(bytes: &[u8]) -> Option<WriterBatch> {
    let (magic, rest) = bytes.split_first_chunk()?;
    let mut decoder = Decoder(rest);
    let writer = Incarnation::decode(&mut decoder)?;
    let (seq, before) = (decoder.u64()?, decoder.fixed()?);
    let mut contents = Vec::new();
    match magic {
        MAGIC => {
            let (size, block) = (usize::try_from(decoder.u64()?).ok()?, decoder.bytes()?);
            decoder.end()?;
            contents.resize(Some(size).filter(|size| *size <= MAX_CONTENTS)?, 0);
            lz4_flex::block::decompress_into(block, &mut contents).ok().filter(|written| *written == size)?;
            decoder = Decoder(&contents);
        }
        MAGIC_BEFORE => {}
        _ => return None,
    }
    let entries = (0..decoder.count(4)?).map(|_| decoder.bytes().map(<[u8]>::to_vec)).collect::<Option<Vec<_>>>()?;
    decoder.end()?;
    Some(WriterBatch { writer, seq, before, entries })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn batch() -> WriterBatch {
        let writer = Incarnation::parse("dc1.0123456789abcdef").unwrap();
        WriterBatch { writer, seq: 3, before: [7; 32], entries: vec![b"one".to_vec(), Vec::new(), vec![0; 1000]] }
    }

    #[test]
    fn a_batch_is_read_back_under_its_own_key_only() {
        let (batch, encoded) = (batch(), batch().encode());
        assert_eq!(WriterBatch::decode(&encoded.bytes, &batch.writer, 3).unwrap(), batch);
        assert_eq!(EncodedBatch::from_bytes(encoded.bytes.clone()).unwrap(), encoded);
        assert!(WriterBatch::decode(&encoded.bytes, &batch.writer, 4).is_err());
        let other = Incarnation::parse("dc2.0123456789abcdef").unwrap();
        assert!(WriterBatch::decode(&encoded.bytes, &other, 3).is_err());
    }

    #[test]
    fn no_bytes_beside_a_batch_are_accepted() {
        let bytes = batch().encode().bytes;
        for length in 0..bytes.len() {
            assert!(EncodedBatch::from_bytes(bytes[..length].to_vec()).is_err(), "{length}");
        }
        assert!(EncodedBatch::from_bytes([bytes.as_slice(), b"x"].concat()).is_err());
    }

    #[test]
    fn a_batch_of_the_format_before_is_read() {
        let (batch, mut out) = (batch(), Encoder::default());
        out.fixed(MAGIC_BEFORE).bytes(batch.writer.to_string().as_bytes()).u64(batch.seq).fixed(&batch.before);
        out.u64(batch.entries.len() as u64);
        for entry in &batch.entries {
            out.bytes(entry);
        }
        assert_eq!(WriterBatch::decode(&out.0, &batch.writer, 3).unwrap(), batch);
        out.fixed(b"x");
        assert!(WriterBatch::decode(&out.0, &batch.writer, 3).is_err());
    }

    /// A batch with these contents, of which it says that they are so long.
    fn with(contents: &[u8], size: u64) -> Result<EncodedBatch, ClusterError> {
        let mut out = Encoder::default();
        out.fixed(MAGIC).bytes(b"dc1.0123456789abcdef").u64(1).fixed(&[0; 32]).u64(size);
        out.bytes(&lz4_flex::block::compress(contents));
        EncodedBatch::from_bytes(out.0)
    }

    #[test]
    fn a_block_or_a_count_takes_no_more_memory_than_a_batch_may_have() {
        let contents = [&1_u64.to_be_bytes()[..], &3_u32.to_be_bytes(), b"one"].concat();
        assert!(with(&contents, 15).is_ok());
        for size in [0, 14, 16, MAX_CONTENTS as u64 + 1, u64::MAX] {
            assert!(with(&contents, size).is_err(), "{size}");
        }
        assert!(with(&u64::MAX.to_be_bytes(), 8).is_err());
        // Some kilobytes that would become 16 MB.
        assert!(with(&vec![0; 16 << 20], 16 << 20).is_err());
        assert!(with(&vec![0; 16 << 20], MAX_CONTENTS as u64).is_err());
    }

    #[test]
    fn the_largest_batches_are_read_back_also_where_nothing_can_be_compressed() {
        let writer = batch().writer;
        let mut random = fastrand::Rng::with_seed(7);
        for entries in
            [vec![(0..MAX_BATCH_BYTES).map(|_| random.u8(..)).collect()], vec![vec![7; 32]; MAX_BATCH_ENTRIES]]
        {
            let batch = WriterBatch { writer: writer.clone(), seq: 1, before: [0; 32], entries };
            assert_eq!(WriterBatch::decode(&batch.encode().bytes, &writer, 1).unwrap(), batch);
        }
    }
}
