//! Names of the files in the log's directory.

/// Directory of the log within the data directory.
pub(crate) const DIRECTORY: &str = "wal";
const SEGMENT_SUFFIX: &str = ".wal";
const SPARE_SUFFIX: &str = ".spare";

/// A file of the log, by what its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SegmentName {
    /// Segment with a sequence number, begun or not.
    Segment(u64),
    /// What was segment with that number, waiting to become another.
    Spare(u64),
}

impl SegmentName {
    /// Path within the disk.
    pub(super) fn path(self) -> String {
        match self {
            Self::Segment(sequence) => format!("{DIRECTORY}/{sequence:016x}{SEGMENT_SUFFIX}"),
            Self::Spare(sequence) => format!("{DIRECTORY}/{sequence:016x}{SPARE_SUFFIX}"),
        }
    }

    /// Reads a name as a directory lists it; a foreign file is `None` and left alone.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let number = |digits: &str| {
            let plain = digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        if let Some(digits) = name.strip_suffix(SEGMENT_SUFFIX) {
            return number(digits).map(Self::Segment);
        }
        number(name.strip_suffix(SPARE_SUFFIX)?).map(Self::Spare)
    }

    pub(super) fn sequence(self) -> u64 {
        match self {
            Self::Segment(sequence) | Self::Spare(sequence) => sequence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_foreign_ones_do_not() {
        for name in [SegmentName::Segment(0x1f), SegmentName::Spare(u64::MAX)] {
            let path = name.path();
            assert_eq!(SegmentName::parse(path.strip_prefix("wal/").expect("is there")), Some(name));
        }
        for name in ["", "x.wal", "1.wal", "000000000000001F.wal", "+00000000000001f.wal", "000000000000001f.tmp"] {
            assert_eq!(SegmentName::parse(name), None, "{name}");
        }
    }
}
