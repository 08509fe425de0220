//! `--memory-mlock`: memory that is never swapped out, so that no read or write waits for a swap device.
//!
//! All of the process is locked, and what it will map later too; pages count once they are used. etcd locks its bbolt file.

use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};
use thiserror::Error;

/// Why memory cannot be locked.
#[derive(Debug, Error)]
pub(super) enum MemoryLockError {
    /// Locked now, it would fail in the middle of the work.
    #[error(
        "--memory-mlock: only {bytes} bytes may be locked; run with CAP_IPC_LOCK or RLIMIT_MEMLOCK=infinity \
         (LimitMEMLOCK= of systemd)"
    )]
    Limited { bytes: u64 },
    #[error("--memory-mlock: cannot lock memory: {0}; run with CAP_IPC_LOCK or RLIMIT_MEMLOCK=infinity")]
    Refused(io::Error),
}

/// Locks what is mapped, and what will be.
pub(super) fn lock_memory() -> Result<(), MemoryLockError> {
    let is_capable = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    match getrlimit(Resource::Memlock).current {
        Some(bytes) if !is_capable => return Err(MemoryLockError::Limited { bytes }),
        _ => {}
    }
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(flags).map_err(|error| MemoryLockError::Refused(error.into()))
}
