//! Takeovers that are stopped, logs that are not a restore's, databases that are kept out.

use std::sync::Arc;

use basalt_storage::checkpoint::Salt;
use basalt_storage::checkpoint::recovery;
use basalt_storage::disk::{Disk, Io, IoOutput, PowerCut, SimulatedDisk};
use basalt_storage::import::{Marker, NameKind, name_kind};
use basalt_storage::mvcc::key_value::KeyValue;
use basalt_storage::mvcc::system::Table;
use basalt_storage::pages::PageCache;
use basalt_storage::revision::Revision;
use basalt_storage::snapshot::bbolt::{Plan, Writer};
use basalt_storage::snapshot::{KEY_BUCKET, SystemTables};
use bytes::Bytes;
use prost::Message;
use rand::{SeedableRng, rngs::StdRng};

use super::etcd_log::{ConfChange, Entry, HardState, Metadata, Record, Snapshot};
use super::*;
use crate::apply::members::Members;

const SEGMENT: &str = "member/wal/0000000000000000-0000000000000000.wal";

fn frame(crc: &mut u32, kind: i64, data: &[u8]) -> Vec<u8> {
    *crc = crc32c::crc32c_append(*crc, data);
    let record = Record { kind, crc: *crc, data: data.to_vec() }.encode_to_vec();
    let padding = record.len().next_multiple_of(8) - record.len();
    let high = if padding > 0 { 0x80 | padding as u64 } else { 0 };
    let mut frame = (record.len() as u64 | high << 56).to_le_bytes().to_vec();
    frame.extend(record);
    frame.resize(frame.len() + padding, 0);
    frame
}

/// A log as a restore for so many members writes it, and what else is put behind that.
fn log(members: u64, more: &[(i64, Vec<u8>)]) -> Bytes {
    let mut crc = 0;
    let metadata = Metadata { node_id: 7, cluster_id: 9 }.encode_to_vec();
    let mut records = vec![(1, metadata), (5, Snapshot { index: 0, term: 0 }.encode_to_vec())];
    for index in 1..=members {
        let id = 6 + index;
        let context = format!("{{\"id\":{id},\"peerURLs\":[\"http://m{id}:1\"],\"name\":\"m{id}\"}}").into_bytes();
        let data = ConfChange { kind: 0, node_id: id, context }.encode_to_vec();
        records.push((2, Entry { kind: 1, term: 1, index, data }.encode_to_vec()));
    }
    records.push((3, HardState { term: 1, commit: members }.encode_to_vec()));
    records.push((5, Snapshot { index: members, term: 1 }.encode_to_vec()));
    records.extend_from_slice(more);
    let mut bytes = frame(&mut crc, 4, &[]);
    records.iter().for_each(|(kind, data)| bytes.extend(frame(&mut crc, *kind, data)));
    bytes.resize(bytes.len() + 4096, 0);
    bytes.into()
}

fn tables() -> SystemTables {
    let tables = SystemTables::new().with_applied(1, 1).with_lease(77, 600, 0).with_alarm(300, 1);
    // Field 1 of both is the name.
    let named = |name: &[u8]| [&[0x0a, name.len() as u8], name].concat();
    tables.with_user(b"ann", named(b"ann")).with_role(b"reader", named(b"reader")).with_auth(true, 5)
}

/// A database of 30 puts.
fn database(tables: &SystemTables) -> Bytes {
    let entries = (2..32i64).map(|main| {
        let key = ["/registry/events/a", "/registry/pods/a", "x"][main as usize % 3].as_bytes();
        let kv = KeyValue { key, create_revision: main, mod_revision: main, version: 1, value: b"v", lease: 77 };
        (Revision::new(main, 0).to_key().to_vec(), kv.encode())
    });
    let keys: Vec<(Vec<u8>, Bytes)> = entries.collect();
    let buckets = tables.iter().map(|(name, table)| {
        let entries = table.iter().map(|(key, value)| (key.clone(), Bytes::from(value.clone())));
        (name, entries.collect::<Vec<_>>())
    });
    let mut buckets: Vec<_> = buckets.chain([(KEY_BUCKET, keys)]).collect();
    buckets.sort_unstable_by_key(|(name, _)| *name);
    let mut plan = Plan::new();
    for (name, entries) in &buckets {
        plan.begin_bucket(name.as_bytes()).expect("they ascend");
        entries.iter().for_each(|(key, value)| plan.push(key, value.len()).expect("they ascend"));
    }
    let (mut writer, mut chunks) = Writer::start(plan.finish());
    for (name, entries) in &buckets {
        chunks.extend(writer.begin_bucket(name.as_bytes()).expect("as planned"));
        for (key, value) in entries {
            chunks.extend(writer.push(key, value.clone()).expect("as planned"));
        }
    }
    chunks.extend(writer.finish().expect("as planned").0);
    chunks.concat().into()
}

fn write(disk: &dyn Disk, name: &str, bytes: Bytes) {
    let opened = disk.perform(Io::Open { name: name.to_owned(), create: true }).expect("opens");
    let IoOutput::Opened { file, .. } = opened else { panic!("{opened:?}") };
    for io in
        [Io::Truncate { file, length: 0 }, Io::Write { file, offset: 0, bytes }, Io::Sync { file }, Io::Close { file }]
    {
        disk.perform(io).expect("writes");
    }
}

/// What `etcdutl snapshot restore` leaves.
fn restored(log: Bytes, database: Bytes) -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    for name in ["member/snap", "member/wal"] {
        disk.perform(Io::CreateDir { name: name.to_owned() }).expect("makes");
    }
    write(&disk, DATABASE_NAME, database);
    write(&disk, SEGMENT, log);
    for directory in ["", "member", "member/snap", "member/wal"] {
        disk.perform(Io::SyncDir { directory: directory.to_owned() }).expect("syncs");
    }
    disk
}

fn take_over(disk: &SimulatedDisk, time: &str) -> Result<TakenOver, ImportFailure> {
    let shard_map = "main;x=x/".parse().expect("a map");
    let takeover = Takeover { disk, log_disk: None, shard_map: &shard_map };
    takeover.run(time, &mut StdRng::seed_from_u64(1), &mut |_| {})
}

fn old_tree(disk: &SimulatedDisk) -> Vec<(String, Option<Vec<u8>>)> {
    let files = disk.files().into_iter().filter(|name| name.starts_with("member/"));
    files.map(|name| (name.clone(), disk.contents(&name))).collect()
}

fn expect_imported(disk: &SimulatedDisk, context: &str) {
    let cache = std::sync::Arc::new(PageCache::new(1 << 20));
    let opened = recovery::open(disk, &cache, Salt::new(1)).expect("opens").expect("has data");
    assert_eq!((opened.store.revision(), opened.store.applied.index), (31, 1), "{context}");
    let manifest = opened.checkpointer.manifest();
    assert_eq!(opened.store.shard_map().to_string(), "main;x=x/", "{context}");
    assert_eq!((manifest.member_id, manifest.cluster_id), (7, 9), "{context}");
    let count = |table| opened.store.system.table(table).count();
    let tables = [Table::Lease, Table::Alarm, Table::Auth, Table::AuthUser, Table::AuthRole];
    assert_eq!(tables.map(count), [1, 1, 2, 1, 1], "{context}");
    assert_eq!(opened.store.get(b"x").expect("lives").lease, 77, "{context}");
}

#[test]
fn a_restored_directory_becomes_ours_and_keeps_the_old_tree() {
    let disk = restored(log(1, &[]), database(&tables()));
    let before = old_tree(&disk);
    let taken = take_over(&disk, "T").expect("a restore");
    assert_eq!((taken.old_tree.as_str(), taken.log.member_id, taken.imported.revision), ("member.imported-T", 7, 31));
    assert_eq!((taken.imported.leases, taken.imported.revisions, taken.imported.compact_revision), (1, 30, -1));
    expect_imported(&disk, "");
    assert_eq!(disk.contents(MEMBER_FILE).expect("the file"), MEMBER_TEXT.as_bytes());
    let moved: Vec<_> =
        before.iter().map(|(name, _)| disk.contents(&name.replacen("member/", "member.imported-T/", 1))).collect();
    assert_eq!(moved, before.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>());
    assert!(!Marker::is_set(&disk).expect("looks"));
}

/// Stopped at every request; the process dies, or the power goes with it. What is there then is the old tree, byte for
/// byte, from which the next attempt succeeds, or the finished import.
#[test]
fn a_takeover_that_was_stopped_anywhere_left_the_old_tree_or_is_whole() {
    let (log, database) = (log(1, &[]), database(&tables()));
    let whole = restored(log.clone(), database.clone());
    let before = whole.operations();
    take_over(&whole, "T").expect("a restore");
    let (mut left_old, mut left_new) = (0, 0);
    for stop in before..whole.operations() {
        let disk = restored(log.clone(), database.clone());
        let tree = old_tree(&disk);
        disk.stop_after(stop);
        take_over(&disk, "T").expect_err("stopped");
        for (cut, disk) in [
            ("none", disk.restart()),
            ("all lost", disk.crash(PowerCut::KeepNone)),
            ("all kept", disk.crash(PowerCut::KeepAll)),
            ("some", disk.crash(PowerCut::Seeded(stop))),
        ] {
            let context = format!("stopped at {stop}, power cut: {cut}");
            match name_kind(&disk, MEMBER_FILE).expect("looks") {
                NameKind::Directory => {
                    left_old += 1;
                    assert_eq!(old_tree(&disk), tree, "{context}");
                    let taken = take_over(&disk, "U").expect("from the old tree");
                    assert_eq!(taken.old_tree, "member.imported-U", "{context}");
                    assert_eq!(disk.files().iter().filter(|name| *name == "member.imported-T").count(), 0, "{context}");
                }
                NameKind::File => left_new += 1,
                NameKind::Absent => panic!("{context}: etcd would start empty here"),
            }
            expect_imported(&disk, &context);
        }
    }
    assert!(left_old > 40 && left_new > 3, "{left_old} and {left_new}");
}

#[test]
fn a_directory_that_etcd_used_is_refused_with_the_way_out() {
    let entry = |kind, term, index| (2, Entry { kind, term, index, data: Vec::new() }.encode_to_vec());
    let election = (3, HardState { term: 2, commit: 1 }.encode_to_vec());
    for (more, sign) in [
        (vec![entry(0, 1, 2)], "entries of requests"),
        (vec![entry(1, 2, 2)], "entries of requests"),
        (vec![election], "an election"),
        (vec![(5, Snapshot { index: 9, term: 3 }.encode_to_vec())], "an election"),
        (vec![(2, vec![0; 2 << 20])], "long record"),
    ] {
        let disk = restored(log(1, &more), database(&tables()));
        let tree = (disk.files(), old_tree(&disk));
        let refused = take_over(&disk, "T").expect_err(sign);
        let text = refused.to_string();
        assert!(matches!(refused, ImportFailure::Used { .. }), "{text}");
        assert!(text.contains(sign) && text.contains("`etcdctl snapshot save FILE`"), "{text}");
        assert_eq!((disk.files(), old_tree(&disk)), tree, "{sign}");
    }
    // A log of a restore beside a database that went on, or that lags.
    for applied in [(8, 1), (1, 2), (0, 0)] {
        let tables = tables().with_applied(applied.0, applied.1);
        let refused = take_over(&restored(log(1, &[]), database(&tables)), "T").expect_err("another index");
        assert!(matches!(refused, ImportFailure::Used { .. }), "{refused}");
    }
    // Release 3.4 stores no term.
    take_over(&restored(log(1, &[]), database(&tables().with_applied(1, 0))), "T").expect("a restore");
    let disk = restored(log(1, &[]), database(&tables()));
    write(&disk, "member/wal/0000000000000001-0000000000000005.wal", log(1, &[]));
    assert!(take_over(&disk, "T").expect_err("two").to_string().contains("several segments"));
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let of = |tables: SystemTables| take_over(&restored(log(1, &[]), database(&tables)), "T").expect_err("refused");
    let ann = tables().with_user(b"ann", vec![0xff]);
    assert!(matches!(of(ann), ImportFailure::MalformedRecord { bucket: "authUsers" }));
    assert!(matches!(of(tables().with_downgrade("3.5.0", true)), ImportFailure::Downgrade));
    assert!(matches!(of(tables().with_downgrade("", true)), ImportFailure::Downgrade));
    assert!(matches!(of(tables().with_alarm(7, 9)), ImportFailure::MalformedRecord { bucket: "alarm" }));
    assert!(matches!(of(tables().with_lease(5, 0, 0)), ImportFailure::MalformedRecord { bucket: "lease" }));
    assert!(matches!(of(tables().with_lease(5, 9, -1)), ImportFailure::MalformedRecord { bucket: "lease" }));
    let disk = restored(log(1, &[]), database(&tables()));
    disk.perform(Io::Remove { name: SEGMENT.to_owned() }).expect("removes");
    assert!(matches!(take_over(&disk, "T"), Err(ImportFailure::NoLog { .. })));
}

/// Found half-way: what was written takes no space any more, and once the file is mended the same call succeeds.
#[test]
fn a_damaged_database_leaves_nothing_but_the_mark() {
    let disk = restored(log(1, &[]), database(&tables()));
    let at = disk.contents(DATABASE_NAME).expect("there").windows(5).position(|bytes| bytes == b"\x2a\x01v\x30\x4d");
    let at = at.expect("a KeyValue's end") as u64;
    assert!(disk.flip_bit(DATABASE_NAME, at, 7));
    let before = old_tree(&disk);
    let refused = take_over(&disk, "T").expect_err("damaged");
    assert!(refused.to_string().contains("its KeyValue is malformed"), "{refused}");
    assert_eq!(old_tree(&disk), before);
    let left: Vec<_> = disk.files().into_iter().filter(|name| !name.starts_with("member/")).collect();
    assert_eq!(left, [Marker::NAME]);
    assert!(disk.flip_bit(DATABASE_NAME, at, 7));
    take_over(&disk, "T").expect("mended");
    expect_imported(&disk, "mended");
}

#[test]
fn a_full_disk_leaves_the_old_tree_and_takes_no_space() {
    let disk = restored(log(1, &[]), database(&tables()));
    let (tree, used) = (old_tree(&disk), disk.used_bytes());
    for more in [0, 100 << 10, 300 << 10, 1 << 20, 2 << 20] {
        disk.set_capacity(used + more);
        take_over(&disk, "T").expect_err("no space");
        assert_eq!(old_tree(&disk), tree);
    }
    disk.set_capacity(used + (64 << 20));
    take_over(&disk, "T").expect("there is space");
    expect_imported(&disk, "after a full disk");
}

#[test]
fn data_of_both_in_one_directory_is_left_alone() {
    let disk = restored(log(1, &[]), database(&tables()));
    take_over(&disk, "T").expect("a restore");
    let exchange = Io::Exchange { one: "member".to_owned(), other: "member.imported-T".to_owned() };
    disk.perform(exchange).expect("puts etcd's tree back, beside ours");
    let files = disk.files();
    assert!(matches!(take_over(&disk, "U"), Err(ImportFailure::BothData { .. })));
    assert_eq!(disk.files(), files);
}

#[test]
fn a_restore_for_three_members_names_them_all() {
    let disk = restored(log(3, &[]), database(&tables().with_applied(3, 1)));
    let taken = take_over(&disk, "T").expect("a restore");
    assert_eq!((taken.log.member_id, taken.log.last_index), (7, 3));
    let cache = Arc::new(PageCache::new(1 << 20));
    let opened = recovery::open(&disk, &cache, Salt::new(1)).expect("readable").expect("there");
    let members = Members::decode(&opened.store.conf_state).expect("written just now");
    assert_eq!(members.voters(), [7, 8, 9]);
    let other = members.get(8).expect("one of them");
    assert_eq!((&*other.name, &other.peer_urls[..]), ("m8", &["http://m8:1".to_owned()][..]));
    assert_eq!(opened.store.applied.index, 3);
}

#[test]
fn every_damaged_byte_of_the_log_is_found() {
    let bytes = log(1, &[]);
    assert_eq!(EtcdLog::parse("w", &bytes).expect("a restore's").member_id, 7);
    let content = bytes.len() - 4096;
    for at in 0..content {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= flip;
            // Padding means nothing, and a field of a record may be written in more than one way.
            if let Ok(read) = EtcdLog::parse("w", &damaged) {
                assert_eq!(read, EtcdLog::parse("w", &bytes).expect("a restore's"), "byte {at}");
            }
        }
        // Of the last record only the padding may be missing.
        let cut = EtcdLog::parse("w", &bytes[..at]);
        assert!(cut.is_err() || at + 8 > content, "cut at {at}");
    }
}

#[test]
fn names_of_segments() {
    assert!(is_segment_name("0000000000000000-00000000000000af.wal"));
    for name in ["0000000000000000.wal", "0.tmp", "0000000000000000-00000000000000af.wal.broken", "-.wal"] {
        assert!(!is_segment_name(name), "{name}");
    }
}
