//! The queue of an open log, and the thread that writes it to the engine, batch by batch.

use super::completion_queue::{self, PendingAppend};
use super::engine::{EngineWriter, LogEngine, OpenEngine};
use super::lock_owner::LogLock;
use super::sync::{Condvar, Mutex, lock, wait};
use super::{LogError, entry};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Maximum bytes of entries that wait to be written: half a second at 150,000 a second.
const MAX_QUEUED: usize = 32 << 20;
/// With this many entries the writer need not wait for more: the share of each in the cost is then small.
pub(super) const ENOUGH: usize = 64;
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

/// State that appenders and the thread share.
pub(super) struct WriterState {
    queue: Mutex<Queue>,
    wake_writer: Condvar,
    pub(super) engine: Arc<dyn LogEngine>,
    /// Held so that no second process writes.
    _lock: LogLock,
}

/// Ends the thread and the engine when the last handle is dropped.
pub(super) struct Threads {
    shared: Arc<WriterState>,
    writer: Option<JoinHandle<()>>,
}

/// Starts the thread over an engine.
pub(super) fn start((engine, mut to): OpenEngine, lock: LogLock) -> Result<(Arc<WriterState>, Threads), LogError> {
    let shared = Arc::new(WriterState { queue: Mutex::default(), wake_writer: Condvar::new(), engine, _lock: lock });
    // Dropped on an error: the engine is closed then.
    let mut threads = Threads { shared: shared.clone(), writer: None };
    let for_writer = shared.clone();
    let spawned = std::thread::Builder::new().name("log-writer".into());
    let spawned = spawned.spawn(move || for_writer.write_batches(to.as_mut()));
    let failed = |error: std::io::Error| LogError::Io { path: "log-writer".into(), reason: error.to_string() };
    threads.writer = Some(spawned.map_err(failed)?);
    Ok((shared, threads))
}

impl WriterState {
    /// Queues entries; entries without room in the queue, or that the engine does not admit, get an error.
    pub(super) fn push_all(&self, entries: impl Iterator<Item = Queued>) {
        let (mut refused, admitted) = (Vec::new(), self.engine.admits());
        let mut queue = lock(&self.queue);
        let before = queue.entries.len();
        for entry in entries {
            let closed = queue.closed;
            if closed || admitted.is_err() || queue.bytes >= MAX_QUEUED {
                let full = || admitted.clone().err().unwrap_or(LogError::Full);
                refused.push((entry.waiting, if closed { LogError::Closed } else { full() }));
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
            queue = wait(&self.wake_writer, queue);
        }
        std::mem::swap(left, &mut queue.entries);
        queue.bytes = 0;
        Some(())
    }

    fn write_batches(&self, to: &mut dyn EngineWriter) {
        let (mut taken, mut spent, limits) = (Vec::new(), Instant::now(), to.limits());
        while self.take(&mut taken, limits.turn(spent)).is_some() {
            spent = limits.spend(spent, Instant::now(), taken.len());
            let mut rest = taken.drain(..).peekable();
            while rest.peek().is_some() {
                let (mut batch, mut waiting, mut size) = (Vec::new(), Vec::new(), 0);
                while let Some(next) = rest.next_if(|next| {
                    batch.is_empty() || size + next.bytes.len() <= limits.bytes && batch.len() < limits.entries
                }) {
                    size += next.bytes.len();
                    batch.push(next.bytes);
                    waiting.push(next.waiting);
                }
                let entries = batch.len();
                let outcome = Box::new(move |result: Result<Option<u64>, LogError>| {
                    if let Err(error) = &result {
                        tracing::error!(%error, entries, "the exchange log cannot be written");
                    }
                    completion_queue::complete(waiting, &result);
                });
                to.write(batch, outcome);
            }
        }
        to.finish();
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
        self.shared.engine.close();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::checkpoint::LogSigner;
    use crate::exchange_log::journal::Journal;
    use crate::exchange_log::reader::LogReader;
    use crate::exchange_log::storage::Storage;
    use crate::exchange_log::verify::verify_data;
    use crate::exchange_log::{Entry, ExchangeLog, Kind, LogPaths, embedded};
    use std::sync::atomic::{AtomicBool, Ordering};

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
        let paths = LogPaths::new(folder.path());
        let lock = LogLock::take(&paths).unwrap();
        let log = ExchangeLog::over(embedded::open(paths, signer, wrap).unwrap(), lock).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let append = || runtime.block_on(log.append(&Entry::begin(Kind::Exchange, "dc1")));
        let (mut given, mut refused) = (Vec::new(), 0);
        for round in 0..60 {
            broken.store(round % 3 == 1, Ordering::Relaxed);
            match append() {
                Ok(index) => given.push(index.unwrap()),
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
