//! The batches that a gateway keeps on its own disk, `cluster/batches` below its data folder: segments of framed batches.
//!
//! A frame is the magic, the length of the batch, the time of writing in Unix seconds, the CRC-32C of the batch and that of
//! the frame's head, then the batch. One frame is one write and one `fdatasync`; the next one begins when that has
//! succeeded. So a crash leaves at most one frame unfinished, at the end of the last segment: it is truncated at the next
//! start. Anything else that is not a frame is damage, and an error.
//!
//! Bounds: a segment has at most 16 MB; all of them have as much as the opener permits. At that bound, segments that are
//! sealed and stored by a majority are deleted before their seven days are over, oldest first; without such segments,
//! batches are refused.

use super::frame::{self, Frame};
use crate::cluster::batch::EncodedBatch;
use crate::cluster::state::{SealedMarks, SealedState};
use crate::cluster::{ClusterError, Incarnation};
use crate::exchange_log::LogError;
use crate::exchange_log::disk::{self, Disk, DiskFile, Open};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Bytes from which on the next batch begins another segment.
const SEGMENT_BYTES: u64 = if cfg!(test) { 4 << 10 } else { 16 << 20 };
/// How long batches are kept that are sealed and stored by a majority of the sites.
pub const KEEP_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// Up to which number the batches of each writer are sealed and stored by a majority of the sites.
pub type StoredMarks = SealedMarks;

/// The segments, open for appending.
pub struct OwnBatches {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    max_bytes: u64,
    /// Oldest first; the last one is written.
    segments: VecDeque<BatchSegment>,
    open: Option<OpenSegment>,
    next: u64,
    stored: StoredMarks,
    /// A segment was deleted before its time.
    is_short: bool,
}

/// A file of frames.
struct BatchSegment {
    path: PathBuf,
    bytes: u64,
    /// When its last batch was written, in Unix seconds.
    newest: u64,
    /// The highest number of each writer in it.
    last: BTreeMap<Incarnation, u64>,
}

/// The segment that is written.
struct OpenSegment {
    file: Box<dyn DiskFile>,
    /// A write has failed: what is behind the last frame has to be truncated first.
    is_torn: bool,
}

impl BatchSegment {
    fn add(&mut self, batch: &EncodedBatch, time: u64, bytes: u64) {
        (self.bytes, self.newest) = (self.bytes + bytes, self.newest.max(time));
        let last = self.last.entry(batch.writer.clone()).or_default();
        *last = batch.seq.max(*last);
    }

    fn is_stored(&self, stored: &StoredMarks) -> bool {
        self.last.iter().all(|(writer, last)| stored.covers(writer, *last))
    }
}

impl OwnBatches {
    /// Opens the folder, which is created; truncates what a crash has left unfinished. New batches go to a new segment.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] for a segment that is not what was written, with its offset; [`LogError::Io`].
    pub fn open(disk: Arc<dyn Disk>, folder: &Path, max_bytes: u64) -> Result<Self, LogError> {
        disk.create_folder(folder).map_err(|error| LogError::io(folder, &error))?;
        // Names that a killed process has left may not be durable yet.
        for folder in [Some(folder), folder.parent()].into_iter().flatten() {
            disk::sync_folder(&*disk, folder)?;
        }
        let mut found = OwnBatches {
            disk,
            folder: folder.to_owned(),
            max_bytes,
            segments: VecDeque::new(),
            open: None,
            next: 0,
            stored: StoredMarks::default(),
            is_short: false,
        };
        let files = found.files()?;
        for (position, (number, path)) in files.iter().enumerate() {
            let segment = found.recover(path, position + 1 == files.len())?;
            found.segments.push_back(segment);
            found.next = number + 1;
        }
        Ok(found)
    }

    /// The segments by their numbers.
    fn files(&self) -> Result<Vec<(u64, PathBuf)>, LogError> {
        let listed = self.disk.list(&self.folder).map_err(|error| LogError::io(&self.folder, &error))?;
        let number = |path: &Path| path.file_name()?.to_str()?.strip_suffix(".batches")?.parse::<u64>().ok();
        let mut files: Vec<_> = listed.into_iter().filter_map(|path| Some((number(&path)?, path))).collect();
        files.sort();
        Ok(files)
    }

    fn recover(&self, path: &Path, is_last: bool) -> Result<BatchSegment, LogError> {
        let mut segment = BatchSegment { path: path.to_owned(), bytes: 0, newest: 0, last: BTreeMap::new() };
        let bytes = disk::read(&*self.disk, path).map_err(|error| LogError::io(path, &error))?;
        loop {
            let at = segment.bytes as usize;
            match frame::read(&bytes, at) {
                Frame::End => return Ok(segment),
                Frame::Whole { batch, time, length } => segment.add(&decode(path, at, batch)?, time, length as u64),
                Frame::Unfinished if is_last => {
                    let cut = || {
                        let file = self.disk.open(path, Open::Direct)?;
                        file.set_len(segment.bytes)?;
                        file.sync()
                    };
                    cut().map_err(|error| LogError::io(path, &error))?;
                    return Ok(segment);
                }
                Frame::Unfinished | Frame::Damaged => {
                    return Err(LogError::corrupt(path, segment.bytes, "is no batch that was written here"));
                }
            }
        }
    }

    /// Makes a batch durable.
    ///
    /// # Errors
    /// [`LogError::Full`] at the bound; [`LogError::Io`] if it cannot be written or synced: it is not kept then, and may be
    /// appended again at once.
    pub fn append(&mut self, batch: &EncodedBatch, time: u64) -> Result<(), LogError> {
        let frame = frame::encode(&batch.bytes, time);
        let length = frame.len() as u64;
        self.make_room(length)?;
        if self.segments.back().is_none_or(|last| last.bytes + length > SEGMENT_BYTES && last.bytes > 0) {
            self.open = None;
        }
        if self.open.is_none() {
            self.open = Some(self.begin()?);
        }
        let (Some(open), Some(segment)) = (&mut self.open, self.segments.back_mut()) else {
            return Err(LogError::Closed);
        };
        let was_torn = std::mem::replace(&mut open.is_torn, true);
        let write = || {
            if was_torn {
                open.file.set_len(segment.bytes)?;
            }
            open.file.write_at(&frame, segment.bytes)?;
            open.file.sync()
        };
        write().map_err(|error: std::io::Error| LogError::io(&segment.path, &error))?;
        open.is_torn = false;
        segment.add(batch, time, length);
        Ok(())
    }

    fn begin(&mut self) -> Result<OpenSegment, LogError> {
        let path = self.folder.join(format!("{:020}.batches", self.next));
        let file = self.disk.open(&path, Open::Empty).map_err(|error| LogError::io(&path, &error))?;
        disk::sync_folder(&*self.disk, &self.folder)?;
        self.next += 1;
        self.segments.push_back(BatchSegment { path, bytes: 0, newest: 0, last: BTreeMap::new() });
        Ok(OpenSegment { file, is_torn: false })
    }

    /// Deletes segments before their time where there is no room without that.
    fn make_room(&mut self, length: u64) -> Result<(), LogError> {
        while self.bytes() + length > self.max_bytes {
            let is_free = self.segments.len() > 1 && self.segments[0].is_stored(&self.stored);
            if !is_free {
                return Err(LogError::Full);
            }
            if !std::mem::replace(&mut self.is_short, true) {
                let folder = self.folder.display();
                tracing::warn!(%folder, "the room for batches on the own disk is used up: some are kept for less than seven days");
            }
            self.drop_oldest()?;
        }
        Ok(())
    }

    fn drop_oldest(&mut self) -> Result<(), LogError> {
        if let Some(oldest) = self.segments.front() {
            disk::remove(&*self.disk, &oldest.path)?;
            self.segments.pop_front();
        }
        Ok(())
    }

    /// Deletes the segments that are not needed any more.
    ///
    /// # Errors
    /// [`LogError::Io`] if one cannot be deleted.
    pub fn trim(&mut self, stored: StoredMarks, now: u64) -> Result<(), LogError> {
        self.stored = stored;
        let is_old = |segment: &BatchSegment| segment.newest.saturating_add(KEEP_FOR.as_secs()) < now;
        while self.segments.len() > 1 && is_old(&self.segments[0]) && self.segments[0].is_stored(&self.stored) {
            self.drop_oldest()?;
            self.is_short = false;
        }
        Ok(())
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Reads the batches that are not sealed in a state, in their order. Segments without any are not read.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] or [`LogError::Io`].
    pub fn unsealed(&self, state: &SealedState) -> Result<Vec<EncodedBatch>, LogError> {
        let (marks, mut open) = (state.marks(), Vec::new());
        for segment in self.segments.iter().filter(|segment| !segment.is_stored(&marks)) {
            let path = &segment.path;
            let bytes = disk::read(&*self.disk, path).map_err(|error| LogError::io(path, &error))?;
            let mut at = 0;
            while at < segment.bytes as usize {
                let Frame::Whole { batch, length, .. } = frame::read(&bytes, at) else {
                    return Err(LogError::corrupt(path, at as u64, "is no batch any more"));
                };
                let batch = decode(path, at, batch)?;
                if !state.is_sealed(&batch.writer, batch.seq) {
                    open.push(batch);
                }
                at += length;
            }
        }
        Ok(open)
    }
}

fn decode(path: &Path, at: usize, bytes: &[u8]) -> Result<EncodedBatch, LogError> {
    let batch = EncodedBatch::from_bytes(bytes.to_vec());
    batch.map_err(|error: ClusterError| LogError::corrupt(path, at as u64, error.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
