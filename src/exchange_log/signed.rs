//! The last checkpoint that was ever signed, stored apart from the log: if the log does not contain its tree, the files
//! were put back to an older state, or belong to another tree.

use super::checkpoint::LogVerifier;
use super::disk::read_text;
use super::reader::{LogReader, settled};
use super::tree::{Hash, leaf_hash, node_hash};
use super::{LogError, LogPaths, proof};

/// Checks that the log's tree contains that of the last signed checkpoint.
///
/// # Errors
/// [`LogError::RolledBack`] or [`LogError::Forked`] if it does not; the checkpoint is missing, or older than the
/// published one.
pub fn check(paths: &LogPaths, verifier: &LogVerifier) -> Result<(), LogError> {
    // A running gateway may have signed more than the reader had seen.
    let may_pass = |error: &LogError| matches!(error, LogError::RolledBack { .. } | LogError::Io { .. });
    settled(may_pass, || is_contained(paths, verifier))
}

fn is_contained(paths: &LogPaths, verifier: &LogVerifier) -> Result<(), LogError> {
    let reader = LogReader::open_at(paths)?;
    let path = &reader.paths().signed;
    let note = match read_text(&*paths.disk, path)? {
        Some(note) => note,
        None if reader.sealed() == 0 => return Ok(()),
        None => {
            return Err(LogError::Io {
                path: path.clone(),
                reason: "is missing: somebody took it away, and a roll-back to before it would not be noticed".into(),
            });
        }
    };
    let signed = verifier.check(&note).map_err(|error| LogError::corrupt(path, 0, error.to_string()))?;
    let folder = || reader.paths().tiles.clone();
    if signed.size > reader.size() {
        return Err(LogError::RolledBack { found: reader.size(), signed: signed.size, path: folder() });
    }
    // A crash between signing and publishing leaves a signed tree that ends in the journal.
    if signed.size > 0 && proof::root(&|level, at| node(&reader, level, at), signed.size)? != signed.root {
        return Err(LogError::Forked { signed: signed.size, path: folder() });
    }
    if signed.size < reader.sealed() {
        return Err(LogError::corrupt(path, 0, "the last signed checkpoint is older than the published one"));
    }
    Ok(())
}

/// Returns the hash of a complete subtree, sealed or in the journal.
pub(super) fn node(reader: &LogReader, level: u32, index: u64) -> Result<Hash, LogError> {
    if (index + 1) << level <= reader.sealed() {
        return reader.node(level, index);
    }
    match level.checked_sub(1) {
        Some(below) => Ok(node_hash(&node(reader, below, 2 * index)?, &node(reader, below, 2 * index + 1)?)),
        None => {
            let place = usize::try_from(index - reader.sealed()).unwrap_or(usize::MAX);
            let missing = || LogError::corrupt(&reader.paths().journal, 0, format!("entry {index} is missing"));
            Ok(leaf_hash(reader.tail().get(place).ok_or_else(missing)?))
        }
    }
}
