//! A node as it is read: bounds are checked here, and nowhere else.

use bytes::Bytes;

use super::super::error::SnapshotError;
use super::page::{
    BranchElement, ELEMENT_BYTES, ELEMENT_IS_BUCKET, FLAG_BRANCH, FLAG_LEAF, HEADER_BYTES, KEY_BYTES_MAX, LeafElement,
    PageHeader,
};

/// The bytes of one node with a header that fits them.
#[derive(Debug)]
pub(super) enum ReadNode {
    /// Page numbers of the children, in order; at least one.
    Branch(Vec<u64>),
    Leaf(ReadLeaf),
}

/// A leaf and the position within it.
#[derive(Debug)]
pub(super) struct ReadLeaf {
    /// The page that errors name.
    page: u64,
    bytes: Bytes,
    elements: usize,
    next: usize,
}

/// One element of a leaf.
#[derive(Debug)]
pub(super) struct LeafEntry {
    pub is_bucket: bool,
    pub key: Bytes,
    pub value: Bytes,
}

impl ReadNode {
    /// Reads the node that these bytes are; `page` is where they came from.
    pub fn parse(page: u64, bytes: Bytes) -> Result<Self, SnapshotError> {
        let corrupt = |reason| SnapshotError::Corrupt { page, reason };
        let header = PageHeader::decode(&bytes).ok_or(corrupt("no room for a header"))?;
        let elements = usize::from(header.count);
        if HEADER_BYTES + elements * ELEMENT_BYTES > bytes.len() {
            return Err(corrupt("more elements than fit"));
        }
        match header.flags {
            FLAG_LEAF => Ok(Self::Leaf(ReadLeaf { page, bytes, elements, next: 0 })),
            FLAG_BRANCH if elements > 0 => {
                let child = |index| BranchElement::decode(&bytes, HEADER_BYTES + index * ELEMENT_BYTES);
                let children = (0..elements).map(|index| child(index).map(|element| element.child));
                Ok(Self::Branch(children.collect::<Option<_>>().ok_or(corrupt("more elements than fit"))?))
            }
            FLAG_BRANCH => Err(corrupt("branch without children")),
            _ => Err(corrupt("neither branch nor leaf")),
        }
    }
}

impl ReadLeaf {
    pub fn next_entry(&mut self) -> Result<Option<LeafEntry>, SnapshotError> {
        if self.next == self.elements {
            return Ok(None);
        }
        let corrupt = |reason| SnapshotError::Corrupt { page: self.page, reason };
        let at = HEADER_BYTES + self.next * ELEMENT_BYTES;
        let element = LeafElement::decode(&self.bytes, at).ok_or(corrupt("more elements than fit"))?;
        if element.flags & !ELEMENT_IS_BUCKET != 0 {
            return Err(corrupt("unknown element flags"));
        }
        if element.key_length == 0 || element.key_length as usize > KEY_BYTES_MAX {
            return Err(corrupt("key length"));
        }
        // The sums fit 64 bits: `at` is within the bytes and the other three are below 2^32.
        let key_start = at as u64 + u64::from(element.position);
        let value_start = key_start + u64::from(element.key_length);
        let end = value_start + u64::from(element.value_length);
        let table_end = HEADER_BYTES + self.elements * ELEMENT_BYTES;
        if key_start < table_end as u64 || end > self.bytes.len() as u64 {
            return Err(corrupt("key or value outside of its node"));
        }
        self.next += 1;
        Ok(Some(LeafEntry {
            is_bucket: element.flags == ELEMENT_IS_BUCKET,
            key: self.bytes.slice(key_start as usize..value_start as usize),
            value: self.bytes.slice(value_start as usize..end as usize),
        }))
    }
}
