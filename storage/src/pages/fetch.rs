//! Reading the values of given revisions: what a range response is made of.

use std::collections::HashMap;

use bytes::Bytes;

use crate::job::{Completions, Job, Step};
use crate::revision::Revision;

use super::allocator::PAGE_SIZE;
use super::branch::Branch;
use super::error::PagesError;
use super::leaf::{LEAF_BYTES, LeafHead, Slot};
use super::page_cache::Node;
use super::page_file::{NodeRef, Pages};
use super::page_header::PageRef;
use super::read_queue::ReadQueue;
use super::tree_root::SharedRoot;

/// A leaf is read as a whole, in one read instead of two, if at least one in so many of its entries is wanted.
const SLOTS_PER_WANTED_MAX: u64 = 4;

/// A running [`Pages::fetch`].
///
/// All revisions walk down the tree together. One that waits for a page moves on as soon as that page was read,
/// whether or not the cache kept it, so that no cache is too small to finish.
#[derive(Debug)]
pub struct Fetch {
    pages: Pages,
    /// Keeps the pages where they are.
    _root: SharedRoot,
    /// What was asked, in the caller's order.
    revisions: Vec<Revision>,
    /// Each distinct revision once, ascending.
    items: Vec<Item>,
    /// Items that can move without reading.
    ready: Vec<usize>,
    /// Items by the page (its number) that they wait for.
    waiting: HashMap<u64, Vec<usize>>,
    /// Pages waited for that are not asked for yet.
    missing: Vec<NodeRef>,
    reads: ReadQueue<Want>,
}

#[derive(Debug)]
struct Item {
    revision: Revision,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Node(NodeRef),
    Entry,
    Answered(Option<Bytes>),
}

#[derive(Debug)]
enum Want {
    Node(NodeRef),
    /// A leaf of which so many entries are wanted that it is read as a whole.
    Whole(NodeRef),
    /// An entry of a leaf; `skip` bytes stand before it in the blocks that are read.
    Entry {
        item: usize,
        leaf: PageRef,
        slot: Slot,
        skip: usize,
    },
}

impl Fetch {
    pub(super) fn new(pages: Pages, root: SharedRoot, revisions: Vec<Revision>) -> Self {
        let mut distinct = revisions.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let start = |revision: Revision| match NodeRef::root(&root.root) {
            Some(node) if revision <= root.root.last_revision => Place::Node(node),
            _ => Place::Answered(None),
        };
        let items: Vec<Item> = distinct.into_iter().map(|revision| Item { revision, place: start(revision) }).collect();
        let ready = (0..items.len()).rev().collect();
        Self {
            pages,
            _root: root,
            revisions,
            items,
            ready,
            waiting: HashMap::new(),
            missing: Vec::new(),
            reads: ReadQueue::new(),
        }
    }

    /// Moves an item down as far as the cache knows the way.
    fn advance(&mut self, item: usize) {
        if let (Place::Node(_), Some(key_value)) =
            (&self.items[item].place, self.pages.cached_entry(self.items[item].revision))
        {
            self.items[item].place = Place::Answered(Some(key_value));
        }
        while let Place::Node(at) = self.items[item].place {
            match self.pages.cached_node(&at) {
                Some(Node::Branch(branch)) => self.descend(item, &branch),
                Some(Node::Leaf(leaf)) => self.find_entry(item, &leaf),
                None => return self.wait(item, at),
            }
        }
    }

    fn wait(&mut self, item: usize, at: NodeRef) {
        let waiters = self.waiting.entry(at.page.extent.page).or_default();
        if waiters.is_empty() {
            self.missing.push(at);
        }
        waiters.push(item);
    }

    /// Asks for the missing pages, now that it is known who waits for each.
    fn want_missing(&mut self) {
        for at in std::mem::take(&mut self.missing) {
            let waiters = self.waiting.get(&at.page.extent.page).map_or(0, Vec::len) as u64;
            let whole = at.level == 0 && at.page.bytes() <= LEAF_BYTES && at.slots <= waiters * SLOTS_PER_WANTED_MAX;
            if whole {
                at.want_whole(&mut self.reads, Want::Whole(at));
            } else {
                at.want(&mut self.reads, Want::Node(at));
            }
        }
    }

    /// Moves an item one level down.
    fn descend(&mut self, item: usize, branch: &Branch) {
        self.items[item].place = match branch.child_of(self.items[item].revision) {
            Some(child) => Place::Node(NodeRef::child(branch.level, &branch.entries[child])),
            None => Place::Answered(None),
        };
    }

    /// Asks for an item's entry, or knows that there is none.
    fn find_entry(&mut self, item: usize, leaf: &LeafHead) {
        self.items[item].place = match leaf.find(self.items[item].revision) {
            Some((_, slot)) => {
                self.want_entry(item, *leaf.reference(), slot);
                Place::Entry
            }
            None => Place::Answered(None),
        };
    }

    fn want_entry(&mut self, item: usize, leaf: PageRef, slot: Slot) {
        let offset = slot.offset as usize;
        let from = offset / PAGE_SIZE * PAGE_SIZE;
        let to = (offset + slot.length as usize).next_multiple_of(PAGE_SIZE).max(from + PAGE_SIZE).min(leaf.bytes());
        let want = Want::Entry { item, leaf, slot, skip: offset - from };
        self.reads.want(leaf.offset() + from as u64, to - from, want);
    }

    /// Takes what was read; whoever waited for it can move.
    fn arrived(&mut self, want: Want, bytes: &Bytes) -> Result<(), PagesError> {
        match want {
            Want::Node(at) => {
                let node = self.pages.admit_node(&at, bytes)?;
                for item in self.waiting.remove(&at.page.extent.page).unwrap_or_default() {
                    match &node {
                        Node::Branch(branch) => self.descend(item, branch),
                        Node::Leaf(leaf) => self.find_entry(item, leaf),
                    }
                    self.ready.push(item);
                }
            }
            Want::Whole(at) => {
                let Node::Leaf(leaf) = self.pages.admit_node(&at, bytes)? else { return Ok(()) };
                for item in self.waiting.remove(&at.page.extent.page).unwrap_or_default() {
                    let slot = leaf.find(self.items[item].revision).map(|(_, slot)| slot);
                    let answer = slot.map(|slot| {
                        let key_value = &bytes[slot.offset as usize..][..slot.length as usize];
                        self.pages.admit_entry(&at.page, &slot, key_value)
                    });
                    self.items[item].place = Place::Answered(answer.transpose()?);
                }
            }
            Want::Entry { item, leaf, slot, skip } => {
                let key_value = &bytes[skip..skip + slot.length as usize];
                self.items[item].place = Place::Answered(Some(self.pages.admit_entry(&leaf, &slot, key_value)?));
            }
        }
        Ok(())
    }

    fn answers(&self) -> Vec<Option<Bytes>> {
        let answer = |revision: &Revision| {
            let item = self.items.binary_search_by_key(revision, |item| item.revision);
            match &self.items[item.expect("every revision asked has an item")].place {
                Place::Answered(answer) => answer.clone(),
                place => unreachable!("nothing waits, yet {revision:?} is at {place:?}"),
            }
        };
        self.revisions.iter().map(answer).collect()
    }
}

impl Job for Fetch {
    type Output = Vec<Option<Bytes>>;
    type Error = PagesError;

    fn step(&mut self, completions: Completions, budget: usize) -> Result<Step<Self::Output>, PagesError> {
        if !completions.is_empty() {
            for (want, bytes) in self.reads.complete(completions)? {
                self.arrived(want, &bytes)?;
            }
        }
        for _ in 0..budget.max(1) {
            match self.ready.pop() {
                Some(item) => self.advance(item),
                None => break,
            }
        }
        if !self.ready.is_empty() {
            return Ok(Step::Again);
        }
        self.want_missing();
        let submitted = self.reads.submit(self.pages.file());
        Ok(submitted.map_or_else(|| Step::Done(self.answers()), Step::Submit))
    }
}
