//! A disk that crashes.
//!
//! Written data is in memory (`now`) until it is synced (`durable`). Of unsynced data, a crash keeps any sectors of any writes,
//! any lengths, and any changes of names, or none; the changes of one name keep their order, and a rename is atomic. A failed
//! sync keeps some of it, and lost data is not written again, as in Linux. At every call, the scheduler may switch threads, a
//! fault may occur, or the machine may crash.

use crate::exchange_log::disk::{Disk, DiskFile, Open, PathKind};
use crate::inode::{Inode, Pending, SECTOR, put};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const BLOCK: usize = 4_096;
const SYNC_FOLDER: &str = "sync folder";

/// The faults until the next crash. None by default.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The machine crashes after this number of calls.
    pub crash_in: Option<u64>,
    /// It crashes this number of calls after the first failed one: that exposes the effects of a failure best.
    pub crash_after_error: Option<u64>,
    /// One call of this number fails with EIO; 0: none.
    pub errors: u32,
    /// Only syncs of folders fail: names were changed, and it is unknown whether the change is durable.
    pub only_names: bool,
    /// Only calls below this folder count.
    pub place: Option<&'static str>,
    /// Free bytes; `None`: unlimited.
    pub room: Option<u64>,
    /// After this number of writes, one is written to a wrong location, and the call succeeds.
    pub misdirect_in: Option<u64>,
    /// The machine crashes this number of calls after that.
    pub crash_after_misdirected: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

impl Node {
    fn inode(self) -> Option<usize> {
        if let Node::File(inode) = self { Some(inode) } else { None }
    }
}

/// Files and their bytes.
pub type Snapshot = BTreeMap<PathBuf, Vec<u8>>;

/// A misdirected write.
#[derive(Debug, Clone)]
pub struct Misdirected {
    /// The data, its right location, and its actual one.
    pub what: String,
    /// The file that it was written to, by its name at that time.
    pub landed: PathBuf,
    /// The offset there.
    pub place: usize,
    /// Whether there was no data before.
    pub free: bool,
    /// The part that was written.
    pub bytes: Vec<u8>,
}

type Names = BTreeMap<PathBuf, Node>;
/// The changes of names by one call; `None`: removed.
type Change = Vec<(PathBuf, Option<Node>)>;

#[derive(Debug)]
struct State {
    rng: fastrand::Rng,
    inodes: Vec<Inode>,
    now: Names,
    durable: Names,
    changes: Vec<Change>,
    faults: Faults,
    calls: u64,
    dead: bool,
    /// No faults and no other thread in between: for checks.
    quiet: bool,
    notes: Vec<Vec<u8>>,
    misdirected: Option<Misdirected>,
    trace: Option<Vec<String>>,
}

/// The disk; its clones are one disk.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct SimFile {
    disk: SimDisk,
    inode: usize,
    path: PathBuf,
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(28)
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn missing() -> io::Error {
    io::Error::from_raw_os_error(2)
}

impl SimDisk {
    /// An empty disk with a root folder `/`.
    pub fn new(seed: u64, trace: bool) -> Self {
        let root: Names = [(PathBuf::from("/"), Node::Folder)].into();
        SimDisk(Arc::new(Mutex::new(State {
            rng: fastrand::Rng::with_seed(seed),
            inodes: Vec::new(),
            now: root.clone(),
            durable: root,
            changes: Vec::new(),
            faults: Faults::default(),
            calls: 0,
            dead: false,
            quiet: false,
            notes: Vec::new(),
            misdirected: None,
            trace: trace.then(Vec::new),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the faults from the next call on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Whether the machine has crashed.
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Runs a check: no faults, no other thread.
    pub fn quietly<T>(&self, check: impl FnOnce() -> T) -> T {
        self.state().quiet = true;
        let checked = check();
        self.state().quiet = false;
        checked
    }

    /// Returns the writes to checkpoint files since the last call.
    pub fn take_notes(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.state().notes)
    }

    /// Returns the misdirected write, if there was one.
    pub fn misdirected(&self) -> Option<Misdirected> {
        self.state().misdirected.clone()
    }

    /// Adds a line to the trace.
    pub fn note(&self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.state().trace {
            trace.push(line());
        }
    }

    /// The process dies, the machine does not: all written data is there, synced or not.
    pub fn kill(&self) {
        let state = &mut *self.state();
        (state.dead, state.faults) = (false, Faults::default());
        if let Some(trace) = &mut state.trace {
            trace.push("-- killed: the machine goes on".into());
        }
    }

    /// Returns the trace of all calls.
    pub fn trace(&self) -> Vec<String> {
        self.state().trace.clone().unwrap_or_default()
    }

    /// Power loss and restart: unsynced data is kept or lost, piece by piece.
    pub fn restart(&self) {
        let state = &mut *self.state();
        // Of bytes, and of names.
        let [keep, keep_names] = [(); 2].map(|()| state.rng.choice([0, 10, 50, 90, 100]).unwrap_or_default());
        let ordered = state.rng.bool();
        for inode in &mut state.inodes {
            inode.settle(&mut state.rng, keep);
        }
        let cut = state.rng.usize(..=state.changes.len());
        let kept = |rng: &mut fastrand::Rng, at: usize| if ordered { at < cut } else { rng.u32(..100) < keep_names };
        let wanted: Vec<bool> = (0..state.changes.len()).map(|at| kept(&mut state.rng, at)).collect();
        state.apply(|at, _| wanted[at]);
        state.changes.clear();
        // The contents of a lost folder are lost as well.
        let durable = state.durable.clone();
        state.durable.retain(|path, _| path.ancestors().all(|above| durable.contains_key(above)));
        state.now = state.durable.clone();
        (state.dead, state.faults) = (false, Faults::default());
        if let Some(trace) = &mut state.trace {
            trace.push(format!("-- restart: {keep} % of bytes kept, {keep_names} % of names, in order: {ordered}"));
        }
    }

    /// The files below a folder.
    pub fn files(&self, below: &Path) -> Vec<PathBuf> {
        let state = self.state();
        let files = state.now.iter().filter(|(path, node)| path.starts_with(below) && **node != Node::Folder);
        files.map(|(path, _)| path.clone()).collect()
    }

    /// Changes a file's bytes, unnoticed by all threads.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        if let Some(Node::File(inode)) = state.now.get(path).copied() {
            let inode = &mut state.inodes[inode];
            change(&mut inode.now);
            inode.durable = inode.now.clone();
        }
    }

    /// The bytes of all files below a folder.
    pub fn snapshot(&self, below: &Path) -> Snapshot {
        let state = self.state();
        let files = state.now.iter().filter(|(path, _)| path.starts_with(below));
        files.filter_map(|(path, node)| Some((path.clone(), state.inodes[node.inode()?].now.clone()))).collect()
    }

    /// Restores the files below a folder to an earlier state. Folders stay.
    pub fn put_back(&self, below: &Path, snapshot: &Snapshot) {
        let state = &mut *self.state();
        state.now.retain(|path, node| *node == Node::Folder || !path.starts_with(below));
        for (path, bytes) in snapshot {
            state.inodes.push(Inode { now: bytes.clone(), durable: bytes.clone(), pending: Vec::new() });
            state.now.insert(path.clone(), Node::File(state.inodes.len() - 1));
            for above in path.ancestors().skip(1) {
                state.now.insert(above.to_owned(), Node::Folder);
            }
        }
        state.durable = state.now.clone();
        state.changes.clear();
    }

    /// Starts a call: another thread may run first, the machine may crash, the call may fail.
    fn call(&self, name: &str, path: &Path, more: &dyn Debug) -> io::Result<MutexGuard<'_, State>> {
        if !self.state().quiet {
            shuttle::thread::yield_now();
        }
        let mut state = self.state();
        if state.quiet {
            return Ok(state);
        }
        state.calls += 1;
        let counts = state.faults.place.is_none_or(|place| path.starts_with(place));
        if counts && let Some(left) = &mut state.faults.crash_in {
            *left = left.saturating_sub(1);
            let over = *left == 0;
            state.dead |= over;
        }
        let may_fail = counts && (!state.faults.only_names || name == SYNC_FOLDER);
        let odds = if may_fail { state.faults.errors } else { 0 };
        let failed = state.dead || odds > 0 && state.rng.u32(..odds) == 0;
        if failed && let Some(after) = state.faults.crash_after_error.take() {
            state.faults.crash_in = Some(after);
        }
        let calls = state.calls;
        if let Some(trace) = &mut state.trace
            && trace.len() < 100_000
        {
            let how = if failed { " FAILS" } else { "" };
            let task = usize::from(shuttle::current::me());
            trace.push(format!("{calls:6} task {task} {name} {path:?} {more:?}{how}"));
        }
        if failed { Err(broken()) } else { Ok(state) }
    }
}

impl State {
    /// Applies the selected changes of names and those that they depend on, in order; the others are not applied.
    fn apply(&mut self, wanted: impl Fn(usize, &Change) -> bool) {
        let mut paths: Vec<PathBuf> = Vec::new();
        let mut taken = vec![false; self.changes.len()];
        for (at, change) in self.changes.iter().enumerate().rev() {
            let above = |path: &Path| path.parent().is_some_and(|parent| paths.iter().any(|other| other == parent));
            let builds = change.iter().any(|(path, _)| paths.contains(path) || above(path));
            if builds || wanted(at, change) {
                taken[at] = true;
                // What is in a removed folder was removed before.
                paths.extend(change.iter().map(|(path, _)| path.clone()));
            }
        }
        let mut left = Vec::new();
        for (change, taken) in std::mem::take(&mut self.changes).into_iter().zip(taken) {
            if taken { edit(&mut self.durable, &change) } else { left.push(change) }
        }
        self.changes = left;
    }

    fn change(&mut self, change: Change) {
        edit(&mut self.now, &change);
        self.changes.push(change);
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.now.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            _ => Err(missing()),
        }
    }

    fn folder_of(&self, path: &Path) -> io::Result<()> {
        let there = path.parent().is_some_and(|parent| self.now.get(parent) == Some(&Node::Folder));
        if there { Ok(()) } else { Err(missing()) }
    }

    /// Takes space, if there is any.
    fn take(&mut self, bytes: u64) -> io::Result<()> {
        if let Some(room) = self.faults.room.as_mut().filter(|_| !self.quiet) {
            *room = room.checked_sub(bytes).ok_or_else(full)?;
        }
        Ok(())
    }

    /// Whether this write is the misdirected one.
    fn goes_astray(&mut self, path: &Path) -> bool {
        let counts = self.faults.place.is_none_or(|place| path.starts_with(place));
        let Some(left) = self.faults.misdirect_in.as_mut().filter(|_| counts && !self.quiet) else { return false };
        *left = left.saturating_sub(1);
        let now = *left == 0;
        if now {
            self.faults.misdirect_in = None;
            self.faults.crash_in = self.faults.crash_after_misdirected.take();
        }
        now
    }

    /// Writes to another location, in the same file or another: that location is durable, the right one is unchanged. Drives
    /// misdirect writes by sectors or blocks, within a file's length.
    fn astray(&mut self, wanted: (usize, &Path, usize), bytes: &[u8]) {
        let (own, path, at) = wanted;
        let others: Vec<(PathBuf, usize)> =
            self.now.iter().filter_map(|(path, node)| Some((path.clone(), node.inode()?))).collect();
        let (landed, inode) = match self.rng.bool() {
            true => (path.to_owned(), own),
            false => self.rng.choice(others).unwrap_or((path.to_owned(), own)),
        };
        let unit = self.rng.choice([SECTOR, BLOCK]).unwrap_or(BLOCK);
        let there = self.inodes[inode].now.len();
        let mut place = self.rng.usize(..=there / unit) * unit;
        if inode == own && place == at {
            place += unit;
        }
        // The file does not grow.
        let fits = bytes.len().min(there.saturating_sub(place));
        let Inode { now, durable, .. } = &mut self.inodes[inode];
        let free = now.iter().skip(place).take(fits).all(|byte| *byte == 0);
        for copy in [now, durable] {
            if copy.len() >= place + fits {
                copy[place..place + fits].copy_from_slice(&bytes[..fits]);
            }
        }
        let what =
            format!("{} bytes for {} at {at} landed in {} at {place}", bytes.len(), path.display(), landed.display());
        if let Some(trace) = &mut self.trace {
            trace.push(format!("-- {what}"));
        }
        self.misdirected = Some(Misdirected { what, landed, place, free, bytes: bytes[..fits].to_vec() });
    }

    fn give_back(&mut self, inode: usize) {
        if let Some(room) = &mut self.faults.room {
            *room += self.inodes[inode].now.len() as u64;
        }
    }

    fn resize(&mut self, inode: usize, length: usize) -> io::Result<()> {
        let more = length.saturating_sub(self.inodes[inode].now.len());
        self.take(more as u64)?;
        self.inodes[inode].now.resize(length, 0);
        self.inodes[inode].pending.push(Pending::Length(length));
        Ok(())
    }
}

fn edit(names: &mut Names, change: &Change) {
    for (path, node) in change {
        match node {
            Some(node) => drop(names.insert(path.clone(), *node)),
            None => drop(names.remove(path)),
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.call(if how == Open::Read { "open" } else { "open to write" }, path, &())?;
        let inode = match (state.file(path), how) {
            (Ok(inode), Open::Empty) => {
                state.give_back(inode);
                state.resize(inode, 0)?;
                inode
            }
            (Ok(inode), _) => inode,
            (Err(error), Open::Read) => return Err(error),
            (Err(_), _) => {
                state.folder_of(path)?;
                state.take(1)?;
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.change(vec![(path.to_owned(), Some(Node::File(inode)))]);
                inode
            }
        };
        drop(state);
        Ok(Box::new(SimFile { disk: self.clone(), inode, path: path.to_owned() }))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.call("list", folder, &())?;
        if state.now.get(folder) != Some(&Node::Folder) {
            return Err(missing());
        }
        Ok(state.now.keys().filter(|path| path.parent() == Some(folder)).cloned().collect())
    }

    fn kind(&self, path: &Path) -> io::Result<PathKind> {
        match self.call("look at", path, &())?.now.get(path) {
            Some(Node::Folder) => Ok(PathKind::Folder),
            Some(Node::File(_)) => Ok(PathKind::File),
            None => Err(missing()),
        }
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.call("create folder", path, &())?;
        let mut folders: Vec<&Path> = path.ancestors().filter(|path| !state.now.contains_key(*path)).collect();
        while let Some(folder) = folders.pop() {
            state.take(1)?;
            state.change(vec![(folder.to_owned(), Some(Node::Folder))]);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.call("rename", from, &to)?;
        let inode = state.file(from)?;
        state.folder_of(to)?;
        state.change(vec![(to.to_owned(), Some(Node::File(inode))), (from.to_owned(), None)]);
        Ok(())
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        let mut state = self.call("exchange", one, &other)?;
        let (first, second) = (state.file(one)?, state.file(other)?);
        let change = [(one, second), (other, first)];
        state.change(change.map(|(path, inode)| (path.to_owned(), Some(Node::File(inode)))).into());
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.call("remove", path, &())?;
        let inode = state.file(path)?;
        state.give_back(inode);
        state.change(vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.call("remove folder", path, &())?;
        if state.now.keys().any(|other| other.parent() == Some(path)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.change(vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.call(SYNC_FOLDER, path, &())?;
        if state.now.get(path) != Some(&Node::Folder) {
            return Err(missing());
        }
        state.apply(|_, change| change.iter().any(|(name, _)| name.parent() == Some(path)));
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn block(&self) -> usize {
        BLOCK
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].now.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.call("read", &self.path, &())?;
        let there = state.inodes[self.inode].now.get(offset as usize..).unwrap_or_default();
        let length = there.len().min(buffer.len());
        buffer[..length].copy_from_slice(&there[..length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.call("write", &self.path, &(offset, bytes.len()))?;
        let at = offset as usize;
        let more = (at + bytes.len()).saturating_sub(state.inodes[self.inode].now.len());
        state.take(more as u64)?;
        if self.path.ends_with("signed-checkpoint.new") {
            state.notes.push(bytes.to_vec());
        }
        if state.goes_astray(&self.path) {
            state.astray((self.inode, &self.path, at), bytes);
            return Ok(());
        }
        put(&mut state.inodes[self.inode].now, at, bytes);
        state.inodes[self.inode].pending.push(Pending::Write(at, bytes.to_vec()));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.call("set length", &self.path, &len)?.resize(self.inode, len as usize)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.call("allocate", &self.path, &len)?;
        let length = state.inodes[self.inode].now.len().max(len as usize);
        state.resize(self.inode, length)
    }

    fn sync(&self) -> io::Result<()> {
        match self.disk.call("sync", &self.path, &()) {
            Ok(mut state) => {
                state.inodes[self.inode].sync();
                Ok(())
            }
            Err(error) => {
                let state = &mut *self.disk.state();
                if !state.dead {
                    // It was reported once; data that did not reach the disk is not written again.
                    let now = state.inodes[self.inode].now.clone();
                    state.inodes[self.inode].settle(&mut state.rng, 50);
                    state.inodes[self.inode].now = now;
                }
                Err(error)
            }
        }
    }
}
