//! The journal: where entries become durable, in the order of their indexes.
//!
//! A segment `journal/<first index>.seg` has the format described in [`segment`](super::segment). It is allocated ahead
//! and filled with zeros (by a [`Preallocator`] if many entries come), so `fdatasync` has only the entries to write. It
//! gets its name only when its header is on the disk, so no crash leaves a segment without a header. A batch is one
//! `write`, then one `fdatasync`; the next batch starts only after that. After a failure the next batch goes into a new
//! segment.

use super::blocks::Blocks;
pub use super::blocks::SEGMENT_BYTES;
use super::disk::{Disk, Open, remove, sync_folder};
use super::preallocated::{PreallocatedSegment, Preallocator, UNNAMED};
use super::segment::{self, BATCH_HEAD, ChainKey, HEAD, Reading, Record, SECTOR, SegmentBytes, Segmented, Tag};
use super::storage::Storage;
use super::{LogError, LogPaths};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Fill level at which the next segment is prepared.
const WANT_NEXT: u64 = SEGMENT_BYTES / 8;
/// Trailing zeros of a file that are kept: an entry may end in zeros, and none is longer.
const KEPT_ZEROS: usize = 64 << 10;
/// Zeros after which a reader of what is new looks no further: more than a disk loses of the end of one write.
const MAX_ZEROS: usize = 1 << 20;

/// A segment open for writing.
pub struct Journal {
    paths: LogPaths,
    key: ChainKey,
    segment: Option<Segment>,
    next_index: u64,
    /// The tag of the last batch that was acknowledged or found.
    tag: Tag,
    preallocator: Arc<Preallocator>,
}

struct Segment {
    path: PathBuf,
    blocks: Blocks,
}

/// The result of recovery at a start.
pub struct Recovered {
    /// The journal, open for appending.
    pub journal: Journal,
    /// Entries from `from` on.
    pub records: Vec<Record>,
}

pub(super) fn segment_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.seg"))
}

/// Lists the segments of a folder by first index, in order.
///
/// # Errors
/// [`LogError::Io`] if the folder cannot be read.
pub fn segments(disk: &dyn Disk, folder: &Path) -> Result<Vec<(u64, PathBuf)>, LogError> {
    let files = match disk.list(folder) {
        Ok(files) => files,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LogError::io(folder, &error)),
    };
    let first = |path: &Path| path.file_name().and_then(|name| name.to_str()?.strip_suffix(".seg")?.parse().ok());
    let mut found: Vec<(u64, PathBuf)> =
        files.into_iter().filter_map(|path| first(&path).map(|first| (first, path))).collect();
    found.sort();
    Ok(found)
}

/// Reads a segment, or what is in it from an earlier reading's position on. That leaves unread what is behind 1 MiB of
/// zeros, which only a start and a verification look at.
///
/// # Errors
/// It cannot be read, or holds neither what was written to it nor the remains of a crash; with file and offset.
pub fn read_segment(disk: &dyn Disk, path: &Path, reading: Reading<'_>) -> Result<Segmented, LogError> {
    let base = reading.start.map_or(0, |start| start.offset / SECTOR as u64 * SECTOR as u64);
    let max_zeros = if reading.start.is_some() { MAX_ZEROS } else { usize::MAX };
    let (head, rest, length) = read_written(disk, path, base, max_zeros).map_err(|error| LogError::io(path, &error))?;
    if length < SEGMENT_BYTES {
        // It had its whole length before it had its name.
        Err(LogError::corrupt(path, length, "the segment was cut off here: no crash leaves it so"))
    } else if length > SEGMENT_BYTES && !cfg!(simulator) {
        // No batch is this large, except in the simulator's small segments.
        Err(LogError::corrupt(path, SEGMENT_BYTES, "something was put behind the segment's end"))
    } else {
        segment::parse(path, &SegmentBytes { head: &head, base, rest: &rest }, reading)
    }
}

/// Returns a file's head, its bytes from `base` on, and its length. Most of the zeros at its end are left out: most of a
/// segment is its initial zeros, and memory of 64 MB that is used once stays with the process for long. Stops at a run
/// of more than `max_zeros`.
fn read_written(disk: &dyn Disk, path: &Path, base: u64, max_zeros: usize) -> std::io::Result<(Head, Vec<u8>, u64)> {
    let file = disk.open(path, Open::Read)?;
    let mut head = [0; HEAD];
    file.read_at(&mut head, 0)?;
    let (mut written, mut zeros, mut at, mut piece) = (Vec::new(), 0, base, vec![0; PIECE]);
    loop {
        let data = file.data_from(at)?;
        zeros += usize::try_from(data.saturating_sub(at)).map_err(std::io::Error::other)?;
        at = at.max(data);
        let read = if zeros > max_zeros { 0 } else { file.read_at(&mut piece, at)? };
        if read == 0 {
            written.resize(written.len() + zeros.min(KEPT_ZEROS), 0);
            return Ok((head, written, if zeros > max_zeros { file.size()? } else { at }));
        }
        at += read as u64;
        if piece[..read] == ZEROS[..read] {
            zeros += read;
        } else {
            written.resize(written.len() + std::mem::take(&mut zeros), 0);
            written.extend_from_slice(&piece[..read]);
        }
    }
}

type Head = [u8; HEAD];

static ZEROS: [u8; PIECE] = [0; PIECE];
/// Bytes that are read at once.
const PIECE: usize = if cfg!(simulator) { 4 << 10 } else { 64 << 10 };

impl Journal {
    /// Opens the journal and reads the entries from index `from` (the sealed size) on. Needs no free space.
    ///
    /// # Errors
    /// Entries are missing or damaged, or were not written by the log of this key.
    pub fn recover(paths: &LogPaths, key: ChainKey, from: u64) -> Result<Recovered, LogError> {
        let disk = &*paths.disk;
        disk.create_folder(&paths.journal).map_err(|error| LogError::io(&paths.journal, &error))?;
        // A process that was killed may have left a name that a loss of power would still take back.
        sync_folder(disk, &paths.journal)?;
        let found = segments(disk, &paths.journal)?;
        if from > 0 && found.is_empty() {
            return Err(LogError::corrupt(&paths.journal, 0, gone(from)));
        }
        let (mut records, mut next, mut last): (Vec<Record>, _, Option<(&PathBuf, Segmented)>) =
            (Vec::new(), from, None);
        for (position, (first, path)) in found.iter().enumerate() {
            let before = found.get(position + 1).map(|(next, _)| *next);
            if before.is_some_and(|before| before <= from) {
                continue;
            }
            if *first > next {
                return Err(LogError::corrupt(path, 0, format!("entries {next} to {} are missing", first - 1)));
            }
            let reading = Reading { first: *first, before, from: next, key: Some(&key), keyed_from: 0, start: None };
            let mut read = read_segment(disk, path, reading)?;
            if let Some((_, earlier)) = &last {
                read.follows(path, earlier)?;
            }
            records.append(&mut read.records);
            next = next.max(read.next);
            last = Some((path, read));
        }
        if let Some((path, read)) = &last {
            read.reaches(path, from)?;
        }
        let preallocator = Arc::new(Preallocator::of(paths)?);
        let (paths, tag) = (paths.clone(), last.as_ref().map_or(Tag::default(), |(_, read)| read.tag));
        let mut journal = Journal { paths, key, segment: None, next_index: next, tag, preallocator };
        if let Some((path, read)) = last
            && read.next == next
        {
            journal.segment = match Segment::reopen(&*journal.paths.disk, path, &read) {
                Ok(segment) => Some(segment),
                // A full disk does not prevent a start; the next batch gets a new segment.
                Err(error) if error.kind() == ErrorKind::StorageFull => None,
                Err(error) => return Err(LogError::io(path, &error)),
            };
        }
        Ok(Recovered { journal, records })
    }

    /// Makes the journal of a log whose first entries are sealed and were never in one, unless there is one.
    ///
    /// # Errors
    /// [`LogError::Io`] if its first segment cannot be made.
    pub fn begin(paths: &LogPaths, sealed: u64) -> Result<(), LogError> {
        paths.disk.create_folder(&paths.journal).map_err(|error| LogError::io(&paths.journal, &error))?;
        match segments(&*paths.disk, &paths.journal)?.is_empty() {
            true => Segment::create(paths, sealed, &Tag::default()).map(drop),
            false => Ok(()),
        }
    }

    /// Returns the index of the next entry.
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// Makes the next batch begin a new segment, as after a failure.
    #[cfg(test)]
    pub(super) fn abandon_segment(&mut self) {
        self.segment = None;
    }

    /// Returns the preallocator of its next segment.
    pub(crate) fn preallocator(&self) -> Arc<Preallocator> {
        self.preallocator.clone()
    }

    /// Retires segments with only entries below `sealed`.
    pub(crate) fn forget(paths: &LogPaths, sealed: u64, preallocator: &Preallocator) -> Result<(), LogError> {
        let found = segments(&*paths.disk, &paths.journal)?;
        let mut over = found.windows(2).filter(|pair| pair[1].0 <= sealed).peekable();
        if over.peek().is_some() {
            // The writer may be about to make the next segment's name durable: a crash that lost that name and kept the
            // removal would leave no journal.
            sync_folder(&*paths.disk, &paths.journal)?;
        }
        over.try_for_each(|pair| preallocator.retire(&pair[0].1))
    }

    fn next_segment(&self) -> Result<Segment, LogError> {
        match self.preallocator.take() {
            Some(prepared) => Segment::from_prepared(&self.paths, self.next_index, &self.tag, prepared),
            None => Segment::create(&self.paths, self.next_index, &self.tag),
        }
    }
}

impl Storage for Journal {
    /// Makes one `write` and one `fdatasync`. After a failure the indexes are reused in a new segment, since after a
    /// failed sync the old file's pages can no longer be trusted.
    fn append(&mut self, batch: &[Vec<u8>]) -> Result<u64, LogError> {
        let first = self.next_index;
        let mut out = Vec::with_capacity(BATCH_HEAD + batch.iter().map(|bytes| bytes.len() + 2).sum::<usize>());
        let tag = segment::put_batch(&mut out, &self.key, &self.tag, first, batch);
        if self.segment.as_ref().is_none_or(|segment| segment.blocks.end() + out.len() as u64 > SEGMENT_BYTES) {
            self.segment = None;
            self.segment = Some(self.next_segment()?);
        }
        let Some(segment) = &mut self.segment else { return Err(LogError::Closed) };
        if let Err(error) = segment.write(&out) {
            let error = LogError::io(&segment.path, &error);
            // The remains of the batch do not count, since the next segment begins at this index.
            self.segment = None;
            return Err(error);
        }
        if segment.blocks.end() >= WANT_NEXT {
            self.preallocator.want();
        }
        self.tag = tag;
        self.next_index = first + batch.len() as u64;
        Ok(first)
    }
}

impl Segment {
    fn create(paths: &LogPaths, first: u64, after: &Tag) -> Result<Self, LogError> {
        let (disk, fresh) = (&*paths.disk, paths.journal.join(UNNAMED));
        // Never an existing file: after a crash, it may have other names.
        remove(disk, &fresh)?;
        let make = || {
            let blocks = Blocks::open(disk, &fresh, 0)?;
            // Reserving the space now detects a full disk before anything is acknowledged.
            if let Err(error) = blocks.file().allocate(SEGMENT_BYTES) {
                let _ = disk.remove(&fresh);
                return Err(error);
            }
            super::crash_point("journal.made");
            Ok(blocks)
        };
        let blocks = make().map_err(|error: std::io::Error| LogError::io(&fresh, &error))?;
        Self::named(paths, first, after, blocks, |path| disk.rename(&fresh, path))
    }

    fn from_prepared(
        paths: &LogPaths,
        first: u64,
        after: &Tag,
        prepared: PreallocatedSegment<'_>,
    ) -> Result<Self, LogError> {
        super::crash_point("journal.made");
        let blocks = Blocks::open(&*paths.disk, prepared.path(), 0);
        let blocks = blocks.map_err(|error| LogError::io(prepared.path(), &error))?;
        Self::named(paths, first, after, blocks, |path| prepared.rename(path))
    }

    /// Gives a file its name once its header is on the disk.
    fn named(
        paths: &LogPaths,
        first: u64,
        after: &Tag,
        mut blocks: Blocks,
        rename: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> Result<Self, LogError> {
        let path = segment_path(&paths.journal, first);
        let head = blocks.append(&segment::head(first, after));
        let made = head.and_then(|()| blocks.file().sync()).and_then(|()| rename(&path));
        made.map_err(|error| LogError::io(&path, &error))?;
        sync_folder(&*paths.disk, &paths.journal)?;
        Ok(Segment { path, blocks })
    }

    /// Opens a segment to continue after its last complete batch. That batch is written once more, at the same offset: a process that was
    /// killed may have left it unsynced, or its sync may have failed, after which the next sync does not report pages that were lost. What
    /// a crash left after it is overwritten with zeros.
    fn reopen(disk: &dyn Disk, path: &Path, read: &Segmented) -> std::io::Result<Self> {
        let length = |from: u64, end: u64| usize::try_from(end - from).map_err(std::io::Error::other);
        let mut rest = vec![0; length(read.last, read.written)?];
        let batch = &mut rest[..length(read.last, read.end)?];
        if disk.open(path, Open::Read)?.read_at(batch, read.last)? < batch.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut blocks = Blocks::open(disk, path, read.last)?;
        blocks.append(&rest)?;
        // Copied files may have holes. A full disk is reported when the next batch is written.
        let _ = blocks.file().allocate(SEGMENT_BYTES);
        blocks.file().sync()?;
        Ok(Segment { path: path.to_owned(), blocks: Blocks::open(disk, path, read.end)? })
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        // In two parts, if a test needs a torn batch: it costs one more system call. No disk tears a sector.
        let middle = segment::sector_after(self.blocks.end() + bytes.len() as u64 / 2) - self.blocks.end();
        let torn = usize::try_from(middle).ok().filter(|middle| cfg!(debug_assertions) && *middle < bytes.len());
        let (first, rest) = bytes.split_at(torn.unwrap_or(bytes.len()));
        self.blocks.append(first)?;
        super::crash_point("journal.torn");
        if !rest.is_empty() {
            self.blocks.append(rest)?;
        }
        super::crash_point("journal.written");
        self.blocks.file().sync()?;
        super::crash_point("journal.synced");
        Ok(())
    }
}

/// Returns the message for an empty journal of a log with sealed entries.
pub(super) fn gone(sealed: u64) -> String {
    format!("there is no journal segment, where {sealed} entries were sealed: no crash leaves it so")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::disk::LocalDisk;
    use crate::exchange_log::disk::tests::RefusedSyncs;
    use crate::exchange_log::segment::HEAD;

    fn recover(folder: &Path, from: u64) -> Result<Recovered, LogError> {
        let paths = LogPaths { journal: folder.to_owned(), ..LogPaths::new(folder) };
        Journal::recover(&paths, ChainKey::new(b"secret"), from)
    }

    fn filled(folder: &Path) -> PathBuf {
        let mut journal = recover(folder, 0).unwrap().journal;
        journal.append(&[b"one".to_vec(), b"two".to_vec()]).unwrap();
        journal.append(&[b"three".to_vec(), b"four".to_vec()]).unwrap();
        segment_path(folder, 0)
    }

    /// Where the second batch of [`filled`] begins.
    const SECOND: usize = HEAD + BATCH_HEAD + 2 * (2 + 3);

    fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }

    fn refused(folder: &Path, from: u64) -> String {
        recover(folder, from).err().unwrap().to_string()
    }

    #[test]
    fn what_was_acknowledged_is_read_again_and_appending_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path());
        let mut recovered = recover(folder.path(), 1).unwrap();
        assert_eq!(recovered.records.iter().map(|r| r.index).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(recovered.journal.append(&[b"five".to_vec()]).unwrap(), 4);
        assert_eq!(recover(folder.path(), 0).unwrap().records.len(), 5);
    }

    #[test]
    fn a_torn_last_batch_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = filled(folder.path());
        // Its sector never reached the disk; and the rest may have any length.
        change(&path, |bytes| bytes[SECOND..SECOND + 60].fill(0));
        change(&path, |bytes| bytes[SECOND + 60..SECOND + 101].fill(0));
        let mut recovered = recover(folder.path(), 0).unwrap();
        assert_eq!(recovered.records.len(), 2);
        assert_eq!(recovered.journal.append(&[vec![7; 5_000]]).unwrap(), 2);
        // Cut short in the middle of several sectors: overwritten when it is opened.
        change(&path, |bytes| bytes[SECOND + 600..SECOND + 3_000].fill(0));
        assert_eq!(recover(folder.path(), 0).unwrap().records.len(), 2);
        assert!(std::fs::read(&path).unwrap()[SECOND..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn the_next_segment_is_the_spare_and_is_read_like_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = recover(folder.path(), 0).unwrap().journal;
        let preallocator = journal.preallocator();
        let entries: Vec<Vec<u8>> = (0..40u8).map(|byte| vec![byte + 1; 60_000]).collect();
        let mut written = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| preallocator.fill_on_demand());
            // Into the second segment, once the next one is ready.
            while segments(&LocalDisk, folder.path()).unwrap().len() < 2 {
                let near = journal.segment.as_ref().is_some_and(|segment| segment.blocks.end() > SEGMENT_BYTES * 3 / 4);
                while near && !journal.preallocator.is_ready() {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                written = journal.append(&entries).unwrap() + entries.len() as u64;
            }
            preallocator.close();
        });
        assert!(!folder.path().join("spare").exists(), "it has become the second segment");
        let second = segments(&LocalDisk, folder.path()).unwrap()[1].0;
        journal.append(&[b"torn".to_vec()]).unwrap();
        let torn = HEAD + BATCH_HEAD + 40 * (60_000 + 2);
        change(&segment_path(folder.path(), second), |bytes| bytes[torn..torn + 100].fill(0));
        let recovered = recover(folder.path(), 0).unwrap();
        assert_eq!(recovered.records.len() as u64, written);
        assert_eq!(recovered.records[written as usize - 1].bytes, entries[39]);
        assert_eq!(recovered.journal.next_index(), written);
    }

    #[test]
    fn a_damaged_acknowledged_entry_is_never_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = filled(folder.path());
        for (place, batch) in [(HEAD + BATCH_HEAD + 2, HEAD), (SECOND + BATCH_HEAD + 2, SECOND), (20, 0)] {
            change(&path, |bytes| bytes[place] ^= 1);
            assert!(refused(folder.path(), 0).contains(&format!("at byte {batch}:")), "{}", refused(folder.path(), 0));
            change(&path, |bytes| bytes[place] ^= 1);
        }
        assert_eq!(recover(folder.path(), 0).unwrap().records.len(), 4);
    }

    #[test]
    fn l3_a_segment_that_is_empty_or_cut_or_gone_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = filled(folder.path());
        let whole = std::fs::read(&path).unwrap();
        for (damaged, expected) in [
            (Vec::new(), "at byte 0: the segment was cut off here"),
            (vec![0; whole.len()], "at byte 0: is no journal segment"),
            ([vec![0; 512], whole[512..].to_vec()].concat(), "at byte 0: is no journal segment"),
            (whole[..5_000].to_vec(), "at byte 5000: the segment was cut off here"),
            ([&whole[..], &[0]].concat(), "at byte 67108864: something was put behind"),
        ] {
            std::fs::write(&path, damaged).unwrap();
            let error = refused(folder.path(), 0);
            assert!(error.contains(expected) && error.contains(".seg"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(refused(folder.path(), 4).contains("no journal segment, where 4 entries"));
        // A segment gets its name with its header; a crash before that leaves another name.
        std::fs::write(folder.path().join(UNNAMED), b"").unwrap();
        assert_eq!(recover(folder.path(), 0).unwrap().journal.next_index(), 0);
        assert!(!folder.path().join(UNNAMED).exists());
    }

    /// Found by the simulator (`Names`, seed 57402).
    #[test]
    fn a_segment_is_given_up_only_when_the_name_of_the_next_one_is_durable() {
        let (folder, disk) = (tempfile::tempdir().unwrap(), Arc::new(RefusedSyncs::default()));
        let paths = LogPaths { disk: disk.clone(), ..LogPaths::new(folder.path()) };
        let mut journal = Journal::recover(&paths, ChainKey::new(b"secret"), 0).unwrap().journal;
        let append = |journal: &mut Journal| journal.append(&[b"one".to_vec()]).unwrap();
        append(&mut journal);
        journal.abandon_segment();
        append(&mut journal);
        let found = || segments(&LocalDisk, &paths.journal).unwrap().iter().map(|one| one.0).collect::<Vec<_>>();
        assert_eq!(found(), [0, 1]);
        disk.refuse_folders(true);
        assert!(Journal::forget(&paths, 2, &journal.preallocator).is_err());
        assert_eq!(found(), [0, 1], "nobody knows whether the second one's name would come back");
        Journal::forget(&paths, 0, &journal.preallocator).unwrap();
        disk.refuse_folders(false);
        Journal::forget(&paths, 2, &journal.preallocator).unwrap();
        assert_eq!(found(), [1]);
    }

    #[test]
    fn another_logs_batches_are_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path());
        let paths = LogPaths { journal: folder.path().to_owned(), ..LogPaths::new(folder.path()) };
        let error = Journal::recover(&paths, ChainKey::new(b"another"), 0).err().unwrap().to_string();
        assert!(error.contains("entry 0 was not written by this log"), "{error}");
    }

    /// An older format without tags is refused: otherwise anyone who can write to the folder could leave the chain.
    #[test]
    fn l1_a_segment_of_a_form_without_a_chain_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path());
        let invented = segment_path(folder.path(), 4);
        let record = [&[0, 0, 0, 13][..], &[0; 4], &4u64.to_be_bytes(), &4u64.to_be_bytes(), b"nobody looked"].concat();
        let mut bytes = [b"NDXPJNL1".as_slice(), &4u64.to_be_bytes(), &record].concat();
        bytes[20..24].copy_from_slice(&crc32c::crc32c(&record[8..]).to_be_bytes());
        for length in [bytes.len(), SEGMENT_BYTES as usize] {
            bytes.resize(length, 0);
            std::fs::write(&invented, &bytes).unwrap();
            let error = refused(folder.path(), 0);
            assert!(error.contains("00000000000000000004.seg at byte"), "{error}");
        }
        std::fs::remove_file(&invented).unwrap();
        assert_eq!(recover(folder.path(), 0).unwrap().records.len(), 4);
    }
}
