//! Every interleaving of the hand-over of journal files between the writer, the sealer and the thread that fills segments:
//! the product's own [`Journal`] and its preallocated segment, through [`SEGMENTS`] segments, on a disk in memory without faults.
//!
//! Threads may switch at each lock, each wait and each disk call. Two paths that lead to the same state (the disk, the open files
//! of each thread, the preallocated segment, and each thread's observations) have the same continuations, so only the first is
//! explored further: all states are reached, and each is continued once.

use crate::exchange_log::disk::{Disk, DiskFile, Open, PathKind};
use crate::exchange_log::journal::Journal;
use crate::exchange_log::segment::ChainKey;
use crate::exchange_log::storage::Storage;
use crate::exchange_log::{LogError, LogPaths};
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner, thread};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Number of written segments; all but the last are sealed and retired.
const SEGMENTS: u64 = 3;
/// An entry so large that two do not fit in a segment of the simulator.
const ENTRY_BYTES: usize = 9_000;
const FOLDER: &str = "/journal";
/// The thread that the model begins with is the journal's writer.
const WRITER: usize = 0;

thread_local! {
    /// The execution of this thread, if it belongs to the model.
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// The state for comparison.
#[derive(Default)]
struct Watch {
    /// For each thread: its observations and its position.
    threads: Vec<u64>,
    /// The state of the preallocated segment.
    shared: u8,
    disk: ModelDisk,
}

impl Watch {
    fn fold(&mut self, thread: usize, what: impl Hash) {
        if self.threads.len() <= thread {
            self.threads.resize(thread + 1, 0);
        }
        self.threads[thread] = hash((self.threads[thread], hash(what)));
    }
}

fn hash(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

fn watched(change: impl FnOnce(&mut Watch)) {
    WATCH.with_borrow_mut(|watch| watch.as_mut().map(change));
}

fn see(what: impl Hash) {
    watched(|watch| watch.fold(shuttle::current::me().into(), what));
}

/// Records that the running thread has observed this shared state.
pub fn seen(what: u8) {
    see(what);
}

/// Records a new shared state.
pub fn changed(what: u8) {
    watched(|watch| watch.shared = what);
}

/// The running thread's observations do not matter from here on: it is in an earlier position again.
pub fn forgets() {
    forgets_but(());
}

/// The same but for this.
fn forgets_but(what: impl Hash) {
    watched(|watch| {
        let thread: usize = shuttle::current::me().into();
        watch.fold(thread, ());
        watch.threads[thread] = hash(what);
    });
}

/// Explores all interleavings; returns the numbers of states and executions.
///
/// # Panics
/// If one of them violates a check.
pub fn every_interleaving() -> (usize, u64) {
    let counted = Arc::new(Mutex::new((0, 0)));
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(100_000);
    config.silence_warnings = true;
    Runner::new(Everything { counted: counted.clone(), ..Everything::default() }, config).run(run);
    let counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
    *counted
}

fn entry(index: u64) -> Vec<u8> {
    vec![index as u8 + 1; ENTRY_BYTES]
}

/// One execution: batches of one entry, each in its own segment, while durable entries are sealed at any pace.
fn run() {
    let disk = ModelDisk::default();
    watched(|watch| watch.disk = disk.clone());
    let paths = LogPaths { journal: FOLDER.into(), ..LogPaths::on(Arc::new(disk.clone()), Path::new("/")) };
    let key = || ChainKey::new(b"secret");
    let mut journal = Journal::recover(&paths, key(), 0).expect("an empty journal").journal;
    let preallocator = journal.preallocator();
    let durable = Arc::new(AtomicU64::new(0));
    let filler = {
        let preallocator = preallocator.clone();
        thread::spawn(move || preallocator.fill_on_demand())
    };
    let sealer = {
        let (paths, preallocator, durable) = (paths.clone(), preallocator.clone(), durable.clone());
        thread::spawn(move || {
            let mut sealed = 0;
            while sealed < SEGMENTS {
                forgets_but(sealed);
                while durable.load(Ordering::Relaxed) == sealed {
                    forgets_but(sealed);
                    thread::park();
                }
                sealed = durable.load(Ordering::Relaxed);
                see(sealed);
                Journal::forget(&paths, sealed, &preallocator).expect("segments that are sealed");
            }
        })
    };
    for index in 0..SEGMENTS {
        forgets_but(index);
        assert_eq!(journal.append(&[entry(index)]).ok(), Some(index), "a batch is refused without a fault");
        durable.store(index + 1, Ordering::Relaxed);
        sealer.thread().unpark();
    }
    forgets_but(SEGMENTS);
    sealer.join().expect("no panic");
    preallocator.close();
    filler.join().expect("no panic");
    drop(journal);
    disk.files().quiet = true;
    let left: Vec<PathBuf> = disk.files().names.keys().cloned().collect();
    assert!(left.iter().all(|path| path.extension().is_some_and(|end| end == "seg")), "left over: {left:?}");
    // All segments but the last are retired; the last batch is there.
    let from = SEGMENTS - 1;
    let found: Result<_, LogError> = Journal::recover(&paths, key(), from).map(|recovered| recovered.records);
    let found: Vec<_> = found.expect("the last segment").into_iter().map(|record| record.bytes).collect();
    assert!(found == [entry(from)], "the last batch is not there");
}

/// Depth-first search, back to the last open choice, until there is none.
#[derive(Default)]
struct Everything {
    /// The choices of this execution: the runnable threads, and the chosen one.
    choices: Vec<(Vec<TaskId>, usize)>,
    depth: usize,
    executions: u64,
    states: HashSet<u64>,
    counted: Arc<Mutex<(usize, u64)>>,
}

impl Scheduler for Everything {
    fn new_execution(&mut self) -> Option<Schedule> {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = (self.states.len(), self.executions);
        if self.executions > 0 {
            while let Some((threads, chosen)) = self.choices.last_mut() {
                *chosen += 1;
                if *chosen < threads.len() {
                    break;
                }
                self.choices.pop();
            }
            if self.choices.is_empty() {
                return None;
            }
        }
        (self.depth, self.executions) = (0, self.executions + 1);
        // The threads of an execution that is not continued keep what they hold for good: the disk has most of it.
        if let Some(ended) = WATCH.replace(Some(Watch::default())) {
            *ended.disk.files() = Files::default();
        }
        Some(Schedule::new(0))
    }

    fn next_task(&mut self, runnable: &[&Task], _current: Option<TaskId>, _yields: bool) -> Option<TaskId> {
        let threads: Vec<TaskId> = runnable.iter().map(|task| task.id()).collect();
        let next = match (self.choices.get(self.depth), threads.as_slice()) {
            (_, [only]) => *only,
            (Some((threads, chosen)), _) => {
                self.depth += 1;
                threads[*chosen]
            }
            (None, _) => {
                if !self.states.insert(state(&threads)) {
                    return None;
                }
                let first = threads[0];
                self.choices.push((threads, 0));
                self.depth += 1;
                first
            }
        };
        watched(|watch| watch.fold(next.into(), "goes on"));
        Some(next)
    }

    fn next_u64(&mut self) -> u64 {
        0
    }
}

fn state(runnable: &[TaskId]) -> u64 {
    let mut state = 0;
    watched(|watch| {
        let runnable: Vec<usize> = runnable.iter().map(|thread| (*thread).into()).collect();
        state = hash((runnable, &watch.threads, watch.shared, watch.disk.files().fingerprint()));
    });
    state
}

/// A disk in memory that never fails; its clones are one disk.
#[derive(Debug, Clone, Default)]
struct ModelDisk(Arc<Mutex<Files>>);

#[derive(Debug, Default)]
struct Files {
    names: BTreeMap<PathBuf, usize>,
    inodes: Vec<Inode>,
    /// No other thread in between: for checks.
    quiet: bool,
}

#[derive(Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    sum: u32,
    /// The open handles: thread, number of its open file, whether it writes.
    open: Vec<(usize, u32, bool)>,
}

struct ModelFile {
    disk: ModelDisk,
    inode: usize,
    holder: (usize, u32, bool),
}

impl Files {
    /// The disk's contents and the open files; inodes have no numbers here.
    fn fingerprint(&self) -> Vec<u64> {
        let of = |(at, inode): (usize, &Inode)| {
            let names: Vec<&PathBuf> = self.names.iter().filter(|(_, to)| **to == at).map(|(name, _)| name).collect();
            let there = !names.is_empty() || !inode.open.is_empty();
            there.then(|| hash((names, &inode.open, inode.sum, inode.bytes.len())))
        };
        let mut all: Vec<u64> = self.inodes.iter().enumerate().filter_map(of).collect();
        all.sort_unstable();
        all
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl ModelDisk {
    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a call: another thread may run first.
    fn call(&self) -> MutexGuard<'_, Files> {
        if !self.files().quiet {
            thread::yield_now();
        }
        self.files()
    }
}

/// Records the result of a call as an observation of the calling thread.
fn result<T>(result: io::Result<T>) -> io::Result<T> {
    see(result.is_ok());
    result
}

impl Disk for ModelDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let mut files = self.call();
        let inode = match files.find(path) {
            Err(error) if how == Open::Read => return result(Err(error)),
            Err(_) => {
                files.inodes.push(Inode::default());
                let inode = files.inodes.len() - 1;
                files.names.insert(path.to_owned(), inode);
                inode
            }
            Ok(inode) => inode,
        };
        let thread: usize = shuttle::current::me().into();
        let held =
            |nth: &u32| files.inodes.iter().any(|inode| inode.open.iter().any(|one| (one.0, one.1) == (thread, *nth)));
        let nth = (0..).find(|nth| !held(nth)).unwrap_or_default();
        let holder = (thread, nth, how != Open::Read);
        if holder.2 {
            files.own(inode, thread);
            let named = files.names.iter().any(|(name, to)| *to == inode && name.extension().is_some());
            assert!(!named || thread == WRITER, "a segment is opened by another thread than the writer");
        }
        files.inodes[inode].open.push(holder);
        drop(files);
        result(Ok(Box::new(ModelFile { disk: self.clone(), inode, holder })))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let names: Vec<_> = self.call().names.keys().filter(|path| path.parent() == Some(folder)).cloned().collect();
        see(&names);
        Ok(names)
    }

    fn kind(&self, path: &Path) -> io::Result<PathKind> {
        result(self.call().find(path).map(|_| PathKind::File))
    }

    fn create_folder(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.call();
        let found = files.find(from);
        if let Ok(inode) = found {
            let thread: usize = shuttle::current::me().into();
            files.own(inode, thread);
            if let Ok(lost) = files.find(to) {
                files.own(lost, thread);
            }
            files.names.remove(from);
            files.names.insert(to.to_owned(), inode);
        }
        result(found.map(drop))
    }

    fn exchange(&self, _one: &Path, _other: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut files = self.call();
        let found = files.find(path);
        files.names.remove(path);
        result(found.map(drop))
    }

    fn remove_folder(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_folder(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl Files {
    /// A file has one owner at a time: no thread opens it for writing or renames it while another thread has it open for
    /// writing; and only the writer opens a file with a segment's name for writing.
    fn own(&self, inode: usize, thread: usize) {
        let others = self.inodes[inode].open.iter().any(|(other, _, writes)| *writes && *other != thread);
        assert!(!others, "a file is taken that another thread writes to");
    }
}

/// An open file belongs to one thread, so its calls are not visible to others, and threads do not switch there.
impl ModelFile {
    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut files = self.disk.files();
        let inode = &mut files.inodes[self.inode];
        change(&mut inode.bytes);
        inode.sum = crc32c::crc32c(&inode.bytes);
    }
}

impl DiskFile for ModelFile {
    fn block(&self) -> usize {
        1
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.files().inodes[self.inode].bytes.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let files = self.disk.files();
        let there = files.inodes[self.inode].bytes.get(offset as usize..).unwrap_or_default();
        let length = there.len().min(buffer.len());
        buffer[..length].copy_from_slice(&there[..length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(|all| crate::inode::put(all, offset as usize, bytes));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|all| all.resize(len as usize, 0));
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.change(|all| all.resize(all.len().max(len as usize), 0));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ModelFile {
    fn drop(&mut self) {
        self.disk.files().inodes[self.inode].open.retain(|holder| *holder != self.holder);
    }
}
