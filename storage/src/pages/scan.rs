//! Walking revisions in order: compaction, HashKV, watch catch-up, snapshots.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::job::{Completions, Job, Step};
use crate::revision::Revision;

use super::branch::Branch;
use super::dead_marks::DeadMarks;
use super::error::PagesError;
use super::leaf::LeafHead;
use super::page_cache::Node;
use super::page_file::{NodeRef, Pages};
use super::read_queue::{READS_IN_FLIGHT_MAX, ReadQueue};
use super::tree_root::SharedRoot;

/// Bytes that a scan reads ahead, unless one leaf is larger.
const READ_AHEAD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a leaf says about one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedSlot {
    /// When it was written.
    pub revision: Revision,
    /// Whether it deletes its key.
    pub tombstone: bool,
    /// Whether it is marked dead: it waits for its leaf to be rewritten.
    pub dead: bool,
    /// The version of the same key before it.
    pub previous: Option<Revision>,
    /// Bytes of the KeyValue.
    pub length: u32,
    /// CRC-32C over revision key and KeyValue.
    pub crc32c: u32,
    /// The KeyValue, if values were asked for.
    pub key_value: Option<Bytes>,
}

/// A part of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanChunk {
    /// In revision order.
    pub slots: Vec<ScannedSlot>,
    /// Where to go on, if the limit ended this chunk: no slot of the range lies between the last one and this.
    pub next: Option<Revision>,
}

/// A running [`Pages::scan`].
#[derive(Debug)]
pub struct Scan {
    pages: Pages,
    /// Keeps the pages where they are.
    _root: SharedRoot,
    from: Revision,
    to: Revision,
    limit: usize,
    values: bool,
    /// What is still to be walked, in order.
    pending: VecDeque<Subtree>,
    /// Pages read ahead, by number; at most one submission's.
    held: HashMap<u64, Held>,
    reads: ReadQueue<NodeRef>,
    chunk: ScanChunk,
}

#[derive(Debug)]
struct Subtree {
    first: Revision,
    at: NodeRef,
    dead: DeadMarks,
}

#[derive(Clone, Debug)]
enum Held {
    Node(Node),
    /// A leaf with its values.
    Whole(Arc<LeafHead>, Bytes),
}

impl Scan {
    pub(super) fn new(
        pages: Pages,
        root: SharedRoot,
        from: Revision,
        to: Revision,
        limit: usize,
        values: bool,
    ) -> Self {
        let subtree = |at| Subtree { first: from, at, dead: DeadMarks::default() };
        let pending = NodeRef::root(&root.root).filter(|_| from <= to).map(subtree).into_iter().collect();
        Self {
            pages,
            _root: root,
            from,
            to,
            limit: limit.max(1),
            values,
            pending,
            held: HashMap::new(),
            reads: ReadQueue::new(),
            chunk: ScanChunk::default(),
        }
    }

    fn arrived(&mut self, at: NodeRef, bytes: Bytes) -> Result<(), PagesError> {
        let held = match at.level {
            0 if self.values => Held::Whole(at.decode_leaf(&bytes)?, bytes),
            _ => Held::Node(self.pages.admit_node(&at, &bytes)?),
        };
        self.held.insert(at.page.extent.page, held);
        Ok(())
    }

    /// The page, if it was read ahead or cached. A leaf whose values are wanted is never cached.
    fn take(&mut self, at: &NodeRef) -> Option<Held> {
        let held = self.held.remove(&at.page.extent.page);
        held.or_else(|| if self.values && at.level == 0 { None } else { self.pages.cached_node(at).map(Held::Node) })
    }

    /// Asks for the pages that come next and are not here.
    fn read_ahead(&mut self) {
        let (mut bytes, mut slots) = (0, 0);
        for subtree in &self.pending {
            let at = subtree.at;
            let enough = bytes >= READ_AHEAD_BYTES_MAX || slots >= (self.limit - self.chunk.slots.len()) as u64;
            if subtree.first > self.to || enough || self.reads.waiting() == READS_IN_FLIGHT_MAX {
                break;
            }
            slots += at.slots;
            if self.held.contains_key(&at.page.extent.page) {
                continue;
            }
            bytes += at.page.bytes();
            if self.values { at.want_whole(&mut self.reads, at) } else { at.want(&mut self.reads, at) }
        }
    }

    fn open_branch(&mut self, branch: &Branch) {
        let from = branch.child_of(self.from).unwrap_or(0);
        let below = branch.entries[from..].iter().take_while(|entry| entry.first <= self.to);
        let below: Vec<_> = below
            .map(|entry| Subtree {
                first: entry.first,
                at: NodeRef::child(branch.level, entry),
                dead: entry.dead.clone(),
            })
            .collect();
        below.into_iter().rev().for_each(|subtree| self.pending.push_front(subtree));
    }

    /// Takes a leaf's slots; true when the chunk is complete.
    fn take_leaf(&mut self, leaf: &LeafHead, dead: &DeadMarks, bytes: Option<&Bytes>) -> Result<bool, PagesError> {
        for index in leaf.lower_bound(self.from)..leaf.len() {
            let slot = leaf.slot(index);
            if slot.revision > self.to {
                return Ok(true);
            }
            if self.chunk.slots.len() == self.limit {
                self.chunk.next = Some(slot.revision);
                return Ok(true);
            }
            let corrupt = |_| PagesError::CorruptEntry { page: leaf.reference().extent.page, revision: slot.revision };
            let entry = bytes.map(|bytes| leaf.entry(&slot, bytes)).transpose().map_err(corrupt)?;
            self.chunk.slots.push(ScannedSlot {
                revision: slot.revision,
                tombstone: slot.tombstone,
                dead: dead.is_dead(index),
                previous: slot.previous,
                length: slot.length,
                crc32c: slot.crc32c,
                key_value: entry.map(|entry| entry.key_value),
            });
        }
        Ok(false)
    }

    /// Whether nothing more belongs to the chunk; sets where the next one begins.
    fn is_complete(&mut self) -> bool {
        let next = self.pending.front().map(|subtree| subtree.first).filter(|first| *first <= self.to);
        if next.is_some() && self.chunk.slots.len() == self.limit {
            self.chunk.next = next;
            return true;
        }
        next.is_none()
    }
}

impl Job for Scan {
    type Output = ScanChunk;
    type Error = PagesError;

    fn step(&mut self, completions: Completions, budget: usize) -> Result<Step<ScanChunk>, PagesError> {
        if !completions.is_empty() {
            for (at, bytes) in self.reads.complete(completions)? {
                self.arrived(at, bytes)?;
            }
        }
        let slots_before = self.chunk.slots.len();
        while !self.is_complete() {
            let subtree = self.pending.pop_front().expect("an empty walk is complete");
            let complete = match self.take(&subtree.at) {
                None => {
                    self.pending.push_front(subtree);
                    self.read_ahead();
                    let reads = self.reads.submit(self.pages.file()).expect("the first page is missing");
                    return Ok(Step::Submit(reads));
                }
                Some(Held::Node(Node::Branch(branch))) => {
                    self.open_branch(&branch);
                    false
                }
                Some(Held::Node(Node::Leaf(leaf))) => self.take_leaf(&leaf, &subtree.dead, None)?,
                Some(Held::Whole(leaf, bytes)) => self.take_leaf(&leaf, &subtree.dead, Some(&bytes))?,
            };
            if complete {
                break;
            }
            if self.chunk.slots.len() - slots_before >= budget.max(1) {
                return Ok(Step::Again);
            }
        }
        Ok(Step::Done(std::mem::take(&mut self.chunk)))
    }
}
