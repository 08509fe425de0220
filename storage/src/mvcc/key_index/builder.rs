//! Builds the index bottom-up from the records of a checkpoint.

use std::sync::Arc;

use thiserror::Error;

use super::inner::{Child, INNER_CHILDREN_MAX, Inner};
use super::leaf::{LEAF_KEYS_MAX, Leaf};
use super::node::{Node, shortest_separator};
use super::packed_keys::PackedKeys;
use super::record::Record;
use super::writer::{KEY_BYTES_MAX, KeyIndex};

/// Keys in a loaded leaf, children in a loaded inner node: an eighth stays free, so that the first writes do not
/// split every node.
const LOADED_WIDTH: usize = LEAF_KEYS_MAX / 8 * 7;
const _: () = assert!(LOADED_WIDTH <= INNER_CHILDREN_MAX && LOADED_WIDTH >= 2);

/// Why records cannot be loaded.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum KeyIndexError {
    /// A key at or below the one before it.
    #[error("key {position} of the index is not above the one before it")]
    NotAscending {
        /// Which key, from 0.
        position: u64,
    },
    /// A key longer than [`KEY_BYTES_MAX`].
    #[error("key {position} of the index has {bytes} bytes, more than {KEY_BYTES_MAX}")]
    KeyTooLong {
        /// Which key, from 0.
        position: u64,
        /// Its length.
        bytes: usize,
    },
    /// Bytes that no [`super::IndexRoot::encode_record`] gave.
    #[error("record {position} of the index is malformed")]
    MalformedRecord {
        /// Which key, from 0.
        position: u64,
    },
}

/// A subtree of the level being built, and where it starts.
struct Built {
    separator: Vec<u8>,
    node: Node,
}

/// Takes ascending keys with their records; [`Self::finish`] gives the index. After an error it is worth nothing.
#[derive(Default)]
pub struct IndexBuilder {
    leaves: Vec<Built>,
    leaf: Leaf,
    leaf_separator: Vec<u8>,
    last_key: Vec<u8>,
    position: u64,
}

impl IndexBuilder {
    /// A builder that has got no key.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key with its state as [`super::IndexRoot::encode_record`] gave it.
    ///
    /// # Errors
    /// [`KeyIndexError`] if the key is not above the one before or too long, or if the record is malformed.
    pub fn push(&mut self, key: &[u8], record: &[u8]) -> Result<(), KeyIndexError> {
        let position = self.position;
        if position > 0 && key <= self.last_key.as_slice() {
            return Err(KeyIndexError::NotAscending { position });
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(KeyIndexError::KeyTooLong { position, bytes: key.len() });
        }
        let record = Record::parse(record).filter(Record::past_is_valid);
        let record = record.ok_or(KeyIndexError::MalformedRecord { position })?;
        self.leaf.load(key, &record);
        if self.leaf.is_over_limit() || self.leaf.len() > LOADED_WIDTH {
            let last = self.leaf.split_off(self.leaf.len() - 1);
            let separator = shortest_separator(&self.last_key, key);
            self.close_leaf(last, separator);
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.position += 1;
        Ok(())
    }

    /// The index of all keys pushed.
    pub fn finish(mut self) -> KeyIndex {
        self.close_leaf(Leaf::default(), Vec::new());
        let mut level = self.leaves;
        while level.len() > 1 {
            level = level_above(level);
        }
        KeyIndex::from_node(level.pop().map(|built| built.node).unwrap_or_default())
    }

    /// Ends the leaf being filled; `next`, which starts at `separator`, takes its place.
    fn close_leaf(&mut self, next: Leaf, separator: Vec<u8>) {
        let mut leaf = std::mem::replace(&mut self.leaf, next);
        leaf.seal();
        let separator = std::mem::replace(&mut self.leaf_separator, separator);
        self.leaves.push(Built { separator, node: Node::Leaf(Arc::new(leaf)) });
    }
}

fn level_above(level: Vec<Built>) -> Vec<Built> {
    let mut above = Vec::with_capacity(level.len().div_ceil(LOADED_WIDTH));
    let mut below = level.into_iter();
    while let Some(first) = below.next() {
        let mut separators = PackedKeys::default();
        let mut children = vec![Child::from(first.node)];
        for built in below.by_ref().take(LOADED_WIDTH - 1) {
            separators.insert(separators.len(), &built.separator, &[]);
            children.push(Child::from(built.node));
        }
        separators.shrink_to_fit();
        children.shrink_to_fit();
        let node = Node::Inner(Arc::new(Inner::new(separators, children)));
        above.push(Built { separator: first.separator, node });
    }
    above
}
