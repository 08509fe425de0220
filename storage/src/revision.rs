//! Revisions: the store-wide clock, and their 17- or 18-byte form in files and hashes.

use thiserror::Error;

/// Length in bytes of an encoded revision: main, `_`, sub.
pub const REVISION_KEY_LEN: usize = 17;
/// Length in bytes of an encoded tombstone revision: main, `_`, sub, `t`.
pub const TOMBSTONE_KEY_LEN: usize = 18;

/// One version of one key: `main` counts write transactions of the whole store, `sub` the changes inside one.
///
/// Both are signed because etcd's are; a stored revision has `main >= 1` and `sub >= 0`. Order is chronological.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The store-wide revision that a response header shows. A fresh store stands at 1, its first write gets 2.
    pub main: i64,
    /// Position of the change within its transaction, from 0.
    pub sub: i64,
}

impl Revision {
    /// The revision `main`.`sub`.
    pub const fn new(main: i64, sub: i64) -> Self {
        Self { main, sub }
    }

    /// The key under which etcd stores this revision: 8 bytes big-endian main, `_`, 8 bytes big-endian sub
    /// (etcd `server/storage/mvcc/revision.go`).
    pub fn to_key(self) -> [u8; REVISION_KEY_LEN] {
        let mut key = [b'_'; REVISION_KEY_LEN];
        key[..8].copy_from_slice(&self.main.to_be_bytes());
        key[9..].copy_from_slice(&self.sub.to_be_bytes());
        key
    }

    /// [`Self::to_key`] with the `t` that marks a tombstone.
    pub fn to_tombstone_key(self) -> [u8; TOMBSTONE_KEY_LEN] {
        let mut key = [b't'; TOMBSTONE_KEY_LEN];
        key[..REVISION_KEY_LEN].copy_from_slice(&self.to_key());
        key
    }

    /// Reads a revision key; the flag says whether it is a tombstone's.
    ///
    /// # Errors
    /// [`MalformedRevision`] unless the bytes are exactly of one of the two forms.
    pub fn parse(key: &[u8]) -> Result<(Self, bool), MalformedRevision> {
        let tombstone = match key.len() {
            REVISION_KEY_LEN => false,
            TOMBSTONE_KEY_LEN if key[REVISION_KEY_LEN] == b't' => true,
            _ => return Err(MalformedRevision),
        };
        if key[8] != b'_' {
            return Err(MalformedRevision);
        }
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&key[at..at + 8]);
            i64::from_be_bytes(bytes)
        };
        Ok((Self::new(number(0), number(9)), tombstone))
    }
}

/// Bytes that stand where a revision key should.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("malformed revision key")]
pub struct MalformedRevision;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_form_sorts_chronologically_and_parses_back() {
        let (a, b) = (Revision::new(2, 255), Revision::new(3, 0));
        assert!(a.to_key() < b.to_key());
        assert_eq!(Revision::parse(&a.to_key()), Ok((a, false)));
        assert_eq!(Revision::parse(&b.to_tombstone_key()), Ok((b, true)));
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert!(Revision::parse(b"").is_err());
        assert!(Revision::parse(&[0; REVISION_KEY_LEN]).is_err());
        let mut key = Revision::new(1, 1).to_tombstone_key();
        key[17] = b'x';
        assert!(Revision::parse(&key).is_err());
    }
}
