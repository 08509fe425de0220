//! The end of a node that cannot go on.

use tracing::error;

/// Exit code of a node that stopped itself because of its disk or its data.
pub const EXIT_FATAL: i32 = 1;

/// Stops the process with one clear line. Used where going on could answer wrongly: after a failed sync nobody knows
/// what is durable (DESIGN 3.1).
pub fn stop(doing: &str, cause: &dyn std::error::Error) -> ! {
    let mut causes = cause.to_string();
    let mut source = cause.source();
    while let Some(next) = source {
        causes = format!("{causes}: {next}");
        source = next.source();
    }
    error!(doing, cause = %causes, "the node stops: restart it when the cause is gone");
    std::process::exit(EXIT_FATAL)
}
