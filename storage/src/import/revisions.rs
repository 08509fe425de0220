//! Bucket `key`: every stored revision, in order.

use bytes::Bytes;

use crate::checkpoint::{Filling, raised, stored};
use crate::disk::Disk;
use crate::revision::Revision;
use crate::snapshot::KEY_BUCKET;
use crate::snapshot::bbolt::{Item, ReadAt, Reader};

use super::error::ImportError;

/// Entries between two reports of progress.
const REPORT_ENTRIES: u64 = 1 << 16;

/// What was read of bucket `key`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revisions {
    /// How many.
    pub entries: u64,
    /// Bytes of their KeyValues.
    pub bytes: u64,
}

/// Reads all revisions into `filling`; `progress` hears now and then how far it is.
///
/// # Errors
/// [`ImportError`].
pub fn read_revisions(
    disk: &dyn Disk,
    reader: &Reader<impl ReadAt>,
    filling: &mut Filling,
    progress: &mut dyn FnMut(Revisions),
) -> Result<Revisions, ImportError> {
    let mut read = Revisions::default();
    let mut items = reader.items_of(|name| name == KEY_BUCKET.as_bytes());
    while let Some(item) = items.next() {
        let Item::Entry { key, value } = item? else { continue };
        let page = items.page();
        let malformed = |_| ImportError::MalformedRevision { page, bytes: key.len() };
        let (revision, tombstone) = Revision::parse(&key).map_err(malformed)?;
        let (key, state) = stored(revision, tombstone, &value).map_err(|flaw| ImportError::MalformedKeyValue {
            page,
            revision,
            flaw,
        })?;
        filling.push(disk, revision, key, state, &value)?;
        read.entries += 1;
        read.bytes += value.len() as u64;
        if read.entries.is_multiple_of(REPORT_ENTRIES) {
            progress(read);
        }
    }
    Ok(read)
}

/// Raises the latest revision by `amount`, as `etcdutl snapshot restore --bump-revision` does; gives the new one, which is
/// to be the compact revision.
///
/// # Errors
/// [`ImportError::BumpTooLarge`] and those of storing.
pub fn bump(disk: &dyn Disk, filling: &mut Filling, amount: u64) -> Result<i64, ImportError> {
    let main = i64::try_from(amount).ok().and_then(|amount| filling.last().main.checked_add(amount));
    let main = main.filter(|main| *main < i64::MAX).ok_or(ImportError::BumpTooLarge { by: amount })?;
    let revision = Revision::new(main, 0);
    filling.push(disk, revision, b"", Some(raised(revision)), &Bytes::new())?;
    Ok(main)
}
