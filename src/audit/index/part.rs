//! The index of a range of the log, and its encoding. The same entries always give the same bytes, so that anybody with
//! the log can recompute them.
//!
//! A part covers 1, 16 or 256 full bundles. It has as many cells of terms as bundles. A term (a client, a purpose, a
//! pseudonym, an exchange's id ...) is 64 bits of a hash; it is in the cell that its last bits select, followed by the
//! positions of its entries within the part. So one cell shows whether any entry of a part has a term; the cell must
//! exist in either case. Two more cells hold the part's times and operations, and its exchanges counted by the hour.

use super::terms;
use crate::audit::query::outcome;
use crate::exchange_log::tree::TILE;
use crate::exchange_log::{Entry, Kind};
use crate::varint;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// An hour in microseconds.
pub const HOUR_US: i64 = 3_600_000_000;
/// Levels of parts: of 1, 16 and 256 bundles.
pub const LEVELS: u8 = 3;
/// The cell with a part's times and operations.
pub const HEAD: u16 = 256;
/// The cell with its counts by the hour.
pub const HOURS: u16 = 257;
const CELL_BITS: u32 = 10;
const LEVEL_AT: u32 = 60;

/// A range of the log of 16^`level` full bundles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexPart {
    /// From 0 to 2.
    pub level: u8,
    /// Its position in its level.
    pub position: u64,
}

impl IndexPart {
    /// Returns the part that covers a bundle if the first `indexed` bundles are in the index: the largest complete one.
    pub fn over(bundle: u64, indexed: u64) -> Self {
        let whole = |level: &u8| bundle >> (4 * level) < indexed >> (4 * level);
        let level = (0..LEVELS).rev().find(whole).unwrap_or(0);
        IndexPart { level, position: bundle >> (4 * level) }
    }

    /// Returns every part of an index of this many bundles, oldest first.
    pub fn all(indexed: u64) -> impl Iterator<Item = IndexPart> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let part = (next < indexed).then(|| IndexPart::over(next, indexed))?;
            next = part.bundles().end;
            Some(part)
        })
    }

    /// Returns its bundles.
    pub fn bundles(self) -> Range<u64> {
        self.position << (4 * self.level)..(self.position + 1) << (4 * self.level)
    }

    /// Returns its entries.
    pub fn entries(self) -> Range<u64> {
        let bundles = self.bundles();
        bundles.start * TILE as u64..bundles.end * TILE as u64
    }

    /// Returns the node of the log's tree above its entries: level and index.
    pub fn node(self) -> (u32, u64) {
        (8 + 4 * u32::from(self.level), self.position)
    }

    /// Returns the number of cells for its terms.
    pub fn buckets(self) -> u16 {
        1 << (4 * self.level)
    }

    /// Returns the cell of a term.
    pub fn cell_of(self, term: u64) -> u16 {
        term as u16 & (self.buckets() - 1)
    }

    /// Returns its cells, in the order of their numbers.
    pub fn cells(self) -> impl Iterator<Item = u16> {
        (0..self.buckets()).chain([HEAD, HOURS])
    }

    /// Returns the row of a cell.
    pub fn row(self, cell: u16) -> i64 {
        (u64::from(self.level) << LEVEL_AT | self.position << CELL_BITS | u64::from(cell)) as i64
    }

    /// Returns the rows of all cells of a level.
    pub fn rows_of_level(level: u8) -> Range<i64> {
        i64::from(level) << LEVEL_AT..(i64::from(level) + 1) << LEVEL_AT
    }

    /// Returns the part and cell of a row.
    pub fn of_row(row: i64) -> (Self, u16) {
        let row = row.unsigned_abs();
        let position = (row & ((1 << LEVEL_AT) - 1)) >> CELL_BITS;
        (IndexPart { level: (row >> LEVEL_AT) as u8, position }, (row & ((1 << CELL_BITS) - 1)) as u16)
    }
}

/// A part's times and operations.
#[derive(Clone, PartialEq, Message)]
pub struct PartHeader {
    /// The earliest and the latest time of its entries.
    #[prost(sint64, tag = "1")]
    pub min_us: i64,
    /// See `min_us`.
    #[prost(sint64, tag = "2")]
    pub max_us: i64,
    /// Number of indexed entries: those of pruned bundles are missing.
    #[prost(uint32, tag = "3")]
    pub entries: u32,
    /// Full names of its operations.
    #[prost(string, repeated, tag = "4")]
    pub operations: Vec<String>,
    /// For each bundle its earliest time, relative to the part's, and how much later its latest is; -1 if it was
    /// pruned.
    #[prost(sint64, repeated, tag = "5")]
    pub bundles: Vec<i64>,
}

impl PartHeader {
    /// Returns whether a bundle, by its position in the part, can have entries from one time until before another.
    pub fn may_hold(&self, bundle: usize, from_us: i64, to_us: i64) -> bool {
        match self.bundles.get(2 * bundle..2 * bundle + 2) {
            Some([first, more]) => {
                let first = self.min_us.saturating_add(*first);
                *more >= 0 && first < to_us && first.saturating_add(*more) >= from_us
            }
            _ => true,
        }
    }
}

/// A part's exchanges by the hour.
#[derive(Clone, PartialEq, Message)]
pub struct Hours {
    /// Number of counted entries of all kinds.
    #[prost(uint32, tag = "1")]
    pub entries: u32,
    /// The texts that counts refer to by position.
    #[prost(string, repeated, tag = "2")]
    pub texts: Vec<String>,
    /// The counts.
    #[prost(message, repeated, tag = "3")]
    pub counts: Vec<Count>,
}

/// Exchanges of one kind in one hour.
#[derive(Clone, PartialEq, Message)]
pub struct Count {
    /// Hours since 1970.
    #[prost(sint64, tag = "1")]
    pub hour: i64,
    /// Client, agency, source, operation and outcome.
    #[prost(uint32, repeated, tag = "2")]
    pub names: Vec<u32>,
    /// Number of exchanges.
    #[prost(uint64, tag = "3")]
    pub exchanges: u64,
    /// Sum of their durations, in microseconds.
    #[prost(uint64, tag = "4")]
    pub total_us: u64,
    /// Bytes of their responses.
    #[prost(uint64, tag = "5")]
    pub response_bytes: u64,
}

type CountKey = (i64, [String; 5]);

/// The cells of a part, by number.
pub type Cells = BTreeMap<u16, Vec<u8>>;

/// The content of a part while it is built.
pub struct PartBuilder {
    part: IndexPart,
    terms: Vec<(u64, u16)>,
    head: PartHeader,
    operations: BTreeSet<String>,
    hours: BTreeMap<CountKey, [u64; 3]>,
    counted: u32,
    of_entry: Vec<u64>,
    /// The earliest and the latest time of each bundle.
    times: Vec<(i64, i64)>,
}

/// The times of a bundle without entries.
const NO_TIMES: (i64, i64) = (i64::MAX, i64::MIN);

impl PartBuilder {
    /// Begins a part.
    pub fn of(part: IndexPart) -> Self {
        let (operations, hours) = (BTreeSet::new(), BTreeMap::new());
        let (terms, of_entry, head) = (Vec::new(), Vec::new(), PartHeader::default());
        let bundles = part.bundles();
        let times = vec![NO_TIMES; usize::try_from(bundles.end - bundles.start).unwrap_or(0)];
        PartBuilder { part, terms, head, operations, hours, counted: 0, of_entry, times }
    }

    /// Adds an entry, by its position within the part.
    pub fn entry(&mut self, place: u16, entry: &Entry) {
        self.of_entry.clear();
        terms::of(entry, &mut self.of_entry);
        self.terms.extend(self.of_entry.iter().map(|term| (*term, place)));
        if let Some(times) = self.times.get_mut(usize::from(place) / TILE) {
            *times = (times.0.min(entry.time_us), times.1.max(entry.time_us));
        }
        self.head.entries += 1;
        self.counted += 1;
        if !self.operations.contains(&entry.operation) {
            self.operations.insert(entry.operation.clone());
        }
        if entry.kind() == Kind::Exchange {
            let names = [&entry.client, &entry.agency, &entry.source, &entry.operation].map(Clone::clone);
            let [client, agency, source, operation] = names;
            let key =
                (entry.time_us.div_euclid(HOUR_US), [client, agency, source, operation, outcome(entry).to_owned()]);
            self.count(key, [1, entry.total_us, entry.response_bytes]);
        }
    }

    /// Adds a smaller part, cell by cell; `None` if a cell is missing or cannot be read.
    pub fn part(&mut self, smaller: IndexPart, mut cell: impl FnMut(u16) -> Option<Vec<u8>>) -> Option<()> {
        let offset = u16::try_from(smaller.entries().start - self.part.entries().start).ok()?;
        for bucket in 0..smaller.buckets() {
            let bytes = cell(bucket)?;
            for (term, places) in postings(&bytes) {
                self.terms.extend(positions_of(places).map(|place| (term, place.wrapping_add(offset))));
            }
        }
        let head = PartHeader::decode(cell(HEAD)?.as_slice()).ok()?;
        let (times, _) = head.bundles.as_chunks::<2>();
        let at = self.times.iter_mut().skip(usize::from(offset) / TILE);
        for (of_bundle, [first, more]) in at.zip(times) {
            if *more >= 0 {
                let first = head.min_us.checked_add(*first)?;
                *of_bundle = (first, first.checked_add(*more)?);
            }
        }
        self.head.entries += head.entries;
        self.operations.extend(head.operations);
        let hours = Hours::decode(cell(HOURS)?.as_slice()).ok()?;
        self.counted += hours.entries;
        for count in &hours.counts {
            let text = |at: &u32| hours.texts.get(*at as usize).cloned();
            let names: Vec<String> = count.names.iter().map(text).collect::<Option<_>>()?;
            let sums = [count.exchanges, count.total_us, count.response_bytes];
            self.count((count.hour, names.try_into().ok()?), sums);
        }
        Some(())
    }

    fn count(&mut self, key: CountKey, sums: [u64; 3]) {
        let all = self.hours.entry(key).or_default();
        all.iter_mut().zip(sums).for_each(|(all, one)| *all = all.saturating_add(one));
    }

    /// Returns the cells.
    pub fn finish(mut self) -> Cells {
        let part = self.part;
        self.terms.sort_unstable();
        self.terms.dedup();
        let mut cells: Cells = (0..part.buckets()).map(|cell| (cell, Vec::new())).collect();
        for of_term in self.terms.chunk_by(|one, other| one.0 == other.0) {
            let Some((term, _)) = of_term.first() else { continue };
            if let Some(cell) = cells.get_mut(&part.cell_of(*term)) {
                put_posting(cell, *term, of_term.iter().map(|(_, place)| *place));
            }
        }
        self.head.operations = self.operations.into_iter().collect();
        let there = || self.times.iter().filter(|times| **times != NO_TIMES);
        self.head.min_us = there().map(|times| times.0).min().unwrap_or(0);
        self.head.max_us = there().map(|times| times.1).max().unwrap_or(0);
        let of_bundle = |times: &(i64, i64)| match *times {
            NO_TIMES => [0, -1],
            (first, last) => [first.saturating_sub(self.head.min_us), last.saturating_sub(first)],
        };
        let bundles = self.times.iter().flat_map(of_bundle).collect();
        self.head.bundles = bundles;
        cells.insert(HEAD, self.head.encode_to_vec());
        let texts: BTreeSet<&String> = self.hours.keys().flat_map(|(_, names)| names).collect();
        let numbers: BTreeMap<&String, u32> = texts.iter().copied().zip(0..).collect();
        let counts = self.hours.iter().map(|((hour, names), [exchanges, total_us, response_bytes])| Count {
            hour: *hour,
            names: names.iter().filter_map(|name| numbers.get(name).copied()).collect(),
            exchanges: *exchanges,
            total_us: *total_us,
            response_bytes: *response_bytes,
        });
        let counts = counts.collect();
        let texts = texts.into_iter().cloned().collect();
        cells.insert(HOURS, Hours { entries: self.counted, texts, counts }.encode_to_vec());
        cells
    }
}

/// A term, the length of its positions, its positions: each as the distance from the one before, in groups of seven
/// bits.
fn put_posting(cell: &mut Vec<u8>, term: u64, places: impl Iterator<Item = u16>) {
    let (mut bytes, mut before) = (Vec::new(), 0);
    for place in places {
        varint::write(&mut bytes, u64::from(place - before));
        before = place;
    }
    cell.extend_from_slice(&term.to_be_bytes());
    varint::write(cell, bytes.len() as u64);
    cell.extend_from_slice(&bytes);
}

fn take_number(bytes: &mut &[u8]) -> Option<u32> {
    let (number, length) = varint::read(bytes)?;
    *bytes = bytes.get(length..)?;
    u32::try_from(number).ok()
}

/// Returns the terms of a cell with the bytes of their positions.
pub fn postings(mut cell: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        let (term, rest) = cell.split_first_chunk::<8>()?;
        cell = rest;
        let length = take_number(&mut cell)? as usize;
        let (places, rest) = cell.split_at_checked(length)?;
        cell = rest;
        Some((u64::from_be_bytes(*term), places))
    })
}

/// Returns the positions of a term, in order.
pub fn positions_of(mut bytes: &[u8]) -> impl Iterator<Item = u16> {
    let mut before = 0u16;
    std::iter::from_fn(move || {
        let step = take_number(&mut bytes)?;
        before = before.wrapping_add(step as u16);
        Some(before)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry(number: u64) -> Entry {
        Entry {
            client: format!("c{}", number % 7),
            agency: "H49.1".into(),
            operation: format!("a.B/C{}", number % 3),
            time_us: 1_790_000_000_000_000 + number as i64 * 1_000_000,
            ..Entry::begin(Kind::Exchange, "dc1")
        }
    }

    #[test]
    fn parts_cover_every_bundle_once() {
        for indexed in [0, 1, 15, 16, 17, 255, 256, 257, 272, 600] {
            let mut next = 0;
            for part in IndexPart::all(indexed) {
                assert_eq!(part.bundles().start, next);
                next = part.bundles().end;
                assert_eq!(IndexPart::of_row(part.row(HOURS)), (part, HOURS));
                assert!(IndexPart::rows_of_level(part.level).contains(&part.row(0)));
            }
            assert_eq!(next, indexed);
        }
        assert_eq!(IndexPart::over(3, 600), IndexPart { level: 2, position: 0 });
        assert_eq!(IndexPart::over(599, 600), IndexPart { level: 0, position: 599 });
    }

    #[test]
    fn a_part_is_the_same_from_its_entries_and_from_its_parts() {
        let entries: Vec<Entry> = (0..4_096).map(entry).collect();
        let whole = IndexPart { level: 1, position: 5 };
        let mut direct = PartBuilder::of(whole);
        (0u16..).zip(&entries).for_each(|(place, entry)| direct.entry(place, entry));
        let mut merged = PartBuilder::of(whole);
        for (at, entries) in entries.chunks(256).enumerate() {
            let part = IndexPart { level: 0, position: 5 * 16 + at as u64 };
            let mut small = PartBuilder::of(part);
            (0u16..).zip(entries).for_each(|(place, entry)| small.entry(place, entry));
            let cells = small.finish();
            assert_eq!(cells.keys().copied().collect::<Vec<_>>(), part.cells().collect::<Vec<_>>());
            merged.part(part, |cell| cells.get(&cell).cloned()).unwrap();
        }
        let (direct, merged) = (direct.finish(), merged.finish());
        assert_eq!(direct, merged);
        let term = terms::client("c3");
        let cell = &direct[&whole.cell_of(term)];
        let places = postings(cell).find(|one| one.0 == term).map(|one| positions_of(one.1).collect::<Vec<_>>());
        assert_eq!(places.unwrap(), (0..4_096).filter(|at| at % 7 == 3).collect::<Vec<u16>>());
    }

    #[test]
    fn cells_that_are_no_cells_end_without_a_panic() {
        for bytes in [&[][..], &[1; 7], &[1; 9], &[0xff; 40], &[0, 0, 0, 0, 0, 0, 0, 1, 3, 0x80]] {
            for (_, places) in postings(bytes) {
                assert!(positions_of(places).count() <= bytes.len());
            }
        }
    }
}
