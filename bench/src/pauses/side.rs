//! One server: filled, and put to again and again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::checkpoint_watch::checkpoint_windows;
use super::compactions::Compactor;
use super::open_loop::open_loop;
use super::samples::Samples;
use crate::closed_loop::{Pace, closed_loop};
use crate::connections::Connections;
use crate::metrics_page::MetricsPage;
use crate::server_process::{ServerProcess, ServerProgram};
use crate::workload::Put;

/// The peak is looked for in so many rounds of so long.
const PEAK_ROUNDS: usize = 4;
const PEAK_ROUND: Duration = Duration::from_secs(4);
/// Callers at the peak, as in all loads of short calls.
const PEAK_CALLERS: usize = 1_000;

/// How puts and compactions come.
#[derive(Clone, Copy)]
pub struct Arrivals {
    /// Puts a second.
    pub rate: f64,
    /// How long a round is.
    pub round: Duration,
    /// Time between two compactions.
    pub compaction_interval: Duration,
}

/// A server with all that runs against it.
pub struct Side {
    /// Dropped in this order: first the callers, then the server.
    callers: Vec<Put>,
    compactor: Compactor,
    metrics: MetricsPage,
    /// Puts a second when callers put as fast as they are answered.
    pub peak: f64,
    _server: ServerProcess,
}

impl Side {
    /// Starts a server, looks for its peak with that filling it with history, and drops the history.
    ///
    /// # Errors
    /// It cannot be started, or refuses.
    pub async fn open(program: &ServerProgram, connections: usize, callers: usize) -> Result<Self> {
        let server = ServerProcess::start(program).await?;
        let connections = Connections::open(&[server.endpoint().to_owned()], connections, server.entrance()).await?;
        let peak = peak(&connections).await.context("look for the peak")?;
        let compactor = Compactor::new(connections.kv(0)).await.context("first compaction")?;
        let metrics = MetricsPage::of(server.metrics_url())?;
        Ok(Self { callers: Put::callers(&connections, callers), compactor, metrics, peak, _server: server })
    }

    /// Puts for the length of a round.
    ///
    /// # Errors
    /// The server is gone, or compactions fail.
    pub async fn round(&mut self, arrivals: Arrivals) -> Result<Samples> {
        let Arrivals { rate, round, compaction_interval } = arrivals;
        let callers = std::mem::take(&mut self.callers);
        let (put, compactions, checkpoints) = tokio::join!(
            open_loop(callers, rate, round),
            self.compactor.run(compaction_interval, round),
            checkpoint_windows(&self.metrics, round),
        );
        let (callers, outcome) = put?;
        self.callers = callers;
        Ok(Samples::of(outcome, round, &compactions?, checkpoints?.as_ref()))
    }
}

/// Puts a second in the fastest of some rounds.
async fn peak(connections: &Connections) -> Result<f64> {
    let (mut callers, mut peak) = (Put::callers(connections, PEAK_CALLERS), 0.0_f64);
    for _ in 0..PEAK_ROUNDS {
        let tally;
        (callers, tally) = closed_loop(callers, Pace { duration: PEAK_ROUND, rate: None }).await?;
        ensure!(tally.errors == 0, "puts fail: {}", tally.first_error.unwrap_or_default());
        peak = peak.max(tally.latencies.total() as f64 / PEAK_ROUND.as_secs_f64());
    }
    Ok(peak)
}
