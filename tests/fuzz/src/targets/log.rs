//! Segments of the log, as a start finds them. The first byte says whether the bytes are the file of one segment, or records around
//! which heads, batches and checksums are made.
//!
//! A start and an inspection say the same. What is found has no gap and no term that goes back; it is found again by the next
//! start, and so is what is appended. Where a start refuses, it has changed no segment.

use std::collections::BTreeMap;

use arbitrary::Unstructured;
use basalt_storage::disk::{Disk, Io, SimulatedDisk};
use basalt_storage::job::{BUDGET_UNLIMITED, run as run_job};
use basalt_storage::wal::{Entry, Identity, LogOptions, Record, Recovered, Recovery, WalError, inspect};
use bytes::Bytes;

use crate::disks::{perform, write_file};
use crate::forge::{below, byte, crc32, joined, number, overwrite, pieces, put, take};

// docs/disk-format-wal.md
const BLOCK_BYTES: usize = 4096;
const BATCH_HEADER_BYTES: usize = 56;
const BATCH_CRC_AT: usize = 52;
const IDENTITY: Identity = Identity { cluster: 7, member: 8, incarnation: 9 };
const OPTIONS: LogOptions = LogOptions { segment_bytes: 8 * 4096, first_segment_bytes: 4 * 4096 };
const SEGMENTS_MAX: usize = 3;

pub(super) fn run(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    let disk = SimulatedDisk::new(1);
    perform(&disk, Io::CreateDir { name: "wal".to_owned() });
    let files = if mode & 1 == 0 { vec![data.to_vec()] } else { forged(data) };
    for (number, file) in (1u64..).zip(files) {
        write_file(&disk, &format!("wal/{number:016x}.wal"), Bytes::from(file));
    }
    start(&disk);
}

fn recover(disk: &dyn Disk) -> Result<Recovered, WalError> {
    run_job(&mut Recovery::new(Some(IDENTITY), OPTIONS, 5), disk, BUDGET_UNLIMITED)
}

fn contents(disk: &SimulatedDisk) -> Vec<(String, Option<Vec<u8>>)> {
    disk.files().into_iter().map(|name| (name.clone(), disk.contents(&name))).collect()
}

fn start(disk: &SimulatedDisk) {
    let before = contents(disk);
    let inspected = inspect(disk, &mut |_| {});
    assert_eq!(contents(disk), before, "an inspection changes nothing");
    let recovered = match recover(disk) {
        Ok(recovered) => recovered,
        Err(error) => {
            assert!(inspected.is_err() || matches!(error, WalError::ForeignIdentity { .. }), "{error}: {inspected:?}");
            assert_eq!(contents(disk), before, "{error}: a start that refuses changes nothing");
            return;
        }
    };
    let inspected = inspected.expect("a start takes it");
    assert_eq!(inspected.last_index, recovered.log.last_index());
    assert_eq!((inspected.previous_index, inspected.end_reason), (recovered.previous_index, recovered.end_reason));
    sound(&recovered);
    let (entries, hard_state) = (recovered.entries.clone(), recovered.hard_state);
    again(disk, recovered, &entries);
    let third = recover(disk).expect("a start that went well is followed by another");
    assert_eq!(third.hard_state, hard_state);
}

fn sound(recovered: &Recovered) {
    let (mut index, mut term) = (recovered.previous_index, recovered.previous_term);
    for entry in &recovered.entries {
        assert_eq!(Some(entry.index), index.checked_add(1), "entries without a gap");
        assert!(entry.term >= term, "no term goes back");
        (index, term) = (entry.index, entry.term);
    }
    assert_eq!(recovered.log.last_index(), index);
}

/// The next start finds the same, and an entry that was appended.
fn again(disk: &SimulatedDisk, recovered: Recovered, entries: &[Entry]) {
    let mut log = recovered.log;
    let last = log.last_index();
    let term = entries.last().map_or(recovered.previous_term, |entry| entry.term);
    let mut expected = entries.to_vec();
    if last < u64::MAX - 1 {
        let entry = Entry { index: last + 1, term: term.max(1), kind: 0, data: Bytes::from_static(b"appended") };
        log.append(vec![Record::Entry(entry.clone())], 1).expect("a batch has room for it");
        let mut job = log.start_batch().expect("something was gathered");
        let durable = run_job(&mut job, disk, BUDGET_UNLIMITED).expect("the disk does not fail");
        log.finish_batch(&durable);
        expected.push(entry);
    }
    assert_eq!(recover(disk).expect("what this release wrote").entries, expected);
}

/// Where records stand.
struct Writing {
    file: Vec<u8>,
    sequence: u64,
    salt: u64,
    batch: u64,
}

/// Segments of batches, each piece one batch or a new segment, then some bytes overwritten.
fn forged(data: &[u8]) -> Vec<Vec<u8>> {
    let mut files: Vec<Vec<u8>> = Vec::new();
    let mut log = Position { index: 0, term: 1, terms: BTreeMap::from([(0, 1)]), hard_state: [1, 8, 0] };
    let mut writing = Writing { file: Vec::new(), sequence: 0, salt: 3, batch: 1 };
    begin_segment(&mut writing, &log, &mut Unstructured::new(&[]));
    for piece in pieces(data).into_iter().take(24) {
        let mut feed = Unstructured::new(piece);
        match byte(&mut feed) {
            0..=199 => batch(&mut writing, &mut log, &mut feed),
            200..=229 if files.len() + 1 < SEGMENTS_MAX => {
                files.push(std::mem::take(&mut writing.file));
                begin_segment(&mut writing, &log, &mut feed);
            }
            _ => overwrite(&mut feed, &mut writing.file, 2),
        }
    }
    files.push(writing.file);
    files
}

/// Where the log stands, as a start would see it.
struct Position {
    index: u64,
    term: u64,
    /// By index.
    terms: BTreeMap<u64, u64>,
    /// Term, vote, commit.
    hard_state: [u64; 3],
}

impl Position {
    fn go_to(&mut self, index: u64, term: u64) {
        self.terms.insert(index, term);
        (self.index, self.term) = (index, term);
    }
}

fn begin_segment(writing: &mut Writing, log: &Position, feed: &mut Unstructured<'_>) {
    writing.sequence += 1;
    writing.salt += 1;
    let skew = |feed: &mut Unstructured<'_>| if byte(feed) & 7 == 7 { number(feed) } else { 0 };
    let mut head = vec![0; 112];
    put(&mut head, 0, b"basltWAL");
    put(&mut head, 8, &1u32.to_le_bytes());
    put(&mut head, 32, &IDENTITY.incarnation.to_le_bytes());
    let numbers = [
        (16, IDENTITY.cluster),
        (24, IDENTITY.member),
        (48, writing.salt),
        (56, writing.sequence),
        (64, writing.batch.wrapping_add(skew(feed))),
        (72, log.hard_state[0].wrapping_add(skew(feed))),
        (80, log.hard_state[1]),
        (88, log.hard_state[2].wrapping_add(skew(feed))),
        (96, log.index.wrapping_add(skew(feed))),
        (104, log.term.wrapping_add(skew(feed))),
    ];
    numbers.iter().for_each(|(at, number)| put(&mut head, *at, &number.to_le_bytes()));
    let crc = crc32(&[&head]);
    head.extend_from_slice(&crc.to_le_bytes());
    let mut file = vec![0; 2 * BLOCK_BYTES];
    put(&mut file, 0, &head);
    put(&mut file, BLOCK_BYTES, &head);
    writing.file = file;
}

fn batch(writing: &mut Writing, log: &mut Position, feed: &mut Unstructured<'_>) {
    let (generation, skew) = (number(feed), byte(feed));
    let mut records = Vec::new();
    let mut count = 0u32;
    while !feed.is_empty() && count < 40 {
        record(&mut records, log, feed);
        count += 1;
    }
    let mut bytes = vec![0; BATCH_HEADER_BYTES];
    put(&mut bytes, 0, b"bBAT");
    put(&mut bytes, 4, &((BATCH_HEADER_BYTES + records.len()) as u32).to_le_bytes());
    let offset = writing.file.len() as u64;
    for (at, number) in [(8, writing.batch), (16, writing.salt), (24, writing.sequence), (32, offset), (40, generation)]
    {
        put(&mut bytes, at, &number.to_le_bytes());
    }
    put(&mut bytes, 48, &(if skew == 255 { count.wrapping_add(1) } else { count }).to_le_bytes());
    bytes.extend_from_slice(&records);
    let crc = crc32(&[&bytes[..BATCH_CRC_AT], &bytes[BATCH_HEADER_BYTES..]]);
    put(&mut bytes, BATCH_CRC_AT, &crc.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    writing.file.extend_from_slice(&bytes);
    writing.batch += 1;
}

/// A record that goes on where the log stands, or hardly does.
fn record(records: &mut Vec<u8>, log: &mut Position, feed: &mut Unstructured<'_>) {
    let kind = byte(feed);
    let numbers = |records: &mut Vec<u8>, kind: u8, numbers: &[u64]| {
        records.push(kind);
        numbers.iter().for_each(|number| records.extend_from_slice(&number.to_le_bytes()));
    };
    match kind {
        0..=119 => {
            let (length, data) = (below(feed, 40), byte(feed));
            let index = if data == 255 { number(feed) } else { log.index.wrapping_add(1) };
            let term = log.term.wrapping_add(u64::from(data >> 6 & 1));
            records.extend_from_slice(&[1, data & 3]);
            records.extend_from_slice(&index.to_le_bytes());
            records.extend_from_slice(&term.to_le_bytes());
            let data = take(feed, length);
            records.extend_from_slice(&(data.len() as u32).to_le_bytes());
            records.extend_from_slice(data);
            log.go_to(index, term);
        }
        120..=159 => {
            let commit = log.index.wrapping_sub(below(feed, 3) as u64);
            log.hard_state = [log.term, 8, commit];
            numbers(records, 2, &log.hard_state);
        }
        160..=199 => {
            let index = log.index.wrapping_add(1).wrapping_sub(below(feed, 4) as u64);
            let before = index.wrapping_sub(1);
            let term = log.terms.get(&before).copied().unwrap_or(log.term);
            numbers(records, 3, &[index, term]);
            log.go_to(before, term);
        }
        200..=229 => {
            let (index, term) = (log.index.wrapping_add(number(feed)), log.term.wrapping_add(below(feed, 3) as u64));
            numbers(records, 4, &[index, term]);
            log.go_to(index, term);
        }
        _ => {
            let length = below(feed, 40);
            records.extend_from_slice(take(feed, length));
        }
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let entries: &[u8] = &[0, 1, 0, 5, 4, 1, b'a', b'b', b'c', b'd', 7, 2, 64, b'x', b'y', 130, 1];
    let conflict: &[u8] = &[0, 2, 0, 165, 2, 9, 1, 0, b'z', 120, 0];
    let restart: &[u8] = &[0, 2, 0, 210, 9, 1, 3, 1, 0, b'q'];
    let scripts: [&[&[u8]]; 4] = [
        &[entries, conflict, entries],
        &[entries, &[200], entries, &[201, 0, 0], restart, entries],
        &[entries, entries, &[250, 0, 32, 1, 9, 9]],
        &[restart, conflict, &[220, 0, 0, 7, 1], entries],
    ];
    let mut seeds: Vec<Vec<u8>> = scripts.iter().map(|script| [vec![1], joined(script.iter())].concat()).collect();
    let files = scripts[..1].iter().map(|script| forged(&joined(script.iter())).remove(0));
    seeds.extend(files.map(|file| [vec![0], file].concat()));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_segments_are_logs_to_a_start() {
        let forged = seeds().into_iter().filter(|seed| seed[0] == 1);
        let found: Vec<usize> = forged
            .map(|seed| {
                let disk = SimulatedDisk::new(1);
                for (number, file) in (1u64..).zip(super::forged(&seed[1..])) {
                    write_file(&disk, &format!("wal/{number:016x}.wal"), Bytes::from(file));
                }
                recover(&disk).map_or(0, |recovered| recovered.entries.len())
            })
            .collect();
        assert!(found[0] > 2 && found[1] > 2, "{found:?}");
    }
}
