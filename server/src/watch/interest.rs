//! Who watches a key.

use std::cmp::Ordering;
use std::collections::HashMap;

use basalt_storage::mvcc::key_range::{KeyRange, RangeEnd};

use super::slab::Slab;
use super::watcher::WatcherKey;

/// Watchers by what they watch. Finding those of a key costs O(log ranges + matches).
///
/// Single keys stand in a hash map, as ten thousand of them are usual; each distinct range is one node of an interval
/// tree, as a thousand watchers of one prefix are usual too.
pub(super) struct Interest {
    singles: HashMap<Vec<u8>, Vec<WatcherKey>>,
    ranges: IntervalTree,
}

impl Interest {
    pub fn new(seed: u64) -> Self {
        Self { singles: HashMap::new(), ranges: IntervalTree::new(seed) }
    }

    pub fn insert(&mut self, range: &KeyRange, watcher: WatcherKey) {
        match range.end {
            RangeEnd::Single => insert_sorted(self.singles.entry(range.start.clone()).or_default(), watcher),
            _ => insert_sorted(self.ranges.watchers_of(range), watcher),
        }
    }

    pub fn remove(&mut self, range: &KeyRange, watcher: WatcherKey) {
        if range.end == RangeEnd::Single {
            let watchers = self.singles.get_mut(&range.start).expect("an inserted watcher stands under its key");
            remove_sorted(watchers, watcher);
            if watchers.is_empty() {
                self.singles.remove(&range.start);
            }
        } else {
            let watchers = self.ranges.watchers_of(range);
            remove_sorted(watchers, watcher);
            if watchers.is_empty() {
                self.ranges.remove(range);
            }
        }
    }

    /// Shows `visit` the watchers of `key` until it says `true`; tells whether it did.
    pub fn any(&self, key: &[u8], mut visit: impl FnMut(WatcherKey) -> bool) -> bool {
        let singles = self.singles.get(key);
        singles.is_some_and(|watchers| watchers.iter().any(|watcher| visit(*watcher)))
            || self.ranges.any(self.ranges.root, key, &mut visit)
    }

    /// Shows `visit` all watchers of `key`.
    pub fn each(&self, key: &[u8], mut visit: impl FnMut(WatcherKey)) {
        self.any(key, |watcher| {
            visit(watcher);
            false
        });
    }
}

fn insert_sorted(watchers: &mut Vec<WatcherKey>, watcher: WatcherKey) {
    if let Err(at) = watchers.binary_search(&watcher) {
        watchers.insert(at, watcher);
    }
}

fn remove_sorted(watchers: &mut Vec<WatcherKey>, watcher: WatcherKey) {
    if let Ok(at) = watchers.binary_search(&watcher) {
        watchers.remove(at);
    }
}

/// A treap of distinct ranges, ordered by start and end, in which each node knows the furthest end below it.
struct IntervalTree {
    nodes: Slab<Node>,
    root: Option<u32>,
    random: u64,
}

struct Node {
    range: KeyRange,
    watchers: Vec<WatcherKey>,
    priority: u64,
    left: Option<u32>,
    right: Option<u32>,
    /// The node of this subtree whose range ends last.
    furthest: u32,
}

impl IntervalTree {
    fn new(seed: u64) -> Self {
        Self { nodes: Slab::default(), root: None, random: seed }
    }

    /// The watchers of exactly this range, which gets a node if it has none.
    fn watchers_of(&mut self, range: &KeyRange) -> &mut Vec<WatcherKey> {
        let node = self.find(range).unwrap_or_else(|| {
            let priority = self.next_random();
            let node =
                Node { range: range.clone(), watchers: Vec::new(), priority, left: None, right: None, furthest: 0 };
            let node = self.nodes.insert(node);
            self.nodes.get_mut(node).furthest = node;
            self.root = Some(self.insert(self.root, node));
            node
        });
        &mut self.nodes.get_mut(node).watchers
    }

    fn remove(&mut self, range: &KeyRange) {
        self.root = self.unlink(self.root, range);
    }

    fn any(&self, at: Option<u32>, key: &[u8], visit: &mut impl FnMut(WatcherKey) -> bool) -> bool {
        let Some(at) = at else { return false };
        let node = self.nodes.get(at);
        if !ends_after(&self.nodes.get(node.furthest).range.end, key) {
            return false;
        }
        if self.any(node.left, key, visit) {
            return true;
        }
        // Whatever stands to the right starts at or after this range.
        if node.range.start.as_slice() > key {
            return false;
        }
        (ends_after(&node.range.end, key) && node.watchers.iter().any(|watcher| visit(*watcher)))
            || self.any(node.right, key, visit)
    }

    fn find(&self, range: &KeyRange) -> Option<u32> {
        let mut at = self.root;
        while let Some(index) = at {
            let node = self.nodes.get(index);
            at = match compare(range, &node.range) {
                Ordering::Less => node.left,
                Ordering::Greater => node.right,
                Ordering::Equal => return at,
            };
        }
        None
    }

    /// Hangs `new` into the subtree at `at`; returns the subtree's root.
    fn insert(&mut self, at: Option<u32>, new: u32) -> u32 {
        let Some(at) = at else { return new };
        let before = compare(&self.nodes.get(new).range, &self.nodes.get(at).range) == Ordering::Less;
        if self.nodes.get(new).priority > self.nodes.get(at).priority {
            let (left, right) = self.split(Some(at), new);
            self.link(new, left, right);
            return new;
        }
        let (left, right) = self.children(at);
        let (left, right) =
            if before { (Some(self.insert(left, new)), right) } else { (left, Some(self.insert(right, new))) };
        self.link(at, left, right);
        at
    }

    /// Parts a subtree into what stands before and after the range of `pivot`.
    fn split(&mut self, at: Option<u32>, pivot: u32) -> (Option<u32>, Option<u32>) {
        let Some(at) = at else { return (None, None) };
        let (left, right) = self.children(at);
        if compare(&self.nodes.get(pivot).range, &self.nodes.get(at).range) == Ordering::Less {
            let (before, after) = self.split(left, pivot);
            self.link(at, after, right);
            (before, Some(at))
        } else {
            let (before, after) = self.split(right, pivot);
            self.link(at, left, before);
            (Some(at), after)
        }
    }

    fn unlink(&mut self, at: Option<u32>, range: &KeyRange) -> Option<u32> {
        let index = at?;
        let (left, right) = self.children(index);
        let (left, right) = match compare(range, &self.nodes.get(index).range) {
            Ordering::Less => (self.unlink(left, range), right),
            Ordering::Greater => (left, self.unlink(right, range)),
            Ordering::Equal => {
                self.nodes.remove(index);
                return self.merge(left, right);
            }
        };
        self.link(index, left, right);
        at
    }

    /// Joins two subtrees, all of one before all of the other.
    fn merge(&mut self, before: Option<u32>, after: Option<u32>) -> Option<u32> {
        let (Some(a), Some(b)) = (before, after) else { return before.or(after) };
        if self.nodes.get(a).priority > self.nodes.get(b).priority {
            let (left, right) = self.children(a);
            let right = self.merge(right, after);
            self.link(a, left, right);
            before
        } else {
            let (left, right) = self.children(b);
            let left = self.merge(before, left);
            self.link(b, left, right);
            after
        }
    }

    fn children(&self, at: u32) -> (Option<u32>, Option<u32>) {
        let node = self.nodes.get(at);
        (node.left, node.right)
    }

    fn link(&mut self, at: u32, left: Option<u32>, right: Option<u32>) {
        let end = |node: u32| &self.nodes.get(node).range.end;
        let below = [left, right].into_iter().flatten().map(|child| self.nodes.get(child).furthest);
        let furthest =
            below.fold(at, |best, other| if compare_ends(end(other), end(best)).is_gt() { other } else { best });
        let node = self.nodes.get_mut(at);
        (node.left, node.right, node.furthest) = (left, right, furthest);
    }

    /// splitmix64: only the shape of the tree hangs on it.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn compare(a: &KeyRange, b: &KeyRange) -> Ordering {
    a.start.cmp(&b.start).then_with(|| compare_ends(&a.end, &b.end))
}

fn compare_ends(a: &RangeEnd, b: &RangeEnd) -> Ordering {
    match (a, b) {
        (RangeEnd::Before(a), RangeEnd::Before(b)) => a.cmp(b),
        (RangeEnd::Before(_), _) => Ordering::Less,
        (_, RangeEnd::Before(_)) => Ordering::Greater,
        _ => Ordering::Equal,
    }
}

fn ends_after(end: &RangeEnd, key: &[u8]) -> bool {
    match end {
        RangeEnd::Before(end) => end.as_slice() > key,
        RangeEnd::Unbounded | RangeEnd::Single => true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn range() -> impl Strategy<Value = KeyRange> {
        let word = || prop::collection::vec(97..100u8, 1..4);
        prop_oneof![
            word().prop_map(|key| KeyRange::single(&key)),
            word().prop_map(|key| KeyRange::from_wire(&key, &[0])),
            (word(), word()).prop_filter_map("empty", |(a, b)| {
                let range = KeyRange::from_wire(&a, &b);
                (!range.is_empty()).then_some(range)
            }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn finds_exactly_the_watchers_of_a_key(
            ranges in prop::collection::vec(range(), 1..60),
            removed in prop::collection::vec(any::<bool>(), 60),
            keys in prop::collection::vec(prop::collection::vec(97..100u8, 1..5), 1..20),
        ) {
            let mut interest = Interest::new(1);
            for (i, range) in (0u32..).zip(&ranges) {
                interest.insert(range, WatcherKey(i));
            }
            for (i, range) in (0u32..).zip(&ranges).filter(|(i, _)| removed[*i as usize]) {
                interest.remove(range, WatcherKey(i));
            }
            for key in keys {
                let mut found = BTreeSet::new();
                interest.each(&key, |watcher| assert!(found.insert(watcher.0), "shown twice"));
                let expected: BTreeSet<u32> = (0u32..)
                    .zip(&ranges)
                    .filter(|(i, range)| !removed[*i as usize] && range.contains(&key))
                    .map(|(i, _)| i)
                    .collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
