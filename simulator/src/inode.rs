//! A file of the simulated disk: its bytes, and which of them are durable.

use std::ops::Range;

/// The unit that is kept or lost.
pub const SECTOR: usize = 512;

/// The bytes of a file: the visible ones and the durable ones.
#[derive(Debug, Default)]
pub struct Inode {
    /// The visible bytes.
    pub now: Vec<u8>,
    /// The bytes that survive any crash.
    pub durable: Vec<u8>,
    /// The unsynced changes, in order.
    pub pending: Vec<Pending>,
}

/// An unsynced change.
#[derive(Debug)]
pub enum Pending {
    /// Bytes at an offset.
    Write(usize, Vec<u8>),
    /// Truncated or extended.
    Length(usize),
}

/// Writes bytes at an offset, also beyond the end.
pub fn put(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    if bytes.len() < at + new.len() {
        bytes.resize(at + new.len(), 0);
    }
    bytes[at..at + new.len()].copy_from_slice(new);
}

fn sectors(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let Range { start, end } = range;
    (start / SECTOR..end.div_ceil(SECTOR)).map(move |one| (one * SECTOR).max(start)..((one + 1) * SECTOR).min(end))
}

impl Inode {
    /// Everything reaches the disk.
    pub fn sync(&mut self) {
        for pending in self.pending.drain(..) {
            match pending {
                Pending::Length(length) => self.durable.resize(length, 0),
                Pending::Write(at, bytes) => put(&mut self.durable, at, &bytes),
            }
        }
    }

    /// Keeps this percentage of the unsynced pieces, and drops the rest.
    pub fn settle(&mut self, rng: &mut fastrand::Rng, keep: u32) {
        let length = self.durable.len();
        let same_length = rng.u32(..100) >= keep;
        for pending in self.pending.drain(..) {
            match pending {
                Pending::Length(length) if rng.u32(..100) < keep => self.durable.resize(length, 0),
                Pending::Length(_) => {}
                Pending::Write(at, bytes) => {
                    for sector in sectors(at..at + bytes.len()).filter(|_| rng.u32(..100) < keep) {
                        put(&mut self.durable, sector.start, &bytes[sector.start - at..sector.end - at]);
                    }
                }
            }
        }
        if same_length {
            self.durable.resize(length, 0);
        }
        self.now = self.durable.clone();
    }
}
