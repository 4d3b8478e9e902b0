//! Reading the log's files, also while a gateway writes them.
//!
//! Every entry that a reader returns from under the checkpoint was hashed up to the checkpoint's root: entries against
//! their hash tile, each tile against the one above it, the right edge against the signed root. So the output for a
//! sealed entry is what was signed, or an error that names the file. Cost: opening reads at most four small tiles; an
//! entry is one leaf hash and one tile (255 node hashes, some 40 us), a whole bundle 256 leaf hashes more.

use super::checkpoint::{Checkpoint, CheckpointError, LogVerifier};
use super::cosignature::Policy;
use super::disk::{Disk, Open, read_text};
use super::journal::{read_segment, segments};
use super::pruned::Pruned;
use super::segment::{BatchPosition, ChainKey, Reading};
use super::tiles::{bundle_path, checkpoint_path, complete_subtree, edge_tiles, read_bundle, read_tile, tile_path};
use super::tree::{Edge, Hash, TILE, leaf_hash, tree_hash};
use super::{Entry, LogError, LogPaths};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Verified hash tiles above the leaves that are cached: 8 kB each, for 8 million entries.
const MAX_TILES: usize = 128;

/// An entry with its index.
#[derive(Debug, Clone)]
pub struct Found {
    /// Position in the log, from 0.
    pub index: u64,
    /// The entry.
    pub entry: Entry,
}

/// Returns the name of the file with the newest checkpoint that counts.
///
/// # Errors
/// As for [`policy`].
pub fn published_file(disk: &dyn Disk, tiles: &Path) -> Result<&'static str, LogError> {
    Ok(if policy(disk, tiles)?.needs_witnesses() { COSIGNED_FILE } else { "checkpoint" })
}

/// How entries behind the checkpoint are read.
pub(super) struct TailReading<'f> {
    /// Finds the key of the journal's chain, by the log's own; `None` if it is not available.
    pub(super) chain: &'f dyn Fn(&LogVerifier) -> Result<Option<ChainKey>, LogError>,
    /// Where an earlier reader found the first of them.
    pub(super) start: Option<BatchPosition>,
}

impl TailReading<'_> {
    /// Without the log's key, from the beginning of the journal.
    const UNKEYED: TailReading<'static> = TailReading { chain: &|_| Ok(None), start: None };
}

/// Full tiles by level and index.
type CheckedTiles = HashMap<(usize, u64), Arc<Vec<Hash>>>;

/// A view of the log at one moment.
pub struct LogReader {
    paths: LogPaths,
    /// The published checkpoint; `None` if nothing was sealed yet.
    pub checkpoint: Option<Checkpoint>,
    /// The key in the log's own folder.
    verifier: LogVerifier,
    /// The signed text of the checkpoint.
    note: String,
    /// Bundles that are archived and deleted.
    pruned: Pruned,
    /// Entries behind the checkpoint, as the journal has them.
    tail: Vec<Vec<u8>>,
    /// Where the journal has the first of them.
    tail_start: Option<BatchPosition>,
    /// The bundle that is not full: read at once, since the next sealing deletes its file.
    last_bundle: Vec<Vec<u8>>,
    /// The tiles of the right edge, by level, hashed up to the checkpoint's root.
    edge: Vec<Arc<Vec<Hash>>>,
    /// Full tiles that were hashed up to it, by level and index.
    checked: Mutex<CheckedTiles>,
    /// The bundle that was read last, with its checked tile: entries of one page often share it.
    recent: Mutex<Option<Arc<Bundle>>>,
}

/// A full bundle as its file has it, with its verified hash tile. Entries are compared when they are taken out.
struct Bundle {
    index: u64,
    entries: Vec<Vec<u8>>,
    hashes: Arc<Vec<Hash>>,
}

/// The file with the log's verifier key, beside the checkpoint.
pub const VKEY_FILE: &str = "vkey";
/// The file with the policy that defines which checkpoints count (C2SP tlog-policy).
pub const POLICY_FILE: &str = "policy";
/// The newest checkpoint with the cosignatures that the policy requires.
pub const COSIGNED_FILE: &str = "cosigned";

/// A checkpoint that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Entries.
    pub size: u64,
    /// Its signed and cosigned text.
    pub note: String,
}

/// Reads the policy of a log; a log without that file needs no witnesses.
///
/// # Errors
/// [`LogError::Io`] if the file cannot be read; [`LogError::Corrupt`] if it is not a policy.
pub fn policy(disk: &dyn Disk, tiles: &Path) -> Result<Policy, LogError> {
    let path = tiles.join(POLICY_FILE);
    let parse = |text: String| {
        Policy::parse(&text).map_err(|(line, reason)| LogError::corrupt(&path, 0, format!("line {line}: {reason}")))
    };
    read_text(disk, &path)?.map_or(Ok(Policy::default()), parse)
}

/// Pauses between two attempts. Simulated time passes at once.
fn pause() {
    if !cfg!(simulator) {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Retries if a running gateway's writes at this moment may have caused the error.
pub(super) fn settled<T>(
    may_pass: impl Fn(&LogError) -> bool,
    mut check: impl FnMut() -> Result<T, LogError>,
) -> Result<T, LogError> {
    for _ in 0..8 {
        match check() {
            Err(error) if may_pass(&error) => pause(),
            settled => return settled,
        }
    }
    check()
}

impl LogReader {
    /// Opens the log below `data`. Retries for 400 ms errors that a gateway that is sealing may cause.
    ///
    /// # Errors
    /// [`LogError::Io`] if a file cannot be read; [`LogError::Corrupt`] if one is not what was written: a signature, a
    /// hash or a batch is wrong.
    pub fn open(data: &Path) -> Result<Self, LogError> {
        Self::persist(&LogPaths::new(data), Some(&TailReading::UNKEYED))
    }

    /// The same; returns entries behind the checkpoint only if the log wrote them, provided that its key is found.
    ///
    /// # Errors
    /// As for [`LogReader::open`]; or the key is another log's.
    pub(super) fn open_with(data: &Path, tail: &TailReading<'_>) -> Result<Self, LogError> {
        Self::persist(&LogPaths::new(data), Some(tail))
    }

    /// Opens a log whose folders are known.
    ///
    /// # Errors
    /// As for [`LogReader::open`].
    pub fn open_at(paths: &LogPaths) -> Result<Self, LogError> {
        Self::persist(paths, Some(&TailReading::UNKEYED))
    }

    /// Opens the log below `data` without the entries behind the checkpoint.
    ///
    /// # Errors
    /// As for [`LogReader::open`].
    pub fn sealed_only(data: &Path) -> Result<Self, LogError> {
        Self::persist(&LogPaths::new(data), None)
    }

    fn persist(paths: &LogPaths, tail: Option<&TailReading<'_>>) -> Result<Self, LogError> {
        let (mut last, mut corrupt) = (LogError::Closed, 0);
        for _ in 0..20 {
            match Self::try_open(paths, tail) {
                Ok(reader) => return Ok(reader),
                Err(error @ LogError::Io { .. }) => last = error,
                // Without a journal, nothing has the entries of a checkpoint that is stored and about to be published.
                Err(error @ LogError::RolledBack { .. }) if paths.is_replicated()? => last = error,
                // A batch that is being written may be seen in part.
                Err(error @ LogError::Corrupt { .. }) if corrupt < 2 => (last, corrupt) = (error, corrupt + 1),
                Err(other) => return Err(other),
            }
            pause();
        }
        Err(last)
    }

    fn try_open(paths: &LogPaths, tail: Option<&TailReading<'_>>) -> Result<Self, LogError> {
        let (paths, disk) = (paths.clone(), &*paths.disk);
        let vkey_path = paths.tiles.join(VKEY_FILE);
        let missing = || LogError::Io { path: vkey_path.clone(), reason: "is missing".into() };
        let vkey = read_text(disk, &vkey_path)?.ok_or_else(missing)?;
        let verifier =
            LogVerifier::parse(&vkey).map_err(|error| LogError::corrupt(&vkey_path, 0, error.to_string()))?;
        // Read before the checkpoint and the journal: what was signed before this moment must be in what is read now.
        let signed = if tail.is_some() { read_text(disk, &paths.signed)? } else { None };
        let path = checkpoint_path(&paths.tiles);
        let note = read_text(disk, &path)?.unwrap_or_default();
        let check = |note: &str| verifier.check(note).map_err(|error| LogError::corrupt(&path, 0, error.to_string()));
        let checkpoint = if note.is_empty() { None } else { Some(check(&note)?) };
        let sealed = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
        let pruned = Pruned::read(disk, &paths.tiles)?;
        // Nothing is pruned before it is under a checkpoint: the journal may still have some of the pruned entries, and
        // not all.
        if checkpoint.is_none() && !pruned.runs().is_empty() {
            return Err(LogError::corrupt(&path, 0, "is missing, though bundles were pruned under it"));
        }
        let mut reader = LogReader {
            paths,
            checkpoint,
            verifier,
            note,
            pruned,
            tail: Vec::new(),
            tail_start: None,
            last_bundle: Vec::new(),
            edge: Vec::new(),
            checked: Mutex::default(),
            recent: Mutex::default(),
        };
        // At once: the next sealing deletes these files.
        if sealed % TILE as u64 != 0 {
            let width = (sealed % TILE as u64) as usize;
            reader.last_bundle = read_bundle(disk, &reader.paths.tiles, sealed / TILE as u64, width)?;
        }
        reader.edge = reader.checked_edge()?;
        if let Some(TailReading { chain, start }) = tail {
            let key = chain(&reader.verifier)?;
            let read = match reader.journal_after(sealed, key.as_ref(), *start) {
                // The segment may be another one of this name.
                Err(LogError::Corrupt { .. }) if start.is_some() => reader.journal_after(sealed, key.as_ref(), None),
                read => read,
            };
            (reader.tail, reader.tail_start) = read?;
        }
        // A copy of a log may lack it; verification requires it.
        if let Some(signed) = signed.filter(|signed| *signed != reader.note) {
            let wrong = |error: CheckpointError| LogError::corrupt(&reader.paths.signed, 0, error.to_string());
            let signed = reader.verifier.check(&signed).map_err(wrong)?.size;
            if signed > reader.size() {
                let (found, path) = (reader.size(), reader.paths.tiles.clone());
                return Err(LogError::RolledBack { found, signed, path });
            }
        }
        Ok(reader)
    }

    /// Returns the tiles of the right edge, after checking that they and the bundle that is not full lead to the
    /// checkpoint's root.
    fn checked_edge(&self) -> Result<Vec<Arc<Vec<Hash>>>, LogError> {
        let Some(checkpoint) = &self.checkpoint else { return Ok(Vec::new()) };
        let (disk, root) = (&*self.paths.disk, &self.paths.tiles);
        let mut edge = Edge { size: checkpoint.size, levels: Vec::new() };
        for (level, index, width) in edge_tiles(checkpoint.size) {
            let hashes = read_tile(disk, root, level, index, width)?;
            if level == 0
                && let Some(place) =
                    self.last_bundle.iter().zip(&hashes).position(|(entry, hash)| leaf_hash(entry) != *hash)
            {
                return Err(self.foreign_entry(index, place, width));
            }
            edge.levels.resize(level + 1, Vec::new());
            edge.levels[level] = hashes;
        }
        if edge.root() != checkpoint.root {
            let path = checkpoint_path(root);
            return Err(LogError::corrupt(
                &path,
                0,
                "the tiles of the right edge do not lead to the checkpoint's root",
            ));
        }
        Ok(edge.levels.into_iter().map(Arc::new).collect())
    }

    fn foreign_entry(&self, bundle: u64, place: usize, width: usize) -> LogError {
        let index = bundle * TILE as u64 + place as u64;
        let path = bundle_path(&self.paths.tiles, bundle, width);
        LogError::corrupt(&path, 0, format!("entry {index} is not that of its hash tile"))
    }

    /// Returns a hash tile, hashed up to the checkpoint's root: a full one, or all that the right edge has of it.
    ///
    /// # Errors
    /// As for [`LogReader::bundle`].
    pub fn tile(&self, level: usize, index: u64) -> Result<Arc<Vec<Hash>>, LogError> {
        let path = || tile_path(&self.paths.tiles, level, index, TILE);
        let full = self.sealed().checked_shr(8 * (level as u32 + 1)).unwrap_or(0);
        if index >= full {
            let edge = self.edge.get(level).filter(|_| index == full);
            return edge.cloned().ok_or_else(|| LogError::corrupt(&path(), 0, "is not under the checkpoint"));
        }
        let known = || self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tile) = known().get(&(level, index)) {
            return Ok(tile.clone());
        }
        let above = self.tile(level + 1, index / TILE as u64)?;
        let hashes = read_tile(&*self.paths.disk, &self.paths.tiles, level, index, TILE)?;
        if above.get((index % TILE as u64) as usize) != Some(&tree_hash(&hashes)) {
            return Err(LogError::corrupt(&path(), 0, "is not the tile that the one above it names"));
        }
        let tile = Arc::new(hashes);
        // Tiles of the leaves stay with their bundles: a log has too many.
        if level > 0 {
            let mut known = known();
            if known.len() >= MAX_TILES {
                known.clear();
            }
            known.insert((level, index), tile.clone());
        }
        Ok(tile)
    }

    /// Returns a full bundle; `None` if it was pruned.
    fn full_bundle(&self, index: u64) -> Result<Option<Arc<Bundle>>, LogError> {
        let recent = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bundle) = recent().as_ref().filter(|bundle| bundle.index == index) {
            return Ok(Some(bundle.clone()));
        }
        // A bundle that exists counts, whatever the list of pruned bundles has.
        let entries = match read_bundle(&*self.paths.disk, &self.paths.tiles, index, TILE) {
            Err(LogError::Io { .. }) if self.is_pruned(index)? => return Ok(None),
            read => read?,
        };
        let bundle = Arc::new(Bundle { index, entries, hashes: self.tile(0, index)? });
        *recent() = Some(bundle.clone());
        Ok(Some(bundle))
    }

    fn is_pruned(&self, bundle: u64) -> Result<bool, LogError> {
        // It may have been pruned since this reader was opened.
        Ok(self.pruned.has(bundle) || Pruned::read(&*self.paths.disk, &self.paths.tiles)?.has(bundle))
    }

    /// Returns the entries behind the checkpoint, and where the journal has the first of them.
    fn journal_after(
        &self,
        sealed: u64,
        key: Option<&ChainKey>,
        start: Option<BatchPosition>,
    ) -> Result<(Vec<Vec<u8>>, Option<BatchPosition>), LogError> {
        let disk = &*self.paths.disk;
        let found = segments(disk, &self.paths.journal)?;
        let (mut tail, mut tail_start) = (Vec::new(), None);
        for (position, (first, path)) in found.iter().enumerate() {
            let before = found.get(position + 1).map(|(next, _)| *next);
            if before.is_some_and(|before| before <= sealed) {
                continue;
            }
            // Sealed and freed since the checkpoint was read, or while it was read: start again with the newer one.
            let moved_on = || LogError::Io { path: path.clone(), reason: "the journal has moved on".into() };
            let next = sealed + tail.len() as u64;
            let start = start.filter(|start| start.serves(*first, next));
            let reading = Reading { first: *first, before, from: next, key, keyed_from: next + 1, start };
            let read = read_segment(disk, path, reading).map_err(|error| match error {
                LogError::Corrupt { .. } if disk.open(path, Open::Read).is_err() => moved_on(),
                other => other,
            })?;
            if *first > next {
                return Err(moved_on());
            }
            tail_start = tail_start.or(Some(read.start));
            tail.extend(read.records.into_iter().map(|record| record.bytes));
        }
        Ok((tail, tail_start))
    }

    /// Where the journal has the first entry behind the checkpoint; `None` if none were read.
    pub(super) fn tail_start(&self) -> Option<BatchPosition> {
        self.tail_start
    }

    /// Entries in the log.
    pub fn size(&self) -> u64 {
        self.sealed() + self.tail.len() as u64
    }

    /// Entries under the checkpoint.
    pub fn sealed(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size)
    }

    /// Returns the sealed entries of a bundle, each compared with its hash; `None` if it was pruned.
    ///
    /// # Errors
    /// [`LogError::Io`] if a file cannot be read; [`LogError::Corrupt`] if an entry or a tile does not lead to the
    /// checkpoint's root.
    pub fn bundle(&self, index: u64) -> Result<Option<Vec<Vec<u8>>>, LogError> {
        if index == self.sealed() / TILE as u64 {
            return Ok(Some(self.last_bundle.clone()));
        }
        let Some(bundle) = self.full_bundle(index)? else { return Ok(None) };
        match bundle.entries.iter().zip(&*bundle.hashes).position(|(entry, hash)| leaf_hash(entry) != *hash) {
            None => Ok(Some(bundle.entries.clone())),
            Some(place) => Err(self.foreign_entry(index, place, TILE)),
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

    /// Entries of bundles that were pruned.
    pub fn pruned_entries(&self) -> u64 {
        self.pruned.bundles_below(self.sealed() / TILE as u64) * TILE as u64
    }

    /// The log's folders.
    pub fn paths(&self) -> &LogPaths {
        &self.paths
    }

    /// Returns the newest checkpoint that counts by the log's policy; `None` if there is none yet.
    ///
    /// # Errors
    /// [`LogError::Io`] if it cannot be read; [`LogError::Corrupt`] if its signature is wrong.
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
        // A newer one is later than this reader's view.
        Ok((size <= self.sealed()).then_some(Published { size, note }))
    }

    /// Returns the signed text of the last checkpoint; empty if nothing was sealed yet.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// Returns the bytes of an entry; `None` if it was pruned.
    ///
    /// # Errors
    /// As for [`LogReader::bundle`].
    pub fn entry_bytes(&self, index: u64) -> Result<Option<Vec<u8>>, LogError> {
        let missing = || LogError::corrupt(&self.paths.tiles, 0, format!("entry {index} is missing"));
        if let Some(behind) = index.checked_sub(self.sealed()) {
            let place = usize::try_from(behind).unwrap_or(usize::MAX);
            return Ok(Some(self.tail.get(place).ok_or_else(missing)?.clone()));
        }
        let (bundle, place) = (index / TILE as u64, (index % TILE as u64) as usize);
        if bundle == self.sealed() / TILE as u64 {
            return Ok(Some(self.last_bundle.get(place).ok_or_else(missing)?.clone()));
        }
        let Some(found) = self.full_bundle(bundle)? else { return Ok(None) };
        let entry = found.entries.get(place).ok_or_else(missing)?;
        if found.hashes.get(place) != Some(&leaf_hash(entry)) {
            return Err(self.foreign_entry(bundle, place, TILE));
        }
        Ok(Some(entry.clone()))
    }

    /// Returns an entry; `None` if it was pruned.
    ///
    /// # Errors
    /// As for [`LogReader::bundle`]; [`LogError::Corrupt`] if the bytes are not an entry.
    pub fn entry(&self, index: u64) -> Result<Option<Entry>, LogError> {
        self.entry_bytes(index)?.map(|bytes| self.decode(index, &bytes)).transpose()
    }

    fn decode(&self, index: u64, bytes: &[u8]) -> Result<Entry, LogError> {
        let entry = Entry::from_bytes(bytes);
        entry.ok_or_else(|| LogError::corrupt(&self.paths.tiles, 0, format!("entry {index} is no entry")))
    }

    /// Returns the hash of a complete sealed subtree of 2^`level` leaves.
    ///
    /// # Errors
    /// As for [`LogReader::bundle`].
    pub fn node(&self, level: u32, index: u64) -> Result<Hash, LogError> {
        let read = |tiles, tile, _| self.tile(tiles, tile).map(|tile| tile.to_vec());
        complete_subtree(&read, &self.paths.tiles, self.sealed(), (level, index))
    }

    /// The bytes of the entries behind the checkpoint.
    pub fn tail(&self) -> &[Vec<u8>] {
        &self.tail
    }

    /// Visits the entries before `before`, newest first, until `visit` returns false. Pruned entries are skipped.
    ///
    /// # Errors
    /// As for [`LogReader::bundle`].
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
