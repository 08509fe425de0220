//! A disk that is a few vectors: counts what is asked of it, can be full, and can flip bits.

use std::collections::HashSet;
use std::io;
use std::sync::Mutex;

use bytes::Bytes;

use crate::disk::{Disk, FileId, Io, IoOutput};

use crate::pages::allocator::PAGE_SIZE;

/// The one file that the tests use.
pub const FILE: FileId = FileId(1);

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    reads: Vec<(u64, usize)>,
    syncs: usize,
    sync_fails: bool,
    length_max: Option<u64>,
    /// Pages that must not be written.
    frozen: HashSet<u64>,
    written: Vec<(u64, usize)>,
}

/// A single file.
#[derive(Default)]
pub struct MemoryDisk(Mutex<State>);

impl MemoryDisk {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn reads(&self) -> usize {
        self.state().reads.len()
    }

    /// Offsets and lengths of the reads since the last call.
    pub fn take_read(&self) -> Vec<(u64, usize)> {
        std::mem::take(&mut self.state().reads)
    }

    pub fn syncs(&self) -> usize {
        self.state().syncs
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    pub fn set_bytes(&self, bytes: Vec<u8>) {
        self.state().bytes = bytes;
    }

    pub fn flip(&self, bit: usize) {
        self.state().bytes[bit / 8] ^= 1 << (bit % 8);
    }

    /// Writes beyond this fail for lack of space.
    pub fn limit(&self, length_max: Option<u64>) {
        self.state().length_max = length_max;
    }

    pub fn fail_syncs(&self) {
        self.state().sync_fails = true;
    }

    /// A write into one of these pages fails the test.
    pub fn freeze(&self, pages: HashSet<u64>) {
        self.state().frozen = pages;
    }

    /// Offsets and lengths of the writes since the last call.
    pub fn take_written(&self) -> Vec<(u64, usize)> {
        std::mem::take(&mut self.state().written)
    }
}

impl Disk for MemoryDisk {
    fn perform(&self, io: Io) -> io::Result<IoOutput> {
        let mut state = self.state();
        let full = |end: u64, state: &State| state.length_max.is_some_and(|max| end > max);
        match io {
            Io::Read { offset, length, .. } => {
                state.reads.push((offset, length));
                let bytes = state.bytes.get(offset as usize..offset as usize + length);
                let bytes = bytes.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
                Ok(IoOutput::Read(Bytes::copy_from_slice(bytes)))
            }
            Io::Write { offset, bytes, .. } => {
                let end = offset + bytes.len() as u64;
                if full(end, &state) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                for page in offset / PAGE_SIZE as u64..end.div_ceil(PAGE_SIZE as u64) {
                    assert!(!state.frozen.contains(&page), "page {page} is still needed");
                }
                if state.bytes.len() < end as usize {
                    state.bytes.resize(end as usize, 0);
                }
                state.bytes[offset as usize..end as usize].copy_from_slice(&bytes);
                state.written.push((offset, bytes.len()));
                Ok(IoOutput::Done)
            }
            Io::Allocate { offset, length, .. } => {
                if full(offset + length, &state) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let end = (offset + length) as usize;
                if state.bytes.len() < end {
                    state.bytes.resize(end, 0);
                }
                Ok(IoOutput::Done)
            }
            Io::Sync { .. } if state.sync_fails => Err(io::ErrorKind::Other.into()),
            Io::Sync { .. } => {
                state.syncs += 1;
                Ok(IoOutput::Done)
            }
            other => panic!("the tree does not ask for {other:?}"),
        }
    }
}
