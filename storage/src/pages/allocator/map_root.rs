//! What the manifest keeps of a page file's map.

use super::error::AllocatorError;
use super::extent::TransactionId;
use super::layout::{FILE_PAGES_MAX, GROWTH_PAGES, Slot};

/// Bytes of an encoded [`MapRoot`].
pub const MAP_ROOT_LEN: usize = 32;
const VERSION: u8 = 1;

/// Names one state of the map: everything else of it is reached, and checked, from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapRoot {
    pub(super) slot: Slot,
    pub(super) crc: u32,
    pub(super) file_pages: u64,
    pub(super) free_pages: u64,
    pub(super) transaction: TransactionId,
}

impl MapRoot {
    /// The commit that last changed the map.
    pub fn transaction(&self) -> TransactionId {
        self.transaction
    }

    /// Its bytes (`docs/disk-format-pages-map.md`). They carry no CRC: the manifest that holds them does.
    pub fn encode(&self) -> [u8; MAP_ROOT_LEN] {
        let mut bytes = [0; MAP_ROOT_LEN];
        bytes[0] = VERSION;
        bytes[1] = self.slot.to_byte();
        bytes[4..8].copy_from_slice(&self.crc.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.file_pages.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.free_pages.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.transaction.0.to_le_bytes());
        bytes
    }

    /// Reads [`Self::encode`]'s form.
    ///
    /// # Errors
    /// [`AllocatorError::MalformedRoot`].
    pub fn decode(bytes: &[u8]) -> Result<Self, AllocatorError> {
        let bytes: &[u8; MAP_ROOT_LEN] = bytes.try_into().map_err(|_| AllocatorError::MalformedRoot("wrong length"))?;
        if bytes[0] != VERSION || bytes[2..4] != [0; 2] {
            return Err(AllocatorError::MalformedRoot("unknown version"));
        }
        let number = |at: usize| bytes[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let root = Self {
            slot: Slot::from_byte(bytes[1]).ok_or(AllocatorError::MalformedRoot("unknown slot"))?,
            crc: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            file_pages: number(8),
            free_pages: number(16),
            transaction: TransactionId(number(24)),
        };
        root.check()?;
        Ok(root)
    }

    /// Refuses sizes that no file of ours has.
    pub(super) fn check(&self) -> Result<(), AllocatorError> {
        let whole = self.file_pages.is_multiple_of(GROWTH_PAGES) && self.file_pages > 0;
        if !whole || self.file_pages > FILE_PAGES_MAX {
            return Err(AllocatorError::MalformedRoot("impossible file size"));
        }
        if self.free_pages >= self.file_pages {
            return Err(AllocatorError::MalformedRoot("more free pages than pages"));
        }
        Ok(())
    }
}
