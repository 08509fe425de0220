//! Round trips of writer and reader, and files that were tampered with.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::super::error::SnapshotError;
use super::meta::Meta;
use super::page::*;
use super::tree::LEAF_BYTES;
use super::{Item, Plan, ReadAt, Reader, Writer};

type Entries = BTreeMap<Vec<u8>, Bytes>;
type Buckets = BTreeMap<Vec<u8>, Entries>;

fn plan(buckets: &Buckets) -> super::Layout {
    let mut plan = Plan::new();
    for (name, entries) in buckets {
        plan.begin_bucket(name).unwrap();
        entries.iter().for_each(|(key, value)| plan.push(key, value.len()).unwrap());
    }
    plan.finish()
}

/// Writes the file, checking size and digest on the way.
fn write(buckets: &Buckets) -> Bytes {
    let layout = plan(buckets);
    let size = layout.file_bytes();
    let (mut writer, mut chunks) = Writer::start(layout);
    for (name, entries) in buckets {
        chunks.extend(writer.begin_bucket(name).unwrap());
        entries.iter().for_each(|(key, value)| chunks.extend(writer.push(key, value.clone()).unwrap()));
    }
    let (last, digest) = writer.finish().unwrap();
    chunks.extend(last);
    let file = chunks.concat();
    assert_eq!(file.len() as u64, size);
    assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(&file)));
    Bytes::from(file)
}

fn read(file: Bytes) -> Result<Buckets, SnapshotError> {
    let mut buckets = Buckets::new();
    let mut current = None;
    for item in Reader::open(file)?.items() {
        match item? {
            Item::Bucket(name) => current = Some(buckets.entry(name.to_vec()).or_default()),
            Item::Entry { key, value } => {
                current.as_mut().unwrap().insert(key.to_vec(), value);
            }
        }
    }
    Ok(buckets)
}

/// `count` revision-like keys with values of these lengths in turn.
fn numbered(count: u64, lengths: &[usize]) -> Entries {
    let value = |i: u64| Bytes::from(vec![i as u8; lengths[i as usize % lengths.len()]]);
    (0..count).map(|i| (format!("{i:017}").into_bytes(), value(i))).collect()
}

fn sample() -> Buckets {
    Buckets::from([
        (b"alarm".to_vec(), BTreeMap::new()),
        (b"key".to_vec(), numbered(3000, &[0, 300, 5000, 17])),
        (b"meta".to_vec(), numbered(3, &[8])),
    ])
}

/// One page with this header and body.
fn page(id: u64, flags: u16, count: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = PageHeader { id, flags, count, overflow: 0 }.encode().to_vec();
    bytes.extend_from_slice(body);
    bytes.resize(PAGE_BYTES, 0);
    bytes
}

fn leaf_body(flags: u32, key: &[u8], value: &[u8]) -> Vec<u8> {
    let (key_length, value_length) = (key.len() as u32, value.len() as u32);
    let element = LeafElement { flags, position: ELEMENT_BYTES as u32, key_length, value_length };
    [&element.encode(), key, value].concat()
}

/// A file of these pages from number 2 on, the first of them the root.
fn handmade(pages: &[Vec<u8>]) -> Bytes {
    let page_count = 2 + pages.len() as u64;
    let meta = Meta { page_size: 4096, root_page: 2, freelist_page: u64::MAX, page_count, transaction: 2 };
    Bytes::from([meta.encode_page(0), vec![0; PAGE_BYTES], pages.concat()].concat())
}

#[test]
fn several_branch_levels_round_trip() {
    // Keys of 2000 bytes leave two children to a branch: 300 leaves make nine levels.
    let long = |i: u32| [format!("{i:08}").into_bytes(), vec![b'k'; 2000]].concat();
    let deep = (0..300).map(|i| (long(i), Bytes::from(vec![1; 40_000]))).collect();
    let buckets = Buckets::from([(b"deep".to_vec(), deep), (b"key".to_vec(), numbered(30_000, &[400, 1000, 20_000]))]);
    assert!(plan(&buckets).buckets.iter().all(|bucket| bucket.tree.branches.len() >= 2));
    assert_eq!(read(write(&buckets)).unwrap(), buckets);
}

#[test]
fn no_bucket_and_empty_buckets_round_trip() {
    for buckets in [Buckets::new(), Buckets::from([(b"a".to_vec(), BTreeMap::new()), (b"b".to_vec(), BTreeMap::new())])]
    {
        assert_eq!(read(write(&buckets)).unwrap(), buckets);
    }
}

#[test]
fn values_at_the_edges_of_page_and_leaf_round_trip() {
    let lengths: Vec<usize> =
        [1, 2, 7, 8, 9].iter().flat_map(|pages| (pages * 4096 - 52..pages * 4096 - 46).collect::<Vec<_>>()).collect();
    let buckets = Buckets::from([(b"key".to_vec(), numbered(lengths.len() as u64, &lengths))]);
    assert_eq!(read(write(&buckets)).unwrap(), buckets);
}

#[test]
fn a_large_value_is_not_copied() {
    let value = Bytes::from(vec![7; 1 << 20]);
    let buckets = Buckets::from([(b"key".to_vec(), BTreeMap::from([(b"k".to_vec(), value.clone())]))]);
    let (mut writer, _) = Writer::start(plan(&buckets));
    writer.begin_bucket(b"key").unwrap();
    let chunks = writer.push(b"k", value.clone()).unwrap();
    assert!(chunks.iter().any(|chunk| chunk.as_ptr() == value.as_ptr()));
}

#[test]
fn a_second_pass_that_differs_is_an_error() {
    let planned = Buckets::from([(b"key".to_vec(), numbered(100, &[300]))]);
    let run = |buckets: &Buckets| -> Result<(), SnapshotError> {
        let (mut writer, _) = Writer::start(plan(&planned));
        for (name, entries) in buckets {
            writer.begin_bucket(name)?;
            entries.iter().try_for_each(|(key, value)| writer.push(key, value.clone()).map(drop))?;
        }
        writer.finish().map(drop)
    };
    run(&planned).unwrap();
    let change = |change: &dyn Fn(&mut Entries)| {
        let mut changed = planned.clone();
        change(changed.get_mut(b"key".as_slice()).unwrap());
        assert!(matches!(run(&changed), Err(SnapshotError::PlanMismatch { .. })));
    };
    change(&|entries| drop(entries.pop_first()));
    change(&|entries| drop(entries.pop_last()));
    change(&|entries| drop(entries.insert(b"9".to_vec(), Bytes::new())));
    change(&|entries| drop(entries.insert(format!("{:017}", 50).into_bytes(), Bytes::from_static(b"shorter"))));
    change(&|entries| drop(entries.insert(format!("{:017}", 50).into_bytes(), Bytes::from(vec![0; 90_000]))));
    change(&|entries| {
        entries.remove(format!("{:017}", 50).as_bytes());
        entries.insert(format!("{:017}x", 49).into_bytes(), Bytes::from(vec![0; 299]));
    });
    let other_bucket = Buckets::from([(b"meta".to_vec(), planned[b"key".as_slice()].clone())]);
    assert!(matches!(run(&other_bucket), Err(SnapshotError::PlanMismatch { .. })));
    assert!(matches!(run(&Buckets::new()), Err(SnapshotError::PlanMismatch { .. })));
}

#[test]
fn inline_buckets_are_read() {
    let inline =
        [vec![0; BUCKET_VALUE_BYTES], page(0, FLAG_LEAF, 1, &leaf_body(0, b"k", b"v"))[..50].to_vec()].concat();
    let file = handmade(&[page(2, FLAG_LEAF, 1, &leaf_body(ELEMENT_IS_BUCKET, b"meta", &inline))]);
    let expected = BTreeMap::from([(b"k".to_vec(), Bytes::from_static(b"v"))]);
    assert_eq!(read(file).unwrap(), Buckets::from([(b"meta".to_vec(), expected)]));
}

#[test]
fn the_newer_meta_counts_and_either_one_suffices() {
    let file = write(&sample()).to_vec();
    for meta in [0, PAGE_BYTES] {
        let mut damaged = file.clone();
        damaged[meta + 20] ^= 0xff;
        assert_eq!(read(damaged.into()).unwrap(), sample());
    }
    let mut damaged = file.clone();
    damaged[20] ^= 1;
    damaged[PAGE_BYTES + 20] ^= 1;
    assert!(matches!(read(damaged.into()), Err(SnapshotError::NotBbolt { .. })));
    let longer = [file.as_slice(), &[9; 32]].concat();
    assert_eq!(read(longer.into()).unwrap(), sample());
    assert!(matches!(read(file[..file.len() - 1].to_vec().into()), Err(SnapshotError::NotBbolt { .. })));
}

#[test]
fn circles_and_shared_pages_are_refused() {
    let branch = |child| BranchElement { position: 16, key_length: 1, child }.encode();
    let bucket_at = |page: u64| [page.to_le_bytes(), [0; 8]].concat();
    let refused = |pages: &[Vec<u8>]| {
        assert!(matches!(read(handmade(pages)), Err(SnapshotError::Corrupt { .. })));
    };
    refused(&[page(2, FLAG_BRANCH, 1, &branch(2))]);
    refused(&[page(2, FLAG_BRANCH, 1, &branch(3)), page(3, FLAG_BRANCH, 1, &branch(2))]);
    refused(&[page(2, FLAG_BRANCH, 1, &branch(0))]);
    refused(&[page(2, FLAG_BRANCH, 1, &branch(99))]);
    refused(&[page(2, FLAG_BRANCH, 0, &[])]);
    refused(&[page(2, FLAG_LEAF, 1, &leaf_body(0, b"key", b"outside of buckets"))]);
    refused(&[page(2, FLAG_LEAF, 1, &leaf_body(ELEMENT_IS_BUCKET, b"key", b"short"))]);
    refused(&[page(2, FLAG_LEAF, 1, &leaf_body(ELEMENT_IS_BUCKET, b"key", &bucket_at(2)))]);
    let nested = leaf_body(ELEMENT_IS_BUCKET, b"k", &bucket_at(2));
    let outer = leaf_body(ELEMENT_IS_BUCKET, b"key", &bucket_at(3));
    refused(&[page(2, FLAG_LEAF, 1, &outer), page(3, FLAG_LEAF, 1, &nested)]);
}

#[test]
fn a_chain_of_branches_ends_at_the_depth_limit() {
    let branch = |child: u64| BranchElement { position: 16, key_length: 1, child }.encode();
    let chain = |levels: u64| -> Vec<Vec<u8>> {
        let mut pages: Vec<_> = (2..2 + levels).map(|id| page(id, FLAG_BRANCH, 1, &branch(id + 1))).collect();
        pages.push(page(2 + levels, FLAG_LEAF, 0, &[]));
        pages
    };
    let depth = super::DEPTH_MAX as u64;
    assert_eq!(read(handmade(&chain(depth - 1))).unwrap(), Buckets::new());
    assert!(matches!(read(handmade(&chain(depth))), Err(SnapshotError::Corrupt { reason: "tree too deep", .. })));
}

/// Zeros behind a few pages, too many to be read at once.
struct Sparse {
    pages: Bytes,
    length: u64,
}

impl ReadAt for Sparse {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, length: usize) -> std::io::Result<Bytes> {
        assert!(length <= PAGE_BYTES, "a reader must not read {length} bytes of an unchecked node");
        self.pages.read_at(offset, length).or_else(|_| Ok(Bytes::from(vec![0; length])))
    }
}

#[test]
fn a_node_beyond_the_limit_is_refused_unread() {
    let pages = super::NODE_BYTES_MAX / PAGE_BYTES as u64 + 1;
    let meta = Meta { page_size: 4096, root_page: 2, freelist_page: u64::MAX, page_count: 2 + pages, transaction: 2 };
    let root = PageHeader { id: 2, flags: FLAG_LEAF, count: 0, overflow: pages as u32 - 1 };
    let start = [meta.encode_page(0), vec![0; PAGE_BYTES], root.encode().to_vec()].concat();
    let file = Sparse { pages: Bytes::from(start), length: (2 + pages) * PAGE_BYTES as u64 };
    let first = Reader::open(file).unwrap().items().next().unwrap();
    assert!(matches!(first, Err(SnapshotError::Corrupt { reason: "node too large", .. })));
}

/// A writer keeps one leaf and one branch per level back, and nothing piles up for the end of a bucket.
#[test]
fn chunks_come_as_soon_as_a_node_is_complete() {
    let buckets = Buckets::from([(b"key".to_vec(), numbered(40_000, &[400]))]);
    let (mut writer, _) = Writer::start(plan(&buckets));
    writer.begin_bucket(b"key").unwrap();
    for (key, value) in &buckets[b"key".as_slice()] {
        let chunks = writer.push(key, value.clone()).unwrap();
        assert!(chunks.iter().map(Bytes::len).sum::<usize>() <= LEAF_BYTES + 3 * PAGE_BYTES);
    }
    let (last, _) = writer.finish().unwrap();
    assert!(last.iter().map(Bytes::len).sum::<usize>() <= LEAF_BYTES + 3 * PAGE_BYTES);
}

fn any_buckets() -> impl Strategy<Value = Buckets> {
    let length = prop_oneof![8 => 0usize..300, 4 => 3000usize..9000, 1 => 30_000usize..200_000];
    let key = proptest::collection::vec(any::<u8>(), 1..40);
    let entries = proptest::collection::btree_map(key, length.prop_map(|length| Bytes::from(vec![5; length])), 0..120);
    let name = proptest::collection::vec(any::<u8>(), 1..12);
    proptest::collection::btree_map(name, entries, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_is_read(buckets in any_buckets()) {
        prop_assert_eq!(read(write(&buckets)).unwrap(), buckets);
    }

    /// Any damage is an error or goes unnoticed (values carry no checksum here), but never a panic or an endless walk.
    #[test]
    fn damage_never_panics(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        cut in any::<prop::sample::Index>(),
    ) {
        let small = Buckets::from([
            (b"key".to_vec(), numbered(700, &[1, 100])),
            (b"meta".to_vec(), numbered(3, &[8])),
        ]);
        let mut file = write(&small).to_vec();
        for (at, byte) in flips {
            // Half of the damage goes to headers and element tables, where it hurts.
            let at = at.index(file.len());
            let at = if byte % 2 == 0 { at / PAGE_BYTES * PAGE_BYTES + at % 64 } else { at };
            if at >= 2 * PAGE_BYTES {
                file[at] = byte;
            }
        }
        let _ = read(file.clone().into());
        file.truncate(cut.index(file.len()));
        let _ = read(file.into());
    }
}
