//! A preallocated segment: filled with zeros that are on the disk.
//!
//! Space that was only reserved has to be converted to written space at each `fdatasync` (on ext4 an extent is
//! converted and the inode written: a second write, half as much time and CPU again). So the next segment is filled
//! beforehand, in small pieces; the journal's own writes run between them. A sealed segment becomes the next one to
//! fill, which also removes its entries from the disk.

use super::blocks::{Blocks, SEGMENT_BYTES};
use super::disk::{Disk, remove};
use super::sync::{Condvar, Mutex, MutexGuard, changed, forgets, lock, pause, seen, wait};
use super::{LogError, LogPaths};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The name of a segment until it has its header and its own name.
pub(super) const UNNAMED: &str = "unnamed";
/// Size of one write of zeros: less than 0.1 ms of a disk's time, the longest time that a call may have to wait for it.
const PIECE: usize = if cfg!(simulator) { 16 << 10 } else { 64 << 10 };
/// Pause between two pieces. A segment takes 2 to 3 s, and is ready in time up to about 40,000 entries a second;
/// beyond, segments are only reserved.
const PAUSE: Duration = Duration::from_millis(2);

/// State and owner of the preallocated file. Every change of owner is one of these transitions, under the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileState {
    /// There is no file, and none is wanted.
    Absent,
    /// The filling thread must create it, or fill the existing one.
    Wanted,
    /// The filling thread owns it.
    Filling,
    /// It is complete, and has no owner.
    Ready,
    /// A [`PreallocatedSegment`] owns it, until that is renamed or dropped.
    Taken,
}

/// Only these functions read and change it, so that the model of the hand-over knows what each thread has seen.
struct PreallocatorState {
    file: FileState,
    /// The log is closed.
    closed: bool,
}

impl PreallocatorState {
    fn file(&self) -> FileState {
        seen(self.file as u8);
        self.file
    }

    fn set(&mut self, file: FileState) {
        self.file = file;
        changed(self.packed());
    }

    fn is_closed(&self) -> bool {
        seen(u8::from(self.closed));
        self.closed
    }

    fn close(&mut self) {
        self.closed = true;
        changed(self.packed());
    }

    fn packed(&self) -> u8 {
        self.file as u8 | u8::from(self.closed) << 7
    }
}

/// The next segment of a journal.
pub(crate) struct Preallocator {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    state: Mutex<PreallocatorState>,
    wake: Condvar,
}

/// A preallocated segment; no other code touches it until it has its own name or is dropped.
pub(crate) struct PreallocatedSegment<'s> {
    preallocator: &'s Preallocator,
}

impl PreallocatedSegment<'_> {
    /// Its path until it is renamed.
    pub fn path(&self) -> &Path {
        &self.preallocator.path
    }

    /// Renames it to a segment's name. On an error it is dropped.
    ///
    /// # Errors
    /// The system cannot rename the file.
    pub fn rename(self, segment: &Path) -> std::io::Result<()> {
        self.preallocator.disk.rename(self.path(), segment)
    }
}

impl Drop for PreallocatedSegment<'_> {
    /// Only now may another file take the name: before, it would be renamed over this one, and filled with zeros while the
    /// journal writes to it.
    fn drop(&mut self) {
        let mut state = self.preallocator.state();
        // After a rename there is none.
        let _ = remove(&*self.preallocator.disk, &self.preallocator.path);
        state.set(FileState::Absent);
    }
}

impl Preallocator {
    /// Opens the preallocator of a journal, and removes the unfinished file of an earlier process.
    ///
    /// # Errors
    /// [`LogError::Io`] if a file of an earlier process cannot be removed.
    pub fn of(paths: &LogPaths) -> Result<Self, LogError> {
        let (disk, path) = (paths.disk.clone(), paths.journal.join("spare"));
        remove(&*disk, &path)?;
        remove(&*disk, &paths.journal.join(UNNAMED))?;
        let state = Mutex::new(PreallocatorState { file: FileState::Absent, closed: false });
        Ok(Preallocator { disk, path, state, wake: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, PreallocatorState> {
        lock(&self.state)
    }

    /// Requests a segment ahead of its use.
    pub fn want(&self) {
        let mut state = self.state();
        if state.file() == FileState::Absent {
            state.set(FileState::Wanted);
            self.wake.notify_all();
        }
    }

    /// Returns the preallocated segment, if one is ready; the caller owns it until it is renamed or dropped.
    pub fn take(&self) -> Option<PreallocatedSegment<'_>> {
        let mut state = self.state();
        if state.file() != FileState::Ready {
            return None;
        }
        state.set(FileState::Taken);
        Some(PreallocatedSegment { preallocator: self })
    }

    /// Returns whether one can be taken.
    #[cfg(test)]
    pub fn is_ready(&self) -> bool {
        self.state().file == FileState::Ready
    }

    /// Reuses a segment with only sealed entries: it becomes the next one to fill if there is none, and is removed
    /// otherwise.
    ///
    /// # Errors
    /// [`LogError::Io`] if the segment cannot be renamed or removed.
    pub fn retire(&self, segment: &Path) -> Result<(), LogError> {
        let mut state = self.state();
        if state.file() == FileState::Absent {
            self.disk.rename(segment, &self.path).map_err(|error| LogError::io(segment, &error))?;
            state.set(FileState::Wanted);
            self.wake.notify_all();
            return Ok(());
        }
        remove(&*self.disk, segment).map(drop)
    }

    /// Fills segments until the log is closed.
    pub fn fill_on_demand(&self) {
        let mut state = self.state();
        loop {
            forgets();
            if state.is_closed() {
                break;
            }
            if state.file() != FileState::Wanted {
                state = wait(&self.wake, state);
                continue;
            }
            state.set(FileState::Filling);
            drop(state);
            let filled = self.fill();
            state = self.state();
            let next = match filled {
                Ok(()) => FileState::Ready,
                Err(error) => {
                    // No harm: the journal reserves its next segment itself. Most likely the disk is full.
                    tracing::debug!(%error, "no journal segment can be made ready ahead");
                    let _ = remove(&*self.disk, &self.path);
                    FileState::Absent
                }
            };
            state.set(next);
        }
        if state.file() != FileState::Taken {
            let _ = remove(&*self.disk, &self.path);
            state.set(FileState::Absent);
        }
    }

    /// Fills the file with zeros; stops if the log is closed.
    fn fill(&self) -> std::io::Result<()> {
        // A crash must not restore the name of a segment that is filled with zeros by then.
        self.path.parent().map_or(Ok(()), |folder| self.disk.sync_folder(folder))?;
        let mut blocks = Blocks::open(&*self.disk, &self.path, 0)?;
        blocks.file().set_len(SEGMENT_BYTES)?;
        let zeros = vec![0; PIECE];
        for _ in 0..SEGMENT_BYTES / PIECE as u64 {
            blocks.append(&zeros)?;
            if pause(&self.wake, self.state(), PAUSE, |state| !state.is_closed()).is_closed() {
                return Ok(());
            }
        }
        blocks.file().sync()
    }

    /// Ends [`fill_on_demand`](Self::fill_on_demand), and leaves no preallocated file behind.
    pub fn close(&self) {
        self.state().close();
        self.wake.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::disk::LocalDisk;
    use std::time::Instant;

    fn paths(folder: &Path) -> LogPaths {
        LogPaths { journal: folder.to_owned(), ..LogPaths::new(folder) }
    }

    fn filled(preallocator: &Preallocator) -> PreallocatedSegment<'_> {
        let began = Instant::now();
        loop {
            if let Some(taken) = preallocator.take() {
                return taken;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "it is never ready");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a test beside the filling thread.
    fn beside_filling(folder: &Path, test: impl FnOnce(&Preallocator)) {
        let preallocator = Preallocator::of(&paths(folder)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| preallocator.fill_on_demand());
            test(&preallocator);
            preallocator.close();
        });
        assert!(preallocator.take().is_none() && !folder.join("spare").exists());
    }

    #[test]
    fn a_segment_that_is_done_with_comes_back_without_its_entries() {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("00000000000000000000.seg");
        std::fs::write(&old, vec![7; 100_000]).unwrap();
        std::fs::write(folder.path().join("spare"), b"left by an earlier process").unwrap();
        beside_filling(folder.path(), |preallocator| {
            assert!(preallocator.take().is_none());
            preallocator.retire(&old).unwrap();
            let prepared = filled(preallocator);
            let bytes = std::fs::read(prepared.path()).unwrap();
            assert!(!old.exists() && bytes.len() as u64 == SEGMENT_BYTES && bytes.iter().all(|byte| *byte == 0));
            prepared.rename(&old).unwrap();
            // A second one while one exists is only removed.
            preallocator.want();
            preallocator.retire(&old).unwrap();
            assert!(!old.exists());
        });
    }

    /// The sealer retires a segment between the journal's taking of the preallocated one and its rename: the journal
    /// keeps its file, and what is written to it stays there.
    #[test]
    fn l1_a_retired_segment_never_takes_the_place_of_one_that_the_journal_has_taken() {
        let folder = tempfile::tempdir().unwrap();
        let [sealed, next] =
            ["00000000000000000000.seg", "00000000000000000310.seg"].map(|name| folder.path().join(name));
        std::fs::write(&sealed, b"entries that are sealed").unwrap();
        beside_filling(folder.path(), |preallocator| {
            preallocator.want();
            let prepared = filled(preallocator);
            let mut journal = Blocks::open(&LocalDisk, prepared.path(), 0).unwrap();
            preallocator.retire(&sealed).unwrap();
            preallocator.want();
            journal.append(b"acknowledged").unwrap();
            prepared.rename(&next).unwrap();
            assert!(!sealed.exists(), "removed, since the place was taken");
            // The next one is filled, and does not touch it.
            preallocator.want();
            drop(filled(preallocator));
            let bytes = std::fs::read(&next).unwrap();
            assert_eq!((&bytes[..12], bytes.len() as u64), (&b"acknowledged"[..], SEGMENT_BYTES));
        });
    }

    #[test]
    fn l1_a_segment_that_could_not_be_renamed_is_given_up_and_the_next_one_is_made() {
        let folder = tempfile::tempdir().unwrap();
        beside_filling(folder.path(), |preallocator| {
            preallocator.want();
            assert!(filled(preallocator).rename(&folder.path().join("no such folder/1.seg")).is_err());
            assert!(!folder.path().join("spare").exists() && preallocator.take().is_none());
            preallocator.want();
            drop(filled(preallocator));
        });
    }

    #[test]
    fn l1_closing_leaves_a_taken_segment_to_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let preallocator = Preallocator::of(&paths(folder.path())).unwrap();
        std::thread::scope(|scope| {
            let filling = scope.spawn(|| preallocator.fill_on_demand());
            preallocator.want();
            let prepared = filled(&preallocator);
            preallocator.close();
            filling.join().unwrap();
            prepared.rename(&folder.path().join("00000000000000000310.seg")).unwrap();
        });
    }
}
