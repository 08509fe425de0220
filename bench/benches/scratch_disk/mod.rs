//! A real disk in a temporary folder.

use std::io;

use basalt_storage::disk::{Disk, Io, IoOutput, RealDisk};
use tempfile::TempDir;

/// Vanishes with everything on it.
pub struct ScratchDisk {
    disk: RealDisk,
    syncs: bool,
    _folder: TempDir,
}

impl ScratchDisk {
    /// A disk that does all it is asked: figures are mostly of the device.
    pub fn durable() -> Self {
        Self::new(true)
    }

    /// A disk that passes over every sync: figures are of our code and of the page cache.
    pub fn without_syncs() -> Self {
        Self::new(false)
    }

    fn new(syncs: bool) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disk = RealDisk::open(folder.path()).expect("a folder of our own");
        Self { disk, syncs, _folder: folder }
    }
}

impl Disk for ScratchDisk {
    fn perform(&self, io: Io) -> io::Result<IoOutput> {
        match io {
            Io::Sync { .. } | Io::SyncDir { .. } if !self.syncs => Ok(IoOutput::Done),
            io => self.disk.perform(io),
        }
    }
}
