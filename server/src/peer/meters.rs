//! What is counted of other members, under etcd's names: a series for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus::{IntCounter, IntGauge};

use crate::metrics::Metrics;

/// Counters of the way to and from one member.
#[derive(Clone)]
pub(super) struct MemberMeters {
    metrics: Arc<Metrics>,
    local: String,
    remote: String,
    active: IntGauge,
    sent_bytes: IntCounter,
    sent_failures: IntCounter,
}

impl MemberMeters {
    pub(super) fn new(metrics: &Arc<Metrics>, local: u64, remote: u64) -> Self {
        let (local, remote) = (format!("{local:x}"), format!("{remote:x}"));
        Self {
            active: metrics.active_peers.with_label_values(&[&local, &remote]),
            sent_bytes: metrics.peer_sent_bytes.with_label_values(&[&remote]),
            sent_failures: metrics.peer_sent_failures_total.with_label_values(&[&remote]),
            metrics: metrics.clone(),
            local,
            remote,
        }
    }

    /// The member is reached.
    pub(super) fn opened(&self) {
        self.active.set(1);
    }

    /// It was, and is no more.
    pub(super) fn closed(&self) {
        self.active.set(0);
        self.metrics.disconnected_peers_total.with_label_values(&[&self.local, &self.remote]).inc();
    }

    /// So many bytes of messages left.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent_bytes.inc_by(bytes as u64);
    }

    /// A message was lost, or a stream did not come about.
    pub(super) fn failed(&self) {
        self.sent_failures.inc();
    }
}

/// One stream from a member.
pub struct ReceivedMeters {
    bytes: IntCounter,
    failures: IntCounter,
}

impl ReceivedMeters {
    /// Of member `from`.
    pub(super) fn new(metrics: &Metrics, from: u64) -> Self {
        let from = format!("{from:x}");
        Self {
            bytes: metrics.peer_received_bytes.with_label_values(&[&from]),
            failures: metrics.peer_received_failures_total.with_label_values(&[&from]),
        }
    }

    /// So many bytes of messages came.
    pub fn received(&self, bytes: usize) {
        self.bytes.inc_by(bytes as u64);
    }

    /// What came cannot be used.
    pub fn failed(&self) {
        self.failures.inc();
    }
}

/// Which way a whole state goes.
#[derive(Clone, Copy)]
enum Direction {
    Sent,
    Received,
}

/// A whole state on its way. One that is given up has failed.
pub struct StateMeters {
    metrics: Arc<Metrics>,
    member: String,
    direction: Direction,
    began: Instant,
    bytes: Arc<AtomicU64>,
    ended: bool,
}

impl StateMeters {
    /// To a member.
    pub(super) fn sending(metrics: &Arc<Metrics>, to: u64) -> Self {
        Self::begin(metrics, to, Direction::Sent)
    }

    /// From a member.
    pub(super) fn receiving(metrics: &Arc<Metrics>, from: u64) -> Self {
        Self::begin(metrics, from, Direction::Received)
    }

    fn begin(metrics: &Arc<Metrics>, member: u64, direction: Direction) -> Self {
        let meters = Self {
            metrics: metrics.clone(),
            member: format!("{member:x}"),
            direction,
            began: Instant::now(),
            bytes: Arc::default(),
            ended: false,
        };
        meters.under_way().inc();
        meters
    }

    /// How many bytes went over so far; lives on its own.
    pub(super) fn progress(&self) -> Arc<AtomicU64> {
        self.bytes.clone()
    }

    /// A part went over.
    pub fn part(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let family = match self.direction {
            Direction::Sent => &self.metrics.peer_sent_bytes,
            Direction::Received => &self.metrics.peer_received_bytes,
        };
        family.with_label_values(&[&self.member]).inc_by(bytes as u64);
    }

    /// All of it did.
    pub fn arrived(mut self) {
        self.ended = true;
        let (count, seconds) = match self.direction {
            Direction::Sent => (&self.metrics.snapshot_send_success, &self.metrics.snapshot_send_seconds),
            Direction::Received => (&self.metrics.snapshot_receive_success, &self.metrics.snapshot_receive_seconds),
        };
        let took = self.began.elapsed().as_secs_f64();
        count.with_label_values(&[&self.member]).inc();
        seconds.with_label_values(&[&self.member]).observe(took);
        if matches!(self.direction, Direction::Received) {
            // It is written down as it comes.
            self.metrics.snap_db_save_seconds.observe(took);
        }
    }

    fn under_way(&self) -> IntGauge {
        let family = match self.direction {
            Direction::Sent => &self.metrics.snapshot_send_inflight,
            Direction::Received => &self.metrics.snapshot_receive_inflight,
        };
        family.with_label_values(&[&self.member])
    }
}

impl Drop for StateMeters {
    fn drop(&mut self) {
        self.under_way().dec();
        if !self.ended {
            let failures = match self.direction {
                Direction::Sent => &self.metrics.snapshot_send_failures,
                Direction::Received => &self.metrics.snapshot_receive_failures,
            };
            failures.with_label_values(&[&self.member]).inc();
        }
    }
}

/// How long a question to a member and its answer took.
pub(super) fn round_trip(metrics: &Metrics, member: u64, took: Duration) {
    metrics.peer_round_trip_seconds.with_label_values(&[&format!("{member:x}")]).observe(took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_is_given_up_has_failed() {
        let metrics = Arc::new(Metrics::default());
        StateMeters::sending(&metrics, 10).arrived();
        let sending = StateMeters::sending(&metrics, 10);
        sending.part(7);
        let page = metrics.render();
        let shows = |page: &str, line: &str| assert!(page.contains(line), "{line}");
        shows(&page, "etcd_network_snapshot_send_success{To=\"a\"} 1");
        shows(&page, "etcd_network_snapshot_send_inflights_total{To=\"a\"} 1");
        shows(&page, "etcd_network_peer_sent_bytes_total{To=\"a\"} 7");
        drop(sending);
        let page = metrics.render();
        shows(&page, "etcd_network_snapshot_send_failures{To=\"a\"} 1");
        shows(&page, "etcd_network_snapshot_send_inflights_total{To=\"a\"} 0");
    }

    #[test]
    fn a_member_that_was_reached_and_is_no_more_is_counted() {
        let metrics = Arc::new(Metrics::default());
        let meters = MemberMeters::new(&metrics, 1, 2);
        meters.opened();
        assert!(metrics.render().contains("etcd_network_active_peers{Local=\"1\",Remote=\"2\"} 1"));
        meters.closed();
        let page = metrics.render();
        assert!(page.contains("etcd_network_active_peers{Local=\"1\",Remote=\"2\"} 0"));
        assert!(page.contains("etcd_network_disconnected_peers_total{Local=\"1\",Remote=\"2\"} 1"));
    }
}
