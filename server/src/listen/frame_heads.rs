//! Frames of HTTP/2 followed by their heads alone, over any cut of the byte stream.

/// A head: length, kind, flags, stream (RFC 9113, 4.1).
const HEAD_BYTES: usize = 9;
/// The highest bit of a stream's number is reserved.
const STREAM_BITS: u32 = u32::MAX >> 1;

/// What a head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    /// Bytes that follow.
    pub length: usize,
    /// As in RFC 9113, 6; [`Self::DATA`] and its kin.
    pub kind: u8,
    /// Their meaning hangs on the kind.
    pub flags: u8,
    /// 0 is the connection.
    pub stream: u32,
}

impl FrameHead {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;

    /// Of a SETTINGS or a PING: it answers one.
    pub(super) const ACK: u8 = 1;
    /// Of a DATA or a HEADERS: the stream's last.
    pub(super) const END_STREAM: u8 = 1;
    /// Of a DATA or a HEADERS: not all of the length is content.
    pub(super) const PADDED: u8 = 8;

    fn of(bytes: [u8; HEAD_BYTES]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = bytes;
        let stream = u32::from_be_bytes(stream) & STREAM_BITS;
        Self { length: u32::from_be_bytes([0, a, b, c]) as usize, kind, flags, stream }
    }

    /// The bytes of a frame of the connection.
    pub(super) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a frame of ours is short").to_be_bytes();
        [&length[1..], &[kind, 0], &[0; 4], payload].concat()
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Where in a stream of frames one direction of a connection is.
///
/// A frame costs some comparisons, its content nothing: nothing is kept but a head that is cut.
#[derive(Debug)]
pub(super) struct FrameHeads {
    head: [u8; HEAD_BYTES],
    /// How much of the head is there.
    have: usize,
    /// What follows before the next head.
    payload_left: usize,
}

impl FrameHeads {
    /// At the beginning of a direction that has so many bytes before its first frame.
    pub(super) fn after(bytes: usize) -> Self {
        Self { head: [0; HEAD_BYTES], have: 0, payload_left: bytes }
    }

    /// Whether what was followed ends with a whole frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.have == 0 && self.payload_left == 0
    }

    /// Follows what comes next, and shows each head that it completes.
    pub(super) fn follow(&mut self, mut bytes: &[u8], mut seen: impl FnMut(FrameHead)) {
        loop {
            let skipped = self.payload_left.min(bytes.len());
            self.payload_left -= skipped;
            bytes = &bytes[skipped..];
            let (part, rest) = bytes.split_at((HEAD_BYTES - self.have).min(bytes.len()));
            self.head[self.have..self.have + part.len()].copy_from_slice(part);
            self.have += part.len();
            if self.have < HEAD_BYTES {
                return;
            }
            bytes = rest;
            self.have = 0;
            let head = FrameHead::of(self.head);
            self.payload_left = head.length;
            seen(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(length: usize, kind: u8, flags: u8, stream: u32) -> FrameHead {
        FrameHead { length, kind, flags, stream }
    }

    #[test]
    fn every_cut_of_the_stream_shows_the_same_heads() {
        let mut bytes = b"preface".to_vec();
        bytes.extend([0, 1, 0, 0, 8, 0x80, 0, 0, 3]);
        bytes.extend([7; 256]);
        bytes.extend(FrameHead::frame(FrameHead::PING, &[6; 8]));
        bytes.extend(FrameHead::frame(FrameHead::SETTINGS, &[]));
        let expected = [head(256, 0, 8, 3), head(8, 6, 0, 0), head(0, 4, 0, 0)];
        for first in 0..bytes.len() {
            for size in [1, 2, 9, 100, bytes.len()] {
                let (mut heads, mut seen) = (FrameHeads::after(7), Vec::new());
                heads.follow(&bytes[..first], |head| seen.push(head));
                for piece in bytes[first..].chunks(size) {
                    heads.follow(piece, |head| seen.push(head));
                }
                assert_eq!(seen, expected, "cut at {first}, then every {size}");
                assert!(heads.is_between_frames());
            }
        }
    }

    #[test]
    fn half_a_frame_is_not_its_end() {
        let mut heads = FrameHeads::after(0);
        assert!(heads.is_between_frames());
        let bytes = FrameHead::frame(FrameHead::PING, &[0; 8]);
        for end in 1..bytes.len() {
            heads.follow(&bytes[end - 1..end], |_| {});
            assert!(!heads.is_between_frames(), "after {end} bytes");
        }
        heads.follow(&bytes[bytes.len() - 1..], |_| {});
        assert!(heads.is_between_frames());
    }
}
