//! What a server says of its checkpoints, and waiting until one has everything.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

use crate::metrics_page::{Metrics, MetricsPage};

const ENDED: &str = "basalt_checkpoint_duration_seconds_count";
const SECONDS: &str = "basalt_checkpoint_duration_seconds_sum";
const UNKEPT_BYTES: &str = "basalt_shard_delta_bytes";

const POLL: Duration = Duration::from_millis(200);
/// Longer than any checkpoint that is still healthy.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// A checkpoint begins within five seconds of a change; this much later none is to come. Leases need it: they are in
/// checkpoints, but no bytes of a shard.
const IDLE: Duration = Duration::from_secs(6);

/// The checkpoints of a server up to one time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Checkpoints {
    /// How many have ended.
    pub ended: u64,
    /// How long all of them took together.
    pub took: Duration,
    /// Bytes that only the log holds yet.
    unkept_bytes: f64,
}

impl Checkpoints {
    /// What the page says; `None` for a server that knows no checkpoints, as etcd.
    pub fn of(metrics: &Metrics) -> Option<Self> {
        let took = Duration::try_from_secs_f64(metrics.sum(SECONDS)?).ok()?;
        Some(Self { ended: metrics.sum(ENDED)? as u64, took, unkept_bytes: metrics.sum(UNKEPT_BYTES)? })
    }

    /// Whether all that was answered before `wait.answered` is kept. `previous` was read at `previous_at`.
    fn has_all(&self, wait: &Wait, previous: &Self, previous_at: Instant) -> bool {
        // The newest one ended after the previous look, so it began no earlier than this.
        let frozen = previous_at.checked_sub(self.took.saturating_sub(previous.took));
        let one_began_after = self.ended > previous.ended && frozen.is_some_and(|frozen| frozen >= wait.answered);
        let none_was_needed = self.ended == wait.before_load.ended;
        let none_is_to_come = previous_at >= wait.answered + IDLE;
        self.unkept_bytes == 0.0 && (one_began_after || none_was_needed || none_is_to_come)
    }
}

/// What is waited for.
struct Wait {
    before_load: Checkpoints,
    answered: Instant,
}

/// Waits until checkpoints have all that was answered up to now; returns the last state.
///
/// # Errors
/// It is not so in two minutes, or the page cannot be read.
pub async fn all_checkpointed(page: &MetricsPage, before_load: Checkpoints) -> Result<Checkpoints> {
    let wait = Wait { before_load, answered: Instant::now() };
    let (mut previous, mut previous_at) = (before_load, wait.answered);
    while wait.answered.elapsed() < WAIT_MAX {
        let at = Instant::now();
        let current = Checkpoints::of(&page.read().await?).context("the metrics of checkpoints are gone")?;
        if current.has_all(&wait, &previous, previous_at) {
            return Ok(current);
        }
        (previous, previous_at) = (current, at);
        sleep(POLL).await;
    }
    bail!("not everything is in a checkpoint after {WAIT_MAX:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ended: u64, took_ms: u64, unkept_bytes: f64) -> Checkpoints {
        Checkpoints { ended, took: Duration::from_millis(took_ms), unkept_bytes }
    }

    #[test]
    fn a_page_of_etcd_knows_no_checkpoints() {
        let page = "basalt_checkpoint_duration_seconds_sum 1.5\nbasalt_checkpoint_duration_seconds_count 3\n\
                    basalt_shard_delta_bytes{shard=\"main\"} 4\nbasalt_shard_delta_bytes{shard=\"events\"} 5\n";
        assert_eq!(Checkpoints::of(&Metrics::of(page)), Some(seen(3, 1500, 9.0)));
        assert_eq!(Checkpoints::of(&Metrics::of("etcd_server_has_leader 1\n")), None);
    }

    #[test]
    fn all_is_kept_once_a_checkpoint_began_after_the_last_answer() {
        let wait = Wait { before_load: seen(2, 100, 0.0), answered: Instant::now() };
        let at = |milliseconds| wait.answered + Duration::from_millis(milliseconds);
        let previous = seen(5, 400, 70.0);
        // Began 300 ms before its end, which is after the previous look.
        assert!(seen(6, 700, 0.0).has_all(&wait, &previous, at(300)));
        assert!(!seen(6, 700, 0.0).has_all(&wait, &previous, at(299)), "may have begun before");
        assert!(!seen(6, 700, 1.0).has_all(&wait, &previous, at(300)), "bytes are left");
        assert!(!seen(5, 400, 0.0).has_all(&wait, &previous, at(5999)), "leases may be left");
        assert!(seen(5, 400, 0.0).has_all(&wait, &previous, at(6000)));
        assert!(seen(2, 100, 0.0).has_all(&wait, &wait.before_load, at(0)), "nothing was written");
    }
}
