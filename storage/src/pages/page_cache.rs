//! Memory for what was read and checked: parsed branches and leaf heads, and single entries.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::revision::Revision;

use super::branch::Branch;
use super::leaf::LeafHead;
use super::page_header::PageRef;

/// Parts with a lock each, so that readers on several threads rarely meet.
const PARTS: usize = 16;
/// What one item costs beside its bytes: table, ring slot and allocation headers.
const ITEM_OVERHEAD_BYTES: usize = 128;
/// Rounds of the clock that an item survives after its last use. A branch stands above thousands of entries.
const ROUNDS_BRANCH: u8 = 3;
const ROUNDS_LEAF: u8 = 2;
const ROUNDS_ENTRY: u8 = 1;

/// Names a page file in a cache that several files share. A file that replaces another takes a new tag: entries are
/// found by tag and revision alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileTag(pub u64);

/// A page of a tree in its decoded form.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Branch(Arc<Branch>),
    Leaf(Arc<LeafHead>),
}

impl Node {
    fn reference(&self) -> &PageRef {
        match self {
            Node::Branch(branch) => branch.reference(),
            Node::Leaf(leaf) => leaf.reference(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Node(FileTag, u64),
    Entry(FileTag, Revision),
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (file, a, b) = match self {
            Key::Node(file, page) => (file.0, *page, u64::MAX),
            Key::Entry(file, revision) => (file.0, revision.main as u64, revision.sub as u64),
        };
        state.write_u64(file);
        state.write_u64(a);
        state.write_u64(b);
    }
}

#[derive(Clone, Debug)]
enum Item {
    Node(Node),
    Entry(Bytes),
}

/// Multiply and fold. Keys are page numbers and revisions that this program counts up itself, so nobody can choose
/// colliding ones, and the standard hasher would cost as much as the rest of a hit.
#[derive(Default)]
struct FoldHasher(u64);

impl Hasher for FoldHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

struct Held {
    key: Key,
    item: Item,
    bytes: usize,
    /// Rounds left, and what a use sets them to.
    rounds: u8,
    rounds_full: u8,
}

/// One locked part: a table into a ring that the clock hand walks.
#[derive(Default)]
struct Part {
    places: HashMap<Key, usize, BuildHasherDefault<FoldHasher>>,
    ring: Vec<Held>,
    hand: usize,
    bytes: usize,
}

impl Part {
    fn remove_at(&mut self, place: usize) {
        let held = self.ring.swap_remove(place);
        self.bytes -= held.bytes;
        self.places.remove(&held.key);
        if let Some(moved) = self.ring.get(place) {
            self.places.insert(moved.key, place);
        }
    }

    /// Moves the hand until `bytes` more fit; ends because every round takes a chance from each item.
    fn make_room(&mut self, bytes: usize, bytes_max: usize) {
        while self.bytes + bytes > bytes_max && !self.ring.is_empty() {
            self.hand %= self.ring.len();
            match self.ring[self.hand].rounds.checked_sub(1) {
                Some(rounds) => {
                    self.ring[self.hand].rounds = rounds;
                    self.hand += 1;
                }
                None => self.remove_at(self.hand),
            }
        }
    }
}

/// Hits and misses since the start, and what is held now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCacheStats {
    /// Look-ups answered.
    pub hits: u64,
    /// Look-ups not answered.
    pub misses: u64,
    /// Bytes held, overhead included.
    pub bytes: u64,
}

/// Bounded cache of checked pages and entries, shared by all page files.
///
/// * Every item owns its bytes and is counted at what it keeps in memory; it never keeps a read buffer alive.
/// * The bound holds at every moment; an item larger than a sixteenth of it is not kept.
/// * Eviction is by clock: a hit takes one lock of sixteen and writes one byte.
/// * A page number is reused after its page was freed, so a page counts as found only if birth and CRC are those
///   that its parent names.
pub struct PageCache {
    parts: Vec<Mutex<Part>>,
    part_bytes_max: usize,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl std::fmt::Debug for PageCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageCache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl PageCache {
    /// A cache that keeps at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            part_bytes_max: bytes_max / PARTS,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// What it holds and how it fared.
    pub fn stats(&self) -> PageCacheStats {
        let bytes = self.parts.iter().map(|part| lock(part).bytes as u64).sum();
        PageCacheStats { hits: self.hits.load(Ordering::Relaxed), misses: self.misses.load(Ordering::Relaxed), bytes }
    }

    /// The page that `reference` names.
    pub(super) fn node(&self, file: FileTag, reference: &PageRef) -> Option<Node> {
        match self.get(Key::Node(file, reference.extent.page)) {
            Some(Item::Node(node)) if node.reference() == reference => self.found(Some(node)),
            _ => self.found(None),
        }
    }

    /// The KeyValue of `revision`.
    pub(super) fn entry(&self, file: FileTag, revision: Revision) -> Option<Bytes> {
        match self.get(Key::Entry(file, revision)) {
            Some(Item::Entry(bytes)) => self.found(Some(bytes)),
            _ => self.found(None),
        }
    }

    /// Keeps a page that was checked.
    pub(super) fn keep_node(&self, file: FileTag, node: Node) {
        let (bytes, rounds) = match &node {
            Node::Branch(branch) => (branch.memory_bytes(), ROUNDS_BRANCH),
            Node::Leaf(leaf) => (leaf.memory_bytes(), ROUNDS_LEAF),
        };
        self.put(Key::Node(file, node.reference().extent.page), Item::Node(node), bytes, rounds);
    }

    /// Keeps an entry that was checked. `key_value` must own its allocation, or a whole read stays in memory uncounted.
    pub(super) fn keep_entry(&self, file: FileTag, revision: Revision, key_value: Bytes) {
        let bytes = key_value.len();
        self.put(Key::Entry(file, revision), Item::Entry(key_value), bytes, ROUNDS_ENTRY);
    }

    /// Lets go of entries that nobody will ask for any more. One that is read once more meanwhile is kept again, and goes
    /// when there is no room.
    pub(super) fn forget_entries(&self, file: FileTag, revisions: &[Revision]) {
        for revision in revisions {
            let key = Key::Entry(file, *revision);
            let mut part = lock(self.part(&key));
            if let Some(place) = part.places.get(&key).copied() {
                part.remove_at(place);
            }
        }
    }

    /// Lets go of pages that nobody will ask for any more, but of none that stands in the place of one.
    pub(super) fn forget_nodes(&self, file: FileTag, pages: &[PageRef]) {
        for page in pages {
            let key = Key::Node(file, page.extent.page);
            let mut part = lock(self.part(&key));
            if let Some(place) = part.places.get(&key).copied()
                && matches!(&part.ring[place].item, Item::Node(node) if node.reference() == page)
            {
                part.remove_at(place);
            }
        }
    }

    fn get(&self, key: Key) -> Option<Item> {
        let mut part = lock(self.part(&key));
        let place = *part.places.get(&key)?;
        let held = &mut part.ring[place];
        held.rounds = held.rounds_full;
        Some(held.item.clone())
    }

    fn put(&self, key: Key, item: Item, bytes: usize, rounds: u8) {
        let bytes = bytes + ITEM_OVERHEAD_BYTES;
        let mut part = lock(self.part(&key));
        if let Some(place) = part.places.get(&key).copied() {
            part.remove_at(place);
        }
        if bytes > self.part_bytes_max {
            return;
        }
        part.make_room(bytes, self.part_bytes_max);
        let place = part.ring.len();
        // A newcomer has to be used once before it outlives a round: a scan does not empty the cache.
        part.ring.push(Held { key, item, bytes, rounds: rounds - 1, rounds_full: rounds });
        part.places.insert(key, place);
        part.bytes += bytes;
    }

    fn part(&self, key: &Key) -> &Mutex<Part> {
        let mut hasher = FoldHasher::default();
        key.hash(&mut hasher);
        // The table uses the low bits and the top seven; these are neither.
        &self.parts[(hasher.finish() >> 40) as usize % PARTS]
    }

    fn found<T>(&self, item: Option<T>) -> Option<T> {
        let counter = if item.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        item
    }
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().expect("no code panics while it holds a part of the cache")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileTag = FileTag(1);

    #[test]
    fn it_stays_within_its_bound_and_keeps_what_is_used() {
        let cache = PageCache::new(PARTS * 10_000);
        let hot = Revision::new(1, 0);
        cache.keep_entry(FILE, hot, Bytes::from(vec![1; 500]));
        for main in 2..2000 {
            cache.keep_entry(FILE, Revision::new(main, 0), Bytes::from(vec![2; 500]));
            assert!(cache.entry(FILE, hot).is_some(), "evicted at {main}");
        }
        let held = cache.stats().bytes as usize;
        assert!(held <= PARTS * 10_000 && held > PARTS * 8_000, "{held} bytes");
        assert!(cache.entry(FileTag(2), hot).is_none());
    }

    #[test]
    fn an_item_larger_than_a_part_is_not_kept() {
        let cache = PageCache::new(PARTS * 1000);
        cache.keep_entry(FILE, Revision::new(2, 0), Bytes::from(vec![0; 1000]));
        assert!(cache.entry(FILE, Revision::new(2, 0)).is_none());
        assert_eq!(cache.stats(), PageCacheStats { hits: 0, misses: 1, bytes: 0 });
    }

    #[test]
    fn what_is_forgotten_is_gone_and_nothing_else_is() {
        let cache = PageCache::new(1 << 20);
        let revisions: Vec<_> = (2..102).map(|main| Revision::new(main, 0)).collect();
        for revision in &revisions {
            cache.keep_entry(FILE, *revision, Bytes::from_static(b"abc"));
            cache.keep_entry(FileTag(2), *revision, Bytes::from_static(b"abc"));
        }
        cache.forget_entries(FILE, &revisions[..70]);
        let found = |file| revisions.iter().filter(|revision| cache.entry(file, **revision).is_some()).count();
        assert_eq!((found(FILE), found(FileTag(2))), (30, 100));
        assert_eq!(cache.stats().bytes as usize, 130 * (3 + ITEM_OVERHEAD_BYTES));
    }

    #[test]
    fn keeping_twice_counts_once() {
        let cache = PageCache::new(1 << 20);
        for _ in 0..3 {
            cache.keep_entry(FILE, Revision::new(2, 0), Bytes::from_static(b"abc"));
        }
        assert_eq!(cache.stats().bytes as usize, 3 + ITEM_OVERHEAD_BYTES);
    }
}
