//! Latencies counted in buckets that grow with the value: fixed size, cheap to record, about 3 % exact.

use std::time::Duration;

/// Each power of two is cut into this many buckets, so a bucket is at most 1/32 of its value wide.
const STEPS: u64 = 1 << STEP_BITS;
const STEP_BITS: u32 = 5;
/// Longer latencies count as this long: 2^37 ns are 137 s, far beyond any timeout here.
const VALUE_BITS_MAX: u32 = 37;
const BUCKETS: usize = (((VALUE_BITS_MAX - STEP_BITS + 1) as u64) * STEPS) as usize;

/// A log-linear histogram of durations.
///
/// * Values below 32 ns have a bucket each; above, 32 buckets share each power of two.
/// * A quantile answers the upper end of its bucket: it never flatters.
#[derive(Clone, Default)]
pub struct Histogram {
    /// Empty until the first record, so that an idle caller costs nothing.
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        if self.counts.is_empty() {
            self.counts.resize(BUCKETS, 0);
        }
        self.counts[bucket_of(nanos(duration))] += 1;
        self.total += 1;
    }

    /// Adds all counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
        } else {
            self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
        }
        self.total += other.total;
    }

    /// How many durations were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The duration that the share `quantile` (0 to 1) of all counted ones does not exceed; `None` when empty.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let rank = ((self.total as f64 * quantile).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_nanos(upper_end(bucket)))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min((1 << VALUE_BITS_MAX) - 1)
}

fn bucket_of(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let shift = value.ilog2() - STEP_BITS;
    (u64::from(shift) * STEPS + (value >> shift)) as usize
}

fn upper_end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    let step = bucket % STEPS + STEPS;
    ((step + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_tile_all_values_in_order() {
        let mut next = 0;
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(next), bucket);
            assert_eq!(bucket_of(upper_end(bucket)), bucket);
            next = upper_end(bucket) + 1;
        }
        assert_eq!(next, 1 << VALUE_BITS_MAX);
    }

    #[test]
    fn quantiles_are_exact_to_a_bucket_and_never_too_low() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|micros| histogram.record(Duration::from_micros(micros)));
        for (quantile, exact) in [(0.0, 1.0), (0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = histogram.quantile(quantile).expect("not empty").as_nanos() as f64 / 1000.0;
            assert!(found >= exact && found <= exact * 1.033, "{quantile}: {found} for {exact}");
        }
    }

    #[test]
    fn merging_is_counting_in_one() {
        let (mut left, mut right, mut both) = (Histogram::default(), Histogram::default(), Histogram::default());
        for value in 0..2_000_u64 {
            let duration = Duration::from_nanos(value * value * 977);
            both.record(duration);
            if value % 3 == 0 { left.record(duration) } else { right.record(duration) }
        }
        let mut merged = Histogram::default();
        merged.merge(&left);
        merged.merge(&right);
        assert_eq!((merged.total, &merged.counts), (both.total, &both.counts));
    }

    #[test]
    fn an_empty_one_has_no_quantile_and_an_endless_value_has_a_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.99), None);
        histogram.record(Duration::MAX);
        assert_eq!(histogram.quantile(0.5), Some(Duration::from_nanos((1 << VALUE_BITS_MAX) - 1)));
    }
}
