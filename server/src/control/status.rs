//! `snapshot status`: what `etcdutl snapshot status` prints.

use std::collections::HashSet;
use std::path::Path;

use basalt_storage::hashes::{ContentHash, HashedContent};
use basalt_storage::mvcc::key_value::KeyValue;
use basalt_storage::revision::Revision;
use basalt_storage::snapshot::bbolt::{Item, ReadAt, Reader};
use basalt_storage::snapshot::{KEY_BUCKET, SnapshotError};
use thiserror::Error;

use crate::import::FileSource;

/// Why there is no status.
#[derive(Debug, Error)]
#[error("the snapshot {file:?} cannot be read")]
pub(super) struct StatusError {
    file: std::path::PathBuf,
    #[source]
    cause: SnapshotError,
}

/// Reads the whole file. Memory: the keys that live at its end, as etcdutl takes.
pub(super) fn status(file: &Path) -> Result<String, StatusError> {
    let read = || FileSource::open(file).map_err(SnapshotError::from).and_then(read);
    read().map_err(|cause| StatusError { file: file.to_owned(), cause })
}

fn read(source: impl ReadAt) -> Result<String, SnapshotError> {
    let reader = Reader::open(source)?;
    let mut hash = ContentHash::new(HashedContent::All);
    let (mut keys, mut revision, mut version) = (HashSet::new(), 0, String::new());
    let mut bucket = Vec::new();
    let mut items = reader.items();
    while let Some(item) = items.next() {
        match item? {
            Item::Bucket(name) => {
                hash.bucket(&name);
                bucket = name.to_vec();
            }
            Item::Entry { key, value } => {
                hash.entry(&key, &value);
                if bucket == b"meta" && key == "storageVersion" {
                    version = String::from_utf8_lossy(&value).into_owned();
                }
                if bucket != KEY_BUCKET.as_bytes() {
                    continue;
                }
                let corrupt = |reason| SnapshotError::Corrupt { page: items.page(), reason };
                let (at, tombstone) = Revision::parse(&key).map_err(|_| corrupt("a key is no revision"))?;
                let kv = KeyValue::parse(&value).map_err(|_| corrupt("a value is no KeyValue"))?;
                revision = at.main;
                if tombstone {
                    keys.remove(kv.key);
                } else {
                    keys.insert(kv.key.to_vec());
                }
            }
        }
    }
    let (hash, keys, bytes) = (hash.finish(), keys.len(), reader.file_bytes());
    Ok(format!("{hash:x}, {revision}, {keys}, {bytes}, {version}\n"))
}
