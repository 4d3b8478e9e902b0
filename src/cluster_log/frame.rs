//! The frame of a batch in a segment, and what a crash may leave of it.

use crate::cluster::batch::MAX_BATCH_BYTES;
use crate::exchange_log::segment::zeros;

const MAGIC: &[u8; 4] = b"nown";
/// Magic, length, time, CRC-32C of the batch, CRC-32C of the head before it.
const HEAD: usize = 4 + 4 + 8 + 4 + 4;
/// What is written at once by every disk.
const SECTOR: usize = 512;
/// More than any batch has with its own head: 4,096 entries, each after its length.
const MAX_LENGTH: usize = 2 * MAX_BATCH_BYTES;

/// What is at an offset of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'b> {
    /// Nothing more.
    End,
    /// A frame.
    Whole {
        /// The batch.
        batch: &'b [u8],
        /// When it was written, in Unix seconds.
        time: u64,
        /// Bytes of the frame.
        length: usize,
    },
    /// What a crash may leave of the last frame: it ends early, or one of its sectors was not written.
    Unfinished,
    /// Anything else.
    Damaged,
}

/// Returns the frame of a batch.
pub(super) fn encode(batch: &[u8], time: u64) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + batch.len());
    frame.extend_from_slice(MAGIC);
    frame.extend_from_slice(&u32::try_from(batch.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&time.to_be_bytes());
    frame.extend_from_slice(&crc32c::crc32c(batch).to_be_bytes());
    frame.extend_from_slice(&crc32c::crc32c(&frame).to_be_bytes());
    frame.extend_from_slice(batch);
    frame
}

/// Reads the frame at an offset.
pub(super) fn read(bytes: &[u8], at: usize) -> Frame<'_> {
    let rest = bytes.get(at..).unwrap_or_default();
    if rest.is_empty() {
        return Frame::End;
    }
    let Some((length, time, sum)) = head(rest) else {
        let end = bytes.len().min(at + HEAD + MAX_LENGTH);
        return unfinished_if(rest.len() < HEAD || has_unwritten(bytes, at, at + HEAD), bytes, end);
    };
    match rest.get(HEAD..HEAD + length) {
        Some(batch) if crc32c::crc32c(batch) == sum => Frame::Whole { batch, time, length: HEAD + length },
        Some(_) => {
            let end = at + HEAD + length;
            unfinished_if(has_unwritten(bytes, at, end), bytes, end)
        }
        None => unfinished_if(true, bytes, bytes.len()),
    }
}

/// The length, time and sum of a head that is what was written.
fn head(rest: &[u8]) -> Option<(usize, u64, u32)> {
    let (head, sum) = rest.get(..HEAD)?.split_last_chunk::<4>()?;
    if crc32c::crc32c(head).to_be_bytes() != *sum || !head.starts_with(MAGIC) {
        return None;
    }
    let number = |from: usize| Some(u32::from_be_bytes(head.get(from..from + 4)?.try_into().ok()?));
    let length = usize::try_from(number(4)?).ok().filter(|length| *length <= MAX_LENGTH)?;
    Some((length, u64::from_be_bytes(head.get(8..16)?.try_into().ok()?), number(16)?))
}

/// Nothing is ever written behind a frame that is not durable.
fn unfinished_if(torn: bool, bytes: &[u8], end: usize) -> Frame<'_> {
    let is_last = bytes.get(end..).is_none_or(zeros);
    if torn && is_last { Frame::Unfinished } else { Frame::Damaged }
}

/// Whether the part of any sector between these offsets has zeros only: no batch has as many.
fn has_unwritten(bytes: &[u8], at: usize, end: usize) -> bool {
    let ends = std::iter::successors(Some(at), |from| Some((from / SECTOR + 1) * SECTOR).filter(|next| *next < end));
    ends.into_iter().any(|from| {
        let part = bytes.get(from..((from / SECTOR + 1) * SECTOR).min(end)).unwrap_or_default();
        zeros(part)
    })
}
