//! The embedded engine: a journal and a sealer on this machine's disk, with a thread that seals and one that prepares the
//! journal's next segment.

use super::checkpoint::LogSigner;
use super::engine::{BatchLimits, BatchOutcome, EngineWriter, Health, LogEngine, OpenEngine};
use super::journal::Journal;
use super::pipeline::Pipeline;
use super::storage::Storage;
use super::sync::{Condvar, Mutex, lock, pause};
use super::{LogError, LogPaths};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// A batch of so many entries shows that they come fast.
const MANY_AT_ONCE: usize = 20;
/// A write costs about 90 µs of CPU whatever its size, including interrupts and thread switches: at 30,000 entries a second,
/// one write a millisecond instead of back-to-back writes saves 2 of 30 µs a call.
const MIN_INTERVAL: Duration = Duration::from_millis(1);
/// Maximum bytes of a batch: a write of this size is as fast per byte as any larger one.
const MAX_BATCH: usize = 1 << 20;
/// Time between sealings: a checkpoint at least every second, with room for a slow disk.
const SEAL_EVERY: Duration = Duration::from_millis(400);

/// The pipeline with its threads.
struct Embedded {
    pipeline: Arc<Pipeline>,
    /// Number of entries when it was opened.
    earlier: u64,
    writable: AtomicBool,
    closed: Mutex<bool>,
    wake_sealer: Condvar,
    threads: Mutex<BackgroundThreads>,
}

#[derive(Default)]
struct BackgroundThreads {
    sealer: Option<JoinHandle<()>>,
    preallocator: Option<JoinHandle<()>>,
}

/// Writes batches to the storage, and queues them for sealing.
struct StorageWriter {
    engine: Arc<Embedded>,
    storage: Box<dyn Storage>,
}

/// Opens the engine; `wrap` may put something between it and its journal, as tests do.
pub(super) fn open(
    paths: LogPaths,
    signer: LogSigner,
    wrap: impl FnOnce(Journal) -> Box<dyn Storage>,
) -> Result<OpenEngine, LogError> {
    let (pipeline, journal) = Pipeline::open(paths, signer)?;
    let engine = Arc::new(Embedded {
        pipeline: pipeline.clone(),
        earlier: pipeline.durable(),
        writable: AtomicBool::new(true),
        closed: Mutex::new(false),
        wake_sealer: Condvar::new(),
        threads: Mutex::default(),
    });
    let writer = Box::new(StorageWriter { engine: engine.clone(), storage: wrap(journal) });
    let for_sealer = engine.clone();
    let sealer = spawn_behind("log-sealer", &pipeline, move || for_sealer.seal_regularly())?;
    lock(&engine.threads).sealer = Some(sealer);
    let for_segments = pipeline.clone();
    match spawn_behind("log-spare", &pipeline, move || for_segments.prepare_segments()) {
        Ok(preallocator) => lock(&engine.threads).preallocator = Some(preallocator),
        Err(error) => {
            engine.close();
            return Err(error);
        }
    }
    Ok((engine, writer))
}

fn spawn_behind(
    name: &str,
    pipeline: &Pipeline,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, LogError> {
    let behind = move || {
        give_way();
        run();
    };
    let spawned = std::thread::Builder::new().name(name.into()).spawn(behind);
    spawned.map_err(|error| LogError::io(&pipeline.paths().journal, &error))
}

/// Gives calls priority over the calling thread, which has some milliseconds of work at once that no call waits for: it
/// gets a quarter of a worker's share on the same core (Linux's nice 5; threads have separate priorities there), three
/// times what it needs.
fn give_way() {
    let _ = rustix::process::nice(5);
}

impl Embedded {
    fn seal_regularly(&self) {
        loop {
            let closed = *pause(&self.wake_sealer, lock(&self.closed), SEAL_EVERY, |closed| !*closed);
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

impl EngineWriter for StorageWriter {
    fn write(&mut self, batch: Vec<Vec<u8>>, outcome: BatchOutcome) {
        let written = self.engine.pipeline.write(self.storage.as_mut(), batch);
        self.engine.writable.store(written.is_ok(), Ordering::Relaxed);
        outcome(written.map(Some));
    }

    fn finish(&mut self) {}

    fn limits(&self) -> BatchLimits {
        let (interval_from, interval) = (MANY_AT_ONCE, MIN_INTERVAL);
        BatchLimits { bytes: MAX_BATCH, entries: usize::MAX, interval_from, interval, burst: 1 }
    }
}

impl LogEngine for Embedded {
    fn admits(&self) -> Result<(), LogError> {
        if self.pipeline.is_full() { Err(LogError::Full) } else { Ok(()) }
    }

    fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    fn durable(&self) -> u64 {
        self.pipeline.durable()
    }

    fn earlier(&self) -> Option<u64> {
        Some(self.earlier)
    }

    fn watch_sealed(&self) -> watch::Receiver<u64> {
        self.pipeline.watch_sealed()
    }

    fn health(&self) -> Health {
        self.pipeline.health()
    }

    fn seal(&self) -> Result<u64, LogError> {
        self.pipeline.seal()
    }

    fn close(&self) {
        *lock(&self.closed) = true;
        self.wake_sealer.notify_all();
        let BackgroundThreads { sealer, preallocator } = std::mem::take(&mut *lock(&self.threads));
        if let Some(sealer) = sealer {
            let _ = sealer.join();
        }
        if let Err(error) = self.pipeline.seal() {
            tracing::error!(%error, "the exchange log cannot be sealed; its entries are safe in the journal");
        }
        self.pipeline.close();
        if let Some(preallocator) = preallocator {
            let _ = preallocator.join();
        }
    }
}
