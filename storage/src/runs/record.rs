//! What a run says about one key.

use bytes::Bytes;

/// A key, and what it holds from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Any bytes; may be empty.
    pub key: Bytes,
    /// The value, or `None` if the key was removed.
    pub value: Option<Bytes>,
}

impl Record {
    /// Bytes of key and value.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}
