//! Reading the values of given revisions: what a range response is made of.

use std::collections::HashMap;

use bytes::Bytes;

use crate::job::{Completions, Job, Step};
use crate::revision::Revision;

use super::allocator::PAGE_SIZE;
use super::error::PagesError;
use super::leaf::Slot;
use super::page_cache::Node;
use super::page_file::{NodeRef, Pages};
use super::page_header::PageRef;
use super::read_queue::ReadQueue;
use super::tree_root::SharedRoot;

/// A running [`Pages::fetch`].
///
/// All revisions walk down the tree together. One that waits for a page moves on as soon as that page was read,
/// whether or not the cache kept it, so that no cache is too small to finish.
#[derive(Debug)]
pub struct Fetch {
    pages: Pages,
    root: SharedRoot,
    /// What was asked, in the caller's order.
    revisions: Vec<Revision>,
    /// Each distinct revision once, ascending.
    items: Vec<Item>,
    /// Items that can move without reading.
    ready: Vec<usize>,
    /// Items by the page (its number) that they wait for.
    waiting: HashMap<u64, Vec<usize>>,
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
        Self { pages, root, revisions, items, ready, waiting: HashMap::new(), reads: ReadQueue::new() }
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
                Some(node) => self.descend(item, &at, &node),
                None => return self.wait(item, at),
            }
        }
    }

    fn wait(&mut self, item: usize, at: NodeRef) {
        let waiters = self.waiting.entry(at.page.extent.page).or_default();
        if waiters.is_empty() {
            at.want(&mut self.reads, Want::Node(at));
        }
        waiters.push(item);
    }

    /// Moves an item one level down, from `node` at `at`.
    fn descend(&mut self, item: usize, at: &NodeRef, node: &Node) {
        let revision = self.items[item].revision;
        self.items[item].place = match node {
            Node::Branch(branch) => match branch.child_of(revision) {
                Some(child) => Place::Node(NodeRef::child(branch.level, &branch.entries[child])),
                None => Place::Answered(None),
            },
            Node::Leaf(leaf) => match leaf.find(revision) {
                Some((_, slot)) => {
                    self.want_entry(item, at.page, slot);
                    Place::Entry
                }
                None => Place::Answered(None),
            },
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
                    self.descend(item, &at, &node);
                    self.ready.push(item);
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
        let submitted = self.reads.submit(self.pages.file());
        Ok(submitted.map_or_else(|| Step::Done(self.answers()), Step::Submit))
    }
}
