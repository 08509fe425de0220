//! Pass two of one tree: entries in, whole nodes out.

use bytes::Bytes;

use super::super::error::SnapshotError;
use super::page::{
    BranchElement, ELEMENT_BYTES, FLAG_BRANCH, FLAG_LEAF, HEADER_BYTES, LeafElement, PAGE_BYTES, PageHeader, pages_for,
};
use super::tree::{Fingerprint, LEAF_BYTES, Node, Tree};

static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// Follows the plan of one tree. Holds one open node per level.
#[derive(Debug)]
pub(super) struct TreeWriter {
    next_page: u64,
    leaf_index: usize,
    /// Where the first key of leaf `leaf_index` lies among the plan's first keys.
    first_key_offset: usize,
    open_leaf: Option<OpenLeaf>,
    open_branches: Vec<OpenBranch>,
    entries: u64,
    fingerprint: Fingerprint,
}

/// A node that was written, as its parent names it.
#[derive(Debug)]
struct Child {
    first_key: Bytes,
    page: u64,
}

#[derive(Debug, Default)]
struct OpenBranch {
    /// Which node of its level.
    index: usize,
    children: Vec<Child>,
}

impl TreeWriter {
    pub fn new(tree: &Tree, first_page: u64) -> Self {
        Self {
            next_page: first_page,
            leaf_index: 0,
            first_key_offset: 0,
            open_leaf: None,
            open_branches: tree.branches.iter().map(|_| OpenBranch::default()).collect(),
            entries: 0,
            fingerprint: Fingerprint::default(),
        }
    }

    /// Takes the next entry and appends the nodes that it completes to `out`.
    pub fn push(
        &mut self,
        tree: &Tree,
        flags: u32,
        key: &[u8],
        value: Bytes,
        out: &mut Vec<Bytes>,
    ) -> Result<(), SnapshotError> {
        let node = tree.leaves.get(self.leaf_index).filter(|node| node.elements > 0);
        let node = node.ok_or(SnapshotError::PlanMismatch { what: "more entries" })?;
        if self.open_leaf.is_none() {
            if tree.leaves.first_key(self.leaf_index, self.first_key_offset) != key {
                return Err(SnapshotError::PlanMismatch { what: "first key of a leaf" });
            }
            self.open_leaf = Some(OpenLeaf::new(self.next_page, node));
        }
        self.entries += 1;
        self.fingerprint.add(key, value.len());
        let leaf = self.open_leaf.as_mut().expect("opened above");
        leaf.push(flags, key, value)?;
        if leaf.is_full() { self.close_leaf(tree, out) } else { Ok(()) }
    }

    /// Appends what is left; afterwards every node was written, the root last.
    pub fn finish(mut self, tree: &Tree, out: &mut Vec<Bytes>) -> Result<(), SnapshotError> {
        if let Some(node) = tree.leaves.get(0).filter(|node| node.elements == 0) {
            self.open_leaf = Some(OpenLeaf::new(self.next_page, node));
            self.close_leaf(tree, out)?;
        }
        if self.entries != tree.entries {
            return Err(SnapshotError::PlanMismatch { what: "fewer entries" });
        }
        if self.fingerprint != tree.fingerprint {
            return Err(SnapshotError::PlanMismatch { what: "keys or value lengths" });
        }
        Ok(())
    }

    fn close_leaf(&mut self, tree: &Tree, out: &mut Vec<Bytes>) -> Result<(), SnapshotError> {
        let Some(leaf) = self.open_leaf.take() else { return Ok(()) };
        let page = self.next_page;
        self.next_page += u64::from(leaf.node.pages);
        leaf.close(out)?;
        let first_key = tree.leaves.first_key(self.leaf_index, self.first_key_offset);
        self.first_key_offset += first_key.len();
        self.leaf_index += 1;
        self.adopt(tree, Child { first_key: Bytes::copy_from_slice(first_key), page }, out);
        Ok(())
    }

    /// Hands a finished node to the branch above it, and that one further up if it was the last child.
    fn adopt(&mut self, tree: &Tree, mut child: Child, out: &mut Vec<Bytes>) {
        for (open, level) in self.open_branches.iter_mut().zip(&tree.branches) {
            let node = level[open.index];
            open.children.push(child);
            if open.children.len() < usize::from(node.elements) {
                return;
            }
            let page = self.next_page;
            self.next_page += u64::from(node.pages);
            out.push(branch_page(page, node, &open.children));
            child = Child { first_key: open.children[0].first_key.clone(), page };
            open.children.clear();
            open.index += 1;
        }
    }
}

fn branch_page(id: u64, node: Node, children: &[Child]) -> Bytes {
    let mut bytes = Vec::with_capacity(node.pages as usize * PAGE_BYTES);
    let header = PageHeader { id, flags: FLAG_BRANCH, count: node.elements, overflow: node.pages - 1 };
    bytes.extend_from_slice(&header.encode());
    let mut position = children.len() * ELEMENT_BYTES;
    for child in children {
        let key_length = child.first_key.len();
        let element = BranchElement { position: small(position), key_length: small(key_length), child: child.page };
        bytes.extend_from_slice(&element.encode());
        position = position + key_length - ELEMENT_BYTES;
    }
    children.iter().for_each(|child| bytes.extend_from_slice(&child.first_key));
    assert!(pages_for(bytes.len()) == node.pages, "a branch must take the pages that it was planned with");
    bytes.resize(node.pages as usize * PAGE_BYTES, 0);
    Bytes::from(bytes)
}

/// A leaf being filled. Its element table comes first and its length is planned, so that keys and values are copied
/// once, to where they stay.
#[derive(Debug)]
struct OpenLeaf {
    node: Node,
    elements: u16,
    bytes: Vec<u8>,
    /// The value of a leaf with a single large entry: passed on, not copied.
    large_value: Option<Bytes>,
}

impl OpenLeaf {
    fn new(id: u64, node: Node) -> Self {
        let mut bytes = Vec::with_capacity((node.pages as usize * PAGE_BYTES).min(LEAF_BYTES));
        let header = PageHeader { id, flags: FLAG_LEAF, count: node.elements, overflow: node.pages - 1 };
        bytes.extend_from_slice(&header.encode());
        bytes.resize(HEADER_BYTES + usize::from(node.elements) * ELEMENT_BYTES, 0);
        Self { node, elements: 0, bytes, large_value: None }
    }

    fn push(&mut self, flags: u32, key: &[u8], value: Bytes) -> Result<(), SnapshotError> {
        if self.bytes.len() + key.len() + value.len() > self.capacity() {
            return Err(SnapshotError::PlanMismatch { what: "longer entries" });
        }
        let at = HEADER_BYTES + usize::from(self.elements) * ELEMENT_BYTES;
        let position = small(self.bytes.len() - at);
        let element = LeafElement { flags, position, key_length: small(key.len()), value_length: small(value.len()) };
        self.bytes[at..at + ELEMENT_BYTES].copy_from_slice(&element.encode());
        self.bytes.extend_from_slice(key);
        if self.node.elements == 1 && self.capacity() > LEAF_BYTES {
            self.large_value = Some(value);
        } else {
            self.bytes.extend_from_slice(&value);
        }
        self.elements += 1;
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.elements == self.node.elements
    }

    fn capacity(&self) -> usize {
        self.node.pages as usize * PAGE_BYTES
    }

    fn close(mut self, out: &mut Vec<Bytes>) -> Result<(), SnapshotError> {
        let used = self.bytes.len() + self.large_value.as_ref().map_or(0, Bytes::len);
        if pages_for(used) != self.node.pages {
            return Err(SnapshotError::PlanMismatch { what: "shorter entries" });
        }
        let padding = self.capacity() - used;
        match self.large_value {
            None => {
                self.bytes.resize(used + padding, 0);
                out.push(Bytes::from(self.bytes));
            }
            Some(value) => out.extend([self.bytes.into(), value, Bytes::from_static(&ZEROS[..padding])]),
        }
        Ok(())
    }
}

fn small(length: usize) -> u32 {
    u32::try_from(length).expect("keys and values are checked to be below 2^31 bytes by the plan")
}
