//! Files on a disk in memory.

use basalt_storage::disk::{Disk, Io, IoOutput};
use bytes::Bytes;

/// Makes `name` hold `bytes`, its directories too, all durable.
pub fn write_file(disk: &dyn Disk, name: &str, bytes: Bytes) {
    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned();
    if !directory.is_empty() {
        perform(disk, Io::CreateDir { name: directory.clone() });
    }
    let IoOutput::Opened { file, .. } = perform(disk, Io::Open { name: name.to_owned(), create: true }) else {
        panic!("an open answers Opened");
    };
    perform(disk, Io::Truncate { file, length: 0 });
    perform(disk, Io::Write { file, offset: 0, bytes });
    perform(disk, Io::Sync { file });
    perform(disk, Io::Close { file });
    perform(disk, Io::SyncDir { directory });
}

/// Performs a request of a disk that does not fail.
pub fn perform(disk: &dyn Disk, io: Io) -> IoOutput {
    disk.perform(io).expect("the disk does not fail")
}
