//! Clusters of whole members under faults; see `basalt_tests::simulation`.
//!
//! `SIMULATION_SEEDS=from..to` runs other seeds, `SIMULATION_TRACE=1` says what happens in them.

use std::time::{Duration, Instant};

use basalt_tests::simulation::cluster::{Cluster, Plan, Report};

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("SIMULATION_SEEDS") else { return 0..12 };
    let (from, to) = text.split_once("..").expect("SIMULATION_SEEDS is from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn clusters_keep_their_promises_under_faults() {
    let trace = std::env::var_os("SIMULATION_TRACE").is_some();
    let mut all = Report::default();
    let (started, mut virtual_time) = (Instant::now(), Duration::ZERO);
    for seed in seeds() {
        println!("seed {seed}: SIMULATION_TRACE=1 SIMULATION_SEEDS={seed}..{} repeats it", seed + 1);
        let report = Cluster::new(Plan::of(seed), trace).run();
        virtual_time += Plan::of(seed).length;
        println!("  {report:?}");
        all.sent += report.sent;
        all.acknowledged += report.acknowledged;
        all.reads += report.reads;
        all.leaders += report.leaders;
        all.crashes += report.crashes;
        all.asked_again += report.asked_again;
        all.installs += report.installs;
        all.changes += report.changes;
        all.resumed += report.resumed;
    }
    println!("{virtual_time:?} of virtual time in {:?}: {all:?}", started.elapsed());
    if seeds().count() > 8 {
        assert!(all.crashes > 0 && all.leaders > seeds().count() && all.reads > 0 && all.asked_again > 0, "{all:?}");
        assert!(all.installs > 0 && all.resumed > 0 && all.changes > 0, "{all:?}");
    }
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    let plan = Plan { length: Duration::from_secs(20), ..Plan::of(1) };
    assert_eq!(Cluster::new(plan, false).run(), Cluster::new(plan, false).run());
}
