//! The gateway's own files with content that the log records (`log.file`): which revocation lists were in force, the
//! fetched lists, and the marks of pseudonym keys. The last entry about a file counts: an older file that is put back
//! is the gateway's own, too, and only the log shows that there was a newer one.

use super::holds::word;
use crate::exchange_log::file_events::FILE_EVENT;
use crate::exchange_log::tree::TILE;
use crate::hex::sha256;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::Path;

/// The statement of one entry about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Statement {
    /// The entry's index; `u64::MAX`: it is on its way into the log.
    index: u64,
    /// SHA-256 of the file, in hexadecimal.
    digest: String,
}

/// The version of a file's content by the log's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileVersion {
    /// The content of the last entry.
    Newest,
    /// The content of an earlier entry.
    Older,
    /// No entry has it.
    Unknown,
}

/// A file that differs from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDifference {
    /// Its path in the data folder.
    pub file: String,
    /// The fault, and how to fix it.
    pub what: String,
    /// Whether it may be intentional.
    pub is_warning: bool,
}

/// The log's records of files: about 100 bytes for each content of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoggedFiles(BTreeMap<String, Vec<Statement>>);

/// Returns the object of the event that records a file's content.
pub fn object(file: &str, digest: &str) -> String {
    format!("file:{file} sha256:{digest}")
}

/// Returns a file's digest; `None` if there is no such file.
///
/// # Errors
/// It cannot be read.
pub fn digest_of(path: &Path) -> std::io::Result<Option<String>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(sha256(&bytes))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_mark(file: &str) -> bool {
    file.starts_with("keys/pseudonyms/")
}

impl LoggedFiles {
    /// Adds an event, if it is about a file.
    pub fn take(&mut self, index: u64, act: &str, object: &str) {
        let (file, digest) = (word(object, "file:"), word(object, "sha256:"));
        let is_inside = (file.starts_with("state/") || is_mark(file)) && !file.contains("..");
        if act == FILE_EVENT && is_inside {
            self.0.entry(file.to_owned()).or_default().push(Statement { index, digest: digest.to_owned() });
        }
    }

    /// Returns the digest of a file in its last entry.
    pub fn last(&self, file: &str) -> Option<&str> {
        Some(self.0.get(file)?.last()?.digest.as_str())
    }

    /// Returns the version of a file's content.
    pub fn version(&self, file: &str, digest: &str) -> FileVersion {
        let history = self.0.get(file).map(Vec::as_slice).unwrap_or_default();
        match history.iter().rposition(|one| one.digest == digest) {
            Some(at) if at + 1 == history.len() => FileVersion::Newest,
            Some(_) => FileVersion::Older,
            None => FileVersion::Unknown,
        }
    }

    /// Returns the objects of the events that must be restated before these bundles are pruned: the last about each
    /// file, if it is in one of them.
    pub fn within(&self, bundles: &[RangeInclusive<u64>]) -> Vec<String> {
        let inside = |index: u64| bundles.iter().any(|run| run.contains(&(index / TILE as u64)));
        let last = self.0.iter().filter_map(|(file, history)| Some((file, history.last()?)));
        last.filter(|(_, last)| inside(last.index)).map(|(file, last)| object(file, &last.digest)).collect()
    }

    /// Returns which files of a data folder differ from the log.
    pub fn differences(&self, data: &Path) -> Vec<FileDifference> {
        self.0.iter().filter_map(|(file, history)| difference(data, file, history)).collect()
    }
}

fn difference(data: &Path, file: &str, history: &[Statement]) -> Option<FileDifference> {
    let last = history.last()?;
    let of = |what: String, is_warning: bool| Some(FileDifference { file: file.to_owned(), what, is_warning });
    let newest = match last.index {
        u64::MAX => "an admin event that waits for the log".to_owned(),
        index => format!("entry {index}"),
    };
    match digest_of(&data.join(file)) {
        Err(error) => of(error.to_string(), false),
        // A missing list is fetched again, or is no longer published.
        Ok(None) => of(format!("is gone; {newest} records it: put it back"), file.ends_with(".crl")),
        Ok(Some(there)) if there == last.digest => {
            let first = history.iter().find(|one| one.digest != last.digest).filter(|_| is_mark(file))?;
            let what = format!(
                "the key of this period was made anew ({newest}): nobody whom the log names by the first one (entry {}) is found",
                first.index
            );
            of(what, true)
        }
        Ok(Some(there)) if history.iter().any(|one| one.digest == there) => {
            of(format!("is an older one: {newest} records a newer one; put that back"), false)
        }
        Ok(Some(_)) => {
            of(format!("is not what {newest} records, and no other entry records it: put the file back"), false)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn l9_the_last_entry_about_a_file_counts_and_an_older_file_is_told_from_a_foreign_one() {
        let folder = tempfile::tempdir().unwrap();
        let (data, file) = (folder.path(), "state/revocation.json");
        let mut logged = LoggedFiles::default();
        assert_eq!((logged.differences(data), logged.last(file)), (Vec::new(), None), "the log states nothing");
        for (index, content) in [(3, "one"), (700, "two")] {
            logged.take(index, FILE_EVENT, &object(file, &sha256(content.as_bytes())));
        }
        // Other events, and files elsewhere, are not concerned.
        logged.take(701, "log.hold", &object(file, "x"));
        logged.take(702, FILE_EVENT, &object("registry.sqlite", "x"));
        logged.take(703, FILE_EVENT, &object("state/../../etc/passwd", "x"));
        let what = || {
            let found = logged.differences(data);
            assert!(found.len() < 2, "{found:?}");
            found.into_iter().next().map(|one| (one.what, one.is_warning)).unwrap_or_default()
        };
        assert!(what().0.starts_with("is gone; entry 700"), "{:?}", what());
        std::fs::create_dir_all(data.join("state")).unwrap();
        for (content, says, version) in [
            ("two", "", FileVersion::Newest),
            ("one", "is an older one: entry 700", FileVersion::Older),
            ("three", "is not what entry 700 records", FileVersion::Unknown),
        ] {
            std::fs::write(data.join(file), content).unwrap();
            assert!(what().0.starts_with(says) && !what().1 && what().0.is_empty() == says.is_empty(), "{:?}", what());
            assert_eq!(logged.version(file, &sha256(content.as_bytes())), version);
        }
        // Before pruning, only the last record is restated.
        assert_eq!(logged.within(&[0..=0]), Vec::<String>::new());
        assert_eq!(logged.within(&[1..=2]), [object(file, &sha256(b"two"))]);
        // A content may come back, and is then the newest.
        logged.take(800, FILE_EVENT, &object(file, &sha256(b"one")));
        assert_eq!(logged.version(file, &sha256(b"one")), FileVersion::Newest);
    }

    #[test]
    fn l9_a_key_of_pseudonyms_that_was_made_anew_is_told_of_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let (data, file) = (folder.path(), "keys/pseudonyms/2026-11.made");
        std::fs::create_dir_all(data.join("keys/pseudonyms")).unwrap();
        let mut logged = LoggedFiles::default();
        logged.take(5, FILE_EVENT, &object(file, &sha256(b"first")));
        std::fs::write(data.join(file), "first").unwrap();
        assert_eq!(logged.differences(data), []);
        // Key and mark were replaced together.
        std::fs::write(data.join(file), "second").unwrap();
        assert!(!logged.differences(data)[0].is_warning);
        logged.take(9, FILE_EVENT, &object(file, &sha256(b"second")));
        let found = logged.differences(data);
        assert!(found[0].is_warning && found[0].what.contains("(entry 5)"), "{found:?}");
        // A list that is no longer published is no fault.
        logged.take(10, FILE_EVENT, &object("state/fetched-aa.crl", "x"));
        assert!(logged.differences(data)[1].is_warning);
    }
}
