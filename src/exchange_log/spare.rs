//! A segment made ready ahead: filled with zeros that are on the disk.
//!
//! Space that was only reserved has to be turned into written space at each `fdatasync` (on ext4 an extent is converted and
//! the inode written: a second write, half as much time and CPU again). So the next segment is written through beforehand,
//! in small pieces between which the journal's own writes find their place. A segment that is done with becomes the next
//! spare, which also leaves nothing of its entries on the disk.

use super::blocks::Blocks;
use super::journal::SEGMENT_BYTES;
use super::{LogError, remove_file};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Zeros that are written at once: less than 0.1 ms of a disk's time, which is what a call may have to wait for them.
const PIECE: usize = 64 << 10;
/// Pause between two pieces. A segment takes 2 to 3 s so, and is ready in time up to some 40,000 entries a second; beyond,
/// segments are only reserved.
const PAUSE: Duration = Duration::from_millis(2);

#[derive(Default)]
enum State {
    /// No spare, and none wanted.
    #[default]
    Empty,
    /// To be filled with zeros: a new file, or the one that is there.
    Wanted,
    /// Being filled.
    Filling,
    Ready,
    /// The log is closed.
    Closed,
}

/// The next segment of a journal.
pub(super) struct Spare {
    path: PathBuf,
    state: Mutex<State>,
    wake: Condvar,
}

impl Spare {
    /// Of the journal in a folder. What an earlier process left half filled is removed.
    pub fn of(folder: &Path) -> Result<Self, LogError> {
        let path = folder.join("spare");
        remove_file(&path)?;
        Ok(Spare { path, state: Mutex::default(), wake: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One will be wanted soon.
    pub fn want(&self) {
        let mut state = self.state();
        if matches!(*state, State::Empty) {
            *state = State::Wanted;
            self.wake.notify_all();
        }
    }

    /// The spare, if one is ready; it is the caller's to rename.
    pub fn take(&self) -> Option<PathBuf> {
        let mut state = self.state();
        match std::mem::take(&mut *state) {
            State::Ready => Some(self.path.clone()),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Whether one can be taken.
    #[cfg(test)]
    pub fn is_ready(&self) -> bool {
        matches!(*self.state(), State::Ready)
    }

    /// A segment that is done with: the next spare, where there is none.
    pub fn retire(&self, segment: &Path) -> Result<(), LogError> {
        let mut state = self.state();
        if matches!(*state, State::Empty) {
            std::fs::rename(segment, &self.path).map_err(|error| LogError::io(segment, &error))?;
            *state = State::Wanted;
            self.wake.notify_all();
            return Ok(());
        }
        remove_file(segment).map(drop)
    }

    /// Fills spares until the log is closed.
    pub fn fill_when_wanted(&self) {
        let mut state = self.state();
        loop {
            match *state {
                State::Closed => {
                    let _ = remove_file(&self.path);
                    return;
                }
                State::Wanted => {
                    *state = State::Filling;
                    drop(state);
                    let next = match self.fill() {
                        Ok(()) => State::Ready,
                        Err(error) => {
                            // No harm: the journal reserves its next segment itself. Most likely the disk is full.
                            tracing::debug!(%error, "no journal segment can be made ready ahead");
                            let _ = remove_file(&self.path);
                            State::Empty
                        }
                    };
                    state = self.state();
                    // Unless the log was closed meanwhile.
                    if matches!(*state, State::Filling) {
                        *state = next;
                    }
                }
                _ => state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Fills the file with zeros; breaks off where the log is closed.
    fn fill(&self) -> std::io::Result<()> {
        let mut blocks = Blocks::open(&self.path, 0)?;
        blocks.file().set_len(SEGMENT_BYTES)?;
        let zeros = vec![0; PIECE];
        for _ in 0..SEGMENT_BYTES / PIECE as u64 {
            blocks.append(&zeros)?;
            let open = |state: &mut State| !matches!(state, State::Closed);
            let wait = self.wake.wait_timeout_while(self.state(), PAUSE, open);
            let (state, _) = wait.unwrap_or_else(PoisonError::into_inner);
            if matches!(*state, State::Closed) {
                return Ok(());
            }
        }
        blocks.file().sync_all()
    }

    /// Ends [`fill_when_wanted`](Self::fill_when_wanted), and leaves no spare behind.
    pub fn close(&self) {
        *self.state() = State::Closed;
        self.wake.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn filled(spare: &Spare) -> PathBuf {
        let began = Instant::now();
        loop {
            if let Some(taken) = spare.take() {
                return taken;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "it is never ready");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_segment_that_is_done_with_comes_back_without_its_entries() {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("00000000000000000000.seg");
        std::fs::write(&old, vec![7; 100_000]).unwrap();
        std::fs::write(folder.path().join("spare"), b"left by an earlier process").unwrap();
        let spare = Spare::of(folder.path()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| spare.fill_when_wanted());
            assert!(spare.take().is_none());
            spare.retire(&old).unwrap();
            let path = filled(&spare);
            let bytes = std::fs::read(&path).unwrap();
            assert!(!old.exists() && bytes.len() as u64 == SEGMENT_BYTES && bytes.iter().all(|byte| *byte == 0));
            // A second one while there is one already is only removed.
            std::fs::rename(&path, &old).unwrap();
            spare.want();
            spare.retire(&old).unwrap();
            assert!(!old.exists());
            spare.close();
        });
        assert!(spare.take().is_none() && !folder.path().join("spare").exists());
    }
}
