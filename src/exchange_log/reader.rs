//! Reading the log's files, also while a gateway writes them.

use super::checkpoint::{Checkpoint, LogVerifier};
use super::cosignature::Policy;
use super::disk::{Disk, Open, read_text};
use super::journal::{read_segment, segments};
use super::pruned::Pruned;
use super::segment::Reading;
use super::tiles::{checkpoint_path, read_bundle, read_tile, subtree};
use super::tree::{Hash, TILE};
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

/// The file with the newest checkpoint that counts.
pub fn published_file(disk: &dyn Disk, tiles: &Path) -> Result<&'static str, LogError> {
    Ok(if policy(disk, tiles)?.needs_witnesses() { COSIGNED_FILE } else { "checkpoint" })
}

/// A view of the log at one moment.
pub struct LogReader {
    paths: LogPaths,
    /// The published checkpoint; `None` where nothing was sealed yet.
    pub checkpoint: Option<Checkpoint>,
    /// The key in the log's own folder.
    verifier: LogVerifier,
    /// The checkpoint as it was signed.
    note: String,
    /// Bundles that are archived and gone.
    pruned: Pruned,
    /// Entries behind the checkpoint, as the journal has them.
    tail: Vec<Vec<u8>>,
    /// The bundle that is not full: read at once, since the next sealing deletes its file.
    last_bundle: Vec<Vec<u8>>,
}

/// The file with the log's verifier key, beside the checkpoint.
pub const VKEY_FILE: &str = "vkey";
/// The file with the policy that says which checkpoints count (C2SP tlog-policy).
pub const POLICY_FILE: &str = "policy";
/// The newest checkpoint with the cosignatures that the policy wants.
pub const COSIGNED_FILE: &str = "cosigned";

/// A checkpoint that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Entries.
    pub size: u64,
    /// As it was signed, and cosigned.
    pub note: String,
}

/// The policy of a log; one without its file wants no witnesses.
pub fn policy(disk: &dyn Disk, tiles: &Path) -> Result<Policy, LogError> {
    let path = tiles.join(POLICY_FILE);
    let parse = |text: String| {
        Policy::parse(&text).map_err(|(line, reason)| LogError::corrupt(&path, 0, format!("line {line}: {reason}")))
    };
    read_text(disk, &path)?.map_or(Ok(Policy::default()), parse)
}

/// Between two tries. Simulated time passes at once.
fn pause() {
    if !cfg!(simulator) {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

impl LogReader {
    /// Opens the log below `data`. A gateway that seals at the same moment is waited for by trying again.
    pub fn open(data: &Path) -> Result<Self, LogError> {
        Self::persist(&LogPaths::new(data), true)
    }

    /// The same of a log whose folders are known.
    pub fn open_at(paths: &LogPaths) -> Result<Self, LogError> {
        Self::persist(paths, true)
    }

    /// The same without what is not under the checkpoint yet.
    pub fn sealed_only(data: &Path) -> Result<Self, LogError> {
        Self::persist(&LogPaths::new(data), false)
    }

    fn persist(paths: &LogPaths, with_tail: bool) -> Result<Self, LogError> {
        let (mut last, mut corrupt) = (LogError::Closed, 0);
        for _ in 0..20 {
            match Self::try_open(paths, with_tail) {
                Ok(reader) => return Ok(reader),
                Err(error @ LogError::Io { .. }) => last = error,
                // A batch that is being written may be seen in part.
                Err(error @ LogError::Corrupt { .. }) if corrupt < 2 => (last, corrupt) = (error, corrupt + 1),
                Err(other) => return Err(other),
            }
            pause();
        }
        Err(last)
    }

    fn try_open(paths: &LogPaths, with_tail: bool) -> Result<Self, LogError> {
        let (paths, disk) = (paths.clone(), &*paths.disk);
        let vkey_path = paths.tiles.join(VKEY_FILE);
        let missing = || LogError::Io { path: vkey_path.clone(), reason: "is missing".into() };
        let vkey = read_text(disk, &vkey_path)?.ok_or_else(missing)?;
        let verifier =
            LogVerifier::parse(&vkey).map_err(|error| LogError::corrupt(&vkey_path, 0, error.to_string()))?;
        let path = checkpoint_path(&paths.tiles);
        let note = read_text(disk, &path)?.unwrap_or_default();
        let check = |note: &str| verifier.check(note).map_err(|error| LogError::corrupt(&path, 0, error.to_string()));
        let checkpoint = if note.is_empty() { None } else { Some(check(&note)?) };
        let sealed = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
        let pruned = Pruned::read(disk, &paths.tiles)?;
        let mut reader =
            LogReader { paths, checkpoint, verifier, note, pruned, tail: Vec::new(), last_bundle: Vec::new() };
        // At once: the next sealing deletes this file.
        if sealed % TILE as u64 != 0 {
            let width = (sealed % TILE as u64) as usize;
            reader.last_bundle = read_bundle(disk, &reader.paths.tiles, sealed / TILE as u64, width)?;
        }
        if with_tail {
            reader.tail = reader.journal_after(sealed)?;
        }
        Ok(reader)
    }

    fn journal_after(&self, sealed: u64) -> Result<Vec<Vec<u8>>, LogError> {
        let disk = &*self.paths.disk;
        let found = segments(disk, &self.paths.journal)?;
        let mut tail = Vec::new();
        for (position, (first, path)) in found.iter().enumerate() {
            let before = found.get(position + 1).map(|(next, _)| *next);
            if before.is_some_and(|before| before <= sealed) {
                continue;
            }
            // Sealed and given up since the checkpoint was read, or while it was read: begin again with the newer one.
            let moved_on = || LogError::Io { path: path.clone(), reason: "the journal has moved on".into() };
            let next = sealed + tail.len() as u64;
            let reading = Reading { first: *first, before, from: next, key: None };
            let read = read_segment(disk, path, reading).map_err(|error| match error {
                LogError::Corrupt { .. } if disk.open(path, Open::Read).is_err() => moved_on(),
                other => other,
            })?;
            if *first > next {
                return Err(moved_on());
            }
            tail.extend(read.records.into_iter().map(|record| record.bytes));
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

    /// The sealed entries of a bundle; `None` where it was pruned.
    pub fn bundle(&self, index: u64) -> Result<Option<Vec<Vec<u8>>>, LogError> {
        if index == self.sealed() / TILE as u64 {
            return Ok(Some(self.last_bundle.clone()));
        }
        if self.pruned.has(index) {
            return Ok(None);
        }
        match read_bundle(&*self.paths.disk, &self.paths.tiles, index, TILE) {
            // Pruned since this reader was opened.
            Err(LogError::Io { .. }) if Pruned::read(&*self.paths.disk, &self.paths.tiles)?.has(index) => Ok(None),
            read => read.map(Some),
        }
    }

    /// The key in the log's own folder.
    pub fn verifier(&self) -> &LogVerifier {
        &self.verifier
    }

    /// What was pruned.
    pub fn pruned(&self) -> &Pruned {
        &self.pruned
    }

    /// The log's folders.
    pub fn paths(&self) -> &LogPaths {
        &self.paths
    }

    /// The newest checkpoint that counts by the log's policy; `None` where there is none yet.
    pub fn published(&self) -> Result<Option<Published>, LogError> {
        let file = published_file(&*self.paths.disk, &self.paths.tiles)?;
        if file != COSIGNED_FILE {
            let own = || Published { size: self.sealed(), note: self.note.clone() };
            return Ok(self.checkpoint.as_ref().map(|_| own()));
        }
        let path = self.paths.tiles.join(file);
        let Some(note) = read_text(&*self.paths.disk, &path)? else { return Ok(None) };
        let checkpoint = self.verifier.check(&note);
        let size = checkpoint.map_err(|error| LogError::corrupt(&path, 0, error.to_string()))?.size;
        // A newer one than this reader knows is not of its moment.
        Ok((size <= self.sealed()).then_some(Published { size, note }))
    }

    /// The last checkpoint as it was signed; empty where nothing was sealed yet.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The bytes of an entry; `None` where it was pruned.
    pub fn entry_bytes(&self, index: u64) -> Result<Option<Vec<u8>>, LogError> {
        let missing = || LogError::corrupt(&self.paths.tiles, 0, format!("entry {index} is missing"));
        if let Some(behind) = index.checked_sub(self.sealed()) {
            let place = usize::try_from(behind).unwrap_or(usize::MAX);
            return Ok(Some(self.tail.get(place).ok_or_else(missing)?.clone()));
        }
        let place = (index % TILE as u64) as usize;
        let Some(entries) = self.bundle(index / TILE as u64)? else { return Ok(None) };
        Ok(Some(entries.into_iter().nth(place).ok_or_else(missing)?))
    }

    /// One entry; `None` where it was pruned.
    pub fn entry(&self, index: u64) -> Result<Option<Entry>, LogError> {
        self.entry_bytes(index)?.map(|bytes| self.decode(index, &bytes)).transpose()
    }

    fn decode(&self, index: u64, bytes: &[u8]) -> Result<Entry, LogError> {
        let entry = Entry::from_bytes(bytes);
        entry.ok_or_else(|| LogError::corrupt(&self.paths.tiles, 0, format!("entry {index} is no entry")))
    }

    /// The hash of a complete sealed subtree of 2^`level` leaves.
    pub fn node(&self, level: u32, index: u64) -> Result<Hash, LogError> {
        let read = |tiles, tile, width| read_tile(&*self.paths.disk, &self.paths.tiles, tiles, tile, width);
        subtree(&read, self.sealed(), level, index)
            .and_then(|hash| hash.ok_or_else(|| LogError::corrupt(&self.paths.tiles, 0, "a subtree is not complete")))
    }

    /// The bytes of the entries behind the checkpoint.
    pub fn tail(&self) -> &[Vec<u8>] {
        &self.tail
    }

    /// Goes through the log from the entry before `before` back, until `visit` says stop. What was pruned is left out.
    pub fn newest_first(&self, before: u64, mut visit: impl FnMut(Found) -> bool) -> Result<(), LogError> {
        let mut at = before.min(self.size());
        while at > self.sealed() {
            at -= 1;
            let entry = self.entry(at)?;
            if !entry.is_none_or(|entry| visit(Found { index: at, entry })) {
                return Ok(());
            }
        }
        while at > 0 {
            let bundle = (at - 1) / TILE as u64;
            let first = bundle * TILE as u64;
            let within = (at - first) as usize;
            let entries = self.bundle(bundle)?.unwrap_or_default();
            for (place, bytes) in entries.iter().enumerate().take(within).rev() {
                let index = first + place as u64;
                if !visit(Found { index, entry: self.decode(index, bytes)? }) {
                    return Ok(());
                }
            }
            at = first;
        }
        Ok(())
    }
}
