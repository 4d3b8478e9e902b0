//! The files of a data folder on their way: which form it has, and what is put away.

use super::MigrationError;
use crate::cluster::ClusterError;
use crate::cluster::peaks::Peaks;
use crate::cluster_log::{BEGINNING, LEAVING};
use crate::exchange_log::checkpoint::LogSigner;
use crate::exchange_log::disk;
use crate::exchange_log::journal::segments;
use crate::exchange_log::tiles::{checkpoint_path, complete_subtree, read_tile};
use crate::exchange_log::tree::{Hash, empty_root};
use crate::exchange_log::{LogError, LogLock, LogPaths, proof, seal};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The folder of the plan, before the log comes to etcd.
const PLANNED: &str = "cluster-begin";

/// The files of a data folder whose gateway does not run, and does not start while this exists.
pub(super) struct MigratingFiles {
    pub(super) paths: LogPaths,
    data: PathBuf,
    _lock: LogLock,
}

impl MigratingFiles {
    /// Locks them.
    pub(super) fn lock(data: &Path) -> Result<Self, MigrationError> {
        let paths = LogPaths::new(data);
        let lock = LogLock::take(&paths)?;
        Ok(MigratingFiles { paths, data: data.to_owned(), _lock: lock })
    }

    /// Whether the folder may not write alone any more.
    pub(super) fn is_site(&self) -> Result<bool, MigrationError> {
        Ok(self.paths.is_replicated()?)
    }

    /// The file of the plan, which moves with its folder.
    pub(super) fn plan(&self) -> Result<PathBuf, MigrationError> {
        let folder = if self.is_site()? { self.paths.replicated.clone() } else { self.data.join(PLANNED) };
        Ok(folder.join(BEGINNING))
    }

    /// The file that says that the log has left etcd.
    pub(super) fn left(&self) -> PathBuf {
        self.paths.replicated.join(LEAVING)
    }

    /// Reads a file that may be missing.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, MigrationError> {
        match disk::read(&*self.paths.disk, path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::io(path, &error).into()),
        }
    }

    /// Writes a file durably, and its folder.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), MigrationError> {
        if let Some(folder) = path.parent() {
            self.paths.disk.create_folder(folder).map_err(|error| LogError::io(folder, &error))?;
            disk::sync_folder(&*self.paths.disk, &self.data)?;
        }
        Ok(disk::write_atomically(&*self.paths.disk, path, bytes)?)
    }

    /// From here on the folder does not write alone.
    pub(super) fn become_site(&self, stored: &[u8]) -> Result<(), MigrationError> {
        let planned = self.data.join(PLANNED);
        self.write(&planned.join("stored"), stored)?;
        self.rename(&planned, &self.paths.replicated)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), MigrationError> {
        self.paths.disk.rename(from, to).map_err(|error| LogError::io(from, &error))?;
        Ok(disk::sync_folder(&*self.paths.disk, &self.data)?)
    }

    /// Moves the segments of the journal away: everything in them is sealed. Returns the folder that they are in.
    pub(super) fn put_journal_away(&self, size: u64) -> Result<PathBuf, MigrationError> {
        let (disk, away) = (&*self.paths.disk, self.data.join(format!("journal-until-{size}")));
        disk.create_folder(&away).map_err(|error| LogError::io(&away, &error))?;
        disk::sync_folder(disk, &self.data)?;
        for (_, segment) in segments(disk, &self.paths.journal)? {
            let to = away.join(segment.file_name().unwrap_or_default());
            disk.rename(&segment, &to).map_err(|error| LogError::io(&segment, &error))?;
        }
        for folder in [&away, &self.paths.journal] {
            disk::sync_folder(disk, folder)?;
        }
        Ok(away)
    }

    /// The plan was carried out.
    pub(super) fn remove_plan(&self) -> Result<(), MigrationError> {
        disk::remove(&*self.paths.disk, &self.plan()?)?;
        Ok(disk::sync_folder(&*self.paths.disk, &self.paths.replicated)?)
    }

    /// Moves the folder of the site away: the folder writes alone from here on.
    pub(super) fn put_site_away(&self, size: u64) -> Result<PathBuf, MigrationError> {
        let names = (1..).map(|turn| match turn {
            1 => format!("cluster-until-{size}"),
            turn => format!("cluster-until-{size}-{turn}"),
        });
        // A log that comes and goes without an entry in between has several of them.
        let mut free = names.map(|name| self.data.join(name)).filter(|path| self.paths.disk.kind(path).is_err());
        let away = free.next().unwrap_or_default();
        self.rename(&self.paths.replicated, &away)?;
        Ok(away)
    }

    /// Reads the peaks of the published tree, some tiles of its right edge, and its signed note.
    pub(super) fn published(&self, signer: &LogSigner) -> Result<(Peaks, String), MigrationError> {
        let path = checkpoint_path(&self.paths.tiles);
        let Some(checkpoint) = seal::published(&self.paths, signer)? else { return Ok(Default::default()) };
        let (disk, size) = (&*self.paths.disk, checkpoint.size);
        let note = disk::read(disk, &path).map_err(|error| LogError::io(&path, &error))?;
        let peaks = Peaks::of(size, |level, index| self.node(size, level, index))?;
        if peaks.root() != checkpoint.root {
            return Err(LogError::corrupt(&path, 0, "the tiles do not lead to the checkpoint's root").into());
        }
        Ok((peaks, String::from_utf8_lossy(&note).into_owned()))
    }

    /// Whether the published tree of a size continues another one.
    pub(super) fn continues(&self, size: u64, earlier: &Peaks) -> Result<bool, MigrationError> {
        if earlier.size() == 0 || earlier.size() > size {
            return Ok(earlier.size() == 0 && earlier.root() == empty_root());
        }
        let node = |level, index| self.node(size, level, index);
        Ok(proof::root(&node, earlier.size())? == earlier.root())
    }

    fn node(&self, size: u64, level: u32, index: u64) -> Result<Hash, LogError> {
        let read = |level, index, width| read_tile(&*self.paths.disk, &self.paths.tiles, level, index, width);
        complete_subtree(&read, &self.paths.tiles, size, (level, index))
    }
}

/// What a plan or a state in a file is not.
pub(super) fn malformed(path: &Path) -> MigrationError {
    ClusterError::Malformed { key: path.display().to_string(), reason: "not what was written here".into() }.into()
}
