//! Who called, by W3C's `traceparent`.

/// What a caller says of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RemoteParent {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    /// Whether the trace is kept.
    pub sampled: bool,
}

/// Bytes of a header of the only version there is; newer ones may go on behind a dash.
const HEADER_BYTES: usize = 55;

impl RemoteParent {
    /// Reads the header; `None` for one that makes no sense, which is as if there were none.
    pub(super) fn parse(header: &[u8]) -> Option<Self> {
        let (version, rest) = (header.get(..2)?, header.get(HEADER_BYTES..)?);
        let [version] = hex(version)?;
        let ends = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let dashes = [2, 35, 52].iter().all(|at| header[*at] == b'-');
        if !ends || !dashes {
            return None;
        }
        let (trace_id, span_id) = (hex(&header[3..35])?, hex(&header[36..52])?);
        let [flags] = hex(&header[53..55])?;
        let named = trace_id != [0; 16] && span_id != [0; 8];
        named.then_some(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

/// Bytes written in lower-case digits.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    (digits.len() == 2 * N).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_header_is_read_as_w3c_says() {
        let parent = RemoteParent::parse(GOOD.as_bytes()).expect("the example of the standard");
        assert_eq!((parent.trace_id[0], parent.trace_id[15], parent.span_id[7]), (0x0a, 0x9c, 0x31));
        assert!(parent.sampled);
        let not_kept = GOOD.replace("-01", "-00");
        assert!(RemoteParent::parse(not_kept.as_bytes()).is_some_and(|parent| !parent.sampled));
        let newer = format!("01{}-more", &GOOD[2..]);
        assert!(RemoteParent::parse(newer.as_bytes()).is_some(), "what a newer version adds is not looked at");
    }

    #[test]
    fn what_makes_no_sense_is_no_parent() {
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &format!("{GOOD}x"),
            &format!("ff{}", &GOOD[2..]),
            &format!("01{}more", &GOOD[2..]),
            &GOOD.to_uppercase(),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GOOD.replace('-', "_"),
            &GOOD.replace("01", "0g"),
        ] {
            assert_eq!(RemoteParent::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_stops_the_server(header in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = RemoteParent::parse(&header);
        }
    }
}
