//! The indexes that first pages were read from, so that later pages find them (DESIGN 3.4).
//!
//! A list in pages reads all of them at the revision of the first. Version chains answer that too, but the count of each
//! page then costs all index leaves changed since; on the index as it stood it is O(log n). A shortcut only: an index
//! that was dropped fails no page.

use std::sync::Arc;

use super::key_index::KeptRoots;
use super::view::View;

/// So many revisions behind the newest look, what is kept is measured again: the further the head moves away, the more
/// of it nobody else holds.
const SETTLE_REVISIONS: i64 = 1024;

/// Indexes of all shards by store revision; each shard's own limit, least recently used first.
#[derive(Debug)]
pub struct KeptViews {
    shards: Vec<KeptRoots>,
    bytes_max: u64,
    settled_revision: i64,
    compact_revision: i64,
}

impl KeptViews {
    /// Keeps indexes that hold at most about `bytes_max` beside the head's, in all shards together.
    pub fn new(bytes_max: u64) -> Self {
        Self { shards: Vec::new(), bytes_max, settled_revision: 0, compact_revision: 0 }
    }

    /// `head`, to be planned at `revision`: with the indexes of that revision where they are kept. Which revisions may
    /// be read, and where values are, stays as `head` says.
    pub fn view_at(&mut self, head: &Arc<View>, revision: i64) -> Arc<View> {
        self.follow(head);
        if revision <= 0 || revision >= head.revision {
            return head.clone();
        }
        let kept: Vec<_> = self.shards.iter_mut().map(|shard| shard.get(revision)).collect();
        if kept.iter().all(Option::is_none) {
            return head.clone();
        }
        let mut view = View::clone(head);
        for (shard, index) in view.shards.iter_mut().zip(kept) {
            shard.index = index.unwrap_or_else(|| shard.index.clone());
        }
        Arc::new(view)
    }

    /// Keeps the indexes of `view`: it served a page after which more will be asked for. O(index nodes changed since
    /// the one kept before).
    pub fn keep(&mut self, view: &View) {
        self.follow(view);
        for (shard, now) in self.shards.iter_mut().zip(&view.shards) {
            shard.keep(view.revision, now.index.clone());
        }
    }

    /// How many indexes are kept, of all shards.
    pub fn len(&self) -> usize {
        self.shards.iter().map(KeptRoots::len).sum()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops what nobody may read any more, and now and then what became too large.
    fn follow(&mut self, head: &View) {
        if self.shards.len() != head.shards.len() {
            let bytes_max = self.bytes_max / head.shards.len().max(1) as u64;
            self.shards = head.shards.iter().map(|_| KeptRoots::new(bytes_max)).collect();
        }
        if head.compact_revision > self.compact_revision {
            self.compact_revision = head.compact_revision;
            self.shards.iter_mut().for_each(|shard| shard.forget_below(head.compact_revision));
        }
        if head.revision >= self.settled_revision + SETTLE_REVISIONS {
            self.settled_revision = head.revision;
            self.shards.iter_mut().zip(&head.shards).for_each(|(shard, now)| shard.settle(&now.index));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mvcc::key_range::KeyRange;
    use crate::mvcc::range::RangeQuery;
    use crate::snapshot::view_rig::{Event, ViewRig, events};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Pages at every revision are planned alike with and without kept indexes, through compactions and checkpoints.
        #[test]
        fn kept_indexes_change_no_plan(events in events(), bytes_max in prop_oneof![Just(0u64), Just(1 << 20)]) {
            let mut rig = ViewRig::new();
            let mut kept = KeptViews::new(bytes_max);
            for event in &events {
                if matches!(event, Event::Reopen) {
                    continue;
                }
                kept.keep(&rig.view());
                rig.apply(event);
                let head = rig.view();
                for revision in 0..=head.revision + 1 {
                    let query = RangeQuery { revision, limit: 2, ..RangeQuery::all(KeyRange::ALL) };
                    let planned = |view: &View| view.plan(&query).map(|plan| (plan.count, plan.hits, plan.revision));
                    prop_assert_eq!(planned(&kept.view_at(&head, revision)), planned(&head));
                }
            }
        }
    }

    #[test]
    fn a_kept_index_is_found_again_until_its_revision_is_compacted() {
        let mut rig = ViewRig::new();
        let mut kept = KeptViews::new(1 << 20);
        rig.write(&[("a", Some(vec![1]))]);
        let first = rig.view();
        kept.keep(&first);
        assert_eq!(kept.len(), first.shards.len());
        rig.write(&[("b", Some(vec![1]))]);
        let page = kept.view_at(&rig.view(), first.revision);
        assert!(
            page.shards.iter().zip(&first.shards).all(|(page, first)| page.index.shares_all_nodes_with(&first.index))
        );
        assert_eq!(page.revision, rig.view().revision, "answers show the newest revision");
        rig.store.compact(first.revision + 1);
        kept.view_at(&rig.view(), first.revision);
        assert!(kept.is_empty());
    }
}
