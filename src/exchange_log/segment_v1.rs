//! Journal segments in the form that earlier versions wrote; they are read until their entries are sealed.
//!
//! A head of 16 bytes (magic, first index) and records: length (u32), CRC-32C (u32), index (u64), first index of its batch
//! (u64), the entry; integers big-endian. Behind the first broken record there can be records of the same batch (torn, never
//! acknowledged) but none of a later one; if there are, acknowledged entries were damaged.

use super::LogError;
use super::segment::{Reading, Record, Segmented};
use std::path::Path;

const MAGIC: &[u8; 8] = b"NDXPJNL1";
const HEAD: usize = 16;
const RECORD_HEAD: usize = 24;

/// Whether a segment's bytes are of this form.
pub(super) fn is_form_of(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Reads a segment's bytes up to the entry `before`.
pub(super) fn parse(path: &Path, bytes: &[u8], reading: Reading<'_>) -> Result<Segmented, LogError> {
    let Reading { first, before, from, .. } = reading;
    if bytes.get(8..HEAD).unwrap_or_default() != first.to_be_bytes() {
        // Zeros at the end were left out.
        let index = [bytes.get(8..).unwrap_or_default(), &[0; 8]].concat();
        if bytes.len() >= HEAD || index[..8] != first.to_be_bytes() {
            return Err(LogError::corrupt(path, 0, "not a journal segment of this index"));
        }
    }
    let mut records = Vec::new();
    let mut at = HEAD;
    let mut next = first;
    while before.is_none_or(|before| next < before) {
        match read_record(bytes, at) {
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
    if before.is_none() && later_batch(bytes, at, next) {
        return Err(LogError::corrupt(path, at as u64, format!("the record of entry {next} is damaged")));
    }
    if before.is_some_and(|before| next < before) {
        return Err(LogError::corrupt(path, at as u64, format!("entry {next} is missing")));
    }
    let end = at as u64;
    Ok(Segmented { records, next, last: end, end, written: end, after: None, tag: Default::default() })
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
    let found = |start| read_record(bytes, start).is_some_and(|(index, batch, ..)| index > next && batch > next);
    // A length's first two bytes are zero for any entry.
    (at..bytes.len()).any(|start| bytes[start] == 0 && found(start))
}

#[cfg(test)]
pub(super) fn written(first: u64, batches: &[&[&[u8]]]) -> Vec<u8> {
    let mut out = [MAGIC.as_slice(), &first.to_be_bytes()].concat();
    let mut index = first;
    for batch in batches {
        let of = index;
        for entry in *batch {
            let covered = [&index.to_be_bytes(), &of.to_be_bytes(), *entry].concat();
            out.extend([entry.len() as u32, crc32c::crc32c(&covered)].map(u32::to_be_bytes).as_flattened());
            out.extend(covered);
            index += 1;
        }
    }
    out
}
