//! The targets under libFuzzer; `tests/fuzz/run` sets what is asked for. `BASALT_FUZZ_TARGET` names a target; with
//! `BASALT_FUZZ_SEEDS` its seeds are written to that folder, and that is all. With neither their names are listed.

#![no_main]
// The symbols that libFuzzer looks for are made by its macro.
#![allow(unsafe_code, missing_docs)]

use std::path::Path;
use std::sync::LazyLock;

use basalt_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let Ok(name) = std::env::var("BASALT_FUZZ_TARGET") else {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        std::process::exit(0);
    };
    basalt_fuzz::target(&name).unwrap_or_else(|| panic!("there is no target {name:?}"))
});

/// Writes what [`Target::seeds`] makes, if that is what is asked for.
fn write_seeds(target: &Target) {
    let Ok(folder) = std::env::var("BASALT_FUZZ_SEEDS") else { return };
    for (number, seed) in (target.seeds)().into_iter().enumerate() {
        let path = Path::new(&folder).join(format!("seed-{number:03}"));
        std::fs::write(&path, seed).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    std::process::exit(0);
}

fuzz_target!(
    init: write_seeds(*TARGET),
    |data: &[u8]| {
        (TARGET.run)(data);
    }
);
