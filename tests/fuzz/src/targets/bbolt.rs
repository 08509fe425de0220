//! A database of etcd that becomes a data directory. The first byte says whether the bytes are the file, or buckets around which a
//! file of small pages is made.
//!
//! What is refused is refused with the page or the record that is wrong. What is taken opens: its state is that of the database, and
//! a check of the new directory finds no damage.

use std::collections::BTreeMap;
use std::sync::Arc;

use arbitrary::Unstructured;
use basalt_server::apply::machine::Machine;
use basalt_server::apply::members::Members;
use basalt_server::import::{Target as Destination, import_database};
use basalt_storage::check::{Finding, Observer, Severity, check};
use basalt_storage::checkpoint::Salt;
use basalt_storage::checkpoint::recovery::{self, Birth};
use basalt_storage::disk::SimulatedDisk;
use basalt_storage::mvcc::key_value::KeyValue;
use basalt_storage::mvcc::shard_map::ShardMap;
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::pages::PageCache;
use basalt_storage::revision::Revision;
use basalt_storage::snapshot::bbolt::Reader;
use bytes::Bytes;
use prost::Message;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::forge::{below, byte, joined, number, pieces, put, take};

/// The smallest that bbolt has.
const PAGE_BYTES: usize = 1024;
const HEADER_BYTES: usize = 16;
const FLAG_LEAF: u16 = 2;
const FLAG_META: u16 = 4;
const FLAG_FREELIST: u16 = 16;
const NAMES: [&str; 10] =
    ["alarm", "auth", "authRoles", "authUsers", "cluster", "key", "lease", "members", "meta", "unknown"];
const KEYS: [&[u8]; 5] = [b"a", b"/registry/pods/a", b"/registry/events/a", b"/registry/leases/a", b"\xff"];
const RECORDS: [&[u8]; 9] = [
    b"storageVersion",
    b"clusterVersion",
    b"downgrade",
    b"authEnabled",
    b"authRevision",
    b"consistent_index",
    b"term",
    b"scheduledCompactRev",
    b"finishedCompactRev",
];

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

pub(super) fn run(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    let file = if mode & 1 == 1 { forged(data) } else { mended(data) };
    let file = Bytes::from(file);
    if let Ok(reader) = Reader::open(file.clone()) {
        let items: Vec<_> = reader.items().collect();
        let failed = items.iter().position(Result::is_err);
        assert!(failed.is_none_or(|at| at + 1 == items.len()), "a walk ends after the first error");
    }
    import(file, (mode & 2 == 2).then_some(u64::from(mode >> 2)));
}

fn import(file: Bytes, raise_by: Option<u64>) {
    let disk = SimulatedDisk::new(1);
    let birth = Birth {
        cluster_id: 1,
        member_id: 2,
        incarnation: 3,
        conf_state: Members::single_voter(2).encode().to_vec(),
        shard_map: ShardMap::default(),
    };
    let applied = LogPosition { index: 5, term: 1 };
    let target = Destination { disk: &disk, birth, applied, raise_by };
    let Ok(imported) = import_database(file, target, &mut StdRng::seed_from_u64(1), &mut |_| {}) else { return };
    let cache = Arc::new(PageCache::new(1 << 16));
    let opened = recovery::open(&disk, &cache, Salt::new(1)).expect("what was imported opens").expect("it is there");
    let machine = Machine::new(opened.store);
    let store = machine.store();
    assert_eq!((store.revision(), store.compact_revision()), (imported.revision, imported.compact_revision));
    assert_eq!(store.applied, applied);
    assert_eq!(machine.leases().len(), imported.leases);
    let mut damage = NoDamage;
    check(&disk, &disk, &mut damage).expect("there is something to check");
}

/// Hears of no damage, or panics. There is no log yet.
pub(super) struct NoDamage;

impl Observer for NoDamage {
    fn progress(&mut self, _place: &str, _done: u64, _total: u64) {}

    fn found(&mut self, finding: Finding) {
        let is_of_log = finding.place == "wal";
        assert!(is_of_log || finding.severity != Severity::Damage, "damage in what was just written: {finding:?}");
    }
}

fn fnv1a_64(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Both meta pages with right checksums, whatever their page size.
fn mended(data: &[u8]) -> Vec<u8> {
    let mut file = data.to_vec();
    for page in [0, PAGE_BYTES, 4096] {
        let record = page + HEADER_BYTES;
        if file.get(record..record + 4).is_some_and(|magic| magic == 0xED0C_DAEDu32.to_le_bytes())
            && file.len() >= record + 64
        {
            let sum = fnv1a_64(&file[record..record + 56]);
            put(&mut file, record + 56, &sum.to_le_bytes());
        }
    }
    file
}

/// A file of these buckets: of each piece the first byte is the name, the second says whether it stands inline.
fn forged(data: &[u8]) -> Vec<u8> {
    let mut buckets: BTreeMap<&str, (bool, Entries)> = BTreeMap::new();
    for piece in pieces(data) {
        let mut feed = Unstructured::new(piece);
        let name = NAMES[below(&mut feed, NAMES.len())];
        let is_inline = byte(&mut feed) & 3 == 3;
        let entries = if name == "key" { revisions(&mut feed) } else { records(&mut feed) };
        buckets.insert(name, (is_inline, entries));
    }
    file_of(&buckets)
}

fn file_of(buckets: &BTreeMap<&str, (bool, Entries)>) -> Vec<u8> {
    // Pages 0 and 1 are metas, 2 the free list; then the buckets, then their names.
    let mut file = vec![0; 3 * PAGE_BYTES];
    put(&mut file, 2 * PAGE_BYTES, &header(2, FLAG_FREELIST, 0, 0));
    let mut names: Entries = Vec::new();
    for (name, (is_inline, entries)) in buckets {
        let mut value = vec![0; 16];
        if *is_inline {
            value.extend(leaf(0, entries, 0));
        } else {
            put(&mut value, 0, &((file.len() / PAGE_BYTES) as u64).to_le_bytes());
            append_leaf(&mut file, entries, 0);
        }
        names.push((name.as_bytes().to_vec(), value));
    }
    let root = (file.len() / PAGE_BYTES) as u64;
    append_leaf(&mut file, &names, 1);
    let pages = (file.len() / PAGE_BYTES) as u64;
    for (page, transaction) in [(0, 2u64), (1, 1)] {
        let mut meta = header(page, FLAG_META, 0, 0);
        [0xED0C_DAEDu32, 2, PAGE_BYTES as u32, 0].iter().for_each(|field| meta.extend_from_slice(&field.to_le_bytes()));
        [root, 0, 2, pages, transaction].iter().for_each(|field| meta.extend_from_slice(&field.to_le_bytes()));
        let sum = fnv1a_64(&meta[HEADER_BYTES..]);
        meta.extend_from_slice(&sum.to_le_bytes());
        put(&mut file, page as usize * PAGE_BYTES, &meta);
    }
    file
}

fn header(page: u64, flags: u16, count: usize, overflow: usize) -> Vec<u8> {
    let mut header = page.to_le_bytes().to_vec();
    header.extend_from_slice(&flags.to_le_bytes());
    header.extend_from_slice(&(count as u16).to_le_bytes());
    header.extend_from_slice(&(overflow as u32).to_le_bytes());
    header
}

fn append_leaf(file: &mut Vec<u8>, entries: &Entries, flags: u32) {
    let mut leaf = leaf((file.len() / PAGE_BYTES) as u64, entries, flags);
    leaf.resize(leaf.len().next_multiple_of(PAGE_BYTES), 0);
    file.extend(leaf);
}

fn leaf(page: u64, entries: &Entries, flags: u32) -> Vec<u8> {
    let bytes: usize = entries.iter().map(|(key, value)| HEADER_BYTES + key.len() + value.len()).sum();
    let overflow = (HEADER_BYTES + bytes).div_ceil(PAGE_BYTES) - 1;
    let mut leaf = header(page, FLAG_LEAF, entries.len(), overflow);
    let mut content = Vec::new();
    for (number, (key, value)) in entries.iter().enumerate() {
        let position = (entries.len() - number) * HEADER_BYTES + content.len();
        let fields = [flags, position as u32, key.len() as u32, value.len() as u32];
        fields.iter().for_each(|field| leaf.extend_from_slice(&field.to_le_bytes()));
        content.extend_from_slice(key);
        content.extend_from_slice(value);
    }
    leaf.extend(content);
    leaf
}

/// Records of a small bucket: a known name or bytes, and a value.
fn records(feed: &mut Unstructured<'_>) -> Entries {
    let mut records = BTreeMap::new();
    while !feed.is_empty() && records.len() < 12 {
        let name = byte(feed);
        let key = match RECORDS.get(usize::from(name)) {
            Some(known) => known.to_vec(),
            None => take(feed, usize::from(name) % 13).to_vec(),
        };
        let length = below(feed, 40);
        records.insert(key, take(feed, length).to_vec());
    }
    records.into_iter().filter(|(key, _)| !key.is_empty()).collect()
}

/// Revisions that follow each other, and hardly do.
fn revisions(feed: &mut Unstructured<'_>) -> Entries {
    let (mut revision, mut entries, mut alive) = (Revision::new(1, 0), Vec::new(), BTreeMap::new());
    while !feed.is_empty() && entries.len() < 40 {
        let (flags, key) = (byte(feed), KEYS[below(feed, KEYS.len())]);
        revision = if flags & 1 == 0 {
            Revision::new(revision.main.wrapping_add(1), 0)
        } else {
            Revision::new(revision.main, revision.sub + 1)
        };
        if flags & 64 == 64 {
            revision.main = revision.main.wrapping_add(number(feed) as i64);
        }
        let length = below(feed, 8);
        let (create_revision, version) = alive.get(key).copied().unwrap_or((revision.main, 0));
        let is_tombstone = flags & 6 == 6;
        let mut kv = KeyValue {
            key,
            create_revision,
            mod_revision: revision.main,
            version: i64::wrapping_add(version, 1),
            value: take(feed, length),
            lease: i64::from(flags >> 3 & 1) * 7,
        };
        if flags & 48 == 48 {
            kv.create_revision = number(feed) as i64;
            kv.version = number(feed) as i64;
        }
        let (stored, value) = if is_tombstone {
            alive.remove(key);
            let deleted = KeyValue { key, create_revision: 0, mod_revision: 0, version: 0, value: b"", lease: 0 };
            (revision.to_tombstone_key().to_vec(), deleted.encode().to_vec())
        } else {
            alive.insert(key, (create_revision, version + 1));
            (revision.to_key().to_vec(), kv.encode().to_vec())
        };
        entries.push((stored, if flags == 255 { kv.value.to_vec() } else { value }));
    }
    entries
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let number = |name| NAMES.iter().position(|known| *known == name).expect("a name of the table") as u8;
    let record = |name: u8, value: &[u8]| [&[name, value.len() as u8], value].concat();
    let lease = basalt_proto::leasepb::Lease { id: 7, ttl: 60, remaining_ttl: 0 }.encode_to_vec();
    let lease = [&[8 + 13][..], &7i64.to_be_bytes(), &[lease.len() as u8], &lease].concat();
    let revisions: Vec<u8> = (0..24u8).flat_map(|n| [[0, 8, 1, 6, 0, 9][n as usize % 6], n % 5, 2, b'v', n]).collect();
    let keys = [&[number("key"), 0][..], &revisions].concat();
    let inline_keys = [&[number("key"), 3][..], &revisions[..30]].concat();
    let meta = [&[number("meta"), 0][..], &record(5, &9u64.to_be_bytes()), &record(6, &1u64.to_be_bytes())].concat();
    let compacted =
        [&[number("meta"), 3][..], &record(7, &[0, 0, 0, 0, 0, 0, 0, 4, b'_', 0, 0, 0, 0, 0, 0, 0, 0])].concat();
    let versions = [&[number("cluster"), 3][..], &record(1, b"3.7.0"), &record(2, b"{\"enabled\":false}")].concat();
    let leases = [&[number("lease"), 0][..], &lease].concat();
    let auth = [&[number("auth"), 0][..], &record(3, &[1]), &record(4, &5u64.to_be_bytes())].concat();
    let users = [&[number("authUsers"), 0][..], &[9 + 7, b'a', b'n', b'n', 5], &[0x0a, 3, b'a', b'n', b'n']].concat();
    let forged_seed = |mode: u8, pieces: &[&[u8]]| [vec![mode], joined(pieces)].concat();
    let whole = joined([&keys, &meta, &versions]);
    vec![
        forged_seed(1, &[&keys, &meta, &versions, &leases]),
        forged_seed(3 + 4 * 9, &[&inline_keys, &compacted]),
        forged_seed(1, &[&keys, &auth, &users, &compacted]),
        forged_seed(1, &[&leases, &versions]),
        forged_seed(1, &[]),
        [vec![0], forged(&whole)].concat(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_files_are_databases_that_come_over() {
        let taken = |seed: &Vec<u8>| {
            let disk = SimulatedDisk::new(1);
            let conf_state = Members::single_voter(2).encode().to_vec();
            let birth =
                Birth { cluster_id: 1, member_id: 2, incarnation: 3, conf_state, shard_map: ShardMap::default() };
            let target = Destination { disk: &disk, birth, applied: LogPosition { index: 5, term: 1 }, raise_by: None };
            let file = Bytes::from(if seed[0] & 1 == 1 { forged(&seed[1..]) } else { mended(&seed[1..]) });
            import_database(file, target, &mut StdRng::seed_from_u64(1), &mut |_| {}).map(|imported| imported.revisions)
        };
        let taken: Vec<_> = seeds().iter().map(taken).collect();
        assert!(
            taken.iter().filter(|taken| taken.as_ref().is_ok_and(|revisions| *revisions > 4)).count() > 3,
            "{taken:?}"
        );
    }
}
