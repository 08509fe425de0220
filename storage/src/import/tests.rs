//! Snapshots of stores come back as they were; hostile files, stops and power cuts.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::checkpoint::recovery::{self, Birth, Opened};
use crate::checkpoint::{Figures, FillError, Filling, Salt};
use crate::disk::{Disk, PowerCut, SimulatedDisk};
use crate::job::run;
use crate::mvcc::key_value::KeyValue;
use crate::mvcc::shard_map::ShardMap;
use crate::mvcc::store::NEVER_COMPACTED;
use crate::mvcc::system::Table;
use crate::mvcc::view::LogPosition;
use crate::pages::PageCache;
use crate::revision::Revision;
use crate::snapshot::bbolt::{Plan, Reader, Writer};
use crate::snapshot::view_rig::{ViewRig, events};
use crate::snapshot::{KEY_BUCKET, SnapshotJob, SystemTables};

fn cache() -> Arc<PageCache> {
    Arc::new(PageCache::new(1 << 20))
}

fn birth() -> Birth {
    Birth { cluster_id: 1, member_id: 2, incarnation: 3, conf_state: vec![], shard_map: ShardMap::default() }
}

/// The whole of an import, as the server does it: mark, fill, finish, and here no more than that.
fn import(file: &Bytes, disk: &dyn Disk, raise_by: Option<u64>) -> Result<(), ImportError> {
    let reader = Reader::open(file.clone())?;
    let tables = Tables::read(&reader)?;
    let meta = DatabaseMeta::read(&tables)?;
    Marker::set(disk).map_err(FillError::from)?;
    let mut filling = Filling::begin(disk, &cache(), Salt::new(5), birth())?;
    read_revisions(disk, &reader, &mut filling, &mut |_| {})?;
    let raised = raise_by.map(|amount| bump(disk, &mut filling, amount)).transpose()?;
    for (key, value) in tables.entries("lease") {
        filling.set_record(Table::Lease, key, Bytes::copy_from_slice(value));
    }
    let compact_revision = raised.unwrap_or(meta.compact_revision());
    filling.finish(
        disk,
        Figures {
            revision: filling_revision(&reader, compact_revision),
            compact_revision,
            applied: LogPosition { index: meta.consistent_index, term: meta.term },
        },
    )?;
    Ok(())
}

fn filling_revision(reader: &Reader<Bytes>, compact_revision: i64) -> i64 {
    let keys = reader.items_of(|name| name == KEY_BUCKET.as_bytes());
    let revisions = keys.filter_map(|item| match item {
        Ok(crate::snapshot::bbolt::Item::Entry { key, .. }) => {
            Revision::parse(&key).ok().map(|(revision, _)| revision.main)
        }
        _ => None,
    });
    revisions.max().unwrap_or(1).max(compact_revision)
}

fn open(disk: &dyn Disk) -> Opened {
    recovery::open(disk, &cache(), Salt::new(6)).unwrap().unwrap()
}

fn tables(compact_revision: i64) -> SystemTables {
    let tables = SystemTables::new().with_applied(1, 1).with_lease(77, 600, 0);
    if compact_revision > 0 { tables.with_compact_revision(compact_revision) } else { tables }
}

fn file_of(rig: &ViewRig) -> Bytes {
    let view = rig.view();
    let mut snapshot = SnapshotJob::new(view.clone(), tables(view.compact_revision));
    let mut file = Vec::new();
    while let Some(chunks) = rig.run(&mut snapshot.next_chunk(), 100).unwrap() {
        file.extend(chunks.concat());
    }
    Bytes::from(file)
}

fn file_again(disk: &dyn Disk) -> Bytes {
    let view = Arc::new(open(disk).store.head());
    let mut snapshot = SnapshotJob::new(view.clone(), tables(view.compact_revision));
    let mut file = Vec::new();
    while let Some(chunks) = run(&mut snapshot.next_chunk(), disk, 100).unwrap() {
        file.extend(chunks.concat());
    }
    Bytes::from(file)
}

/// A database with these entries in bucket `key`, and no more.
fn database(entries: &[(Vec<u8>, Bytes)]) -> Bytes {
    database_with(b"key", entries)
}

fn database_with(bucket: &[u8], entries: &[(Vec<u8>, Bytes)]) -> Bytes {
    let mut plan = Plan::new();
    plan.begin_bucket(bucket).unwrap();
    entries.iter().for_each(|(key, value)| plan.push(key, value.len()).unwrap());
    let (mut writer, mut chunks) = Writer::start(plan.finish());
    chunks.extend(writer.begin_bucket(bucket).unwrap());
    entries.iter().for_each(|(key, value)| chunks.extend(writer.push(key, value.clone()).unwrap()));
    chunks.extend(writer.finish().unwrap().0);
    Bytes::from(chunks.concat())
}

fn put(main: i64, sub: i64, key: &str, create_revision: i64, version: i64) -> (Vec<u8>, Bytes) {
    let kv = KeyValue { key: key.as_bytes(), create_revision, mod_revision: main, version, value: b"v", lease: 0 };
    (Revision::new(main, sub).to_key().to_vec(), kv.encode())
}

fn tombstone(main: i64, sub: i64, key: &str) -> (Vec<u8>, Bytes) {
    let kv = KeyValue { key: key.as_bytes(), ..KeyValue::default() };
    (Revision::new(main, sub).to_tombstone_key().to_vec(), kv.encode())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What goes in comes out, byte for byte, as a snapshot of the new store; and the index is the old one's.
    #[test]
    fn a_snapshot_comes_back_as_it_was(events in events()) {
        let mut rig = ViewRig::new();
        events.iter().for_each(|event| rig.apply(event));
        let (file, disk) = (file_of(&rig), SimulatedDisk::new(1));
        import(&file, &disk, None).unwrap();
        let opened = open(&disk);
        // A store that was compacted above all that is left of it keeps its revision by the compaction alone.
        prop_assert!(opened.store.revision() <= rig.store.revision());
        prop_assert_eq!(opened.store.applied, LogPosition { index: 1, term: 1 });
        prop_assert_eq!(opened.store.system.table(Table::Lease).count(), 1);
        prop_assert_eq!(file_again(&disk), file);
        for key in rig.written.values().map(|written| &written.key) {
            prop_assert_eq!(opened.store.get(key), rig.store.get(key));
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_or_another_store(
        events in events(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut rig = ViewRig::new();
        events.iter().for_each(|event| rig.apply(event));
        let mut file = file_of(&rig).to_vec();
        let length = file.len();
        flips.iter().for_each(|(at, byte)| file[at.index(length)] = *byte);
        if let Some(cut) = cut {
            file.truncate(cut.index(length));
        }
        let disk = SimulatedDisk::new(1);
        if import(&Bytes::from(file), &disk, None).is_ok() {
            file_again(&disk);
        }
    }
}

#[test]
fn what_a_compaction_left_keeps_its_creation_and_version() {
    let entries = [put(9, 0, "old", 3, 5), put(10, 0, "old", 3, 6), put(10, 1, "other", 10, 1)];
    let disk = SimulatedDisk::new(1);
    import(&database(&entries), &disk, None).unwrap();
    let store = open(&disk).store;
    let old = store.get(b"old").unwrap();
    assert_eq!((old.create_revision, old.version, old.mod_revision), (3, 6, Revision::new(10, 0)));
    assert_eq!((store.revision(), store.compact_revision()), (10, NEVER_COMPACTED));
}

/// A field that etcd does not know, and one encoded twice: stored as it is, since HashKV goes over the bytes.
#[test]
fn key_values_that_are_not_canonical_are_kept_as_they_are() {
    let (key, canonical) = put(2, 0, "a", 2, 1);
    let odd = Bytes::from([&canonical[..], &[0x20, 0x01], &[0x78, 0x05]].concat());
    let file = database(&[(key, odd.clone())]);
    let disk = SimulatedDisk::new(1);
    import(&file, &disk, None).unwrap();
    let again = file_again(&disk);
    assert!(again.windows(odd.len()).any(|window| window == &odd[..]));
}

/// etcd keeps a tombstone exactly at the compact revision, without what it deleted.
#[test]
fn a_tombstone_may_stand_alone_or_behind_another() {
    let entries = [tombstone(5, 0, "a"), tombstone(6, 0, "a"), put(7, 0, "a", 7, 1), tombstone(8, 0, "a")];
    let disk = SimulatedDisk::new(1);
    import(&database(&entries), &disk, None).unwrap();
    assert_eq!(open(&disk).store.get(b"a"), None);
    assert_eq!(open(&disk).store.revision(), 8);
}

#[test]
fn a_raised_revision_is_compacted_and_kept() {
    let disk = SimulatedDisk::new(1);
    let file = database(&[put(2, 0, "a", 2, 1)]);
    import(&file, &disk, Some(1_000_000_000)).unwrap();
    let store = open(&disk).store;
    assert_eq!((store.revision(), store.compact_revision()), (1_000_000_002, 1_000_000_002));
    assert_eq!(store.get(b"a").unwrap().mod_revision, Revision::new(2, 0));
    // And once more, from the snapshot of that: an empty value under a revision is what etcd itself leaves.
    let again = SimulatedDisk::new(1);
    import(&file_again(&disk), &again, None).unwrap();
    assert_eq!(open(&again).store.revision(), 1_000_000_002);
    for amount in [u64::MAX, i64::MAX as u64 - 2] {
        let refused = import(&file, &SimulatedDisk::new(1), Some(amount));
        assert!(matches!(refused, Err(ImportError::BumpTooLarge { .. })), "{refused:?}");
    }
}

#[test]
fn impossible_revisions_are_named() {
    let of = |entries: &[(Vec<u8>, Bytes)]| {
        import(&database(entries), &SimulatedDisk::new(1), None).unwrap_err().to_string()
    };
    let (key, value) = put(3, 0, "a", 3, 1);
    assert!(of(&[(b"short".to_vec(), value.clone())]).contains("a key of 5 bytes in bucket \"key\" is no revision"));
    assert!(of(&[(key.clone(), Bytes::from_static(b"\x0a\x7f"))]).contains("its KeyValue is malformed"));
    assert!(of(&[(key, put(4, 0, "a", 4, 1).1)]).contains("main: 3, sub: 0 }: its KeyValue is of another revision"));
    assert!(of(&[put(3, 0, "a", 9, 1)]).contains("its key was created after it"));
    assert!(of(&[put(3, 0, "a", 3, 0)]).contains("its version is below 1"));
    assert!(of(&[put(0, 0, "a", 0, 1)]).contains("out of range"));
    // The two forms of one revision sort one after the other in the file.
    assert!(of(&[put(3, 0, "a", 3, 1), tombstone(3, 0, "a")]).contains("not above the one before it"));
}

/// Each value of a leaf is said to reach to the end of its page, so that they would take many times the bytes of the file.
#[test]
fn entries_over_each_other_do_not_fill_memory() {
    const PAGE: usize = 4096;
    const LEAF: [u8; 2] = [2, 0];
    let entries: Vec<_> = (0..120u64).map(|id| (id.to_be_bytes().to_vec(), Bytes::from_static(b"value"))).collect();
    let mut file = database_with(b"lease", &entries).to_vec();
    let whole = Tables::read(&Reader::open(Bytes::from(file.clone())).unwrap()).unwrap();
    assert_eq!(whole.entries("lease").count(), entries.len());
    let mut forged = 0;
    for page in file.chunks_exact_mut(PAGE) {
        let count = usize::from(u16::from_le_bytes([page[10], page[11]]));
        if page[8..10] != LEAF || count < 100 {
            continue;
        }
        for element in (0..count).map(|number| 16 + 16 * number) {
            let field = |at: usize| u32::from_le_bytes(page[element + at..][..4].try_into().unwrap()) as usize;
            let value = element + field(4) + field(8);
            page[element + 12..][..4].copy_from_slice(&((PAGE - value) as u32).to_le_bytes());
        }
        forged += 1;
    }
    assert_eq!(forged, 1, "one page has all leases");
    let refused = Tables::read(&Reader::open(Bytes::from(file)).unwrap());
    assert!(matches!(refused, Err(ImportError::OverlappingEntries)), "{refused:?}");
}

/// Stopped at each request, then a power cut: either there is nothing that counts, or all of it. A second attempt, or the
/// one after a stop of that one, succeeds.
#[test]
fn an_import_that_was_stopped_is_done_again() {
    let mut rig = ViewRig::new();
    for n in 0..40u8 {
        rig.write(&[("/registry/pods/a", Some(vec![n; 3000])), ("/registry/events/a", Some(vec![n; 10])), ("x", None)]);
    }
    let file = file_of(&rig);
    let whole = SimulatedDisk::new(1);
    import(&file, &whole, None).unwrap();
    let requests = whole.operations();
    assert!(requests > 40, "{requests}");
    for stop in 0..requests {
        let disk = SimulatedDisk::new(stop);
        disk.stop_after(stop);
        import(&file, &disk, None).unwrap_err();
        for mut disk in [disk.crash(PowerCut::KeepNone), disk.crash(PowerCut::Seeded(stop)), disk.restart()] {
            let marked = Marker::is_set(&disk).unwrap();
            assert!(marked || disk.files().is_empty(), "stop {stop}: {:?}", disk.files());
            if stop % 3 == 0 {
                disk.stop_after(stop / 2);
                _ = import(&file, &disk, None);
                disk = disk.crash(PowerCut::Seeded(stop + 1));
            }
            import(&file, &disk, None).unwrap();
            assert_eq!(file_again(&disk), file, "stop {stop}");
        }
    }
}
