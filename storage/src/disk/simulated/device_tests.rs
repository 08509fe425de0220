use super::*;
use crate::disk::InjectedFault;

fn open(disk: &SimulatedDisk, name: &str) -> FileId {
    match disk.perform(Io::Open { name: name.into(), create: true }) {
        Ok(IoOutput::Opened { file, .. }) => file,
        other => panic!("{other:?}"),
    }
}

fn write(disk: &SimulatedDisk, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<IoOutput> {
    disk.perform(Io::Write { file, offset, bytes: Bytes::copy_from_slice(bytes) })
}

/// A disk with one durable file `f` of three sectors of `a`.
fn with_durable_file() -> (SimulatedDisk, FileId) {
    let disk = SimulatedDisk::new(1);
    let file = open(&disk, "f");
    write(&disk, file, 0, &[b'a'; 1536]).expect("writes");
    disk.perform(Io::Sync { file }).expect("syncs");
    disk.perform(Io::SyncDir { directory: String::new() }).expect("syncs");
    (disk, file)
}

#[test]
fn only_what_was_synced_survives_the_worst_power_cut() {
    let (disk, file) = with_durable_file();
    write(&disk, file, 100, &[b'b'; 2000]).expect("writes");
    assert_eq!(disk.contents("f").map(|bytes| bytes.len()), Some(2100));
    assert_eq!(disk.crash(PowerCut::KeepNone).contents("f"), Some(vec![b'a'; 1536]));
    assert_eq!(disk.crash(PowerCut::KeepAll).contents("f"), disk.contents("f"));
    disk.perform(Io::Sync { file }).expect("syncs");
    assert_eq!(disk.crash(PowerCut::KeepNone).contents("f"), disk.contents("f"));
}

#[test]
fn sectors_persist_one_by_one_and_tear() {
    let (disk, file) = with_durable_file();
    write(&disk, file, 0, &[b'b'; 1536]).expect("writes");
    let (mut mixed, mut torn) = (false, false);
    for seed in 0..200 {
        let bytes = disk.crash(PowerCut::Seeded(seed)).contents("f").expect("the name is durable");
        assert_eq!(bytes.len(), 1536);
        assert_eq!(bytes, disk.crash(PowerCut::Seeded(seed)).contents("f").expect("there"), "a seed replays");
        let uniform = |sector: &[u8]| sector.iter().all(|byte| *byte == sector[0]);
        torn |= !bytes.chunks(512).all(uniform);
        mixed |= bytes.chunks(512).all(uniform) && !uniform(&bytes);
    }
    assert!(mixed && torn);
}

#[test]
fn an_older_unsynced_state_of_a_sector_may_be_the_one_that_persists() {
    let (disk, file) = with_durable_file();
    write(&disk, file, 0, &[b'b'; 512]).expect("writes");
    write(&disk, file, 0, &[b'c'; 512]).expect("writes");
    let first = |seed| disk.crash(PowerCut::Seeded(seed)).contents("f").expect("there")[0];
    let seen: std::collections::BTreeSet<u8> = (0..200).map(first).collect();
    assert_eq!(seen, [b'a', b'b', b'c'].into());
}

#[test]
fn names_need_their_directory_synced() {
    let disk = SimulatedDisk::new(1);
    disk.perform(Io::CreateDir { name: "d".into() }).expect("creates");
    let file = open(&disk, "d/x");
    disk.perform(Io::Sync { file }).expect("syncs");
    disk.perform(Io::SyncDir { directory: "d".into() }).expect("syncs");
    assert!(disk.crash(PowerCut::KeepNone).files().is_empty(), "the directory itself was not synced");
    disk.perform(Io::SyncDir { directory: String::new() }).expect("syncs");
    assert_eq!(disk.crash(PowerCut::KeepNone).files(), ["d/x"]);

    disk.perform(Io::Rename { from: "d/x".into(), to: "d/y".into() }).expect("renames");
    assert_eq!(disk.files(), ["d/y"]);
    assert_eq!(disk.crash(PowerCut::KeepNone).files(), ["d/x"]);
    assert_eq!(disk.crash(PowerCut::KeepAll).files(), ["d/y"]);
    for seed in 0..50 {
        assert_eq!(disk.crash(PowerCut::Seeded(seed)).files().len(), 1, "a rename is atomic");
    }
    disk.perform(Io::SyncDir { directory: "d".into() }).expect("syncs");
    assert_eq!(disk.crash(PowerCut::KeepNone).files(), ["d/y"]);

    disk.perform(Io::Remove { name: "d/y".into() }).expect("removes");
    assert!(disk.files().is_empty());
    assert_eq!(disk.crash(PowerCut::KeepNone).files(), ["d/y"]);
}

#[test]
fn a_length_is_lost_like_any_other_change() {
    let (disk, file) = with_durable_file();
    disk.perform(Io::Truncate { file, length: 600 }).expect("truncates");
    assert_eq!(disk.crash(PowerCut::KeepNone).contents("f"), Some(vec![b'a'; 1536]));
    disk.perform(Io::Sync { file }).expect("syncs");
    disk.perform(Io::Truncate { file, length: 1000 }).expect("truncates");
    let expected = [vec![b'a'; 600], vec![0; 400]].concat();
    assert_eq!(disk.contents("f"), Some(expected));
    assert_eq!(disk.crash(PowerCut::KeepNone).contents("f"), Some(vec![b'a'; 600]));
}

#[test]
fn a_failed_sync_drops_pages_and_the_next_one_lies() {
    let (disk, file) = with_durable_file();
    write(&disk, file, 0, &[b'b'; 100 * 512]).expect("writes");
    disk.fail_sync(1);
    let error = disk.perform(Io::Sync { file }).expect_err("armed");
    assert_eq!(InjectedFault::behind(&error), Some(InjectedFault::Sync));
    disk.perform(Io::Sync { file }).expect("the second sync lies");
    assert!(disk.contents("f") == Some(vec![b'b'; 100 * 512]), "the cache still shows them");
    assert!(disk.restart().contents("f") == disk.contents("f"), "also to the next process");
    assert!(disk.crash(PowerCut::KeepAll).contents("f") != disk.contents("f"), "they are gone");
}

#[test]
fn a_full_disk_refuses_growth_only() {
    let (disk, file) = with_durable_file();
    disk.set_capacity(8192);
    disk.perform(Io::Allocate { file, offset: 0, length: 8192 }).expect("fits");
    assert_eq!(disk.used_bytes(), 8192);
    let full = |result: io::Result<IoOutput>| result.expect_err("full").kind() == io::ErrorKind::StorageFull;
    assert!(full(write(&disk, file, 8192, b"x")));
    assert!(full(disk.perform(Io::Allocate { file, offset: 8192, length: u64::from(u32::MAX) })));
    write(&disk, file, 8000, b"within").expect("fits");
    disk.perform(Io::PunchHole { file, offset: 4096, length: 4096 }).expect("punches");
    assert_eq!(disk.used_bytes(), 4096);
    write(&disk, file, 9000, b"x").expect("fits again");
}

#[test]
fn stopped_disks_do_nothing() {
    let (disk, file) = with_durable_file();
    disk.stop_after(disk.operations() + 1);
    write(&disk, file, 0, b"b").expect("the last one");
    let error = write(&disk, file, 1, b"b").expect_err("stopped");
    assert!(InjectedFault::behind(&error) == Some(InjectedFault::Stopped) && disk.is_stopped());
    assert_eq!(&disk.contents("f").expect("there")[..2], b"ba");
    let reborn = disk.crash(PowerCut::KeepAll);
    assert_eq!(reborn.operations(), 0);
    assert!(reborn.perform(Io::Sync { file }).is_err(), "ids of an earlier life are invalid");
    assert_ne!(open(&reborn, "f"), file);
}

#[test]
fn armed_bytes_fail_or_flip() {
    let (disk, file) = with_durable_file();
    assert!(disk.flip_bit("f", 3, 0) && !disk.flip_bit("f", 9999, 0) && !disk.flip_bit("g", 0, 0));
    assert_eq!(&disk.contents("f").expect("there")[2..5], b"a`a");
    assert_eq!(disk.crash(PowerCut::KeepNone).contents("f"), disk.contents("f"));
    assert!(disk.fail_reads_at("f", 700));
    assert!(disk.perform(Io::Read { file, offset: 0, length: 701 }).is_err());
    assert!(disk.perform(Io::Read { file, offset: 0, length: 700 }).is_ok());
    let eof = disk.perform(Io::Read { file, offset: 0, length: usize::MAX / 2 });
    assert_eq!(eof.map_err(|error| error.kind()), Err(io::ErrorKind::UnexpectedEof));
    disk.fail_write(2);
    assert!(write(&disk, file, 0, b"x").is_ok() && write(&disk, file, 0, b"x").is_err());
}

#[test]
fn an_unlinked_file_lives_while_it_is_open() {
    let (disk, file) = with_durable_file();
    disk.perform(Io::Remove { name: "f".into() }).expect("removes");
    disk.perform(Io::SyncDir { directory: String::new() }).expect("syncs");
    assert!(disk.perform(Io::Read { file, offset: 0, length: 10 }).is_ok());
    assert_eq!(disk.used_bytes(), 4096);
    disk.perform(Io::Close { file }).expect("closes");
    assert_eq!(disk.used_bytes(), 0);
}

#[test]
fn subsets_are_all_that_whole_changes_can_leave() {
    let (disk, file) = with_durable_file();
    write(&disk, file, 0, &[b'b'; 512]).expect("writes");
    write(&disk, file, 1024, &[b'c'; 1024]).expect("writes");
    open(&disk, "g");
    // Two sectors that were there, one behind the end, the length, and a name.
    assert_eq!(disk.unsynced_changes(), 5);
    let left = |kept| {
        let cut = disk.crash(PowerCut::Subset(kept));
        (cut.contents("f"), cut.contents("g"))
    };
    let all: std::collections::BTreeSet<_> = (0..1 << 5).map(left).collect();
    // The last sector shows only with the length; without it, it is one state less for each of the others.
    assert_eq!(all.len(), 2 * 2 * 2 * 3);
    assert!(all.contains(&(disk.crash(PowerCut::KeepNone).contents("f"), None)));
    assert!(all.contains(&(disk.contents("f"), disk.contents("g"))));
    assert_eq!(disk.changing_operations().len() as u64, disk.operations(), "nothing was only read");
}
