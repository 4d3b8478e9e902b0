//! The lock of the log, and the process that holds it.

use super::reader::settled;
use super::{LogError, LogPaths, make_folder};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

fn lock_path(paths: &LogPaths) -> PathBuf {
    paths.journal.join("lock")
}

/// The lock of a log, for as long as it is held.
#[derive(Debug)]
pub struct LogLock(#[allow(dead_code)] File);

impl LogLock {
    /// Locks the log for this process; the lock's file holds the process id.
    ///
    /// # Errors
    /// [`LogError::Locked`] if another process holds it for 400 ms; [`LogError::Io`] if its file cannot be created.
    pub fn take(paths: &LogPaths) -> Result<Self, LogError> {
        waited(|| lock(paths)).map(LogLock)
    }
}

/// Waits for a lock: whoever looks for its holder has it for a moment ([`LockOwner::of`]), and so has a child process
/// between its fork and its exec.
fn waited(attempt: impl FnMut() -> Result<File, LogError>) -> Result<File, LogError> {
    settled(|error| matches!(error, LogError::Locked(_)), attempt)
}

fn lock(paths: &LogPaths) -> Result<File, LogError> {
    make_folder(&paths.journal)?;
    let path = lock_path(paths);
    let fail = |error: std::io::Error| LogError::io(&path, &error);
    // Not truncated before it is locked: the id in it may be another process's.
    let file = File::options().create(true).truncate(false).read(true).write(true).open(&path).map_err(fail)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(LogError::Locked(path));
    }
    // Overwritten in place, which needs no space. The id is for a process that signals this one to end; the lock holds without it.
    let id = format!("{}\n", std::process::id());
    if let Err(error) = file.write_all_at(id.as_bytes(), 0).and_then(|()| file.set_len(id.len() as u64)) {
        tracing::warn!(%error, path = %path.display(), "the lock's file cannot be written");
    }
    Ok(file)
}

/// A process that has the log open for writing.
pub struct LockOwner(Pid);

impl LockOwner {
    /// Returns the process that holds a log's lock; `None` if the log is not locked.
    ///
    /// # Errors
    /// [`LogError::Io`] if the lock's file cannot be read; [`LogError::Locked`] if it is locked and holds no process
    /// id.
    pub fn of(paths: &LogPaths) -> Result<Option<Self>, LogError> {
        let path = lock_path(paths);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::io(&path, &error)),
        };
        if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            return Ok(None);
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|error| LogError::io(&path, &error))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw).ok_or(LogError::Locked(path))?;
        Ok(Some(LockOwner(pid)))
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.0.as_raw_nonzero().get()
    }

    /// Sends the process SIGTERM, as an operator would.
    ///
    /// # Errors
    /// The process has ended, or belongs to another user.
    pub fn terminate(&self) -> Result<(), String> {
        kill_process(self.0, Signal::TERM)
            .map_err(|error| format!("process {} cannot be signalled: {error}", self.pid()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_known_for_as_long_as_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let paths = LogPaths::new(folder.path());
        assert!(LockOwner::of(&paths).unwrap().is_none());
        let held = lock(&paths).unwrap();
        assert_eq!(LockOwner::of(&paths).unwrap().unwrap().pid(), std::process::id() as i32);
        assert!(matches!(lock(&paths), Err(LogError::Locked(_))));
        drop(held);
        assert!(LockOwner::of(&paths).unwrap().is_none());
        lock(&paths).unwrap();
    }

    /// Earlier, a gateway that started at that moment ended as if another one ran.
    #[test]
    fn whoever_looks_for_the_holder_keeps_nobody_from_taking_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let paths = LogPaths::new(folder.path());
        drop(lock(&paths).unwrap());
        let mut looking = File::open(lock_path(&paths)).ok();
        flock(looking.as_ref().unwrap(), FlockOperation::NonBlockingLockShared).unwrap();
        let taken = waited(|| lock(&paths).inspect_err(|_| drop(looking.take())));
        assert!(taken.is_ok() && looking.is_none());
    }
}
