//! Header, frames and trailer of a run file. `docs/disk-format-runs.md` shows the same in tables.

/// The longest key. Values have no bound.
pub const KEY_BYTES_MAX: usize = 16 << 20;

pub(super) const MAGIC: [u8; 8] = *b"basaltRN";
pub(super) const VERSION: u16 = 1;
/// Features without which a reader would misread the file; none is defined.
pub(super) const FEATURES: u32 = 0;
pub(super) const HEADER_LEN: usize = 64;
pub(super) const FRAME_LEN: usize = 16;
pub(super) const TRAILER_LEN: usize = 32;
/// A block is sealed when its records, keys in full, reach this.
pub(super) const BLOCK_BYTES: usize = 64 << 10;
/// The longest value within a block; what comes before that many last bytes of a longer one stands in frames of its own.
pub(super) const PART_BYTES: usize = 1 << 20;
/// Three lengths of at most 10 bytes each stand before a record.
pub(super) const RECORD_OVERHEAD_MAX: usize = 30;
/// The longest payload of a frame, and the most bytes of keys that it may unfold to.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 * BLOCK_BYTES + KEY_BYTES_MAX + PART_BYTES + RECORD_OVERHEAD_MAX;

const _: () = assert!(PAYLOAD_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(TRAILER_LEN <= PAYLOAD_BYTES_MAX);

/// The name of a run's file in its directory (`""` is the root of the disk).
pub fn run_name(directory: &str, number: u64) -> String {
    if directory.is_empty() { format!("run-{number:016x}") } else { format!("{directory}/run-{number:016x}") }
}

/// The start of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u64,
    pub(super) salt: u64,
}

/// Why a header is no good.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    Damaged(&'static str),
    Newer { version: u16, features: u32 },
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&FEATURES.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..HEADER_LEN - 4]);
        bytes[HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, HeaderError> {
        if bytes[..8] != MAGIC {
            return Err(HeaderError::Damaged("not a run"));
        }
        if crc32fast::hash(&bytes[..HEADER_LEN - 4]) != u32_at(bytes, HEADER_LEN - 4) {
            return Err(HeaderError::Damaged("header CRC mismatch"));
        }
        let (version, features) = (u16::from_le_bytes([bytes[8], bytes[9]]), u32_at(bytes, 12));
        if version != VERSION || features & !FEATURES != 0 {
            return Err(HeaderError::Newer { version, features });
        }
        Ok(Self { number: u64_at(bytes, 16), salt: u64_at(bytes, 24) })
    }
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    Records = 1,
    Trailer = 2,
    /// The next bytes of a long value: that of the first record of the block behind these frames.
    Part = 3,
}

/// The start of a block or of the trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) crc: u32,
    pub(super) length: u32,
    pub(super) records: u32,
    pub(super) kind: FrameKind,
}

impl Frame {
    /// The frame of `payload` at `offset` of the file.
    pub(super) fn of(kind: FrameKind, records: u32, payload: &[u8], salt: u64, offset: u64) -> Self {
        let length = u32::try_from(payload.len()).expect("a payload is at most PAYLOAD_BYTES_MAX");
        let mut frame = Self { crc: 0, length, records, kind };
        frame.crc = frame.crc_of(payload, salt, offset);
        frame
    }

    /// The CRC that this frame must have: over salt and offset too, so that neither a block of a file that had this
    /// place before nor one of another place of this file is taken for it.
    pub(super) fn crc_of(&self, payload: &[u8], salt: u64, offset: u64) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&salt.to_le_bytes());
        hasher.update(&offset.to_le_bytes());
        hasher.update(&self.encode()[4..]);
        hasher.update(payload);
        hasher.finalize()
    }

    pub(super) fn encode(self) -> [u8; FRAME_LEN] {
        let mut bytes = [0; FRAME_LEN];
        bytes[..4].copy_from_slice(&self.crc.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.records.to_le_bytes());
        bytes[12] = self.kind as u8;
        bytes
    }

    /// Reads a frame; its length is bounded, its CRC not checked.
    pub(super) fn decode(bytes: &[u8; FRAME_LEN]) -> Result<Self, &'static str> {
        let kind = match (bytes[12], &bytes[13..]) {
            (1, [0, 0, 0]) => FrameKind::Records,
            (2, [0, 0, 0]) => FrameKind::Trailer,
            (3, [0, 0, 0]) => FrameKind::Part,
            _ => return Err("unknown frame"),
        };
        let frame = Self { crc: u32_at(bytes, 0), length: u32_at(bytes, 4), records: u32_at(bytes, 8), kind };
        if frame.length as usize > PAYLOAD_BYTES_MAX {
            return Err("impossible frame length");
        }
        Ok(frame)
    }
}

/// The end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) records: u64,
    pub(super) removals: u64,
    /// Frames before this one.
    pub(super) blocks: u64,
    /// CRC of everything before the trailer's frame.
    pub(super) crc: u32,
}

impl Trailer {
    pub(super) fn encode(self) -> [u8; TRAILER_LEN] {
        let mut bytes = [0; TRAILER_LEN];
        bytes[..8].copy_from_slice(&self.records.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.removals.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.blocks.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
