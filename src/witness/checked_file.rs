//! What was read of a log's entries, in a file: so that a restart does not begin with the first one. Whoever cannot read it
//! reads them all again.

use super::checked::{Checked, Tree};
use crate::cluster::peaks::Peaks;
use crate::exchange_log::pruned::Pruned;
use crate::exchange_log::tree::Hash;
use crate::exchange_log::{LogError, write_atomically};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What is saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedProgress {
    /// The largest tree whose entries were all found.
    pub proven: Option<Tree>,
    /// The whole bundles below it.
    pub base: Checked,
    /// What was read behind it; no root proves it yet.
    pub reading: Option<Checked>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    entries: u64,
    hashes: Vec<String>,
    recorded: String,
    passed: String,
}

#[derive(Serialize, Deserialize)]
struct WrittenAll {
    proven: Option<(u64, String)>,
    base: Written,
    reading: Option<Written>,
}

fn write_checked(checked: &Checked) -> Written {
    Written {
        entries: checked.peaks.size(),
        hashes: checked.peaks.hashes().iter().map(|hash| STANDARD.encode(hash)).collect(),
        recorded: checked.recorded.text(),
        passed: checked.passed.text(),
    }
}

fn read_hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn read_checked(written: &Written) -> Option<Checked> {
    let hashes = written.hashes.iter().map(|hash| read_hash(hash)).collect::<Option<Vec<_>>>()?;
    let (recorded, passed) = (Pruned::parse(&written.recorded)?, Pruned::parse(&written.passed)?);
    Some(Checked { peaks: Peaks::new(written.entries, hashes)?, recorded, passed })
}

/// Reads it; `None` if it is not there, or not what was written.
pub fn read(file: &Path) -> Option<SavedProgress> {
    let text = std::fs::read(file).ok()?;
    let all: WrittenAll = serde_json::from_slice(&text).ok()?;
    let proven = match all.proven {
        Some((size, root)) => Some((size, read_hash(&root)?)),
        None => None,
    };
    let reading = match &all.reading {
        Some(written) => Some(read_checked(written)?),
        None => None,
    };
    Some(SavedProgress { proven, base: read_checked(&all.base)?, reading })
}

/// Writes it.
///
/// # Errors
/// It cannot be written.
pub fn write(file: &Path, saved: &SavedProgress) -> Result<(), LogError> {
    let all = WrittenAll {
        proven: saved.proven.map(|(size, root)| (size, STANDARD.encode(root))),
        base: write_checked(&saved.base),
        reading: saved.reading.as_ref().map(write_checked),
    };
    let text = serde_json::to_vec(&all).map_err(|error| LogError::corrupt(file, 0, error.to_string()))?;
    write_atomically(file, &text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_read_and_anything_else_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stored");
        assert_eq!(read(&file), None);
        let mut base = Checked::default();
        (0u32..700).for_each(|number| base.peaks.push(&number.to_be_bytes()));
        base.recorded.add(0..=1);
        let reading = Some(Checked { passed: base.recorded.clone(), ..base.clone() });
        let saved = SavedProgress { proven: Some((700, base.peaks.root())), base, reading };
        write(&file, &saved).unwrap();
        assert_eq!(read(&file), Some(saved.clone()));
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replacen("\"entries\":700", "\"entries\":701", 1)).unwrap();
        assert_eq!(read(&file), None, "that many entries have other peaks");
        let none = SavedProgress::default();
        write(&file, &none).unwrap();
        assert_eq!(read(&file), Some(none));
    }
}
