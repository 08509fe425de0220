//! Which calls are kept.

use super::context::RemoteParent;

/// A rate of this keeps all.
pub(super) const RATE_ALL: u32 = 1_000_000;

/// Decides by the caller's word, else by the trace's id: all processes that go by the same rate keep the same traces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampler {
    /// Ids below are kept, by their last 63 bits.
    bound: u64,
}

impl Sampler {
    /// Keeps so many of a million.
    pub(super) fn new(per_million: u32) -> Self {
        let share = u128::from(per_million.min(RATE_ALL)) << 63;
        Self { bound: u64::try_from(share / u128::from(RATE_ALL)).expect("at most 2^63") }
    }

    /// Whether a trace that begins here may be kept at all.
    pub(super) fn keeps_any(self) -> bool {
        self.bound > 0
    }

    /// Whether a call is kept that belongs to the trace `trace_id`.
    pub(super) fn keeps(self, parent: Option<&RemoteParent>, trace_id: &[u8; 16]) -> bool {
        let Some(parent) = parent else {
            let id = u128::from_be_bytes(*trace_id) as u64;
            return id >> 1 < self.bound;
        };
        parent.sampled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_a_share_of_ids() {
        let id = |low: u64| u128::from(low).to_be_bytes();
        assert!(!Sampler::new(0).keeps_any());
        assert!(!Sampler::new(0).keeps(None, &id(0)));
        assert!(Sampler::new(RATE_ALL).keeps(None, &id(u64::MAX)));
        assert!(Sampler::new(u32::MAX).keeps(None, &id(u64::MAX)), "more than all is all");
        let half = Sampler::new(RATE_ALL / 2);
        assert!(half.keeps(None, &id(u64::MAX / 2)) && !half.keeps(None, &id(u64::MAX / 2 + 1)));
    }

    #[test]
    fn a_caller_decides_for_its_calls() {
        for (rate, sampled) in [(0, true), (RATE_ALL, false)] {
            let parent = RemoteParent { trace_id: [1; 16], span_id: [2; 8], sampled };
            assert_eq!(Sampler::new(rate).keeps(Some(&parent), &parent.trace_id), sampled);
        }
    }
}
