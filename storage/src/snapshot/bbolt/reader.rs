//! Reads a bbolt file that anyone may have made.

use bytes::Bytes;

use super::super::error::SnapshotError;
use super::meta::{META_BYTES, Meta, PAGE_SIZES};
use super::node::{LeafEntry, ReadLeaf, ReadNode};
use super::page::{BUCKET_VALUE_BYTES, HEADER_BYTES, PageHeader, u64_at};
use super::source::ReadAt;

/// Largest node that is read. etcd's requests, and so its values, are some MiB at most; a few hundred stand for those
/// who raised that limit.
pub const NODE_BYTES_MAX: u64 = 512 << 20;
/// Most levels of a tree. Branches of two children make 2^32 leaves in 32.
pub const DEPTH_MAX: usize = 32;

/// A bbolt file with a valid meta record.
///
/// Memory: one bit for each page, one node, and for each level the page numbers of one branch.
#[derive(Debug)]
pub struct Reader<S> {
    source: S,
    meta: Meta,
}

/// What a walk meets, in file order: each bucket, then its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A bucket begins; it may be empty. Names ascend.
    Bucket(Bytes),
    /// An entry of the bucket begun last. Keys ascend. The bytes keep their node alive: copy what is kept for long.
    Entry {
        /// 1 to 32768 bytes.
        key: Bytes,
        /// May be empty.
        value: Bytes,
    },
}

impl<S: ReadAt> Reader<S> {
    /// Finds the newest valid meta record. Bytes behind the last page, such as a digest, are ignored.
    ///
    /// # Errors
    /// [`SnapshotError::NotBbolt`] if there is none or the file is shorter than it says; [`SnapshotError::Read`].
    pub fn open(source: S) -> Result<Self, SnapshotError> {
        let metas = [read_meta(&source, 0)?, read_second_meta(&source)?];
        let newest = metas.into_iter().flatten().max_by_key(|meta| meta.transaction);
        let meta = newest.ok_or(SnapshotError::NotBbolt { reason: "no valid meta page" })?;
        if meta.page_count > source.length() / u64::from(meta.page_size) {
            return Err(SnapshotError::NotBbolt { reason: "shorter than its meta page says" });
        }
        Ok(Self { source, meta })
    }

    /// Walks all buckets and entries. Each page is read at most once, so a walk ends even when pages point in circles.
    /// It ends after the first error.
    pub fn items(&self) -> Items<'_, S> {
        self.items_of(|_| true)
    }

    /// As [`Self::items`], of the buckets whose names are `wanted`; pages of the others are not read.
    pub fn items_of(&self, wanted: fn(&[u8]) -> bool) -> Items<'_, S> {
        let words = self.meta.page_count.div_ceil(64) as usize;
        Items {
            pages: Pages { reader: self, visited: vec![0; words] },
            names: Cursor::at_page(self.meta.root_page),
            wanted,
            bucket: None,
            failed: false,
        }
    }

    /// Bytes of all pages.
    pub fn file_bytes(&self) -> u64 {
        // It was compared with the length of the source, so that the product fits.
        self.meta.page_count * u64::from(self.meta.page_size)
    }
}

/// The meta on the page at `offset`; `None` if it is not valid.
fn read_meta(source: &impl ReadAt, offset: u64) -> Result<Option<Meta>, SnapshotError> {
    if source.length() < offset + META_BYTES as u64 {
        return Ok(None);
    }
    Ok(Meta::decode_page(&source.read_at(offset, META_BYTES)?))
}

/// The meta on page 1. Where that begins only a valid record tells, so all page sizes are tried, as bbolt does.
fn read_second_meta(source: &impl ReadAt) -> Result<Option<Meta>, SnapshotError> {
    let mut page_size = *PAGE_SIZES.start();
    while page_size <= *PAGE_SIZES.end() {
        let found = read_meta(source, u64::from(page_size))?;
        if let Some(meta) = found.filter(|meta| meta.page_size == page_size) {
            return Ok(Some(meta));
        }
        page_size *= 2;
    }
    Ok(None)
}

/// A walk over a file; see [`Reader::items`].
#[derive(Debug)]
pub struct Items<'a, S> {
    pages: Pages<'a, S>,
    names: Cursor,
    wanted: fn(&[u8]) -> bool,
    bucket: Option<Cursor>,
    failed: bool,
}

impl<S: ReadAt> Iterator for Items<'_, S> {
    type Item = Result<Item, SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.next_item().transpose();
        self.failed = matches!(item, Some(Err(_)));
        item
    }
}

impl<S: ReadAt> Items<'_, S> {
    fn next_item(&mut self) -> Result<Option<Item>, SnapshotError> {
        if let Some(bucket) = &mut self.bucket {
            match bucket.next_entry(&mut self.pages)? {
                Some(entry) if entry.is_bucket => return Err(bucket.corrupt("bucket within a bucket")),
                Some(entry) => return Ok(Some(Item::Entry { key: entry.key, value: entry.value })),
                None => self.bucket = None,
            }
        }
        loop {
            let Some(entry) = self.names.next_entry(&mut self.pages)? else { return Ok(None) };
            if !entry.is_bucket {
                return Err(self.names.corrupt("entry outside of all buckets"));
            }
            if (self.wanted)(&entry.key) {
                self.bucket = Some(self.open_bucket(&entry.value)?);
                return Ok(Some(Item::Bucket(entry.key)));
            }
        }
    }

    /// The page read last: where an error of what it holds lies.
    pub fn page(&self) -> u64 {
        self.bucket.as_ref().unwrap_or(&self.names).page
    }

    fn open_bucket(&self, value: &Bytes) -> Result<Cursor, SnapshotError> {
        let root = u64_at(value, 0).filter(|_| value.len() >= BUCKET_VALUE_BYTES);
        match root.ok_or(self.names.corrupt("bucket value too short"))? {
            0 => match ReadNode::parse(self.names.page, value.slice(BUCKET_VALUE_BYTES..))? {
                ReadNode::Leaf(leaf) => Ok(Cursor::in_leaf(self.names.page, leaf)),
                ReadNode::Branch(_) => Err(self.names.corrupt("inline bucket with branches")),
            },
            page => Ok(Cursor::at_page(page)),
        }
    }
}

/// The pages of a file, each handed out once.
#[derive(Debug)]
struct Pages<'a, S> {
    reader: &'a Reader<S>,
    visited: Vec<u64>,
}

impl<S: ReadAt> Pages<'_, S> {
    fn read_node(&mut self, page: u64) -> Result<ReadNode, SnapshotError> {
        let corrupt = |reason| SnapshotError::Corrupt { page, reason };
        let Reader { source, meta } = self.reader;
        let page_size = u64::from(meta.page_size);
        if page < 2 || page >= meta.page_count {
            return Err(corrupt("no such page"));
        }
        // Page numbers below `page_count` are within the file, so the products cannot overflow.
        let header = source.read_at(page * page_size, HEADER_BYTES)?;
        let header = PageHeader::decode(&header).ok_or(corrupt("no room for a header"))?;
        if header.id != page {
            return Err(corrupt("number differs from its place"));
        }
        let pages = u64::from(header.overflow) + 1;
        if pages > meta.page_count - page {
            return Err(corrupt("overflow beyond the file"));
        }
        if pages * page_size > NODE_BYTES_MAX {
            return Err(corrupt("node too large"));
        }
        for visit in page..page + pages {
            self.visit(visit).ok_or(corrupt("reached twice"))?;
        }
        let length = usize::try_from(pages * page_size).map_err(|_| corrupt("node too large"))?;
        ReadNode::parse(page, source.read_at(page * page_size, length)?)
    }

    /// `None` if it was visited before.
    fn visit(&mut self, page: u64) -> Option<()> {
        let (word, bit) = ((page / 64) as usize, 1 << (page % 64));
        let first_time = self.visited[word] & bit == 0;
        self.visited[word] |= bit;
        first_time.then_some(())
    }
}

/// A place in one tree.
#[derive(Debug)]
struct Cursor {
    /// Children still to visit, from the root down; those of a branch in reverse.
    pending: Vec<Vec<u64>>,
    leaf: Option<ReadLeaf>,
    /// The page read last, for errors.
    page: u64,
    last_key: Bytes,
}

impl Cursor {
    fn at_page(page: u64) -> Self {
        Self { pending: vec![vec![page]], leaf: None, page, last_key: Bytes::new() }
    }

    fn in_leaf(page: u64, leaf: ReadLeaf) -> Self {
        Self { pending: Vec::new(), leaf: Some(leaf), page, last_key: Bytes::new() }
    }

    fn corrupt(&self, reason: &'static str) -> SnapshotError {
        SnapshotError::Corrupt { page: self.page, reason }
    }

    fn next_entry<S: ReadAt>(&mut self, pages: &mut Pages<'_, S>) -> Result<Option<LeafEntry>, SnapshotError> {
        loop {
            if let Some(leaf) = &mut self.leaf {
                if let Some(entry) = leaf.next_entry()? {
                    if entry.key <= self.last_key {
                        return Err(self.corrupt("keys do not ascend"));
                    }
                    self.last_key = entry.key.clone();
                    return Ok(Some(entry));
                }
                self.leaf = None;
            }
            let Some(level) = self.pending.last_mut() else { return Ok(None) };
            match level.pop() {
                None => drop(self.pending.pop()),
                Some(page) => self.descend(page, pages)?,
            }
        }
    }

    fn descend<S: ReadAt>(&mut self, page: u64, pages: &mut Pages<'_, S>) -> Result<(), SnapshotError> {
        self.page = page;
        match pages.read_node(page)? {
            ReadNode::Leaf(leaf) => self.leaf = Some(leaf),
            ReadNode::Branch(_) if self.pending.len() == DEPTH_MAX => return Err(self.corrupt("tree too deep")),
            ReadNode::Branch(mut children) => {
                children.reverse();
                self.pending.push(children);
            }
        }
        Ok(())
    }
}
