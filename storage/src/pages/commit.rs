//! A commit: from a list of changes to synced pages under a new root, without touching the old one.

use std::io;
use std::sync::Arc;

use crate::disk::{Io, IoOutput, is_full};
use crate::job::{Completions, Job, Step};
use crate::revision::Revision;

use super::allocator::{AllocatorError, MapRoot, PAGE_SIZE, TransactionId};
use super::branch::HEIGHT_MAX;
use super::gathering::Gathering;
use super::leaf::ENTRY_BYTES_MAX;
use super::page_cache::Node;
use super::page_file::NodeRef;
use super::page_writer::{Outcome, PageWriter, Tidying};
use super::page_writes::PageWrites;
use super::placement::Placement;
use super::read_queue::{READS_IN_FLIGHT_MAX, ReadQueue, read_bytes};
use super::tree_changes::{CommitError, CommitFailure, Committed, TreeChanges};
use super::tree_edit::{MarkTask, Path, TreeEdit};
use super::tree_plan::TreePlan;
use super::tree_root::{PinnedRoot, TreeRoot};

/// Who a read is for.
#[derive(Debug)]
enum Want {
    Branch(Path, NodeRef),
    Mark(MarkTask),
    Whole(NodeRef),
}

/// What the commit does next.
#[derive(Debug)]
enum Stage {
    Check,
    /// Opens the branches above all changes.
    Open,
    /// Marks what is dead, leaf by leaf.
    Mark(Vec<MarkTask>),
    /// Reads the leaves that are written anew.
    Gather(Gathering),
    Place(TreePlan, Placement),
    /// Waits for a map page that the allocator asked for.
    LoadMap(u64, TreePlan, Placement),
    /// Waits for the space that the file grows by.
    Reserve(PageWrites, MapRoot),
    Write(PageWrites, MapRoot),
    Sync(PageWrites, MapRoot),
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
    sweep_branches_left: usize,
    tidying: Tidying,
    edit: TreeEdit,
    reads: ReadQueue<Want>,
    stage: Option<Stage>,
}

type Run<T> = Result<T, CommitFailure>;

impl Commit {
    pub(super) fn new(writer: PageWriter, transaction: TransactionId, mut changes: TreeChanges) -> Self {
        changes.dead.sort_unstable();
        changes.dead.dedup();
        let mut wanted = changes.dead.clone();
        if !changes.appended.is_empty() {
            wanted.push(Revision::new(i64::MAX, i64::MAX));
        }
        wanted.extend(writer.tidying.sparse.iter().take(changes.rewrite.leaves_max));
        wanted.sort_unstable();
        Self {
            transaction,
            last_revision: changes.appended.last().map_or(writer.root.last_revision, |entry| entry.revision),
            wanted,
            sweep_branches_left: changes.rewrite.sweep_branches_max,
            tidying: writer.tidying.clone(),
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
    fn arrived(&mut self, completions: Completions, mut gathering: Option<&mut Gathering>) -> Run<()> {
        for (want, bytes) in self.reads.complete(completions)? {
            match want {
                Want::Branch(path, at) => {
                    if let Node::Branch(branch) = self.writer().pages.admit_node(&at, &bytes)? {
                        self.edit.open(&path, &branch);
                    }
                }
                Want::Mark(task) => {
                    if let Node::Leaf(leaf) = self.writer().pages.admit_node(&task.at, &bytes)? {
                        self.edit.mark(&task, &leaf).map_err(|flaw| task.at.corrupt(flaw))?;
                    }
                }
                Want::Whole(at) => {
                    let gathering = gathering.as_mut().expect("whole leaves are wanted while gathering");
                    gathering.take(&at, bytes)?;
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

    /// Asks for branches that are not open yet; false when all are.
    fn want_branches(&mut self) -> bool {
        loop {
            let pages = self.writer().pages.clone();
            let missing = self.edit.open_cached(&self.wanted, &pages);
            for (path, at) in missing {
                at.want(&mut self.reads, Want::Branch(path, at));
            }
            if self.reads.waiting() > 0 {
                return true;
            }
            if !self.sweep_on() {
                return false;
            }
        }
    }

    /// Adds the next branch of the sweep to those that are opened.
    fn sweep_on(&mut self) -> bool {
        let Some(at) = self.tidying.sweep.filter(|_| self.sweep_branches_left > 0) else { return false };
        let place = self.wanted.partition_point(|revision| *revision < at);
        if self.wanted.get(place) != Some(&at) {
            self.wanted.insert(place, at);
            return true;
        }
        self.sweep_branches_left -= 1;
        self.tidying.sweep = self.edit.leaf_branch_after(at);
        true
    }

    /// Marks up to `budget` leaves whose heads are cached, and asks for the heads of the others.
    fn mark_some(&mut self, tasks: &mut Vec<MarkTask>, budget: usize) -> Run<()> {
        for _ in 0..budget.max(1) {
            if self.reads.waiting() == READS_IN_FLIGHT_MAX {
                break;
            }
            let Some(task) = tasks.pop() else { break };
            match self.writer().pages.cached_node(&task.at) {
                Some(Node::Leaf(leaf)) => {
                    self.edit.mark(&task, &leaf).map_err(|flaw| task.at.corrupt(flaw))?;
                }
                _ => {
                    let at = task.at;
                    at.want(&mut self.reads, Want::Mark(task));
                }
            }
        }
        Ok(())
    }

    /// Picks the leaves that are written anew and asks for them.
    fn want_leaves(&mut self) -> Gathering {
        let (gathering, waiting) = Gathering::choose(&mut self.edit, &self.changes);
        // What was wanted was looked at; what is still sparse is in `waiting`.
        let wanted = &self.wanted;
        self.tidying.sparse.retain(|revision| wanted.binary_search(revision).is_err());
        self.tidying.sparse.extend(waiting);
        for at in gathering.leaves(&mut self.edit) {
            at.want_whole(&mut self.reads, Want::Whole(at));
        }
        gathering
    }

    /// Packs what was gathered and what is appended into new leaves, and settles the tree above them.
    fn plan(&mut self, gathering: Gathering) -> Run<TreePlan> {
        let mut edit = std::mem::replace(&mut self.edit, TreeEdit::new(&TreeRoot::EMPTY));
        gathering.pack(&mut edit, std::mem::take(&mut self.changes.appended))?;
        Ok(TreePlan::new(edit))
    }

    /// Allocates and frees; then reserves what the file grows by.
    fn place(&mut self, plan: TreePlan, mut placement: Placement) -> Run<Option<Step<Committed>>> {
        let (transaction, writer) = (self.transaction, self.writer());
        let file = writer.pages.file();
        match placement.advance(&plan, &mut writer.allocator) {
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
    fn finish(&mut self, writes: &PageWrites, map_root: MapRoot) -> Committed {
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
        writer.outcome = Some(Outcome { root: root.clone(), tidying: std::mem::take(&mut self.tidying) });
        Committed { writer, root: Arc::new(PinnedRoot { root, pin }), map_root }
    }

    /// Runs one stage. `None` means that the next one can run at once.
    fn run(&mut self, completions: &mut Completions, budget: usize) -> Run<Option<Step<Committed>>> {
        let completions = std::mem::take(completions);
        let file = self.writer().pages.file();
        match self.stage.take().expect("a job that ended is not stepped") {
            Stage::Check => {
                self.check()?;
                self.stage = Some(Stage::Open);
                Ok(None)
            }
            Stage::Open => {
                self.arrived(completions, None)?;
                let open = self.reads.waiting() == 0 && !self.want_branches();
                self.stage =
                    Some(if open { Stage::Mark(self.edit.mark_tasks(&self.changes.dead)) } else { Stage::Open });
                Ok(self.submit_reads())
            }
            Stage::Mark(mut tasks) => {
                self.arrived(completions, None)?;
                self.mark_some(&mut tasks, budget)?;
                let reads = self.submit_reads();
                let done = tasks.is_empty() && reads.is_none();
                let next = if done { Stage::Gather(self.want_leaves()) } else { Stage::Mark(tasks) };
                self.stage = Some(next);
                Ok(if done { self.submit_reads() } else { Some(reads.unwrap_or(Step::Again)) })
            }
            Stage::Gather(mut gathering) => {
                self.arrived(completions, Some(&mut gathering))?;
                let reads = self.submit_reads();
                self.stage = Some(match reads {
                    Some(_) => Stage::Gather(gathering),
                    None => Stage::Place(self.plan(gathering)?, Placement::default()),
                });
                Ok(reads)
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
            Stage::Write(mut writes, map_root) => {
                done(completions)?;
                let (next, requests) = match writes.next_wave(file) {
                    Some(wave) => (Stage::Write(writes, map_root), wave),
                    None => (Stage::Sync(writes, map_root), vec![Io::Sync { file }]),
                };
                self.stage = Some(next);
                Ok(Some(Step::Submit(requests)))
            }
            Stage::Sync(writes, map_root) => {
                one(completions).map_err(CommitFailure::Sync)?;
                Ok(Some(Step::Done(self.finish(&writes, map_root))))
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
