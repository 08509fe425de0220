//! How a manifest names a run.

/// Bytes of an encoded [`RunMeta`].
pub const RUN_META_LEN: usize = 28;

/// Names one finished run file and proves that it is the one meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunMeta {
    /// The number in its file's name; never used twice within a data directory.
    pub number: u64,
    /// Bytes of the file.
    pub length: u64,
    /// Records in it, removals included.
    pub records: u64,
    /// CRC of the file but its trailer.
    pub crc: u32,
}

impl RunMeta {
    /// Its bytes, all numbers little-endian: number, length, records, CRC.
    pub fn encode(&self) -> [u8; RUN_META_LEN] {
        let mut bytes = [0; RUN_META_LEN];
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.length.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.records.to_le_bytes());
        bytes[24..].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    /// Reads [`Self::encode`]'s form. Any bytes are some `RunMeta`; whether the file fits it shows when it is read.
    pub fn decode(bytes: &[u8; RUN_META_LEN]) -> Self {
        let number = |at: usize| bytes[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let crc = u32::from_le_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]);
        Self { number: number(0), length: number(8), records: number(16), crc }
    }
}
