//! The file operations that the log makes, and no others: on the local file system, or on the simulated one that crashes
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
    /// To read; it must be there.
    Read,
    /// To read and write by whole blocks past the page cache, where the file system can; made where it is missing.
    Direct,
    /// To write from the beginning: emptied, or made.
    Empty,
}

/// Where a log's files are.
///
/// What is written is durable after the file's next successful `sync`; a name that was made, changed or removed after the
/// next successful [`sync_folder`](Disk::sync_folder) of its folder. Until then a crash may keep or lose each sector and each
/// name, in any order.
pub trait Disk: Send + Sync + std::fmt::Debug {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>>;
    /// The paths of what is in a folder, in no order.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes a folder and those above it.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, in place of the file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Lets two files change names; not every file system can.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send {
    /// What offsets and lengths of writes must be multiples of.
    fn block(&self) -> usize;
    /// Bytes in it.
    fn size(&self) -> io::Result<u64>;
    /// Reads into a buffer; gives how many bytes, fewer than wanted only at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts it, or lengthens it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Lengthens it with zeros where it is shorter, and reserves their space where the file system can.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Makes its bytes durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Debug, Clone, Copy)]
pub struct LocalDisk;

struct LocalFile {
    file: File,
    direct: bool,
}

/// What every device and file system in use takes as a block.
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

/// The local file system, to share.
pub fn local() -> Arc<dyn Disk> {
    Arc::new(LocalDisk)
}

/// Reads a whole file.
pub fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Read)?;
    let mut bytes = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Reads a small text that may be missing.
pub(super) fn read_text(disk: &dyn Disk, path: &Path) -> Result<Option<String>, LogError> {
    match read(disk, path) {
        Ok(bytes) => {
            let at = |error: std::string::FromUtf8Error| error.utf8_error().valid_up_to() as u64;
            String::from_utf8(bytes).map(Some).map_err(|error| LogError::corrupt(path, at(error), "is no text"))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LogError::io(path, &error)),
    }
}

/// Removes a file; false where there was none.
pub(super) fn remove(disk: &dyn Disk, path: &Path) -> Result<bool, LogError> {
    match disk.remove(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(LogError::io(path, &error)),
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(disk: &dyn Disk, path: &Path) -> Result<(), LogError> {
    disk.sync_folder(path).map_err(|error| LogError::io(path, &error))
}

/// Writes a file whole or not at all: a new file, synced, renamed over the old one, the folder synced.
pub(super) fn write_atomically(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), LogError> {
    put_in_place(disk, path, bytes, |fresh| disk.rename(fresh, path))
}

/// The same for a file that is replaced again and again: it and another one (`.new`) take turns, so that none is thrown away
/// each time.
pub(super) fn replace_atomically(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), LogError> {
    // Not on every file system, nor the first time.
    put_in_place(disk, path, bytes, |fresh| disk.exchange(fresh, path).or_else(|_| disk.rename(fresh, path)))
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
