//! Every target over its kept corpus and its seeds, and over a bounded number of changes of them by a seed: the same every time.
//!
//! `BASALT_FUZZ_REPLAYS=20` runs twenty times as many changes, `BASALT_FUZZ_SEED` others. `BASALT_FUZZ_INPUT=file` runs that
//! file alone, by the target that the test is of.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use basalt_fuzz::mutation::Mutation;
use basalt_fuzz::{TARGETS, Target};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The kept inputs of a target, by name, so that the order is the same everywhere.
fn kept(target: &Target) -> Vec<(String, Vec<u8>)> {
    let Ok(folder) = fs::read_dir(corpus().join(target.name)) else { return Vec::new() };
    let files = folder.map(|file| file.expect("a folder that can be read").path());
    let mut kept: Vec<_> =
        files.map(|path| (path.display().to_string(), fs::read(&path).expect("a file that can be read"))).collect();
    kept.sort();
    kept
}

fn variable(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}"))
}

/// Runs one input; when it fails, leaves the bytes where the developer finds them.
fn run(target: &Target, origin: &str, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        let path = std::env::temp_dir().join(format!("basalt-fuzz-{}", target.name));
        let written = fs::write(&path, input).map(|()| path.display().to_string());
        eprintln!("{}: {origin} breaks a promise; its bytes: {written:?}", target.name);
        resume_unwind(panic);
    }
}

fn replay(name: &str) {
    let target = basalt_fuzz::target(name).expect("a target of the table");
    if let Ok(path) = std::env::var("BASALT_FUZZ_INPUT") {
        return run(target, &path, &fs::read(&path).expect("a file that can be read"));
    }
    let (kept, seeds) = (kept(target), (target.seeds)());
    kept.iter().for_each(|(path, input)| run(target, path, input));
    seeds.iter().enumerate().for_each(|(number, input)| run(target, &format!("seed {number}"), input));
    let inputs: Vec<Vec<u8>> = kept.into_iter().map(|(_, input)| input).chain(seeds).chain([Vec::new()]).collect();
    let seed = variable("BASALT_FUZZ_SEED", 1);
    let mut mutation = Mutation::new(seed, &inputs);
    for number in 0..u64::from(target.replays) * variable("BASALT_FUZZ_REPLAYS", 1) {
        run(target, &format!("change {number} of seed {seed}"), &mutation.next_input());
    }
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed_and_every_folder_is_of_one() {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
            let folders = fs::read_dir(corpus()).expect("the corpus is there");
            let folders = folders.map(|folder| folder.expect("readable").file_name().into_string().expect("UTF-8"));
            folders.for_each(|folder| assert!(names.contains(&&*folder), "{folder} is of no target"));
        }
    };
}

replays! {
    requests
    transactions
    log
    pages
    runs
    manifest
    bbolt
    peer
    transfer
    gateway
    config
    tokens
    certificates
    grpc_frames
    discovery
    etcd_log
}
