//! A planned tree: how the entries of one bucket fall into leaves, and these into branches.
//!
//! Only lengths are known here, and the first key of each leaf. Nodes are numbered and written in **post-order**: a
//! branch follows its last child at once, so that whoever writes holds one open node per level and never a whole
//! level. The root is therefore the last node of its tree.

use super::super::error::SnapshotError;
use super::page::{ELEMENT_BYTES, HEADER_BYTES, KEY_BYTES_MAX, PAGE_BYTES, VALUE_BYTES_MAX, entry_bytes, pages_for};

/// A leaf is closed before it would exceed this. Several pages to a leaf waste less room behind objects of a few KiB
/// and cost an eighth of the plan's memory; bbolt splits such a leaf when it first changes it.
pub(super) const LEAF_BYTES: usize = 8 * PAGE_BYTES;

/// A branch is closed before it would exceed this, unless it has fewer than [`FAN_OUT_MIN`] children.
const BRANCH_BYTES: usize = PAGE_BYTES;
/// With fewer, a level would not be smaller than the one below it.
const FAN_OUT_MIN: usize = 2;

// The count of a page header is 16 bits wide, and a key has at least one byte.
const _: () = assert!(LEAF_BYTES / (ELEMENT_BYTES + 1) < u16::MAX as usize);
const _: () = assert!(KEY_BYTES_MAX <= u16::MAX as usize);

/// One node: how many elements it has, and how many pages it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub pages: u32,
    pub elements: u16,
}

/// The leaves of one tree, 8 bytes and a first key each.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    nodes: Vec<Node>,
    first_key_lengths: Vec<u16>,
    /// All first keys back to back.
    first_keys: Vec<u8>,
}

impl Leaves {
    fn push(&mut self, node: Node, first_key: &[u8]) {
        self.nodes.push(node);
        self.first_key_lengths.push(u16::try_from(first_key.len()).expect("keys are at most 32768 bytes"));
        self.first_keys.extend_from_slice(first_key);
    }

    /// Leaf number `index`.
    pub fn get(&self, index: usize) -> Option<Node> {
        self.nodes.get(index).copied()
    }

    /// The first key of leaf `index`, given the summed lengths of those before it.
    pub fn first_key(&self, index: usize, key_offset: usize) -> &[u8] {
        &self.first_keys[key_offset..key_offset + usize::from(self.first_key_lengths[index])]
    }
}

/// The plan of one tree.
#[derive(Debug)]
pub(super) struct Tree {
    pub leaves: Leaves,
    /// From the level above the leaves to the root; empty if the only leaf is the root.
    pub branches: Vec<Vec<Node>>,
    pub entries: u64,
    pub fingerprint: Fingerprint,
}

impl Tree {
    /// Pages of all nodes.
    pub fn pages(&self) -> u64 {
        let levels = self.branches.iter().chain(std::iter::once(&self.leaves.nodes));
        levels.flatten().map(|node| u64::from(node.pages)).sum()
    }

    /// Page number of the root when the tree starts at `first_page`.
    pub fn root_page(&self, first_page: u64) -> u64 {
        let top = self.branches.last().unwrap_or(&self.leaves.nodes);
        let root = top.last().expect("every tree has a leaf");
        first_page + self.pages() - u64::from(root.pages)
    }
}

/// A sum over all keys and value lengths of a tree in order: equal for both passes, or they read different things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint(u32);

impl Fingerprint {
    pub fn add(&mut self, key: &[u8], value_length: usize) {
        let lengths = ((key.len() as u64) << 32 | value_length as u64).to_le_bytes();
        self.0 = crc32c::crc32c_append(crc32c::crc32c_append(self.0, key), &lengths);
    }
}

/// Plans one tree from its entries in order.
#[derive(Debug, Default)]
pub(super) struct TreePlan {
    leaves: Leaves,
    /// First key, elements and bytes of the leaf being filled.
    open_first_key: Vec<u8>,
    open_elements: u16,
    open_bytes: usize,
    last_key: Vec<u8>,
    entries: u64,
    fingerprint: Fingerprint,
}

impl TreePlan {
    /// Takes the next entry. An entry larger than a leaf gets a leaf of its own, over as many pages as it needs.
    pub fn push(&mut self, key: &[u8], value_length: usize) -> Result<(), SnapshotError> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(SnapshotError::KeyLength { length: key.len() });
        }
        if value_length > VALUE_BYTES_MAX {
            return Err(SnapshotError::ValueLength { length: value_length });
        }
        // No key is empty, so the empty `last_key` of a fresh plan sorts before every key.
        if key <= self.last_key.as_slice() {
            return Err(SnapshotError::OutOfOrder);
        }
        let bytes = entry_bytes(key.len(), value_length);
        if self.open_elements > 0 && self.open_bytes + bytes > LEAF_BYTES {
            self.close_leaf();
        }
        if self.open_elements == 0 {
            self.open_first_key.extend_from_slice(key);
            self.open_bytes = HEADER_BYTES;
        }
        self.open_elements += 1;
        self.open_bytes += bytes;
        self.entries += 1;
        self.fingerprint.add(key, value_length);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        Ok(())
    }

    /// Closes the last leaf and plans the branches. A tree without entries is one empty leaf.
    pub fn finish(mut self) -> Tree {
        if self.open_elements > 0 {
            self.close_leaf();
        } else if self.leaves.nodes.is_empty() {
            self.leaves.push(Node { pages: 1, elements: 0 }, &[]);
        }
        let mut branches = Vec::new();
        let mut key_lengths = self.leaves.first_key_lengths.clone();
        while key_lengths.len() > 1 {
            let (level, first_key_lengths) = plan_branches(&key_lengths);
            branches.push(level);
            key_lengths = first_key_lengths;
        }
        Tree { leaves: self.leaves, branches, entries: self.entries, fingerprint: self.fingerprint }
    }

    fn close_leaf(&mut self) {
        let node = Node { pages: pages_for(self.open_bytes), elements: self.open_elements };
        self.leaves.push(node, &self.open_first_key);
        self.open_first_key.clear();
        self.open_elements = 0;
    }
}

/// Groups the children with first keys of these lengths; returns the branches and the lengths of their first keys.
fn plan_branches(child_key_lengths: &[u16]) -> (Vec<Node>, Vec<u16>) {
    let element_bytes = |length: &u16| ELEMENT_BYTES + usize::from(*length);
    let (mut nodes, mut first_key_lengths) = (Vec::new(), Vec::new());
    let mut rest = child_key_lengths;
    while !rest.is_empty() {
        let (mut count, mut bytes) = (0, HEADER_BYTES);
        for length in rest {
            let next = bytes + element_bytes(length);
            if count >= FAN_OUT_MIN && next > BRANCH_BYTES {
                break;
            }
            (count, bytes) = (count + 1, next);
        }
        // A child left alone would make a branch of one: it comes along, over the edge of the page.
        if rest.len() == count + 1 {
            bytes += element_bytes(&rest[count]);
            count += 1;
        }
        let elements = u16::try_from(count).expect("a page holds some hundred elements");
        nodes.push(Node { pages: pages_for(bytes), elements });
        first_key_lengths.push(rest[0]);
        rest = &rest[count..];
    }
    (nodes, first_key_lengths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_tree_is_one_empty_leaf() {
        let tree = TreePlan::default().finish();
        assert_eq!((tree.pages(), tree.root_page(7), tree.entries), (1, 7, 0));
    }

    #[test]
    fn every_branch_has_two_children_and_every_level_shrinks() {
        for children in [2, 3, 239, 240, 241, 242, 500, 100_000] {
            let mut lengths = vec![17u16; children];
            while lengths.len() > 1 {
                let (nodes, first) = plan_branches(&lengths);
                assert!(nodes.iter().all(|node| node.elements >= 2));
                assert_eq!(nodes.iter().map(|node| usize::from(node.elements)).sum::<usize>(), lengths.len());
                assert!(first.len() < lengths.len());
                lengths = first;
            }
        }
    }

    #[test]
    fn limits_of_keys_and_order() {
        let mut plan = TreePlan::default();
        assert!(matches!(plan.push(b"", 0), Err(SnapshotError::KeyLength { length: 0 })));
        assert!(matches!(plan.push(&[0; KEY_BYTES_MAX + 1], 0), Err(SnapshotError::KeyLength { .. })));
        assert!(matches!(plan.push(b"a", VALUE_BYTES_MAX + 1), Err(SnapshotError::ValueLength { .. })));
        plan.push(&[1; KEY_BYTES_MAX], VALUE_BYTES_MAX).unwrap();
        assert!(matches!(plan.push(&[1; KEY_BYTES_MAX], 0), Err(SnapshotError::OutOfOrder)));
    }
}
