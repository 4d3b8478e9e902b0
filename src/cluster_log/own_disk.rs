//! The gateway's own disk for the log over etcd: `cluster/` below its data folder.

use super::own_batches::{OwnBatches, StoredMarks};
use crate::cluster::ClusterError;
use crate::cluster::batch::EncodedBatch;
use crate::cluster::highest::HighestSeen;
use crate::cluster::own_disk::OwnDisk;
use crate::cluster::state::SealedState;
use crate::exchange_log::disk::{self, Disk};
use crate::exchange_log::{LogError, clock};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The files of an [`OwnDisk`]. What they do runs on threads that may block.
pub struct FileDisk {
    batches: Arc<Mutex<OwnBatches>>,
    highest: Arc<Mutex<HighestFile>>,
}

/// The highest state that was seen, as the file `highest` has it.
struct HighestFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    stored: Option<HighestSeen>,
}

impl FileDisk {
    /// Opens the files below a folder, which is created; at most `max_bytes` of batches are kept there.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] for a file that is not what was written; [`LogError::Io`].
    pub fn open(disk: Arc<dyn Disk>, folder: &Path, max_bytes: u64) -> Result<Self, LogError> {
        let batches = OwnBatches::open(disk.clone(), &folder.join("batches"), max_bytes)?;
        let path = folder.join("highest");
        let stored = match disk::read(&*disk, &path) {
            Ok(bytes) => {
                Some(HighestSeen::decode(&bytes).map_err(|error| LogError::corrupt(&path, 0, error.to_string()))?)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(LogError::io(&path, &error)),
        };
        let highest = HighestFile { disk, path, stored };
        Ok(FileDisk { batches: Arc::new(Mutex::new(batches)), highest: Arc::new(Mutex::new(highest)) })
    }

    /// Says what a majority of the sites stores, and deletes batches that are not needed any more.
    ///
    /// # Errors
    /// [`ClusterError::OwnDisk`].
    pub async fn trim(&self, stored: StoredMarks) -> Result<(), ClusterError> {
        blocking(&self.batches, move |batches| batches.trim(stored, now())).await
    }
}

fn now() -> u64 {
    u64::try_from(clock::now_us() / 1_000_000).unwrap_or(0)
}

impl OwnDisk for FileDisk {
    async fn append(&self, batch: &EncodedBatch) -> Result<(), ClusterError> {
        let batch = batch.clone();
        blocking(&self.batches, move |batches| batches.append(&batch, now())).await
    }

    async fn unsealed(&self, state: &SealedState) -> Result<Vec<EncodedBatch>, ClusterError> {
        let state = state.clone();
        blocking(&self.batches, move |batches| batches.unsealed(&state)).await
    }

    async fn store_highest(&self, seen: &HighestSeen) -> Result<(), ClusterError> {
        if !locked(&self.highest).is_behind(seen) {
            return Ok(());
        }
        let seen = seen.clone();
        blocking(&self.highest, move |highest| highest.store(seen)).await
    }

    async fn highest(&self) -> Result<Option<HighestSeen>, ClusterError> {
        blocking(&self.highest, |highest| Ok(highest.stored.clone())).await
    }
}

impl HighestFile {
    fn is_behind(&self, seen: &HighestSeen) -> bool {
        self.stored.as_ref().is_none_or(|stored| seen.is_newer(stored))
    }

    fn store(&mut self, seen: HighestSeen) -> Result<(), LogError> {
        if self.is_behind(&seen) {
            disk::write_atomically(&*self.disk, &self.path, &seen.encode())?;
            self.stored = Some(seen);
        }
        Ok(())
    }
}

/// A panic in one thread does not make these plain data wrong: every change to them is one statement.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs file operations where they may block.
pub(super) async fn blocking<F: Send + 'static, T: Send + 'static>(
    files: &Arc<Mutex<F>>,
    work: impl FnOnce(&mut F) -> Result<T, LogError> + Send + 'static,
) -> Result<T, ClusterError> {
    let files = files.clone();
    let done = tokio::task::spawn_blocking(move || work(&mut locked(&files))).await;
    done.map_err(|error| ClusterError::OwnDisk(error.to_string()))?.map_err(of_files)
}

/// What an error of the log's files means for the log over etcd: two different trees stop it, all else may pass.
fn of_files(error: LogError) -> ClusterError {
    match error {
        LogError::Forked { .. } => ClusterError::Diverged(error.to_string()),
        LogError::RolledBack { .. } => ClusterError::RolledBack(error.to_string()),
        _ => ClusterError::OwnDisk(error.to_string()),
    }
}
