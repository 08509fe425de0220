//! A commit: from a list of changes to synced pages under a new root, without touching the old one.

use std::io;
use std::sync::Arc;

use crate::disk::{Io, IoOutput, is_full};
use crate::job::{Completions, Job, Step};
use crate::planted::{Bug, is_planted};
use crate::revision::Revision;

use super::allocator::{AllocatorError, MapRoot, PAGE_SIZE, TransactionId};
use super::branch::HEIGHT_MAX;
use super::last_leaf::{LastLeaf, append};
use super::leaf::ENTRY_BYTES_MAX;
use super::leaf_rewrite::{rewrite_sparse, sparse_pages};
use super::page_cache::Node;
use super::page_file::NodeRef;
use super::page_writer::{Outcome, PageWriter};
use super::page_writes::PageWrites;
use super::placement::Placement;
use super::read_queue::{READS_IN_FLIGHT_MAX, ReadQueue, read_bytes};
use super::tidying::Tidying;
use super::tree_changes::{CommitError, CommitFailure, Committed, TreeChanges};
use super::tree_edit::{MarkTask, Path, TreeEdit};
use super::tree_plan::TreePlan;
use super::tree_root::{PinnedRoot, TreeRoot};

/// Who a read is for.
#[derive(Debug)]
enum Want {
    Branch(Path, NodeRef),
    Mark(MarkTask),
}

/// What the commit does next.
#[derive(Debug)]
enum Stage {
    Check,
    /// Opens the branches above all changes.
    Open,
    /// Marks what is dead, leaf by leaf: from this place in the list of the dead on.
    Mark(usize),
    /// Looks for more sparse leaves.
    Sweep(Sweeping),
    /// Reads the last leaf, if the append goes on in it.
    LastLeaf(Option<LastLeaf>),
    Place(TreePlan, Placement),
    /// Waits for a map page that the allocator asked for.
    LoadMap(u64, TreePlan, Placement),
    /// Waits for the space that the file grows by.
    Reserve(PageWrites, MapRoot),
    /// Reads leaves that the next wave of writes repacks.
    Read(PageWrites, MapRoot, ReadQueue<NodeRef>),
    Write(PageWrites, MapRoot),
    Sync(PageWrites, MapRoot),
}

/// How far a commit's share of the sweep is.
#[derive(Debug)]
struct Sweeping {
    /// Sparse leaves in the branches that are open.
    found: usize,
    branches_left: usize,
    /// The branch at this revision is open for the sweep only.
    opening: Option<Revision>,
}

/// A running [`PageWriter::commit`].
#[derive(Debug)]
pub struct Commit {
    /// There until the job ends.
    writer: Option<PageWriter>,
    transaction: TransactionId,
    changes: TreeChanges,
    last_revision: Revision,
    /// Revisions whose branches are opened, ascending.
    wanted: Vec<Revision>,
    tidying: Tidying,
    edit: TreeEdit,
    reads: ReadQueue<Want>,
    stage: Option<Stage>,
}

type Run<T> = Result<T, CommitFailure>;

impl Commit {
    pub(super) fn new(mut writer: PageWriter, transaction: TransactionId, mut changes: TreeChanges) -> Self {
        changes.dead.sort_unstable();
        changes.dead.dedup();
        // What was never written needs no mark, and no look at the last leaf.
        changes.dead.truncate(changes.dead.partition_point(|dead| *dead <= writer.root.last_revision));
        let mut wanted = changes.dead.clone();
        if !changes.appended.is_empty() {
            wanted.push(Revision::new(i64::MAX, i64::MAX));
        }
        let mut tidying = writer.tidying.clone();
        tidying.measure(changes.rewrite.live_percent);
        if changes.rewrite.shrinks {
            writer.allocator.pack();
            if writer.may_shrink() {
                changes.rewrite.end_page = writer.allocator.packed_pages();
                tidying.look_again();
            }
        }
        wanted.extend(tidying.waiting(changes.rewrite.leaves_max));
        wanted.sort_unstable();
        Self {
            transaction,
            last_revision: changes.appended.last().map_or(writer.root.last_revision, |entry| entry.revision),
            wanted,
            tidying,
            edit: TreeEdit::new(&writer.root),
            reads: ReadQueue::new(),
            stage: Some(Stage::Check),
            writer: Some(writer),
            changes,
        }
    }

    fn writer(&mut self) -> &mut PageWriter {
        self.writer.as_mut().expect("the writer is there until the job ends")
    }

    fn check(&self) -> Run<()> {
        let mut last = self.writer.as_ref().expect("the job has not ended").root.last_revision;
        for entry in &self.changes.appended {
            if entry.revision <= last {
                return Err(CommitFailure::OutOfOrder(entry.revision));
            }
            if entry.key_value.len() > ENTRY_BYTES_MAX {
                return Err(CommitFailure::TooLarge(entry.revision));
            }
            last = entry.revision;
        }
        Ok(())
    }

    /// Hands each page that was read to whoever wanted it.
    fn arrived(&mut self, completions: Completions) -> Run<()> {
        for (want, bytes) in self.reads.complete(completions)? {
            match want {
                Want::Branch(path, at) => {
                    if let Node::Branch(branch) = self.writer().pages.admit_node(&at, &bytes)? {
                        self.edit.open(&path, &branch);
                    }
                }
                Want::Mark(task) => {
                    if let Node::Leaf(leaf) = self.writer().pages.admit_node(&task.at, &bytes)? {
                        let marked = self.edit.mark(&task, &self.changes.dead, &leaf);
                        marked.map_err(|flaw| task.at.corrupt(flaw))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The reads that wait, if any.
    fn submit_reads(&mut self) -> Option<Step<Committed>> {
        let file = self.writer().pages.file();
        self.reads.submit(file).map(Step::Submit)
    }

    /// Asks for the branches above `wanted` that are not open yet; false when all are.
    fn want_branches(&mut self, wanted: &[Revision]) -> bool {
        let pages = self.writer().pages.clone();
        let missing = self.edit.open_cached(wanted, &pages);
        for (path, at) in missing {
            at.want(&mut self.reads, Want::Branch(path, at));
        }
        self.reads.waiting() > 0
    }

    /// The beginning of this commit's share of the sweep, after all marks were made.
    fn begin_sweep(&mut self) -> Sweeping {
        let limits = self.changes.rewrite;
        let mut found = 0;
        self.edit.for_each_leaf_branch(&mut |_, branch| found += sparse_pages(branch, &limits));
        Sweeping { found, branches_left: limits.sweep_branches_max, opening: None }
    }

    /// Looks at up to `budget` branches for sparse leaves; false once enough are found or enough was looked at. What
    /// has none is closed again, so that memory holds what will be rewritten and not the whole tree.
    fn sweep_some(&mut self, sweeping: &mut Sweeping, budget: usize) -> bool {
        let limits = self.changes.rewrite;
        for _ in 0..budget.max(1) {
            let Some(at) = self.tidying.sweep_at() else { return false };
            if sweeping.found >= limits.leaves_max || sweeping.branches_left == 0 {
                return false;
            }
            if self.edit.leaf_branch(at).is_none() {
                sweeping.opening = Some(at);
                if self.want_branches(&[at]) {
                    return true;
                }
            }
            let after = self.edit.leaf_branch_after(at);
            if sweeping.opening == Some(at)
                && let Some((path, branch)) = self.edit.leaf_branch(at)
            {
                match sparse_pages(branch, &limits) {
                    0 => self.edit.close(&path),
                    found => sweeping.found += found,
                }
            }
            sweeping.branches_left -= 1;
            self.tidying.swept(after);
        }
        true
    }

    /// Marks up to `budget` leaves whose heads are cached, from the dead at `next` on, and asks for the heads of the
    /// others; returns where to go on.
    fn mark_some(&mut self, mut next: usize, budget: usize) -> Run<usize> {
        for _ in 0..budget.max(1) {
            if self.reads.waiting() == READS_IN_FLIGHT_MAX {
                break;
            }
            let Some(task) = self.edit.next_mark(&self.changes.dead, next) else { break };
            next = task.dead.end;
            let dead = &self.changes.dead[task.dead.clone()];
            self.writer.as_ref().expect("the job has not ended").pages.forget_entries(dead);
            match self.writer().pages.cached_node(&task.at) {
                Some(Node::Leaf(leaf)) => {
                    let marked = self.edit.mark(&task, &self.changes.dead, &leaf);
                    marked.map_err(|flaw| task.at.corrupt(flaw))?;
                }
                _ => {
                    let at = task.at;
                    at.want(&mut self.reads, Want::Mark(task));
                }
            }
        }
        Ok(next)
    }

    /// Puts new leaves in the place of sparse ones, and asks for the last leaf.
    fn rewrite(&mut self) -> Option<LastLeaf> {
        let last = LastLeaf::with_room(&mut self.edit, &self.changes.appended);
        // What was wanted was looked at; what is still sparse waits again.
        self.wanted.iter().for_each(|wanted| self.tidying.seen(*wanted, *wanted));
        rewrite_sparse(&mut self.edit, &self.changes.rewrite, last.as_ref(), &mut self.tidying);
        last
    }

    /// Packs what is appended into new leaves, and settles the tree above all that are new.
    fn plan(&mut self, last: Option<LastLeaf>) -> Run<TreePlan> {
        let mut edit = std::mem::replace(&mut self.edit, TreeEdit::new(&TreeRoot::EMPTY));
        append(&mut edit, last, std::mem::take(&mut self.changes.appended))?;
        Ok(TreePlan::new(edit))
    }

    /// Allocates and frees; then reserves what the file grows by.
    fn place(&mut self, plan: TreePlan, mut placement: Placement) -> Run<Option<Step<Committed>>> {
        let (transaction, writer) = (self.transaction, self.writer());
        let file = writer.pages.file();
        let placed = placement.advance(&plan, &mut writer.allocator);
        let shrinks = self.changes.rewrite.shrinks;
        let writer = self.writer();
        match placed.and_then(|()| if shrinks { writer.allocator.shrink() } else { Ok(()) }) {
            Ok(()) => {}
            Err(AllocatorError::Load(page)) => {
                let read = Io::Read { file, offset: page * PAGE_SIZE as u64, length: PAGE_SIZE };
                self.stage = Some(Stage::LoadMap(page, plan, placement));
                return Ok(Some(Step::Submit(vec![read])));
            }
            Err(cause) => return Err(cause.into()),
        }
        let prepared = writer.allocator.prepare()?;
        let (from, to) = (writer.reserved_pages, writer.allocator.file_pages());
        let writes = PageWrites::new(plan, placement, transaction, prepared.writes);
        if to <= from {
            self.stage = Some(Stage::Write(writes, prepared.root));
            return Ok(None);
        }
        let (offset, length) = (from * PAGE_SIZE as u64, (to - from) * PAGE_SIZE as u64);
        self.stage = Some(Stage::Reserve(writes, prepared.root));
        Ok(Some(Step::Submit(vec![Io::Allocate { file, offset, length }])))
    }

    /// The end: the new root, not current before the manifest is durable.
    fn finish(&mut self, writes: PageWrites, map_root: MapRoot) -> Committed {
        let mut root = TreeRoot { transaction: self.transaction, last_revision: self.last_revision, ..TreeRoot::EMPTY };
        if let Some((entry, height)) = writes.root() {
            assert!(height <= HEIGHT_MAX, "a tree of height {height}");
            root.height = height;
            root.page = Some(entry.child);
            (root.entries, root.live_entries) = (entry.entries, entry.live_entries);
            (root.live_bytes, root.stored_bytes) = (entry.live_bytes, entry.stored_bytes);
        }
        let mut writer = self.writer.take().expect("the job ends once");
        let pin = writer.allocator.readers().pin(self.transaction);
        let tidying = std::mem::replace(&mut self.tidying, Tidying::done());
        writer.outcome = Some(Outcome {
            root: root.clone(),
            tidying,
            freed: writes.into_freed(),
            shrinks: self.changes.rewrite.shrinks,
        });
        Committed { writer, root: Arc::new(PinnedRoot { root, pin }), map_root }
    }

    /// Runs one stage. `None` means that the next one can run at once.
    fn run(&mut self, completions: &mut Completions, budget: usize) -> Run<Option<Step<Committed>>> {
        let completions = std::mem::take(completions);
        let file = self.writer().pages.file();
        match self.stage.take().expect("a job that ended is not stepped") {
            Stage::Check => {
                self.check()?;
                let writer = self.writer();
                writer.pages.forget_nodes(&std::mem::take(&mut writer.left_behind));
                self.stage = Some(Stage::Open);
                Ok(None)
            }
            Stage::Open => {
                self.arrived(completions)?;
                let wanted = std::mem::take(&mut self.wanted);
                let open = self.reads.waiting() == 0 && !self.want_branches(&wanted);
                self.wanted = wanted;
                self.stage = Some(if open { Stage::Mark(0) } else { Stage::Open });
                Ok(self.submit_reads())
            }
            Stage::Mark(next) => {
                self.arrived(completions)?;
                let next = self.mark_some(next, budget)?;
                let reads = self.submit_reads();
                // A tree without leaves has nothing to mark.
                let done = reads.is_none() && self.edit.next_mark(&self.changes.dead, next).is_none();
                self.stage = Some(if done { Stage::Sweep(self.begin_sweep()) } else { Stage::Mark(next) });
                Ok((!done).then(|| reads.unwrap_or(Step::Again)))
            }
            Stage::Sweep(mut sweeping) => {
                self.arrived(completions)?;
                let goes_on = self.sweep_some(&mut sweeping, budget);
                if goes_on {
                    self.stage = Some(Stage::Sweep(sweeping));
                    return Ok(Some(self.submit_reads().unwrap_or(Step::Again)));
                }
                let last = self.rewrite();
                let at = last.as_ref().map(|last| last.leaf.at);
                self.stage = Some(Stage::LastLeaf(last));
                let file = self.writer().pages.file();
                let read = |at: NodeRef| Io::Read { file, offset: at.page.offset(), length: at.page.bytes() };
                Ok(at.map(|at| Step::Submit(vec![read(at)])))
            }
            Stage::LastLeaf(mut last) => {
                if let Some(last) = &mut last {
                    let page = &last.leaf.at.page;
                    last.bytes = read_bytes(one(completions), page.offset(), page.bytes() as u64)?;
                }
                self.stage = Some(Stage::Place(self.plan(last)?, Placement::default()));
                Ok(None)
            }
            Stage::Place(plan, placement) => self.place(plan, placement),
            Stage::LoadMap(page, plan, placement) => {
                let completion = one(completions);
                let bytes = read_bytes(completion, page * PAGE_SIZE as u64, PAGE_SIZE as u64)?;
                self.writer().allocator.load(page, &bytes)?;
                self.stage = Some(Stage::Place(plan, placement));
                Ok(None)
            }
            Stage::Reserve(writes, map_root) => {
                done(completions)?;
                let writer = self.writer();
                writer.reserved_pages = writer.allocator.file_pages();
                self.stage = Some(Stage::Write(writes, map_root));
                Ok(None)
            }
            Stage::Read(mut writes, map_root, mut reads) => {
                for (at, bytes) in reads.complete(completions)? {
                    writes.take(&at, bytes);
                }
                let submitted = reads.submit(file).map(Step::Submit);
                self.stage = Some(match submitted {
                    Some(_) => Stage::Read(writes, map_root, reads),
                    None => Stage::Write(writes, map_root),
                });
                Ok(submitted)
            }
            Stage::Write(mut writes, map_root) => {
                done(completions)?;
                let mut reads = ReadQueue::new();
                writes.wanted().into_iter().for_each(|at| at.want_whole(&mut reads, at));
                if let Some(requests) = reads.submit(file) {
                    self.stage = Some(Stage::Read(writes, map_root, reads));
                    return Ok(Some(Step::Submit(requests)));
                }
                let (next, requests) = match writes.next_wave(file)? {
                    Some(wave) => (Stage::Write(writes, map_root), wave),
                    None if is_planted(Bug::PagesUnsynced) => (Stage::Sync(writes, map_root), vec![Io::Stat { file }]),
                    None => (Stage::Sync(writes, map_root), vec![Io::Sync { file }]),
                };
                self.stage = Some(next);
                Ok(Some(Step::Submit(requests)))
            }
            Stage::Sync(writes, map_root) => {
                one(completions).map_err(CommitFailure::Sync)?;
                Ok(Some(Step::Done(self.finish(writes, map_root))))
            }
        }
    }

    /// Takes everything back.
    fn failed(&mut self, cause: CommitFailure) -> CommitError {
        let mut writer = self.writer.take().expect("a job fails once");
        writer.allocator.abandoned();
        let usable = !matches!(cause, CommitFailure::Sync(_));
        CommitError { writer: usable.then(|| Box::new(writer)), cause }
    }
}

impl Job for Commit {
    type Output = Committed;
    type Error = CommitError;

    fn step(&mut self, mut completions: Completions, budget: usize) -> Result<Step<Committed>, CommitError> {
        loop {
            match self.run(&mut completions, budget) {
                Ok(Some(step)) => return Ok(step),
                Ok(None) => {}
                Err(cause) => return Err(self.failed(cause)),
            }
        }
    }
}

/// The completion of a single request.
fn one(mut completions: Completions) -> io::Result<IoOutput> {
    assert_eq!(completions.len(), 1, "one completion for one request");
    completions.pop().expect("there is one")
}

/// Checks that all writes or reservations happened.
fn done(completions: Completions) -> Run<()> {
    for completion in completions {
        completion.map_err(|error| match is_full(&error) {
            true => CommitFailure::NoSpace(error),
            false => CommitFailure::Write(error),
        })?;
    }
    Ok(())
}
