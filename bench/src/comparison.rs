//! Two servers under the same loads, in turn.

use anyhow::{Context, Result};
use serde::Serialize;

use crate::closed_loop::Pace;
use crate::connections::Connections;
use crate::metrics_page::MetricsPage;
use crate::process_usage::Processes;
use crate::round::{Ending, MeasuredServer, Round, measure};
use crate::server_process::{ServerProcess, ServerProgram};
use crate::workload::{Load, Sizes, Workload};

/// The warm-up before the first round, as a share of a round.
const WARM_UP_SHARE: f64 = 0.25;

/// What to run.
pub struct Comparison {
    /// The loads, in order.
    pub workloads: Vec<Workload>,
    /// How large they are.
    pub sizes: Sizes,
    /// How long and how fast each round is.
    pub pace: Pace,
    /// How many rounds on each side.
    pub rounds: usize,
}

/// What one load showed on both sides.
#[derive(Debug, Serialize)]
pub struct WorkloadResult {
    /// Name of the load.
    pub workload: String,
    /// The server that the other one is compared with.
    pub left: SideResult,
    /// The other one.
    pub right: SideResult,
}

/// What one load showed on one side.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SideResult {
    /// Each round.
    Rounds(Vec<Round>),
    /// Why it could not be run to the end.
    Failed(String),
}

impl Comparison {
    /// Runs all loads; each has fresh servers on both sides, and its rounds go to the sides in turn.
    ///
    /// A load that one server cannot do fails there, and the others are run all the same.
    pub async fn run(&self, left: &ServerProgram, right: &ServerProgram) -> Vec<WorkloadResult> {
        let mut results = Vec::with_capacity(self.workloads.len());
        for workload in &self.workloads {
            eprintln!("{} ...", workload.name());
            let (left, right) = (Side::open(left, *workload, self), Side::open(right, *workload, self));
            let mut sides: [Side; 2] = tokio::join!(left, right).into();
            for side in &mut sides {
                side.warm_up(self.pace).await;
            }
            for round in 0..self.rounds {
                // Each side goes first in turn: neither always finds what the other left to the machine.
                for turn in [round, round + 1] {
                    sides[turn % 2].round(self.pace).await;
                }
            }
            let [left, right] = sides.map(Side::finish);
            results.push(WorkloadResult { workload: workload.name(), left, right });
        }
        results
    }
}

/// One server under one load.
struct Side {
    state: Result<Prepared>,
    rounds: Vec<Round>,
}

struct Prepared {
    // Dropped in this order: first the callers, then the server.
    load: Box<dyn Load>,
    _server: ServerProcess,
    measured: MeasuredServer,
}

impl Side {
    async fn open(program: &ServerProgram, workload: Workload, comparison: &Comparison) -> Self {
        Self { state: Prepared::open(program, workload, comparison).await, rounds: Vec::new() }
    }

    /// A round that is not shown.
    async fn warm_up(&mut self, pace: Pace) {
        // It ends as rounds do: what it deferred must not be charged to the first of them.
        let ending = Ending::of(pace.duration);
        self.run(Pace { duration: pace.duration.mul_f64(WARM_UP_SHARE), ..pace }, ending).await;
        self.rounds.clear();
    }

    async fn round(&mut self, pace: Pace) {
        self.run(pace, Ending::of(pace.duration)).await;
    }

    /// Does nothing after a failure.
    async fn run(&mut self, pace: Pace, ending: Ending) {
        let Ok(prepared) = &mut self.state else { return };
        match measure(prepared.load.as_mut(), pace, ending, Some(&prepared.measured)).await {
            Ok(round) => self.rounds.push(round),
            Err(error) => self.state = Err(error),
        }
    }

    fn finish(self) -> SideResult {
        match self.state {
            Ok(_) => SideResult::Rounds(self.rounds),
            Err(error) => SideResult::Failed(format!("{error:#}")),
        }
    }
}

impl Prepared {
    async fn open(program: &ServerProgram, workload: Workload, comparison: &Comparison) -> Result<Self> {
        let server = ServerProcess::start(program).await?;
        let endpoints = [server.endpoint().to_owned()];
        let connections = Connections::open(&endpoints, comparison.sizes.connections(), server.entrance()).await?;
        let load = workload.prepare(&connections, &comparison.sizes).await.context("prepare")?;
        let measured = MeasuredServer {
            processes: Processes(vec![server.process()]),
            metrics: MetricsPage::of(server.metrics_url())?,
        };
        Ok(Self { load, _server: server, measured })
    }
}
