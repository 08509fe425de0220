//! Checking a whole tree: every checksum, the order, the counts, and that the map of free pages agrees.

use bytes::Bytes;
use thiserror::Error;

use crate::disk::Io;
use crate::job::{Completions, Job, Step};
use crate::revision::Revision;

use super::allocator::{Allocator, AllocatorError, MapRoot, PAGE_SIZE, REGION_HEAD_PAGES, REGION_PAGES, TransactionId};
use super::branch::{Branch, BranchEntry};
use super::error::PagesError;
use super::leaf::{LeafHead, NewEntry};
use super::page_cache::Node;
use super::page_file::{NodeRef, Pages};
use super::page_header::{Flaw, PageRef};
use super::read_queue::{READS_IN_FLIGHT_MAX, ReadQueue, read_bytes};
use super::tree_root::SharedRoot;

/// Bytes read at the same time, unless one leaf is larger.
const WAVE_BYTES: usize = 4 * 1024 * 1024;

/// What a whole tree consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Leaves read.
    pub leaves: u64,
    /// Branches read.
    pub branches: u64,
    /// Pages that the tree takes.
    pub pages: u64,
}

/// What is wrong with a page file.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// A page cannot be read, or contradicts another one.
    #[error(transparent)]
    Pages(#[from] PagesError),
    /// The map is damaged, or says of a page of the tree that it is free, or the tree reaches a page twice.
    #[error(transparent)]
    Map(#[from] AllocatorError),
    /// Pages in use that no tree reaches.
    #[error("{0} pages are in use but belong to nothing")]
    Leaked(u64),
}

/// One entry of a tree, as a survey meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurveyedEntry {
    /// When it was written.
    pub revision: Revision,
    /// Whether it deletes its key.
    pub tombstone: bool,
    /// The version of the same key before it.
    pub previous: Option<Revision>,
    /// Whether it is marked dead.
    pub dead: bool,
    /// The encoded KeyValue; its checksum was compared. A slice of what was read.
    pub key_value: Bytes,
}

/// What a survey has met since it was last asked.
#[derive(Debug, Default)]
pub struct Surveyed {
    /// Entries, in no order.
    pub entries: Vec<SurveyedEntry>,
    /// Damage; what lies below it was not read.
    pub damage: Vec<VerifyError>,
}

/// A running [`Pages::verify`] or [`Pages::survey`].
///
/// The map is checked with the allocator itself: a copy of it, opened at the durable root, frees every page of the
/// tree. A page that was free is a double free, and what is in use at the end was leaked.
#[derive(Debug)]
pub struct Verify {
    pages: Pages,
    /// Keeps the pages where they are.
    _root: SharedRoot,
    map: Map,
    /// What is still to be read; the next at the end.
    pending: Vec<Subtree>,
    reads: ReadQueue<Subtree>,
    freeing: Vec<PageRef>,
    loading: Option<u64>,
    verified: Verified,
    /// There in a survey, which goes on behind damage.
    surveyed: Option<Surveyed>,
    /// Whether damage was met: then pages that nothing reaches prove nothing.
    damaged: bool,
    /// Whether the map cannot be read: then it is not compared any more.
    map_lost: bool,
}

/// The copy of the allocator, opened on the first step.
enum Map {
    Root(MapRoot),
    Open(Box<Allocator>),
}

impl std::fmt::Debug for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Map::Root(_) => "Root",
            Map::Open(_) => "Open",
        })
    }
}

/// A page, what its parent says of it, and the revisions it may hold.
#[derive(Debug)]
struct Subtree {
    at: NodeRef,
    entry: BranchEntry,
    /// Whether `entry.first` is what a parent says; nobody says where the root begins.
    first_known: bool,
    /// All revisions are below this.
    before: Option<Revision>,
}

impl Verify {
    pub(super) fn survey(pages: Pages, root: SharedRoot, map_root: MapRoot) -> Self {
        Self { surveyed: Some(Surveyed::default()), ..Self::new(pages, root, map_root) }
    }

    /// Takes what a survey has met since the last call; nothing of a verification.
    pub fn take_surveyed(&mut self) -> Surveyed {
        self.surveyed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What was read so far.
    pub fn verified(&self) -> Verified {
        self.verified
    }

    pub(super) fn new(pages: Pages, root: SharedRoot, map_root: MapRoot) -> Self {
        let subtree = |at| {
            let entry = root.root.as_entry()?;
            let last = root.root.last_revision;
            let before = Some(Revision::new(last.main, last.sub.saturating_add(1)));
            Some(Subtree { at, entry, first_known: false, before })
        };
        let pending = NodeRef::root(&root.root).and_then(subtree).into_iter().collect();
        Self {
            pages,
            _root: root,
            map: Map::Root(map_root),
            pending,
            reads: ReadQueue::new(),
            freeing: Vec::new(),
            loading: None,
            verified: Verified::default(),
            surveyed: None,
            damaged: false,
            map_lost: false,
        }
    }

    /// In a survey, keeps an error and goes on without the answer.
    fn keep_damage<T>(&mut self, result: Result<T, VerifyError>) -> Result<Option<T>, VerifyError> {
        match (result, &mut self.surveyed) {
            (Ok(answer), _) => Ok(Some(answer)),
            (Err(error), None) => Err(error),
            (Err(error), Some(surveyed)) => {
                self.damaged = true;
                surveyed.damage.push(error);
                Ok(None)
            }
        }
    }

    fn check(&mut self, subtree: Subtree, bytes: &Bytes) -> Result<(), PagesError> {
        let page = subtree.at.page;
        let corrupt = |flaw| PagesError::Corrupt { page: page.extent.page, flaw };
        match subtree.at.decode(bytes)? {
            Node::Branch(branch) => {
                self.verified.branches += 1;
                check_branch(&subtree, &branch).map_err(corrupt)?;
                self.push_children(&subtree, &branch);
            }
            Node::Leaf(leaf) => {
                self.verified.leaves += 1;
                let checked = check_leaf(&subtree, &leaf, bytes).map_err(corrupt);
                match &mut self.surveyed {
                    None => checked?,
                    Some(surveyed) => {
                        let mut bad = survey_leaf(&subtree, &leaf, bytes, surveyed);
                        // An entry's own damage says more than that of its leaf.
                        bad.extend(checked.err().filter(|_| bad.is_empty()));
                        self.damaged |= !bad.is_empty();
                        surveyed.damage.extend(bad.into_iter().map(VerifyError::from));
                    }
                }
            }
        }
        self.verified.pages += u64::from(page.extent.pages);
        self.freeing.push(page);
        Ok(())
    }

    fn push_children(&mut self, subtree: &Subtree, branch: &Branch) {
        for (index, entry) in branch.entries.iter().enumerate().rev() {
            let before = branch.entries.get(index + 1).map(|next| next.first).or(subtree.before);
            let at = NodeRef::child(branch.level, entry);
            self.pending.push(Subtree { at, entry: entry.clone(), first_known: true, before });
        }
    }

    fn allocator(&mut self) -> Result<&mut Allocator, AllocatorError> {
        if let Map::Root(root) = &self.map {
            let mut allocator = Allocator::open(root.clone())?;
            allocator.begin(TransactionId(u64::MAX));
            self.map = Map::Open(Box::new(allocator));
        }
        match &mut self.map {
            Map::Open(allocator) => Ok(allocator),
            Map::Root(_) => unreachable!("it was just opened"),
        }
    }

    /// Frees what was found; a page of the map to be loaded first, if the allocator asks for one.
    fn free_found(&mut self) -> Result<Option<u64>, VerifyError> {
        while let Some(page) = self.freeing.pop() {
            if self.map_lost {
                continue;
            }
            match self.allocator().and_then(|allocator| allocator.free(page.extent, page.birth)) {
                Ok(()) => {}
                Err(AllocatorError::Load(map_page)) => {
                    self.freeing.push(page);
                    return Ok(Some(map_page));
                }
                Err(error) => drop(self.keep_damage::<()>(Err(error.into()))?),
            }
        }
        Ok(None)
    }

    /// Gives the map page that was asked for to the allocator.
    fn load_map(&mut self, page: u64, completions: Completions) -> Result<(), VerifyError> {
        for completion in completions {
            let bytes = read_bytes(completion, page * PAGE_SIZE as u64, PAGE_SIZE as u64)?;
            self.allocator()?.load(page, &bytes)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Verified, VerifyError> {
        if self.damaged {
            return Ok(self.verified);
        }
        let allocator = self.allocator()?;
        let heads = allocator.file_pages().div_ceil(REGION_PAGES) * REGION_HEAD_PAGES;
        match allocator.used_pages().saturating_sub(heads) {
            0 => Ok(self.verified),
            leaked => Err(VerifyError::Leaked(leaked)),
        }
    }

    fn want_more(&mut self) {
        let mut bytes = 0;
        while bytes < WAVE_BYTES && self.reads.waiting() < READS_IN_FLIGHT_MAX {
            let Some(subtree) = self.pending.pop() else { break };
            let at = subtree.at;
            bytes += at.page.bytes();
            at.want_whole(&mut self.reads, subtree);
        }
    }
}

fn check_branch(subtree: &Subtree, branch: &Branch) -> Result<(), Flaw> {
    let sum = |field: fn(&BranchEntry) -> u64| branch.entries.iter().map(field).fold(0, u64::saturating_add);
    let entry = &subtree.entry;
    let counts = sum(|below| below.entries) == entry.entries
        && sum(|below| below.live_entries) == entry.live_entries
        && sum(|below| below.live_bytes) == entry.live_bytes
        && sum(|below| below.stored_bytes) == entry.stored_bytes;
    let (first, last) = (branch.entries[0].first, branch.entries[branch.entries.len() - 1].first);
    if counts { check_bounds(subtree, first, last) } else { Err("its children do not add up to what its parent says") }
}

fn check_leaf(subtree: &Subtree, leaf: &LeafHead, bytes: &Bytes) -> Result<(), Flaw> {
    let (mut live, mut live_bytes, mut stored_bytes) = (0, 0, 0);
    for (index, slot) in leaf.slots().enumerate() {
        leaf.entry(&slot, bytes)?;
        stored_bytes += slot.stored_bytes();
        if !subtree.entry.dead.is_dead(index) {
            live += 1;
            live_bytes += slot.stored_bytes();
        }
    }
    let entry = &subtree.entry;
    if (live, live_bytes, stored_bytes) != (entry.live_entries, entry.live_bytes, entry.stored_bytes) {
        return Err("its slots do not add up to what its parent says");
    }
    check_bounds(subtree, leaf.slot(0).revision, leaf.slot(leaf.len() - 1).revision)
}

/// Gives the entries of a leaf whose bytes are right, and names the others.
fn survey_leaf(subtree: &Subtree, leaf: &LeafHead, bytes: &Bytes, surveyed: &mut Surveyed) -> Vec<PagesError> {
    let mut bad = Vec::new();
    for (index, slot) in leaf.slots().enumerate() {
        let dead = subtree.entry.dead.is_dead(index);
        match leaf.entry(&slot, bytes) {
            Ok(NewEntry { revision, tombstone, previous, key_value }) => {
                surveyed.entries.push(SurveyedEntry { revision, tombstone, previous, dead, key_value });
            }
            Err(_) => {
                bad.push(PagesError::CorruptEntry { page: subtree.at.page.extent.page, revision: slot.revision });
            }
        }
    }
    bad
}

fn check_bounds(subtree: &Subtree, first: Revision, last: Revision) -> Result<(), Flaw> {
    let first_right = !subtree.first_known || first == subtree.entry.first;
    let last_right = subtree.before.is_none_or(|before| last < before);
    if first_right && last_right { Ok(()) } else { Err("revisions outside the bounds that its parent sets") }
}

impl Job for Verify {
    type Output = Verified;
    type Error = VerifyError;

    fn step(&mut self, completions: Completions, _budget: usize) -> Result<Step<Verified>, VerifyError> {
        if let Some(page) = self.loading.take() {
            let loaded = self.load_map(page, completions);
            self.map_lost |= self.keep_damage(loaded)?.is_none();
        } else {
            let arrived = self.reads.complete(completions).map_err(VerifyError::from);
            match self.keep_damage(arrived)? {
                Some(arrived) => {
                    for (subtree, bytes) in arrived {
                        let checked = self.check(subtree, &bytes).map_err(VerifyError::from);
                        self.keep_damage(checked)?;
                    }
                }
                // A disk that does not answer is not asked for the rest.
                None => self.pending.clear(),
            }
        }
        let file = self.pages.file();
        if let Some(page) = self.free_found()? {
            self.loading = Some(page);
            let read = Io::Read { file, offset: page * PAGE_SIZE as u64, length: PAGE_SIZE };
            return Ok(Step::Submit(vec![read]));
        }
        self.want_more();
        match self.reads.submit(file) {
            Some(reads) => Ok(Step::Submit(reads)),
            None => {
                let finished = self.finish();
                let verified = self.verified;
                Ok(Step::Done(self.keep_damage(finished)?.unwrap_or(verified)))
            }
        }
    }
}
