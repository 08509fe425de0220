//! One round of a load on one server, measured.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::checkpoints::{Checkpoints, all_checkpointed};
use crate::closed_loop::Pace;
use crate::metrics_page::MetricsPage;
use crate::process_usage::{Memory, ProcessId, Processes, TICK};
use crate::workload::Load;

/// After the load the server's CPU time is counted on until it is quiet, so that deferred work is not lost.
const QUIET_WINDOW: Duration = Duration::from_millis(100);
/// A server at rest uses some CPU; a tick in the window is as little as can be seen.
const QUIET_CPU: Duration = TICK;
const SETTLE_MAX: Duration = Duration::from_secs(3);

/// From this length on a round ends when all that was answered is in a checkpoint.
pub const HONEST_ROUND: Duration = Duration::from_secs(30);

/// A server whose process is on this machine.
#[derive(Clone, Debug)]
pub struct MeasuredServer {
    /// Its process, or those of its members.
    pub processes: Processes,
    /// Where it tells of its checkpoints.
    pub metrics: MetricsPage,
}

/// When a round ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The server is quiet: for seeing a change.
    Quiet,
    /// All that was answered is in a checkpoint, and the server is quiet: for claims. A server that knows no checkpoints
    /// is not waited for.
    Checkpointed,
}

impl Ending {
    /// The ending of rounds of a length.
    pub fn of(round: Duration) -> Self {
        if round >= HONEST_ROUND { Self::Checkpointed } else { Self::Quiet }
    }
}

/// What one round showed.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// Operations that succeeded.
    pub operations: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Why the first of them failed.
    pub first_error: Option<String>,
    /// Operations a second.
    pub throughput: f64,
    /// Half of the operations took no longer.
    pub p50_ms: f64,
    /// 99 % of the operations took no longer.
    pub p99_ms: f64,
    /// CPU time of this program for each operation: where it nears its threads, throughput is its own.
    pub client_cpu_us: f64,
    /// What the server used; `None` for a server whose process is not known.
    pub server: Option<ServerUse>,
}

/// What the server process used in a round.
#[derive(Clone, Debug, Serialize)]
pub struct ServerUse {
    /// CPU time of the server for each operation, its deferred work included as far as it ended before the next round.
    pub cpu_us: f64,
    /// Resident at the end.
    pub resident_mib: f64,
    /// Most that was resident.
    pub peak_mib: f64,
    /// Checkpoints that ended in the round; `None` if they were not waited for, or the server knows none.
    pub checkpoints: Option<u64>,
}

/// Runs the load once and takes the CPU time, also of the server if its process is given.
///
/// # Errors
/// The server is gone, its checkpoints do not end, or no operation succeeded.
pub async fn measure(
    load: &mut dyn Load,
    pace: Pace,
    ending: Ending,
    server: Option<&MeasuredServer>,
) -> Result<Round> {
    let server = match server {
        Some(server) => Some(ServerBefore::look(server, ending).await?),
        None => None,
    };
    let (start, client_before) = (Instant::now(), ProcessId::own().cpu()?);
    let tally = load.round(pace).await?;
    let (elapsed, client_cpu) = (start.elapsed(), ProcessId::own().cpu()? - client_before);

    let operations = tally.latencies.total();
    let (Some(p50), Some(p99)) = (tally.latencies.quantile(0.5), tally.latencies.quantile(0.99)) else {
        bail!("no operation succeeded: {}", tally.first_error.as_deref().unwrap_or("none was begun"));
    };
    let server = match server {
        Some(before) => Some(before.used(operations).await?),
        None => None,
    };
    Ok(Round {
        operations,
        errors: tally.errors,
        first_error: tally.first_error,
        throughput: operations as f64 / elapsed.as_secs_f64(),
        p50_ms: p50.as_secs_f64() * 1e3,
        p99_ms: p99.as_secs_f64() * 1e3,
        client_cpu_us: micros_each(client_cpu, operations),
        server,
    })
}

/// A server as it was before a round.
struct ServerBefore<'a> {
    server: &'a MeasuredServer,
    cpu: Duration,
    /// `None` if they are not waited for.
    checkpoints: Option<Checkpoints>,
}

impl<'a> ServerBefore<'a> {
    async fn look(server: &'a MeasuredServer, ending: Ending) -> Result<Self> {
        // Refused for a process of another user; the peak then counts from its start.
        let _ = server.processes.reset_peak();
        let checkpoints = match ending {
            Ending::Quiet => None,
            // A server without such a page knows no checkpoints either.
            Ending::Checkpointed => server.metrics.read().await.ok().as_ref().and_then(Checkpoints::of),
        };
        Ok(Self { server, cpu: server.processes.cpu()?, checkpoints })
    }

    /// What it used until its deferred work was done.
    async fn used(self, operations: u64) -> Result<ServerUse> {
        let checkpoints = match self.checkpoints {
            Some(before) => Some(all_checkpointed(&self.server.metrics, before).await?.ended - before.ended),
            None => None,
        };
        let process = &self.server.processes;
        let cpu = settled_cpu(process).await? - self.cpu;
        let Memory { resident_bytes, peak_bytes } = process.memory()?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (resident_mib, peak_mib) = (mib(resident_bytes), mib(peak_bytes));
        Ok(ServerUse { cpu_us: micros_each(cpu, operations), resident_mib, peak_mib, checkpoints })
    }
}

/// CPU time of the process once it is quiet, or after [`SETTLE_MAX`].
async fn settled_cpu(process: &Processes) -> Result<Duration> {
    let deadline = Instant::now() + SETTLE_MAX;
    let mut before = process.cpu()?;
    loop {
        sleep(QUIET_WINDOW).await;
        let after = process.cpu()?;
        if after - before <= QUIET_CPU || Instant::now() >= deadline {
            return Ok(after);
        }
        before = after;
    }
}

fn micros_each(cpu: Duration, operations: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / operations as f64
}
