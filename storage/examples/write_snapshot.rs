//! Writes a sample snapshot with its digest, as a client would save it, for etcd's own tools to judge:
//!
//! ```text
//! cargo run -p basalt-storage --example write_snapshot -- sample.db 20000
//! etcdutl snapshot status sample.db -w json
//! etcdutl snapshot restore sample.db --data-dir restored
//! ```
//!
//! Values have 0 to 899 bytes, but some 20,000 and a few 1 MiB. After all keys were put there was a compaction; then
//! each tenth key was overwritten and each hundredth deleted.

use std::error::Error;
use std::fs::File;
use std::io::Write;

use basalt_storage::revision::Revision;
use basalt_storage::snapshot::{ConfStateRecord, MemberRecord, SnapshotPlan, SnapshotWriter, SystemTables};
use bytes::Bytes;

const LEASE: i64 = 0x1234_5678_9abc;

/// One stored revision.
struct Entry {
    revision: Revision,
    tombstone: bool,
    value: Bytes,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: write_snapshot FILE [KEYS]")?;
    let keys: i64 = arguments.next().map_or(Ok(1000), |keys| keys.parse())?;

    let mut plan = SnapshotPlan::new(tables(keys + 1))?;
    for entry in entries(keys) {
        plan.push_key(entry.revision, entry.tombstone, entry.value.len())?;
    }
    let layout = plan.finish()?;
    println!("file bytes {}", layout.file_bytes());

    let mut file = File::create(path)?;
    let (mut writer, chunks) = SnapshotWriter::start(layout)?;
    write(&mut file, &chunks)?;
    for entry in entries(keys) {
        write(&mut file, &writer.push_key(entry.revision, entry.tombstone, entry.value)?)?;
    }
    let end = writer.finish()?;
    write(&mut file, &end.chunks)?;
    file.write_all(&end.digest)?;
    Ok(())
}

fn write(file: &mut File, chunks: &[Bytes]) -> std::io::Result<()> {
    chunks.iter().try_for_each(|chunk| file.write_all(chunk))
}

fn tables(compact_revision: i64) -> SystemTables {
    let id = 0x8e9e_05c5_2164_694d;
    let member = MemberRecord {
        id,
        name: "default".to_owned(),
        peer_urls: vec!["http://localhost:2380".to_owned()],
        client_urls: vec!["http://localhost:2379".to_owned()],
        is_learner: false,
    };
    SystemTables::new()
        .with_applied(100_000, 2)
        .with_compact_revision(compact_revision)
        .with_conf_state(&ConfStateRecord { voters: vec![id], ..Default::default() })
        .with_member(&member)
        .with_removed_member(7)
        .with_downgrade("", false)
        .with_auth(false, 1)
        .with_lease(LEASE, 86_400, 0)
}

/// All revisions in order: first a put of each key, then the overwrites, then the deletions.
fn entries(keys: i64) -> impl Iterator<Item = Entry> {
    let put = |key: i64, main: i64, create: i64| {
        let length = match key {
            _ if key % 5000 == 3 => 1 << 20,
            _ if key % 50 == 7 => 20_000,
            _ => key % 900,
        };
        let version = if main == create { 1 } else { 2 };
        let value = key_value(key, &[create, main, version], &vec![b'v'; length as usize], LEASE * (key % 2));
        Entry { revision: Revision::new(main, 0), tombstone: false, value }
    };
    let first = keys + 2;
    let created = (0..keys).map(move |key| put(key, key + 2, key + 2));
    let overwritten = (0..keys).step_by(10).map(move |key| put(key, first + key / 10, key + 2));
    let deleted = (0..keys).step_by(100).map(move |key| Entry {
        revision: Revision::new(2 * first + key, 0),
        tombstone: true,
        value: key_value(key, &[0; 3], &[], 0),
    });
    created.chain(overwritten).chain(deleted)
}

/// An `mvccpb.KeyValue`; a tombstone is the key alone. `numbers`: create revision, mod revision, version.
fn key_value(key: i64, numbers: &[i64; 3], value: &[u8], lease: i64) -> Bytes {
    let mut bytes = Vec::with_capacity(value.len() + 64);
    let key = format!("/sample/{key}");
    bytes_field(&mut bytes, 0x0a, key.as_bytes());
    (0x10..).step_by(8).zip(numbers).for_each(|(tag, number)| number_field(&mut bytes, tag, *number));
    bytes_field(&mut bytes, 0x2a, value);
    number_field(&mut bytes, 0x30, lease);
    Bytes::from(bytes)
}

fn bytes_field(into: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        into.push(tag);
        varint(into, bytes.len() as u64);
        into.extend_from_slice(bytes);
    }
}

fn number_field(into: &mut Vec<u8>, tag: u8, number: i64) {
    if number != 0 {
        into.push(tag);
        varint(into, number as u64);
    }
}

fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}
