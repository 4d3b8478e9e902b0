//! The journal: where entries become durable, in the order of their indexes.
//!
//! A segment `journal/<first index>.seg` is a head of 16 bytes (magic, first index) and records: length (u32), CRC-32C
//! (u32), index (u64), first index of its batch (u64), the entry; integers big-endian. It is allocated ahead and filled
//! with zeros (by a [`Spare`] where many entries come), so `fdatasync` has only the entries to write. A batch is one
//! `write`, then one `fdatasync`; the next batch starts only after that. So behind the first broken record there can be records of the same batch (torn, never
//! acknowledged) but none of a later one; if there are, acknowledged entries were damaged, and that is never cut off.

use super::LogError;
use super::blocks::Blocks;
use super::spare::{Prepared, Spare};
use super::storage::Storage;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Size of a segment: some 100,000 entries.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// What a segment holds when the next one is made ready.
const WANT_NEXT: u64 = SEGMENT_BYTES / 8;
const MAGIC: &[u8; 8] = b"NDXPJNL1";
const HEAD: usize = 16;
const RECORD_HEAD: usize = 24;

/// An entry with its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Place in the log, from 0.
    pub index: u64,
    /// The entry's bytes.
    pub bytes: Vec<u8>,
}

/// A segment open for writing.
pub struct Journal {
    folder: PathBuf,
    segment: Option<Segment>,
    next_index: u64,
    spare: Arc<Spare>,
}

struct Segment {
    path: PathBuf,
    blocks: Blocks,
}

/// What was found at start.
pub struct Recovered {
    /// The journal, ready to go on.
    pub journal: Journal,
    /// Entries from `from` on.
    pub records: Vec<Record>,
}

fn segment_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.seg"))
}

/// The segments of a folder: first index and path, in order.
pub fn segments(folder: &Path) -> Result<Vec<(u64, PathBuf)>, LogError> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(LogError::io(folder, &error)),
    };
    for entry in entries {
        let path = entry.map_err(|error| LogError::io(folder, &error))?.path();
        let first = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".seg")?.parse().ok());
        found.extend(first.map(|first| (first, path)));
    }
    found.sort();
    Ok(found)
}

/// What was read of a segment.
pub struct Segmented {
    /// Its entries from the wanted one on.
    pub records: Vec<Record>,
    /// The index behind its last entry.
    pub next: u64,
    /// Where its whole records end.
    pub end: u64,
}

/// Reads a segment up to the entry `before`, and keeps its entries from `from` on.
pub fn read_segment(path: &Path, first: u64, before: Option<u64>, from: u64) -> Result<Segmented, LogError> {
    let bytes = read_written(path).map_err(|error| LogError::io(path, &error))?;
    if bytes.len() < HEAD || bytes[..HEAD].iter().all(|byte| *byte == 0) {
        // Made, but nothing was written yet.
        return Ok(Segmented { records: Vec::new(), next: first, end: HEAD as u64 });
    }
    if &bytes[..8] != MAGIC || bytes[8..16] != first.to_be_bytes() {
        return Err(LogError::corrupt(path, 0, "not a journal segment of this index"));
    }
    let mut records = Vec::new();
    let mut at = HEAD;
    let mut next = first;
    while before.is_none_or(|before| next < before) {
        match read_record(&bytes, at) {
            Some((index, _, body, end)) if index == next => {
                if index >= from {
                    records.push(Record { index, bytes: body.to_vec() });
                }
                next += 1;
                at = end;
            }
            _ => break,
        }
    }
    if before.is_none() && later_batch(&bytes, at, next) {
        return Err(LogError::corrupt(path, at as u64, format!("the record of entry {next} is damaged")));
    }
    if before.is_some_and(|before| next < before) {
        return Err(LogError::corrupt(path, at as u64, format!("entry {next} is missing")));
    }
    Ok(Segmented { records, next, end: at as u64 })
}

/// A file without the zeros at its end: most of a segment is what it was filled with, and 64 MB that are read once stay with
/// the process for long.
fn read_written(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let (mut written, mut zeros, mut piece) = (Vec::new(), 0, vec![0; 64 << 10]);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok(written);
        }
        if next_byte(&piece[..read], 0).is_none() {
            zeros += read;
        } else {
            written.resize(written.len() + std::mem::take(&mut zeros), 0);
            written.extend_from_slice(&piece[..read]);
        }
    }
}

/// A whole record at an offset: index, first index of its batch, the entry, end.
fn read_record(bytes: &[u8], at: usize) -> Option<(u64, u64, &[u8], usize)> {
    let head = bytes.get(at..at + RECORD_HEAD)?;
    let number = |range: std::ops::Range<usize>| -> Option<u64> {
        Some(head[range].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let length = usize::try_from(number(0..4)?).ok().filter(|length| (1..=super::entry::MAX_BYTES).contains(length))?;
    let end = at + RECORD_HEAD + length;
    let body = bytes.get(at + 8..end)?;
    if u64::from(crc32c::crc32c(body)) != number(4..8)? {
        return None;
    }
    Some((number(8..16)?, number(16..24)?, &body[16..], end))
}

/// Whether a record of a later batch than the one at `next` stands behind `at`.
fn later_batch(bytes: &[u8], at: usize, next: u64) -> bool {
    let mut from = at;
    while let Some(here) = next_byte(bytes, from) {
        // A length's first two bytes are zero for any entry, so a record can begin up to three bytes earlier.
        for start in here.saturating_sub(3).max(at)..=here {
            if let Some((index, batch, ..)) = read_record(bytes, start)
                && index > next
                && batch > next
            {
                return true;
            }
        }
        from = here + 1;
    }
    false
}

/// The next byte that is not zero. Most of a segment is the zeros that it was filled with: they are passed by blocks.
fn next_byte(bytes: &[u8], mut from: usize) -> Option<usize> {
    const ZEROS: [u8; 4_096] = [0; 4_096];
    while bytes.get(from..from + ZEROS.len()) == Some(&ZEROS) {
        from += ZEROS.len();
    }
    Some(from + bytes.get(from..)?.iter().position(|byte| *byte != 0)?)
}

impl Journal {
    /// Opens the journal and reads the entries from index `from` (the sealed size) on.
    pub fn recover(folder: &Path, from: u64) -> Result<Recovered, LogError> {
        super::make_folder(folder)?;
        let found = segments(folder)?;
        let mut records: Vec<Record> = Vec::new();
        let mut next = from;
        let mut last = None;
        for (position, (first, path)) in found.iter().enumerate() {
            let before = found.get(position + 1).map(|(next, _)| *next);
            if before.is_some_and(|before| before <= from) {
                continue;
            }
            if *first > next {
                return Err(LogError::corrupt(path, 0, format!("entries {next} to {} are missing", first - 1)));
            }
            let read = read_segment(path, *first, before, next)?;
            records.extend(read.records);
            next = next.max(read.next);
            last = Some((path.clone(), read.end, read.next));
        }
        let mut journal =
            Journal { folder: folder.to_owned(), segment: None, next_index: next, spare: Arc::new(Spare::of(folder)?) };
        if let Some((path, end, reached)) = last
            && reached == next
        {
            journal.segment = Some(Segment::reopen(path, end)?);
        }
        Ok(Recovered { journal, records })
    }

    /// The index that the next entry gets.
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// Its next segment.
    pub(super) fn spare(&self) -> Arc<Spare> {
        self.spare.clone()
    }

    /// Gives up segments of which every entry is below `sealed`.
    pub(super) fn forget(folder: &Path, sealed: u64, spare: &Spare) -> Result<(), LogError> {
        let found = segments(folder)?;
        for pair in found.windows(2) {
            if pair[1].0 <= sealed {
                spare.retire(&pair[0].1)?;
            }
        }
        Ok(())
    }

    fn next_segment(&self) -> Result<Segment, LogError> {
        match self.spare.take() {
            Some(prepared) => Segment::from_prepared(&self.folder, self.next_index, prepared),
            None => Segment::create(&self.folder, self.next_index),
        }
    }
}

impl Storage for Journal {
    /// One `write` and one `fdatasync`. After a failure the indexes are given again in a new segment, since after a failed
    /// sync the old file's pages can no longer be trusted.
    fn append(&mut self, batch: &[Vec<u8>]) -> Result<u64, LogError> {
        let first = self.next_index;
        let mut out = Vec::with_capacity(batch.iter().map(|bytes| bytes.len() + RECORD_HEAD).sum());
        for (index, bytes) in (first..).zip(batch) {
            let start = out.len();
            out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
            // Filled in when what it covers stands behind it.
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&index.to_be_bytes());
            out.extend_from_slice(&first.to_be_bytes());
            out.extend_from_slice(bytes);
            let sum = crc32c::crc32c(&out[start + 8..]);
            out[start + 4..start + 8].copy_from_slice(&sum.to_be_bytes());
        }
        if self.segment.as_ref().is_none_or(|segment| segment.blocks.end() + out.len() as u64 > SEGMENT_BYTES) {
            self.segment = None;
            self.segment = Some(self.next_segment()?);
        }
        let Some(segment) = &mut self.segment else { return Err(LogError::Closed) };
        let end = segment.blocks.end();
        if let Err(error) = segment.write(&out) {
            let path = segment.path.clone();
            if let Some(failed) = self.segment.take() {
                // Best effort: recovery copes with what stays, since the next segment begins at this index.
                let _ = failed.blocks.file().set_len(end);
            }
            return Err(LogError::io(&path, &error));
        }
        if segment.blocks.end() >= WANT_NEXT {
            self.spare.want();
        }
        self.next_index = first + batch.len() as u64;
        Ok(first)
    }
}

fn head(first: u64) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&first.to_be_bytes());
    head
}

impl Segment {
    fn create(folder: &Path, first: u64) -> Result<Self, LogError> {
        let path = segment_path(folder, first);
        let make = || {
            let mut blocks = Blocks::open(&path, 0)?;
            blocks.file().set_len(0)?;
            // Reserving the space now means that a full disk is noticed here, before anything is promised.
            match rustix::fs::fallocate(blocks.file(), rustix::fs::FallocateFlags::empty(), 0, SEGMENT_BYTES) {
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(error) => {
                    drop(std::fs::remove_file(&path));
                    return Err(error.into());
                }
            }
            super::crash_point("journal.made");
            blocks.append(&head(first))?;
            blocks.file().sync_all()?;
            Ok(blocks)
        };
        let blocks = make().map_err(|error: std::io::Error| LogError::io(&path, &error))?;
        super::sync_folder(folder)?;
        Ok(Segment { path, blocks })
    }

    fn from_prepared(folder: &Path, first: u64, prepared: Prepared<'_>) -> Result<Self, LogError> {
        let path = segment_path(folder, first);
        let make = || {
            super::crash_point("journal.made");
            let mut blocks = Blocks::open(prepared.path(), 0)?;
            blocks.append(&head(first))?;
            blocks.file().sync_data()?;
            prepared.rename(&path)?;
            Ok(blocks)
        };
        let blocks = make().map_err(|error: std::io::Error| LogError::io(&path, &error))?;
        super::sync_folder(folder)?;
        Ok(Segment { path, blocks })
    }

    /// Opens a segment to go on at `end`; what stands behind is torn and is cut off.
    fn reopen(path: PathBuf, end: u64) -> Result<Self, LogError> {
        let open = || {
            // One without entries may lack its head.
            let bare = end == HEAD as u64;
            let mut blocks = Blocks::open(&path, if bare { 0 } else { end })?;
            blocks.file().set_len(end)?;
            match rustix::fs::fallocate(blocks.file(), rustix::fs::FallocateFlags::empty(), 0, SEGMENT_BYTES) {
                // A full disk is met again, and told, when the next batch is written.
                Ok(()) | Err(_) => {}
            }
            if bare {
                let first = path.file_stem().and_then(|name| name.to_str()?.parse().ok()).unwrap_or_default();
                blocks.append(&head(first))?;
            }
            blocks.file().sync_all()?;
            Ok(blocks)
        };
        let blocks = open().map_err(|error: std::io::Error| LogError::io(&path, &error))?;
        Ok(Segment { path, blocks })
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        // In two, where a test wants to see a torn batch: it costs one more system call.
        let torn = if cfg!(debug_assertions) { bytes.len() / 2 } else { bytes.len() };
        let (first, rest) = bytes.split_at(torn);
        self.blocks.append(first)?;
        super::crash_point("journal.torn");
        if !rest.is_empty() {
            self.blocks.append(rest)?;
        }
        super::crash_point("journal.written");
        self.blocks.file().sync_data()?;
        super::crash_point("journal.synced");
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn filled(folder: &Path) -> PathBuf {
        let mut journal = Journal::recover(folder, 0).unwrap().journal;
        journal.append(&[b"one".to_vec(), b"two".to_vec()]).unwrap();
        journal.append(&[b"three".to_vec(), b"four".to_vec()]).unwrap();
        segment_path(folder, 0)
    }

    fn change(path: &Path, offset: usize, byte: u8) {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[offset] ^= byte;
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn what_was_acknowledged_is_read_again_and_appending_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path());
        let mut recovered = Journal::recover(folder.path(), 1).unwrap();
        assert_eq!(recovered.records.iter().map(|r| r.index).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(recovered.journal.append(&[b"five".to_vec()]).unwrap(), 4);
        assert_eq!(Journal::recover(folder.path(), 0).unwrap().records.len(), 5);
    }

    #[test]
    fn a_torn_last_batch_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = filled(folder.path());
        // The first record of the second batch is torn; the second one reached the disk.
        change(&path, HEAD + 2 * (RECORD_HEAD + 3) + RECORD_HEAD, 1);
        assert_eq!(Journal::recover(folder.path(), 0).unwrap().records.len(), 2);
    }

    #[test]
    fn the_next_segment_is_the_spare_and_is_read_like_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::recover(folder.path(), 0).unwrap().journal;
        let spare = journal.spare();
        let entries: Vec<Vec<u8>> = (0..40u8).map(|byte| vec![byte + 1; 60_000]).collect();
        let mut written = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| spare.fill_when_wanted());
            // Into the second segment, once the spare is ready.
            while segments(folder.path()).unwrap().len() < 2 {
                let near = journal.segment.as_ref().is_some_and(|segment| segment.blocks.end() > SEGMENT_BYTES * 3 / 4);
                while near && !journal.spare.is_ready() {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                written = journal.append(&entries).unwrap() + entries.len() as u64;
            }
            spare.close();
        });
        assert!(!folder.path().join("spare").exists(), "it has become the second segment");
        let second = segments(folder.path()).unwrap()[1].0;
        journal.append(&[b"torn".to_vec()]).unwrap();
        change(&segment_path(folder.path(), second), HEAD + 40 * (RECORD_HEAD + 60_000) + RECORD_HEAD, 1);
        let recovered = Journal::recover(folder.path(), 0).unwrap();
        assert_eq!(recovered.records.len() as u64, written);
        assert_eq!(recovered.records[written as usize - 1].bytes, entries[39]);
        assert_eq!(recovered.journal.next_index(), written);
    }

    #[test]
    fn a_damaged_acknowledged_entry_is_never_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = filled(folder.path());
        change(&path, HEAD + RECORD_HEAD, 1);
        let error = Journal::recover(folder.path(), 0).err().unwrap();
        assert!(matches!(error, LogError::Corrupt { offset, .. } if offset == HEAD as u64), "{error}");
    }
}
