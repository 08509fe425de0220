//! Pages: the header, and the elements that tell where keys and values of a node lie.
//!
//! Offsets are those of bbolt's `internal/common/page.go`; everything is little-endian.
//!
//! ```text
//! header   0 id u64 | 8 flags u16 | 10 count u16 | 12 overflow u32
//! leaf     0 flags u32 | 4 position u32 | 8 key length u32 | 12 value length u32
//! branch   0 position u32 | 4 key length u32 | 8 child page u64
//! ```

/// Bytes of a page that we write; a page that we read may have another size.
pub const PAGE_BYTES: usize = 4096;
/// Longest key that bbolt accepts (`MaxKeySize`); the shortest has one byte.
pub const KEY_BYTES_MAX: usize = 32768;
/// Longest value that bbolt accepts (`MaxValueSize`).
pub const VALUE_BYTES_MAX: usize = (1 << 31) - 2;

pub(super) const HEADER_BYTES: usize = 16;
pub(super) const ELEMENT_BYTES: usize = 16;

pub(super) const FLAG_BRANCH: u16 = 0x01;
pub(super) const FLAG_LEAF: u16 = 0x02;
pub(super) const FLAG_META: u16 = 0x04;
pub(super) const FLAG_FREELIST: u16 = 0x10;

/// Leaf element flag: the value describes a bucket.
pub(super) const ELEMENT_IS_BUCKET: u32 = 1;

/// The first bytes of a node. The pages of its overflow follow it and have no header of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub id: u64,
    pub flags: u16,
    pub count: u16,
    pub overflow: u32,
}

impl PageHeader {
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..].copy_from_slice(&self.overflow.to_le_bytes());
        bytes
    }

    /// `None` if there are fewer bytes than a header has.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            id: u64_at(bytes, 0)?,
            flags: u16::from_le_bytes(array_at(bytes, 8)?),
            count: u16::from_le_bytes(array_at(bytes, 10)?),
            overflow: u32_at(bytes, 12)?,
        })
    }
}

/// Where a leaf keeps one key and its value. `position` counts from the element's own first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeafElement {
    pub flags: u32,
    pub position: u32,
    pub key_length: u32,
    pub value_length: u32,
}

impl LeafElement {
    pub fn encode(self) -> [u8; ELEMENT_BYTES] {
        let mut bytes = [0; ELEMENT_BYTES];
        bytes[..4].copy_from_slice(&self.flags.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.position.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.key_length.to_le_bytes());
        bytes[12..].copy_from_slice(&self.value_length.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8], at: usize) -> Option<Self> {
        Some(Self {
            flags: u32_at(bytes, at)?,
            position: u32_at(bytes, at + 4)?,
            key_length: u32_at(bytes, at + 8)?,
            value_length: u32_at(bytes, at + 12)?,
        })
    }
}

/// Where a branch keeps the first key of one child. `position` counts from the element's own first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BranchElement {
    pub position: u32,
    pub key_length: u32,
    pub child: u64,
}

impl BranchElement {
    pub fn encode(self) -> [u8; ELEMENT_BYTES] {
        let mut bytes = [0; ELEMENT_BYTES];
        bytes[..4].copy_from_slice(&self.position.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.key_length.to_le_bytes());
        bytes[8..].copy_from_slice(&self.child.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8], at: usize) -> Option<Self> {
        Some(Self { position: u32_at(bytes, at)?, key_length: u32_at(bytes, at + 4)?, child: u64_at(bytes, at + 8)? })
    }
}

/// The value under a bucket's name: its root page (0: an inline bucket follows) and its sequence, always 0 in etcd.
pub(super) const BUCKET_VALUE_BYTES: usize = 16;

/// Bytes of an element together with its key and value.
pub(super) fn entry_bytes(key_length: usize, value_length: usize) -> usize {
    ELEMENT_BYTES + key_length + value_length
}

/// Pages that a node of so many bytes takes; never 0.
pub(super) fn pages_for(node_bytes: usize) -> u32 {
    u32::try_from(node_bytes.div_ceil(PAGE_BYTES)).expect("the largest value and key are below 2^31 bytes")
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}
