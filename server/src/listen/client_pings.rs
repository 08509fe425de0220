//! How often a client may ping (etcd-contract 55), by the rules of grpc-go's server (`handlePing` in `http2_server.go`).
//!
//! A ping is too early if it comes sooner after the last one than the flag allows, or, where no call is open, than two hours.
//! Two early ones are forgiven. Whatever we send of a call starts anew: the next ping is free, and nothing is held against
//! the client any more.

use std::time::{Duration, Instant};

/// Pings too early that are forgiven (grpc-go `maxPingStrikes`).
const STRIKES_MAX: u32 = 2;
/// Least time between two pings of a client that has no call open (grpc-go `defaultPingTimeout`).
const IDLE_INTERVAL_MIN: Duration = Duration::from_secs(2 * 60 * 60);

/// The pings of a client.
#[derive(Debug)]
pub(super) struct ClientPings {
    interval_min: Duration,
    last: Option<Instant>,
    strikes: u32,
    /// Whether a call was sent something since the last ping.
    forgiven: bool,
    /// Pings that were too early if no call is open, which is not known amid a turn.
    in_doubt: u32,
}

impl ClientPings {
    /// Pings less than `interval_min` apart are too early, in any case if they are less than two hours apart.
    pub(super) fn new(interval_min: Duration) -> Self {
        Self { interval_min: interval_min.min(IDLE_INTERVAL_MIN), last: None, strikes: 0, forgiven: false, in_doubt: 0 }
    }

    /// A ping came.
    pub(super) fn came(&mut self, now: Instant) {
        let since = self.last.replace(now).map(|last| now.saturating_duration_since(last));
        if std::mem::take(&mut self.forgiven) {
            (self.strikes, self.in_doubt) = (0, 0);
            return;
        }
        match since {
            Some(since) if since < self.interval_min => self.strikes += 1,
            Some(since) if since < IDLE_INTERVAL_MIN => self.in_doubt += 1,
            _ => {}
        }
    }

    /// Headers or data of a call are on their way to the client.
    pub(super) fn answered(&mut self) {
        self.forgiven = true;
    }

    /// Whether there were too many; asked at the end of a turn, with whether a call is open.
    pub(super) fn are_too_many(&mut self, has_calls: impl FnOnce() -> bool) -> bool {
        if self.in_doubt > 0 && !has_calls() {
            self.strikes += self.in_doubt;
        }
        self.in_doubt = 0;
        self.strikes > STRIKES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Whether pings at these seconds, with a call open or not, are too many.
    fn too_many(calls: bool, seconds: &[u64]) -> bool {
        let (start, mut pings) = (Instant::now(), ClientPings::new(5 * SECOND));
        let mut verdict = false;
        for second in seconds {
            assert!(!verdict, "before {second}");
            pings.came(start + Duration::from_secs(*second));
            verdict = pings.are_too_many(|| calls);
        }
        verdict
    }

    #[test]
    fn the_third_ping_that_is_too_early_is_one_too_many() {
        assert!(!too_many(true, &[0, 1, 2]));
        assert!(too_many(true, &[0, 1, 2, 3]));
        assert!(!too_many(true, &[0, 5, 10, 15, 20, 25]));
        // What was too early stays so.
        assert!(too_many(true, &[0, 1, 2, 100, 200, 201]));
    }

    #[test]
    fn without_calls_pings_are_two_hours_apart() {
        assert!(too_many(false, &[0, 6, 100, 7_299]));
        assert!(!too_many(false, &[0, 7_200, 14_400, 21_600, 28_800]));
        assert!(too_many(false, &[0, 7_199, 14_398, 21_597]));
    }

    #[test]
    fn what_is_sent_of_a_call_starts_anew() {
        let (start, mut pings) = (Instant::now(), ClientPings::new(5 * SECOND));
        for round in 0..100 {
            // The first is free, two are forgiven.
            for millisecond in 0..3 {
                pings.came(start + Duration::from_millis(round * 10 + millisecond));
                assert!(!pings.are_too_many(|| true), "round {round}");
            }
            pings.answered();
        }
        for millisecond in 0..3 {
            pings.came(start + Duration::from_millis(2_000 + millisecond));
        }
        assert!(!pings.are_too_many(|| true));
        pings.came(start + 3 * SECOND);
        assert!(pings.are_too_many(|| true));
    }
}
