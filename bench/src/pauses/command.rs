//! The command and its flags.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use super::report::{Rounds, pauses_table};
use super::side::{Arrivals, Side};
use crate::access::Access;
use crate::server_process::{ServerKind, ServerProgram, side_names};

/// What the command line says.
#[derive(Args, Debug)]
pub struct PausesArgs {
    /// The server to compare with, etcd; half of its peak is the rate
    #[arg(long, value_name = "BIN")]
    left: PathBuf,
    /// The server to judge
    #[arg(long, value_name = "BIN")]
    right: PathBuf,
    /// Puts a second [default: half of the left server's peak, which is measured first]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Seconds of a round
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rounds on each server
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    rounds: u64,
    /// Seconds between compactions; the first comes after three quarters of it
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    compact_every: u64,
    /// Connections to each server
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    connections: u64,
    /// Puts that may be under way; more wait, and count from when they were due
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    callers: u64,
    /// Where the servers' temporary folders are made [default: the system's]
    #[arg(long, value_name = "FOLDER")]
    data_root: Option<PathBuf>,
    /// Threads of this program, beside one that sleeps until puts are due
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub threads: u64,
}

impl PausesArgs {
    /// Measures, and prints the table; says whether no put failed.
    ///
    /// # Errors
    /// A server cannot be started, ends, or refuses to compact.
    pub async fn run(self) -> Result<bool> {
        ensure!(self.compact_every * 3 < self.seconds * 4, "a round of {} s would hold no compaction", self.seconds);
        let names = side_names(&self.left, &self.right);
        let mut sides = [self.open(&self.left).await?, self.open(&self.right).await?];
        let rate = self.rate.map_or(sides[0].peak / 2.0, f64::from);
        let peaks = sides.each_ref().map(|side| side.peak);
        println!(
            "peak: {} {:.0} puts/s, {} {:.0}; {rate:.0} puts/s from here on",
            names[0], peaks[0], names[1], peaks[1]
        );
        let mut servers = names.map(|name| Rounds { name, rounds: Vec::new() });
        for round in 0..self.rounds as usize {
            // Each side goes first in turn: neither always finds what the other left to the machine.
            for turn in [round % 2, (round + 1) % 2] {
                eprintln!("round {} on {} ...", round + 1, servers[turn].name);
                servers[turn].rounds.push(sides[turn].round(self.arrivals(rate)).await?);
            }
        }
        print!("{}", pauses_table(&servers));
        Ok(servers.iter().flat_map(|server| &server.rounds).all(|round| round.errors == 0))
    }

    async fn open(&self, binary: &Path) -> Result<Side> {
        eprintln!("filling {} ...", binary.display());
        let data_root = self.data_root.clone().unwrap_or_else(std::env::temp_dir);
        let program = ServerProgram {
            kind: ServerKind::Etcd(binary.to_path_buf()),
            flags: Vec::new(),
            access: Access::Open,
            data_root,
        };
        Side::open(&program, self.connections as usize, self.callers as usize).await
    }

    fn arrivals(&self, rate: f64) -> Arrivals {
        let compaction_interval = Duration::from_secs(self.compact_every);
        Arrivals { rate, round: Duration::from_secs(self.seconds), compaction_interval }
    }
}
