//! Deferred work gives way to calls: it is done at a low priority, and between two pieces the thread sleeps a multiple of
//! what the first took.
//!
//! A checkpoint of some seconds of puts is a tenth of a second of work for a core and a disk. Done at once, it makes all
//! calls of that time wait for one another; spread out, it costs as much and is hardly noticed (decision 0018).

use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use basalt_storage::disk::Disk;
use basalt_storage::job::{Completions, Job, Step};
use tracing::debug;

/// Sleep for each unit of work: the work takes a ninth of a core.
const SLEEP_FACTOR: u32 = 8;
/// Pieces shorter than this are joined: a sleep costs some 50 µs by itself.
const PIECE_MIN: Duration = Duration::from_micros(500);
/// Longest sleep, after a piece that is not cut.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// What a thread is nicer than its caller: against one such other that wants the same core it has a tenth of it.
const NICER: i32 = 10;
/// The nicest that there is.
const NICE_MAX: i32 = 19;

/// How fast deferred work goes: it is told by those who look at what waits for it.
#[derive(Debug, Default)]
pub struct Pace {
    hurried: Mutex<bool>,
    changed: Condvar,
}

impl Pace {
    /// From now on work goes on without sleep and at the priority of its caller, or with sleeps. One that lasts ends.
    pub fn set_hurried(&self, hurried: bool) {
        *self.hurried.lock().expect("no one panics while holding the pace") = hurried;
        self.changed.notify_all();
    }

    /// Runs `job` to its end; gives its output and how long it took without sleeps.
    ///
    /// It begins on a thread of its own, for a thread that has lowered its priority may not raise it again. Once hurried it
    /// goes on on the calling one.
    ///
    /// # Errors
    /// The job's own.
    pub fn run<J>(&self, job: &mut J, disk: &dyn Disk, budget: usize) -> Result<(J::Output, Duration), J::Error>
    where
        J: Job<Output: Send, Error: Send> + Send,
    {
        let mut work = Work { pace: self, disk, budget, completions: Completions::new(), piece: ZERO, total: ZERO };
        let (job_ref, work_ref) = (&mut *job, &mut work);
        let begun = thread::scope(|scope| {
            let name = "basalt-deferred".to_owned();
            let spawned = thread::Builder::new().name(name).spawn_scoped(scope, || {
                lower_priority();
                work_ref.go_on(job_ref, || self.is_hurried())
            });
            // Without a thread the work is done all the same.
            spawned
                .ok()
                .map_or(Ok(None), |thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let output = match begun? {
            Some(output) => output,
            None => work.go_on(job, || false)?.expect("nothing stops it"),
        };
        Ok((output, work.total))
    }

    fn is_hurried(&self) -> bool {
        *self.hurried.lock().expect("no one panics while holding the pace")
    }

    fn sleep(&self, duration: Duration) {
        let hurried = self.hurried.lock().expect("no one panics while holding the pace");
        drop(self.changed.wait_timeout_while(hurried, duration, |hurried| !*hurried));
    }
}

const ZERO: Duration = Duration::ZERO;

/// The calling thread's. That it cannot be lowered harms nobody.
fn lower_priority() {
    // On Linux, no process means the calling thread.
    let nice = rustix::process::getpriority_process(None).map(|nice| (nice + NICER).min(NICE_MAX));
    if let Err(error) = nice.and_then(|nice| rustix::process::setpriority_process(None, nice)) {
        debug!(%error, "deferred work has the priority of all else");
    }
}

/// A job that runs.
struct Work<'a> {
    pace: &'a Pace,
    disk: &'a dyn Disk,
    budget: usize,
    /// For the next step.
    completions: Completions,
    /// Since the last sleep.
    piece: Duration,
    total: Duration,
}

impl Work<'_> {
    /// Goes on until the job has ended, or, between two steps, until `stops`.
    fn go_on<J: Job>(&mut self, job: &mut J, stops: impl Fn() -> bool) -> Result<Option<J::Output>, J::Error> {
        while !stops() {
            let (completions, budget, disk) = (std::mem::take(&mut self.completions), self.budget, self.disk);
            match self.piece(|| job.step(completions, budget))? {
                Step::Again => {}
                Step::Submit(requests) => {
                    self.completions = requests.into_iter().map(|io| self.piece(|| disk.perform(io))).collect();
                }
                Step::Done(output) => return Ok(Some(output)),
            }
        }
        Ok(None)
    }

    fn piece<T>(&mut self, work: impl FnOnce() -> T) -> T {
        // Before the next piece, so that whoever waits for the last does not wait for a sleep.
        if self.piece >= PIECE_MIN {
            self.pace.sleep((std::mem::take(&mut self.piece) * SLEEP_FACTOR).min(SLEEP_MAX));
        }
        let started = Instant::now();
        let output = work();
        let took = started.elapsed();
        self.piece += took;
        self.total += took;
        output
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::thread::ThreadId;

    use basalt_storage::disk::SimulatedDisk;

    use super::*;

    /// Some steps, each of which takes as long as [`PIECE_MIN`] at least. `hurries` is told before a step.
    struct Steps<H> {
        left: usize,
        on: Vec<ThreadId>,
        hurries: H,
    }

    impl<H: FnMut(usize)> Job for Steps<H> {
        type Output = Vec<ThreadId>;
        type Error = Infallible;

        fn step(&mut self, _: Completions, _: usize) -> Result<Step<Vec<ThreadId>>, Infallible> {
            (self.hurries)(self.left);
            thread::sleep(PIECE_MIN);
            self.on.push(thread::current().id());
            self.left -= 1;
            Ok(if self.left == 0 { Step::Done(std::mem::take(&mut self.on)) } else { Step::Again })
        }
    }

    #[test]
    fn work_sleeps_between_its_pieces_and_its_time_is_told_without_that() {
        let started = Instant::now();
        // Between eleven steps there are ten sleeps.
        let mut steps = Steps { left: 11, on: Vec::new(), hurries: |_| () };
        let Ok((on, work)) = Pace::default().run(&mut steps, &SimulatedDisk::new(1), 1);
        assert!(work >= PIECE_MIN * 10);
        assert!(started.elapsed() - work >= PIECE_MIN * 10 * SLEEP_FACTOR);
        assert!(on.iter().all(|on| *on != thread::current().id()));
    }

    #[test]
    fn work_has_a_lower_priority_than_its_caller() {
        let own = || rustix::process::getpriority_process(None).expect("a thread may ask for its own");
        let (caller, mut deferred) = (own(), None);
        let mut steps = Steps { left: 1, on: Vec::new(), hurries: |_| deferred = Some(own()) };
        let Ok((_, _)) = Pace::default().run(&mut steps, &SimulatedDisk::new(1), 1);
        assert_eq!(deferred, Some((caller + NICER).min(NICE_MAX)));
        assert_eq!(own(), caller);
    }

    #[test]
    fn who_is_hurried_goes_on_at_the_callers_priority() {
        let pace = Pace::default();
        let hurries = |left| {
            if left == 3 {
                pace.set_hurried(true)
            }
        };
        let mut steps = Steps { left: 5, on: Vec::new(), hurries };
        let Ok((on, _)) = pace.run(&mut steps, &SimulatedDisk::new(1), 1);
        let own: Vec<bool> = on.iter().map(|on| *on == thread::current().id()).collect();
        assert_eq!(own, [false, false, false, true, true]);
    }

    #[test]
    fn who_is_hurried_sleeps_no_more_and_ends_the_sleep_that_lasts() {
        let pace = Pace::default();
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| pace.sleep(Duration::from_hours(24)));
            pace.set_hurried(true);
            sleeper.join().expect("it wakes");
        });
        pace.sleep(Duration::from_hours(24));
    }
}
