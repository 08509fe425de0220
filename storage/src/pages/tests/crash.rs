//! Power cuts at every request of a commit, and writes that fail.

use std::sync::Arc;

use crate::disk::{Disk, FileId, Io, IoOutput, PowerCut, SimulatedDisk};
use crate::job::{BUDGET_UNLIMITED, Job, run};

use crate::pages::allocator::{MapRoot, TransactionId};
use crate::pages::{
    CommitError, CommitFailure, Committed, FileTag, PageCache, PageWriter, Pages, RewriteLimits, ScannedSlot,
    TreeChanges, TreeRoot,
};

use super::rig::{FIRST, LAST, entries, revisions};

const NAME: &str = "pages";

/// What the manifest names.
#[derive(Clone)]
struct Roots {
    tree: TreeRoot,
    map: MapRoot,
}

fn open_file(disk: &SimulatedDisk) -> Pages {
    let file = match disk.perform(Io::Open { name: NAME.to_owned(), create: true }).unwrap() {
        IoOutput::Opened { file, .. } => file,
        other => panic!("{other:?}"),
    };
    disk.perform(Io::SyncDir { directory: String::new() }).unwrap();
    pages(file)
}

fn pages(file: FileId) -> Pages {
    Pages::new(file, FileTag(1), Arc::new(PageCache::new(1 << 20)))
}

fn done<J: Job>(disk: &SimulatedDisk, mut job: J) -> Result<J::Output, J::Error> {
    run(&mut job, disk, BUDGET_UNLIMITED)
}

fn commit(disk: &SimulatedDisk, writer: PageWriter, changes: TreeChanges) -> Result<(PageWriter, Roots), CommitError> {
    let transaction = TransactionId(writer.root().transaction.0 + 1);
    let Committed { writer, root, map_root } = done(disk, writer.commit(transaction, changes))?;
    Ok((writer, Roots { tree: root.root.clone(), map: map_root }))
}

/// A file after two commits, and what its manifest names.
fn base(seed: u64) -> (SimulatedDisk, Roots) {
    let disk = SimulatedDisk::new(seed);
    let mut writer = PageWriter::create(open_file(&disk));
    let mut roots = None;
    for mains in [2..150, 150..300] {
        let changes = TreeChanges { appended: entries(mains, 900), ..TreeChanges::default() };
        let (mut ended, named) = commit(&disk, writer, changes).unwrap();
        ended.committed();
        (writer, roots) = (ended, Some(named));
    }
    (disk.crash(PowerCut::KeepNone), roots.unwrap())
}

/// Marks, drops and rewrites leaves, goes on in the last one, and makes the file grow.
fn changes() -> TreeChanges {
    let rewrite = RewriteLimits { live_percent: 100, ..RewriteLimits::default() };
    TreeChanges { appended: entries(300..600, 900), dead: revisions(2..120), rewrite }
}

fn read_all(disk: &SimulatedDisk, roots: &Roots) -> Vec<ScannedSlot> {
    let pages = open_file(disk);
    let writer = PageWriter::open(pages.clone(), roots.tree.clone(), roots.map.clone()).unwrap();
    done(disk, pages.verify(writer.pinned_root(), roots.map.clone())).unwrap();
    done(disk, pages.scan(writer.pinned_root(), FIRST, LAST, usize::MAX, true)).unwrap().slots
}

#[test]
fn a_power_cut_at_any_request_leaves_the_durable_tree() {
    for seed in 0..6 {
        let (disk, before) = base(seed);
        let expected = read_all(&disk, &before);
        let mut requests = 0;
        loop {
            let disk = disk.crash(PowerCut::KeepNone);
            let writer = PageWriter::open(open_file(&disk), before.tree.clone(), before.map.clone()).unwrap();
            disk.stop_after(disk.operations() + requests);
            let outcome = commit(&disk, writer, changes());
            let after = disk.crash(PowerCut::Seeded(seed * 1000 + requests));
            assert_eq!(read_all(&after, &before), expected, "seed {seed}, request {requests}");
            if let Ok((_, new)) = outcome {
                // Everything was synced: the manifest may as well name the new tree.
                assert!(read_all(&after, &new).iter().map(|slot| slot.revision).eq(revisions(120..600)));
                break;
            }
            requests += 1;
        }
        assert!(requests > 5, "a commit of {requests} requests");
    }
}

#[test]
fn a_failed_write_is_undone_and_can_be_repeated() {
    let (disk, before) = base(9);
    let expected = read_all(&disk, &before);
    let mut writer = PageWriter::open(open_file(&disk), before.tree.clone(), before.map.clone()).unwrap();
    let used = writer.used_pages();
    for nth in 1.. {
        disk.fail_write(nth);
        match commit(&disk, writer, changes()) {
            Err(error) => {
                assert!(matches!(error.cause, CommitFailure::Write(_)), "{error:?}");
                writer = *error.writer.unwrap();
                assert_eq!((writer.root(), writer.used_pages()), (&before.tree, used));
                assert_eq!(read_all(&disk, &before), expected);
            }
            Ok((_, new)) => {
                assert!(nth > 2);
                read_all(&disk, &new);
                break;
            }
        }
    }
}
