//! The durable entries, the sealed ones among them, and the sealing of the others. The threads of
//! [`writer`](super::writer) and [`embedded`](super::embedded) drive it; so does the simulator.

use super::checkpoint::LogSigner;
use super::disk::{read_text, write_atomically};
use super::engine::Health;
use super::journal::{Journal, Recovered};
use super::preallocated::Preallocator;
use super::seal::Sealer;
use super::storage::Storage;
use super::sync::{Mutex, lock};
use super::tree::TILE;
use super::{LogError, LogPaths};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Number of entries from which only complete bundles are sealed.
const MANY: usize = 2 * TILE;
/// Maximum number of entries that are sealed at once, about 8 MB: if only little space becomes free, some of them are
/// sealed.
const PART: usize = if cfg!(simulator) { TILE / 2 } else { 64 * TILE };
/// Maximum bytes of entries that wait to be sealed; beyond, new entries are refused at once. Half an hour of a
/// province's calls. (Tests reach it sooner.)
pub const MAX_UNSEALED_BYTES: u64 = if cfg!(test) { 8 << 20 } else { 256 << 20 };

/// Durable entries that are not sealed yet, in order.
#[derive(Default)]
struct Unsealed {
    entries: Vec<Vec<u8>>,
    /// When the first of them arrived.
    since: Option<Instant>,
}

/// The log below its threads.
pub struct Pipeline {
    unsealed: Mutex<Unsealed>,
    unsealed_bytes: AtomicU64,
    sealer: Mutex<Sealer>,
    preallocator: Arc<Preallocator>,
    /// Number of durable entries, sealed or not.
    durable: AtomicU64,
    /// Number of sealed entries.
    sealed: watch::Sender<u64>,
    /// When the last sealing succeeded, and the error of the last one.
    last_sealing: Mutex<(Instant, Option<LogError>)>,
    last_sync_us: AtomicU64,
    paths: LogPaths,
}

impl Pipeline {
    /// Opens the log and recovers from a crash. What can be read is served even if nothing can be written: entries that
    /// cannot be sealed now stay in the journal.
    ///
    /// # Errors
    /// Any part of the log that is not what was written and signed, with file and offset; folders that cannot be
    /// created or read.
    pub fn open(paths: LogPaths, signer: LogSigner) -> Result<(Arc<Self>, Journal), LogError> {
        for folder in [&paths.journal, &paths.tiles, paths.signed.parent().unwrap_or(&paths.tiles)] {
            make_folder(&paths, folder)?;
        }
        let (key, verifier_key) = (signer.chain_key(), signer.verifier().to_string());
        let sealer = Sealer::open(paths.clone(), signer)?;
        let vkey = paths.tiles.join(super::reader::VKEY_FILE);
        if read_text(&*paths.disk, &vkey)?.as_ref() != Some(&verifier_key) {
            write_atomically(&*paths.disk, &vkey, verifier_key.as_bytes())?;
        }
        let Recovered { journal, records } = Journal::recover(&paths, key, sealer.size())?;
        let entries: Vec<Vec<u8>> = records.into_iter().map(|record| record.bytes).collect();
        sealer.check(&entries)?;
        let empty = sealer.size() == 0 && entries.is_empty();
        let pipeline = Pipeline {
            durable: AtomicU64::new(journal.next_index()),
            sealed: watch::Sender::new(sealer.size()),
            unsealed: Mutex::default(),
            unsealed_bytes: AtomicU64::new(0),
            sealer: Mutex::new(sealer),
            preallocator: journal.preallocator(),
            last_sealing: Mutex::new((Instant::now(), None)),
            last_sync_us: AtomicU64::new(0),
            paths,
        };
        pipeline.add(entries);
        let sealed = if empty { lock(&pipeline.sealer).seal(&[]) } else { pipeline.seal().map(drop) };
        match sealed {
            Err(error @ LogError::Io { .. }) => {
                tracing::error!(%error, "the exchange log cannot be sealed; its entries are safe in the journal");
                lock(&pipeline.last_sealing).1 = Some(error);
            }
            other => other?,
        }
        Ok((Arc::new(pipeline), journal))
    }

    /// Makes a batch durable, queues it for sealing, and returns the index of its first entry. Never waits for sealing.
    ///
    /// # Errors
    /// The storage's error: the batch is not durable then, and is not queued.
    pub fn write(&self, storage: &mut dyn Storage, batch: Vec<Vec<u8>>) -> Result<u64, LogError> {
        let began = Instant::now();
        let first = storage.append(&batch)?;
        debug_assert_eq!(first, self.durable(), "promise 2: a batch begins where the one before has ended");
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last_sync_us.store(took.max(1), Ordering::Relaxed);
        let durable = first + batch.len() as u64;
        self.add(batch);
        self.durable.store(durable, Ordering::Release);
        Ok(first)
    }

    fn add(&self, batch: Vec<Vec<u8>>) {
        let bytes = size(&batch);
        let mut unsealed = lock(&self.unsealed);
        if !batch.is_empty() {
            unsealed.since.get_or_insert_with(Instant::now);
        }
        unsealed.entries.extend(batch);
        self.unsealed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns whether so many entries wait to be sealed that no more are accepted.
    pub fn is_full(&self) -> bool {
        self.unsealed_bytes.load(Ordering::Relaxed) >= MAX_UNSEALED_BYTES
    }

    /// Returns the number of durable entries. An entry whose index was returned is counted.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Watches the number of sealed entries.
    pub fn watch_sealed(&self) -> watch::Receiver<u64> {
        self.sealed.subscribe()
    }

    /// Returns the present state of the log.
    pub fn health(&self) -> Health {
        let (unsealed_entries, since) = {
            let unsealed = lock(&self.unsealed);
            (unsealed.entries.len() as u64, unsealed.since)
        };
        let (sealed_at, seal_error) = lock(&self.last_sealing).clone();
        Health {
            stopped: None,
            spooled: 0,
            unsealed_entries,
            unsealed_bytes: self.unsealed_bytes.load(Ordering::Relaxed),
            unsealed_age: since.map_or(Duration::ZERO, |since| since.elapsed()),
            checkpoint_age: sealed_at.elapsed(),
            last_sync: Duration::from_micros(self.last_sync_us.load(Ordering::Relaxed)),
            seal_error,
            is_full: self.is_full(),
        }
    }

    /// Prepares segments until the log is closed.
    pub fn prepare_segments(&self) {
        self.preallocator.fill_on_demand();
    }

    /// Ends [`prepare_segments`](Self::prepare_segments).
    pub fn close(&self) {
        self.preallocator.close();
    }

    /// Returns the log's folders.
    pub fn paths(&self) -> &LogPaths {
        &self.paths
    }

    /// Seals everything that is durable, in parts, and returns the number of sealed entries. Entries whose sealing fails stay queued.
    ///
    /// # Errors
    /// [`LogError::Forked`] or [`LogError::RolledBack`] if the entries do not lead to the tree that was signed last;
    /// [`LogError::Io`] if files cannot be written.
    pub fn seal(&self) -> Result<u64, LogError> {
        let all = self.durable();
        loop {
            let size = self.seal_part(|_, waiting| waiting)?;
            // If another thread is sealing them, this continues when that is done.
            if size >= all {
                return Ok(size);
            }
        }
    }

    /// Seals durable entries; if many wait, complete bundles of them, and the rest (256 entries at most) the next time.
    /// Files of the right edge are deleted at the next sealing, and a file system that must create many new files is
    /// slow after many were deleted (ext4 does not reuse their inodes for a minute, and checks each of them).
    ///
    /// # Errors
    /// As for [`Pipeline::seal`].
    pub fn seal_prefix(&self) -> Result<u64, LogError> {
        loop {
            let most = |size: u64, waiting: usize| {
                if waiting < MANY { waiting } else { waiting - (size as usize + waiting) % TILE }
            };
            let size = self.seal_part(most)?;
            if lock(&self.unsealed).entries.len() < MANY {
                return Ok(size);
            }
        }
    }

    /// Returns whether nothing waits to be sealed.
    pub fn is_idle(&self) -> bool {
        lock(&self.unsealed).entries.is_empty()
    }

    /// Seals some of the durable entries. They stay queued until the checkpoint is published.
    fn seal_part(&self, part: impl FnOnce(u64, usize) -> usize) -> Result<u64, LogError> {
        let mut sealer = lock(&self.sealer);
        let mut entries = std::mem::take(&mut lock(&self.unsealed).entries);
        if entries.is_empty() {
            return Ok(sealer.size());
        }
        // Never fewer than were signed before: a sealing may have failed between signing and publishing.
        let signed = usize::try_from(sealer.signed_size().saturating_sub(sealer.size())).unwrap_or(usize::MAX);
        let part = part(sealer.size(), entries.len()).min(PART).max(signed).min(entries.len());
        let rest = entries.split_off(part);
        let sealed = sealer.seal(&entries);
        let (done, back) = match &sealed {
            Ok(()) => (size(&entries), rest),
            Err(_) => (0, entries.into_iter().chain(rest).collect()),
        };
        {
            let mut unsealed = lock(&self.unsealed);
            let newer = std::mem::replace(&mut unsealed.entries, back);
            unsealed.entries.extend(newer);
            if sealed.is_ok() {
                // The oldest remaining entry arrived after the previous sealing: at the latest now.
                unsealed.since = (!unsealed.entries.is_empty()).then(Instant::now);
            }
            let before = self.unsealed_bytes.fetch_sub(done, Ordering::Relaxed);
            debug_assert!(before >= done, "promise 6: what is sealed was counted when it came");
        }
        {
            let mut last = lock(&self.last_sealing);
            *last = (if sealed.is_ok() { Instant::now() } else { last.0 }, sealed.clone().err());
        }
        sealed?;
        self.sealed.send_replace(sealer.size());
        if let Err(error) = Journal::forget(&self.paths, sealer.size(), &self.preallocator) {
            // This costs only its space: the next sealing tries again.
            tracing::warn!(%error, "a journal segment that is sealed cannot be given up");
        }
        Ok(sealer.size())
    }
}

fn size(entries: &[Vec<u8>]) -> u64 {
    entries.iter().map(|entry| entry.len() as u64).sum()
}

/// Creates a folder with a durable name.
fn make_folder(paths: &LogPaths, folder: &std::path::Path) -> Result<(), LogError> {
    paths.disk.create_folder(folder).map_err(|error| LogError::io(folder, &error))?;
    folder.parent().map_or(Ok(()), |parent| super::disk::sync_folder(&*paths.disk, parent))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::{Entry, ExchangeLog, Kind};

    fn signer(key: &[u8]) -> LogSigner {
        LogSigner::from_pkcs8("log.example/pipeline", key).unwrap()
    }

    fn entry(bytes: usize) -> Entry {
        Entry { purpose: "p".repeat(bytes), ..Entry::begin(Kind::Exchange, "dc1") }
    }

    #[test]
    fn l4_l11_a_log_that_cannot_be_sealed_says_so_starts_and_goes_on_by_itself() {
        let (folder, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
        let paths = LogPaths::new(folder.path());
        let open = || Pipeline::open(paths.clone(), signer(&key)).unwrap();
        let (pipeline, mut journal) = open();
        // Nothing can be created at the tiles' path.
        let tiles = paths.tiles.join("tile");
        std::fs::write(&tiles, b"in the way").unwrap();
        for first in 0..3 {
            assert_eq!(pipeline.write(&mut journal, vec![entry(10).to_bytes()]).unwrap(), first);
            assert!(pipeline.seal().is_err());
        }
        let health = pipeline.health();
        assert!(health.is_behind() && health.unsealed_entries == 3 && health.unsealed_bytes > 100);
        assert!(health.last_sync > Duration::ZERO && health.to_string().contains("3 entries wait"), "{health}");
        drop((pipeline, journal));
        let (pipeline, mut journal) = open();
        assert!(pipeline.health().is_behind() && pipeline.durable() == 3);
        std::fs::remove_file(&tiles).unwrap();
        assert_eq!(pipeline.write(&mut journal, vec![entry(10).to_bytes()]).unwrap(), 3);
        assert_eq!(pipeline.seal().unwrap(), 4);
        let health = pipeline.health();
        assert!(!health.is_behind() && (health.unsealed_entries, health.unsealed_bytes) == (0, 0), "{health:?}");
    }

    #[test]
    fn l4_beyond_the_bound_entries_are_refused_at_once_until_some_are_sealed() {
        let (folder, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
        let log = ExchangeLog::open(folder.path(), signer(&key)).unwrap();
        let tiles = folder.path().join("log/tile");
        std::fs::remove_dir_all(&tiles).or_else(|_| std::fs::write(&tiles, b"in the way")).unwrap();
        std::fs::write(&tiles, b"in the way").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut taken, large) = (0, entry(60_000));
        let refused = loop {
            match runtime.block_on(log.append(&large)) {
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
            assert!(taken < 200, "there is no bound");
        };
        assert!(matches!(refused, LogError::Full) && taken > 130 && log.health().is_full, "{refused} after {taken}");
        std::fs::remove_file(&tiles).unwrap();
        assert_eq!(log.seal_now().unwrap(), taken);
        assert_eq!(runtime.block_on(log.append(&large)).unwrap(), Some(taken));
    }

    #[test]
    fn sealing_goes_in_parts() {
        let (folder, key) = (tempfile::tempdir().unwrap(), LogSigner::generate().unwrap());
        let (pipeline, mut journal) = Pipeline::open(LogPaths::new(folder.path()), signer(&key)).unwrap();
        let entries = vec![entry(1).to_bytes(); PART + 10];
        pipeline.write(&mut journal, entries).unwrap();
        assert_eq!(pipeline.seal_part(|_, waiting| waiting).unwrap(), PART as u64);
        assert_eq!(pipeline.seal().unwrap(), PART as u64 + 10);
    }
}
