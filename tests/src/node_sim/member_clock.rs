//! The clocks of a member, which are not those of the world.

use std::time::Duration;

/// 2020-09-13, when the world's clock stands at 0.
const EPOCH_NS: i64 = 1_600_000_000_000_000_000;

const MILLION: u64 = 1_000_000;

/// How the clocks of a member go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberClock {
    /// How much too fast its monotonic clock goes, in parts of a million; below 0 too slow.
    pub drift_ppm: i32,
    /// How much its wall clock is ahead.
    pub wall_ahead_ms: i64,
}

impl MemberClock {
    /// What its monotonic clock shows at `now`.
    pub fn monotonic(self, now: Duration) -> Duration {
        scaled(now, self.rate(), MILLION)
    }

    /// How long the world waits while a span passes on it.
    pub fn until(self, own: Duration) -> Duration {
        scaled(own, MILLION, self.rate())
    }

    /// What its wall clock shows at `now`, ns since 1970.
    pub fn unix_ns(self, now: Duration) -> i64 {
        let passed = i64::try_from(self.monotonic(now).as_nanos()).expect("a run is short");
        EPOCH_NS + passed + self.wall_ahead_ms * 1_000_000
    }

    fn rate(self) -> u64 {
        MILLION.checked_add_signed(self.drift_ppm.into()).expect("no clock goes back")
    }
}

fn scaled(span: Duration, by: u64, of: u64) -> Duration {
    let nanos = span.as_nanos() * u128::from(by) / u128::from(of);
    Duration::from_nanos(u64::try_from(nanos).expect("a run is short"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_is_ahead() {
        let fast = MemberClock { drift_ppm: 50_000, wall_ahead_ms: -1000 };
        assert_eq!(fast.monotonic(Duration::from_secs(100)), Duration::from_secs(105));
        assert_eq!(fast.until(Duration::from_secs(105)), Duration::from_secs(100));
        assert_eq!(fast.unix_ns(Duration::from_secs(100)), EPOCH_NS + 104_000_000_000);
        assert_eq!(MemberClock::default().unix_ns(Duration::ZERO), EPOCH_NS);
    }
}
