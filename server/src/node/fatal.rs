//! The end of a node that cannot go on.

use std::error::Error;
use std::io::{self, Write};

use tracing::error;

/// Exit code of a node that stopped itself because of its disk or its data.
pub const EXIT_FATAL: i32 = 1;

/// Stops the process with one clear line. Used where going on could answer wrongly: after a failed sync nobody knows
/// what is durable (DESIGN 3.1).
pub fn stop(doing: &str, cause: &(dyn Error + 'static)) -> ! {
    let causes = causes(cause);
    error!(doing, cause = %causes, "the node stops: restart it when the cause is gone");
    // The last line, in plain words, for whoever looks at a terminal: logs may go to a file.
    // Held to the end, so that no other thread's line comes after it.
    let mut stderr = io::stderr().lock();
    // Nobody is left to hear that this failed.
    _ = writeln!(stderr, "basalt: stopped while {doing}: {causes}; {}", advice(cause));
    std::process::exit(EXIT_FATAL)
}

/// From now on a panic on any thread aborts the process, once its message is on standard error, whatever the profile of the build
/// says: half a node is worse than none.
pub fn abort_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}

/// An error and its causes on one line.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    chain(error).skip(1).fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// What to do next: a disk can be mended, bytes that are not what they were cannot.
fn advice(error: &(dyn Error + 'static)) -> &'static str {
    if chain(error).any(|cause| cause.is::<io::Error>()) {
        "check the disk and its free space, then start again: nothing acknowledged is lost"
    } else {
        "start again; if it stops again, give one of several members the data of the others (basaltctl reseed), or restore a snapshot"
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use basalt_storage::wal::WalError;

    use super::*;

    /// The test runs itself in a process of its own.
    #[test]
    fn a_panic_on_any_thread_ends_the_process() {
        const INSIDE: &str = "BASALT_TEST_PANIC_INSIDE";
        if std::env::var_os(INSIDE).is_some() {
            abort_on_panic();
            _ = std::thread::spawn(|| panic!("half a node")).join();
            std::process::exit(0);
        }
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", "node::fatal::tests::a_panic_on_any_thread_ends_the_process", "--nocapture"]);
        let ended = test.env(INSIDE, "1").output().unwrap();
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.signal(), Some(libc::SIGABRT), "{ended:?}");
        assert!(stderr.contains("half a node"), "{stderr}");
    }

    #[test]
    fn the_last_line_names_all_causes_and_what_helps() {
        let full = WalError::Io { action: "write a batch", source: io::Error::other("No space left on device") };
        assert_eq!(causes(&full), "cannot write a batch: No space left on device");
        assert!(advice(&full).contains("free space"));
        let damaged = WalError::Corrupt { segment: 7, offset: 8192, reason: "a bad length" };
        assert!(advice(&damaged).contains("restore a snapshot"));
    }
}
