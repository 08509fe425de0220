//! Pass one: from key and value lengths to the whole file's layout.

use super::super::error::SnapshotError;
use super::page::{BUCKET_VALUE_BYTES, PAGE_BYTES};
use super::tree::{Tree, TreePlan};

/// Pages before the first bucket: two metas and the empty freelist.
pub(super) const FIRST_TREE_PAGE: u64 = 3;

/// Plans a file bucket by bucket. Buckets come in byte order of their names, entries in byte order of their keys.
///
/// It keeps some 8 bytes and the first key for each leaf of about 32 KiB: 100 GB need some 80 MB. Values are never
/// seen.
#[derive(Debug, Default)]
pub struct Plan {
    done: Vec<BucketLayout>,
    current: Option<(Vec<u8>, TreePlan)>,
    /// The tree that lists the buckets; it also sees to their order.
    names: TreePlan,
}

/// Where everything will stand; what [`Writer`](super::Writer) then follows.
#[derive(Debug)]
pub struct Layout {
    pub(super) buckets: Vec<BucketLayout>,
    pub(super) names: Tree,
}

#[derive(Debug)]
pub(super) struct BucketLayout {
    pub name: Vec<u8>,
    pub first_page: u64,
    pub tree: Tree,
}

impl Plan {
    /// A plan without buckets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the bucket before and begins the next. A bucket may stay empty.
    ///
    /// # Errors
    /// [`SnapshotError::OutOfOrder`] unless the name sorts after the last one; [`SnapshotError::KeyLength`].
    pub fn begin_bucket(&mut self, name: &[u8]) -> Result<(), SnapshotError> {
        self.names.push(name, BUCKET_VALUE_BYTES)?;
        self.end_bucket();
        self.current = Some((name.to_vec(), TreePlan::default()));
        Ok(())
    }

    /// Takes the next entry of the current bucket.
    ///
    /// # Errors
    /// [`SnapshotError::OutOfOrder`] unless the key sorts after the last one, or if no bucket was begun;
    /// [`SnapshotError::KeyLength`] and [`SnapshotError::ValueLength`] beyond bbolt's limits.
    pub fn push(&mut self, key: &[u8], value_length: usize) -> Result<(), SnapshotError> {
        let (_, tree) = self.current.as_mut().ok_or(SnapshotError::OutOfOrder)?;
        tree.push(key, value_length)
    }

    /// The layout; its size is final.
    pub fn finish(mut self) -> Layout {
        self.end_bucket();
        Layout { buckets: self.done, names: self.names.finish() }
    }

    fn end_bucket(&mut self) {
        if let Some((name, tree)) = self.current.take() {
            let first_page = self.done.last().map_or(FIRST_TREE_PAGE, BucketLayout::end_page);
            self.done.push(BucketLayout { name, first_page, tree: tree.finish() });
        }
    }
}

impl BucketLayout {
    fn end_page(&self) -> u64 {
        self.first_page + self.tree.pages()
    }
}

impl Layout {
    /// Bytes of the file, without the digest that a snapshot carries behind it; a multiple of the page size.
    pub fn file_bytes(&self) -> u64 {
        self.page_count() * PAGE_BYTES as u64
    }

    pub(super) fn page_count(&self) -> u64 {
        self.names_first_page() + self.names.pages()
    }

    pub(super) fn names_first_page(&self) -> u64 {
        self.buckets.last().map_or(FIRST_TREE_PAGE, BucketLayout::end_page)
    }
}
