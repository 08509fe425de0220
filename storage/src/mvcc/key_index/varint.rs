//! LEB128 integers: seven bits a byte, lowest first.

/// Appends `value`: one byte below 128, at most ten.
pub(super) fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes an integer off the front of `bytes`; `None` if they end within it, if it exceeds 64 bits, or if it is not in
/// the shortest form: one value has one encoding, so that equal records are equal bytes.
pub(super) fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (at, &byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if (at == 9 && bits > 1) || (at > 0 && byte == 0) {
            return None;
        }
        value |= bits << (7 * at);
        if byte < 0x80 {
            *bytes = &bytes[at + 1..];
            return Some(value);
        }
    }
    None
}

/// Takes an integer that must fit a non-negative `i64`.
pub(super) fn take_i64(bytes: &mut &[u8]) -> Option<i64> {
    take_u64(bytes).and_then(|value| i64::try_from(value).ok())
}

/// Appends a non-negative `i64`.
pub(super) fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, u64::try_from(value).expect("revisions and versions are never negative"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_round_trips() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_u64(&mut out, value);
                let mut rest = out.as_slice();
                assert_eq!(take_u64(&mut rest), Some(value));
                assert!(rest.is_empty());
            }
        }
    }

    #[test]
    fn truncated_oversized_and_padded_integers_are_refused() {
        assert_eq!(take_u64(&mut [0x85, 0].as_slice()), None);
        assert_eq!(take_u64(&mut [].as_slice()), None);
        assert_eq!(take_u64(&mut [0x80].as_slice()), None);
        assert_eq!(take_u64(&mut [0xff; 10].as_slice()), None);
        assert_eq!(take_u64(&mut [0x80; 11].as_slice()), None);
    }
}
