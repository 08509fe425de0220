//! An inner node: subtrees, their figures, and the keys between them.

use super::leaf::{LEAF_BYTES_MAX, LEAF_KEYS_MAX};
use super::node::{Bounds, Node, Split};
use super::packed_keys::PackedKeys;
use super::summary::Summary;

/// Children of an inner node.
pub(super) const INNER_CHILDREN_MAX: usize = LEAF_KEYS_MAX;

/// A subtree and its figures, kept here so that counting does not touch it.
#[derive(Clone, Debug)]
pub(super) struct Child {
    pub(super) node: Node,
    pub(super) summary: Summary,
}

impl Child {
    /// Keys within `bounds` that are live at revision `at`.
    ///
    /// A subtree wholly inside the bounds and with nothing newer than `at` is counted without being touched.
    pub(super) fn count(&self, bounds: Bounds<'_>, at: i64) -> u64 {
        let is_head = self.summary.newest_main <= at;
        if is_head && (bounds.is_all() || self.summary.live == 0) {
            return self.summary.live;
        }
        self.node.count(bounds, at)
    }
}

impl From<Node> for Child {
    fn from(node: Node) -> Self {
        Self { summary: node.summary(), node }
    }
}

/// Invariants:
/// * one separator fewer than children; child `i + 1` holds the keys from separator `i` on;
/// * all children stand at the same height;
/// * each child's summary, and the node's own, is that of what is below; only `newest_main` of the node's own may stay
///   too high after a compaction, which costs time and no answer.
#[derive(Clone, Debug)]
pub(super) struct Inner {
    separators: PackedKeys,
    children: Vec<Child>,
    pub(super) summary: Summary,
}

impl Inner {
    /// A node over `children`, with the separators between them.
    pub(super) fn new(separators: PackedKeys, children: Vec<Child>) -> Self {
        assert!(separators.len() + 1 == children.len(), "one separator between two children");
        let mut inner = Self { separators, children, summary: Summary::default() };
        inner.refresh();
        inner
    }

    pub(super) fn children(&self) -> &[Child] {
        &self.children
    }

    pub(super) fn separators(&self) -> &PackedKeys {
        &self.separators
    }

    pub(super) fn is_over_limit(&self) -> bool {
        let bytes = self.separators.item_bytes();
        self.children.len() > INNER_CHILDREN_MAX || (bytes > LEAF_BYTES_MAX && self.children.len() >= 4)
    }

    /// The child that holds `key` if any does.
    pub(super) fn child_of(&self, key: &[u8]) -> usize {
        self.separators.find(key).map_or_else(|at| at, |at| at + 1)
    }

    /// The first key that child `at` may hold; not for the first child.
    pub(super) fn start_of(&self, at: usize) -> Vec<u8> {
        self.separators.key(at - 1)
    }

    /// The children that `bounds` touch, each with what is left of the bounds within it.
    pub(super) fn within<'a>(&'a self, bounds: Bounds<'a>) -> impl Iterator<Item = (&'a Child, Bounds<'a>)> {
        let first = bounds.low.map_or(0, |low| self.child_of(low));
        let last = bounds.high.map_or(self.children.len() - 1, |high| self.child_of(high));
        (first..=last).map(move |at| {
            let low = bounds.low.filter(|_| at == first);
            let high = bounds.high.filter(|_| at == last);
            (&self.children[at], Bounds { low, high })
        })
    }

    /// Changes one child and brings the figures up to date.
    pub(super) fn change_child<T>(&mut self, at: usize, change: impl FnOnce(&mut Node) -> T) -> T {
        let child = &mut self.children[at];
        let before = child.summary;
        let result = change(&mut child.node);
        let after = child.node.summary();
        child.summary = after;
        self.summary.live = self.summary.live - before.live + after.live;
        self.summary.stored = self.summary.stored - before.stored + after.stored;
        self.summary.bytes = self.summary.bytes - before.bytes + after.bytes;
        self.summary.newest_main = self.summary.newest_main.max(after.newest_main);
        if after.drop_from < self.summary.drop_from {
            self.summary.drop_from = after.drop_from;
        } else if before.drop_from == self.summary.drop_from && after.drop_from != before.drop_from {
            self.refresh();
        }
        result
    }

    /// Adds the right half that child `at` gave off.
    pub(super) fn insert_child(&mut self, at: usize, split: Split) {
        self.separators.insert(at, &split.separator, &[]);
        if self.children.len() == self.children.capacity() {
            self.children.reserve_exact(8);
        }
        self.children.insert(at + 1, Child::from(split.right));
        self.refresh();
    }

    /// Gives off the right half.
    pub(super) fn split(&mut self) -> Split {
        let middle = self.children.len() / 2;
        let separator = self.start_of(middle);
        let right = Self::new(self.separators.slice(middle..self.separators.len()), self.children.split_off(middle));
        self.separators = self.separators.slice(0..middle - 1);
        self.children.shrink_to_fit();
        self.refresh();
        Split { separator, right: Node::Inner(right.into()) }
    }

    /// After child `at` shrank: removes it if it is empty, else joins it with a neighbour if both are small.
    pub(super) fn rejoin(&mut self, at: usize) {
        if self.children[at].node.width() == 0 {
            self.remove_child(at);
            return;
        }
        let should_join = |left: usize| self.children[left].node.should_join(&self.children[left + 1].node);
        if at + 1 < self.children.len() && should_join(at) {
            self.join(at);
        } else if at > 0 && should_join(at - 1) {
            self.join(at - 1);
        }
    }

    /// Takes over all of `right`, the neighbour that starts at `separator`.
    pub(super) fn absorb(&mut self, separator: &[u8], right: &Self) {
        self.separators.insert(self.separators.len(), separator, &[]);
        self.separators = self.separators.concat(&right.separators);
        self.children.extend_from_slice(&right.children);
        self.refresh();
    }

    fn join(&mut self, left: usize) {
        let separator = self.start_of(left + 1);
        let right = self.children.remove(left + 1);
        self.separators.remove(left);
        self.change_child(left, |node| node.absorb(&separator, &right.node));
        self.refresh();
    }

    fn remove_child(&mut self, at: usize) {
        self.children.remove(at);
        if !self.children.is_empty() {
            self.separators.remove(at.saturating_sub(1));
        }
        self.refresh();
    }

    /// Bytes of this node without its children.
    pub(super) fn own_bytes(&self) -> u64 {
        let node = 2 * size_of::<usize>() + size_of::<Self>() + self.children.capacity() * size_of::<Child>();
        (node + self.separators.heap_bytes()) as u64
    }

    /// Computes the figures anew from those of the children.
    fn refresh(&mut self) {
        let own = Summary { bytes: self.own_bytes(), ..Summary::default() };
        self.summary = self.children.iter().fold(own, |sum, child| sum.and(child.summary));
    }
}
