//! The nouns of the allocator's interface.

use super::layout::REGION_PAGES;

/// The number of a commit of one page file; grows with every commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub u64);

/// Consecutive pages of a file, within one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// The first page, counted from the start of the file.
    pub page: u64,
    /// How many pages, at least 1.
    pub pages: u32,
}

impl Extent {
    /// The region it lies in.
    pub(super) fn region(self) -> usize {
        usize::try_from(self.page / REGION_PAGES).unwrap_or(usize::MAX)
    }

    /// Its pages as positions within its region.
    pub(super) fn span(self) -> std::ops::Range<usize> {
        let start = (self.page % REGION_PAGES) as usize;
        start..start + self.pages as usize
    }
}

/// Who writes: pages that die together are kept together, by giving each stream a region of its own while there are
/// several with space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// New data.
    Append,
    /// Data that a compaction moved.
    Rewrite,
    /// Branch pages, rewritten by every commit.
    Branch,
}

impl Stream {
    /// How many streams there are.
    pub(super) const COUNT: usize = 3;
}
