//! Verification: recomputes every hash of the log from its entries, on all cores, and names the first wrong one.

use super::checkpoint::{Checkpoint, LogVerifier};
use super::cosignature::{Policy, plausible_times};
use super::disk::{self, Disk};
use super::file_events::{FileEvent, FileEvents};
use super::note::Note;
use super::pruned::{PRUNED_FILE, Pruned};
use super::reader::{COSIGNED_FILE, LogReader, POLICY_FILE, settled};
use super::segment::ChainKey;
use super::tiles::{bundle_bytes, bundle_name, complete_subtree, decode_bundle, decode_tile, tile_bytes, tile_name};
use super::tree::{Edge, Hash, TILE, leaf_hash, tree_hash};
use super::{Entry, Kind, LogError, LogPaths, canonical, proof};
use crate::hex::hex;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bundles that a thread takes at once.
const STRIDE: u64 = 16;

/// The origin of a log's files: a folder, or another machine.
pub trait LogFiles: Sync {
    /// Returns a file by its name; `None` if there is none.
    ///
    /// # Errors
    /// [`LogError::Io`] if it cannot be read.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, LogError>;
    /// A hash tile.
    ///
    /// # Errors
    /// [`LogError::Io`] if it is missing or cannot be read.
    fn tile(&self, level: usize, index: u64, width: usize) -> Result<Vec<u8>, LogError> {
        self.needed(&tile_name(level, index, width))
    }
    /// An entry bundle.
    ///
    /// # Errors
    /// [`LogError::Io`] if it is missing or cannot be read.
    fn bundle(&self, index: u64, width: usize) -> Result<Vec<u8>, LogError> {
        self.needed(&bundle_name(index, width))
    }
    /// Returns a pruned bundle, if its archive is available.
    ///
    /// # Errors
    /// [`LogError::Io`] if it exists and cannot be read.
    fn archived(&self, _index: u64) -> Result<Option<Vec<u8>>, LogError> {
        Ok(None)
    }
    /// Returns a file that must exist.
    ///
    /// # Errors
    /// [`LogError::Io`] if it is missing or cannot be read.
    fn needed(&self, name: &str) -> Result<Vec<u8>, LogError> {
        let missing = || LogError::Io { path: self.path(name), reason: "is missing".into() };
        self.read(name)?.ok_or_else(missing)
    }
    /// Returns the name of a file for errors.
    fn path(&self, name: &str) -> PathBuf;
}

/// The folder of a log: the one with `checkpoint` and `tile`; and that of its archive, where pruned bundles are.
pub struct LogFolder {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    archive: Option<PathBuf>,
}

impl LogFolder {
    /// Makes it for a log, optionally with its archive.
    pub fn with(root: &Path, archive: Option<&Path>) -> Self {
        LogFolder { disk: disk::local(), root: root.to_owned(), archive: archive.map(Path::to_owned) }
    }

    /// Makes it for the log of these folders.
    pub fn on(paths: &LogPaths, archive: Option<&Path>) -> Self {
        LogFolder { disk: paths.disk.clone(), ..Self::with(&paths.tiles, archive) }
    }
}

impl LogFiles for LogFolder {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, LogError> {
        let path = self.path(name);
        match disk::read(&*self.disk, &path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::io(&path, &error)),
        }
    }

    fn tile(&self, level: usize, index: u64, width: usize) -> Result<Vec<u8>, LogError> {
        tile_bytes(&*self.disk, &self.root, level, index, width)
    }

    fn bundle(&self, index: u64, width: usize) -> Result<Vec<u8>, LogError> {
        bundle_bytes(&*self.disk, &self.root, index, width)
    }

    fn archived(&self, index: u64) -> Result<Option<Vec<u8>>, LogError> {
        self.archive.as_ref().map(|archive| bundle_bytes(&*self.disk, archive, index, TILE)).transpose()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// The result of verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The log's name.
    pub origin: String,
    /// Entries under the checkpoint, each hashed into its root.
    pub sealed: u64,
    /// Of these, entries that are archived elsewhere; only their hashes are here.
    pub pruned: u64,
    /// Entries behind it, complete in the journal; 0 if only the log was verified.
    pub tail: u64,
    /// Whether the journal's batches were checked with the log's key.
    pub is_chain_checked: bool,
    /// The root, in hexadecimal.
    pub root: String,
    /// The cosigned checkpoint; `None` if the policy requires none.
    pub cosigned: Option<Cosigned>,
    /// Events that record the required content of files below `state`, in the order of the log.
    pub admin_events: Vec<FileEvent>,
}

/// The newest checkpoint with enough cosignatures. Only the log has signed what is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    /// Entries under it.
    pub size: u64,
    /// Its root, in hexadecimal.
    pub root: String,
    /// The witnesses with cosignatures that count.
    pub witnesses: Vec<String>,
    /// When the first of them cosigned it, in Unix seconds.
    pub time: u64,
}

/// How long entries may wait for a cosignature by default: an hour.
pub const MAX_LAG: Duration = Duration::from_secs(3_600);

/// What a log is verified against, beside its key.
#[derive(Debug, Clone, Copy, Default)]
pub struct Against<'a> {
    /// The witnesses that must have cosigned; without it, the policy beside the log.
    pub policy: Option<&'a Policy>,
    /// An earlier checkpoint of this log: its tree must be the beginning of the present one.
    pub older: Option<&'a Checkpoint>,
    /// Maximum age of the oldest entry without a cosignature, relative to the newest sealed entry; [`MAX_LAG`] by
    /// default.
    pub max_lag: Option<Duration>,
    /// The key of the journal's chain ([`super::key::chain`]): batches that the log did not write are reported. Without
    /// it, verification only checks that each batch names the previous one.
    pub chain: Option<&'a ChainKey>,
}

/// Verifies a log, and reports progress as entries done of all.
///
/// # Errors
/// [`LogError::Corrupt`] for the first check that fails, with its file; [`LogError::Io`] if a file cannot be read.
pub fn verify(
    files: &dyn LogFiles,
    verifier: &LogVerifier,
    against: Against<'_>,
    progress: impl Fn(u64, u64) + Sync,
) -> Result<Report, LogError> {
    // A gateway that is sealing at the same moment deletes the partial tiles of the checkpoint that was read: begin
    // again.
    let may_pass = |error: &LogError| matches!(error, LogError::Io { .. });
    settled(may_pass, || Verification { files, progress: &progress }.run(verifier, against))
}

struct Verification<'v, P> {
    files: &'v dyn LogFiles,
    progress: &'v P,
}

/// The sums of the log's entries.
struct Leaves {
    /// Roots of the full bundles, in order.
    nodes: Vec<Hash>,
    /// Leaves of the bundle that is not full.
    rest: Vec<Hash>,
    /// Entries that are pruned.
    pruned: u64,
    admin_events: Vec<FileEvent>,
}

impl<P: Fn(u64, u64) + Sync> Verification<'_, P> {
    fn run(&self, verifier: &LogVerifier, against: Against<'_>) -> Result<Report, LogError> {
        let path = self.files.path("checkpoint");
        // First: a log that grows meanwhile has a checkpoint that is no smaller.
        let cosigned = self.files.read(COSIGNED_FILE)?;
        let note = self.files.needed("checkpoint")?;
        let note = String::from_utf8(note).map_err(|_| LogError::corrupt(&path, 0, "is no text"))?;
        let checkpoint = verifier.check(&note).map_err(|error| LogError::corrupt(&path, 0, error.to_string()))?;
        let mut leaves = self.leaves(&checkpoint)?;
        let (pruned, admin_events) = (leaves.pruned, std::mem::take(&mut leaves.admin_events));
        let root = self.upper(checkpoint.size, leaves)?;
        if checkpoint.root != root {
            return Err(LogError::corrupt(&path, 0, "the entries do not have the checkpoint's root"));
        }
        if let Some(older) = against.older
            && !self.begins_with(&checkpoint, older)?
        {
            let reason = format!("the checkpoint of {} entries from before is not of this tree", older.size);
            return Err(LogError::corrupt(&path, 0, reason));
        }
        let cosigned = cosigned.map_or(note, |bytes| String::from_utf8_lossy(&bytes).into());
        let cosigned = self.cosigned(verifier, against.policy, &checkpoint, &cosigned)?;
        if let Some(cosigned) = &cosigned {
            self.check_lag(cosigned.size, checkpoint.size, against.max_lag.unwrap_or(MAX_LAG))?;
        }
        let Checkpoint { origin, size, .. } = checkpoint;
        Ok(Report {
            origin,
            sealed: size,
            pruned,
            tail: 0,
            is_chain_checked: false,
            root: hex(&root),
            cosigned,
            admin_events,
        })
    }

    /// Returns the cosigned checkpoint, after checking that it meets the policy and belongs to this very tree. Over
    /// HTTPS it is the only one.
    fn cosigned(
        &self,
        verifier: &LogVerifier,
        policy: Option<&Policy>,
        checkpoint: &Checkpoint,
        cosigned: &str,
    ) -> Result<Option<Cosigned>, LogError> {
        let own = match policy {
            Some(policy) => policy.clone(),
            None => {
                let text = self.files.read(POLICY_FILE)?;
                let path = self.files.path(POLICY_FILE);
                let parsed = text.map(|text| Policy::parse(&String::from_utf8_lossy(&text)));
                let wrong = |(line, reason)| LogError::corrupt(&path, 0, format!("line {line}: {reason}"));
                parsed.transpose().map_err(wrong)?.unwrap_or_default()
            }
        };
        if !own.needs_witnesses() {
            return Ok(None);
        }
        let path = self.files.path(COSIGNED_FILE);
        let wrong = |reason: &str| LogError::corrupt(&path, 0, reason);
        let counted = verifier.check(cosigned).map_err(|error| wrong(&error.to_string()))?;
        if !self.begins_with(checkpoint, &counted)? {
            return Err(wrong("it is of another tree"));
        }
        let newest = match counted.size.checked_sub(1) {
            Some(last) => self.entry_time_us(last, checkpoint.size)?.unwrap_or(0),
            None => 0,
        };
        let quorum = own.quorum(cosigned, &plausible_times(newest, jiff::Timestamp::now().as_second()));
        let found = quorum.map_err(|error| wrong(&error.to_string()))?;
        let found = found.ok_or_else(|| {
            wrong("it lacks cosignatures that the policy of witnesses wants, or they are from before its entries or from the future")
        })?;
        // Nothing reads other lines, and none was written: the file has the log's line and those of its witnesses.
        let lines = Note::parse(cosigned).map_or(0, |note| note.signatures.len());
        if lines != found.len() + 1 {
            return Err(wrong("it holds a signature that is neither the log's nor a counted one of its witnesses"));
        }
        Ok(Some(Cosigned {
            size: counted.size,
            root: hex(&counted.root),
            time: found.iter().map(|one| one.time).min().unwrap_or(0),
            witnesses: found.into_iter().map(|one| one.witness).collect(),
        }))
    }

    /// Entries without any cosignature must be recent: otherwise anyone with the log's key could still rewrite them.
    fn check_lag(&self, cosigned: u64, sealed: u64, most: Duration) -> Result<(), LogError> {
        let Some(last) = sealed.checked_sub(1).filter(|last| *last >= cosigned) else { return Ok(()) };
        let times = (self.entry_time_us(cosigned, sealed)?, self.entry_time_us(last, sealed)?);
        let (Some(oldest), Some(newest)) = times else { return Ok(()) };
        let lag = Duration::from_micros(u64::try_from(newest.saturating_sub(oldest)).unwrap_or(0));
        if lag <= most {
            return Ok(());
        }
        let reason = format!(
            "witnesses have cosigned {cosigned} of {sealed} entries; the others, signed by the log alone, go back {} s: \
             see to the witnesses, or allow more with --max-lag",
            lag.as_secs()
        );
        Err(LogError::corrupt(&self.files.path(COSIGNED_FILE), 0, reason))
    }

    /// Returns the time of a sealed entry; `None` if it was pruned.
    fn entry_time_us(&self, index: u64, sealed: u64) -> Result<Option<i64>, LogError> {
        let (bundle, place) = (index / TILE as u64, (index % TILE as u64) as usize);
        let width = usize::try_from(sealed - bundle * TILE as u64).map_or(TILE, |width| width.min(TILE));
        let path = self.files.path(&bundle_name(bundle, width));
        let bytes = match self.files.bundle(bundle, width) {
            Ok(bytes) => bytes,
            Err(LogError::Io { .. }) if width == TILE => return Ok(None),
            Err(error) => return Err(error),
        };
        let entries = decode_bundle(&bytes, width, &path)?;
        Ok(entries.get(place).and_then(|bytes| Entry::from_bytes(bytes)).map(|entry| entry.time_us))
    }

    /// Returns whether an older checkpoint's tree is the beginning of this one's, by verified hash tiles.
    fn begins_with(&self, checkpoint: &Checkpoint, older: &Checkpoint) -> Result<bool, LogError> {
        if older.size == 0 || older.size > checkpoint.size {
            return Ok(older.size == 0);
        }
        let read = |level, index, width| {
            let path = self.files.path(&tile_name(level, index, width));
            Ok(decode_tile(&self.files.tile(level, index, width)?, width, &path)?.to_vec())
        };
        let path = self.files.path("checkpoint");
        let node = |level, index| complete_subtree(&read, &path, checkpoint.size, (level, index));
        Ok(proof::root(&node, older.size)? == older.root)
    }

    /// Verifies every bundle on all cores; of several wrong ones, the first is reported.
    fn leaves(&self, checkpoint: &Checkpoint) -> Result<Leaves, LogError> {
        let pruned = self.files.read(PRUNED_FILE)?.unwrap_or_default();
        let own = |list: &Pruned| list.text().as_bytes() == pruned;
        let list = std::str::from_utf8(&pruned).ok().and_then(Pruned::parse).filter(own);
        let pruned = list.ok_or_else(|| {
            LogError::corrupt(&self.files.path(PRUNED_FILE), 0, "is no list of bundles that the log wrote")
        })?;
        let full = checkpoint.size / TILE as u64;
        let (next, wrong, done) = (AtomicU64::new(0), AtomicU64::new(u64::MAX), AtomicU64::new(0));
        let found: Mutex<Vec<(u64, Vec<Hash>)>> = Mutex::default();
        let events: Mutex<FileEvents> = Mutex::default();
        let errors: Mutex<Vec<(u64, LogError)>> = Mutex::default();
        let work = || {
            loop {
                let first = next.fetch_add(STRIDE, Ordering::Relaxed);
                if first >= full.min(wrong.load(Ordering::Relaxed)) {
                    return;
                }
                let (mut nodes, mut admin_events) = (Vec::new(), FileEvents::default());
                for bundle in first..(first + STRIDE).min(full) {
                    match self.bundle(bundle, TILE, pruned.has(bundle), &mut admin_events) {
                        Ok(hashes) => nodes.push(tree_hash(&hashes)),
                        Err(error) => {
                            wrong.fetch_min(bundle, Ordering::Relaxed);
                            lock(&errors).push((bundle, error));
                            return;
                        }
                    }
                }
                let entries = nodes.len() as u64 * TILE as u64;
                lock(&events).append(admin_events);
                lock(&found).push((first, nodes));
                (self.progress)(done.fetch_add(entries, Ordering::Relaxed) + entries, checkpoint.size);
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
        let mut errors = errors.into_inner().unwrap_or_else(PoisonError::into_inner);
        errors.sort_by_key(|(bundle, _)| *bundle);
        if let Some((_, first)) = errors.into_iter().next() {
            return Err(first);
        }
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_by_key(|(first, _)| *first);
        let mut events = events.into_inner().unwrap_or_else(PoisonError::into_inner);
        let width = (checkpoint.size % TILE as u64) as usize;
        let rest = if width == 0 { Vec::new() } else { self.bundle(full, width, false, &mut events)? };
        self.check_events(&pruned, &events.pruned)?;
        events.of_state.sort();
        let bundles = pruned.runs().iter().map(|run| run.end() - run.start() + 1).sum::<u64>();
        let nodes = found.into_iter().flat_map(|(_, nodes)| nodes).collect();
        Ok(Leaves { nodes, rest, pruned: bundles * TILE as u64, admin_events: events.of_state })
    }

    /// Checks that every pruning is an entry of the log: a bundle that is missing without one was removed.
    fn check_events(&self, pruned: &Pruned, recorded: &Pruned) -> Result<(), LogError> {
        let covered = |run: &std::ops::RangeInclusive<u64>| {
            recorded.runs().iter().any(|event| event.start() <= run.start() && run.end() <= event.end())
        };
        match pruned.runs().iter().find(|run| !covered(run)) {
            None => Ok(()),
            Some(run) => {
                let (first, end) = (run.start() * TILE as u64, (run.end() + 1) * TILE as u64 - 1);
                let reason = format!("it lists entries {first} to {end} as pruned, and no entry states that");
                Err(LogError::corrupt(&self.files.path(PRUNED_FILE), 0, reason))
            }
        }
    }

    /// Returns the leaf hashes of a bundle, checked against their tile; collects the events of pruning.
    fn bundle(
        &self,
        bundle: u64,
        width: usize,
        pruned: bool,
        admin_events: &mut FileEvents,
    ) -> Result<Vec<Hash>, LogError> {
        let archived = if pruned { self.files.archived(bundle)? } else { None };
        if pruned && archived.is_none() {
            let name = tile_name(0, bundle, width);
            return Ok(decode_tile(&self.files.tile(0, bundle, width)?, width, &self.files.path(&name))?.to_vec());
        }
        let path = self.files.path(&bundle_name(bundle, width));
        let bytes = archived.map_or_else(|| self.files.bundle(bundle, width), Ok)?;
        let mut hashes = Vec::with_capacity(width);
        for (place, entry) in decode_bundle(&bytes, width, &path)?.into_iter().enumerate() {
            let Some(kind) = canonical::kind(entry) else {
                let index = bundle * TILE as u64 + place as u64;
                return Err(LogError::corrupt(&path, 0, format!("entry {index} is no canonical entry")));
            };
            if kind == Kind::Admin as i32
                && let Some(entry) = Entry::from_bytes(entry)
            {
                admin_events.take(bundle * TILE as u64 + place as u64, entry);
            }
            hashes.push(leaf_hash(entry));
        }
        self.check_tile(0, bundle, &hashes)?;
        Ok(hashes)
    }

    /// Checks the tiles above the leaves, and returns the root.
    fn upper(&self, size: u64, leaves: Leaves) -> Result<Hash, LogError> {
        let mut edge = Edge { size, levels: vec![leaves.rest] };
        let (mut level, mut nodes) = (1, leaves.nodes);
        while !nodes.is_empty() {
            let (tiles, rest) = nodes.as_chunks::<TILE>();
            for (index, tile) in tiles.iter().enumerate() {
                self.check_tile(level, index as u64, tile)?;
            }
            if !rest.is_empty() {
                self.check_tile(level, tiles.len() as u64, rest)?;
            }
            edge.levels.push(rest.to_vec());
            nodes = tiles.iter().map(|tile| tree_hash(tile)).collect();
            level += 1;
        }
        Ok(edge.root())
    }

    /// Checks that a hash tile holds the hashes of the entries; the first hash that differs names the entries below it.
    fn check_tile(&self, level: usize, index: u64, computed: &[Hash]) -> Result<(), LogError> {
        let name = tile_name(level, index, computed.len());
        let (bytes, path) = (self.files.tile(level, index, computed.len())?, self.files.path(&name));
        let stored = decode_tile(&bytes, computed.len(), &path)?;
        let Some(place) = stored.iter().zip(computed).position(|(stored, computed)| stored != computed) else {
            return Ok(());
        };
        let span = 1u64 << (8 * level);
        let first = (index * TILE as u64 + place as u64) * span;
        let which =
            if span == 1 { format!("entry {first}") } else { format!("entries {first} to {}", first + span - 1) };
        let reason = format!("{which}: the stored hash is not that of the entry");
        Err(LogError::corrupt(&path, place as u64 * 32, reason))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Verifies the log below a data folder, including what is behind its checkpoint. It also checks that each batch of the
/// journal follows the previous one, that the last signed checkpoint is of this tree, and that every file in the log's
/// folders belongs to it. Without a key, the log's own key file is trusted.
///
/// # Errors
/// As for [`verify`] and [`LogReader::open`].
pub fn verify_data(
    data: &Path,
    archive: Option<&Path>,
    vkey: Option<&LogVerifier>,
    against: Against<'_>,
    progress: impl Fn(u64, u64) + Sync,
) -> Result<Report, LogError> {
    let reader = LogReader::open(data)?;
    let verifier = vkey.unwrap_or_else(|| reader.verifier());
    let mut report = verify(&LogFolder::with(&reader.paths().tiles, archive), verifier, against, progress)?;
    // Behind what was sealed when the reader was opened; the verification may have seen more.
    for (place, bytes) in reader.tail().iter().enumerate() {
        if canonical::kind(bytes).is_none() {
            let index = reader.sealed() + place as u64;
            let reason = format!("entry {index} is no canonical entry");
            return Err(LogError::corrupt(&reader.paths().journal, 0, reason));
        }
        let index = reader.sealed() + place as u64;
        if index >= report.sealed
            && let Some(entry) = Entry::from_bytes(bytes)
        {
            report.admin_events.extend(FileEvent::of(index, entry));
        }
    }
    // A gateway that is sealing at the same moment has written more than the reader had seen, and retires segments.
    settled(|_| true, || super::stray::check(&LogReader::open(data)?))?;
    settled(|_| true, || super::chain::check(reader.paths(), reader.sealed(), against.chain))?;
    super::signed::check(reader.paths(), verifier)?;
    let tail = reader.size().saturating_sub(report.sealed);
    Ok(Report { tail, is_chain_checked: against.chain.is_some(), ..report })
}
