//! RFC 6962 Merkle tree hashing (section 2.1), and the right edge of a growing tree as tlog-tiles keeps it.

use aws_lc_rs::digest::{Context, SHA256};

/// A node's hash.
pub type Hash = [u8; 32];

/// Hashes in a full tile, entries in a full bundle (tlog-tiles).
pub const TILE: usize = 256;

fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The hash of a leaf: SHA-256(0x00 ‖ entry).
pub fn leaf_hash(entry: &[u8]) -> Hash {
    sha256(&[&[0], entry])
}

/// The hash of a node: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

/// The root of an empty tree: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    sha256(&[])
}

/// The tree hash over nodes: split at the largest power of two below their number. All but the last must be of the same
/// size; the last may be the root of a smaller subtree, since the split then falls between the same leaves.
pub fn tree_hash(nodes: &[Hash]) -> Hash {
    match nodes {
        [] => empty_root(),
        [one] => *one,
        many => {
            let split = many.len().next_power_of_two() / 2;
            node_hash(&tree_hash(&many[..split]), &tree_hash(&many[split..]))
        }
    }
}

/// The right edge of a tree: at each level of tiles, the hashes of the tile that is not full yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edge {
    /// Number of leaves.
    pub size: u64,
    /// `levels[n]`: fewer than 256 hashes of subtrees of 256^n leaves.
    pub levels: Vec<Vec<Hash>>,
}

/// A tile that became full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullTile {
    /// Level, from 0.
    pub level: usize,
    /// Index at its level.
    pub index: u64,
    /// Its 256 hashes.
    pub hashes: Vec<Hash>,
}

impl Edge {
    /// Adds a leaf, and returns the tiles that became full, lowest first.
    pub fn push(&mut self, leaf: Hash) -> Vec<FullTile> {
        let mut full = Vec::new();
        let mut hash = leaf;
        let mut level = 0;
        self.size += 1;
        loop {
            if self.levels.len() == level {
                self.levels.push(Vec::with_capacity(TILE));
            }
            self.levels[level].push(hash);
            if self.levels[level].len() < TILE {
                debug_assert!(self.is_consistent(), "promise 2: the right edge holds {} leaves", self.size);
                return full;
            }
            let hashes = std::mem::take(&mut self.levels[level]);
            hash = tree_hash(&hashes);
            full.push(FullTile { level, index: (self.size >> (8 * (level + 1))) - 1, hashes });
            level += 1;
        }
    }

    /// Whether the hashes of all levels stand for as many leaves as are counted, and none of them for a full tile.
    fn is_consistent(&self) -> bool {
        let leaves = |(level, hashes): (u32, &Vec<Hash>)| (hashes.len() as u64) << (8 * level).min(63);
        self.levels.iter().all(|hashes| hashes.len() < TILE)
            && (0..).zip(&self.levels).map(leaves).sum::<u64>() == self.size
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        let mut below: Option<Hash> = None;
        for level in &self.levels {
            let nodes: Vec<Hash> = level.iter().copied().chain(below).collect();
            if !nodes.is_empty() {
                below = Some(tree_hash(&nodes));
            }
        }
        below.unwrap_or_else(empty_root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => empty_root(),
            [one] => leaf_hash(one),
            many => {
                let mut split = 1;
                while split * 2 < many.len() {
                    split *= 2;
                }
                node_hash(&naive(&many[..split]), &naive(&many[split..]))
            }
        }
    }

    fn hex(hash: &Hash) -> String {
        crate::hex::hex(hash)
    }

    /// The vectors of certificate-transparency's reference tests (RFC 6962 trees of these eight leaves).
    #[test]
    fn roots_are_those_of_the_reference_vectors() {
        let leaves: Vec<Vec<u8>> =
            ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
                .iter()
                .map(|text| {
                    (0..text.len() / 2).filter_map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()).collect()
                })
                .collect();
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut edge = Edge::default();
        assert_eq!(hex(&edge.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for (leaf, root) in leaves.iter().zip(roots) {
            edge.push(leaf_hash(leaf));
            assert_eq!(hex(&edge.root()), root);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn the_edge_has_the_root_of_a_naive_tree(count in 0usize..1500) {
            let leaves: Vec<Vec<u8>> = (0..count).map(|i| i.to_be_bytes().to_vec()).collect();
            let mut edge = Edge::default();
            let full: usize = leaves.iter().map(|leaf| edge.push(leaf_hash(leaf)).len()).sum();
            prop_assert_eq!(edge.root(), naive(&leaves));
            prop_assert_eq!(full, count / 256);
        }
    }
}
