//! Where a reader finds a file's bytes.

use std::io;

use bytes::Bytes;

use crate::disk::{Disk, FileId, Io, IoOutput};

/// Bytes that can be read at any place.
pub trait ReadAt {
    /// How many there are.
    fn length(&self) -> u64;

    /// Exactly `length` bytes from `offset` on.
    ///
    /// # Errors
    /// The source's; kind `UnexpectedEof` if the range reaches beyond [`Self::length`].
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes>;
}

impl ReadAt for Bytes {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(length)?));
        let range = range.filter(|range| range.end <= self.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(self.slice(range))
    }
}

/// An open file of a [`Disk`]. Each read waits for the disk.
pub struct DiskSource<'a> {
    disk: &'a dyn Disk,
    file: FileId,
    length: u64,
}

impl<'a> DiskSource<'a> {
    /// The file as [`IoOutput::Opened`] gave it.
    pub fn new(disk: &'a dyn Disk, file: FileId, length: u64) -> Self {
        Self { disk, file, length }
    }
}

impl ReadAt for DiskSource<'_> {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        match self.disk.perform(Io::Read { file: self.file, offset, length })? {
            IoOutput::Read(bytes) if bytes.len() == length => Ok(bytes),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with one file that answers only reads, and cuts those that reach beyond its end.
    struct OneFile(Bytes);

    impl Disk for OneFile {
        fn perform(&self, io: Io) -> io::Result<IoOutput> {
            let Io::Read { offset, length, .. } = io else { return Err(io::ErrorKind::Unsupported.into()) };
            let start = (offset as usize).min(self.0.len());
            Ok(IoOutput::Read(self.0.slice(start..(start + length).min(self.0.len()))))
        }
    }

    #[test]
    fn bytes_and_files_read_alike() {
        let bytes = Bytes::from_static(b"0123456789");
        let disk = OneFile(bytes.clone());
        let file = DiskSource::new(&disk, FileId(1), 10);
        for source in [&bytes as &dyn ReadAt, &file] {
            assert_eq!(source.length(), 10);
            assert_eq!(source.read_at(3, 4).unwrap(), "3456");
            assert_eq!(source.read_at(7, 4).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            assert!(source.read_at(11, 1).is_err());
        }
        assert!(bytes.read_at(u64::MAX, 2).is_err());
    }
}
