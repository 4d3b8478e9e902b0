//! The format of a journal segment.
//!
//! A header of 64 bytes (magic, first index, the tag of the previous batch, CRC-32C of these), then batches, integers
//! big-endian. A batch is its header (length of its body, number of entries, first index, tag of the previous batch,
//! its own tag, CRC-32C of the body, CRC-32C of the header) and its body: each entry after its length of 16 bits. The
//! **tag** is an HMAC-SHA-256 under a key that is derived from the log's signing key, over the previous tag and the
//! batch: it distinguishes a genuine batch from one that was forged, moved or repeated. Readers without the key check
//! that each batch names the tag before it.
//!
//! A batch is one write that is synced before the next begins, into space that reads as zeros. So a crash can leave
//! only some sectors of the last batch; the others are zero. Anything else that cannot be read is damage, perhaps of
//! acknowledged entries, and so it is never truncated.

use super::LogError;
use super::tiles::put_entry;
use aws_lc_rs::hmac;
use std::path::Path;

/// The tag of a batch; 32 zeros if there is no previous batch.
pub(super) type Tag = [u8; 32];

/// Bytes before the first batch.
pub const HEAD: usize = 64;
/// Bytes before the entries of a batch.
pub(super) const BATCH_HEAD: usize = 88;
const MAGIC: &[u8; 8] = b"NDXPJNL2";
/// The smallest unit that a disk writes or loses.
pub(super) const SECTOR: usize = 512;

/// An entry with its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Position in the log, from 0.
    pub index: u64,
    /// The entry's bytes.
    pub bytes: Vec<u8>,
}

/// A place between two batches of a segment, where a later reader may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPosition {
    /// The segment, by its first index.
    segment: u64,
    /// Offset of the next batch.
    pub(super) offset: u64,
    /// First index of the next batch.
    next: u64,
    /// The tag that the next batch must name.
    tag: Tag,
}

impl BatchPosition {
    /// Returns whether a reader of entries from `from` on may begin here.
    pub(super) fn serves(&self, segment: u64, from: u64) -> bool {
        self.segment == segment && self.next <= from
    }
}

/// The bytes of a segment that are read: its head, and all from an offset on. Zeros at its end may be left out.
pub(super) struct SegmentBytes<'b> {
    /// The first [`HEAD`] bytes.
    pub(super) head: &'b [u8],
    /// Offset of the rest: a multiple of [`SECTOR`].
    pub(super) base: u64,
    /// All from there on; the head itself, if that is 0.
    pub(super) rest: &'b [u8],
}

impl<'b> SegmentBytes<'b> {
    /// A segment that is read from its beginning.
    #[cfg(test)]
    fn complete(bytes: &'b [u8]) -> Self {
        SegmentBytes { head: bytes, base: 0, rest: bytes }
    }
}

/// The result of reading a segment.
pub struct Segmented {
    /// Its entries from the requested one on.
    pub records: Vec<Record>,
    /// The index after its last entry.
    pub next: u64,
    /// Offsets at which its last complete batch begins and ends; both the same if there is none.
    pub last: u64,
    /// See `last`.
    pub end: u64,
    /// Behind the last batch that ends at or before the first requested entry.
    pub(super) start: BatchPosition,
    /// The end of the last byte that is not zero: beyond `end`, a batch that a crash cut short.
    pub written: u64,
    /// The tag that its first batch must name.
    pub(super) after: Tag,
    /// The tag of its last batch.
    pub(super) tag: Tag,
}

impl Segmented {
    /// Checks that this segment follows another.
    pub(super) fn follows(&self, path: &Path, earlier: &Segmented) -> Result<(), LogError> {
        if self.after == earlier.tag {
            return Ok(());
        }
        Err(LogError::corrupt(path, 16, "it does not follow the segment before it"))
    }

    /// Checks that this, the last segment, reaches as far as the sealed part: each sealed entry was durable here
    /// before.
    pub(super) fn reaches(&self, path: &Path, sealed: u64) -> Result<(), LogError> {
        if self.next >= sealed {
            return Ok(());
        }
        let reason =
            format!("the journal ends before entry {}, where {sealed} were sealed: no crash leaves it so", self.next);
        Err(LogError::corrupt(path, self.end, reason))
    }
}

/// How a segment is read.
#[derive(Clone, Copy)]
pub struct Reading<'r> {
    /// Its first index, by its name.
    pub first: u64,
    /// The first index of the next segment; `None`: it is the last one.
    pub before: Option<u64>,
    /// Entries below are skipped.
    pub from: u64,
    /// With the key, each batch's tag is checked.
    pub key: Option<&'r ChainKey>,
    /// Batches that end below are not checked with it: the tree proves their entries. 0: all are checked.
    pub keyed_from: u64,
    /// Where to begin, by an earlier reading of this segment; `None`: at its first batch.
    pub start: Option<BatchPosition>,
}

/// Makes and checks the tags of batches.
#[derive(Clone)]
pub struct ChainKey(hmac::Key);

impl std::fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChainKey")
    }
}

impl ChainKey {
    /// Makes it from a secret.
    pub fn new(secret: &[u8]) -> Self {
        ChainKey(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    fn tag(&self, covered: &[u8], body: &[u8]) -> Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(covered);
        context.update(body);
        let mut tag = Tag::default();
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// The head of a segment.
pub(super) fn head(first: u64, after: &Tag) -> Vec<u8> {
    let mut head = [MAGIC.as_slice(), &first.to_be_bytes(), after, &[0; 12]].concat();
    let sum = crc32c::crc32c(&head);
    head.extend_from_slice(&sum.to_be_bytes());
    head
}

/// Writes a batch after the one with tag `after`, and returns its own tag.
pub(super) fn put_batch(out: &mut Vec<u8>, key: &ChainKey, after: &Tag, first: u64, entries: &[Vec<u8>]) -> Tag {
    let start = out.len();
    out.resize(start + BATCH_HEAD, 0);
    entries.iter().for_each(|entry| put_entry(out, entry));
    let (head, body) = out[start..].split_at_mut(BATCH_HEAD);
    // Both fit: a batch is some megabytes.
    head[..4].copy_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    head[4..8].copy_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_be_bytes());
    head[8..16].copy_from_slice(&first.to_be_bytes());
    head[16..48].copy_from_slice(after);
    let tag = key.tag(&head[..48], body);
    head[48..80].copy_from_slice(&tag);
    head[80..84].copy_from_slice(&crc32c::crc32c(body).to_be_bytes());
    let sum = crc32c::crc32c(&head[..84]);
    head[84..88].copy_from_slice(&sum.to_be_bytes());
    tag
}

/// The head of a batch.
struct BatchHead {
    first: u64,
    count: u32,
    after: Tag,
    tag: Tag,
    sum: u32,
    /// Its body's range.
    body: std::ops::Range<usize>,
}

fn batch_head(bytes: &[u8], at: usize) -> Option<BatchHead> {
    let head: [u8; BATCH_HEAD] = number(bytes, at)?;
    if crc32c::crc32c(&head[..84]).to_be_bytes() != head[84..] {
        return None;
    }
    let length = u32::from_be_bytes(number(&head, 0)?);
    let start = at + BATCH_HEAD;
    Some(BatchHead {
        first: u64::from_be_bytes(number(&head, 8)?),
        count: u32::from_be_bytes(number(&head, 4)?),
        after: number(&head, 16)?,
        tag: number(&head, 48)?,
        sum: u32::from_be_bytes(number(&head, 80)?),
        body: start..start + usize::try_from(length).ok()?,
    })
}

/// Returns the tag that a segment's first batch must name, by its head.
fn tag_of_head(path: &Path, bytes: &[u8], segment: u64) -> Result<Tag, LogError> {
    let mut first = [0; HEAD];
    // Zeros that were left out.
    let there = bytes.len().min(HEAD);
    first[..there].copy_from_slice(&bytes[..there]);
    let after: Tag = number(&first, 16).unwrap_or_default();
    if first == *head(segment, &after) {
        return Ok(after);
    }
    // A segment gets its name when its head is on the disk.
    Err(LogError::corrupt(path, 0, "is no journal segment of this index: no crash leaves it so"))
}

/// Reads a segment's bytes up to the entry `before`.
pub(super) fn parse(path: &Path, segment: &SegmentBytes<'_>, reading: Reading<'_>) -> Result<Segmented, LogError> {
    let (bytes, base) = (segment.rest, segment.base);
    let wrong = |at: usize, reason: String| LogError::corrupt(path, base + at as u64, reason);
    let after = tag_of_head(path, segment.head, reading.first)?;
    let begin = BatchPosition { segment: reading.first, offset: HEAD as u64, next: reading.first, tag: after };
    let start = reading.start.unwrap_or(begin);
    let mut at = usize::try_from(start.offset.saturating_sub(base)).unwrap_or(usize::MAX);
    let mut read = Segmented {
        records: Vec::new(),
        next: start.next,
        last: start.offset,
        end: 0,
        start,
        written: 0,
        after,
        tag: start.tag,
    };
    while reading.before.is_none_or(|before| read.next < before) {
        let whole = batch_head(bytes, at).and_then(|head| Some((bytes.get(head.body.clone())?, head)));
        let Some((body, batch)) = whole.filter(|(body, head)| crc32c::crc32c(body) == head.sum) else { break };
        if batch.first != read.next || batch.after != read.tag {
            return Err(wrong(at, format!("the batch here does not follow the one before it (entry {})", read.next)));
        }
        let is_keyed = batch.first.saturating_add(batch.count.into()) > reading.keyed_from;
        if is_keyed && reading.key.is_some_and(|key| key.tag(&bytes[at..at + 48], body) != batch.tag) {
            return Err(wrong(at, format!("the batch of entry {} was not written by this log", read.next)));
        }
        let entries = super::tiles::decode_bundle(body, batch.count as usize, path)?;
        for (index, entry) in (batch.first..).zip(entries) {
            if index >= reading.from {
                read.records.push(Record { index, bytes: entry.to_vec() });
            }
        }
        read.next += u64::from(batch.count);
        read.tag = batch.tag;
        read.last = base + at as u64;
        at = batch.body.end;
        if read.next <= reading.from {
            read.start = BatchPosition { offset: base + at as u64, next: read.next, tag: read.tag, ..read.start };
        }
    }
    match reading.before {
        Some(before) if read.next != before => return Err(wrong(at, format!("entry {} is missing", read.next))),
        Some(_) => {}
        None if cut_short(bytes, at, reading.first) && follows_where_it_stands(bytes, at, read.next, &read.tag) => {}
        None => return Err(wrong(at, format!("the batch of entry {} is damaged", read.next))),
    }
    read.end = base + at as u64;
    read.written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| base + last as u64 + 1).max(read.end);
    Ok(read)
}

/// Returns whether the bytes from `at` on, which are not a complete batch, are empty, or the remains of a last write:
/// some of its sectors never reached the disk, and nothing follows it.
fn cut_short(bytes: &[u8], at: usize, first: u64) -> bool {
    let rest = bytes.get(at..).unwrap_or_default();
    if zeros(rest) {
        return true;
    }
    // If its header is there, it states the length; if not, a sector of the header must be missing, and the rest of it
    // may state the length.
    let (must_miss, end) = match batch_head(bytes, at) {
        Some(head) => (head.body.clone(), head.body.end),
        None => {
            let end = length_left(bytes, at).map_or(bytes.len(), |length| at + BATCH_HEAD + length);
            (at..at + BATCH_HEAD, end)
        }
    };
    // A byte or two of zeros may be the written data: then their loss explains nothing.
    let explains = |sector: std::ops::Range<usize>| {
        bytes.get(must_miss.clone()).is_none() || sector.len() > 2 || reads_with(bytes, at, &must_miss, sector)
    };
    let missing = sectors(must_miss.start, must_miss.end)
        .any(|sector| bytes.get(sector.clone()).is_none_or(zeros) && explains(sector));
    missing && zeros(bytes.get(end..).unwrap_or_default()) && !other_batch(bytes, at + 1, first)
}

/// Returns whether the existing sectors of a header at `at` match the header of the next batch: the first byte of its
/// length (a batch is some megabytes), its first entry, and the tag of the previous batch.
fn follows_where_it_stands(bytes: &[u8], at: usize, next: u64, after: &Tag) -> bool {
    let byte = |place: usize| bytes.get(place).copied().unwrap_or_default();
    let known = |place: usize| match place - at {
        0 => Some(0),
        place @ 8..16 => Some(next.to_be_bytes()[place - 8]),
        place @ 16..48 => Some(after[place - 16]),
        _ => None,
    };
    sectors(at, at + BATCH_HEAD)
        .filter(|sector| sector.clone().any(|place| byte(place) != 0))
        .all(|mut sector| sector.all(|place| known(place).is_none_or(|known| known == byte(place))))
}

/// Returns whether a header (`part` begins at `at`) or a body is valid with other bytes at one or two of these
/// positions.
fn reads_with(bytes: &[u8], at: usize, part: &std::ops::Range<usize>, places: std::ops::Range<usize>) -> bool {
    let sum = batch_head(bytes, at).map(|head| head.sum);
    let mut whole = bytes.get(part.clone()).unwrap_or_default().to_vec();
    let (from, count) = (places.start - part.start, places.len());
    (1..=u16::MAX >> (8 * (2 - count))).any(|value| {
        whole[from..from + count].copy_from_slice(&value.to_be_bytes()[2 - count..]);
        match sum {
            Some(sum) => crc32c::crc32c(&whole) == sum,
            None => batch_head(&whole, 0).is_some(),
        }
    })
}

/// Returns the length of a batch's body if its sector exists, even if the rest of the header does not.
fn length_left(bytes: &[u8], at: usize) -> Option<usize> {
    let in_one_sector = at / SECTOR == (at + 3) / SECTOR;
    let length = usize::try_from(u32::from_be_bytes(number(bytes, at)?)).ok()?;
    (in_one_sector && length > 0).then_some(length)
}

/// Returns the start of the first sector at or after a position in a segment.
pub(super) fn sector_after(place: u64) -> u64 {
    place.next_multiple_of(SECTOR as u64)
}

/// Returns the parts of a range by sector.
fn sectors(from: usize, end: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let first = from / SECTOR;
    (first..end.div_ceil(SECTOR)).map(move |one| (one * SECTOR).max(from)..((one + 1) * SECTOR).min(end))
}

/// Returns whether the header of a batch of this segment, which begins with entry `first`, is anywhere from `from` on:
/// a crash does not leave a misdirected last write either, even if it carried batches that are stored before.
fn other_batch(bytes: &[u8], from: usize, first: u64) -> bool {
    // Most of a segment is zeros that were written in advance: a header is where something else is. The index excludes most
    // positions there; then the checksum decides.
    let written = bytes.chunks(ZEROS.len()).enumerate().filter(|(_, block)| !zeros(block));
    let places = written.flat_map(|(block, _)| {
        let start = block * ZEROS.len();
        start.saturating_sub(BATCH_HEAD).max(from)..(start + ZEROS.len()).min(bytes.len())
    });
    let own = |at: usize| number(bytes, at + 8).is_some_and(|index| u64::from_be_bytes(index) >= first);
    places.into_iter().any(|at| bytes[at] == 0 && own(at) && batch_head(bytes, at).is_some())
}

/// What is compared at once.
const ZEROS: [u8; 4096] = [0; 4096];

/// Returns whether there is nothing but zeros.
pub(crate) fn zeros(bytes: &[u8]) -> bool {
    bytes.chunks(ZEROS.len()).all(|block| *block == ZEROS[..block.len()])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key() -> ChainKey {
        ChainKey::new(b"secret")
    }

    /// Three batches; returns their offsets.
    fn segment() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut tag, mut at) = (head(7, &[9; 32]), [9; 32], Vec::new());
        for (first, size) in [(7, 100), (9, 3_000), (11, 2_000)] {
            at.push(bytes.len());
            tag = put_batch(&mut bytes, &key(), &tag, first, &[vec![1; size], vec![2; size]]);
        }
        (bytes, at)
    }

    fn read(bytes: &[u8], key: Option<&ChainKey>) -> Result<Segmented, LogError> {
        let reading = Reading { first: 7, before: None, from: 0, key, keyed_from: 0, start: None };
        parse(Path::new("7.seg"), &SegmentBytes::complete(bytes), reading)
    }

    fn refused(bytes: &[u8]) -> String {
        read(bytes, Some(&key())).err().unwrap().to_string()
    }

    #[test]
    fn whole_batches_are_read_and_a_write_that_a_crash_cut_short_is_not() {
        let (bytes, at) = segment();
        assert_eq!(read(&bytes, Some(&key())).unwrap().records.len(), 6);
        // Any one sector of the last write is missing, including its header's.
        for sector in sectors(at[2], bytes.len()) {
            let mut torn = bytes.clone();
            torn[sector].fill(0);
            assert_eq!(read(&torn, Some(&key())).unwrap().next, 11);
        }
        let mut made = head(7, &[0; 32]);
        made.resize(10_000, 0);
        assert_eq!(read(&made, Some(&key())).unwrap().records, []);
    }

    #[test]
    fn a_later_reading_begins_where_the_earlier_one_s_entries_began() {
        let (bytes, at) = segment();
        let read = |from, start: Option<BatchPosition>, bytes: &[u8]| {
            let base = start.map_or(0, |start| start.offset / SECTOR as u64 * SECTOR as u64);
            let part = SegmentBytes { head: &bytes[..HEAD], base, rest: &bytes[base as usize..] };
            let reading = Reading { first: 7, before: None, from, key: Some(&key()), keyed_from: 0, start };
            parse(Path::new("7.seg"), &part, reading)
        };
        for (from, batch) in [(7, 0), (8, 0), (9, 1), (10, 1), (12, 2)] {
            let first = read(from, None, &bytes).unwrap();
            assert_eq!(first.start.offset, at[batch] as u64, "{from}");
            let next = 7 + 2 * batch as u64;
            assert!(first.start.serves(7, next) && !first.start.serves(7, next - 1) && !first.start.serves(8, next));
            // What is before it is not read again; what is behind it is, as it is read from the beginning.
            let mut changed = bytes.clone();
            changed[HEAD..at[batch]].fill(7);
            let later = read(from, Some(first.start), &changed).unwrap();
            assert_eq!(later.records, first.records);
            assert_eq!((later.next, later.last, later.end, later.written), (13, first.last, first.end, first.written));
            changed[at[2] + BATCH_HEAD + 9] ^= 1;
            let error = read(from, Some(first.start), &changed).err().unwrap().to_string();
            let whole = read(from, None, &[&bytes[..at[2]], &changed[at[2]..]].concat()).err().unwrap().to_string();
            assert_eq!(error, whole);
        }
        let end = read(13, None, &bytes).unwrap().start;
        assert_eq!((end.offset, read(13, Some(end), &bytes).unwrap().records), (bytes.len() as u64, vec![]));
    }

    #[test]
    fn l3_what_no_crash_leaves_is_refused_with_its_place() {
        let (bytes, at) = segment();
        for empty in [Vec::new(), vec![0; 10_000], [vec![0; 64], bytes[64..].to_vec()].concat()] {
            assert!(refused(&empty).contains("at byte 0: is no journal segment"));
        }
        // A missing sector, or one bit, in a batch with a successor; one bit in the last.
        for place in [at[0] + 2, at[0] + 120, at[1] + 2, at[1] + 1_000, at[2] + 2, at[2] + 90, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[place] ^= 4;
            let batch = at.iter().rev().find(|at| **at <= place).unwrap();
            assert!(refused(&damaged).contains(&format!("at byte {batch}:")), "{place}: {}", refused(&damaged));
        }
        // One bit of a last batch that begins a byte or two before a sector: its zeros there are the written data.
        for early in [1, 2] {
            let mut close = head(7, &[9; 32]);
            let tag = put_batch(&mut close, &key(), &[9; 32], 7, &[vec![1; SECTOR - HEAD - BATCH_HEAD - 2 - early]]);
            assert_eq!(close.len(), SECTOR - early);
            put_batch(&mut close, &key(), &tag, 8, &[vec![2; 700]]);
            let whole = close.clone();
            for place in [SECTOR + 20, SECTOR + 300] {
                close[place] ^= 4;
                assert!(refused(&close).contains("entry 8 is damaged"), "{early} {place}");
                close[place] ^= 4;
            }
            close[SECTOR..2 * SECTOR].fill(0);
            assert_eq!(read(&close, Some(&key())).unwrap().next, 8, "a lost sector is a crash's");
            assert_eq!(read(&whole, Some(&key())).unwrap().next, 9);
        }
        // A sector with the end of a batch's header and the complete header of the next: the rest of the first states
        // its length.
        let (mut two, mut tag) = (head(7, &[9; 32]), [9; 32]);
        for (first, size) in [(7, 300), (8, 40), (9, 900)] {
            tag = put_batch(&mut two, &key(), &tag, first, &[vec![1; size]]);
        }
        two[SECTOR..2 * SECTOR].fill(0);
        assert!(refused(&two).contains("entry 8 is damaged"), "{}", refused(&two));
        let mut lost = bytes.clone();
        lost[1_024..1_536].fill(0);
        assert!(refused(&lost).contains("damaged"));
        // The last write landed further back than it belongs.
        for further in [1, SECTOR, 4_096] {
            let moved = [&bytes[..at[2]], &vec![0; further], &bytes[at[2]..]].concat();
            assert!(refused(&moved).contains("entry 11 is damaged"), "{further}: {}", refused(&moved));
        }
        // It carried the previous batches, as they are in its first block: they are there once more, further back.
        let mut again = [&bytes[..at[2]], &vec![0; 9_000]].concat();
        again[at[2] + 4_000..at[2] + 4_000 + 1_000].copy_from_slice(&bytes[..1_000]);
        assert!(refused(&again).contains("entry 11 is damaged"), "{}", refused(&again));
        // A byte after the last batch, at any position of its sector: no batch header begins in this way.
        for size in SECTOR..2 * SECTOR {
            let mut more = head(7, &[9; 32]);
            put_batch(&mut more, &key(), &[9; 32], 7, &[vec![1; size]]);
            more.push(b'\n');
            assert!(refused(&more).contains("entry 8 is damaged"), "{size}: {}", refused(&more));
        }
        // A header of another position, with a body that never reached the disk.
        for (tag, first) in [([8; 32], 13), (bytes[at[2] + 48..at[2] + 80].try_into().unwrap(), 12)] {
            let mut elsewhere = bytes.clone();
            put_batch(&mut elsewhere, &key(), &tag, first, &[vec![1; 2_000]]);
            elsewhere.truncate(bytes.len() + BATCH_HEAD);
            assert!(refused(&elsewhere).contains("entry 13 is damaged"), "{first}");
        }
        // Data after a write that was cut short.
        let mut behind = bytes.clone();
        behind[at[2] + 1_000..at[2] + 2_200].fill(0);
        behind.extend([0, 1]);
        assert!(refused(&behind).contains("damaged"));
    }

    #[test]
    fn a_batch_that_was_invented_moved_or_repeated_is_told_from_a_written_one() {
        let (bytes, at) = segment();
        let tag: Tag = bytes[at[2] + 48..at[2] + 80].try_into().unwrap();
        let mut invented = bytes.clone();
        put_batch(&mut invented, &ChainKey::new(b"guessed"), &tag, 13, &[b"nobody looked".to_vec()]);
        assert!(refused(&invented).contains("entry 13 was not written by this log"));
        // Without the key it cannot be detected; a wrong link can.
        assert_eq!(read(&invented, None).unwrap().next, 14);
        let moved = [&bytes[..at[1]], &bytes[at[2]..]].concat();
        assert!(read(&moved, None).is_err() && refused(&moved).contains("does not follow"));
        let repeated = [&bytes[..], &bytes[at[2]..]].concat();
        assert!(read(&repeated, None).is_err());
    }
}
