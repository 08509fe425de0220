//! One shard: the runs of its index, its pages with their map, and both together.

use std::sync::Arc;

use crate::checkpoint::manifest::{Manifest, ShardManifest};
use crate::checkpoint::recovery::{load_index, open_pages};
use crate::checkpoint::{RUNS_DIRECTORY, page_file_name};
use crate::disk::{Disk, Io, IoOutput};
use crate::job::{Job, Step, run};
use crate::mvcc::shard_map::{ShardId, ShardMap};
use crate::pages::allocator::{MapRoot, PAGE_SIZE};
use crate::pages::{PageCache, PageWriter, Verify};
use crate::revision::Revision;
use crate::runs::{MergedRuns, Removals, RunMeta, run_name};

use super::finding::{Finding, Observer, causes};
use super::index_check::IndexCheck;

/// A survey reads past the cache.
const PAGE_CACHE_BYTES: usize = 1 << 20;
/// Findings of one kind in one file that are told one by one.
const TOLD_MAX: u64 = 20;
/// Revisions asked for at a time when some are missing.
const FETCHED: usize = 1024;
const RECORDS: usize = 4096;

/// What a shard holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ShardChecked {
    pub keys: u64,
    pub revisions: u64,
    pub bytes: u64,
}

/// One check of a shard.
pub(super) struct ShardCheck<'a> {
    pub disk: &'a dyn Disk,
    pub manifest: &'a Manifest,
    pub shard: &'a ShardManifest,
    pub shard_map: &'a ShardMap,
}

impl ShardCheck<'_> {
    pub fn run(&self, observer: &mut dyn Observer) -> ShardChecked {
        let mut index = self.check_index(observer);
        let mut checked = ShardChecked { keys: index.as_ref().map_or(0, IndexCheck::keys), ..ShardChecked::default() };
        let name = format!("{} of shard {:?}", page_file_name(self.shard.page_file), self.shard.name);
        let cache = Arc::new(PageCache::new(PAGE_CACHE_BYTES));
        let writer = match open_pages(self.disk, &cache, self.shard) {
            Ok(writer) => writer,
            Err(error) => {
                observer.found(Finding::damage(&name, causes(&error)));
                return checked;
            }
        };
        self.check_length(&name, &writer, observer);
        let root = writer.root();
        (checked.revisions, checked.bytes) = (root.live_entries, root.live_bytes);
        let manifest_says = (self.shard.transaction, self.shard.live_bytes, self.shard.entries);
        if manifest_says != (root.transaction, root.live_bytes, root.entries) {
            observer.found(Finding::damage(&name, "the manifest and the root of its tree differ in what it holds"));
        }
        let damaged = self.survey(&name, &writer, index.as_mut(), observer);
        if let Some(index) = &index {
            self.look_for_missing(&name, &writer, index, damaged, observer);
        }
        // The disk has no use for the file any more; nothing was written.
        drop(self.disk.perform(Io::Close { file: writer.pages().file() }));
        checked
    }

    fn check_index(&self, observer: &mut dyn Observer) -> Option<IndexCheck<'_>> {
        match load_index(self.disk, self.shard) {
            Ok(index) => {
                let newest = index.head().newest_main();
                if newest > self.manifest.revision {
                    let place = format!("index of shard {:?}", self.shard.name);
                    observer.found(Finding::damage(&place, format!("it names revision {newest}, above the store's")));
                }
                let shard = ShardId(self.shard.shard);
                let Manifest { revision, compact_revision, .. } = *self.manifest;
                Some(IndexCheck::new((shard, self.shard_map), index, revision, compact_revision))
            }
            Err(error) => {
                if check_runs(self.disk, &self.shard.index_runs, observer) == 0 {
                    let place = format!("index of shard {:?}", self.shard.name);
                    observer.found(Finding::damage(&place, causes(&error)));
                }
                None
            }
        }
    }

    fn check_length(&self, name: &str, writer: &PageWriter, observer: &mut dyn Observer) {
        let stat = self.disk.perform(Io::Stat { file: writer.pages().file() });
        let Ok(IoOutput::Stat { length, .. }) = stat else { return };
        let known = writer.reserved_pages() * PAGE_SIZE as u64;
        if length < known {
            observer.found(Finding::damage(name, format!("it has {length} bytes, its map knows {known}")));
        } else if length > known {
            let text = format!(
                "{} bytes behind those that count, left by a checkpoint that did not come about",
                length - known
            );
            observer.found(Finding::note(name, text));
        }
    }

    /// Reads all pages; whether damage was found in them.
    fn survey(
        &self,
        name: &str,
        writer: &PageWriter,
        mut index: Option<&mut IndexCheck<'_>>,
        observer: &mut dyn Observer,
    ) -> bool {
        if self.shard.tree_root.is_empty() {
            return false;
        }
        let map_root = match MapRoot::decode(&self.shard.map_root) {
            Ok(map_root) => map_root,
            Err(error) => {
                observer.found(Finding::damage(name, error.to_string()));
                return true;
            }
        };
        let total = writer.used_pages() * PAGE_SIZE as u64;
        let mut told = Told::new(name);
        let mut job = writer.pages().survey(writer.pinned_root(), map_root);
        let mut completions = Vec::new();
        let mut damaged = false;
        loop {
            let step = job.step(std::mem::take(&mut completions), 1);
            damaged |= take_surveyed(&mut job, index.as_deref_mut(), &mut told, observer);
            observer.progress(name, job.verified().pages * PAGE_SIZE as u64, total);
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Submit(requests)) => {
                    completions = requests.into_iter().map(|io| self.disk.perform(io)).collect()
                }
                Ok(Step::Done(_)) => break,
                Err(error) => {
                    told.tell(error.to_string(), observer);
                    damaged = true;
                    break;
                }
            }
        }
        told.end(observer);
        damaged
    }

    /// Names what the index has and the pages have not.
    fn look_for_missing(
        &self,
        name: &str,
        writer: &PageWriter,
        index: &IndexCheck<'_>,
        damaged: bool,
        observer: &mut dyn Observer,
    ) {
        if index.found == index.named {
            return;
        }
        let missing = index.named.saturating_sub(index.found);
        if damaged {
            let text = format!("{missing} revisions that the index names were not found in what could be read");
            observer.found(Finding::damage(name, text));
            return;
        }
        let mut told = Told::new(name);
        let mut batch: Vec<Revision> = Vec::new();
        let mut ask = |batch: &mut Vec<Revision>, observer: &mut dyn Observer| {
            let revisions = std::mem::take(batch);
            let mut fetch = writer.pages().fetch(writer.pinned_root(), revisions.clone());
            match run(&mut fetch, self.disk, RECORDS) {
                Ok(values) => {
                    let absent = revisions.iter().zip(values).filter(|(_, value)| value.is_none());
                    absent.for_each(|(revision, _)| {
                        told.tell(format!("{revision:?}: the index names it, no page has it"), observer);
                    });
                }
                Err(error) => told.tell(causes(&error), observer),
            }
        };
        index.for_each_named(|_, revision, _| {
            batch.push(revision);
            if batch.len() == FETCHED {
                ask(&mut batch, observer);
            }
        });
        ask(&mut batch, observer);
        if told.told == 0 {
            observer.found(Finding::damage(name, format!("{missing} revisions that the index names are marked dead")));
        }
        told.end(observer);
    }
}

/// Takes what a survey met; whether there was damage.
fn take_surveyed(
    job: &mut Verify,
    index: Option<&mut IndexCheck<'_>>,
    told: &mut Told<'_>,
    observer: &mut dyn Observer,
) -> bool {
    let surveyed = job.take_surveyed();
    let damaged = !surveyed.damage.is_empty();
    surveyed.damage.iter().for_each(|damage| told.tell(causes(damage), observer));
    let Some(index) = index else { return damaged };
    for entry in &surveyed.entries {
        if let Err(flaw) = index.entry(entry) {
            told.tell(format!("{:?}: {flaw}", entry.revision), observer);
        }
    }
    damaged
}

/// Reads runs one by one; how many are damaged.
pub(super) fn check_runs(disk: &dyn Disk, runs: &[RunMeta], observer: &mut dyn Observer) -> usize {
    let mut damaged = 0;
    for meta in runs {
        let mut run = MergedRuns::new(RUNS_DIRECTORY, std::slice::from_ref(meta), Removals::Keep);
        loop {
            match crate::job::run(&mut run.next_batch(), disk, RECORDS) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    damaged += 1;
                    observer.found(Finding::damage(&run_name(RUNS_DIRECTORY, meta.number), causes(&error)));
                    run.close().into_iter().for_each(|io| drop(disk.perform(io)));
                    break;
                }
            }
        }
    }
    damaged
}

/// The damage of one file: the first pieces one by one, then a count.
struct Told<'a> {
    place: &'a str,
    told: u64,
}

impl<'a> Told<'a> {
    fn new(place: &'a str) -> Self {
        Self { place, told: 0 }
    }

    fn tell(&mut self, text: String, observer: &mut dyn Observer) {
        self.told += 1;
        if self.told <= TOLD_MAX {
            observer.found(Finding::damage(self.place, text));
        }
    }

    fn end(&self, observer: &mut dyn Observer) {
        if let Some(more) = self.told.checked_sub(TOLD_MAX).filter(|more| *more > 0) {
            observer.found(Finding::damage(self.place, format!("and {more} more")));
        }
    }
}
