//! Files of sorted records, with right checksums around forged blocks. The first byte says what is made right, and whether two runs
//! are merged.
//!
//! What is read is in order, each key once, and as many records as the run says; written again it is read the same. Damage is an
//! error, and no file stays open.

use arbitrary::Unstructured;
use basalt_storage::disk::{Disk, Io, SimulatedDisk};
use basalt_storage::job::run as run_job;
use basalt_storage::runs::{MergedRuns, Record, Removals, RunMeta, WriteRun, run_name};
use bytes::Bytes;

use crate::disks::{perform, write_file};
use crate::forge::{byte, crc32, joined, number, pieces, put};

// docs/disk-format-runs.md
const HEADER_BYTES: usize = 64;
const FRAME_BYTES: usize = 16;
const KIND_RECORDS: u8 = 1;
const KIND_TRAILER: u8 = 2;
const KIND_PART: u8 = 3;
const SALT: u64 = 77;
const BUDGET: usize = 7;

pub(super) fn run(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    let disk = SimulatedDisk::new(1);
    perform(&disk, Io::CreateDir { name: "again".to_owned() });
    let pieces = pieces(data);
    let (first, second) = pieces.split_at(if mode & 4 == 4 { pieces.len() / 2 } else { pieces.len() });
    let metas = [(1, first), (2, second)].map(|(number, blocks)| {
        let (file, meta) = if mode & 1 == 1 { forged(number, blocks) } else { raw(number, blocks) };
        write_file(&disk, &run_name("runs", number), Bytes::from(file));
        meta
    });
    let metas = if mode & 4 == 4 { &metas[..] } else { &metas[..1] };
    let removals = if mode & 2 == 2 { Removals::Drop } else { Removals::Keep };
    let Ok(records) = read(&disk, metas, removals) else { return };
    assert!(records.is_sorted_by(|one, other| one.key < other.key), "in order, each once");
    assert!(removals == Removals::Keep || records.iter().all(|record| record.value.is_some()));
    assert!(records.len() as u64 <= metas.iter().map(|meta| meta.records).fold(0, u64::saturating_add));
    let mut write = WriteRun::from_records("again", 9, 1, records.clone().into_iter());
    let meta = run_job(&mut write, &disk, BUDGET).expect("what was read can be written");
    assert_eq!(read(&disk, &[meta], Removals::Keep).expect("just written"), records);
}

fn read(disk: &dyn Disk, metas: &[RunMeta], removals: Removals) -> Result<Vec<Record>, String> {
    let mut runs = MergedRuns::new(if metas[0].number == 9 { "again" } else { "runs" }, metas, removals);
    let mut records = Vec::new();
    loop {
        match run_job(&mut runs.next_batch(), disk, BUDGET) {
            Ok(Some(batch)) => records.extend(batch),
            Ok(None) => return Ok(records),
            Err(error) => {
                // What it left open can be closed.
                runs.close().into_iter().for_each(|io| drop(disk.perform(io).expect("an open file")));
                return Err(error.to_string());
            }
        }
    }
}

/// Bytes as they are, named by what their end says.
fn raw(number: u64, blocks: &[&[u8]]) -> (Vec<u8>, RunMeta) {
    let file = blocks.concat();
    let trailer = file.len().saturating_sub(FRAME_BYTES + 32);
    let records = file
        .get(trailer + FRAME_BYTES..)
        .and_then(|trailer| trailer.first_chunk())
        .map_or(0, |it| u64::from_le_bytes(*it));
    let meta = RunMeta { number, length: file.len() as u64, records, crc: crc32(&[&file[..trailer]]) };
    (file, meta)
}

/// Blocks in frames: of each the first byte is by how much the number of records is off, the second how many there are: with
/// none it is a part of a value.
fn forged(number_of_run: u64, blocks: &[&[u8]]) -> (Vec<u8>, RunMeta) {
    let mut file = vec![0; HEADER_BYTES];
    put(&mut file, 0, b"basaltRN");
    put(&mut file, 8, &1u16.to_le_bytes());
    put(&mut file, 16, &number_of_run.to_le_bytes());
    put(&mut file, 24, &SALT.to_le_bytes());
    let crc = crc32(&[&file[..HEADER_BYTES - 4]]);
    put(&mut file, HEADER_BYTES - 4, &crc.to_le_bytes());
    let (mut records, mut removals) = (0, 0);
    for block in blocks {
        let mut feed = Unstructured::new(block);
        let (removed, count) = (byte(&mut feed), number(&mut feed));
        records = count.wrapping_add(records);
        removals += u64::from(removed);
        frame(&mut file, if count == 0 { KIND_PART } else { KIND_RECORDS }, count as u32, feed.take_rest());
    }
    let crc = crc32(&[&file]);
    let mut trailer = [0; 32];
    put(&mut trailer, 0, &records.to_le_bytes());
    put(&mut trailer, 8, &removals.to_le_bytes());
    put(&mut trailer, 16, &(blocks.len() as u64).to_le_bytes());
    put(&mut trailer, 24, &crc.to_le_bytes());
    frame(&mut file, KIND_TRAILER, 0, &trailer);
    let length = file.len() as u64;
    (file, RunMeta { number: number_of_run, length, records, crc })
}

fn frame(file: &mut Vec<u8>, kind: u8, records: u32, payload: &[u8]) {
    let mut frame = [0; FRAME_BYTES];
    put(&mut frame, 4, &(payload.len() as u32).to_le_bytes());
    put(&mut frame, 8, &records.to_le_bytes());
    frame[12] = kind;
    let offset = file.len() as u64;
    let crc = crc32(&[&SALT.to_le_bytes(), &offset.to_le_bytes(), &frame[4..], payload]);
    put(&mut frame, 0, &crc.to_le_bytes());
    file.extend_from_slice(&frame);
    file.extend_from_slice(payload);
}

/// Bytes shared with the key before, the rest of the key, and the value unless it is removed.
type Packed<'a> = (u8, &'a [u8], Option<&'a [u8]>);

/// A block: removals, number, then shared, suffix, value + 1, and the bytes of each record.
fn block(records: &[Packed<'_>]) -> Vec<u8> {
    let removals = records.iter().filter(|(_, _, value)| value.is_none()).count();
    let mut block = vec![removals as u8, records.len() as u8];
    for (shared, suffix, value) in records {
        block.extend_from_slice(&[*shared, suffix.len() as u8, value.map_or(0, |value| value.len() as u8 + 1)]);
        block.extend_from_slice(suffix);
        block.extend_from_slice(value.unwrap_or_default());
    }
    block
}

/// A part of the value of the next block's first record.
fn part(bytes: &[u8]) -> Vec<u8> {
    [&[0, 0], bytes].concat()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let with = |mode: u8, blocks: &[&[u8]]| [vec![mode], joined(blocks)].concat();
    let one = block(&[(0, b"apple", Some(b"1")), (2, b"ricot", None), (0, b"b", Some(b""))]);
    let two = block(&[(0, b"c", None), (1, b"d", Some(b"22")), (2, b"e", Some(b"333"))]);
    let newer = block(&[(0, b"apple", None), (0, b"cd", Some(b"new"))]);
    let sound = forged(1, &[&one, &two]).0;
    vec![
        with(1, &[&one, &two]),
        with(3, &[&one, &two]),
        with(5, &[&one, &newer]),
        with(7, &[&one, &two, &newer]),
        with(1, &[]),
        with(1, &[&one, &part(b"long, "), &part(b"longer, "), &block(&[(0, b"c", Some(b"longest"))])]),
        with(0, &[&sound]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_runs_are_runs() {
        let [one, two, part] =
            [block(&[(0, b"a", Some(b"1")), (1, b"b", None)]), block(&[(0, b"b", Some(b"2"))]), part(b"1 and ")];
        let disk = SimulatedDisk::new(1);
        let (file, meta) = forged(1, &[&one, &part, &two]);
        write_file(&disk, &run_name("runs", 1), Bytes::from(file));
        let records = read(&disk, &[meta], Removals::Keep).expect("a sound run");
        assert_eq!(records.iter().map(|record| &record.key[..]).collect::<Vec<_>>(), [&b"a"[..], b"ab", b"b"]);
        assert_eq!(records[2].value.as_deref(), Some(&b"1 and 2"[..]));
        let (file, raw_meta) = raw(1, &[&forged(1, &[&one, &part, &two]).0]);
        assert_eq!((raw_meta, file.len() as u64), (meta, meta.length));
    }
}
