//! A look at every other member now and then: how long the way is, and whether its clock is ours (etcd's prober).

use std::sync::Arc;
use std::time::{Duration, Instant};

use basalt_proto::peer::PingRequest;
use tracing::warn;

use super::meters::round_trip;
use super::peers::Peers;
use crate::node::handle::unix_time_ns;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(4);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How long a member takes that is there and well.
const AT_ONCE: Duration = Duration::from_millis(500);
/// Clocks that differ by more are told of (etcd: the same). Nothing hangs on them but the times in logs and certificates.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(1);
/// Looks between two lines about one clock.
const TOLD_EVERY: u32 = 15;

impl Peers {
    /// Looks, for ever.
    pub async fn probe(self: Arc<Self>) {
        let mut looks = 0u32;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let members = self.members.load_full();
            for id in members.iter().map(|member| member.id).filter(|id| *id != self.identity.member_id) {
                let (peers, tells) = (self.clone(), looks.is_multiple_of(TOLD_EVERY));
                tokio::spawn(async move { peers.look_at(id, tells).await });
            }
            looks = looks.wrapping_add(1);
        }
    }

    /// Whether a member answers at once.
    pub async fn is_there(&self, member: u64) -> bool {
        let asked = async {
            let Ok(mut client) = self.client(member).await else { return false };
            let request = PingRequest { cluster_id: self.identity.cluster_id };
            let answer = client.ping(request).await;
            self.checked(member, answer).await.is_ok()
        };
        tokio::time::timeout(AT_ONCE, asked).await.unwrap_or(false)
    }

    async fn look_at(&self, member: u64, tells: bool) {
        // The connection may have to be made first, which is no part of the way.
        let Ok(Ok(mut client)) = tokio::time::timeout(TIMEOUT, self.client(member)).await else { return };
        let (began, before) = (Instant::now(), unix_time_ns());
        let request = PingRequest { cluster_id: self.identity.cluster_id };
        let answer = match tokio::time::timeout(TIMEOUT, client.ping(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(tonic::Status::deadline_exceeded("no answer in time")),
        };
        let took = began.elapsed();
        // A member that cannot be asked is told of by its streams.
        let Ok(answer) = self.checked(member, answer).await else { return };
        round_trip(&self.metrics, member, took);
        let difference = clock_difference(before, took, answer.time_unix_ns);
        let label = format!("{member:x}");
        self.metrics.peer_clock_difference_seconds.with_label_values(&[&label]).set(difference as f64 / 1e9);
        if tells && difference.unsigned_abs() > CLOCK_DIFFERENCE_MAX.as_nanos() as u64 {
            warn!(
                remote_peer_id = label,
                clock_drift_ms = difference / 1_000_000,
                rtt_ms = took.as_millis() as u64,
                "prober found high clock drift"
            );
        }
    }
}

/// How much later the other clock is, ns, if it was read in the middle.
fn clock_difference(before_ns: i64, took: Duration, theirs_ns: i64) -> i64 {
    let half = i64::try_from(took.as_nanos() / 2).unwrap_or(i64::MAX);
    theirs_ns.saturating_sub(before_ns.saturating_add(half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_is_no_part_of_the_difference() {
        assert_eq!(clock_difference(1_000, Duration::from_nanos(200), 1_100), 0);
        assert_eq!(clock_difference(1_000, Duration::from_nanos(200), 600), -500);
        assert_eq!(clock_difference(i64::MAX, Duration::MAX, i64::MIN), i64::MIN);
    }
}
