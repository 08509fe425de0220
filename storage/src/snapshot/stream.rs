//! A whole snapshot: the system tables around the revisions, planned and then streamed.

use bytes::Bytes;

use super::bbolt::{Layout, Plan, Writer};
use super::error::SnapshotError;
use super::system_tables::{KEY_BUCKET, SystemTables, Table};
use crate::revision::Revision;

/// Pass one: the system tables, and for each stored revision its flags and the length of its value.
#[derive(Debug)]
pub struct SnapshotPlan {
    plan: Plan,
    tables: SystemTables,
}

/// A planned snapshot.
#[derive(Debug)]
pub struct SnapshotLayout {
    layout: Layout,
    tables: SystemTables,
}

/// Pass two: the same revisions with their values in, the file's bytes out.
#[derive(Debug)]
pub struct SnapshotWriter {
    writer: Writer,
    tables: SystemTables,
}

/// The end of a snapshot.
#[derive(Debug)]
pub struct SnapshotEnd {
    /// The last bytes of the file.
    pub chunks: Vec<Bytes>,
    /// SHA-256 of the whole file: the 32 bytes that follow it as a message of their own (etcd-contract 51).
    pub digest: [u8; 32],
}

impl SnapshotPlan {
    /// Begins a plan with these tables.
    ///
    /// # Errors
    /// [`SnapshotError::KeyLength`], [`SnapshotError::ValueLength`]: a record that bbolt cannot hold.
    pub fn new(tables: SystemTables) -> Result<Self, SnapshotError> {
        let mut plan = Plan::new();
        for (name, table) in before_key(&tables) {
            plan_table(&mut plan, name, table)?;
        }
        plan.begin_bucket(KEY_BUCKET.as_bytes())?;
        Ok(Self { plan, tables })
    }

    /// The next stored revision, in ascending order over all shards.
    ///
    /// # Errors
    /// [`SnapshotError::OutOfOrder`], [`SnapshotError::ValueLength`].
    pub fn push_key(&mut self, revision: Revision, tombstone: bool, value_length: usize) -> Result<(), SnapshotError> {
        with_bucket_key(revision, tombstone, |key| self.plan.push(key, value_length))
    }

    /// The layout; its size is final.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn finish(mut self) -> Result<SnapshotLayout, SnapshotError> {
        for (name, table) in after_key(&self.tables) {
            plan_table(&mut self.plan, name, table)?;
        }
        Ok(SnapshotLayout { layout: self.plan.finish(), tables: self.tables })
    }
}

impl SnapshotLayout {
    /// Bytes of the file, without the digest behind it.
    pub fn file_bytes(&self) -> u64 {
        self.layout.file_bytes()
    }
}

impl SnapshotWriter {
    /// Begins the file; the chunks are its first bytes, up to where the revisions begin.
    ///
    /// # Errors
    /// None that a layout from [`SnapshotPlan`] leaves possible.
    pub fn start(layout: SnapshotLayout) -> Result<(Self, Vec<Bytes>), SnapshotError> {
        let SnapshotLayout { layout, tables } = layout;
        let (mut writer, mut chunks) = Writer::start(layout);
        for (name, table) in before_key(&tables) {
            write_table(&mut writer, name, table, &mut chunks)?;
        }
        chunks.extend(writer.begin_bucket(KEY_BUCKET.as_bytes())?);
        Ok((Self { writer, tables }, chunks))
    }

    /// The next revision with its value, as in the plan; returns what became complete, some 32 KiB now and then.
    ///
    /// # Errors
    /// [`SnapshotError::PlanMismatch`]: the stream is void and must end without its digest.
    pub fn push_key(&mut self, revision: Revision, tombstone: bool, value: Bytes) -> Result<Vec<Bytes>, SnapshotError> {
        with_bucket_key(revision, tombstone, |key| self.writer.push(key, value))
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`SnapshotError::PlanMismatch`], as above.
    pub fn finish(mut self) -> Result<SnapshotEnd, SnapshotError> {
        let mut chunks = Vec::new();
        for (name, table) in after_key(&self.tables) {
            write_table(&mut self.writer, name, table, &mut chunks)?;
        }
        let (last, digest) = self.writer.finish()?;
        chunks.extend(last);
        Ok(SnapshotEnd { chunks, digest })
    }
}

fn before_key(tables: &SystemTables) -> impl Iterator<Item = (&'static str, &Table)> {
    tables.iter().filter(|(name, _)| *name < KEY_BUCKET)
}

fn after_key(tables: &SystemTables) -> impl Iterator<Item = (&'static str, &Table)> {
    tables.iter().filter(|(name, _)| *name > KEY_BUCKET)
}

fn with_bucket_key<T>(revision: Revision, tombstone: bool, act: impl FnOnce(&[u8]) -> T) -> T {
    if tombstone { act(&revision.to_tombstone_key()) } else { act(&revision.to_key()) }
}

fn plan_table(plan: &mut Plan, name: &str, table: &Table) -> Result<(), SnapshotError> {
    plan.begin_bucket(name.as_bytes())?;
    table.iter().try_for_each(|(key, value)| plan.push(key, value.len()))
}

fn write_table(writer: &mut Writer, name: &str, table: &Table, chunks: &mut Vec<Bytes>) -> Result<(), SnapshotError> {
    chunks.extend(writer.begin_bucket(name.as_bytes())?);
    for (key, value) in table {
        chunks.extend(writer.push(key, Bytes::copy_from_slice(value))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::bbolt::{Item, Reader};
    use super::*;

    #[test]
    fn all_ten_buckets_are_there_and_hold_what_was_given() {
        let tables = SystemTables::new().with_applied(7, 2).with_lease(5, 60, 0);
        let mut plan = SnapshotPlan::new(tables.clone()).unwrap();
        let revisions = [(Revision::new(2, 0), false), (Revision::new(2, 1), false), (Revision::new(3, 0), true)];
        revisions.iter().for_each(|(revision, tombstone)| plan.push_key(*revision, *tombstone, 4).unwrap());
        let layout = plan.finish().unwrap();
        let size = layout.file_bytes();

        let (mut writer, mut chunks) = SnapshotWriter::start(layout).unwrap();
        for (revision, tombstone) in revisions {
            chunks.extend(writer.push_key(revision, tombstone, Bytes::from_static(b"kkvv")).unwrap());
        }
        chunks.extend(writer.finish().unwrap().chunks);
        let file = Bytes::from(chunks.concat());
        assert_eq!(file.len() as u64, size);

        let mut keys = Vec::new();
        let mut names = Vec::new();
        let mut entries = 0;
        for item in Reader::open(file).unwrap().items() {
            match item.unwrap() {
                Item::Bucket(name) => names.push(String::from_utf8(name.to_vec()).unwrap()),
                Item::Entry { key, .. } if names.last().unwrap() == KEY_BUCKET => {
                    keys.push(Revision::parse(&key).unwrap());
                }
                Item::Entry { .. } => entries += 1,
            }
        }
        assert_eq!(names.len(), 10);
        assert_eq!(keys, revisions);
        assert_eq!(entries, tables.iter().map(|(_, table)| table.len()).sum::<usize>());
    }

    #[test]
    fn revisions_must_ascend() {
        let mut plan = SnapshotPlan::new(SystemTables::new()).unwrap();
        plan.push_key(Revision::new(3, 0), false, 0).unwrap();
        assert!(matches!(plan.push_key(Revision::new(2, 9), false, 0), Err(SnapshotError::OutOfOrder)));
    }
}
