//! A file that grows by whole blocks, past the page cache (`O_DIRECT`).
//!
//! Data that is written once, synced at once and not read again gains nothing from the page cache: the cache costs a
//! copy, and each `fdatasync` searches its pages, marks them and waits for them. Direct writes are of whole blocks. So
//! the last block, padded with zeros, is written again with the following data; its first part stays the same, byte for
//! byte. File systems without direct writes get plain ones.

use super::disk::{Disk, DiskFile, Open};
use std::io;
use std::path::Path;

/// Size of a segment of the journal: some 100,000 entries. The simulator's segments are smaller, so that a run has
/// many.
pub const SEGMENT_BYTES: u64 = if cfg!(simulator) { 16 << 10 } else { 64 << 20 };

/// A file written block by block.
pub(super) struct Blocks {
    file: Box<dyn DiskFile>,
    /// Bytes written.
    end: u64,
    /// The bytes in the last, unfilled block.
    tail: Vec<u8>,
    /// Holds what is being written, aligned to a block.
    scratch: Vec<u8>,
}

impl Blocks {
    /// Opens a file, or creates it, for writing from byte `end` on.
    ///
    /// # Errors
    /// The file cannot be opened or created, or its last block cannot be read.
    pub fn open(disk: &dyn Disk, path: &Path, end: u64) -> io::Result<Self> {
        let file = disk.open(path, Open::Direct)?;
        let unfilled = end % file.block() as u64;
        let mut tail = vec![0; unfilled as usize];
        if unfilled > 0 && disk.open(path, Open::Read)?.read_at(&mut tail, end - unfilled)? < tail.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Blocks { file, end, tail, scratch: Vec::new() })
    }

    /// Returns the file, for operations on it as a whole.
    pub fn file(&self) -> &dyn DiskFile {
        &*self.file
    }

    /// Bytes written.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Appends bytes; they are durable after the next `fdatasync`. After an error, the file must not be written again.
    ///
    /// # Errors
    /// The system cannot write the blocks.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let block = self.file.block();
        if block == 1 {
            self.file.write_at(bytes, self.end)?;
            self.end += bytes.len() as u64;
            return Ok(());
        }
        let from = self.end - self.tail.len() as u64;
        let length = self.tail.len() + bytes.len();
        self.scratch.clear();
        self.scratch.resize(length.next_multiple_of(block) + block, 0);
        let place = self.scratch.as_ptr().align_offset(block);
        let whole = &mut self.scratch[place..place + length.next_multiple_of(block)];
        whole[..self.tail.len()].copy_from_slice(&self.tail);
        whole[self.tail.len()..length].copy_from_slice(bytes);
        self.file.write_at(whole, from)?;
        self.end += bytes.len() as u64;
        self.tail.clear();
        self.tail.extend_from_slice(&whole[length - length % block..length]);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::disk::LocalDisk;

    #[test]
    fn what_is_written_is_there_with_zeros_behind_it_and_goes_on_after_opening_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blocks");
        let mut written = Vec::new();
        let mut blocks = Blocks::open(&LocalDisk, &path, 0).unwrap();
        for (number, size) in [1, 4_095, 4_096, 10, 8_192, 5_000, 3_000, 0, 1].into_iter().enumerate() {
            let part = vec![number as u8 + 1; size];
            blocks.append(&part).unwrap();
            written.extend(part);
            assert_eq!(blocks.end(), written.len() as u64);
            let there = std::fs::read(&path).unwrap();
            assert_eq!(there[..written.len()], written);
            assert!(there[written.len()..].iter().all(|byte| *byte == 0));
            if number % 2 == 1 {
                blocks = Blocks::open(&LocalDisk, &path, written.len() as u64).unwrap();
            }
        }
        assert!(blocks.file.block() > 1, "this file system knows direct writes");
    }
}
