//! Bucket `meta`: where the log stood, and how far compaction is.

use crate::mvcc::store::NEVER_COMPACTED;
use crate::revision::Revision;

use super::error::ImportError;
use super::tables::Tables;

const META: &str = "meta";

/// What bucket `meta` says. A record that is not there is 0, or [`NEVER_COMPACTED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseMeta {
    /// Index of the last log entry that is in the database.
    pub consistent_index: u64,
    /// Its term.
    pub term: u64,
    /// The last compaction that was asked for.
    pub scheduled_compaction: i64,
    /// The last compaction that etcd carried out.
    pub finished_compaction: i64,
}

impl DatabaseMeta {
    /// Reads it.
    ///
    /// # Errors
    /// [`ImportError::MalformedMeta`].
    pub fn read(tables: &Tables) -> Result<Self, ImportError> {
        Ok(Self {
            consistent_index: number(tables, "consistent_index")?,
            term: number(tables, "term")?,
            scheduled_compaction: compaction(tables, "scheduledCompactRev")?,
            finished_compaction: compaction(tables, "finishedCompactRev")?,
        })
    }

    /// The compact revision: what is scheduled, etcd goes on with at its next start.
    pub fn compact_revision(&self) -> i64 {
        self.scheduled_compaction.max(self.finished_compaction)
    }
}

fn number(tables: &Tables, record: &'static str) -> Result<u64, ImportError> {
    let Some(bytes) = tables.get(META, record) else { return Ok(0) };
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| ImportError::MalformedMeta { record })
}

fn compaction(tables: &Tables, record: &'static str) -> Result<i64, ImportError> {
    let Some(bytes) = tables.get(META, record) else { return Ok(NEVER_COMPACTED) };
    match Revision::parse(bytes) {
        Ok((revision, false)) if (0..i64::MAX).contains(&revision.main) => Ok(revision.main),
        _ => Err(ImportError::MalformedMeta { record }),
    }
}
