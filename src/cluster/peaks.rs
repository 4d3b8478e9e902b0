//! The peaks of a growing Merkle tree (RFC 6962): the roots of its complete subtrees, largest first. They are all that a
//! sealer needs to compute the next root, 64 hashes at most, and travel with the checkpoint.

use crate::exchange_log::tree::{Hash, empty_root, leaf_hash, node_hash};

/// The peaks of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peaks {
    size: u64,
    hashes: Vec<Hash>,
}

impl Peaks {
    /// Returns the peaks of a tree of this size; `None` if it has another number of them.
    pub fn new(size: u64, hashes: Vec<Hash>) -> Option<Self> {
        (hashes.len() == size.count_ones() as usize).then_some(Peaks { size, hashes })
    }

    /// Returns the peaks of a tree whose complete subtrees are known by the logarithm of their leaves, and their position in
    /// their level.
    ///
    /// # Errors
    /// That of `node` for a subtree that it cannot return.
    pub fn of<E>(size: u64, node: impl Fn(u32, u64) -> Result<Hash, E>) -> Result<Self, E> {
        let levels = (0..u64::BITS).rev().filter(|level| size >> level & 1 == 1);
        // What is left of a peak is a multiple of its leaves.
        let hashes = levels.map(|level| node(level, (size >> level) - 1)).collect::<Result<_, E>>()?;
        Ok(Peaks { size, hashes })
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the complete subtrees, largest first.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: &[u8]) {
        let mut hash = leaf_hash(entry);
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.hashes.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.hashes.push(hash);
        self.size += 1;
    }

    /// The root.
    pub fn root(&self) -> Hash {
        let all = self.hashes.iter().rev().copied();
        all.reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange_log::tree::Edge;

    #[test]
    fn the_peaks_are_the_complete_subtrees() {
        for size in 0u64..70 {
            let mut peaks = Peaks::default();
            (0..size).for_each(|number| peaks.push(&number.to_be_bytes()));
            let subtree = |level: u32, index: u64| {
                let mut peaks = Peaks::default();
                (index << level..(index + 1) << level).for_each(|number| peaks.push(&number.to_be_bytes()));
                Ok::<_, ()>(peaks.root())
            };
            assert_eq!(Peaks::of(size, subtree), Ok(peaks));
        }
    }

    #[test]
    fn the_root_is_that_of_the_right_edge() {
        let (mut peaks, mut edge) = (Peaks::default(), Edge::default());
        assert_eq!(peaks.root(), edge.root());
        for number in 0u32..1200 {
            let entry = number.to_be_bytes();
            peaks.push(&entry);
            edge.push(leaf_hash(&entry));
            assert_eq!((peaks.size(), peaks.root()), (edge.size, edge.root()));
            assert_eq!(Peaks::new(peaks.size(), peaks.hashes().to_vec()).as_ref(), Some(&peaks));
        }
        assert_eq!(Peaks::new(3, vec![[0; 32]]), None);
    }
}
