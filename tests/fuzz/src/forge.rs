//! Right checksums around forged content, by the figures of `docs/disk-format*.md`; and small things that targets share.

use arbitrary::Unstructured;

/// Bytes taken off the front, as many as there are.
pub fn take<'a>(feed: &mut Unstructured<'a>, length: usize) -> &'a [u8] {
    let length = length.min(feed.len());
    feed.bytes(length).expect("so many are there")
}

/// A number below `end`, from one byte or two; 0 when the bytes are used up.
pub fn below(feed: &mut Unstructured<'_>, end: usize) -> usize {
    feed.int_in_range(0..=end - 1).unwrap_or(0)
}

/// One byte; 0 when they are used up.
pub fn byte(feed: &mut Unstructured<'_>) -> u8 {
    feed.arbitrary().unwrap_or(0)
}

/// A number of eight bytes, mostly small.
pub fn number(feed: &mut Unstructured<'_>) -> u64 {
    match byte(feed) {
        small @ 0..=0xf7 => u64::from(small),
        0xf8 => u64::MAX,
        0xf9 => i64::MAX as u64,
        0xfa => 1 << 62,
        0xfb => u64::from(u32::MAX),
        _ => feed.arbitrary().unwrap_or(0),
    }
}

/// The pieces of an input: each with its length before it, two bytes, little-endian; the last may be cut off.
pub fn pieces(mut data: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        pieces.push(piece);
        data = rest;
    }
    pieces
}

/// What [`pieces`] reads.
pub fn joined<P: AsRef<[u8]>>(pieces: impl IntoIterator<Item = P>) -> Vec<u8> {
    let mut data = Vec::new();
    for piece in pieces {
        let piece = piece.as_ref();
        let length = u16::try_from(piece.len()).expect("a piece of a seed is short");
        data.extend_from_slice(&length.to_le_bytes());
        data.extend_from_slice(piece);
    }
    data
}

/// Writes `field` at `at`, as far as there is room.
pub fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    for (place, byte) in bytes.iter_mut().skip(at).zip(field) {
        *place = *byte;
    }
}

/// CRC-32 of parts that follow each other.
pub fn crc32(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// Overwrites bytes as the feed says: a place of two bytes, then how many, then those.
pub fn overwrite(feed: &mut Unstructured<'_>, bytes: &mut [u8], times: usize) {
    for _ in 0..times {
        if bytes.is_empty() || feed.is_empty() {
            return;
        }
        let at = usize::from(feed.arbitrary::<u16>().unwrap_or(0)) % bytes.len();
        let length = 1 + below(feed, 8);
        let fresh = take(feed, length);
        put(bytes, at, fresh);
    }
}
