//! The file operations that the log uses, and no others: on the local file system, or on the simulated one that crashes
//! (`simulator/`).

use super::LogError;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// For reading; it must exist.
    Read,
    /// For reading and writing by whole blocks past the page cache, if the file system can; created if it is missing.
    Direct,
    /// For writing from the beginning: truncated, or created.
    Empty,
}

/// What exists at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A link, a socket …
    Other,
}

/// The disk of a log's files.
///
/// Written data is durable after the file's next successful `sync`; a name that was created, changed or removed is
/// durable after the next successful [`sync_folder`](Disk::sync_folder) of its folder. Until then a crash may keep or
/// lose each sector and each name, in any order.
pub trait Disk: Send + Sync + std::fmt::Debug {
    /// Opens a file.
    ///
    /// # Errors
    /// [`io::Error`] of the file system, `NotFound` if there is no file and none is created.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>>;
    /// Returns the paths of everything in a folder, in no order.
    ///
    /// # Errors
    /// [`io::Error`] of the file system, `NotFound` if there is no folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// Returns what exists at a path; links are not followed.
    ///
    /// # Errors
    /// [`io::Error`] of the file system, `NotFound` if nothing exists there.
    fn kind(&self, path: &Path) -> io::Result<PathKind>;
    /// Creates a folder and those above it.
    ///
    /// # Errors
    /// [`io::Error`] of the file system; an existing folder is no error.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Renames a file, and replaces the file that has the name.
    ///
    /// # Errors
    /// [`io::Error`] of the file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Exchanges the names of two files; not every file system can.
    ///
    /// # Errors
    /// [`io::Error`] of the file system, `Unsupported` if it has no such call.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// [`io::Error`] of the file system, `NotFound` if there is no file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    ///
    /// # Errors
    /// [`io::Error`] of the file system, also if it is not empty.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// [`io::Error`] of the file system: the state of the names is then unknown.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send {
    /// Returns the block size: offsets and lengths of writes must be multiples of it.
    fn block(&self) -> usize;
    /// Returns its length in bytes.
    ///
    /// # Errors
    /// [`io::Error`] of the file system.
    fn size(&self) -> io::Result<u64>;
    /// Reads into a buffer, and returns the number of bytes: fewer than requested only at the end.
    ///
    /// # Errors
    /// [`io::Error`] of the file system.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Returns the first position at or after `offset` where bytes may not be zeros; the file's length, or more, if
    /// there are none.
    ///
    /// # Errors
    /// [`io::Error`] of the file system.
    fn data_from(&self, offset: u64) -> io::Result<u64> {
        Ok(offset)
    }
    /// Writes all bytes.
    ///
    /// # Errors
    /// [`io::Error`] of the file system: the state of this write's bytes is then unknown.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Truncates it, or extends it with zeros.
    ///
    /// # Errors
    /// [`io::Error`] of the file system.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Extends it with zeros if it is shorter, and reserves their space if the file system can.
    ///
    /// # Errors
    /// [`io::Error`] of the file system, `StorageFull` if there is no space.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Makes its bytes durable (`fdatasync`).
    ///
    /// # Errors
    /// [`io::Error`] of the file system: the state of everything written since the last success is then unknown.
    fn sync(&self) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Debug, Clone, Copy)]
pub struct LocalDisk;

struct LocalFile {
    file: File,
    direct: bool,
}

/// The block size of every device and file system in use.
const BLOCK: usize = 4_096;

impl Disk for LocalDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let open = |direct: bool| -> io::Result<Box<dyn DiskFile>> {
            let flags = if direct { rustix::fs::OFlags::DIRECT.bits().cast_signed() } else { 0 };
            let mut options = OpenOptions::new();
            match how {
                Open::Read => options.read(true),
                Open::Direct => options.read(true).write(true).create(true).truncate(false).custom_flags(flags),
                Open::Empty => options.write(true).create(true).truncate(true),
            };
            Ok(Box::new(LocalFile { file: options.open(path)?, direct }))
        };
        match open(how == Open::Direct) {
            Err(error) if how == Open::Direct && error.kind() == ErrorKind::InvalidInput => open(false),
            opened => opened,
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn kind(&self, path: &Path) -> io::Result<PathKind> {
        let kind = std::fs::symlink_metadata(path)?.file_type();
        Ok(if kind.is_file() {
            PathKind::File
        } else if kind.is_dir() {
            PathKind::Folder
        } else {
            PathKind::Other
        })
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

impl DiskFile for LocalFile {
    fn block(&self) -> usize {
        if self.direct { BLOCK } else { 1 }
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match self.file.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn data_from(&self, offset: u64) -> io::Result<u64> {
        // Space that was reserved and never written holds no data.
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(data) => Ok(data),
            Err(rustix::io::Errno::NXIO) => self.size(),
            Err(_) => Ok(offset),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, len) {
            Err(rustix::io::Errno::OPNOTSUPP) if self.size()? < len => self.set_len(len),
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            other => Ok(other?),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Returns the local file system, to share.
pub fn local() -> Arc<dyn Disk> {
    Arc::new(LocalDisk)
}

/// Reads a complete file.
///
/// # Errors
/// The file cannot be opened or read.
pub fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Read)?;
    let mut bytes = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Reads a small text that may be missing.
pub(crate) fn read_text(disk: &dyn Disk, path: &Path) -> Result<Option<String>, LogError> {
    match read(disk, path) {
        Ok(bytes) => {
            let at = |error: std::string::FromUtf8Error| error.utf8_error().valid_up_to() as u64;
            String::from_utf8(bytes).map(Some).map_err(|error| LogError::corrupt(path, at(error), "is no text"))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LogError::io(path, &error)),
    }
}

/// Removes a file; returns false if there was none.
pub(crate) fn remove(disk: &dyn Disk, path: &Path) -> Result<bool, LogError> {
    match disk.remove(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(LogError::io(path, &error)),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(disk: &dyn Disk, path: &Path) -> Result<(), LogError> {
    disk.sync_folder(path).map_err(|error| LogError::io(path, &error))
}

/// Writes a file atomically: a new file, synced, renamed over the old one, the folder synced.
pub(crate) fn write_atomically(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), LogError> {
    put_in_place(disk, path, bytes, |fresh| disk.rename(fresh, path))
}

/// A file that is replaced repeatedly: two files, the second named `.new`, alternate, so that none is deleted each
/// time.
///
/// The second file holds the previous content. It may be overwritten only after a sync of the folder has made the
/// removal of its name durable: until then a crash may restore the name, with whatever the file then holds.
pub(super) struct ReplacedFile {
    path: PathBuf,
    /// The second file has no name on the disk; unknown at the start, since an earlier process may have stopped before
    /// its sync.
    is_other_free: bool,
}

impl ReplacedFile {
    /// Makes it for a path, whether the file exists or not.
    pub fn new(path: PathBuf) -> Self {
        ReplacedFile { path, is_other_free: false }
    }

    /// Replaces the content atomically; it is durable on return.
    ///
    /// # Errors
    /// [`LogError::Io`] where the file cannot be written, synced or renamed; the old content then stays.
    pub fn replace(&mut self, disk: &dyn Disk, bytes: &[u8]) -> Result<(), LogError> {
        let path = &self.path;
        if !self.is_other_free {
            // The name goes, the file stays for as long as a crash may need it.
            remove(disk, &path.with_extension("new"))?;
        }
        self.is_other_free = false;
        put_in_place(disk, path, bytes, |fresh| match disk.exchange(fresh, path) {
            // The first time, and on file systems that cannot exchange names.
            Err(error) if cannot_exchange(&error) => disk.rename(fresh, path),
            exchanged => exchanged,
        })?;
        self.is_other_free = true;
        Ok(())
    }
}

fn cannot_exchange(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput | ErrorKind::Unsupported)
}

fn put_in_place(
    disk: &dyn Disk,
    path: &Path,
    bytes: &[u8],
    put: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), LogError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    disk.create_folder(folder).map_err(|error| LogError::io(folder, &error))?;
    let fresh = path.with_extension("new");
    let write = || {
        let file = disk.open(&fresh, Open::Empty)?;
        file.write_at(bytes, 0)?;
        file.sync()?;
        put(&fresh)
    };
    write().map_err(|error| LogError::io(path, &error))?;
    sync_folder(disk, folder)
}

/// Copies a folder, for tests. Not by a child process: until it executes, a child has the locks of other tests' logs.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// The local disk, on which syncs of folders or of files can be made to fail.
    #[derive(Debug, Default)]
    pub struct RefusedSyncs {
        folders: AtomicBool,
        files: Arc<AtomicBool>,
    }

    impl RefusedSyncs {
        /// Makes those of folders fail, or succeed again.
        pub fn refuse_folders(&self, refused: bool) {
            self.folders.store(refused, Ordering::Relaxed);
        }

        /// The same of files.
        pub fn refuse_files(&self, refused: bool) {
            self.files.store(refused, Ordering::Relaxed);
        }
    }

    struct RefusedFile(Box<dyn DiskFile>, Arc<AtomicBool>);

    impl DiskFile for RefusedFile {
        fn block(&self) -> usize {
            self.0.block()
        }
        fn size(&self) -> io::Result<u64> {
            self.0.size()
        }
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            self.0.read_at(buffer, offset)
        }
        fn data_from(&self, offset: u64) -> io::Result<u64> {
            self.0.data_from(offset)
        }
        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.0.write_at(bytes, offset)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }
        fn allocate(&self, len: u64) -> io::Result<()> {
            self.0.allocate(len)
        }
        fn sync(&self) -> io::Result<()> {
            if self.1.load(Ordering::Relaxed) { Err(io::Error::from_raw_os_error(5)) } else { self.0.sync() }
        }
    }

    impl Disk for RefusedSyncs {
        fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
            Ok(Box::new(RefusedFile(LocalDisk.open(path, how)?, self.files.clone())))
        }
        fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
            LocalDisk.list(folder)
        }
        fn kind(&self, path: &Path) -> io::Result<PathKind> {
            LocalDisk.kind(path)
        }
        fn create_folder(&self, path: &Path) -> io::Result<()> {
            LocalDisk.create_folder(path)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            LocalDisk.rename(from, to)
        }
        fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
            LocalDisk.exchange(one, other)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            LocalDisk.remove(path)
        }
        fn remove_folder(&self, path: &Path) -> io::Result<()> {
            LocalDisk.remove_folder(path)
        }
        fn sync_folder(&self, path: &Path) -> io::Result<()> {
            if self.folders.load(Ordering::Relaxed) {
                Err(io::ErrorKind::Other.into())
            } else {
                LocalDisk.sync_folder(path)
            }
        }
    }

    #[test]
    fn a_file_that_a_crash_may_bring_back_is_never_written_to() {
        let (folder, disk) = (tempfile::tempdir().unwrap(), RefusedSyncs::default());
        let [path, before] = ["state", "before"].map(|name| folder.path().join(name));
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        std::fs::write(&path, "one").unwrap();
        // Keeps the content that the name refers to until the folder is synced.
        std::fs::hard_link(&path, &before).unwrap();
        disk.refuse_folders(true);
        // Twice, with a restart of the process in between.
        let mut file = ReplacedFile::new(path.clone());
        assert!(file.replace(&disk, b"two").is_err() && file.replace(&disk, b"three").is_err());
        assert!(ReplacedFile::new(path.clone()).replace(&disk, b"four").is_err());
        assert_eq!((read(&before), read(&path)), ("one".into(), "four".into()));
        disk.refuse_folders(false);
        file.replace(&disk, b"five").unwrap();
        assert_eq!((read(&before), read(&path)), ("one".into(), "five".into()));
        // Once a sync has made the removal of the second file's name durable, the two alternate.
        file.replace(&disk, b"six").unwrap();
        std::fs::remove_file(&before).unwrap();
        std::fs::hard_link(&path, &before).unwrap();
        file.replace(&disk, b"seven").unwrap();
        file.replace(&disk, b"eight").unwrap();
        assert_eq!((read(&before), read(&path)), ("eight".into(), "eight".into()));
    }
}
