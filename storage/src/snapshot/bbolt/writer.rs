//! Pass two: the same entries again, with values, and the file's bytes in order.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::super::error::SnapshotError;
use super::meta::Meta;
use super::page::{BUCKET_VALUE_BYTES, ELEMENT_IS_BUCKET, FLAG_FREELIST, PAGE_BYTES, PageHeader};
use super::plan::{FIRST_TREE_PAGE, Layout};
use super::tree_writer::TreeWriter;

const FREELIST_PAGE: u64 = 2;

/// Transaction of the meta on page 0; page 1 carries the one before. Even, because bbolt writes transaction N to page
/// N % 2 and so replaces the older of the two first.
const TRANSACTION: u64 = 2;
const _: () = assert!(TRANSACTION.is_multiple_of(2) && FREELIST_PAGE + 1 == FIRST_TREE_PAGE);

/// Emits a planned file from its first byte to its last.
///
/// It is fed exactly as the [`Plan`](super::Plan) was, plus the values, and answers each call with the chunks that
/// became complete, often none. It holds one leaf and one branch per level; a value larger than a leaf is passed on
/// without a copy. It does no I/O.
#[derive(Debug)]
pub struct Writer {
    layout: Layout,
    /// How many buckets were begun.
    buckets_begun: usize,
    current: Option<TreeWriter>,
    digest: Sha256,
    bytes_written: u64,
}

impl Writer {
    /// A writer of this layout, and the pages before the first bucket.
    pub fn start(layout: Layout) -> (Self, Vec<Bytes>) {
        let root_page = layout.names.root_page(layout.names_first_page());
        let meta = Meta {
            page_size: PAGE_BYTES as u32,
            root_page,
            freelist_page: FREELIST_PAGE,
            page_count: layout.page_count(),
            transaction: TRANSACTION,
        };
        let older = Meta { transaction: TRANSACTION - 1, ..meta };
        let freelist = PageHeader { id: FREELIST_PAGE, flags: FLAG_FREELIST, count: 0, overflow: 0 };
        let mut pages = meta.encode_page(0);
        pages.extend(older.encode_page(1));
        pages.extend(freelist.encode());
        pages.resize(FIRST_TREE_PAGE as usize * PAGE_BYTES, 0);

        let mut writer = Self { layout, buckets_begun: 0, current: None, digest: Sha256::new(), bytes_written: 0 };
        let chunks = vec![Bytes::from(pages)];
        writer.account(&chunks);
        (writer, chunks)
    }

    /// Ends the bucket before and begins the next.
    ///
    /// # Errors
    /// [`SnapshotError::PlanMismatch`] unless it is the one that was planned here, or if entries of the one before are
    /// missing.
    pub fn begin_bucket(&mut self, name: &[u8]) -> Result<Vec<Bytes>, SnapshotError> {
        let chunks = self.end_bucket()?;
        let planned = self.layout.buckets.get(self.buckets_begun).filter(|bucket| bucket.name == name);
        let bucket = planned.ok_or(SnapshotError::PlanMismatch { what: "bucket" })?;
        self.current = Some(TreeWriter::new(&bucket.tree, bucket.first_page));
        self.buckets_begun += 1;
        Ok(chunks)
    }

    /// Takes the next entry of the current bucket.
    ///
    /// # Errors
    /// [`SnapshotError::PlanMismatch`] if it cannot be the one that was planned here. Not every difference shows at
    /// once: some only when the bucket ends.
    pub fn push(&mut self, key: &[u8], value: Bytes) -> Result<Vec<Bytes>, SnapshotError> {
        let mut chunks = Vec::new();
        let current = self.current.as_mut().ok_or(SnapshotError::PlanMismatch { what: "no bucket" })?;
        let tree = &self.layout.buckets[self.buckets_begun - 1].tree;
        current.push(tree, 0, key, value, &mut chunks)?;
        self.account(&chunks);
        Ok(chunks)
    }

    /// The last chunks, and the SHA-256 of all bytes since [`Self::start`].
    ///
    /// # Errors
    /// [`SnapshotError::PlanMismatch`] if entries or buckets are missing.
    pub fn finish(mut self) -> Result<(Vec<Bytes>, [u8; 32]), SnapshotError> {
        let mut chunks = self.end_bucket()?;
        if self.buckets_begun < self.layout.buckets.len() {
            return Err(SnapshotError::PlanMismatch { what: "fewer buckets" });
        }
        let before = chunks.len();
        self.write_names(&mut chunks)?;
        self.account(&chunks[before..]);
        assert!(self.bytes_written == self.layout.file_bytes(), "the file must have its planned size");
        Ok((chunks, self.digest.finalize().into()))
    }

    /// Writes the tree that lists the buckets.
    fn write_names(&self, chunks: &mut Vec<Bytes>) -> Result<(), SnapshotError> {
        let names = &self.layout.names;
        let mut tree = TreeWriter::new(names, self.layout.names_first_page());
        for bucket in &self.layout.buckets {
            let mut value = bucket.tree.root_page(bucket.first_page).to_le_bytes().to_vec();
            value.resize(BUCKET_VALUE_BYTES, 0);
            tree.push(names, ELEMENT_IS_BUCKET, &bucket.name, value.into(), chunks)?;
        }
        tree.finish(names, chunks)
    }

    fn end_bucket(&mut self) -> Result<Vec<Bytes>, SnapshotError> {
        let mut chunks = Vec::new();
        if let Some(tree) = self.current.take() {
            tree.finish(&self.layout.buckets[self.buckets_begun - 1].tree, &mut chunks)?;
        }
        self.account(&chunks);
        Ok(chunks)
    }

    fn account(&mut self, chunks: &[Bytes]) {
        for chunk in chunks {
            self.digest.update(chunk);
            self.bytes_written += chunk.len() as u64;
        }
    }
}
