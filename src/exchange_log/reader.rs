//! Reading the log's files, also while a gateway writes them.

use super::checkpoint::{Checkpoint, LogVerifier};
use super::journal::{read_segment, segments};
use super::tiles::{checkpoint_path, read_bundle, read_tile};
use super::tree::{Hash, TILE, tree_hash};
use super::{Entry, LogError, LogPaths};
use std::path::Path;

/// An entry with its index.
#[derive(Debug, Clone)]
pub struct Found {
    /// Place in the log, from 0.
    pub index: u64,
    /// The entry.
    pub entry: Entry,
}

/// A view of the log at one moment.
pub struct LogReader {
    paths: LogPaths,
    /// The published checkpoint; `None` where nothing was sealed yet.
    pub checkpoint: Option<Checkpoint>,
    /// The checkpoint as it was signed.
    note: String,
    /// Entries behind the checkpoint, as the journal has them.
    tail: Vec<Vec<u8>>,
    /// The bundle that is not full: read at once, since the next sealing deletes its file.
    last_bundle: Vec<Vec<u8>>,
}

/// The file with the log's verifier key, beside the checkpoint.
pub const VKEY_FILE: &str = "vkey";

impl LogReader {
    /// Opens the log below `data`. A gateway that seals at the same moment is waited for by trying again.
    pub fn open(data: &Path) -> Result<Self, LogError> {
        let mut last = LogError::Closed;
        for _ in 0..20 {
            match Self::try_open(data) {
                Ok(reader) => return Ok(reader),
                Err(error @ LogError::Io { .. }) => last = error,
                Err(other) => return Err(other),
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Err(last)
    }

    fn try_open(data: &Path) -> Result<Self, LogError> {
        let paths = LogPaths::new(data);
        let vkey_path = paths.tiles.join(VKEY_FILE);
        let vkey = std::fs::read_to_string(&vkey_path).map_err(|error| LogError::io(&vkey_path, &error))?;
        let verifier =
            LogVerifier::parse(&vkey).map_err(|error| LogError::corrupt(&vkey_path, 0, error.to_string()))?;
        let path = checkpoint_path(&paths.tiles);
        let note = match std::fs::read_to_string(&path) {
            Ok(note) => note,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(LogError::io(&path, &error)),
        };
        let check = |note: &str| verifier.check(note).map_err(|error| LogError::corrupt(&path, 0, error.to_string()));
        let checkpoint = if note.is_empty() { None } else { Some(check(&note)?) };
        let sealed = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
        let mut reader = LogReader { paths, checkpoint, note, tail: Vec::new(), last_bundle: Vec::new() };
        // At once: the next sealing deletes this file.
        if sealed % TILE as u64 != 0 {
            let width = (sealed % TILE as u64) as usize;
            reader.last_bundle = read_bundle(&reader.paths.tiles, sealed / TILE as u64, width)?;
        }
        reader.tail = reader.journal_after(sealed)?;
        Ok(reader)
    }

    fn journal_after(&self, sealed: u64) -> Result<Vec<Vec<u8>>, LogError> {
        let found = segments(&self.paths.journal)?;
        let mut tail = Vec::new();
        for (position, (first, path)) in found.iter().enumerate() {
            let before = found.get(position + 1).map(|(next, _)| *next);
            if before.is_some_and(|before| before <= sealed) {
                continue;
            }
            let (records, _) = read_segment(path, *first, before)?;
            let next = sealed + tail.len() as u64;
            if *first > next {
                // Sealed and deleted since the checkpoint was read: begin again with the newer one.
                return Err(LogError::Io { path: path.clone(), reason: "the journal has moved on".into() });
            }
            tail.extend(records.into_iter().filter(|record| record.index >= next).map(|record| record.bytes));
        }
        Ok(tail)
    }

    /// Entries in the log.
    pub fn size(&self) -> u64 {
        self.sealed() + self.tail.len() as u64
    }

    /// Entries under the checkpoint.
    pub fn sealed(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size)
    }

    /// The sealed entries of a bundle.
    pub fn bundle(&self, index: u64) -> Result<Vec<Vec<u8>>, LogError> {
        if index == self.sealed() / TILE as u64 {
            return Ok(self.last_bundle.clone());
        }
        read_bundle(&self.paths.tiles, index, TILE)
    }

    /// The published checkpoint as it was signed; empty where nothing was sealed yet.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// One sealed entry.
    pub fn sealed_entry(&self, index: u64) -> Result<Vec<u8>, LogError> {
        let place = (index % TILE as u64) as usize;
        let missing = || LogError::corrupt(&self.paths.tiles, 0, format!("entry {index} is missing"));
        self.bundle(index / TILE as u64)?.into_iter().nth(place).ok_or_else(missing)
    }

    /// The hash of a complete sealed subtree of 2^`level` leaves.
    pub fn node(&self, level: u32, index: u64) -> Result<Hash, LogError> {
        let (tiles, within) = ((level / 8) as usize, level % 8);
        let count = self.sealed() >> (8 * tiles);
        let first = index << within;
        let tile = first / TILE as u64;
        let width = if tile < count / TILE as u64 { TILE } else { (count % TILE as u64) as usize };
        let hashes = read_tile(&self.paths.tiles, tiles, tile, width)?;
        let from = (first % TILE as u64) as usize;
        let some = hashes.get(from..from + (1 << within));
        some.map(tree_hash).ok_or_else(|| LogError::corrupt(&self.paths.tiles, 0, "a subtree is not complete"))
    }

    /// The bytes of the entries behind the checkpoint.
    pub fn tail(&self) -> &[Vec<u8>] {
        &self.tail
    }

    /// Goes through the log from its newest entry back, until `visit` says stop.
    pub fn newest_first(&self, mut visit: impl FnMut(Found) -> bool) -> Result<(), LogError> {
        let decode = |index: u64, bytes: &[u8]| {
            let entry = Entry::from_bytes(bytes);
            entry.ok_or_else(|| LogError::corrupt(&self.paths.tiles, 0, format!("entry {index} is no entry")))
        };
        for (place, bytes) in self.tail.iter().enumerate().rev() {
            let index = self.sealed() + place as u64;
            if !visit(Found { index, entry: decode(index, bytes)? }) {
                return Ok(());
            }
        }
        for bundle in (0..self.sealed().div_ceil(TILE as u64)).rev() {
            for (place, bytes) in self.bundle(bundle)?.iter().enumerate().rev() {
                let index = bundle * TILE as u64 + place as u64;
                if !visit(Found { index, entry: decode(index, bytes)? }) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
