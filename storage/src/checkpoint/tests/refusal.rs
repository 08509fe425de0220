//! A checkpoint that finds the disk full leaves the directory as it was: its names, and what is open.

use std::io;

use super::rig::{Rig, list};
use crate::checkpoint::{PAGES_DIRECTORY, RUNS_DIRECTORY};
use crate::disk::{Disk, Io, IoOutput};
use crate::mvcc::system::Table;
use crate::runs::memory_disk::MemoryDisk;
use crate::runs::run_name;

/// Enough small checkpoints for runs to be merged more than once.
const CHECKPOINTS: usize = 120;

fn named_runs(rig: &Rig) -> Vec<String> {
    let mut names: Vec<_> = rig.checkpointer().manifest().runs().map(|run| run_name("", run.number)).collect();
    names.sort_unstable();
    names
}

/// A disk whose user has a quota.
struct Quota<'a>(&'a MemoryDisk);

impl Disk for Quota<'_> {
    fn perform(&self, io: Io) -> io::Result<IoOutput> {
        self.0.perform(io).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => io::ErrorKind::QuotaExceeded.into(),
            other => other.into(),
        })
    }
}

#[test]
fn a_used_up_quota_refuses_a_checkpoint_as_a_full_disk_does() {
    let disk = MemoryDisk::default();
    let mut rig = Rig::create(&disk).unwrap();
    rig.put("/registry/pods/a", b"1");
    for directory in [PAGES_DIRECTORY, RUNS_DIRECTORY] {
        disk.limit(Some((directory, 0)));
        assert!(!rig.checkpoint(&Quota(&disk)).unwrap(), "{directory} is full");
        disk.limit(None);
    }
    assert!(rig.checkpoint(&Quota(&disk)).unwrap());
}

#[test]
fn a_refused_checkpoint_leaves_the_files_of_the_last_manifest_and_none_open() {
    let disk = MemoryDisk::default();
    let mut rig = Rig::create(&disk).unwrap();
    let (mut refused, mut merges) = (0, 0);
    for number in 0..CHECKPOINTS {
        rig.put("/registry/pods/a", &[number as u8; 100]);
        rig.put(&format!("/registry/events/{number}"), &[number as u8; 9_000]);
        rig.store.set_record(Table::Lease, &[number as u8], Some(vec![1; 50].into()));
        let before = named_runs(&rig);
        for directory in [PAGES_DIRECTORY, RUNS_DIRECTORY] {
            for granted in 0.. {
                let (open, runs) = (disk.open_files(), named_runs(&rig));
                disk.limit(Some((directory, granted)));
                // The last round of the second directory is the checkpoint that comes about.
                let done = rig.checkpoint(&disk).unwrap();
                disk.limit(None);
                assert_eq!(
                    list(&disk, RUNS_DIRECTORY),
                    named_runs(&rig),
                    "checkpoint {number}, {granted} in {directory}"
                );
                assert_eq!(disk.open_files(), open, "checkpoint {number}, {granted} in {directory}");
                if done {
                    break;
                }
                refused += 1;
                assert_eq!(named_runs(&rig), runs);
            }
            if directory == PAGES_DIRECTORY {
                rig.put("/registry/pods/b", &[number as u8; 10]);
            }
        }
        merges += usize::from(before.iter().any(|name| !named_runs(&rig).contains(name)));
    }
    assert!(merges > 1 && refused > 3 * CHECKPOINTS, "{merges} merges, {refused} refused");
    let reopened = Rig::open(&disk).unwrap().unwrap();
    assert_eq!(reopened.values(&disk), rig.values(&disk));
}
