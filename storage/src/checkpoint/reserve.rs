//! Space set aside for the day when the disk is full (DESIGN 3.7): deletes and compaction need a checkpoint to free
//! anything, and a checkpoint needs space.

use std::io;

use crate::disk::{Disk, Io, IoOutput, is_full};

/// The file that holds the space, in the root of the data directory. It has no content; who needs space may remove it.
pub const RESERVE_NAME: &str = "reserve";
/// Bytes that the server sets aside.
pub const RESERVE_BYTES: u64 = 64 << 20;

/// Holds space, or has given it to checkpoints that found none.
///
/// It is given when a checkpoint was refused, and taken back when one came about and there is space again.
#[derive(Debug)]
pub struct Reserve {
    bytes: u64,
    is_held: bool,
}

impl Reserve {
    /// A reserve of so many bytes; nothing is held yet.
    pub fn new(bytes: u64) -> Self {
        Self { bytes, is_held: false }
    }

    /// Whether the space is set aside.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// Sets the space aside; `false` when there is too little.
    ///
    /// # Errors
    /// The disk's, but that it is full. Nothing depends on the reserve: warn, and go on without.
    pub fn hold(&mut self, disk: &dyn Disk) -> io::Result<bool> {
        if self.is_held {
            return Ok(true);
        }
        let opened = disk.perform(Io::Open { name: RESERVE_NAME.to_owned(), create: true });
        let file = match opened {
            Ok(IoOutput::Opened { file, .. }) => file,
            Ok(other) => unreachable!("an open answers Opened, not {other:?}"),
            Err(error) if is_full(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        let allocated = disk.perform(Io::Allocate { file, offset: 0, length: self.bytes });
        disk.perform(Io::Close { file })?;
        match allocated {
            Ok(_) => {
                self.is_held = true;
                Ok(true)
            }
            // Part of it may have been allocated.
            Err(error) => {
                disk.perform(Io::Remove { name: RESERVE_NAME.to_owned() })?;
                if is_full(&error) { Ok(false) } else { Err(error) }
            }
        }
    }

    /// Gives the space away; `false` when there was none to give.
    ///
    /// # Errors
    /// The disk's; as for [`Self::hold`].
    pub fn release(&mut self, disk: &dyn Disk) -> io::Result<bool> {
        if !std::mem::take(&mut self.is_held) {
            return Ok(false);
        }
        disk.perform(Io::Remove { name: RESERVE_NAME.to_owned() }).map(|_| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;

    #[test]
    fn space_is_held_while_there_is_some_and_given_away_once() {
        let disk = SimulatedDisk::new(1);
        let mut reserve = Reserve::new(64 << 10);
        disk.set_capacity(60 << 10);
        assert!(!reserve.hold(&disk).unwrap());
        assert_eq!((reserve.release(&disk).unwrap(), disk.used_bytes(), disk.files().len()), (false, 0, 0));
        disk.set_capacity(70 << 10);
        assert!(reserve.hold(&disk).unwrap() && reserve.hold(&disk).unwrap());
        assert_eq!(disk.used_bytes(), 64 << 10);
        // Another life finds it again.
        let mut reserve = Reserve::new(64 << 10);
        assert!(reserve.hold(&disk).unwrap());
        assert!(reserve.release(&disk).unwrap() && !reserve.release(&disk).unwrap());
        assert_eq!(disk.used_bytes(), 0);
    }
}
