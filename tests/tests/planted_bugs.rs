//! Each planted bug is found by the simulator, or the net has a hole. Prints the table of `docs/faults.md`.
//!
//! `PLANTED=name` looks for one alone, `PLANTED_SEEDS=n` gives up later.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Instant;

use basalt_storage::planted::{Bug, plant};
use basalt_tests::simulation::cluster::Cluster;
use basalt_tests::simulation::plan::Plan;

/// Seeds without the bug that are run first: a net that catches what is well finds nothing either.
const CONTROLS: u64 = 4;

#[test]
fn every_planted_bug_is_found() {
    let seeds = std::env::var("PLANTED_SEEDS").map_or(4500, |text| text.parse().expect("a number"));
    let only = std::env::var("PLANTED").ok();
    plant(None);
    for seed in 0..CONTROLS {
        let report = Cluster::new(Plan::of(seed), false).run();
        assert!(report.counted("acknowledged") > 0, "seed {seed}: {}", report.line());
    }
    static LAST: Mutex<String> = Mutex::new(String::new());
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|place| format!("{}:{}", place.file(), place.line())).unwrap_or_default();
        *LAST.lock().expect("no one panics here") = format!("{place}: {}", first_line(&info.to_string()));
    }));
    let mut missed = Vec::new();
    println!("| bug | seeds | time | found by |\n| --- | --- | --- | --- |");
    for bug in Bug::ALL.into_iter().filter(|bug| only.as_ref().is_none_or(|only| *only == format!("{bug:?}"))) {
        plant(Some(bug));
        let started = Instant::now();
        // Seeds without faults show little.
        let mut tried = (1..).filter(|seed| seed % 8 != 0).take(seeds);
        let found = tried
            .position(|seed| catch_unwind(AssertUnwindSafe(|| Cluster::new(Plan::of(seed), false).run())).is_err());
        plant(None);
        let said = LAST.lock().expect("no one panics here").clone();
        match found {
            Some(seeds) => println!("| `{bug:?}` | {} | {:.1?} | {said} |", seeds + 1, started.elapsed()),
            None => {
                println!("| `{bug:?}` | {seeds} | {:.1?} | not found |", started.elapsed());
                missed.push(bug);
            }
        }
    }
    drop(std::panic::take_hook());
    assert!(missed.is_empty(), "the net has holes: {missed:?}");
}

/// The message behind the place, up to its end or the first line that is none of it.
fn first_line(text: &str) -> String {
    let message = text.lines().nth(1).unwrap_or(text);
    message.chars().take(90).collect()
}
