//! The journal as `audit verify` reads it: every segment in its folder, sealed or not, batch after batch. A gateway
//! that starts reads only the unsealed part.

use super::journal::{gone, read_segment, segments};
use super::segment::{ChainKey, Reading, Segmented};
use super::{LogError, LogPaths};
use std::path::PathBuf;

/// Files of the journal's folder other than segments. `spare` and `unnamed` are segments before they have a name.
const FILES: [&str; 3] = ["lock", "spare", "unnamed"];

/// Checks that each batch follows the one before it, in every segment, and that the segments after the sealed part
/// follow each other, up to the end. With the key, it also checks that the log itself wrote each batch. A crash may
/// leave any of the sealed segments.
///
/// # Errors
/// [`LogError::Corrupt`] with the first segment and offset that fails, or a file that does not belong to a journal.
pub fn check(paths: &LogPaths, sealed: u64, key: Option<&ChainKey>) -> Result<(), LogError> {
    let disk = &*paths.disk;
    let found = segments(disk, &paths.journal)?;
    no_others(paths)?;
    let all = |first, before| Reading { first, before, from: u64::MAX, key, keyed_from: 0, start: None };
    let mut last: Option<(&PathBuf, Segmented)> = None;
    for (position, (first, path)) in found.iter().enumerate() {
        let before = found.get(position + 1).map(|(next, _)| *next);
        if before.is_some_and(|before| before <= sealed) {
            read_segment(disk, path, all(*first, None))?;
            continue;
        }
        if last.is_none() && *first > sealed {
            return Err(LogError::corrupt(path, 0, format!("entries {sealed} to {} are missing", first - 1)));
        }
        let read = read_segment(disk, path, all(*first, before))?;
        if let Some((_, earlier)) = &last {
            read.follows(path, earlier)?;
        }
        last = Some((path, read));
    }
    match &last {
        None if sealed > 0 && !paths.is_replicated()? => Err(LogError::corrupt(&paths.journal, 0, gone(sealed))),
        None => Ok(()),
        Some((path, read)) => read.reaches(path, sealed),
    }
}

/// Checks that every file in the journal's folder belongs to the journal, under its one name.
fn no_others(paths: &LogPaths) -> Result<(), LogError> {
    let listed = match paths.disk.list(&paths.journal) {
        Ok(listed) => listed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(LogError::io(&paths.journal, &error)),
    };
    // A segment's name is its first index, of 20 digits.
    let is_segment = |name: &str| name.len() == 24 && name.ends_with(".seg");
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| FILES.contains(&name) || is_segment(name))
    };
    match listed.iter().find(|path| !is_ours(path)) {
        None => Ok(()),
        Some(path) => Err(LogError::corrupt(path, 0, "is no file of a journal")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::checkpoint::LogSigner;
    use crate::exchange_log::journal::{Journal, SEGMENT_BYTES, segment_path};
    use crate::exchange_log::segment::{BATCH_HEAD, HEAD, put_batch};
    use crate::exchange_log::storage::Storage;
    use crate::exchange_log::verify::{Against, verify_data};
    use crate::exchange_log::{Entry, Kind, Pipeline};
    use std::path::Path;

    fn signer(key: &[u8]) -> LogSigner {
        LogSigner::from_pkcs8("log.example/chain", key).unwrap()
    }

    fn entry(number: u32) -> Vec<u8> {
        Entry { purpose: number.to_string(), ..Entry::begin(Kind::Exchange, "dc1") }.to_bytes()
    }

    /// A log of two sealed entries, followed by three in two batches.
    fn log(data: &Path, key: &[u8]) -> LogPaths {
        let paths = LogPaths::new(data);
        let (pipeline, mut journal) = Pipeline::open(paths.clone(), signer(key)).unwrap();
        pipeline.write(&mut journal, vec![entry(0), entry(1)]).unwrap();
        pipeline.seal().unwrap();
        pipeline.write(&mut journal, vec![entry(2)]).unwrap();
        pipeline.write(&mut journal, vec![entry(3), entry(4)]).unwrap();
        paths
    }

    /// Returns the result of verification, with the log's key or without.
    fn verified(data: &Path, key: Option<&[u8]>) -> Result<(u64, u64), String> {
        let chain = key.map(|key| signer(key).chain_key());
        let against = Against { chain: chain.as_ref(), ..Against::default() };
        let report = verify_data(data, None, None, against, |_, _| {}).map_err(|error| error.to_string())?;
        assert_eq!(report.is_chain_checked, key.is_some());
        Ok((report.sealed, report.tail))
    }

    fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn an_invented_batch_behind_the_last_one_is_told_by_who_has_the_log_s_key() {
        let (folder, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
        let paths = log(folder.path(), &key);
        assert_eq!(verified(folder.path(), Some(&key)), Ok((2, 3)));
        let segment = segment_path(&paths.journal, 0);
        change(&segment, |bytes| {
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            let starts: Vec<usize> = (HEAD..end)
                .filter(|at| bytes[*at + 8..*at + 16] == 3u64.to_be_bytes() && bytes[*at..*at + 2] == [0, 0])
                .collect();
            let last = *starts.last().unwrap();
            let tag: [u8; 32] = bytes[last + 48..last + 80].try_into().unwrap();
            let mut batch = Vec::new();
            put_batch(&mut batch, &ChainKey::new(b"guessed"), &tag, 5, &[entry(9)]);
            bytes[end..end + batch.len()].copy_from_slice(&batch);
        });
        // Its checksums and links are right: only the key detects it.
        assert_eq!(verified(folder.path(), None), Ok((2, 4)));
        let error = verified(folder.path(), Some(&key)).unwrap_err();
        assert!(error.contains(".seg at byte") && error.contains("entry 5 was not written by this log"), "{error}");
    }

    #[test]
    fn what_is_sealed_is_checked_in_the_journal_too_and_what_it_lacks_is_told() {
        let (folder, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
        let paths = log(folder.path(), &key);
        let segment = segment_path(&paths.journal, 0);
        let whole = std::fs::read(&segment).unwrap();
        type Change<'c> = (&'c dyn Fn(&mut Vec<u8>), &'c str);
        let changes: [Change<'_>; 4] = [
            (&|bytes| bytes[HEAD + BATCH_HEAD + 4] ^= 1, "at byte 64: the batch of entry 0 is damaged"),
            (&|bytes| bytes.truncate(SEGMENT_BYTES as usize - 1), "was cut off here"),
            (&|bytes| bytes[HEAD..].fill(0), "at byte 64: the journal ends before entry 0, where 2 were sealed"),
            (&|bytes| bytes.truncate(0), "at byte 0: the segment was cut off here"),
        ];
        for (number, (damage, expected)) in changes.into_iter().enumerate() {
            change(&segment, damage);
            for error in [verified(folder.path(), None), verified(folder.path(), Some(&key))] {
                let error = error.unwrap_err();
                assert!(error.contains(expected) && error.contains(".seg"), "{number}: {error}");
            }
            std::fs::write(&segment, &whole).unwrap();
        }
        std::fs::write(paths.journal.join("notes.txt"), "x").unwrap();
        assert!(verified(folder.path(), None).unwrap_err().contains("notes.txt at byte 0: is no file of a journal"));
        std::fs::remove_file(paths.journal.join("notes.txt")).unwrap();
        std::fs::remove_file(&segment).unwrap();
        assert!(verified(folder.path(), None).unwrap_err().contains("no journal segment, where 2 entries"));
        std::fs::write(&segment, &whole).unwrap();
        assert_eq!(verified(folder.path(), Some(&key)), Ok((2, 3)));
    }

    /// The remains of a crash or of a failed write are not tampering.
    #[test]
    fn a_torn_last_batch_and_an_abandoned_segment_are_in_order() {
        let (folder, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
        let paths = log(folder.path(), &key);
        let segment = segment_path(&paths.journal, 0);
        change(&segment, |bytes| {
            assert!(bytes[512..].iter().any(|byte| *byte != 0), "the last batch has a second sector");
            bytes[512..].fill(0);
        });
        std::fs::write(paths.journal.join("spare"), b"half made").unwrap();
        assert_eq!(verified(folder.path(), Some(&key)), Ok((2, 1)));
        // A further segment after it, as a failed sync makes one.
        let mut journal = Journal::recover(&paths, signer(&key).chain_key(), 2).unwrap().journal;
        journal.abandon_segment();
        journal.append(&[entry(5)]).unwrap();
        drop(journal);
        assert!(segment_path(&paths.journal, 3).exists());
        assert_eq!(verified(folder.path(), Some(&key)), Ok((2, 2)));
    }
}
