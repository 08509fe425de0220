//! Where the map stands in a page file. `docs/disk-format-pages-map.md` shows the same in a table.

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;
/// Pages of a region: exactly as many as one page has bits, 128 MiB.
pub const REGION_PAGES: u64 = 32_768;
/// Pages at the start of every region that are never handed out. Equal in all regions, so that no formula has an
/// exception and data starts aligned to the usual leaf of 8 pages.
pub const REGION_HEAD_PAGES: u64 = 8;
/// The longest extent: a whole region but its head.
pub const EXTENT_PAGES_MAX: u32 = (REGION_PAGES - REGION_HEAD_PAGES) as u32;
/// A file grows by this many pages at a time, 1 MiB, and is always a multiple of it.
pub const GROWTH_PAGES: u64 = 256;
/// Entries in an index page (regions) and in the map root page (index pages).
pub(super) const MAP_FANOUT: usize = 252;
/// Regions that the two levels can describe: 7.75 TiB.
pub(super) const REGIONS_MAX: usize = MAP_FANOUT * MAP_FANOUT;
/// The largest file, in pages.
pub const FILE_PAGES_MAX: u64 = REGIONS_MAX as u64 * REGION_PAGES;

/// Positions within the head of a region. Page 0 of the file is the file header; in other regions it is unused.
pub(super) const BITMAP_A: u64 = 1;
const BITMAP_B: u64 = BITMAP_A + 1;
/// Index slots, used in every region whose number is a multiple of [`MAP_FANOUT`].
pub(super) const INDEX_A: u64 = 3;
const INDEX_B: u64 = INDEX_A + 1;
/// Map root slots, used in region 0.
pub(super) const ROOT_A: u64 = 5;
const ROOT_B: u64 = ROOT_A + 1;

const _: () = assert!(REGION_PAGES as usize == PAGE_SIZE * 8);
const _: () = assert!(REGION_PAGES.is_multiple_of(GROWTH_PAGES) && GROWTH_PAGES > REGION_HEAD_PAGES);
const _: () = assert!(0 < BITMAP_A && BITMAP_B < INDEX_A && INDEX_B < ROOT_A && ROOT_B < REGION_HEAD_PAGES);
const _: () = assert!(REGION_PAGES - REGION_HEAD_PAGES <= u16::MAX as u64, "a hint is a u16");

/// One of the two places of a map page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    A,
    B,
}

impl Slot {
    pub(super) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    pub(super) fn to_byte(self) -> u8 {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::A),
            1 => Some(Self::B),
            _ => None,
        }
    }
}

/// What stands at a page of a region head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MapPlace {
    /// The bitmap of a region.
    Bitmap(usize, Slot),
    /// An index page.
    Index(usize, Slot),
    /// The map root page.
    Root(Slot),
}

impl MapPlace {
    /// The page of the file where it stands.
    pub(super) fn page(self) -> u64 {
        match self {
            Self::Bitmap(region, slot) => region as u64 * REGION_PAGES + BITMAP_A + u64::from(slot.to_byte()),
            Self::Index(index, slot) => {
                (index * MAP_FANOUT) as u64 * REGION_PAGES + INDEX_A + u64::from(slot.to_byte())
            }
            Self::Root(slot) => ROOT_A + u64::from(slot.to_byte()),
        }
    }

    /// What stands at `page`, if anything of a map can.
    pub(super) fn of_page(page: u64) -> Option<Self> {
        let region = usize::try_from(page / REGION_PAGES).ok().filter(|region| *region < REGIONS_MAX)?;
        match page % REGION_PAGES {
            BITMAP_A => Some(Self::Bitmap(region, Slot::A)),
            BITMAP_B => Some(Self::Bitmap(region, Slot::B)),
            INDEX_A if region.is_multiple_of(MAP_FANOUT) => Some(Self::Index(region / MAP_FANOUT, Slot::A)),
            INDEX_B if region.is_multiple_of(MAP_FANOUT) => Some(Self::Index(region / MAP_FANOUT, Slot::B)),
            ROOT_A if region == 0 => Some(Self::Root(Slot::A)),
            ROOT_B if region == 0 => Some(Self::Root(Slot::B)),
            _ => None,
        }
    }
}

/// Regions that a file of so many pages has; the last may be partial.
pub(super) fn regions_of(file_pages: u64) -> usize {
    file_pages.div_ceil(REGION_PAGES) as usize
}
