//! A page file: a tree of leaves under one branch, and its map of free pages, with bytes overwritten and the checksums above them made
//! right again, up to the roots.
//!
//! Whatever it says, walks, searches and surveys end, with an answer or an error that names a page. Where all is found well, a scan
//! finds as many entries as the root says, in order, each of them is fetched as the scan gave it, and a further commit goes through.

use std::sync::{Arc, LazyLock};

use arbitrary::Unstructured;
use basalt_storage::disk::{FileId, Io, IoOutput, SimulatedDisk};
use basalt_storage::job::{BUDGET_UNLIMITED, run as run_job};
use basalt_storage::pages::allocator::{MapRoot, PAGE_SIZE, TransactionId};
use basalt_storage::pages::{
    Committed, FileTag, NewEntry, PAGE_HEADER_BYTES, PageCache, PageWriter, Pages, SLOT_BYTES, ScanChunk,
    TREE_ROOT_BYTES, TreeChanges, TreeRoot, entry_crc32c,
};
use basalt_storage::revision::Revision;
use bytes::Bytes;

use crate::disks::{perform, write_file};
use crate::forge::{below, byte, crc32, overwrite, put};

const NAME: &str = "pages";
const FIRST: Revision = Revision::new(i64::MIN, i64::MIN);
const LAST: Revision = Revision::new(i64::MAX, i64::MAX);
/// Bytes of the file that hold anything: the first pages.
const USED_BYTES: usize = 48 * PAGE_SIZE;
/// More is what no sound tree of this file holds.
const SLOTS_MAX: usize = 4096;

// docs/disk-format-pages.md, docs/disk-format-pages-map.md
const LENGTH_AT: usize = 24;
const COUNT_AT: usize = 28;
const BRANCH_ENTRY_BYTES: usize = 80;
const MAP_HEADER_BYTES: usize = 64;

/// A file of two commits, some of its entries dead, and the roots of the second.
struct Sound {
    bytes: Vec<u8>,
    tree_root: [u8; TREE_ROOT_BYTES],
    map_root: Vec<u8>,
    branch: usize,
    /// Where the children's entries stand in the branch, and the children in the file.
    children: Vec<(usize, usize)>,
}

static SOUND: LazyLock<Sound> = LazyLock::new(|| {
    let disk = SimulatedDisk::new(1);
    write_file(&disk, NAME, Bytes::new());
    let pages = open(&disk);
    let mut writer = PageWriter::create(pages);
    let changes = [
        TreeChanges { appended: (1..9).map(entry).collect(), ..TreeChanges::default() },
        TreeChanges {
            appended: (9..14).map(entry).collect(),
            dead: vec![revision(2), revision(5)],
            ..TreeChanges::default()
        },
    ];
    let mut roots = None;
    for (transaction, changes) in (1..).zip(changes) {
        let mut commit = writer.commit(TransactionId(transaction), changes);
        let Committed { writer: next, root, map_root } =
            run_job(&mut commit, &disk, BUDGET_UNLIMITED).expect("a commit");
        writer = next;
        writer.committed();
        roots = Some((root.root.encode(), map_root.encode().to_vec(), root.root.page.expect("a branch").offset()));
    }
    let (tree_root, map_root, branch) = roots.expect("two commits");
    let bytes = disk.contents(NAME).expect("written");
    let branch = branch as usize;
    let children = children(&bytes[branch..]);
    Sound { bytes, tree_root, map_root, branch, children }
});

fn revision(main: i64) -> Revision {
    Revision::new(main, 0)
}

/// Long ones, so that few make several leaves.
fn entry(main: i64) -> NewEntry {
    let length = if main % 3 == 0 { 20_000 } else { 300 };
    let previous = (main > 4).then(|| revision(main - 3));
    NewEntry {
        revision: revision(main),
        tombstone: main % 7 == 0,
        previous,
        key_value: vec![main as u8; length].into(),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_le_bytes) as usize
}

fn children(branch: &[u8]) -> Vec<(usize, usize)> {
    let (mut at, mut children) = (PAGE_HEADER_BYTES, Vec::new());
    for _ in 0..u32_at(branch, COUNT_AT) {
        children.push((at, u32_at(branch, at + 16) * PAGE_SIZE));
        at += BRANCH_ENTRY_BYTES + usize::from(u16::from_le_bytes([branch[at + 72], branch[at + 73]]));
    }
    children
}

fn open(disk: &SimulatedDisk) -> Pages {
    let IoOutput::Opened { file, .. } = perform(disk, Io::Open { name: NAME.to_owned(), create: false }) else {
        panic!("an open answers Opened");
    };
    pages_of(file)
}

fn pages_of(file: FileId) -> Pages {
    Pages::new(file, FileTag(1), Arc::new(PageCache::new(1 << 16)))
}

pub(super) fn run(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    roots(data);
    let sound = &*SOUND;
    let mut feed = Unstructured::new(data);
    let mut file = sound.bytes[..USED_BYTES.min(sound.bytes.len())].to_vec();
    let (mut tree_root, mut map_root) = (sound.tree_root, sound.map_root.clone());
    for _ in 0..=below(&mut feed, 6) {
        change(&mut feed, sound, &mut file, &mut tree_root, &mut map_root);
    }
    if mode & 1 == 1 {
        mend_tree(sound, &mut file, &mut tree_root, mode & 2 == 2);
    }
    if mode & 4 == 4 {
        mend_map(&mut file, &mut map_root, mode & 8 == 8);
    }
    let (Ok(tree_root), Ok(map_root)) = (TreeRoot::decode(&tree_root), MapRoot::decode(&map_root)) else { return };
    let disk = SimulatedDisk::new(1);
    write_file(&disk, NAME, file.into());
    let pages = open(&disk);
    let length = sound.bytes.len() as u64;
    perform(&disk, Io::Truncate { file: pages.file(), length });
    read(&disk, pages, tree_root, map_root);
}

/// The bytes as roots.
fn roots(data: &[u8]) {
    if let Some(Ok(root)) = data.get(..TREE_ROOT_BYTES).map(TreeRoot::decode) {
        assert_eq!(root.encode()[..], data[..TREE_ROOT_BYTES]);
    }
    if let Some(Ok(root)) = data.get(..32).map(MapRoot::decode) {
        assert_eq!(root.encode()[..], data[..32]);
    }
}

fn change(feed: &mut Unstructured<'_>, sound: &Sound, file: &mut [u8], tree_root: &mut [u8], map_root: &mut [u8]) {
    match byte(feed) {
        0..=79 => {
            let (_, leaf) = sound.children[below(feed, sound.children.len())];
            let head = PAGE_HEADER_BYTES + u32_at(&sound.bytes, leaf + COUNT_AT) * SLOT_BYTES;
            overwrite(feed, &mut file[leaf..leaf + head], 1);
        }
        80..=159 => {
            let length = u32_at(&sound.bytes, sound.branch + LENGTH_AT);
            overwrite(feed, &mut file[sound.branch..sound.branch + length], 1);
        }
        160..=179 => {
            let (_, leaf) = sound.children[below(feed, sound.children.len())];
            let length = u32_at(&sound.bytes, leaf + LENGTH_AT);
            overwrite(feed, &mut file[leaf..leaf + length], 1);
        }
        180..=229 => {
            // Slots A and B of bitmap, index page and root page; little of them says anything.
            let page = (1 + below(feed, 6)) * PAGE_SIZE;
            overwrite(feed, &mut file[page..page + 96], 1);
        }
        230..=242 => overwrite(feed, tree_root, 1),
        _ => overwrite(feed, map_root, 1),
    }
}

/// The checksums of heads in the entries that name them; of entries too, where asked.
fn mend_tree(sound: &Sound, file: &mut [u8], tree_root: &mut [u8], with_entries: bool) {
    for (entry, leaf) in &sound.children {
        let end = (leaf + 16 * PAGE_SIZE).min(file.len());
        let page = &mut file[*leaf..end];
        let slots = u32_at(page, COUNT_AT).min(512);
        if with_entries {
            (0..slots).for_each(|slot| mend_slot(page, PAGE_HEADER_BYTES + slot * SLOT_BYTES));
        }
        let head = (PAGE_HEADER_BYTES + slots * SLOT_BYTES).min(page.len());
        let crc = crc32(&[&page[4..head]]).to_le_bytes();
        put(page, 0, &crc);
        put(file, sound.branch + entry + 28, &crc);
    }
    let branch = &mut file[sound.branch..];
    let length = u32_at(branch, LENGTH_AT).clamp(4, 4 * PAGE_SIZE).min(branch.len());
    let crc = crc32(&[&branch[4..length]]).to_le_bytes();
    put(branch, 0, &crc);
    put(tree_root, 4, &crc);
}

fn mend_slot(page: &mut [u8], slot: usize) {
    let Some(fields) = page.get(slot..slot + SLOT_BYTES) else { return };
    let i64_at = |at: usize| i64::from_le_bytes(fields[at..at + 8].try_into().expect("eight bytes"));
    let revision = Revision::new(i64_at(0), i64_at(8));
    let (offset, length) = (u32_at(fields, 32), u32_at(fields, 36));
    let is_tombstone = u32_at(fields, 44) & 1 == 1;
    if let Some(value) = page.get(offset..offset.saturating_add(length)) {
        let crc = entry_crc32c(revision, is_tombstone, value);
        put(page, slot + 40, &crc.to_le_bytes());
    }
}

/// The checksums of the map from the bitmap up; the numbers of free pages too, where asked.
fn mend_map(file: &mut [u8], map_root: &mut [u8], with_counts: bool) {
    let slot = |place: &[u8], at: usize| usize::from(place[at] & 1);
    let root = (5 + slot(map_root, 1)) * PAGE_SIZE;
    let index = (3 + slot(file, root + MAP_HEADER_BYTES + 10)) * PAGE_SIZE;
    let bitmap = (1 + slot(file, index + MAP_HEADER_BYTES + 10)) * PAGE_SIZE;
    let page = &file[bitmap..bitmap + PAGE_SIZE];
    let free: u32 = page.iter().map(|byte| byte.count_ones()).sum();
    let mut crc = crc32(&[page]).to_le_bytes();
    for above in [index, root] {
        let page = &mut file[above..above + PAGE_SIZE];
        put(page, MAP_HEADER_BYTES, &crc);
        if with_counts {
            put(page, MAP_HEADER_BYTES + 4, &free.to_le_bytes());
            put(page, 40, &u64::from(free).to_le_bytes());
        }
        crc = crc32(&[&page[..8], &[0; 4], &page[12..]]).to_le_bytes();
        put(page, 8, &crc);
    }
    put(map_root, 4, &crc);
    if with_counts {
        put(map_root, 16, &u64::from(free).to_le_bytes());
    }
}

fn read(disk: &SimulatedDisk, pages: Pages, tree_root: TreeRoot, map_root: MapRoot) {
    let Ok(writer) = PageWriter::open(pages.clone(), tree_root.clone(), map_root.clone()) else { return };
    let root = writer.pinned_root();
    drop(run_job(&mut pages.survey(root.clone(), map_root.clone()), disk, BUDGET_UNLIMITED));
    let verified = run_job(&mut pages.verify(root.clone(), map_root), disk, BUDGET_UNLIMITED);
    let mut scan = pages.scan(root.clone(), FIRST, LAST, SLOTS_MAX, true);
    let scanned = run_job(&mut scan, disk, BUDGET_UNLIMITED);
    let wanted = (0..16).map(revision).collect();
    let fetched = run_job(&mut pages.fetch(root.clone(), wanted), disk, BUDGET_UNLIMITED);
    if verified.is_ok() {
        let ScanChunk { slots, next } = scanned.as_ref().expect("a sound tree is scanned");
        assert_eq!((slots.len() as u64, next), (tree_root.entries, &None), "as many as the root says");
        assert!(slots.is_sorted_by(|one, other| one.revision < other.revision));
        fetched.as_ref().expect("a sound tree is searched");
        // Past the cache, by a reader of its own.
        let fresh = pages_of(pages.file());
        let all = slots.iter().map(|slot| slot.revision).collect();
        let found = run_job(&mut fresh.fetch(root, all), disk, BUDGET_UNLIMITED).expect("a sound tree is searched");
        assert!(slots.iter().zip(found).all(|(slot, found)| found == slot.key_value));
    }
    let next = tree_root.last_revision.main.checked_add(1).filter(|main| *main > 0).map(entry);
    let dead = vec![revision(1), revision(9)];
    let changes = TreeChanges { appended: next.into_iter().collect(), dead, ..TreeChanges::default() };
    let transaction = TransactionId(tree_root.transaction.0.saturating_add(1));
    match run_job(&mut writer.commit(transaction, changes), disk, BUDGET_UNLIMITED) {
        Ok(committed) => drop(committed.map_root.encode()),
        Err(error) => assert!(verified.is_err(), "what is well takes a commit: {error:?}"),
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0, 0, 255], vec![15, 0, 255]];
    // A change of each kind, at several places, with all checksums right.
    for kind in [0, 100, 170, 200, 235, 250] {
        for place in [8u8, 24, 40, 72, 90, 120] {
            seeds.push(vec![3, 0, kind, place % 5, place, 0, 1, 7, 7, 7]);
            seeds.push(vec![15, 1, kind, place, 0, 3, 0, 255, 0, 1, kind, place % 3, 76, 0, 0, 1]);
        }
    }
    let sound = &*SOUND;
    seeds.push([&[0][..], &sound.tree_root].concat());
    seeds.push([&[0][..], &sound.map_root].concat());
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mending_what_is_sound_changes_nothing_and_it_is_found_sound() {
        let sound = &*SOUND;
        assert!(sound.children.len() > 3, "several leaves: {:?}", sound.children);
        let used = &sound.bytes[..USED_BYTES];
        assert!(sound.bytes[USED_BYTES..].iter().all(|byte| *byte == 0), "nothing lies behind");
        let (mut file, mut tree_root, mut map_root) = (used.to_vec(), sound.tree_root, sound.map_root.clone());
        mend_tree(sound, &mut file, &mut tree_root, true);
        mend_map(&mut file, &mut map_root, true);
        assert!(file == used, "the file differs");
        assert_eq!((tree_root, &map_root), (sound.tree_root, &sound.map_root));
        let disk = SimulatedDisk::new(1);
        write_file(&disk, NAME, sound.bytes.clone().into());
        let (tree_root, map_root) = (TreeRoot::decode(&tree_root), MapRoot::decode(&map_root));
        let (pages, map_root) = (open(&disk), map_root.expect("a root"));
        let writer = PageWriter::open(pages.clone(), tree_root.expect("a root"), map_root.clone()).expect("opens");
        run_job(&mut pages.verify(writer.pinned_root(), map_root), &disk, BUDGET_UNLIMITED).expect("sound");
    }
}
