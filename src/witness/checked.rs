//! Reads the entries of a log that a gateway of this site stores, hashes them, and finds whether they lead to a checkpoint.
//! Hash tiles are not believed: what comes out of one counts only once the root proves it.

use crate::cluster::peaks::{Peaks, subtrees};
use crate::exchange_log::checkpoint::LogVerifier;
use crate::exchange_log::pruned::{PRUNED_FILE, Pruned};
use crate::exchange_log::tiles::{bundle_name, complete_subtree, decode_bundle, decode_tile, tile_name};
use crate::exchange_log::tree::{Hash, TILE, leaf_hash, node_hash, tree_hash};
use crate::exchange_log::verify::{LogFiles, LogFolder};
use crate::exchange_log::{Entry, Kind, LogError, canonical};

/// Entries of a bundle.
const WIDTH: u64 = TILE as u64;

/// A tree: its entries, and its root.
pub type Tree = (u64, Hash);

/// What was read of a log, from its first entry on, up to a whole bundle or to the end of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// The tree of what was read.
    pub peaks: Peaks,
    /// The bundles of which an entry that was read says that they were pruned.
    pub recorded: Pruned,
    /// The bundles that were pruned before they could be read here.
    pub passed: Pruned,
}

/// Why entries do not lead to a tree.
#[derive(Debug, thiserror::Error)]
pub enum EntryFault {
    /// They may come.
    #[error("{0}")]
    Missing(String),
    /// They are others.
    #[error("{0}")]
    Wrong(String),
}

impl From<LogError> for EntryFault {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Io { .. } => EntryFault::Missing(error.to_string()),
            _ => EntryFault::Wrong(error.to_string()),
        }
    }
}

/// A bundle that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Its entries are those that were read once; or it is listed as pruned, and an entry says so.
    Stored,
    /// It is listed as pruned, and no entry that was read says so; one below the checkpoint of this many entries should.
    Unexplained(u64),
}

/// The folder of a log that a gateway of this site stores.
pub struct SiteFolder {
    files: LogFolder,
    verifiers: Vec<LogVerifier>,
}

impl SiteFolder {
    /// Makes it for the folder with `checkpoint` and `tile`, and the keys of the log.
    pub fn new(files: LogFolder, verifiers: Vec<LogVerifier>) -> Self {
        SiteFolder { files, verifiers }
    }

    /// The entries under the checkpoint there: the gateway has made them durable before it published that.
    fn published(&self) -> Result<u64, EntryFault> {
        let note = String::from_utf8(self.files.needed("checkpoint")?);
        let note = note.map_err(|_| EntryFault::Wrong(format!("{} is no text", self.name("checkpoint"))))?;
        let mut sizes = self.verifiers.iter().filter_map(|verifier| Some(verifier.check(&note).ok()?.size));
        let unsigned = || EntryFault::Wrong(format!("{} is not signed by a key of this log", self.name("checkpoint")));
        sizes.next().ok_or_else(unsigned)
    }

    fn name(&self, file: &str) -> String {
        self.files.path(file).display().to_string()
    }

    /// Reads on from what was checked, one bundle in memory at a time, to a tree. `checked` then has all whole bundles below
    /// it, after a fault those that could be read; what is returned has the whole tree.
    ///
    /// # Errors
    /// The entries are not there, or they lead to another root.
    pub fn verify(
        &self,
        checked: &mut Checked,
        (size, root): Tree,
        progress: &mut dyn FnMut(&Checked),
    ) -> Result<Checked, EntryFault> {
        let published = self.published()?;
        if published < size {
            let reason = format!("{} is one of {published} entries, not of {size}", self.name("checkpoint"));
            return Err(EntryFault::Missing(reason));
        }
        if checked.peaks.size() > size {
            return Err(EntryFault::Missing(format!(
                "a later checkpoint than that of {size} entries was read already"
            )));
        }
        while size - checked.peaks.size() >= WIDTH {
            self.take(checked, TILE)?;
            progress(checked);
        }
        let mut all = checked.clone();
        if let Ok(rest @ 1..) = usize::try_from(size - all.peaks.size()) {
            self.take(&mut all, rest)?;
        }
        if all.peaks.root() != root {
            let reason = format!(
                "the entries below {} do not lead to the root of the checkpoint of {size} entries",
                self.name("tile/entries")
            );
            return Err(EntryFault::Wrong(reason));
        }
        let bundles = all.passed.runs().iter().cloned().flatten();
        match bundles.into_iter().find(|bundle| !all.recorded.has(*bundle)) {
            None => Ok(all),
            Some(bundle) => Err(EntryFault::Missing(format!(
                "{} is listed as pruned, and none of {size} entries says so",
                self.name(&bundle_name(bundle, TILE))
            ))),
        }
    }

    /// Adds the next bundle, whole or not at all.
    fn take(&self, checked: &mut Checked, width: usize) -> Result<(), EntryFault> {
        let index = checked.peaks.size() / WIDTH;
        let bytes = match self.files.bundle(index, width) {
            Err(LogError::Io { .. }) if width == TILE && self.pruned()?.has(index) => {
                let name = tile_name(0, index, TILE);
                let tile = self.files.tile(0, index, TILE)?;
                let hashes = decode_tile(&tile, TILE, &self.files.path(&name))?;
                hashes.iter().for_each(|hash| checked.peaks.push_subtree(0, *hash));
                checked.passed.add(index..=index);
                return Ok(());
            }
            bytes => bytes?,
        };
        for entry in decode_bundle(&bytes, width, &self.files.path(&bundle_name(index, width)))? {
            checked.peaks.push(entry);
            if canonical::kind(entry) == Some(Kind::Admin as i32)
                && let Some(entry) = Entry::from_bytes(entry)
            {
                checked.recorded.add_event(&entry);
            }
        }
        Ok(())
    }

    fn pruned(&self) -> Result<Pruned, EntryFault> {
        let text = self.files.read(PRUNED_FILE)?.unwrap_or_default();
        let list = std::str::from_utf8(&text).ok().and_then(Pruned::parse);
        list.ok_or_else(|| EntryFault::Wrong(format!("{} is no list of bundles", self.name(PRUNED_FILE))))
    }

    /// Looks whether a whole bundle below the tree that was read is still the one that was read. `recorded` are the bundles
    /// of which an entry says that they were pruned.
    ///
    /// # Errors
    /// It is missing, or another one; or the hash tiles above it are.
    pub fn look(&self, peaks: &Peaks, recorded: &Pruned, bundle: u64) -> Result<Look, EntryFault> {
        let path = self.files.path(&bundle_name(bundle, TILE));
        let bytes = match self.files.bundle(bundle, TILE) {
            // The list before the entries: another gateway may have pruned its own folder.
            Err(LogError::Io { .. }) if self.pruned()?.has(bundle) => {
                return if recorded.has(bundle) { Ok(Look::Stored) } else { self.published().map(Look::Unexplained) };
            }
            bytes => bytes?,
        };
        let leaves: Vec<Hash> = decode_bundle(&bytes, TILE, &path)?.into_iter().map(leaf_hash).collect();
        let (mut level, mut index, mut hash) = (TILE.ilog2(), bundle, tree_hash(&leaves));
        let above = subtrees(0, peaks.size()).into_iter().zip(peaks.hashes());
        let mut above = above.filter(|((top, at), _)| *top >= level && bundle >> (top - level) == *at);
        let Some(((top, _), peak)) = above.next() else {
            return Err(EntryFault::Wrong(format!("{} is not below {} entries", path.display(), peaks.size())));
        };
        let read = |level, index, width| {
            let bytes = self.files.tile(level, index, width)?;
            Ok(decode_tile(&bytes, width, &self.files.path(&tile_name(level, index, width)))?.to_vec())
        };
        while level < top {
            let beside = complete_subtree(&read, &path, peaks.size(), (level, index ^ 1))?;
            hash = if index & 1 == 0 { node_hash(&hash, &beside) } else { node_hash(&beside, &hash) };
            (level, index) = (level + 1, index >> 1);
        }
        if hash == *peak {
            return Ok(Look::Stored);
        }
        Err(EntryFault::Wrong(format!(
            "{}, or a hash tile above it, is not the one that was read here",
            path.display()
        )))
    }
}
