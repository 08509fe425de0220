//! The simulated disk answers as the real one does, as long as nothing fails.

use std::io;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Disk, FileId, Io, IoOutput, RealDisk, SimulatedDisk};

/// A request whose file is a place in the list of those opened so far.
#[derive(Clone, Debug)]
struct Request {
    io: Io,
    file: prop::sample::Index,
}

fn names() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "d", "d/a", "d/e", "d/e/a", "missing/a", "../a", ""]).prop_map(String::from)
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    const FILE: FileId = FileId(0);
    let (offset, length) = (|| 0..12_000u64, || 1..9000u64);
    let io = prop_oneof![
        4 => (names(), any::<bool>()).prop_map(|(name, create)| Io::Open { name, create }),
        1 => Just(Io::Close { file: FILE }),
        4 => (offset(), length()).prop_map(|(offset, length)| Io::Read { file: FILE, offset, length: length as usize }),
        6 => (offset(), length(), any::<u8>()).prop_map(|(offset, length, byte)| {
            Io::Write { file: FILE, offset, bytes: Bytes::from(vec![byte; length as usize]) }
        }),
        1 => Just(Io::Sync { file: FILE }),
        2 => length().prop_map(|length| Io::Truncate { file: FILE, length }),
        1 => (offset(), length()).prop_map(|(offset, length)| Io::Allocate { file: FILE, offset, length }),
        2 => (offset(), length()).prop_map(|(offset, length)| Io::PunchHole { file: FILE, offset, length }),
        3 => Just(Io::Stat { file: FILE }),
        2 => (names(), names()).prop_map(|(from, to)| Io::Rename { from, to }),
        2 => (names(), names()).prop_map(|(one, other)| Io::Exchange { one, other }),
        2 => names().prop_map(|name| Io::Remove { name }),
        2 => names().prop_map(|name| Io::CreateDir { name }),
        3 => names().prop_map(|directory| Io::List { directory }),
        1 => names().prop_map(|directory| Io::SyncDir { directory }),
    ];
    let request = (io, any::<prop::sample::Index>()).prop_map(|(io, file)| Request { io, file });
    prop::collection::vec(request, 1..60)
}

fn on_file(mut io: Io, id: FileId) -> Io {
    match &mut io {
        Io::Close { file }
        | Io::Read { file, .. }
        | Io::Write { file, .. }
        | Io::Sync { file }
        | Io::Truncate { file, .. }
        | Io::Allocate { file, .. }
        | Io::PunchHole { file, .. }
        | Io::Stat { file } => *file = id,
        _ => {}
    }
    io
}

/// What both disks must agree on: not ids, allocated blocks, or the wording of errors.
fn comparable(answer: &io::Result<IoOutput>) -> Result<IoOutput, ()> {
    match answer {
        Ok(IoOutput::Opened { length, .. }) => Ok(IoOutput::Opened { file: FileId(0), length: *length }),
        Ok(IoOutput::Stat { length, .. }) => Ok(IoOutput::Stat { length: *length, allocated: 0 }),
        Ok(other) => Ok(other.clone()),
        Err(_) => Err(()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn both_disks_give_the_same_answers(requests in requests()) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let real = RealDisk::open(directory.path()).expect("opens");
        let simulated = SimulatedDisk::new(1);
        let mut files = vec![(FileId(u64::MAX), FileId(u64::MAX))];
        for Request { io, file } in requests {
            let (real_file, simulated_file) = *file.get(&files);
            let expected = real.perform(on_file(io.clone(), real_file));
            let found = simulated.perform(on_file(io.clone(), simulated_file));
            prop_assert_eq!(comparable(&expected), comparable(&found), "{:?}: {:?} and {:?}", io, expected, found);
            if let (Ok(IoOutput::Opened { file: real, .. }), Ok(IoOutput::Opened { file, .. })) = (expected, found) {
                files.push((real, file));
            }
        }
    }
}
