//! Opens readers of one log, one after the other. What a reader has found out is known to the next: the key of the
//! journal's chain, and where the journal has the first entry behind the checkpoint. So a page costs the same however
//! much of the journal's last segment (64 MB) is sealed already.

use super::LogError;
use super::checkpoint::LogVerifier;
use super::key::{self, LogKeyError};
use super::reader::{LogReader, TailReading};
use super::segment::{BatchPosition, ChainKey};
use crate::keyfile::Vault;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Opens readers of a data folder's log.
#[derive(Debug)]
pub struct LogOpener {
    data: PathBuf,
    vault: Vault,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    start: Option<BatchPosition>,
    /// The key of the chain of the log with this verifier.
    chain: Option<(LogVerifier, ChainKey)>,
}

impl LogOpener {
    /// Makes it; nothing is read yet.
    pub fn new(data: &Path, vault: &Vault) -> Self {
        LogOpener { data: data.to_owned(), vault: vault.clone(), found: Mutex::default() }
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The vault of its keys.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Opens a reader that verifies entries behind the checkpoint by the log's key, if that can be read.
    ///
    /// # Errors
    /// The log cannot be read, or the key is not the log's.
    pub fn open(&self) -> Result<LogReader, LogError> {
        let chain = |verifier: &LogVerifier| self.chain(verifier);
        // Read before: the lock is for nobody's reading of files.
        let start = self.found().start;
        let reader = LogReader::open_with(&self.data, &TailReading { chain: &chain, start })?;
        self.found().start = reader.tail_start();
        Ok(reader)
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A log without its key is looked at again the next time: the key may be put back.
    fn chain(&self, verifier: &LogVerifier) -> Result<Option<ChainKey>, LogError> {
        if let Some((_, key)) = self.found().chain.as_ref().filter(|(of, _)| of == verifier) {
            return Ok(Some(key.clone()));
        }
        let wrong = |error: LogKeyError| LogError::Io { path: key::path(&self.data), reason: error.to_string() };
        let key = key::chain(&self.data, &self.vault, verifier).map_err(wrong)?;
        self.found().chain = key.clone().map(|key| (verifier.clone(), key));
        Ok(key)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::journal::segments;
    use crate::exchange_log::{Entry, Kind, LogPaths, Pipeline};

    fn entries(reader: &LogReader) -> Vec<String> {
        (0..reader.size()).map(|index| reader.entry(index).unwrap().unwrap().purpose).collect()
    }

    #[test]
    fn each_reader_has_what_a_first_one_would_have_while_the_log_goes_on() {
        let (folder, vault) = (tempfile::tempdir().unwrap(), Vault::default());
        let data = folder.path();
        key::make(data, &vault).unwrap();
        let (paths, signer) = (LogPaths::new(data), key::read(data, &vault, "log.example/opener").unwrap());
        let (pipeline, mut journal) = Pipeline::open(paths.clone(), signer).unwrap();
        let (opener, mut number) = (LogOpener::new(data, &vault), 0);
        let mut starts = Vec::new();
        // Unsealed, sealed, sealed in part, in a further segment as after a failed write, and that sealed too.
        for (batches, seals, fails) in
            [(3, false, false), (1, true, false), (2, false, true), (2, true, false), (1, false, false)]
        {
            for _ in 0..batches {
                let batch = [number, number + 1].map(|purpose: u32| {
                    Entry { purpose: purpose.to_string(), ..Entry::begin(Kind::Exchange, "dc1") }.to_bytes()
                });
                pipeline.write(&mut journal, batch.to_vec()).unwrap();
                number += 2;
            }
            if seals {
                pipeline.seal().unwrap();
            }
            if fails {
                journal.abandon_segment();
            }
            let expected: Vec<String> = (0..number).map(|purpose| purpose.to_string()).collect();
            let reader = opener.open().unwrap();
            assert_eq!(entries(&reader), expected);
            assert_eq!(entries(&LogOpener::new(data, &vault).open().unwrap()), expected);
            starts.push(reader.tail_start());
        }
        starts.dedup();
        assert!(starts.len() >= 3, "it moves on with what is sealed: {starts:?}");
        // Behind its position it reads what is there now, and believes no more of it than a first reader.
        let (_, last) = segments(&*paths.disk, &paths.journal).unwrap().pop().unwrap();
        let mut bytes = std::fs::read(&last).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[end] ^= 1;
        std::fs::write(&last, bytes).unwrap();
        let damaged = |opener: &LogOpener| opener.open().err().unwrap().to_string();
        assert_eq!(damaged(&opener), damaged(&LogOpener::new(data, &vault)));
    }

    #[test]
    fn a_position_in_another_segment_of_the_same_name_is_given_up() {
        let (folder, vault) = (tempfile::tempdir().unwrap(), Vault::default());
        let written = |name: &str, sizes: &[usize]| {
            let data = folder.path().join(name);
            key::make(&data, &vault).unwrap();
            let signer = key::read(&data, &vault, "log.example/opener").unwrap();
            let (pipeline, mut journal) = Pipeline::open(LogPaths::new(&data), signer).unwrap();
            for size in sizes {
                let entry = Entry { purpose: "p".repeat(*size), ..Entry::begin(Kind::Exchange, "dc1") };
                pipeline.write(&mut journal, vec![entry.to_bytes()]).unwrap();
                pipeline.seal().unwrap();
            }
            data
        };
        let (data, other) = (written("one", &[10, 20, 30]), written("other", &[300, 200, 100, 50]));
        let opener = LogOpener::new(&data, &vault);
        assert_eq!(opener.open().unwrap().size(), 3);
        std::fs::rename(&data, folder.path().join("away")).unwrap();
        std::fs::rename(&other, &data).unwrap();
        assert_eq!(opener.open().unwrap().size(), 4);
    }
}
