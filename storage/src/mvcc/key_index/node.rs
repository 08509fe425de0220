//! A node of the tree: reference-counted, so that versions of the tree share what did not change between them.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::revision::Revision;

use super::inner::Inner;
use super::leaf::{Change, Entry, LEAF_BYTES_MAX, LEAF_KEYS_MAX, Leaf, Written};
use super::packed_keys::common_prefix;
use super::summary::Summary;
use super::writer::CompactStep;

/// A subtree. Cloning shares it; a write copies those of its nodes that are shared and no others.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Leaf(Arc<Leaf>),
    Inner(Arc<Inner>),
}

/// The right half of a node that became too large.
#[derive(Debug)]
pub(super) struct Split {
    /// At most the first key of `right`, and above every key left of it.
    pub(super) separator: Vec<u8>,
    pub(super) right: Node,
}

/// A stretch of keys: from `low` (`None`: the first), to before `high` (`None`: to the end).
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds<'a> {
    pub(super) low: Option<&'a [u8]>,
    pub(super) high: Option<&'a [u8]>,
}

impl Bounds<'_> {
    /// Whether they leave nothing out.
    pub(super) fn is_all(&self) -> bool {
        self.low.is_none() && self.high.is_none()
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::Leaf(Arc::default())
    }
}

impl Node {
    pub(super) fn summary(&self) -> Summary {
        match self {
            Self::Leaf(leaf) => leaf.summary,
            Self::Inner(inner) => inner.summary,
        }
    }

    /// Bytes of this node without its children.
    pub(super) fn own_bytes(&self) -> u64 {
        match self {
            Self::Leaf(leaf) => leaf.summary.bytes,
            Self::Inner(inner) => inner.own_bytes(),
        }
    }

    /// Whether both are one node in memory.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Leaf(left), Self::Leaf(right)) => Arc::ptr_eq(left, right),
            (Self::Inner(left), Self::Inner(right)) => Arc::ptr_eq(left, right),
            _ => false,
        }
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<Entry<'_>> {
        let mut node = self;
        loop {
            match node {
                Self::Leaf(leaf) => return leaf.find(key),
                Self::Inner(inner) => node = &inner.children()[inner.child_of(key)].node,
            }
        }
    }

    /// Writes one revision of `key`.
    pub(super) fn write(&mut self, key: &[u8], revision: Revision, change: Change) -> (Written, Option<Split>) {
        match self {
            Self::Leaf(leaf) => {
                let leaf = Arc::make_mut(leaf);
                let (written, at) = leaf.write(key, revision, change);
                (written, leaf.is_over_limit().then(|| split_leaf(leaf, at)))
            }
            Self::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let at = inner.child_of(key);
                let (written, split) = inner.change_child(at, |child| child.write(key, revision, change));
                if let Some(split) = split {
                    inner.insert_child(at, split);
                }
                (written, inner.is_over_limit().then(|| inner.split()))
            }
        }
    }

    /// Keys within `bounds` that are live at revision `at`.
    pub(super) fn count(&self, bounds: Bounds<'_>, at: i64) -> u64 {
        match self {
            Self::Inner(inner) => inner.within(bounds).map(|(child, bounds)| child.count(bounds, at)).sum(),
            Self::Leaf(leaf) => leaf.count(within_leaf(leaf, bounds), at),
        }
    }

    /// Visits the entries within `bounds` of those subtrees that `wanted` by their summary, in key order.
    pub(super) fn visit<B>(
        &self,
        bounds: Bounds<'_>,
        wanted: &impl Fn(Summary) -> bool,
        key: &mut Vec<u8>,
        each: &mut impl FnMut(&[u8], Entry<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        match self {
            Self::Inner(inner) => {
                let mut children = inner.within(bounds).filter(|(child, _)| wanted(child.summary));
                children.try_for_each(|(child, bounds)| child.node.visit(bounds, wanted, key, each))
            }
            Self::Leaf(leaf) => {
                key.clear();
                key.extend_from_slice(leaf.keys.prefix());
                let prefix_len = key.len();
                within_leaf(leaf, bounds).try_for_each(|at| {
                    key.truncate(prefix_len);
                    key.extend_from_slice(leaf.keys.suffix(at));
                    each(key, leaf.entry(at))
                })
            }
        }
    }

    /// The first leaf at or after the one of `cursor` that a compaction at `at` changes: a key that leads to it, and
    /// where the next leaf starts, if there is one.
    pub(super) fn next_droppable(&self, cursor: &[u8], at: i64) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let inner = match self {
            Self::Leaf(leaf) => return (leaf.summary.drop_from <= at).then(|| (cursor.to_vec(), None)),
            Self::Inner(inner) => inner,
        };
        let first = inner.child_of(cursor);
        let mut droppable = (first..inner.children().len()).filter(|i| inner.children()[*i].summary.drop_from <= at);
        droppable.find_map(|child| {
            let start = if child == first { cursor.to_vec() } else { inner.start_of(child) };
            let (target, next) = inner.children()[child].node.next_droppable(&start, at)?;
            let end = || (child + 1 < inner.children().len()).then(|| inner.start_of(child + 1));
            Some((target, next.or_else(end)))
        })
    }

    /// Compacts the leaf that `target` leads to. The subtree may be empty afterwards.
    pub(super) fn compact(&mut self, target: &[u8], at: i64, step: &mut CompactStep) {
        match self {
            Self::Leaf(leaf) => Arc::make_mut(leaf).compact(at, step),
            Self::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let child = inner.child_of(target);
                inner.change_child(child, |node| node.compact(target, at, step));
                inner.rejoin(child);
            }
        }
    }

    /// Entries or children.
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.len(),
            Self::Inner(inner) => inner.children().len(),
        }
    }

    /// Whether this and its right neighbour are so small that they should be one.
    pub(super) fn should_join(&self, right: &Self) -> bool {
        let bytes = match (self, right) {
            (Self::Leaf(left), Self::Leaf(right)) => left.keys.concat_bytes(&right.keys),
            (Self::Inner(left), Self::Inner(right)) => left.separators().concat_bytes(right.separators()),
            _ => return false,
        };
        self.width() + right.width() <= LEAF_KEYS_MAX / 2 && bytes <= LEAF_BYTES_MAX / 2
    }

    /// Takes over all of `right`, the neighbour that starts at `separator`.
    pub(super) fn absorb(&mut self, separator: &[u8], right: &Self) {
        match (self, right) {
            (Self::Leaf(left), Self::Leaf(right)) => Arc::make_mut(left).absorb(right),
            (Self::Inner(left), Self::Inner(right)) => Arc::make_mut(left).absorb(separator, right),
            _ => unreachable!("neighbours stand at the same height"),
        }
    }
}

/// Splits where the halves are even, but beside a key that came first or last in a leaf: keys often arrive in order,
/// and a key foreign to the common prefix comes there and must not cost the others their prefix.
fn split_leaf(leaf: &mut Leaf, inserted: usize) -> Split {
    let foreign_first = inserted == 0 && leaf.keys.item_bytes() > LEAF_BYTES_MAX;
    let at = match inserted {
        0 if foreign_first => 1,
        last if last == leaf.len() - 1 => last,
        _ => leaf.keys.balanced_split(),
    };
    let separator = shortest_separator(&leaf.keys.key(at - 1), &leaf.keys.key(at));
    Split { separator, right: Node::Leaf(Arc::new(leaf.split_off(at))) }
}

/// The shortest key above `left` and at most `right`.
pub(super) fn shortest_separator(left: &[u8], right: &[u8]) -> Vec<u8> {
    right[..common_prefix(left, right) + 1].to_vec()
}

fn within_leaf(leaf: &Leaf, bounds: Bounds<'_>) -> std::ops::Range<usize> {
    let start = bounds.low.map_or(0, |low| leaf.keys.lower_bound(low));
    let end = bounds.high.map_or(leaf.len(), |high| leaf.keys.lower_bound(high));
    start..end.max(start)
}
