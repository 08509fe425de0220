//! Runs of the cluster simulator for hours, on several cores: `tests/simulation/campaign` starts it.
//!
//! `simulation-campaign <first seed> <seeds, 0 for all> <hours, 0 for no end> <cores> <requests a second, 0 for what the seed
//! says>`: prints how far it is, then a row for `docs/simulation-report.md`. A seed that fails is shrunk and printed with the
//! command that repeats it.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use basalt_tests::simulation::plan::Plan;
use basalt_tests::simulation::report::Report;
use basalt_tests::simulation::schedule::Schedule;
use basalt_tests::simulation::trial;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Between two lines that say how far it is.
const TELLS: Duration = Duration::from_secs(30);

struct Campaign {
    first: u64,
    seeds: u64,
    ends: Option<Instant>,
    per_second: u32,
    next: AtomicU64,
    state: Mutex<State>,
}

struct State {
    all: Report,
    failed: Vec<u64>,
    told: Instant,
}

impl Campaign {
    fn work(&self, started: Instant) {
        while self.ends.is_none_or(|end| Instant::now() < end) {
            let count = self.next.fetch_add(1, Ordering::Relaxed);
            if self.seeds > 0 && count >= self.seeds {
                return;
            }
            let plan = Plan::of(self.first + count).asking(self.per_second);
            let schedule = Schedule::of(&plan);
            match trial::run(&plan, &schedule) {
                Ok(report) => self.succeeded(&report, started),
                Err(failure) => {
                    println!("seed {}: {}: {}", plan.seed, failure.place, failure.message);
                    let (shorter, failure) = trial::shrink(&plan, &schedule, &failure);
                    println!("seed {}, shrunk: {}: {}", plan.seed, failure.place, failure.message);
                    shorter.faults().iter().for_each(|scheduled| println!("  {scheduled}"));
                    println!("  {}", trial::command(&plan, &shorter));
                    self.state().failed.push(plan.seed);
                }
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no one panics while holding it")
    }

    fn succeeded(&self, report: &Report, started: Instant) {
        let mut state = self.state();
        state.all.add(report);
        if state.told.elapsed() > TELLS {
            state.told = Instant::now();
            println!("{}", progress(&state, started));
        }
    }
}

fn progress(state: &State, started: Instant) -> String {
    let (simulated, spent) = (state.all.virtual_time.as_secs_f64(), started.elapsed().as_secs_f64());
    let (seeds, failed, hours) = (state.all.seeds, state.failed.len(), simulated / 3600.0);
    format!("{seeds} seeds, {hours:.2} h simulated in {spent:.0} s, {:.0} a second, {failed} failed", simulated / spent)
}

fn numbers() -> Option<[u64; 5]> {
    let numbers: Vec<u64> = std::env::args().skip(1).map(|text| text.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

fn main() -> ExitCode {
    let Some([first, seeds, hours, cores, per_second]) = numbers() else {
        eprintln!(
            "simulation-campaign: five numbers: the first seed, how many (0: no end), hours (0: no end), cores, requests a \
             second (0: by the seed)"
        );
        return ExitCode::from(2);
    };
    let started = Instant::now();
    let state = State { all: Report::default(), failed: Vec::new(), told: started };
    let ends = (hours > 0).then(|| started + Duration::from_secs(hours * 3600));
    let per_second = u32::try_from(per_second).unwrap_or(u32::MAX);
    let campaign = Campaign { first, seeds, ends, per_second, next: AtomicU64::new(0), state: Mutex::new(state) };
    std::thread::scope(|scope| {
        (0..cores.max(1)).for_each(|_| _ = scope.spawn(|| campaign.work(started)));
    });
    let state = campaign.state();
    println!("{}", progress(&state, started));
    let all = &state.all;
    let hours = all.virtual_time.as_secs_f64() / 3600.0;
    // The script takes this line into the report.
    println!("totals: {} from {first} | {hours:.2} h | {} | {}", all.seeds, all.line(), state.failed.len());
    if state.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
