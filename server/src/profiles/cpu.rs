//! Where the CPU's time goes, for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use super::error::ProfileError;
use super::modules::Modules;
use super::pprof::{Content, Sample, Stack, encode};
use super::threads;
use super::ticks::{PERIOD, TICK_BYTES_MAX, Ticks};

/// Different stacks of one profile at most; 20 MiB of them if all are deep.
const STACKS_MAX: usize = 20_000;
/// How long the recording thread may not notice that nobody waits for it any more.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Records for `span`, and gives a profile in pprof's form. Dropping the future ends it within [`LOOK_INTERVAL`], or when the names
/// of a program that are being read are known.
///
/// # Errors
/// [`ProfileError::InUse`] if one is being recorded or encoded; or the system's.
pub(super) async fn profile(span: Duration) -> Result<Vec<u8>, ProfileError> {
    struct Waits(Arc<AtomicBool>);
    impl Drop for Waits {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let gone = Arc::new(AtomicBool::new(false));
    let _waits = Waits(gone.clone());
    let (send, receive) = oneshot::channel();
    let ticks = Ticks::claim()?;
    let record = move || {
        let profile = record(&ticks, span, || !gone.load(Ordering::Relaxed));
        // Whoever gets it may ask for the next one.
        drop(ticks);
        // Whoever asked may have gone.
        _ = send.send(profile);
    };
    thread::Builder::new()
        .name("basalt-profile".to_owned())
        .spawn(record)
        .map_err(ProfileError::system("thread for a profile"))?;
    receive.await.unwrap_or(Err(ProfileError::Gone))
}

/// One thread's stack, and how often it was met.
type Stacks = HashMap<(u64, Vec<u64>), i64>;

/// The timer is the caller's until the end: encoding takes as much memory as recording, and nobody may begin another meanwhile.
fn record(ticks: &Ticks, span: Duration, is_awaited: impl Fn() -> bool) -> Result<Vec<u8>, ProfileError> {
    // Before the time that is measured: it may take a while, from a cold disk.
    let mut modules = Modules::read()?;
    let (began, began_at, used_before) = (SystemTime::now(), Instant::now(), cpu_time());
    ticks.begin()?;
    let mut bytes = Box::new([0; TICK_BYTES_MAX]);
    let (mut stacks, mut names, mut left_out) = (Stacks::new(), HashMap::new(), 0);
    while let Some(left) = span.checked_sub(began_at.elapsed()).filter(|left| !left.is_zero()) {
        if !is_awaited() {
            return Err(ProfileError::Gone);
        }
        let Some(tick) = ticks.next(&mut bytes, left.min(LOOK_INTERVAL))? else { continue };
        let stack = modules.frames(&tick);
        // A thread may be gone when the profile is written.
        names.entry(tick.thread).or_insert_with(|| threads::name(tick.thread));
        let is_known = stacks.len() < STACKS_MAX;
        match stacks.entry((tick.thread, stack)) {
            std::collections::hash_map::Entry::Occupied(mut known) => *known.get_mut() += 1,
            std::collections::hash_map::Entry::Vacant(new) if is_known => {
                new.insert(1);
            }
            std::collections::hash_map::Entry::Vacant(_) => left_out += 1,
        }
    }
    let (took, used, lost) = (began_at.elapsed(), cpu_time().saturating_sub(used_before), ticks.lost() + left_out);
    ticks.end();
    let content = Content {
        kinds: &[("samples", "count"), ("cpu", "nanoseconds")],
        shown: "cpu",
        period: (("cpu", "nanoseconds"), PERIOD.as_nanos() as i64),
        began,
        took,
        comments: (lost > 0).then(|| format!("{lost} samples were lost")).into_iter().collect(),
        below: "",
    };
    let share = time_of_a_sample(used, stacks.values().sum());
    let sample = |((thread, stack), count): ((u64, Vec<u64>), i64)| Sample {
        stack: Stack::Addresses(stack),
        values: vec![count, count * share],
        labels: vec![("thread", names[&thread].clone())],
    };
    let samples: Vec<_> = stacks.into_iter().map(sample).collect();
    encode(&content, &samples, modules.mapped(), is_awaited)
}

/// What one sample stands for, in nanoseconds. The system ticks no more often than its own clock, whatever the number of cores,
/// so that a sample is one of `PERIOD` on few cores and of more on many.
fn time_of_a_sample(used: Duration, samples: i64) -> i64 {
    let period = PERIOD.as_nanos() as i64;
    let used = i64::try_from(used.as_nanos()).unwrap_or(i64::MAX);
    used.checked_div(samples).map_or(period, |share| share.max(1))
}

/// The CPU's time that this process has used.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::hint::black_box;
    use std::io::Read;
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// Of which nobody would have built a copy into its caller.
    #[inline(never)]
    fn spin_for_the_profile(stop: &AtomicBool) -> u64 {
        let mut sum = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            sum = black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        sum
    }

    /// One test at a time: the timer is the process's.
    static TURN: Mutex<()> = Mutex::new(());

    #[test]
    fn the_timer_is_held_until_the_profile_is_encoded_or_given_up() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // Of no time at all: what is asked is asked by the encoding.
        let asked = Cell::new(0);
        let is_awaited = |answer: bool| {
            asked.set(asked.get() + 1);
            assert!(matches!(Ticks::claim(), Err(ProfileError::InUse)), "somebody else has the timer");
            answer
        };
        let profile = record(&Ticks::claim().expect("free"), Duration::ZERO, || is_awaited(true));
        assert!(profile.is_ok() && asked.get() > 0);
        let given_up = record(&Ticks::claim().expect("free again"), Duration::ZERO, || is_awaited(false));
        assert!(matches!(given_up, Err(ProfileError::Gone)));
        assert!(Ticks::claim().is_ok(), "free in the end");
    }

    #[test]
    fn a_profile_names_what_ran_and_there_is_one_at_a_time() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let stop = Arc::new(AtomicBool::new(false));
        let busy = thread::Builder::new().name("busy".to_owned()).spawn({
            let stop = stop.clone();
            move || spin_for_the_profile(&stop)
        });
        let profile = runtime.block_on(async {
            let first = profile(Duration::from_secs(1));
            let mut first = Box::pin(first);
            assert!(futures_util::poll!(first.as_mut()).is_pending());
            assert!(matches!(profile(Duration::from_secs(1)).await, Err(ProfileError::InUse)));
            first.await.expect("a profile")
        });
        stop.store(true, Ordering::Relaxed);
        busy.expect("a thread").join().expect("it ends");
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(profile.as_slice()).read_to_end(&mut text).expect("gzip");
        for name in ["spin_for_the_profile", "busy", "nanoseconds"] {
            assert!(text.windows(name.len()).any(|found| found == name.as_bytes()), "no {name}");
        }
    }

    #[test]
    fn samples_share_the_time_that_was_used() {
        assert_eq!(time_of_a_sample(Duration::from_secs(1), 100), 10_000_000);
        assert_eq!(time_of_a_sample(Duration::from_secs(8), 100), 80_000_000);
        assert_eq!(time_of_a_sample(Duration::ZERO, 0), 10_000_000);
    }
}
