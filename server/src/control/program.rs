//! From arguments to an exit code.

use std::io::Write;
use std::process::ExitCode;

use super::command_line::{self, Command};
use super::{check, cluster, help, restore, status};
use crate::config::version_text;
use crate::gateway;
use crate::node::fatal::causes;

/// For a command line that cannot be parsed.
const EXIT_USAGE: u8 = 2;
/// For a check that could not look.
const EXIT_NOT_CHECKED: u8 = 2;

/// Runs the program; gives its exit code.
pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let command = match command_line::read(&args) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("basaltctl: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match command {
        Command::Help(topic) => done(help::text(topic)),
        Command::Version => done(&version_text()),
        Command::OpenApi => done(&open_api()),
        Command::Restore(options) => asked(restore::restore(&options)),
        Command::Status(file) => end(status::status(&file)),
        Command::ClusterStatus(options) => asked(cluster::status(&options)),
        Command::Member(command, options) => asked(cluster::run_member(&command, &options)),
        Command::Reseed(options, cluster) => asked(cluster::reseed(&options, &cluster)),
        Command::Check(options) => match check::check(&options) {
            Ok((text, damaged)) => {
                print!("{text}");
                if damaged { ExitCode::FAILURE } else { ExitCode::SUCCESS }
            }
            Err(error) => {
                eprintln!("basaltctl: {}", causes(&error));
                ExitCode::from(EXIT_NOT_CHECKED)
            }
        },
    }
}

fn open_api() -> String {
    format!("{:#}\n", gateway::document(env!("CARGO_PKG_VERSION")))
}

/// Asks a cluster, or a resolver.
fn asked<E: std::error::Error + 'static>(question: impl Future<Output = Result<String, E>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => end(runtime.block_on(question)),
        Err(error) => {
            eprintln!("basaltctl: cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

fn done(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("basaltctl: cannot print: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what came of it.
fn end<E: std::error::Error + 'static>(result: Result<String, E>) -> ExitCode {
    match result {
        Ok(text) => done(&text),
        Err(error) => {
            eprintln!("basaltctl: {}", causes(&error));
            ExitCode::FAILURE
        }
    }
}
