//! The small buckets, read whole.

use std::collections::BTreeMap;

use crate::snapshot::bbolt::{Item, ReadAt, Reader};
use crate::snapshot::{KEY_BUCKET, Table};

use super::error::ImportError;

/// All buckets but `key`, by name, those too that this release does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    tables: BTreeMap<Vec<u8>, Table>,
}

impl Tables {
    /// Reads them; pages of bucket `key` are not read.
    ///
    /// # Errors
    /// [`ImportError::Database`], [`ImportError::OverlappingEntries`].
    pub fn read(reader: &Reader<impl ReadAt>) -> Result<Self, ImportError> {
        let mut tables = Self::default();
        let (mut bucket, mut bytes) = (Vec::new(), 0);
        for item in reader.items_of(|name| name != KEY_BUCKET.as_bytes()) {
            match item? {
                Item::Bucket(name) => {
                    bytes += name.len();
                    bucket = name.to_vec();
                    tables.tables.entry(bucket.clone()).or_default();
                }
                Item::Entry { key, value } => {
                    bytes += key.len() + value.len();
                    let table = tables.tables.entry(bucket.clone()).or_default();
                    table.insert(key.to_vec(), value.to_vec());
                }
            }
            // In a forged page entries lie over each other.
            if bytes as u64 > reader.file_bytes() {
                return Err(ImportError::OverlappingEntries);
            }
        }
        Ok(tables)
    }

    /// The entries of a bucket, none if it is not there.
    pub fn entries(&self, bucket: &str) -> impl Iterator<Item = (&[u8], &[u8])> {
        let table = self.tables.get(bucket.as_bytes());
        table.into_iter().flatten().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// One record.
    pub fn get(&self, bucket: &str, key: &str) -> Option<&[u8]> {
        self.tables.get(bucket.as_bytes())?.get(key.as_bytes()).map(Vec::as_slice)
    }
}
