//! The threads of this process, as the system sees them.

use std::fs;
use std::time::{Duration, SystemTime};

use super::error::ProfileError;
use super::pprof::{Content, Sample, Stack, encode};

/// Ticks of a second in `/proc`: Linux' USER_HZ, which is 100 wherever Rust runs.
const TICKS_PER_SECOND: f64 = 100.0;

/// A thread.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Thread {
    /// The system's number of it.
    pub(super) number: u64,
    /// Its name, of which the system keeps 15 bytes.
    pub(super) name: String,
    /// What it does: `running` and so on.
    pub(super) state: &'static str,
    /// CPU's time in the program, in seconds.
    pub(super) user: f64,
    /// CPU's time in the system, in seconds.
    pub(super) system: f64,
}

/// The name of a thread; its number if it is gone.
pub(super) fn name(number: u64) -> String {
    let name = fs::read_to_string(format!("/proc/self/task/{number}/comm"));
    name.map_or_else(|_| number.to_string(), |name| name.trim_end().to_owned())
}

/// All threads, by number. One that ends meanwhile is left out.
pub(super) fn all() -> std::io::Result<Vec<Thread>> {
    let numbers = fs::read_dir("/proc/self/task")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let read = |number: u64| parse(number, &fs::read_to_string(format!("/proc/self/task/{number}/stat")).ok()?);
    let mut threads: Vec<_> = numbers.filter_map(read).collect();
    threads.sort_by_key(|thread| thread.number);
    Ok(threads)
}

/// Reads a line of `stat` (proc(5)). A name may hold anything, brackets too.
fn parse(number: u64, stat: &str) -> Option<Thread> {
    let (begin, rest) = stat.rsplit_once(')')?;
    let (_, name) = begin.split_once('(')?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let seconds = |field: usize| Some(fields.get(field)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
    let state = match *fields.first()? {
        "R" => "running",
        "S" => "sleeping",
        "D" => "waiting for a disk",
        "T" | "t" => "stopped",
        "Z" | "X" => "ended",
        _ => "idle",
    };
    Some(Thread { number, name: name.to_owned(), state, user: seconds(11)?, system: seconds(12)? })
}

/// A table of them, for people.
pub(super) fn table(threads: &[Thread]) -> String {
    let mut text = format!(
        "threads: {}\n\n{:>10} {:>10} {:>10}  {:<18} name\n",
        threads.len(),
        "thread",
        "user s",
        "system s",
        "state"
    );
    for thread in threads {
        let Thread { number, name, state, user, system } = thread;
        text += &format!("{number:>10} {user:>10.2} {system:>10.2}  {state:<18} {name}\n");
    }
    text
}

/// The same for `go tool pprof`: a sample each, with its name and state as labels, for a thread's stack is only known while it
/// runs.
pub(super) fn profile(threads: &[Thread]) -> Result<Vec<u8>, ProfileError> {
    let content = Content {
        kinds: &[("threads", "count"), ("cpu", "nanoseconds")],
        shown: "threads",
        period: (("threads", "count"), 1),
        began: SystemTime::now(),
        took: Duration::ZERO,
        comments: Vec::new(),
        below: "",
    };
    let nanoseconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default().as_nanos();
    let sample = |thread: &Thread| Sample {
        stack: Stack::Named(thread.name.clone()),
        values: vec![1, nanoseconds(thread.user + thread.system).try_into().unwrap_or(i64::MAX)],
        labels: vec![("thread", thread.number.to_string()), ("state", thread.state.to_owned())],
    };
    let samples: Vec<_> = threads.iter().map(sample).collect();
    encode(&content, &samples, &[], || true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_brackets() {
        let stat = "17 (a) (b) S 1 2 3 0 -1 4194368 10 0 0 0 250 31 0 0 20 0 9 0 1 1 1";
        let thread = Thread { number: 17, name: "a) (b".to_owned(), state: "sleeping", user: 2.5, system: 0.31 };
        assert_eq!(parse(17, stat), Some(thread));
        assert_eq!(parse(17, "17 (a) S 1"), None);
        assert_eq!(parse(17, "nothing"), None);
    }

    #[test]
    fn this_thread_is_among_them() {
        let threads = all().expect("/proc");
        assert!(threads.iter().any(|thread| thread.state == "running"));
        assert_eq!(table(&threads).lines().count(), threads.len() + 3);
    }
}
