//! Prints what `etcdutl snapshot status` and `etcdutl hashkv` print of a snapshot or a copied database file: digest,
//! entries of each bucket, the hash over all of them and that of RPC `Hash`, and HashKV of the last revision.

use std::collections::HashMap;
use std::error::Error;

use basalt_storage::hashes::{ContentHash, HashKv, HashPurpose, HashScope, HashSlot, HashedContent, Superseded};
use basalt_storage::revision::Revision;
use basalt_storage::snapshot::bbolt::{Item, Reader};
use basalt_storage::snapshot::{KEY_BUCKET, check_digest};
use bytes::Bytes;

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let path = std::env::args().nth(1).ok_or("usage: snapshot_status FILE")?;
    let file = Bytes::from(std::fs::read(path)?);
    println!("digest {:?}", check_digest(&file)?);

    let mut hashes = [HashedContent::All, HashedContent::Shared].map(ContentHash::new);
    let mut counts: Vec<(String, u64)> = Vec::new();
    let mut slots = Slots::default();
    let (mut scheduled, mut finished) = (-1, -1);
    for item in Reader::open(file)?.items() {
        match item? {
            Item::Bucket(name) => {
                hashes.iter_mut().for_each(|hash| hash.bucket(&name));
                counts.push((String::from_utf8_lossy(&name).into_owned(), 0));
            }
            Item::Entry { key, value } => {
                hashes.iter_mut().for_each(|hash| hash.entry(&key, &value));
                let (bucket, count) = counts.last_mut().ok_or("entry before any bucket")?;
                *count += 1;
                if bucket == KEY_BUCKET {
                    slots.push(&key, &value)?;
                } else if key == "scheduledCompactRev" {
                    scheduled = Revision::parse(&value)?.0.main;
                } else if key == "finishedCompactRev" {
                    finished = Revision::parse(&value)?.0.main;
                }
            }
        }
    }
    counts.iter().for_each(|(name, count)| println!("bucket {name} {count}"));
    let [all, shared] = hashes.map(ContentHash::finish);
    println!("hash {all}, of the RPC {shared}");
    println!("{:?}", slots.hash_kv(scheduled.max(finished), finished)?);
    Ok(())
}

/// The slots of a file, as a slot table would have them.
#[derive(Default)]
struct Slots {
    slots: Vec<HashSlot>,
    last_of_key: HashMap<Bytes, Revision>,
}

impl Slots {
    fn push(&mut self, bucket_key: &[u8], value: &Bytes) -> Result<(), Failure> {
        let (revision, tombstone) = Revision::parse(bucket_key)?;
        let previous = self.last_of_key.insert(key_of(value)?, revision);
        let crc = crc32c::crc32c_append(crc32c::crc32c(bucket_key), value);
        let length = u32::try_from(bucket_key.len() + value.len())?;
        self.slots.push(HashSlot { revision, tombstone, previous, crc, length });
        Ok(())
    }

    fn hash_kv(&self, compact_revision: i64, swept_revision: i64) -> Result<HashKv, Failure> {
        let revision = self.slots.last().map_or(1, |slot| slot.revision.main).max(compact_revision);
        let purpose = HashPurpose::Request;
        let scope = HashScope { revision, compact_revision, swept_revision, purpose };
        let mut superseded = Superseded::new(scope);
        self.slots.iter().for_each(|slot| superseded.note(slot.revision, slot.tombstone, slot.previous));
        let mut hasher = superseded.into_hasher();
        self.slots.iter().try_for_each(|slot| hasher.push(slot))?;
        Ok(hasher.finish())
    }
}

/// The key of an `mvccpb.KeyValue`: its first field, by the length before it. `etcdutl snapshot restore
/// --bump-revision` leaves an empty value, which is the empty key.
fn key_of(key_value: &Bytes) -> Result<Bytes, Failure> {
    if key_value.is_empty() {
        return Ok(Bytes::new());
    }
    let (mut length, mut at) = (0, 1);
    for shift in [0, 7, 14, 21] {
        let byte = *key_value.get(at).ok_or("value without a key")?;
        length |= usize::from(byte & 0x7f) << shift;
        at += 1;
        if byte < 0x80 {
            break;
        }
    }
    if key_value[0] != 0x0a || at + length > key_value.len() {
        return Err("value without a key".into());
    }
    Ok(key_value.slice(at..at + length))
}
