//! One database into one new data directory, all but the file that says that it counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use basalt_storage::checkpoint::recovery::Birth;
use basalt_storage::checkpoint::{Figures, Filling, Salt, clear};
use basalt_storage::disk::Disk;
use basalt_storage::import::{DatabaseMeta, ImportError, Marker, Revisions, Tables, bump, read_revisions};
use basalt_storage::mvcc::store::FIRST_REVISION;
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::pages::PageCache;
use basalt_storage::snapshot::bbolt::{ReadAt, Reader};
use rand::{Rng, rngs::StdRng};

use super::error::ImportFailure;
use super::system_records::SystemRecords;

/// Nodes of the trees that are written, and nothing else, go through it.
const PAGE_CACHE_BYTES: usize = 8 << 20;
/// Time between two reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Where a database goes, and as what.
pub struct Target<'a> {
    /// The data directory.
    pub disk: &'a dyn Disk,
    /// Whose it will be.
    pub birth: Birth,
    /// The log entry behind which the log goes on.
    pub applied: LogPosition,
    /// By how much the latest revision is raised and marked compacted, if it is (etcdutl's `--bump-revision`).
    pub raise_by: Option<u64>,
}

/// What came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The store's revision.
    pub revision: i64,
    /// Its compact revision, -1 for none.
    pub compact_revision: i64,
    /// Stored revisions.
    pub revisions: u64,
    /// Bytes of their KeyValues.
    pub bytes: u64,
    /// Leases.
    pub leases: usize,
}

/// Reads the database and writes the directory; `report` hears every few seconds how many bytes of values came over.
///
/// When it returns, the manifest is durable and [`Marker`] still set. Memory: the index of keys, and some 100 MiB.
///
/// # Errors
/// [`ImportFailure`]; what was written does not count.
pub fn import_database(
    source: impl ReadAt,
    target: Target<'_>,
    seeds: &mut StdRng,
    report: &mut dyn FnMut(Revisions),
) -> Result<Imported, ImportFailure> {
    let reader = Reader::open(source).map_err(ImportError::from)?;
    let tables = Tables::read(&reader)?;
    let meta = DatabaseMeta::read(&tables)?;
    // Before anything is written: what is refused leaves no trace.
    let records = SystemRecords::of(&tables)?;
    let leases = records.leases;
    drop(tables);

    Marker::set(target.disk)?;
    let imported = fill(&reader, &meta, records, &target, seeds, report);
    if imported.is_err() {
        // Its space is given back if the disk lets us; the mark stays, and with it what is left is cleared next time.
        drop(clear(target.disk));
    }
    let (revision, compact_revision, Revisions { entries, bytes }) = imported?;
    let revisions = entries + u64::from(target.raise_by.is_some());
    Ok(Imported { revision, compact_revision, revisions, bytes, leases })
}

/// Writes everything; gives revision and compact revision.
fn fill(
    reader: &Reader<impl ReadAt>,
    meta: &DatabaseMeta,
    records: SystemRecords,
    target: &Target<'_>,
    seeds: &mut StdRng,
    report: &mut dyn FnMut(Revisions),
) -> Result<(i64, i64, Revisions), ImportError> {
    let cache = Arc::new(PageCache::new(PAGE_CACHE_BYTES));
    let mut filling = Filling::begin(target.disk, &cache, Salt::new(seeds.random()), target.birth.clone())?;
    let mut reported = Instant::now();
    let read = read_revisions(target.disk, reader, &mut filling, &mut |read| {
        if reported.elapsed() >= REPORT_INTERVAL {
            reported = Instant::now();
            report(read);
        }
    })?;
    let raised = target.raise_by.map(|amount| bump(target.disk, &mut filling, amount)).transpose()?;
    records.set_in(&mut filling);
    let compact_revision = raised.unwrap_or_else(|| meta.compact_revision());
    // As etcd counts at a start: a compaction may lie above all that it left (etcd issue 17780).
    let revision = filling.last().main.max(compact_revision).max(FIRST_REVISION);
    filling.finish(target.disk, Figures { revision, compact_revision, applied: target.applied })?;
    Ok((revision, compact_revision, read))
}
