//! Receipts: an entry, its inclusion proof and the checkpoint that covers it, verifiable offline. The form is C2SP
//! tlog-proof (https://c2sp.org/tlog-proof), with the entry itself as its extra data.

use super::checkpoint::{Checkpoint, CheckpointError, LogVerifier, decimal};
use super::note::MAX_NOTE;
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
/// Largest receipt, in bytes: an entry of 64 kB in base64, a path, a checkpoint.
const MAX_RECEIPT: usize = (96 << 10) + MAX_NOTE;

/// The reason that a receipt is not trusted.
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
    /// Its position in the log.
    pub index: u64,
    /// The inclusion proof.
    pub path: Vec<Hash>,
    /// The signed checkpoint.
    pub checkpoint: String,
}

impl Receipt {
    /// Returns the receipt of an entry under the published checkpoint; `None` if the entry is not sealed yet or does
    /// not exist.
    ///
    /// # Errors
    /// As for [`LogReader::bundle`].
    pub fn make(reader: &LogReader, index: u64) -> Result<Option<Self>, LogError> {
        let Some(Published { size, note }) = reader.published()?.filter(|published| index < published.size) else {
            return Ok(None);
        };
        let Some(entry) = reader.entry_bytes(index)? else { return Ok(None) };
        let path = inclusion(&|level, at| reader.node(level, at), index, size)?;
        Ok(Some(Receipt { entry, index, path, checkpoint: note }))
    }

    /// Returns the text of its file (`.tlog-proof`).
    pub fn to_text(&self) -> String {
        let mut text = format!("{MAGIC}\nextra {}\nindex {}\n", STANDARD.encode(&self.entry), self.index);
        for hash in &self.path {
            text.push_str(&STANDARD.encode(hash));
            text.push('\n');
        }
        format!("{text}\n{}", self.checkpoint)
    }

    /// Reads a file, strictly by C2SP tlog-proof.
    ///
    /// # Errors
    /// [`ReceiptError::Malformed`] if it has another form, or is larger than an entry with its proof can be.
    pub fn parse(text: &str) -> Result<Self, ReceiptError> {
        read(text).ok_or(ReceiptError::Malformed)
    }

    /// Verifies signature, inclusion proof and form, and returns the entry and the checkpoint.
    ///
    /// # Errors
    /// The first check that fails: see [`ReceiptError`].
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

fn read(text: &str) -> Option<Receipt> {
    let (head, checkpoint) = text.split_once("\n\n").filter(|_| text.len() <= MAX_RECEIPT)?;
    let mut lines = head.split('\n');
    lines.next().filter(|line| *line == MAGIC)?;
    let entry = STANDARD.decode(lines.next()?.strip_prefix("extra ")?).ok()?;
    let index = decimal(lines.next()?.strip_prefix("index ")?)?;
    let path = lines.map(|line| STANDARD.decode(line).ok()?.try_into().ok()).collect::<Option<Vec<Hash>>>()?;
    (path.len() <= MAX_PATH).then(|| Receipt { entry, index, path, checkpoint: checkpoint.to_owned() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn w_a_receipt_is_read_to_the_letter() {
        let receipt = Receipt { entry: vec![1, 2], index: 7, path: vec![[9; 32]], checkpoint: "a\n8\nb\n".into() };
        let text = receipt.to_text();
        assert_eq!(Receipt::parse(&text).unwrap(), receipt);
        for wrong in [
            text.replace('\n', "\r\n"),
            text.replace("index 7", "index 07"),
            text.replace("index 7", "index +7"),
            text.replace("extra ", "extra  "),
            text.replace(MAGIC, "c2sp.org/tlog-proof@v2"),
            format!(" {text}"),
            "x".repeat(MAX_RECEIPT + 1),
        ] {
            assert_eq!(Receipt::parse(&wrong), Err(ReceiptError::Malformed), "{wrong:?}");
        }
    }
}
