//! Bytes with holes.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Unit of allocation.
pub(super) const BLOCK_BYTES: u64 = 4096;

type Block = [u8; BLOCK_BYTES as usize];

const ZEROS: Block = [0; BLOCK_BYTES as usize];

/// An unbounded run of zeros, some blocks of which are allocated. Cloning shares the blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct SparseBytes {
    /// `None`: allocated, but never written with anything but zeros.
    blocks: BTreeMap<u64, Option<Arc<Block>>>,
}

impl SparseBytes {
    pub(super) fn allocated_bytes(&self) -> u64 {
        self.blocks.len() as u64 * BLOCK_BYTES
    }

    pub(super) fn is_allocated(&self, block: u64) -> bool {
        self.blocks.contains_key(&block)
    }

    pub(super) fn allocate(&mut self, block: u64) {
        self.blocks.entry(block).or_default();
    }

    pub(super) fn free(&mut self, block: u64) {
        self.blocks.remove(&block);
    }

    /// Allocated blocks that touch the bytes `from..to`.
    pub(super) fn allocated_within(&self, from: u64, to: u64) -> Vec<u64> {
        self.blocks.range(from / BLOCK_BYTES..to.div_ceil(BLOCK_BYTES)).map(|(block, _)| *block).collect()
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) {
        for (block, within, part) in pieces(offset, out.len()) {
            match self.blocks.get(&block) {
                Some(Some(bytes)) => out[part].copy_from_slice(&bytes[within]),
                _ => out[part].fill(0),
            }
        }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (block, within, part) in pieces(offset, bytes.len()) {
            let slot = self.blocks.entry(block).or_default();
            if slot.is_some() || bytes[part.clone()] != ZEROS[..part.len()] {
                let block = slot.get_or_insert_with(|| Arc::new([0; BLOCK_BYTES as usize]));
                Arc::make_mut(block)[within].copy_from_slice(&bytes[part]);
            }
        }
    }
}

type Span = std::ops::Range<usize>;

/// Cuts `length` bytes at `offset` at block borders: block, span within the block, span within the bytes.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, Span, Span)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % BLOCK_BYTES) as usize;
        let taken = (BLOCK_BYTES as usize - within).min(length - done);
        let part = done..done + taken;
        done += taken;
        Some((at / BLOCK_BYTES, within..within + taken, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_see_writes_and_zeros_between_them() {
        let mut bytes = SparseBytes::default();
        bytes.write(4090, b"across the border");
        bytes.write(20_000, &[0; 100]);
        assert_eq!(bytes.allocated_bytes(), 3 * BLOCK_BYTES);
        let mut out = [1; 30];
        bytes.read(4085, &mut out);
        assert_eq!(&out, b"\0\0\0\0\0across the border\0\0\0\0\0\0\0\0");
        bytes.free(0);
        bytes.read(4085, &mut out);
        assert_eq!(&out, b"\0\0\0\0\0\0\0\0\0\0\0 the border\0\0\0\0\0\0\0\0");
        assert_eq!(bytes.allocated_within(4096, 4097), [1]);
    }
}
