//! The log that `etcdutl snapshot restore` writes. The first byte says whether the bytes are a file, or records around which the
//! frames and checksums are made.
//!
//! What is read says who the member is, and that it is among the members; what is not is an error that names the file.

use arbitrary::Unstructured;
use basalt_server::import::{EtcdLog, ImportFailure, is_segment_name};
use basalt_storage::disk::SimulatedDisk;
use bytes::Bytes;

use crate::disks::write_file;
use crate::forge::{below, byte, joined, pieces};

const SEGMENT: &str = "member/wal/0000000000000000-0000000000000000.wal";

pub(super) fn run(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    let file = if mode & 1 == 0 { data.to_vec() } else { records(data) };
    let disk = SimulatedDisk::new(1);
    write_file(&disk, SEGMENT, Bytes::from(file));
    match EtcdLog::find(&disk, "member/wal") {
        Ok(Some(log)) => {
            assert!(log.member_id != 0 && log.cluster_id != 0 && log.last_index > 0);
            assert!(log.members.iter().any(|member| member.id == log.member_id));
            assert_eq!(log.members.len() as u64, log.last_index, "one entry for each member");
        }
        Ok(None) => panic!("a segment is there"),
        Err(ImportFailure::DamagedLog { offset, .. }) => assert!(offset <= data.len() + (1 << 20)),
        Err(ImportFailure::Used { .. }) => {}
        Err(other) => panic!("{other}"),
    }
    is_segment_name(&String::from_utf8_lossy(data));
}

/// Records with right frames and checksums: the first byte of a piece is the kind, the rest the data.
fn records(data: &[u8]) -> Vec<u8> {
    let (mut crc, mut file) = (0, Vec::new());
    for piece in pieces(data) {
        let mut feed = Unstructured::new(piece);
        let (kind, skew) = (byte(&mut feed), below(&mut feed, 256));
        let data = feed.take_rest();
        if kind != 4 {
            crc = crc32c::crc32c_append(crc, data);
        }
        // Record: type 1, crc 2, data 3.
        let mut record = vec![0x08, kind & 0x7f, 0x10];
        prost::encoding::encode_varint(u64::from(if skew == 255 { !crc } else { crc }), &mut record);
        record.push(0x1a);
        prost::encoding::encode_varint(data.len() as u64, &mut record);
        record.extend_from_slice(data);
        let padding = record.len().next_multiple_of(8) - record.len();
        let high = if padding > 0 { 0x80 | padding as u64 } else { 0 };
        file.extend_from_slice(&(record.len() as u64 | high << 56).to_le_bytes());
        file.extend_from_slice(&record);
        file.resize(file.len() + padding, 0);
    }
    file.resize(file.len() + 64, 0);
    file
}

/// A restore for so many members, as kinds and data of records.
fn restore(members: u8) -> Vec<Vec<u8>> {
    // Metadata: node 1, cluster 2. Snapshot: index 1, term 2. HardState: term 1, commit 3.
    let mut records = vec![(4, vec![]), (1, vec![0x08, 7, 0x10, 9]), (5, vec![])];
    for index in 1..=members {
        let id = 6 + index;
        let context = format!("{{\"id\":{id},\"peerURLs\":[\"http://m{id}:1\"],\"name\":\"m{id}\"}}");
        // ConfChange: type 2, node 3, context 4.
        let mut change = vec![0x10, 0, 0x18, id, 0x22, context.len() as u8];
        change.extend_from_slice(context.as_bytes());
        // Entry: type 1, term 2, index 3, data 4.
        let mut entry = vec![0x08, 1, 0x10, 1, 0x18, index, 0x22, change.len() as u8];
        entry.extend_from_slice(&change);
        records.push((2, entry));
    }
    records.push((3, vec![0x08, 1, 0x18, members]));
    records.push((5, vec![0x08, members, 0x10, 1]));
    records.into_iter().map(|(kind, data)| [&[kind, 0], &data[..]].concat()).collect()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let forged = [1, 3].map(|members| [vec![1], joined(restore(members))].concat());
    let files = [1, 2].map(|members| [vec![0], records(&joined(restore(members)))].concat());
    forged.into_iter().chain(files).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_records_are_a_log() {
        let disk = SimulatedDisk::new(1);
        write_file(&disk, SEGMENT, records(&joined(restore(3))).into());
        let log = EtcdLog::find(&disk, "member/wal").expect("a sound log").expect("it is there");
        assert_eq!((log.member_id, log.members.len()), (7, 3));
    }
}
