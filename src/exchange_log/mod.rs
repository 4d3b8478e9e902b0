//! The exchange log: append-only, Merkle-tree, tamper-evident.
//!
//! The life of an entry: [`ExchangeLog::append`] puts its canonical bytes into the worker's submission batch → the
//! worker queues them with those of all calls that were ready → the writer thread gathers the queued entries into one
//! batch, writes it to the [`journal`] and calls `fdatasync` once → the appenders get the index, and only then may
//! their responses be sent → at least every second the [`seal`]er moves the new entries into entry bundles and hash
//! tiles (C2SP tlog-tiles), signs a [`checkpoint`] (C2SP tlog-checkpoint), and frees journal segments that are
//! completely sealed.
//!
//! Durability: the contract is that of [`storage::Storage`].
//!
//! Cost, estimated: an entry is about 500 bytes; one batch is one `write` and one `fdatasync` (0.1 to 2 ms on the
//! measured disks) whatever its size, so 256 waiting appenders share it. Queue: at most 32 MB.

pub mod archive;
mod blocks;
pub mod canonical;
pub mod chain;
pub mod checkpoint;
pub mod clock;
mod completion_queue;
pub mod cosignature;
mod crash;
pub mod disk;
mod embedded;
pub mod engine;
pub mod entry;
pub mod file_events;
pub mod journal;
pub mod key;
mod lock_owner;
pub mod note;
mod opener;
mod pipeline;
mod preallocated;
pub mod proof;
pub mod pruned;
pub mod pseudonym;
pub mod reader;
pub mod receipt;
pub mod seal;
pub mod segment;
pub mod signed;
pub mod storage;
pub mod stray;
mod submission_batch;
mod sync;
pub mod tiles;
pub mod tree;
pub mod verify;
mod writer;

use checkpoint::LogSigner;
use disk::{Disk, LocalDisk};
use engine::OpenEngine;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{oneshot, watch};
use writer::Queued;

pub(crate) use crash::crash_point;
pub use engine::Health;
pub use entry::{Entry, Kind};
pub use lock_owner::{LockOwner, LogLock};
pub use opener::LogOpener;
pub use pipeline::Pipeline;
pub use submission_batch::open_thread_queues;

/// The reason that the log cannot be opened, written or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// A file operation failed.
    #[error("{path}: {reason}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's error.
        reason: String,
    },
    /// A file does not hold what was written to it.
    #[error("{path} at byte {offset}: {reason}")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// The offset in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The files are older than the last signature: a rolled-back disk.
    #[error(
        "the log has {found} entries, but a checkpoint of {signed} entries was signed: the disk was rolled back; restore {path}, or start a new log under a new origin"
    )]
    RolledBack {
        /// Entries found.
        found: u64,
        /// Entries signed.
        signed: u64,
        /// The log's folder.
        path: PathBuf,
    },
    /// The entries lead to another tree than the signed one: some of them were changed or forged.
    #[error(
        "the entries do not lead to the tree of {signed} entries that was signed: the log was forked; restore {path} and the journal, or start a new log under a new origin"
    )]
    Forked {
        /// Entries of the signed tree.
        signed: u64,
        /// The log's folder.
        path: PathBuf,
    },
    /// Too many entries wait to be written.
    #[error("the exchange log cannot keep up")]
    Full,
    /// The log is closed.
    #[error("the exchange log is closed")]
    Closed,
    /// Batches cannot be made durable or be sealed now.
    #[error("the exchange log is not available: {0}")]
    Unavailable(String),
    /// The entry is on this gateway's disk, and joins the log when a majority of etcd responds: whoever appends it again
    /// appends it twice.
    #[error("the exchange log is not available: {0}")]
    Undecided(String),
    /// The folder is a site of a log that several gateways write: one that writes alone would sign another tree.
    #[error("{0} is of a log that several gateways write: this one does not write alone there")]
    Replicated(PathBuf),
    /// Another process has the log open for writing.
    #[error("{0} is open in another process: end that gateway first, or replace it with `serve --take-over`")]
    Locked(PathBuf),
}

impl LogError {
    pub(crate) fn io(path: &Path, error: &std::io::Error) -> Self {
        LogError::Io { path: path.to_owned(), reason: error.to_string() }
    }

    pub(crate) fn corrupt(path: &Path, offset: u64, reason: impl Into<String>) -> Self {
        LogError::Corrupt { path: path.to_owned(), offset, reason: reason.into() }
    }
}

/// The event of an exchange that was answered when its entry was on its gateway's own disk alone; its object is
/// `exchange:ID`.
pub const SPOOL_EVENT: &str = "log.spool";

/// The folders of a log.
#[derive(Debug, Clone)]
pub struct LogPaths {
    /// Tiles, bundles, checkpoint.
    pub tiles: PathBuf,
    /// Journal segments.
    pub journal: PathBuf,
    /// The last signed checkpoint, in a separate folder so that a rolled-back log is detected.
    pub signed: PathBuf,
    /// What a gateway keeps of a log that it writes with others, instead of a journal.
    pub replicated: PathBuf,
    /// The name of this folder's gateway among those that have written its log; absent if no other has.
    pub gateway: PathBuf,
    /// Their disk.
    pub disk: Arc<dyn Disk>,
}

impl LogPaths {
    /// Returns those below a data folder.
    pub fn new(data: &Path) -> Self {
        Self::on(disk::local(), data)
    }

    /// Returns those on another disk.
    pub fn on(disk: Arc<dyn Disk>, data: &Path) -> Self {
        LogPaths {
            disk,
            tiles: data.join("log"),
            journal: data.join("journal"),
            signed: data.join("state").join("signed-checkpoint"),
            replicated: data.join("cluster"),
            gateway: data.join("state").join("gateway"),
        }
    }

    /// Returns the name of this folder's gateway, if others have written its log, too: what the log says of files beside it
    /// is said of this gateway's only in entries of this name.
    ///
    /// # Errors
    /// [`LogError::Io`] if the file cannot be read.
    pub fn own_gateway(&self) -> Result<Option<String>, LogError> {
        Ok(disk::read_text(&*self.disk, &self.gateway)?.map(|name| name.trim_end().to_owned()))
    }

    /// Returns whether this is the site of a log that several gateways write. It has no journal, and no entries behind the
    /// checkpoint.
    ///
    /// # Errors
    /// [`LogError::Io`] if the folder cannot be read.
    pub fn is_replicated(&self) -> Result<bool, LogError> {
        match self.disk.kind(&self.replicated) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(LogError::io(&self.replicated, &error)),
        }
    }
}

/// The log, open for appending. Cheap to clone; the last clone closes it.
#[derive(Clone)]
pub struct ExchangeLog {
    shared: Arc<writer::WriterState>,
    _threads: Arc<writer::Threads>,
}

impl ExchangeLog {
    /// Opens the log below `data` for appending, and recovers from a crash.
    ///
    /// # Errors
    /// [`LogError::Locked`] while another process has it open; [`LogError::Corrupt`], [`LogError::RolledBack`] or
    /// [`LogError::Forked`] if its files are not what was written and signed; [`LogError::Replicated`] if several gateways
    /// write it; [`LogError::Io`] if they cannot be used.
    pub fn open(data: &Path, signer: LogSigner) -> Result<Self, LogError> {
        let paths = LogPaths::new(data);
        if paths.is_replicated()? {
            return Err(LogError::Replicated(paths.replicated));
        }
        let lock = LogLock::take(&paths)?;
        Self::over(embedded::open(paths, signer, |journal| Box::new(journal))?, lock)
    }

    /// Opens the log over another engine, which holds the lock of its folder.
    ///
    /// # Errors
    /// [`LogError::Io`] if the thread that writes cannot be started; the engine is closed then.
    pub fn over(engine: OpenEngine, lock: LogLock) -> Result<Self, LogError> {
        let (shared, threads) = writer::start(engine, lock)?;
        Ok(ExchangeLog { shared, _threads: Arc::new(threads) })
    }

    /// Appends an entry, and returns its index when the entry is durable; `None` if the index is known only when the entry
    /// is sealed, as where several gateways write.
    ///
    /// # Errors
    /// [`LogError::Full`] while too many entries wait, or for one that is too large; [`LogError::Closed`] once the log is
    /// closed; [`LogError::Io`] or [`LogError::Unavailable`] if its batch could not be written.
    pub async fn append(&self, entry: &Entry) -> Result<Option<u64>, LogError> {
        let (sender, receiver) = oneshot::channel();
        let waiting = completion_queue::PendingAppend { completion_queue: completion_queue::here(), sender };
        submission_batch::put(&self.shared, Queued::new(entry.to_bytes(), Some(waiting))?);
        receiver.await.map_err(|_| LogError::Closed)?
    }

    /// Returns at once whether entries are accepted now.
    ///
    /// # Errors
    /// As for [`LogEngine::admits`](engine::LogEngine::admits).
    pub fn admits(&self) -> Result<(), LogError> {
        self.shared.engine.admits()
    }

    /// Appends an entry as [`append`](Self::append) does; while no majority of etcd responds, it is kept on this gateway's
    /// own disk alone, behind an entry that says so ([`SPOOL_EVENT`]), and both join the log later.
    ///
    /// # Errors
    /// As for [`append`](Self::append), and for [`LogEngine::spool`](engine::LogEngine::spool).
    pub async fn append_or_spool(&self, entry: &Entry) -> Result<Option<u64>, LogError> {
        let refused = match self.shared.engine.admits() {
            Ok(()) => self.append(entry).await,
            Err(refused) => Err(refused),
        };
        let mark = || {
            let object = format!("exchange:{}", entry.id_text());
            let (actor, event) = ("gateway".to_owned(), SPOOL_EVENT.to_owned());
            Entry { actor, event, object, ..Entry::begin(Kind::Admin, &entry.node) }.to_bytes()
        };
        let entries = match refused {
            Err(LogError::Unavailable(_)) => vec![mark(), entry.to_bytes()],
            Err(LogError::Undecided(_)) => vec![mark()],
            done => return done,
        };
        self.shared.engine.spool(entries).await.map(|()| None)
    }

    /// Appends an entry without waiting for it: the end of a call whose caller is gone. If the batch cannot be written,
    /// the program's log reports it.
    ///
    /// # Errors
    /// The entry is too large.
    pub fn append_detached(&self, entry: &Entry) -> Result<(), LogError> {
        submission_batch::put(&self.shared, Queued::new(entry.to_bytes(), None)?);
        Ok(())
    }

    /// Returns whether the last batch could be written. After a failure, the next entry tries again.
    pub fn is_writable(&self) -> bool {
        self.shared.engine.is_writable()
    }

    /// Returns the number of durable entries, sealed or not: all with an index that was returned to their appenders. See
    /// [`LogEngine::durable`](engine::LogEngine::durable).
    pub fn durable(&self) -> u64 {
        self.shared.engine.durable()
    }

    /// Returns a number of entries among which are all that earlier processes of this gateway have appended; `None` while it
    /// is not known yet where some of them are.
    pub fn earlier(&self) -> Option<u64> {
        self.shared.engine.earlier()
    }

    /// Watches the number of sealed entries, to wait for an entry's checkpoint without reading files.
    pub fn watch_sealed(&self) -> watch::Receiver<u64> {
        self.shared.engine.watch_sealed()
    }

    /// Returns the log's health: unsealed entries, the checkpoint's age, the disk's sync time.
    pub fn health(&self) -> Health {
        self.shared.engine.health()
    }

    /// Seals everything that is durable, signs a checkpoint, and returns its size.
    ///
    /// # Errors
    /// As for [`LogEngine::seal`](engine::LogEngine::seal).
    pub fn seal_now(&self) -> Result<u64, LogError> {
        self.shared.engine.seal()
    }
}

/// Creates a folder and those above it.
pub(crate) fn make_folder(path: &Path) -> Result<(), LogError> {
    std::fs::create_dir_all(path).map_err(|error| LogError::io(path, &error))
}

/// Removes a file; returns false if there was none.
pub(crate) fn remove_file(path: &Path) -> Result<bool, LogError> {
    disk::remove(&LocalDisk, path)
}

/// Makes a folder's entries durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), LogError> {
    disk::sync_folder(&LocalDisk, path)
}

/// Writes a file atomically: a new file, synced, renamed over the old one, the folder synced.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), LogError> {
    disk::write_atomically(&LocalDisk, path, bytes)
}
