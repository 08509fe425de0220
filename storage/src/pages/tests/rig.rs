//! One page file with its writer, driven synchronously.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::Disk;
use crate::job::{BUDGET_UNLIMITED, Job, run};
use crate::revision::Revision;

use crate::pages::allocator::{MapRoot, PAGE_SIZE, TransactionId};
use crate::pages::page_cache::Node;
use crate::pages::page_file::NodeRef;
use crate::pages::{
    Commit, CommitError, Committed, FileTag, NewEntry, PageCache, PageWriter, Pages, RewriteLimits, ScanChunk,
    ScannedSlot, SharedRoot, TreeChanges, TreeRoot, Verified,
};

use super::memory_disk::{FILE, MemoryDisk};

pub const FIRST: Revision = Revision::new(i64::MIN, i64::MIN);
pub const LAST: Revision = Revision::new(i64::MAX, i64::MAX);

pub struct Rig {
    pub disk: MemoryDisk,
    cache_bytes: usize,
    pages: Pages,
    writer: Option<PageWriter>,
    /// Of the last durable commit, as the manifest would keep them.
    durable: Option<(Vec<u8>, Vec<u8>)>,
    transaction: u64,
    pub budget: usize,
}

/// An entry whose bytes tell its revision.
pub fn entry(main: i64, length: usize) -> NewEntry {
    let byte = |at: usize| (main as u8).wrapping_mul(31).wrapping_add(at as u8);
    NewEntry {
        revision: Revision::new(main, 0),
        tombstone: main % 5 == 0,
        previous: (main > 9).then(|| Revision::new(main - 7, 3)),
        key_value: (0..length).map(byte).collect(),
    }
}

/// Entries of one length with these main revisions.
pub fn entries(mains: std::ops::Range<i64>, length: usize) -> Vec<NewEntry> {
    mains.map(|main| entry(main, length)).collect()
}

/// The revisions with these mains.
pub fn revisions(mains: impl IntoIterator<Item = i64>) -> Vec<Revision> {
    mains.into_iter().map(|main| Revision::new(main, 0)).collect()
}

impl Rig {
    pub fn new(cache_bytes: usize) -> Self {
        let pages = Pages::new(FILE, FileTag(1), Arc::new(PageCache::new(cache_bytes)));
        let writer = Some(PageWriter::create(pages.clone()));
        let disk = MemoryDisk::default();
        Self { disk, cache_bytes, pages, writer, durable: None, transaction: 0, budget: BUDGET_UNLIMITED }
    }

    pub fn writer(&self) -> &PageWriter {
        self.writer.as_ref().expect("the rig's writer is lost")
    }

    pub fn root(&self) -> SharedRoot {
        self.writer().pinned_root()
    }

    pub fn run<J: Job>(&self, mut job: J) -> Result<J::Output, J::Error> {
        run(&mut job, &self.disk, self.budget)
    }

    /// A commit to be stepped.
    pub fn begin(&mut self, changes: TreeChanges) -> Commit {
        let writer = self.writer.take().expect("the rig's writer is lost");
        self.transaction += 1;
        writer.commit(TransactionId(self.transaction), changes)
    }

    /// Runs a commit without ending it. Pages that the durable tree needs must not be written.
    pub fn start(&mut self, changes: TreeChanges) -> Result<Committed, CommitError> {
        let commit = self.begin(changes);
        self.run(commit)
    }

    pub fn end(&mut self, committed: Committed, keep: bool) {
        let Committed { mut writer, root, map_root } = committed;
        if keep {
            writer.committed();
            self.durable = Some((root.root.encode().to_vec(), map_root.encode().to_vec()));
        } else {
            writer.abandoned();
            self.transaction -= 1;
        }
        self.writer = Some(writer);
    }

    /// Takes the writer back from a commit that failed.
    pub fn undone(&mut self, error: CommitError) {
        self.writer = error.writer.map(|writer| *writer);
        self.transaction -= 1;
    }

    pub fn commit(&mut self, changes: TreeChanges) {
        let committed = self.start(changes).unwrap_or_else(|error| panic!("{error:?}"));
        self.end(committed, true);
    }

    pub fn append(&mut self, appended: Vec<NewEntry>) {
        self.commit(TreeChanges { appended, ..TreeChanges::default() });
    }

    pub fn mark(&mut self, dead: Vec<Revision>) {
        self.commit(TreeChanges { dead, ..TreeChanges::default() });
    }

    /// Marks without rewriting anything.
    pub fn only_mark(&mut self, dead: Vec<Revision>) {
        let rewrite = RewriteLimits { leaves_max: 0, ..RewriteLimits::default() };
        self.commit(TreeChanges { dead, rewrite, ..TreeChanges::default() });
    }

    fn durable_roots(&self) -> Option<(TreeRoot, MapRoot)> {
        let (root, map_root) = self.durable.as_ref()?;
        Some((TreeRoot::decode(root).unwrap(), MapRoot::decode(map_root).unwrap()))
    }

    /// Forgets all memory and opens what the last manifest would name.
    pub fn reopen(&mut self) {
        self.pages = Pages::new(FILE, FileTag(1), Arc::new(PageCache::new(self.cache_bytes)));
        self.writer = Some(match self.durable_roots() {
            Some((root, map_root)) => PageWriter::open(self.pages.clone(), root, map_root).unwrap(),
            None => PageWriter::create(self.pages.clone()),
        });
    }

    pub fn fetch(&self, root: &SharedRoot, wanted: Vec<Revision>) -> Vec<Option<Bytes>> {
        self.run(self.pages.fetch(root.clone(), wanted)).unwrap()
    }

    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// All slots of a root with their values, in chunks of `limit`.
    pub fn scan_all(&self, root: &SharedRoot, limit: usize, values: bool) -> Vec<ScannedSlot> {
        let (mut slots, mut from) = (Vec::new(), Some(FIRST));
        while let Some(at) = from {
            let ScanChunk { slots: chunk, next } =
                self.run(self.pages.scan(root.clone(), at, LAST, limit, values)).unwrap();
            assert!(chunk.len() == limit || next.is_none(), "{} slots of {limit}, next {next:?}", chunk.len());
            slots.extend(chunk);
            from = next;
        }
        slots
    }

    /// Checks the durable tree and its map; `None` before the first commit.
    pub fn verify(&self) -> Option<Verified> {
        let (root, map_root) = self.durable_roots()?;
        assert_eq!(&root, self.writer().root());
        Some(self.run(self.pages.verify(self.root(), map_root)).unwrap())
    }

    /// Every page that `root` reaches.
    pub fn reachable(&self, root: &TreeRoot) -> HashSet<u64> {
        let bytes = self.disk.bytes();
        let mut reached = HashSet::new();
        let mut pending: Vec<NodeRef> = NodeRef::root(root).into_iter().collect();
        while let Some(at) = pending.pop() {
            let extent = at.page.extent;
            for page in extent.page..extent.page + u64::from(extent.pages) {
                assert!(reached.insert(page), "page {page} is reached twice");
            }
            let begin = extent.page as usize * PAGE_SIZE;
            if let Node::Branch(branch) = at.decode(&bytes[begin..begin + at.page.bytes()]).unwrap() {
                pending.extend(branch.entries.iter().map(|entry| NodeRef::child(branch.level, entry)));
            }
        }
        reached
    }

    /// How many requests a job submits before it is done.
    pub fn count_submits<J: Job>(&self, mut job: J) -> Result<(usize, J::Output), J::Error> {
        let (mut submits, mut completions) = (0, Vec::new());
        loop {
            match job.step(std::mem::take(&mut completions), self.budget)? {
                crate::job::Step::Again => {}
                crate::job::Step::Submit(requests) => {
                    submits += 1;
                    completions = requests.into_iter().map(|io| self.disk.perform(io)).collect();
                }
                crate::job::Step::Done(output) => return Ok((submits, output)),
            }
        }
    }
}
