//! The threads of the log: one writes batches to the journal, one seals, one makes the journal's next segment ready.

use super::checkpoint::LogSigner;
use super::desk::{self, Waiting};
use super::journal::{Journal, Recovered};
use super::seal::Sealer;
use super::spare::Spare;
use super::storage::Storage;
use super::tree::TILE;
use super::{LogError, LogPaths, entry};
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Most entries that wait to be written: half a second at 150,000 a second.
const MAX_QUEUED: usize = 65_536;
/// Most bytes in a batch: a write of this size is as fast for each byte as any larger one.
const MAX_BATCH: usize = 1 << 20;
/// Entries for which it is worth to wait before another turn of the disk, where the last one had so many: they come fast then.
const MANY_AT_ONCE: usize = 20;
/// How long after the last turn's beginning. A turn costs some 90 µs of CPU whatever it carries, interrupts and changes between
/// threads included: at 30,000 entries a second, a turn a millisecond instead of one after the other saves 2 of 30 µs a call.
const PACE: Duration = Duration::from_millis(1);
/// As many entries as need not wait for more: each one's share of a turn is small then.
pub(super) const ENOUGH: usize = 64;
/// Time between sealings: a checkpoint at least every second, with room for a slow disk.
const SEAL_EVERY: Duration = Duration::from_millis(400);
/// Entries that make it worth to seal whole bundles only.
const MANY: usize = 2 * TILE;
/// Most entries between two sealings; beyond, the writer waits for the sealer.
const MAX_UNSEALED: usize = 500_000;

/// An entry on its way to the journal, and who waits for it.
pub(super) struct Queued {
    bytes: Vec<u8>,
    waiting: Option<Waiting>,
}

impl Queued {
    /// Refused where no journal could hold it.
    pub(super) fn new(bytes: Vec<u8>, waiting: Option<Waiting>) -> Result<Self, LogError> {
        let fits = !bytes.is_empty() && bytes.len() <= entry::MAX_BYTES;
        if fits { Ok(Queued { bytes, waiting }) } else { Err(LogError::Full) }
    }
}

#[derive(Default)]
struct Queue {
    entries: Vec<Queued>,
    closed: bool,
    /// The writer waits for more than the first.
    gathering: bool,
}

/// What appenders and the threads share.
pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake_writer: Condvar,
    /// Durable entries that are not sealed yet, in order.
    unsealed: Mutex<Vec<Vec<u8>>>,
    wake_sealer: Condvar,
    sealed_some: Condvar,
    sealer: Mutex<Sealer>,
    spare: Arc<Spare>,
    writable: AtomicBool,
    /// Entries that are durable, sealed or not.
    durable: AtomicU64,
    /// Entries that are sealed.
    sealed: watch::Sender<u64>,
    paths: LogPaths,
    /// Held so that no second process writes.
    _lock: File,
}

/// Joins the threads when the last handle goes.
pub(super) struct Threads {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    sealer: Option<JoinHandle<()>>,
    spare: Option<JoinHandle<()>>,
}

/// A panic in one thread does not make the log's plain data wrong: every change to it is one statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the log; `wrap` may put something between it and its journal, as tests do.
pub(super) fn start(
    paths: LogPaths,
    signer: LogSigner,
    wrap: impl FnOnce(Journal) -> Box<dyn Storage>,
) -> Result<(Arc<Shared>, Threads), LogError> {
    let lock_file = super::holder::lock(&paths)?;
    let verifier_key = signer.verifier().to_string();
    let mut sealer = Sealer::open(paths.clone(), signer)?;
    super::write_atomically(&paths.tiles.join(super::reader::VKEY_FILE), verifier_key.as_bytes())?;
    let Recovered { journal, records } = Journal::recover(&paths.journal, sealer.size())?;
    if journal.next_index() < sealer.signed_size() {
        let (found, signed) = (journal.next_index(), sealer.signed_size());
        return Err(LogError::RolledBack { found, signed, path: paths.tiles });
    }
    let entries: Vec<Vec<u8>> = records.into_iter().map(|record| record.bytes).collect();
    if !entries.is_empty() || sealer.size() == 0 {
        sealer.seal(&entries)?;
    }
    let shared = Arc::new(Shared {
        writable: AtomicBool::new(true),
        durable: AtomicU64::new(journal.next_index()),
        sealed: watch::Sender::new(sealer.size()),
        queue: Mutex::default(),
        wake_writer: Condvar::new(),
        unsealed: Mutex::default(),
        wake_sealer: Condvar::new(),
        sealed_some: Condvar::new(),
        sealer: Mutex::new(sealer),
        spare: journal.spare(),
        paths,
        _lock: lock_file,
    });
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        let failed = |error| LogError::io(&shared.paths.journal, &error);
        std::thread::Builder::new().name(name.into()).spawn(run).map_err(failed)
    };
    let spawn_behind = |name: &str, run: Box<dyn FnOnce() + Send>| {
        let behind = move || {
            give_way();
            run();
        };
        spawn(name, Box::new(behind))
    };
    let (for_writer, for_sealer, for_spare) = (shared.clone(), shared.clone(), shared.spare.clone());
    let mut storage = wrap(journal);
    let writer = spawn("log-writer", Box::new(move || for_writer.write_batches(storage.as_mut())))?;
    let sealer = spawn_behind("log-sealer", Box::new(move || for_sealer.seal_regularly()))?;
    let spare = spawn_behind("log-spare", Box::new(move || for_spare.fill_when_wanted()))?;
    let threads = Threads { shared: shared.clone(), writer: Some(writer), sealer: Some(sealer), spare: Some(spare) };
    Ok((shared, threads))
}

/// Lets calls go before the calling thread, which has some milliseconds of work at once that nobody waits for: it gets a quarter of
/// what a worker on the same core gets (Linux's nice 5; threads have a priority of their own there), three times what it needs.
fn give_way() {
    let _ = rustix::process::nice(5);
}

impl Shared {
    pub(super) fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    /// Entries that are durable. Whoever was told the index of an entry finds it counted here.
    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// The number of sealed entries, as it grows.
    pub(super) fn watch_sealed(&self) -> watch::Receiver<u64> {
        self.sealed.subscribe()
    }

    /// Queues entries; those that find no place are told so.
    pub(super) fn push_all(&self, entries: impl Iterator<Item = Queued>) {
        let mut refused = Vec::new();
        let mut queue = lock(&self.queue);
        let before = queue.entries.len();
        for entry in entries {
            let closed = queue.closed;
            if closed || queue.entries.len() >= MAX_QUEUED {
                let error = if closed { LogError::Closed } else { LogError::Full };
                refused.push((entry.waiting, error));
            } else {
                queue.entries.push(entry);
            }
        }
        let worth = if queue.gathering { ENOUGH } else { 1 };
        let wake = before < worth && queue.entries.len() >= worth;
        drop(queue);
        if wake {
            self.wake_writer.notify_one();
        }
        for (waiting, error) in refused {
            match waiting {
                Some(waiting) => desk::tell(vec![Some(waiting)], &Err(error)),
                None => tracing::error!(%error, "an entry that nobody waits for is not in the exchange log"),
            }
        }
    }

    /// Takes what is queued, as soon as there is enough of it or it is time for the next turn; `None` when the log is closed and
    /// nothing is left.
    fn take(&self, left: &mut Vec<Queued>, next_turn: Option<Instant>) -> Option<()> {
        let mut queue = lock(&self.queue);
        while let Some(wait) = next_turn.and_then(|at| at.checked_duration_since(Instant::now()))
            && queue.entries.len() < ENOUGH
            && !queue.closed
        {
            queue.gathering = true;
            queue = self.wake_writer.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.gathering = false;
        while queue.entries.is_empty() {
            if queue.closed {
                return None;
            }
            queue = self.wake_writer.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(left, &mut queue.entries);
        Some(())
    }

    fn write_batches(&self, storage: &mut dyn Storage) {
        let (mut taken, mut next_turn) = (Vec::new(), None);
        while self.take(&mut taken, next_turn).is_some() {
            next_turn = (taken.len() >= MANY_AT_ONCE).then(|| Instant::now() + PACE);
            let mut rest = taken.drain(..).peekable();
            while rest.peek().is_some() {
                let (mut batch, mut waiting, mut size) = (Vec::new(), Vec::new(), 0);
                while size < MAX_BATCH
                    && let Some(next) = rest.next()
                {
                    size += next.bytes.len();
                    batch.push(next.bytes);
                    waiting.push(next.waiting);
                }
                let result = storage.append(&batch);
                self.writable.store(result.is_ok(), Ordering::Relaxed);
                if let Err(error) = &result {
                    tracing::error!(%error, entries = batch.len(), "the exchange log cannot be written");
                }
                if let Ok(first) = result {
                    self.durable.store(first + batch.len() as u64, Ordering::Release);
                    self.hand_to_sealer(batch);
                }
                desk::tell(waiting, &result);
            }
        }
    }

    fn hand_to_sealer(&self, batch: Vec<Vec<u8>>) {
        let mut unsealed = lock(&self.unsealed);
        while unsealed.len() >= MAX_UNSEALED {
            self.wake_sealer.notify_one();
            let (guard, _) = self
                .sealed_some
                .wait_timeout(unsealed, Duration::from_millis(100))
                .unwrap_or_else(PoisonError::into_inner);
            unsealed = guard;
        }
        unsealed.extend(batch);
    }

    fn seal_regularly(&self) {
        loop {
            let unsealed = lock(&self.unsealed);
            let (unsealed, _) =
                self.wake_sealer.wait_timeout(unsealed, SEAL_EVERY).unwrap_or_else(PoisonError::into_inner);
            let idle = unsealed.is_empty();
            drop(unsealed);
            let closed = lock(&self.queue).closed;
            if !idle && let Err(error) = self.seal_most() {
                tracing::error!(%error, "the exchange log cannot be sealed; its entries are safe in the journal");
            }
            if closed {
                return;
            }
        }
    }

    /// Seals what is durable. The entries stay in line until the checkpoint is published.
    pub(super) fn seal(&self) -> Result<u64, LogError> {
        self.seal_part(|_, waiting| waiting)
    }

    /// Seals what is durable; where much is, whole bundles of it, and the rest (256 entries at most) the next time. Files of
    /// the right edge are thrown away at the next sealing, and a file system that must make many new files is slow where many
    /// were thrown away (ext4 leaves their inodes alone for a minute, and looks at each of them).
    fn seal_most(&self) -> Result<u64, LogError> {
        self.seal_part(
            |size, waiting| if waiting < MANY { waiting } else { waiting - (size as usize + waiting) % TILE },
        )
    }

    fn seal_part(&self, part: impl FnOnce(u64, usize) -> usize) -> Result<u64, LogError> {
        let mut sealer = lock(&self.sealer);
        let mut entries = std::mem::take(&mut *lock(&self.unsealed));
        if entries.is_empty() {
            return Ok(sealer.size());
        }
        // Never fewer than were signed before: a sealing may have failed between signing and publishing.
        let signed = usize::try_from(sealer.signed_size().saturating_sub(sealer.size())).unwrap_or(usize::MAX);
        let part = part(sealer.size(), entries.len()).max(signed).min(entries.len());
        let rest = entries.split_off(part);
        let sealed = sealer.seal(&entries);
        let back = if sealed.is_ok() { rest } else { entries.into_iter().chain(rest).collect() };
        if !back.is_empty() {
            let mut unsealed = lock(&self.unsealed);
            let newer = std::mem::replace(&mut *unsealed, back);
            unsealed.extend(newer);
        }
        sealed?;
        self.sealed_some.notify_all();
        self.sealed.send_replace(sealer.size());
        Journal::forget(&self.paths.journal, sealer.size(), &self.spare)?;
        Ok(sealer.size())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.wake_writer.notify_all();
        // The writer first: what it still writes is to be sealed.
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        self.shared.wake_sealer.notify_all();
        if let Some(sealer) = self.sealer.take() {
            let _ = sealer.join();
        }
        if let Err(error) = self.shared.seal() {
            tracing::error!(%error, "the exchange log cannot be sealed; its entries are safe in the journal");
        }
        self.shared.spare.close();
        if let Some(spare) = self.spare.take() {
            let _ = spare.join();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::reader::LogReader;
    use crate::exchange_log::verify::verify_data;
    use crate::exchange_log::{Entry, ExchangeLog, Kind};

    /// A disk that answers EIO as long as it is told to.
    struct Broken(Journal, Arc<AtomicBool>);

    impl Storage for Broken {
        fn append(&mut self, batch: &[Vec<u8>]) -> Result<u64, LogError> {
            if self.1.load(Ordering::Relaxed) {
                let error = std::io::Error::from_raw_os_error(5);
                return Err(LogError::io(std::path::Path::new("journal"), &error));
            }
            self.0.append(batch)
        }
    }

    #[test]
    fn what_the_storage_refuses_is_told_as_refused_and_leaves_no_gap() {
        let folder = tempfile::tempdir().unwrap();
        let broken = Arc::new(AtomicBool::new(false));
        let signer = LogSigner::from_pkcs8("log.test/w", &LogSigner::generate().unwrap()).unwrap();
        let wrap = |journal| Box::new(Broken(journal, broken.clone())) as Box<dyn Storage>;
        let (shared, threads) = start(LogPaths::new(folder.path()), signer, wrap).unwrap();
        let log = ExchangeLog { shared, _threads: Arc::new(threads) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let append = || runtime.block_on(log.append(&Entry::begin(Kind::Exchange, "dc1")));
        let (mut given, mut refused) = (Vec::new(), 0);
        for round in 0..60 {
            broken.store(round % 3 == 1, Ordering::Relaxed);
            match append() {
                Ok(index) => given.push(index),
                Err(error) => {
                    assert!(round % 3 == 1 && error.to_string().contains("os error 5") && !log.is_writable());
                    refused += 1;
                }
            }
        }
        assert_eq!((given, refused), ((0..40).collect::<Vec<u64>>(), 20));
        assert!(log.is_writable());
        drop(log);
        assert_eq!(verify_data(folder.path(), None, None, Default::default(), |_, _| {}).unwrap().sealed, 40);
        assert_eq!(LogReader::open(folder.path()).unwrap().size(), 40);
    }
}
