//! Inclusion and consistency proofs (RFC 9162, section 2.1.3 and 2.1.4; the tree is that of RFC 6962).

use super::LogError;
use super::tree::{Hash, node_hash};

/// Returns the hash of a complete subtree: `level` is the logarithm of the number of its leaves, `index` its position
/// in its level.
pub type Nodes<'n> = &'n dyn Fn(u32, u64) -> Result<Hash, LogError>;

/// Hash of the leaves from `start` to `end` (not empty), where such a subtree can begin at `start`.
fn range(nodes: Nodes<'_>, start: u64, end: u64) -> Result<Hash, LogError> {
    let count = end - start;
    if count.is_power_of_two() {
        let level = count.trailing_zeros();
        return nodes(level, start >> level);
    }
    let split = start + largest_power_below(count);
    Ok(node_hash(&range(nodes, start, split)?, &range(nodes, split, end)?))
}

/// The largest power of two below a number that is at least two.
fn largest_power_below(count: u64) -> u64 {
    1 << (63 - (count - 1).leading_zeros())
}

/// Returns the root of the first `size` leaves; `size` is at least 1.
///
/// # Errors
/// The error of `nodes` for a hash that it cannot return.
pub fn root(nodes: Nodes<'_>, size: u64) -> Result<Hash, LogError> {
    range(nodes, 0, size)
}

/// Returns PATH(index, D[0:size]) (RFC 6962, section 2.1.1): the hashes that, with the leaf's, give the root.
///
/// # Errors
/// The error of `nodes` for a hash that it cannot return.
pub fn inclusion(nodes: Nodes<'_>, index: u64, size: u64) -> Result<Vec<Hash>, LogError> {
    let (mut start, mut end, mut path) = (0, size, Vec::new());
    while end - start > 1 {
        let split = start + largest_power_below(end - start);
        if index < split {
            path.push(range(nodes, split, end)?);
            end = split;
        } else {
            path.push(range(nodes, start, split)?);
            start = split;
        }
    }
    path.reverse();
    Ok(path)
}

/// Returns PROOF(old, D[0:size]) (RFC 6962, section 2.1.2): it proves that the tree of `old` leaves is the beginning of
/// that of `size`.
///
/// # Errors
/// The error of `nodes` for a hash that it cannot return.
pub fn consistency(nodes: Nodes<'_>, old: u64, size: u64) -> Result<Vec<Hash>, LogError> {
    if old == 0 || old == size {
        return Ok(Vec::new());
    }
    let (mut start, mut end, mut whole, mut path) = (0, size, true, Vec::new());
    loop {
        if old == end {
            if !whole {
                path.push(range(nodes, start, end)?);
            }
            path.reverse();
            return Ok(path);
        }
        let split = start + largest_power_below(end - start);
        if old <= split {
            path.push(range(nodes, split, end)?);
            end = split;
        } else {
            path.push(range(nodes, start, split)?);
            start = split;
            whole = false;
        }
    }
}

/// Returns the root for a leaf and its path (RFC 9162, section 2.1.3.2); `None` if the path has another length.
pub fn root_of(leaf: Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// Returns whether a proof shows that `old` is the beginning of `new` (RFC 9162, section 2.1.4.2).
pub fn is_consistent(old: (u64, Hash), new: (u64, Hash), path: &[Hash]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size == new_size {
        return path.is_empty() && old_root == new_root;
    }
    if old_size == 0 {
        return path.is_empty();
    }
    if old_size > new_size {
        return false;
    }
    let mut path = path.iter().copied();
    let first = if old_size.is_power_of_two() { Some(old_root) } else { path.next() };
    let Some(first) = first else { return false };
    let (mut at, mut last) = (old_size - 1, new_size - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut new_hash) = (first, first);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_hash = node_hash(&sibling, &old_hash);
            new_hash = node_hash(&sibling, &new_hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, &sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == old_root && new_hash == new_root
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange_log::tree::{leaf_hash, tree_hash};
    use proptest::prelude::*;

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|leaf| leaf_hash(&leaf.to_be_bytes())).collect()
    }

    fn naive(leaves: &[Hash]) -> Hash {
        match leaves {
            [one] => *one,
            many => {
                let split = largest_power_below(many.len() as u64) as usize;
                node_hash(&naive(&many[..split]), &naive(&many[split..]))
            }
        }
    }

    proptest! {
        #[test]
        fn proofs_hold_for_what_they_prove_and_for_nothing_else(size in 1u64..700, at in 0u64..700, flip in 0usize..400) {
            let all = leaves(size);
            let nodes = |level: u32, index: u64| {
                let (from, to) = ((index << level) as usize, ((index + 1) << level) as usize);
                Ok(tree_hash(&all[from..to]))
            };
            let root = naive(&all);
            let index = at % size;
            let path = inclusion(&nodes, index, size).unwrap();
            prop_assert_eq!(root_of(all[index as usize], index, size, &path), Some(root));
            prop_assert_ne!(root_of(all[index as usize], (index + 1) % size.max(2), size.max(2), &path), Some(root));
            let old = 1 + at % size;
            let old_root = naive(&all[..old as usize]);
            let proof = consistency(&nodes, old, size).unwrap();
            prop_assert!(is_consistent((old, old_root), (size, root), &proof));
            let mut forged = proof.clone();
            if !forged.is_empty() {
                let place = flip % forged.len();
                forged[place][flip % 32] ^= 1;
                prop_assert!(!is_consistent((old, old_root), (size, root), &forged));
                prop_assert!(!is_consistent((old, old_root), (size, root), &proof[1..]));
            }
            let mut longer = path.clone();
            longer.push([0; 32]);
            prop_assert_ne!(root_of(all[index as usize], index, size, &longer), Some(root));
        }
    }
}
