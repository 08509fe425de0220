//! How much of a client's talk may be about the connection instead of calls.
//!
//! Frames that carry no call cost the server time and bring nobody an answer. Well-behaved clients send them in proportion
//! to what they are sent: room for more data, pings that measure how fast it comes. So each connection has a budget that
//! data and headers of ours refill, and time a little; floods of any kind empty it at once. One rule for all of them:
//! pings, settings, resets (CVE-2023-44487), continuations (CVE-2024-27316), empty data, window updates, priorities, and
//! whatever kinds are yet to be invented.

use std::time::{Duration, Instant};

use super::frame_heads::FrameHead;

/// A full budget. More than any client says at once: calls given up together are at most as many as were under way.
const POINTS_MAX: u64 = 5_000;
/// What time brings back.
const POINTS_A_SECOND: u64 = 500;
/// What a frame of data or headers that we send brings: for the window of stream and connection, and for a ping.
const POINTS_FOR_A_FRAME: u64 = 4;
/// Clients that make room in small steps do it at worst (Go's own HTTP/2) for each 4 KiB, of stream and connection.
const BYTES_FOR_A_POINT: usize = 2 << 10;
/// Settings may change the window of every open stream. Clients send them once; grpc-go some ten times while it finds out
/// how much data is on its way.
const POINTS_OF_SETTINGS: u64 = 100;
/// The smallest message of gRPC. Data of less is no message, and only as its stream's last any use.
const DATA_BYTES_MIN: usize = 5;

/// The budget of a connection.
#[derive(Debug)]
pub(super) struct ControlBudget {
    points: u64,
    /// Until when time was counted.
    filled_at: Instant,
}

impl ControlBudget {
    pub(super) fn new(now: Instant) -> Self {
        Self { points: POINTS_MAX, filled_at: now }
    }

    /// What a frame of the client costs. Calls cost nothing here: others bound how many there are.
    pub(super) fn cost(head: FrameHead) -> u64 {
        match head.kind {
            FrameHead::HEADERS => 0,
            FrameHead::DATA => {
                let is_small = head.length < DATA_BYTES_MIN && !head.has(FrameHead::END_STREAM);
                // Content may hide in padding, and padding may be all there is; gRPC has no use for it.
                u64::from(is_small || head.has(FrameHead::PADDED))
            }
            FrameHead::SETTINGS => POINTS_OF_SETTINGS,
            _ => 1,
        }
    }

    /// Takes what frames cost; `false` if there is not so much.
    pub(super) fn spend(&mut self, points: u64, now: Instant) -> bool {
        // Whole points only: what is left of the time counts the next time.
        let earned = now.saturating_duration_since(self.filled_at).as_millis() as u64 * POINTS_A_SECOND / 1_000;
        self.filled_at += Duration::from_millis(earned * 1_000 / POINTS_A_SECOND);
        self.earn(earned);
        let left = self.points.checked_sub(points);
        self.points = left.unwrap_or(0);
        left.is_some()
    }

    /// We have sent a frame.
    pub(super) fn sent(&mut self, head: FrameHead) {
        if matches!(head.kind, FrameHead::DATA | FrameHead::HEADERS) {
            self.earn(POINTS_FOR_A_FRAME + (head.length / BYTES_FOR_A_POINT) as u64);
        }
    }

    fn earn(&mut self, points: u64) {
        self.points = (self.points + points).min(POINTS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(kind: u8, flags: u8, length: usize) -> FrameHead {
        FrameHead { length, kind, flags, stream: 1 }
    }

    #[test]
    fn calls_are_free_and_all_else_is_not() {
        for kind in 2..=255 {
            assert!(ControlBudget::cost(head(kind, 0, 8)) > 0, "kind {kind}");
        }
        assert_eq!(ControlBudget::cost(head(FrameHead::HEADERS, 0, 40)), 0);
        assert_eq!(ControlBudget::cost(head(FrameHead::DATA, 0, 5)), 0);
        assert_eq!(ControlBudget::cost(head(FrameHead::DATA, FrameHead::END_STREAM, 0)), 0);
        assert_eq!(ControlBudget::cost(head(FrameHead::DATA, 0, 4)), 1);
        assert_eq!(ControlBudget::cost(head(FrameHead::DATA, FrameHead::PADDED, 200)), 1);
    }

    #[test]
    fn a_budget_is_spent_once_and_time_brings_back_little() {
        let start = Instant::now();
        let mut budget = ControlBudget::new(start);
        assert!(budget.spend(POINTS_MAX, start));
        assert!(!budget.spend(1, start));
        // In small steps and in large ones.
        let mut earned = 0;
        for milliseconds in 1..=1_000 {
            while budget.spend(1, start + Duration::from_millis(milliseconds)) {
                earned += 1;
            }
        }
        assert_eq!(earned, POINTS_A_SECOND);
        let later = start + Duration::from_secs(3_600);
        assert!(budget.spend(POINTS_MAX, later) && !budget.spend(1, later));
    }

    #[test]
    fn who_is_sent_much_may_say_much() {
        let now = Instant::now();
        let mut budget = ControlBudget::new(now);
        for _ in 0..100_000 {
            budget.sent(head(FrameHead::DATA, 0, 16 << 10));
            // Go's own HTTP/2: four updates each of stream and connection; and a ping.
            assert!(budget.spend(9, now));
        }
        for _ in 0..POINTS_MAX {
            budget.sent(head(FrameHead::PING, FrameHead::ACK, 8));
        }
        assert!(!budget.spend(POINTS_MAX + 1, now));
    }
}
