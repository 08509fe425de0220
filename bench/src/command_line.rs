//! The commands and their flags.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::access::{AccessKind, Entrance};
use crate::closed_loop::Pace;
use crate::comparison::Comparison;
use crate::connections::Connections;
use crate::floor::FloorArgs;
use crate::idle::IdleArgs;
use crate::metrics_page::MetricsPage;
use crate::pauses::PausesArgs;
use crate::process_usage::{ProcessId, Processes};
use crate::report::{comparison_table, is_clean, rounds_table};
use crate::round::{Ending, MeasuredServer, measure};
use crate::server_process::{ServerKind, ServerProgram, side_names};
use crate::workload::{Sizes, Workload};

/// Measures servers that speak etcd's API: CPU time per operation, throughput, latency, memory.
#[derive(Parser, Debug)]
#[command(name = "basalt-bench", args_override_self = true)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Start two servers and run each load on both in turn
    Compare(CompareArgs),
    /// Run one load against a server that is running
    Run(RunArgs),
    /// Compare latencies of puts during compactions and checkpoints with those of calm, on both servers in turn
    Pauses(PausesArgs),
    /// Compare what connections cost in memory that do nothing, on one server after the other
    Idle(IdleArgs),
    /// Be a server without a store: what the loads on keepalives, lists and watched prefixes cost at least
    Floor(FloorArgs),
}

#[derive(Args, Debug)]
struct CompareArgs {
    /// The server to compare with: a program with etcd's flags, or `floor` for one without a store
    #[arg(long, value_name = "BIN")]
    left: PathBuf,
    /// The server to judge, named in the same way
    #[arg(long, value_name = "BIN")]
    right: PathBuf,
    /// Flag for the left server, repeatable
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    left_flag: Vec<String>,
    /// Flag for the right server, repeatable
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    right_flag: Vec<String>,
    /// How clients come to the left server
    #[arg(long, value_enum, default_value_t = AccessKind::Open)]
    left_access: AccessKind,
    /// How clients come to the right server
    #[arg(long, value_enum, default_value_t = AccessKind::Open)]
    right_access: AccessKind,
    /// Loads or families of them, as in `put,get,list` [default: all]
    #[arg(long, value_name = "LOAD,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Where the servers' temporary folders are made [default: the system's]
    #[arg(long, value_name = "FOLDER")]
    data_root: Option<PathBuf>,
    /// Write all rounds to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    effort: Effort,
}

#[derive(Args, Debug)]
struct RunArgs {
    /// URL of the server, `http://host:port`; of several members a comma between, and connections in turn
    #[arg(long, value_name = "URL", value_delimiter = ',', required = true)]
    endpoint: Vec<String>,
    /// The load
    #[arg(long, value_enum)]
    workload: Workload,
    /// Process of the server, on this machine: measures its CPU time and memory; of several members all, with a comma between
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
    #[command(flatten)]
    effort: Effort,
}

#[derive(Args, Debug)]
struct Effort {
    /// Seconds of a round; of 30 and more, a round ends when all that was answered is in a checkpoint
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Rounds on each server
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    rounds: u64,
    /// Calls a second at a fixed rate, instead of as many as are answered; for watches, puts a second
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Threads of this program
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    threads: u64,
    #[command(flatten)]
    sizes: Sizes,
}

impl CommandLine {
    /// Does what was asked; the exit code is 1 if an operation failed.
    ///
    /// # Errors
    /// Nothing could be measured, or a signal came.
    pub fn run(self) -> Result<ExitCode> {
        let threads = match &self.command {
            Command::Compare(compare) => compare.effort.threads,
            Command::Run(run) => run.effort.threads,
            Command::Pauses(pauses) => pauses.threads,
            Command::Idle(_) => 1,
            Command::Floor(floor) => floor.threads,
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(threads as usize).enable_all().build()?;
        runtime.block_on(async {
            let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            // Leaving by a signal drops the servers, and that kills them.
            tokio::select! {
                biased;
                _ = interrupt.recv() => bail!("interrupted"),
                _ = terminate.recv() => bail!("terminated"),
                clean = self.command.run() => Ok(if clean? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
            }
        })
    }
}

impl Command {
    async fn run(self) -> Result<bool> {
        match self {
            Self::Compare(compare) => compare.run().await,
            Self::Run(run) => run.run().await,
            Self::Pauses(pauses) => pauses.run().await,
            Self::Idle(idle) => idle.run().await,
            Self::Floor(floor) => floor.run().await,
        }
    }
}

impl CompareArgs {
    async fn run(self) -> Result<bool> {
        let data_root = self.data_root.unwrap_or_else(std::env::temp_dir);
        let list_keys = self.effort.sizes.list_keys();
        let program = |binary, flags, access: AccessKind| -> Result<ServerProgram> {
            let (kind, access) = (ServerKind::named(binary, list_keys), access.open()?);
            Ok(ServerProgram { kind, flags, access, data_root: data_root.clone() })
        };
        let names = side_names(&self.left, &self.right);
        let left = program(self.left, self.left_flag, self.left_access)?;
        let right = program(self.right, self.right_flag, self.right_access)?;
        let comparison = Comparison {
            workloads: selected(&self.only)?,
            pace: self.effort.pace(),
            rounds: self.effort.rounds as usize,
            sizes: self.effort.sizes,
        };
        let results = comparison.run(&left, &right).await;
        print!("{}", comparison_table(&results, &names[0], &names[1]));
        if let Some(path) = self.json {
            fs::write(&path, serde_json::to_vec_pretty(&results)?)
                .with_context(|| format!("write {}", path.display()))?;
        }
        Ok(is_clean(&results))
    }
}

impl RunArgs {
    async fn run(self) -> Result<bool> {
        let connections =
            Connections::open(&self.endpoint, self.effort.sizes.connections(), &Entrance::default()).await?;
        let mut load = self.workload.prepare(&connections, &self.effort.sizes).await?;
        let metrics = MetricsPage::of(&self.endpoint[0])?;
        let processes = Processes(self.pid.into_iter().map(ProcessId).collect());
        let server = (!processes.0.is_empty()).then_some(MeasuredServer { processes, metrics });
        let (pace, mut rounds) = (self.effort.pace(), Vec::new());
        for _ in 0..self.effort.rounds {
            rounds.push(measure(load.as_mut(), pace, Ending::of(pace.duration), server.as_ref()).await?);
        }
        print!("{}", rounds_table(&self.workload.name(), &self.endpoint.join(","), &rounds));
        Ok(rounds.iter().all(|round| round.errors == 0))
    }
}

impl Effort {
    fn pace(&self) -> Pace {
        Pace { duration: Duration::from_secs(self.seconds), rate: self.rate.map(f64::from) }
    }
}

/// All loads, or those of the given names, each once and in the usual order.
fn selected(names: &[String]) -> Result<Vec<Workload>> {
    use clap::ValueEnum;
    if names.is_empty() {
        return Ok(Workload::value_variants().to_vec());
    }
    let mut chosen = Vec::new();
    for name in names {
        chosen.extend(Workload::named(name)?);
    }
    Ok(Workload::value_variants().iter().copied().filter(|workload| chosen.contains(workload)).collect())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn loads_are_chosen_once_and_in_order() {
        let names = ["get", "put", "get-serializable"].map(str::to_owned);
        let expected = [Workload::Put, Workload::GetLinearizable, Workload::GetSerializable];
        assert_eq!(selected(&names).expect("all known"), expected);
        selected(&["puts".to_owned()]).expect_err("unknown");
    }
}
