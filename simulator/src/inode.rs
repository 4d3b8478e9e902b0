//! A file of the simulated disk: its bytes, and which of them are durable.

use std::ops::Range;

/// The least that is kept or lost.
pub const SECTOR: usize = 512;

/// The bytes of a file: as they are seen, and as they are on the disk.
#[derive(Debug, Default)]
pub struct Inode {
    /// What is read.
    pub now: Vec<u8>,
    /// What is there after a crash, whatever happens.
    pub durable: Vec<u8>,
    /// What makes the difference, in order.
    pub pending: Vec<Pending>,
}

/// A change that was not synced.
#[derive(Debug)]
pub enum Pending {
    /// Bytes at a place.
    Write(usize, Vec<u8>),
    /// Cut or lengthened.
    Length(usize),
}

/// Writes bytes at a place, behind the end, too.
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
    /// All of it reaches the disk.
    pub fn sync(&mut self) {
        for pending in self.pending.drain(..) {
            match pending {
                Pending::Length(length) => self.durable.resize(length, 0),
                Pending::Write(at, bytes) => put(&mut self.durable, at, &bytes),
            }
        }
    }

    /// Keeps so many of a hundred pieces of what was not synced, and forgets the rest.
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
