//! What is armed to go wrong.

use std::io;

use super::injected_fault::InjectedFault;
use super::namespace::Inode;

/// Faults armed on a device, with the counters that trigger them.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Operations that may still be performed; `None` is all.
    pub(super) stop_after: Option<u64>,
    /// A request was refused because of it.
    pub(super) is_stopped: bool,
    /// Syncs until one fails, that one included; 0 is never.
    pub(super) syncs_to_failure: u64,
    /// The failing sync says that the disk is full, as Linux does when it cannot place delayed blocks.
    pub(super) sync_says_full: bool,
    /// Writes until one fails, that one included; 0 is never.
    pub(super) writes_to_failure: u64,
    /// Armed faults that were met, and requests refused for lack of space.
    pub(super) met: u64,
    /// Bytes that no longer can be read.
    pub(super) unreadable: Vec<(Inode, u64)>,
}

impl Faults {
    /// The error of a request that comes when `operations` were performed, once the disk was stopped.
    pub(super) fn check_stop(&mut self, operations: u64) -> io::Result<()> {
        if self.stop_after.is_none_or(|stop| operations < stop) {
            return Ok(());
        }
        self.is_stopped = true;
        Err(InjectedFault::Stopped.error(io::ErrorKind::Other))
    }

    /// The error of the sync at hand, when it is to fail.
    pub(super) fn take_sync(&mut self) -> Option<io::Error> {
        let kind = if self.sync_says_full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        count_down(&mut self.syncs_to_failure).then(|| self.meet(InjectedFault::Sync, kind))
    }

    /// The error of the write at hand, when it is to fail.
    pub(super) fn take_write(&mut self) -> Option<io::Error> {
        count_down(&mut self.writes_to_failure).then(|| self.meet(InjectedFault::Write, io::ErrorKind::Other))
    }

    /// The error of a request that finds no space.
    pub(super) fn full(&mut self) -> io::Error {
        self.meet(InjectedFault::Full, io::ErrorKind::StorageFull)
    }

    pub(super) fn check_read(&self, inode: Inode, from: u64, to: u64) -> io::Result<()> {
        let hit = self.unreadable.iter().any(|(file, offset)| *file == inode && (from..to).contains(offset));
        if hit { Err(InjectedFault::Read.error(io::ErrorKind::Other)) } else { Ok(()) }
    }

    fn meet(&mut self, fault: InjectedFault, kind: io::ErrorKind) -> io::Error {
        self.met += 1;
        fault.error(kind)
    }
}

fn count_down(counter: &mut u64) -> bool {
    let hit = *counter == 1;
    *counter = counter.saturating_sub(1);
    hit
}
