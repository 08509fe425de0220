//! What is armed to go wrong.

use std::io;

use super::namespace::Inode;

/// Faults armed on a device, with the counters that trigger them.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Operations that may still be performed; `None` is all.
    pub(super) stop_after: Option<u64>,
    /// Syncs until one fails, that one included; 0 is never.
    pub(super) syncs_to_failure: u64,
    /// Writes until one fails, that one included; 0 is never.
    pub(super) writes_to_failure: u64,
    /// Armed faults that were met, and requests refused for lack of space.
    pub(super) met: u64,
    /// Bytes that no longer can be read.
    pub(super) unreadable: Vec<(Inode, u64)>,
}

impl Faults {
    /// `true` when the sync at hand is to fail.
    pub(super) fn takes_sync(&mut self) -> bool {
        let hit = count_down(&mut self.syncs_to_failure);
        self.met += u64::from(hit);
        hit
    }

    /// `true` when the write at hand is to fail.
    pub(super) fn takes_write(&mut self) -> bool {
        let hit = count_down(&mut self.writes_to_failure);
        self.met += u64::from(hit);
        hit
    }

    pub(super) fn check_read(&self, inode: Inode, from: u64, to: u64) -> io::Result<()> {
        let hit = self.unreadable.iter().any(|(file, offset)| *file == inode && (from..to).contains(offset));
        if hit { Err(input_output_error()) } else { Ok(()) }
    }
}

/// The error of a broken device, `EIO`.
pub(super) fn input_output_error() -> io::Error {
    io::Error::from(rustix::io::Errno::IO)
}

fn count_down(counter: &mut u64) -> bool {
    let hit = *counter == 1;
    *counter = counter.saturating_sub(1);
    hit
}
