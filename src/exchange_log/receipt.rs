//! Receipts: an entry, its inclusion proof and the checkpoint that covers it, verifiable offline. The form is C2SP
//! tlog-proof (https://c2sp.org/tlog-proof), with the entry itself as its extra data.

use super::checkpoint::{Checkpoint, CheckpointError, LogVerifier};
use super::proof::{inclusion, root_of};
use super::reader::{LogReader, Published};
use super::tree::{Hash, leaf_hash};
use super::{Entry, LogError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The first line.
const MAGIC: &str = "c2sp.org/tlog-proof@v1";
/// Longest path: that of a tree of 2^63 leaves.
const MAX_PATH: usize = 63;

/// Why a receipt is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not in the form of a receipt.
    #[error("it is not in the form of a receipt (C2SP tlog-proof with its entry)")]
    Malformed,
    /// Its checkpoint.
    #[error("its checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The entry is not under the checkpoint at this index.
    #[error("its entry is not under its checkpoint")]
    NotIncluded,
}

/// An entry with the proof that it is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The entry's canonical bytes.
    pub entry: Vec<u8>,
    /// Its place in the log.
    pub index: u64,
    /// The inclusion proof.
    pub path: Vec<Hash>,
    /// The signed checkpoint.
    pub checkpoint: String,
}

impl Receipt {
    /// The receipt of an entry under the published checkpoint; `None` where it is not sealed yet, or not there.
    pub fn make(reader: &LogReader, index: u64) -> Result<Option<Self>, LogError> {
        let Some(Published { size, note }) = reader.published()?.filter(|published| index < published.size) else {
            return Ok(None);
        };
        let Some(entry) = reader.entry_bytes(index)? else { return Ok(None) };
        let path = inclusion(&|level, at| reader.node(level, at), index, size)?;
        Ok(Some(Receipt { entry, index, path, checkpoint: note }))
    }

    /// As a file (`.tlog-proof`).
    pub fn to_text(&self) -> String {
        let mut text = format!("{MAGIC}\nextra {}\nindex {}\n", STANDARD.encode(&self.entry), self.index);
        for hash in &self.path {
            text.push_str(&STANDARD.encode(hash));
            text.push('\n');
        }
        format!("{text}\n{}", self.checkpoint)
    }

    /// Reads a file.
    pub fn parse(text: &str) -> Result<Self, ReceiptError> {
        let (head, checkpoint) = text.split_once("\n\n").ok_or(ReceiptError::Malformed)?;
        let mut lines = head.lines();
        let mut next = |name: &str| lines.next().and_then(|line| line.strip_prefix(name));
        if next(MAGIC) != Some("") {
            return Err(ReceiptError::Malformed);
        }
        let entry = next("extra ").and_then(|text| STANDARD.decode(text).ok()).ok_or(ReceiptError::Malformed)?;
        let index = next("index ").ok_or(ReceiptError::Malformed)?;
        let plain = index == "0" || !index.starts_with('0') && index.bytes().all(|byte| byte.is_ascii_digit());
        let index = index.parse().ok().filter(|_| plain).ok_or(ReceiptError::Malformed)?;
        let path: Option<Vec<Hash>> = lines.map(|line| STANDARD.decode(line).ok()?.try_into().ok()).collect();
        let path = path.filter(|path| path.len() <= MAX_PATH).ok_or(ReceiptError::Malformed)?;
        Ok(Receipt { entry, index, path, checkpoint: checkpoint.to_owned() })
    }

    /// Checks signature, path and form; gives the entry and the checkpoint.
    pub fn verify(&self, verifier: &LogVerifier) -> Result<(Entry, Checkpoint), ReceiptError> {
        let checkpoint = verifier.check(&self.checkpoint)?;
        let root = root_of(leaf_hash(&self.entry), self.index, checkpoint.size, &self.path);
        if root != Some(checkpoint.root) {
            return Err(ReceiptError::NotIncluded);
        }
        let entry = Entry::from_bytes(&self.entry).ok_or(ReceiptError::Malformed)?;
        Ok((entry, checkpoint))
    }
}
