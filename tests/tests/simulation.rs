//! Clusters of whole members under faults; see `basalt_tests::simulation`.
//!
//! `SIMULATION_SEEDS=from..to` runs other seeds, `SIMULATION_TRACE=1` says what happens in them, `SIMULATION_FAULTS=3,7`
//! lets nothing go wrong but these of a seed's faults, `SIMULATION_PER_SECOND=n` has clients ask more or less.
//! `SIMULATION_FRESH_SECONDS=n` runs seeds that nobody ran before, for so long.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use basalt_tests::simulation::cluster::Cluster;
use basalt_tests::simulation::plan::Plan;
use basalt_tests::simulation::report::Report;
use basalt_tests::simulation::schedule::Schedule;
use basalt_tests::simulation::trial;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("SIMULATION_SEEDS") else { return 0..12 };
    let (from, to) = text.split_once("..").expect("SIMULATION_SEEDS is from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

fn schedule(plan: &Plan) -> Schedule {
    let Ok(text) = std::env::var("SIMULATION_FAULTS") else { return Schedule::of(plan) };
    let numbers = text.split(',').filter(|number| !number.is_empty());
    Schedule::of(plan).only(&numbers.map(|number| number.parse().expect("SIMULATION_FAULTS are numbers")).collect())
}

#[test]
fn clusters_keep_their_promises_under_faults() {
    let trace = std::env::var_os("SIMULATION_TRACE").is_some();
    let per_second = std::env::var("SIMULATION_PER_SECOND").map_or(0, |text| text.parse().expect("a number"));
    let mut all = Report::default();
    let started = Instant::now();
    for seed in seeds() {
        println!("seed {seed}: SIMULATION_TRACE=1 SIMULATION_SEEDS={seed}..{} repeats it", seed + 1);
        let plan = Plan::of(seed).asking(per_second);
        let report = Cluster::with(plan, &schedule(&plan), trace).run();
        println!("  {:x}: {}", report.fingerprint, report.line());
        all.add(&report);
    }
    let (simulated, spent) = (all.virtual_time.as_secs_f64(), started.elapsed());
    println!("{simulated:.0} s in {spent:.1?}, {:.0} a second: {}", simulated / spent.as_secs_f64(), all.line());
    if seeds().count() > 8 {
        for what in
            ["power cuts", "linearizable reads", "asked again", "whole states", "resumed states", "changes of members"]
        {
            assert!(all.counted(what) > 0, "no {what}: {}", all.line());
        }
        assert!(all.counted("leaders") > all.seeds as u64, "{}", all.line());
    }
}

/// Seeds that once found what nobody had planted.
#[test]
fn what_was_found_once_stays_mended() {
    // A keepalive that first cleared a remainder was answered by who led no more.
    // A keepalive found no lease at a leader that did not know yet what the one before had committed (178).
    // A look at a disk amid a checkpoint took the second copy of the manifest before for damage (1000328).
    // Two of two voters, of whom one did not know the other yet, campaigned for ever, each in terms of its own (1101460).
    // A member that was removed went before the one that stayed knew it for good, which then waited for its vote (2006210, 2008725).
    // Two of two were to be removed, and handed the lead to each other for ever (3006540).
    // A wiped member was heard again between its removal and the checkpoint that has it (4000735).
    // Of two voters one waited for a whole state: no lease ends meanwhile, and no harm is done (1795951640).
    // A token was good for a member that had been brought up behind a time without authentication (22).
    for seed in [22, 178, 1006, 1182, 1000328, 1101460, 2006210, 2008725, 3006540, 4000110, 4000735, 1795951640] {
        Cluster::new(Plan::of(seed), false).run();
    }
}

/// One that fails is shrunk, and printed with what repeats it.
#[test]
fn fresh_seeds_keep_them_too() {
    let seconds = std::env::var("SIMULATION_FRESH_SECONDS").map_or(0, |text| text.parse().expect("a number"));
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let (first, started) = (since.as_secs(), Instant::now());
    println!("fresh seeds begin at {first}");
    for seed in (first..).take_while(|_| started.elapsed().as_secs() < seconds) {
        let plan = Plan::of(seed);
        let schedule = Schedule::of(&plan);
        let Err(failure) = trial::run(&plan, &schedule) else { continue };
        let (shorter, failure) = trial::shrink(&plan, &schedule, &failure);
        shorter.faults().iter().for_each(|scheduled| println!("{scheduled}"));
        panic!("seed {seed}: {failure:?}: {}", trial::command(&plan, &shorter));
    }
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    let plan = Plan { length: Duration::from_secs(20), ..Plan::of(1) };
    assert_eq!(Cluster::new(plan, false).run(), Cluster::new(plan, false).run());
}
