//! Reading the log without beginning a segment: for those who only look.

use bytes::Bytes;

use super::error::WalError;
use super::recovery::EndReason;
use super::replay::{Replay, SegmentEnd};
use super::segment_head::Identity;
use super::segment_name::{DIRECTORY, SegmentName};
use super::segment_scan::{SegmentScan, scan};
use crate::disk::{Disk, Io, IoOutput};

/// What is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Whose log it is.
    pub identity: Identity,
    /// Index of the entry before the first.
    pub previous_index: u64,
    /// Index of the last entry.
    pub last_index: u64,
    /// Its term.
    pub last_term: u64,
    /// Newest manifest generation that the log knows to be durable.
    pub newest_manifest_generation: u64,
    /// How the log ended.
    pub end_reason: EndReason,
}

/// Reads and judges all segments as a start does, and changes nothing. `read` hears the bytes of each. Memory: as a start.
///
/// # Errors
/// [`WalError`], those of a start; [`WalError::NotCreated`] if there is no begun segment.
pub fn inspect(disk: &dyn Disk, read: &mut dyn FnMut(u64)) -> Result<Inspected, WalError> {
    let failed = |source| WalError::Io { action: "read the log", source };
    let names = match disk.perform(Io::List { directory: DIRECTORY.into() }) {
        Ok(IoOutput::Names(names)) => names,
        Ok(other) => unreachable!("a list answers Names, not {other:?}"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(WalError::NotCreated),
        Err(source) => return Err(failed(source)),
    };
    let mut segments: Vec<SegmentName> = names.iter().filter_map(|name| SegmentName::parse(name)).collect();
    segments.retain(|name| matches!(name, SegmentName::Segment(_)));
    segments.sort_unstable();
    let mut replay: Option<Replay> = None;
    for name in segments {
        let bytes = read_whole(disk, name)?;
        read(bytes.len() as u64);
        if let SegmentScan::Begun(segment) = scan(&bytes, name.sequence())? {
            replay.get_or_insert_with(|| Replay::before(&segment)).segment(&segment, bytes.len() as u64)?;
        }
    }
    let replay = replay.ok_or(WalError::NotCreated)?;
    let SegmentEnd { segment, offset, torn } = replay.end;
    let (last_index, last_term) = replay.terms.last();
    Ok(Inspected {
        identity: replay.identity,
        previous_index: replay.terms.base().0,
        last_index,
        last_term,
        newest_manifest_generation: replay.manifest_generation,
        end_reason: if torn { EndReason::TornTail { segment, offset } } else { EndReason::Clean },
    })
}

fn read_whole(disk: &dyn Disk, name: SegmentName) -> Result<Bytes, WalError> {
    let failed = |source| WalError::Io { action: "read the log", source };
    let opened = disk.perform(Io::Open { name: name.path(), create: false }).map_err(failed)?;
    let IoOutput::Opened { file, length } = opened else { unreachable!("an open answers Opened, not {opened:?}") };
    let too_long = || WalError::Corrupt { segment: name.sequence(), offset: 0, reason: "longer than a segment can be" };
    let length = usize::try_from(length).ok().filter(|length| *length as u64 <= super::log::SEGMENT_BYTES_MAX);
    let read = length.ok_or_else(too_long).map(|length| disk.perform(Io::Read { file, offset: 0, length }));
    disk.perform(Io::Close { file }).map_err(failed)?;
    match read?.map_err(failed)? {
        IoOutput::Read(bytes) => Ok(bytes),
        other => unreachable!("a read answers Read, not {other:?}"),
    }
}
