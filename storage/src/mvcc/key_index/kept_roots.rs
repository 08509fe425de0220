//! Roots kept for later pages: a shortcut that may be dropped at any time.

use std::collections::BTreeMap;

use super::root::IndexRoot;
use super::unshared::unshared_bytes;

/// Default of [`KeptRoots::new`]'s `bytes_max`: nodes that no newer root shares.
pub const KEPT_ROOTS_BYTES_DEFAULT: u64 = 64 << 20;
/// Roots kept at most, however little they hold.
pub const KEPT_ROOTS_MAX: usize = 256;

/// Roots by the store revision at which they were the head.
///
/// Kubernetes reads the further pages of a list at the revision of the first; on a kept root such a read is one at
/// head, with its O(log n) count. Without it the version chains answer the same, so dropping one never fails a page.
///
/// Of two kept roots the newer shares what did not change, and what a later root lacks no still later one gets back:
/// so the bytes that the roots hold beside the head are the sum, root by root, of what the next newer one lacks.
#[derive(Debug)]
pub struct KeptRoots {
    kept: BTreeMap<i64, Kept>,
    bytes_max: u64,
    uses: u64,
}

#[derive(Debug)]
struct Kept {
    root: IndexRoot,
    /// Bytes that the next newer root lacks; of the newest, those that the head lacked when it was last shown.
    unshared_bytes: u64,
    last_use: u64,
}

impl KeptRoots {
    /// Keeps roots while they hold at most about `bytes_max` beside the head.
    pub fn new(bytes_max: u64) -> Self {
        Self { kept: BTreeMap::new(), bytes_max, uses: 0 }
    }

    /// Keeps `root`, the head at store revision `revision`; drops others, least recently used first, beyond the
    /// limits. O(nodes changed between it and its neighbours).
    pub fn keep(&mut self, revision: i64, root: IndexRoot) {
        self.uses += 1;
        self.kept.insert(revision, Kept { root, unshared_bytes: 0, last_use: self.uses });
        self.measure(revision, None);
        self.measure_before(revision, None);
        self.evict(None);
    }

    /// The root kept for `revision`: read it at head (`at` 0).
    pub fn get(&mut self, revision: i64) -> Option<IndexRoot> {
        let kept = self.kept.get_mut(&revision)?;
        self.uses += 1;
        kept.last_use = self.uses;
        Some(kept.root.clone())
    }

    /// Measures against the present `head` and drops what exceeds the limits. To be called now and then: the further
    /// the head moves, the more the newest root holds alone. O(nodes changed since the newest kept root).
    pub fn settle(&mut self, head: &IndexRoot) {
        if let Some((&newest, _)) = self.kept.last_key_value() {
            self.measure(newest, Some(head));
            self.evict(Some(head));
        }
    }

    /// Drops the roots below a new compact revision: nobody may read them.
    pub fn forget_below(&mut self, revision: i64) {
        self.kept = self.kept.split_off(&revision);
    }

    /// Bytes held beside the head, as last measured.
    pub fn unshared_bytes(&self) -> u64 {
        self.kept.values().map(|kept| kept.unshared_bytes).sum()
    }

    /// How many roots are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    fn evict(&mut self, head: Option<&IndexRoot>) {
        while self.kept.len() > KEPT_ROOTS_MAX || self.unshared_bytes() > self.bytes_max {
            let oldest_use = self.kept.iter().min_by_key(|(_, kept)| kept.last_use);
            let Some(revision) = oldest_use.map(|(&revision, _)| revision) else { break };
            self.kept.remove(&revision);
            self.measure_before(revision, head);
        }
    }

    /// Measures the newest root below `revision`.
    fn measure_before(&mut self, revision: i64, head: Option<&IndexRoot>) {
        if let Some((&before, _)) = self.kept.range(..revision).next_back() {
            self.measure(before, head);
        }
    }

    /// Measures the root of `revision` against the next newer one, or against the head if there is none.
    fn measure(&mut self, revision: i64, head: Option<&IndexRoot>) {
        let next = self.kept.range(revision + 1..).next().map(|(_, kept)| &kept.root).or(head).cloned();
        let (Some(next), Some(kept)) = (next, self.kept.get_mut(&revision)) else { return };
        kept.unshared_bytes = unshared_bytes(&kept.root.node, &next.node, self.bytes_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::key_index::KeyIndex;
    use crate::mvcc::key_range::KeyRange;
    use crate::revision::Revision;

    /// Puts 1,000 keys anew, so that every leaf changes.
    fn rewrite(index: &mut KeyIndex, main: &mut i64) {
        for number in 0..1_000u32 {
            *main += 1;
            index.put(format!("/registry/events/default/{number:06}").as_bytes(), Revision::new(*main, 0), 0);
        }
    }

    #[test]
    fn the_least_recently_used_root_goes_when_the_head_moves_away() {
        let (mut index, mut main) = (KeyIndex::new(), 0);
        rewrite(&mut index, &mut main);
        let whole = index.head().memory_bytes();
        let mut roots = KeptRoots::new(whole * 5 / 2);
        let mut revisions = Vec::new();
        for _ in 0..2 {
            roots.keep(main, index.root());
            revisions.push(main);
            rewrite(&mut index, &mut main);
        }
        roots.settle(index.head());
        assert_eq!(roots.len(), 2);
        assert!(roots.unshared_bytes() >= whole * 3 / 2, "each holds about a whole tree");
        assert_eq!(roots.get(revisions[0]).map(|root| root.count(&KeyRange::ALL, 0)), Some(1_000));
        for _ in 0..2 {
            roots.keep(main, index.root());
            rewrite(&mut index, &mut main);
            roots.settle(index.head());
        }
        assert!(roots.unshared_bytes() <= whole * 5 / 2);
        assert!(roots.get(revisions[1]).is_none(), "the other was used since");
    }

    #[test]
    fn roots_without_changes_between_them_cost_nothing_but_are_limited() {
        let (mut index, mut main) = (KeyIndex::new(), 0);
        rewrite(&mut index, &mut main);
        let mut roots = KeptRoots::new(0);
        for revision in 0..2 * KEPT_ROOTS_MAX as i64 {
            roots.keep(revision, index.root());
        }
        roots.settle(index.head());
        assert_eq!((roots.len(), roots.unshared_bytes()), (KEPT_ROOTS_MAX, 0));
        rewrite(&mut index, &mut main);
        roots.settle(index.head());
        assert!(roots.is_empty(), "nothing may be held beside the head");
    }

    #[test]
    fn roots_below_the_compact_revision_are_forgotten() {
        let index = KeyIndex::new();
        let mut roots = KeptRoots::new(KEPT_ROOTS_BYTES_DEFAULT);
        (5..9).for_each(|revision| roots.keep(revision, index.root()));
        roots.forget_below(7);
        assert!(roots.get(6).is_none());
        assert!(roots.get(7).is_some());
    }
}
