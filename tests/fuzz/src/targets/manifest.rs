//! The manifest. The first byte says how the four copies are made; bits of it, which get right lengths and checksums.
//!
//! What is found is one of the copies, the newest; written again it is read as it was; and a directory with nothing but it is refused
//! or opened, and not changed.

use std::sync::Arc;

use basalt_storage::checkpoint::Salt;
use basalt_storage::checkpoint::manifest::{
    MANIFEST_NAME, Manifest, ManifestFound, SLOT_BYTES, ShardManifest, VERSION_FIRST, read_job, write_job,
};
use basalt_storage::checkpoint::recovery;
use basalt_storage::disk::SimulatedDisk;
use basalt_storage::job::{BUDGET_UNLIMITED, run as run_job};
use basalt_storage::pages::PageCache;
use basalt_storage::pages::allocator::TransactionId;
use basalt_storage::runs::RunMeta;
use bytes::Bytes;

use crate::disks::write_file;
use crate::forge::{crc32, joined, pieces, put};

// docs/disk-format-manifest.md
const HEADER_BYTES: usize = 32;
const BODY_LENGTH_AT: usize = 24;
const CRC_AT: usize = 28;

pub(super) fn run(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    let mut file = vec![0; 4 * SLOT_BYTES];
    let pieces = pieces(data);
    for place in 0..4 {
        let Some(piece) = pieces.get(place) else { break };
        let mut copy = piece[..piece.len().min(SLOT_BYTES)].to_vec();
        if mode >> place & 1 == 1 && copy.len() >= HEADER_BYTES {
            mend(&mut copy);
        }
        put(&mut file, place * SLOT_BYTES, &copy);
    }
    if mode & 16 == 16 {
        file.truncate(pieces.len() * SLOT_BYTES);
    }
    let disk = SimulatedDisk::new(1);
    write_file(&disk, MANIFEST_NAME, Bytes::from(file));
    if let Ok(ManifestFound { manifest: Some(manifest), .. }) = run_job(&mut read_job(), &disk, BUDGET_UNLIMITED) {
        found(&manifest);
    }
    opened(&disk);
}

/// Right length and checksum.
fn mend(copy: &mut [u8]) {
    let body = (copy.len() - HEADER_BYTES) as u32;
    put(copy, BODY_LENGTH_AT, &body.to_le_bytes());
    let crc = crc32(&[&copy[..CRC_AT], &copy[HEADER_BYTES..]]);
    put(copy, CRC_AT, &crc.to_le_bytes());
}

fn found(manifest: &Manifest) {
    assert!(manifest.generation > 0 && manifest.compact_revision <= manifest.revision);
    let disk = SimulatedDisk::new(1);
    let mut job = write_job(manifest).expect("what was read can be written");
    run_job(&mut job, &disk, BUDGET_UNLIMITED).expect("the disk does not fail");
    let again = run_job(&mut read_job(), &disk, BUDGET_UNLIMITED).expect("just written");
    assert_eq!(again.manifest.as_ref(), Some(manifest));
}

fn opened(disk: &SimulatedDisk) {
    let before = (disk.files(), disk.contents(MANIFEST_NAME));
    let cache = Arc::new(PageCache::new(1 << 16));
    drop(recovery::open(disk, &cache, Salt::new(1)).map(|opened| opened.is_some()));
    assert_eq!((disk.files(), disk.contents(MANIFEST_NAME)), before, "opening changes nothing");
}

fn example(generation: u64) -> Manifest {
    let run = |number| RunMeta { number, length: 164, records: 1, crc: 5 };
    let shard = |shard: u32, prefix: &[u8]| ShardManifest {
        shard,
        name: format!("s{shard}"),
        prefixes: vec![prefix.to_vec()],
        sum: 7,
        page_file: 1,
        transaction: TransactionId(2),
        tree_root: vec![1; 96],
        map_root: vec![1; 32],
        index_runs: vec![run(4)],
        live_bytes: 9,
        entries: 1,
    };
    Manifest {
        version: VERSION_FIRST,
        generation,
        cluster_id: 1,
        member_id: 2,
        incarnation: 3,
        applied_index: 5,
        applied_term: 1,
        conf_state: vec![1, 2, 3],
        revision: 8,
        compact_revision: 4,
        time_unix_ns: 6,
        system_sum: 1,
        system_runs: vec![run(3)],
        shards: vec![shard(0, b""), shard(1, b"/a/")],
        log_restarts: generation.is_multiple_of(3),
    }
}

/// A copy as it is written.
fn copy(manifest: &Manifest) -> Vec<u8> {
    let disk = SimulatedDisk::new(1);
    let mut job = write_job(manifest).expect("a sound one");
    run_job(&mut job, &disk, BUDGET_UNLIMITED).expect("the disk does not fail");
    let file = disk.contents(MANIFEST_NAME).expect("written");
    let copy = &file[(manifest.generation % 2) as usize * SLOT_BYTES..];
    let body = u32::from_le_bytes([copy[24], copy[25], copy[26], copy[27]]) as usize;
    copy[..HEADER_BYTES + body].to_vec()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let [second, third] = [2, 3].map(|generation| copy(&example(generation)));
    let bare = copy(&Manifest { version: VERSION_FIRST, generation: 1, ..Manifest::default() });
    let with = |mode: u8, copies: &[&[u8]]| [vec![mode], joined(copies)].concat();
    vec![
        with(0, &[&second, &third, &second, &third]),
        with(15, &[&second, &third, &second, &third]),
        with(2, &[&[], &bare, &[], &bare]),
        with(31, &[&[], &bare]),
        with(15, &[&second, &bare, &third]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mended_copies_are_manifests() {
        let mut copy = copy(&example(2));
        let right = copy.clone();
        put(&mut copy, BODY_LENGTH_AT, &[0; 8]);
        mend(&mut copy);
        assert_eq!(copy, right);
    }
}
