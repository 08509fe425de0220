//! The allocator against a model that remembers every extent of every tree.

use std::rc::Rc;

use proptest::prelude::*;

use super::tests::MapFile;
use super::*;

#[derive(Clone, Debug)]
enum Action {
    Allocate {
        stream: Stream,
        pages: u32,
    },
    Free {
        pick: usize,
        part: u32,
    },
    DoubleFree {
        pick: usize,
    },
    Pin,
    Unpin {
        pick: usize,
    },
    /// The end of the file is given up.
    Shrink,
    Commit,
    /// The map's writes happen, up to a mask; the manifest does not.
    Abandon {
        written: u64,
    },
    /// The process dies, with those of its last writes on disk.
    Crash {
        written: u64,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let stream = prop_oneof![Just(Stream::Append), Just(Stream::Rewrite), Just(Stream::Branch)];
    let pages = prop_oneof![8 => 1..13u32, 2 => 13..400u32, 1 => 3000..9000u32, 1 => Just(EXTENT_PAGES_MAX)];
    prop_oneof![
        12 => (stream, pages).prop_map(|(stream, pages)| Action::Allocate { stream, pages }),
        8 => (any::<usize>(), 0..4u32).prop_map(|(pick, part)| Action::Free { pick, part }),
        1 => any::<usize>().prop_map(|pick| Action::DoubleFree { pick }),
        2 => Just(Action::Pin),
        2 => any::<usize>().prop_map(|pick| Action::Unpin { pick }),
        2 => Just(Action::Shrink),
        3 => Just(Action::Commit),
        1 => any::<u64>().prop_map(|written| Action::Abandon { written }),
        1 => any::<u64>().prop_map(|written| Action::Crash { written }),
    ]
}

type Extents = Rc<Vec<(Extent, TransactionId)>>;

struct Model {
    file: MapFile,
    allocator: Allocator,
    root: Option<MapRoot>,
    transaction: TransactionId,
    /// What the tree of the open transaction uses.
    live: Vec<(Extent, TransactionId)>,
    /// What the transaction freed.
    freed: Vec<Extent>,
    durable: Extents,
    readers: Vec<(ReaderPin, Extents)>,
    /// What was read when the transaction began; readers that have gone since count until it ends.
    held: Vec<Extents>,
    /// Of the file when the transaction began.
    file_pages: u64,
    /// Nothing is allocated any more in this transaction.
    shrunk: bool,
}

impl Model {
    fn new() -> Self {
        let mut allocator = Allocator::create();
        allocator.begin(TransactionId(1));
        Self {
            file: MapFile::default(),
            allocator,
            root: None,
            transaction: TransactionId(1),
            live: Vec::new(),
            freed: Vec::new(),
            durable: Extents::default(),
            readers: Vec::new(),
            held: Vec::new(),
            file_pages: 0,
            shrunk: false,
        }
    }

    fn begin(&mut self, transaction: TransactionId) {
        self.transaction = transaction;
        (self.file_pages, self.shrunk) = (self.allocator.file_pages(), false);
        self.allocator.begin(transaction);
        self.live = self.durable.to_vec();
        self.freed.clear();
        self.held = self.readers.iter().map(|(_, extents)| Rc::clone(extents)).collect();
    }

    /// Every extent that must not be handed out.
    fn untouchable(&self) -> impl Iterator<Item = Extent> {
        let kept = self.durable.iter().chain(&self.live).chain(self.held.iter().flat_map(|held| held.iter()));
        kept.map(|(extent, _)| *extent).chain(self.freed.iter().copied())
    }

    fn allocate(&mut self, stream: Stream, pages: u32) {
        let before = self.allocator.file_pages();
        let extent = self.file.allocate(&mut self.allocator, stream, pages);
        assert_eq!(extent.pages, pages);
        assert!(extent.page % REGION_PAGES >= REGION_HEAD_PAGES, "{extent:?} covers a head");
        assert!(extent.page % REGION_PAGES + u64::from(pages) <= REGION_PAGES, "{extent:?} crosses a region");
        assert!(extent.page + u64::from(pages) <= self.allocator.file_pages());
        for other in self.untouchable() {
            let apart =
                other.page + u64::from(other.pages) <= extent.page || extent.page + u64::from(pages) <= other.page;
            assert!(apart, "{extent:?} overlaps {other:?}");
        }
        if self.allocator.file_pages() > before {
            assert!(self.longest_run(before) < pages, "the file grew though {pages} pages were available");
        }
        self.live.push((extent, self.transaction));
    }

    /// The longest run that may be handed out in the first `file_pages` pages.
    fn longest_run(&self, file_pages: u64) -> u32 {
        let mut available = vec![true; file_pages as usize];
        for head in (0..file_pages).step_by(REGION_PAGES as usize) {
            available[head as usize..][..REGION_HEAD_PAGES as usize].fill(false);
        }
        for extent in self.untouchable().filter(|extent| extent.page < file_pages) {
            available[extent.page as usize..][..extent.pages as usize].fill(false);
        }
        let runs = available.chunks(REGION_PAGES as usize).flat_map(|region| region.split(|page| !page));
        runs.map(|run| run.len() as u32).max().unwrap_or(0)
    }

    fn free(&mut self, pick: usize, part: u32) {
        if self.live.is_empty() {
            return;
        }
        let (extent, birth) = self.live.swap_remove(pick % self.live.len());
        // Sometimes only the head of an extent dies.
        let pages = if part == 0 { (extent.pages / 2).max(1) } else { extent.pages };
        let dead = Extent { page: extent.page, pages };
        self.file.serve(&mut self.allocator, |allocator| allocator.free(dead, birth)).expect("it is used");
        self.freed.push(dead);
        if pages < extent.pages {
            let rest = Extent { page: extent.page + u64::from(pages), pages: extent.pages - pages };
            self.live.push((rest, birth));
        }
    }

    fn double_free(&mut self, pick: usize) {
        if self.freed.is_empty() {
            return;
        }
        let extent = self.freed[pick % self.freed.len()];
        let again = self.file.serve(&mut self.allocator, |allocator| allocator.free(extent, TransactionId(0)));
        assert!(matches!(again, Err(AllocatorError::DoubleFree { page, .. }) if page == extent.page));
    }

    fn shrink(&mut self) {
        self.shrunk = true;
        let before = self.allocator.file_pages();
        self.file
            .serve(&mut self.allocator, |allocator| {
                allocator.pack();
                allocator.shrink()
            })
            .expect("the map is whole");
        let after = self.allocator.file_pages();
        let needed = self.untouchable().map(|extent| extent.page + u64::from(extent.pages)).max().unwrap_or(0);
        let needed = needed.next_multiple_of(GROWTH_PAGES).max(GROWTH_PAGES);
        // Readers that have gone since the transaction began may still hold some of it.
        assert!(needed <= after && after <= before, "{needed} pages needed, {after} of {before} left");
        assert!(
            after == needed || !self.held.is_empty() || !self.freed.is_empty(),
            "{after} left of {before}, not {needed}"
        );
    }

    fn commit(&mut self) {
        self.root = Some(self.file.commit(&mut self.allocator));
        self.durable = Rc::new(self.live.clone());
        self.check_counts();
        self.begin(TransactionId(self.transaction.0 + 1));
    }

    fn abandon(&mut self, written: u64) {
        self.write_some(written);
        self.allocator.abandoned();
        if self.file_pages > 0 {
            assert_eq!(self.allocator.file_pages(), self.file_pages);
        }
        self.live = self.durable.to_vec();
        self.check_counts();
        self.begin(self.transaction);
    }

    fn crash(&mut self, written: u64) {
        let Some(root) = self.root.clone() else { return };
        self.write_some(written);
        self.readers.clear();
        let root = MapRoot::decode(&root.encode()).expect("encoded a moment ago");
        self.allocator = Allocator::open(root).expect("a durable root");
        self.live = self.durable.to_vec();
        self.check_counts();
        self.begin(self.transaction);
    }

    fn write_some(&mut self, written: u64) {
        let mut prepared = self.allocator.prepare().expect("prepare");
        let mut bit = 0;
        prepared.writes.retain(|_| {
            bit += 1;
            written >> (bit % 64) & 1 == 1
        });
        self.file.write(&prepared);
    }

    fn check_counts(&self) {
        let live: u64 = self.live.iter().map(|(extent, _)| u64::from(extent.pages)).sum();
        let heads = self.allocator.file_pages().div_ceil(REGION_PAGES) * REGION_HEAD_PAGES;
        assert_eq!(self.allocator.used_pages(), live + heads);
    }

    fn step(&mut self, action: Action) {
        match action {
            Action::Allocate { stream, pages } if !self.shrunk => self.allocate(stream, pages),
            Action::Allocate { .. } => {}
            Action::Free { pick, part } => self.free(pick, part),
            Action::DoubleFree { pick } => self.double_free(pick),
            Action::Pin => {
                let pin = self.allocator.readers().pin(TransactionId(self.transaction.0 - 1));
                self.readers.push((pin, Rc::clone(&self.durable)));
                self.held.push(Rc::clone(&self.durable));
            }
            Action::Unpin { pick } if !self.readers.is_empty() => {
                self.readers.swap_remove(pick % self.readers.len());
            }
            Action::Unpin { .. } => {}
            Action::Shrink => self.shrink(),
            Action::Commit => self.commit(),
            Action::Abandon { written } => self.abandon(written),
            Action::Crash { written } => self.crash(written),
        }
        self.check_counts();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn never_hands_out_what_somebody_needs(actions in prop::collection::vec(action(), 1..150)) {
        let mut model = Model::new();
        for action in actions {
            model.step(action);
        }
        // When all readers and all data are gone, every page is free again.
        model.readers.clear();
        model.commit();
        while !model.live.is_empty() {
            model.free(0, 1);
        }
        model.commit();
        let heads = model.allocator.file_pages().div_ceil(REGION_PAGES) * REGION_HEAD_PAGES;
        prop_assert_eq!(model.allocator.used_pages(), heads);
        let before = model.allocator.file_pages();
        if before >= REGION_PAGES {
            model.allocate(Stream::Append, EXTENT_PAGES_MAX);
            prop_assert_eq!(model.allocator.file_pages(), before);
        }
    }
}
