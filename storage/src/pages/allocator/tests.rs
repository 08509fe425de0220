//! Facts about the allocator, one a test.

use std::collections::HashMap;

use bytes::Bytes;

use super::layout::{MAP_FANOUT, MapPlace};
use super::*;

/// The map pages of a file, and how many were read.
#[derive(Clone, Default)]
pub(super) struct MapFile {
    pub(super) pages: HashMap<u64, Bytes>,
    pub(super) loads: usize,
}

impl MapFile {
    pub(super) fn write(&mut self, prepared: &Prepared) {
        self.pages.extend(prepared.writes.iter().cloned());
    }

    /// Repeats `call` until it needs no more pages.
    pub(super) fn serve<T>(
        &mut self,
        allocator: &mut Allocator,
        mut call: impl FnMut(&mut Allocator) -> Result<T, AllocatorError>,
    ) -> Result<T, AllocatorError> {
        loop {
            match call(allocator) {
                Err(AllocatorError::Load(page)) => {
                    self.loads += 1;
                    allocator.load(page, &self.pages[&page])?;
                }
                answer => return answer,
            }
        }
    }

    pub(super) fn allocate(&mut self, allocator: &mut Allocator, stream: Stream, pages: u32) -> Extent {
        self.serve(allocator, |allocator| allocator.allocate(stream, pages)).expect("there is room")
    }

    pub(super) fn commit(&mut self, allocator: &mut Allocator) -> MapRoot {
        let prepared = allocator.prepare().expect("prepare");
        self.write(&prepared);
        allocator.committed();
        prepared.root
    }
}

/// A file with `extents` of one region each, committed as transaction 1.
fn large_file(extents: usize) -> (MapFile, MapRoot, Vec<Extent>) {
    let (mut file, mut allocator) = (MapFile::default(), Allocator::create());
    allocator.begin(TransactionId(1));
    let taken = (0..extents).map(|_| file.allocate(&mut allocator, Stream::Append, EXTENT_PAGES_MAX)).collect();
    let root = file.commit(&mut allocator);
    (file, root, taken)
}

#[test]
fn a_double_free_is_found_before_anything_changes() {
    let mut allocator = Allocator::create();
    allocator.begin(TransactionId(1));
    let extent = allocator.allocate(Stream::Append, 8).unwrap();
    let part = Extent { page: extent.page + 6, pages: 1 };
    allocator.free(part, TransactionId(1)).unwrap();
    let free = allocator.free_pages();
    let error = AllocatorError::DoubleFree { page: part.page, birth: TransactionId(1), transaction: TransactionId(1) };
    assert_eq!(allocator.free(extent, TransactionId(1)), Err(error));
    assert_eq!(allocator.free_pages(), free);
    allocator.free(Extent { page: extent.page, pages: 6 }, TransactionId(1)).unwrap();
}

#[test]
fn extents_that_nobody_was_given_are_refused() {
    let mut allocator = Allocator::create();
    allocator.begin(TransactionId(1));
    for (page, pages) in [(0, 1), (7, 2), (8, 0), (255, 2), (REGION_PAGES - 1, 2), (u64::MAX, 1), (u64::MAX - 9, 90)] {
        let extent = Extent { page, pages };
        assert_eq!(allocator.free(extent, TransactionId(0)), Err(AllocatorError::BadExtent(extent)));
    }
    let extent = allocator.allocate(Stream::Append, 1).unwrap();
    assert_eq!(allocator.free(extent, TransactionId(2)), Err(AllocatorError::BadExtent(extent)), "born in the future");
    for pages in [0, EXTENT_PAGES_MAX + 1, u32::MAX] {
        assert_eq!(allocator.allocate(Stream::Append, pages), Err(AllocatorError::ExtentSize(pages)));
    }
}

#[test]
fn a_reopened_file_loads_only_what_is_touched() {
    let (mut file, root, taken) = large_file(MAP_FANOUT + 3);
    let mut allocator = Allocator::open(MapRoot::decode(&root.encode()).unwrap()).unwrap();
    assert_eq!(file.loads, 0);
    assert_eq!(allocator.used_pages(), allocator.file_pages(), "the count of free pages comes with the root");
    allocator.begin(TransactionId(2));
    file.serve(&mut allocator, |allocator| allocator.free(taken[MAP_FANOUT + 1], TransactionId(1))).unwrap();
    assert_eq!(file.loads, 3, "root, the second index page, one bitmap");
    assert_eq!(allocator.prepare().unwrap().writes.len(), 3);
    let root = file.commit(&mut allocator);

    let mut allocator = Allocator::open(root).unwrap();
    file.loads = 0;
    allocator.begin(TransactionId(3));
    assert_eq!(file.allocate(&mut allocator, Stream::Branch, 4).region(), MAP_FANOUT + 1);
    assert_eq!(file.loads, 3);
}

#[test]
fn a_commit_writes_only_dirty_pages_and_never_what_is_durable() {
    let (mut file, root, taken) = large_file(3);
    let mut allocator = Allocator::open(root).unwrap();
    let mut before: Vec<u64> = Vec::new();
    for (number, pages_expected) in [(2, 3), (3, 3), (4, 0)] {
        allocator.begin(TransactionId(number));
        let page = Extent { page: taken[1].page + number, pages: 1 };
        if pages_expected > 0 {
            file.serve(&mut allocator, |allocator| allocator.free(page, TransactionId(1))).unwrap();
        }
        let prepared = allocator.prepare().unwrap();
        let pages: Vec<u64> = prepared.writes.iter().map(|(page, _)| *page).collect();
        assert_eq!(pages.len(), pages_expected);
        assert!(pages.iter().all(|page| !before.contains(page)), "{pages:?} overwrites {before:?}");
        file.commit(&mut allocator);
        before = pages;
    }
}

#[test]
fn a_flipped_bit_anywhere_in_the_map_is_an_error() {
    let (file, root, taken) = large_file(2);
    let map_pages: Vec<u64> = file.pages.keys().copied().collect();
    assert_eq!(map_pages.len(), 4);
    for at in [0, 5, 6, 8, 13, 20, 26, 33, 41, 64, 75, 90, 4095] {
        for page in &map_pages {
            let mut damaged = file.clone();
            let mut bytes = damaged.pages[page].to_vec();
            bytes[at] ^= 0x10;
            damaged.pages.insert(*page, bytes.into());
            let mut allocator = Allocator::open(root.clone()).unwrap();
            allocator.begin(TransactionId(2));
            let freed: Result<Vec<_>, _> = (taken.iter())
                .map(|extent| damaged.serve(&mut allocator, |allocator| allocator.free(*extent, TransactionId(1))))
                .collect();
            assert!(matches!(freed, Err(AllocatorError::Damaged { page: found, .. }) if found == *page));
        }
    }
}

#[test]
fn a_bitmap_of_another_region_or_commit_is_an_error() {
    let (mut file, root, taken) = large_file(3);
    let mut allocator = Allocator::open(root).unwrap();
    allocator.begin(TransactionId(2));
    file.serve(&mut allocator, |allocator| allocator.free(taken[2], TransactionId(1))).unwrap();
    let root = file.commit(&mut allocator);
    for (region, slot) in [(1, layout::Slot::A), (2, layout::Slot::A)] {
        let mut wrong = file.clone();
        let other = wrong.pages[&MapPlace::Bitmap(region, slot).page()].clone();
        wrong.pages.insert(MapPlace::Bitmap(2, layout::Slot::B).page(), other);
        let mut allocator = Allocator::open(root.clone()).unwrap();
        allocator.begin(TransactionId(3));
        let taken = wrong.serve(&mut allocator, |allocator| allocator.allocate(Stream::Append, 1));
        assert!(matches!(taken, Err(AllocatorError::Damaged { .. })));
    }
}

#[test]
fn pages_that_were_not_asked_for_are_refused() {
    let (file, root, _) = large_file(1);
    let mut allocator = Allocator::open(root).unwrap();
    for page in [0, 3, 6, 7, 8, REGION_PAGES + 1, u64::MAX] {
        assert_eq!(allocator.load(page, &file.pages[&1]), Err(AllocatorError::NotInMap(page)));
    }
}

#[test]
fn hostile_roots_are_refused() {
    let good = Allocator::create();
    let mut allocator = good;
    allocator.begin(TransactionId(1));
    let root = allocator.prepare().unwrap().root.encode();
    assert!(MapRoot::decode(&root).is_ok());
    assert!(MapRoot::decode(&root[1..]).is_err());
    assert!(MapRoot::decode(&[0xff; 64]).is_err());
    for (at, value) in [(0, 9), (1, 2), (2, 1), (8, 1), (15, 0x80), (23, 0x80)] {
        let mut bytes = root;
        bytes[at] = value;
        assert!(MapRoot::decode(&bytes).is_err(), "byte {at}");
    }
    let mut empty = root;
    empty[8..16].fill(0);
    assert!(MapRoot::decode(&empty).is_err(), "no page at all");
}

#[test]
fn a_reader_pins_only_what_was_alive_at_its_start() {
    let mut file = MapFile::default();
    let mut allocator = Allocator::create();
    allocator.begin(TransactionId(1));
    let old = file.allocate(&mut allocator, Stream::Append, 8);
    file.commit(&mut allocator);
    let reader = allocator.readers().pin(TransactionId(1));

    allocator.begin(TransactionId(2));
    let young = file.allocate(&mut allocator, Stream::Append, 8);
    allocator.free(old, TransactionId(1)).unwrap();
    file.commit(&mut allocator);
    allocator.begin(TransactionId(3));
    allocator.free(young, TransactionId(2)).unwrap();
    file.commit(&mut allocator);

    allocator.begin(TransactionId(4));
    assert_eq!(file.allocate(&mut allocator, Stream::Append, 8), young, "born and freed during the read");
    file.commit(&mut allocator);
    drop(reader);
    allocator.begin(TransactionId(5));
    assert_eq!(file.allocate(&mut allocator, Stream::Append, 8), old);
}

#[test]
#[should_panic(expected = "transaction 1 is gone")]
fn an_old_transaction_that_nobody_holds_cannot_be_pinned() {
    let mut allocator = Allocator::create();
    for number in [1, 2] {
        allocator.begin(TransactionId(number));
        allocator.prepare().unwrap();
        allocator.committed();
    }
    allocator.readers().pin(TransactionId(1));
}

#[test]
fn streams_keep_to_regions_of_their_own_while_there_are_several() {
    let (mut file, root, taken) = large_file(3);
    let mut allocator = Allocator::open(root).unwrap();
    allocator.begin(TransactionId(2));
    for extent in taken {
        file.serve(&mut allocator, |allocator| allocator.free(extent, TransactionId(1))).unwrap();
    }
    file.commit(&mut allocator);
    allocator.begin(TransactionId(3));
    let mut next = |stream| file.allocate(&mut allocator, stream, 8).page;
    let first = |region: u64| region * REGION_PAGES + REGION_HEAD_PAGES;
    assert_eq!(next(Stream::Append), first(0));
    assert_eq!(next(Stream::Rewrite), first(1));
    assert_eq!(next(Stream::Branch), first(2));
    assert_eq!(next(Stream::Append), first(0) + 8);
    assert_eq!(next(Stream::Rewrite), first(1) + 8);
}

#[test]
fn a_full_file_says_so() {
    let (_, mut root, _) = large_file(1);
    root.file_pages = FILE_PAGES_MAX;
    root.free_pages = 0;
    let mut allocator = Allocator::open(root).unwrap();
    allocator.begin(TransactionId(2));
    assert_eq!(allocator.allocate(Stream::Append, 1), Err(AllocatorError::Full));
}

/// The figures of the format's document are those of the code.
#[test]
fn the_document_states_our_constants() {
    let document = include_str!("../../../../docs/disk-format-pages-map.md");
    for figure in [
        format!("| page | {PAGE_SIZE} bytes |"),
        format!("| region | {REGION_PAGES} pages |"),
        format!("| region head | {REGION_HEAD_PAGES} pages |"),
        format!("| growth step | {GROWTH_PAGES} pages |"),
        format!("| entries of a map page | {MAP_FANOUT} |"),
        format!("| largest file | {FILE_PAGES_MAX} pages |"),
        format!("| largest extent | {EXTENT_PAGES_MAX} pages |"),
        format!("| map page header | {} bytes |", map_page::HEADER_LEN),
        format!("| map page entry | {} bytes |", map_page::ENTRY_LEN),
        format!("| map root | {MAP_ROOT_LEN} bytes |"),
        format!("magic `{}`", String::from_utf8_lossy(&map_page::MAGIC)),
        format!("format version, {}", map_page::VERSION),
        format!("| {} | bitmap A |", layout::BITMAP_A),
        format!("| {} | index page A", layout::INDEX_A),
        format!("| {} | map root page A", layout::ROOT_A),
        format!("| {} | 4 | CRC", map_page::CRC_AT),
    ] {
        assert!(document.contains(&figure), "the document lacks: {figure}");
    }
}
