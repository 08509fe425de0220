//! What a client is told whose request was not ordered in time (etcd `parseProposeCtxErr`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::service::Service;
use super::status::{self, Status};
use crate::metrics::Metrics;

/// What is known when a request timed out.
struct TimedOut {
    /// How long ago it came.
    waited: Duration,
    /// How long ago the leader was elected; `None` if none ever was.
    elected: Option<Duration>,
    /// See [`Service::election_timeout`].
    election_timeout: Duration,
    /// Whether whoever orders requests was reached since then: from the leader a quorum, else the leader. `None` while nobody
    /// leads.
    reached: Option<bool>,
    /// Whether somebody led when it came. Without a leader etcd does not take a request at all: it waits to hand it over.
    was_led: bool,
}

impl Service {
    /// The answer to a request that came at `since`, when a leader was known or not, and was not ordered in time.
    pub(super) fn proposal_timed_out(&self, since: Instant, was_led: bool) -> Status {
        let (waited, own) = (since.elapsed(), self.node.identity.member_id);
        let reached_since = |id: u64| {
            let reached_for = self.peers.as_ref().and_then(|peers| peers.reached_for(id));
            id == own || reached_for.is_some_and(|time| time > waited)
        };
        let reached = self.node.leader().map(|leader| {
            if leader != own {
                return reached_since(leader);
            }
            let members = self.node.members.load();
            let reached = members.iter().filter(|member| reached_since(member.id)).count();
            reached > members.iter().count() / 2
        });
        let elected_ns = self.node.gauges.leader_since_ns.load(Ordering::Relaxed);
        let elected = (elected_ns > 0).then(|| self.node.now().saturating_sub(Duration::from_nanos(elected_ns)));
        TimedOut { waited, elected, election_timeout: self.election_timeout, reached, was_led }.status()
    }
}

/// A proposal that is waited for: one whose caller waits no longer has failed, as etcd counts it.
pub(super) struct Awaited {
    metrics: Arc<Metrics>,
    completed: bool,
}

impl Awaited {
    pub(super) fn of(metrics: Arc<Metrics>) -> Self {
        Self { metrics, completed: false }
    }

    /// It came to something.
    pub(super) fn completed(mut self) {
        self.completed = true;
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if !self.completed {
            self.metrics.proposals_failed_total.inc();
        }
    }
}

impl TimedOut {
    fn status(&self) -> Status {
        // It came while the leader before was lost, which takes up to two election timeouts to be noticed.
        let came_between = self
            .elected
            .is_some_and(|elected| self.waited > elected && self.waited < elected + 2 * self.election_timeout);
        match self.reached {
            _ if came_between => status::timed_out_after_leader_failure(),
            Some(false) => status::timed_out_without_connection(),
            None if !self.was_led => status::deadline_exceeded(),
            Some(true) | None => status::timed_out(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_what_was_lost_since_the_request_came() {
        let status = |waited, elected: Option<u64>, reached, was_led| {
            let elected = elected.map(Duration::from_secs);
            let (waited, election_timeout) = (Duration::from_secs(waited), Duration::from_secs(1));
            TimedOut { waited, elected, election_timeout, reached, was_led }.status()
        };
        let text = |waited, elected, reached| status(waited, elected, reached, true).message;
        let plain = "etcdserver: request timed out";
        assert_eq!(text(7, None, None), plain);
        assert_eq!(text(7, Some(100), Some(true)), plain);
        assert_eq!(text(7, Some(100), None), plain);
        assert_eq!(text(7, Some(100), Some(false)), format!("{plain}, possibly due to connection lost"));
        // Two seconds before a leader was elected the one before may have been lost.
        assert_eq!(text(7, Some(6), Some(true)), format!("{plain}, possibly due to previous leader failure"));
        assert_eq!(text(7, Some(6), Some(false)), format!("{plain}, possibly due to previous leader failure"));
        assert_eq!(text(7, Some(5), Some(true)), plain);
        assert_eq!(text(7, Some(7), Some(true)), plain);
        // It was never taken.
        assert_eq!(status(7, Some(100), None, false), status::deadline_exceeded());
        assert_eq!(status(7, None, Some(true), false).message, plain);
    }
}
