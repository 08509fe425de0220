//! The only door to the operating system.
//!
//! A request is a value ([`Io`]), so that whoever performs it may do so on a thread, in a simulation, or never.
//! Names are relative to the directory that the disk was opened on and use `/`; a name never leaves it.
//!
//! What survives a crash: bytes that were written before a [`Io::Sync`] of their file completed, and names that
//! were created, renamed or removed before a [`Io::SyncDir`] of their directory completed. Nothing else may be
//! relied on, neither that it is there nor that it is not.
//!
//! It does not retry, cache or buffer, and it starts no thread.
//!
//! [`RealDisk`] is a directory of the operating system; [`SimulatedDisk`] is memory that forgets in a power cut
//! everything it is allowed to forget.

mod name;
mod real;
mod simulated;

#[cfg(test)]
mod same_answers_tests;

use std::io;

use bytes::Bytes;

pub use real::{DirectoryLock, LockError, RealDisk};
pub use simulated::{InjectedFault, PowerCut, SimulatedDisk};

/// An open file of one [`Disk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

/// One request to a disk.
#[expect(missing_docs, reason = "each variant's sentence names its fields")]
#[derive(Clone, Debug)]
pub enum Io {
    /// Opens `name` for reading and writing; with `create` a missing one is made, without it is an error of kind
    /// `NotFound`. Opening a name twice gives two ids of the same bytes. Answer: [`IoOutput::Opened`].
    Open { name: String, create: bool },
    /// Closes a file. Its unsynced bytes are neither dropped nor made durable. Answer: [`IoOutput::Done`].
    Close { file: FileId },
    /// Reads exactly `length` bytes; fewer is an error of kind `UnexpectedEof`. Answer: [`IoOutput::Read`].
    Read { file: FileId, offset: u64, length: usize },
    /// Writes all bytes, in place; the file grows as needed. Answer: [`IoOutput::Done`].
    Write { file: FileId, offset: u64, bytes: Bytes },
    /// Makes the file's bytes and length durable. After an error the state of every unsynced byte is unknown, and a
    /// second sync may lie: stop the node. Answer: [`IoOutput::Done`].
    Sync { file: FileId },
    /// Sets the length. Answer: [`IoOutput::Done`].
    Truncate { file: FileId, length: u64 },
    /// Reserves space for the range, so that writes into it do not fail for lack of space; the file's length
    /// becomes at least `offset + length`. Fails with kind `StorageFull` and changes nothing else. Answer: [`IoOutput::Done`].
    Allocate { file: FileId, offset: u64, length: u64 },
    /// Gives the range's blocks back; it then reads as zeros. The length stays. Answer: [`IoOutput::Done`].
    PunchHole { file: FileId, offset: u64, length: u64 },
    /// Length and allocated blocks of an open file. Answer: [`IoOutput::Stat`].
    Stat { file: FileId },
    /// Renames a file within the disk, replacing an existing one; a directory is an error. Answer: [`IoOutput::Done`].
    Rename { from: String, to: String },
    /// Exchanges what two names name, files or directories, in one instant: no moment and no crash shows one of them
    /// missing. A missing name is an error of kind `NotFound`; a file system that cannot do it answers `Unsupported` or
    /// `InvalidInput`. Answer: [`IoOutput::Done`].
    Exchange { one: String, other: String },
    /// Removes a file; a missing one is an error of kind `NotFound`. Answer: [`IoOutput::Done`].
    Remove { name: String },
    /// Makes a directory and its parents; an existing one is fine. Answer: [`IoOutput::Done`].
    CreateDir { name: String },
    /// Names in a directory (`""` is the root), sorted, without their path. Answer: [`IoOutput::Names`].
    List { directory: String },
    /// Makes a directory's entries durable (`""` is the root). Answer: [`IoOutput::Done`].
    SyncDir { directory: String },
}

/// What a request answers.
#[expect(missing_docs, reason = "each variant's sentence names its fields")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IoOutput {
    /// Nothing but that it is done.
    Done,
    /// The opened file and its length in bytes.
    Opened { file: FileId, length: u64 },
    /// The bytes read.
    Read(Bytes),
    /// Length in bytes, and bytes of allocated blocks.
    Stat { length: u64, allocated: u64 },
    /// The names found.
    Names(Vec<String>),
}

/// Whether `error` says that there is no space, of the device or of a quota: what an operator can change without a
/// restart. Of a failed sync it must not be asked: nobody knows what that left behind.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A place that keeps files. Implementations are safe to use from several threads at once; the order of two
/// concurrent requests is open.
pub trait Disk: Send + Sync {
    /// Performs one request and waits for it.
    ///
    /// # Errors
    /// The operating system's; what was done of a failed write is unknown.
    fn perform(&self, io: Io) -> io::Result<IoOutput>;

    /// Reads exactly `length` bytes if the operating system has them in memory, and waits for nothing. `None` says that it
    /// has not, or cannot tell, or that the read fails: whoever needs to know performs it.
    fn read_cached(&self, file: FileId, offset: u64, length: usize) -> Option<Bytes> {
        let _ = (file, offset, length);
        None
    }
}
