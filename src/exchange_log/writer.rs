//! The threads of the log: one writes batches to the journal, one seals, one prepares the journal's next segment.

use super::checkpoint::LogSigner;
use super::completion_queue::{self, PendingAppend};
use super::journal::Journal;
use super::pipeline::Pipeline;
use super::storage::Storage;
use super::{LogError, LogPaths, entry};
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Maximum bytes of entries that wait to be written: half a second at 150,000 a second.
const MAX_QUEUED: usize = 32 << 20;
/// Maximum bytes of a batch: a write of this size is as fast per byte as any larger one.
const MAX_BATCH: usize = 1 << 20;
/// If the last batch had at least this many entries, waiting before the next write pays: entries then come fast.
const MANY_AT_ONCE: usize = 20;
/// Minimum time between the beginnings of two writes under load. A write costs about 90 µs of CPU whatever its size,
/// including interrupts and thread switches: at 30,000 entries a second, one write a millisecond instead of
/// back-to-back writes saves 2 of 30 µs a call.
const PACE: Duration = Duration::from_millis(1);
/// With this many entries the writer need not wait for more: the share of each in the cost is then small.
pub(super) const ENOUGH: usize = 64;
/// Time between sealings: a checkpoint at least every second, with room for a slow disk.
const SEAL_EVERY: Duration = Duration::from_millis(400);
/// An entry on its way to the journal, and the task that waits for it.
pub(super) struct Queued {
    bytes: Vec<u8>,
    waiting: Option<PendingAppend>,
}

impl Queued {
    /// Makes it; fails if no journal could hold it.
    pub(super) fn new(bytes: Vec<u8>, waiting: Option<PendingAppend>) -> Result<Self, LogError> {
        let fits = !bytes.is_empty() && bytes.len() <= entry::MAX_BYTES;
        if fits { Ok(Queued { bytes, waiting }) } else { Err(LogError::Full) }
    }
}

#[derive(Default)]
struct Queue {
    entries: Vec<Queued>,
    /// Their bytes.
    bytes: usize,
    closed: bool,
    /// The writer waits for more than the first.
    gathering: bool,
}

/// State that appenders and the threads share.
pub(super) struct WriterState {
    queue: Mutex<Queue>,
    wake_writer: Condvar,
    wake_sealer: Condvar,
    pub(super) pipeline: Arc<Pipeline>,
    writable: AtomicBool,
    /// Held so that no second process writes.
    _lock: File,
}

/// Joins the threads when the last handle is dropped.
pub(super) struct Threads {
    shared: Arc<WriterState>,
    writer: Option<JoinHandle<()>>,
    sealer: Option<JoinHandle<()>>,
    preallocator: Option<JoinHandle<()>>,
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
) -> Result<(Arc<WriterState>, Threads), LogError> {
    let lock_file = super::lock_owner::lock(&paths)?;
    let (pipeline, journal) = Pipeline::open(paths, signer)?;
    let shared = Arc::new(WriterState {
        queue: Mutex::default(),
        wake_writer: Condvar::new(),
        wake_sealer: Condvar::new(),
        pipeline: pipeline.clone(),
        writable: AtomicBool::new(true),
        _lock: lock_file,
    });
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        let failed = |error| LogError::io(&shared.pipeline.paths().journal, &error);
        std::thread::Builder::new().name(name.into()).spawn(run).map_err(failed)
    };
    let spawn_behind = |name: &str, run: Box<dyn FnOnce() + Send>| {
        let behind = move || {
            give_way();
            run();
        };
        spawn(name, Box::new(behind))
    };
    let (for_writer, for_sealer) = (shared.clone(), shared.clone());
    let mut storage = wrap(journal);
    let writer = spawn("log-writer", Box::new(move || for_writer.write_batches(storage.as_mut())))?;
    let sealer = spawn_behind("log-sealer", Box::new(move || for_sealer.seal_regularly()))?;
    let preallocator = spawn_behind("log-spare", Box::new(move || pipeline.prepare_segments()))?;
    let threads = Threads {
        shared: shared.clone(),
        writer: Some(writer),
        sealer: Some(sealer),
        preallocator: Some(preallocator),
    };
    Ok((shared, threads))
}

/// Gives calls priority over the calling thread, which has some milliseconds of work at once that no call waits for: it
/// gets a quarter of a worker's share on the same core (Linux's nice 5; threads have separate priorities there), three
/// times what it needs.
fn give_way() {
    let _ = rustix::process::nice(5);
}

impl WriterState {
    pub(super) fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    /// Queues entries; entries without room, in the queue or because too much waits to be sealed, get an error.
    pub(super) fn push_all(&self, entries: impl Iterator<Item = Queued>) {
        let (mut refused, full) = (Vec::new(), self.pipeline.is_full());
        let mut queue = lock(&self.queue);
        let before = queue.entries.len();
        for entry in entries {
            let closed = queue.closed;
            if closed || full || queue.bytes >= MAX_QUEUED {
                let error = if closed { LogError::Closed } else { LogError::Full };
                refused.push((entry.waiting, error));
            } else {
                queue.bytes += entry.bytes.len();
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
                Some(waiting) => completion_queue::complete(vec![Some(waiting)], &Err(error)),
                None => tracing::error!(%error, "an entry that nobody waits for is not in the exchange log"),
            }
        }
    }

    /// Takes the queued entries, as soon as there are enough or the next write is due; `None` when the log is closed
    /// and nothing remains.
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
        queue.bytes = 0;
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
                let entries = batch.len();
                let result = self.pipeline.write(storage, batch);
                self.writable.store(result.is_ok(), Ordering::Relaxed);
                if let Err(error) = &result {
                    tracing::error!(%error, entries, "the exchange log cannot be written");
                }
                completion_queue::complete(waiting, &result);
            }
        }
    }

    fn seal_regularly(&self) {
        loop {
            let queue = lock(&self.queue);
            let open = |queue: &mut Queue| !queue.closed;
            let waited = self.wake_sealer.wait_timeout_while(queue, SEAL_EVERY, open);
            let closed = waited.unwrap_or_else(PoisonError::into_inner).0.closed;
            if !self.pipeline.is_idle()
                && let Err(error) = self.pipeline.seal_prefix()
            {
                tracing::error!(%error, "the exchange log cannot be sealed; its entries are safe in the journal");
            }
            if closed {
                return;
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.wake_writer.notify_all();
        // The writer first: what it still writes must be sealed.
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        self.shared.wake_sealer.notify_all();
        if let Some(sealer) = self.sealer.take() {
            let _ = sealer.join();
        }
        if let Err(error) = self.shared.pipeline.seal() {
            tracing::error!(%error, "the exchange log cannot be sealed; its entries are safe in the journal");
        }
        self.shared.pipeline.close();
        if let Some(preallocator) = self.preallocator.take() {
            let _ = preallocator.join();
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

    /// A disk that returns EIO while the flag is set.
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
