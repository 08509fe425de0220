//! The SHA-256 behind a snapshot's last page.

use sha2::{Digest, Sha256};

use super::bbolt::ReadAt;
use super::error::SnapshotError;

/// Bytes of the digest.
pub const DIGEST_BYTES: usize = 32;
/// Pages are multiples of a sector, so a file of so many bytes beyond one ends in a digest. etcd's tools know no other
/// sign (`etcdutl/snapshot`, `hasChecksum`).
const SECTOR_BYTES: u64 = 512;
const READ_BYTES: usize = 1 << 20;

/// Whether a snapshot carries its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestCheck {
    /// It does, and it is the digest of the bytes before it.
    Matches,
    /// It does not: a database file copied from a data directory.
    Absent,
}

/// Reads all bytes and compares them with the digest at their end, if there is one.
///
/// # Errors
/// [`SnapshotError::Digest`] if they differ; [`SnapshotError::Read`].
pub fn check_digest(source: &(impl ReadAt + ?Sized)) -> Result<DigestCheck, SnapshotError> {
    if source.length() % SECTOR_BYTES != DIGEST_BYTES as u64 {
        return Ok(DigestCheck::Absent);
    }
    let end = source.length() - DIGEST_BYTES as u64;
    let mut digest = Sha256::new();
    let mut offset = 0;
    while offset < end {
        let length = (end - offset).min(READ_BYTES as u64);
        digest.update(source.read_at(offset, length as usize)?);
        offset += length;
    }
    let expected = source.read_at(end, DIGEST_BYTES)?;
    if digest.finalize().as_slice() == expected { Ok(DigestCheck::Matches) } else { Err(SnapshotError::Digest) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_digest_is_recognized_and_compared() {
        let file = vec![3; 4096];
        let digest = Sha256::digest(&file);
        let mut snapshot = [file.as_slice(), digest.as_slice()].concat();
        assert_eq!(check_digest(&Bytes::from(file)).unwrap(), DigestCheck::Absent);
        assert_eq!(check_digest(&Bytes::from(snapshot.clone())).unwrap(), DigestCheck::Matches);
        snapshot[0] ^= 1;
        assert!(matches!(check_digest(&Bytes::from(snapshot)), Err(SnapshotError::Digest)));
    }
}
