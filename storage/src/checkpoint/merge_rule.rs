//! Which runs are merged, by their bytes: few enough to open at a start, and each changed key written O(log) times
//! (DESIGN 3.5).
//!
//! ```text
//!   oldest                                                     newest
//!   base  │ level 3 │ level 2  level 2 │ level 0  level 0  level 0 │ ◄ the run of this checkpoint
//!    ▲                                   └──── four of a level become one, above it ────┘
//!    └── rewritten only when what lies on it exceeds a quarter of it
//! ```

use crate::runs::RunMeta;

/// Runs of a level that are merged into one.
const FAN_OUT: usize = 4;
/// What a file costs at least: a smaller run is not cheaper.
const UNIT_BYTES: u64 = 4 << 10;
/// The highest level: runs of it have 4 GiB or more, and a base on which they lie 16 GiB.
const LEVELS: u32 = 10;
/// A small base is not written anew for the sake of less than this.
const WORTH_BYTES: u64 = 4 << 20;
/// Runs that a rule-abiding list has at most: the base, those of all levels, and the one just written.
pub(super) const RUNS_MAX: usize = 1 + (FAN_OUT - 1) * (LEVELS as usize + 1) + 1;

/// A level holds runs of up to four times the bytes of the one below.
fn level(bytes: u64) -> u32 {
    ((bytes / UNIT_BYTES).checked_ilog2().unwrap_or(0) / FAN_OUT.ilog2()).min(LEVELS)
}

/// Where in `runs` (base first) those begin that become one now; they are the newest. 0 is a new base. `None` when they
/// may stay as they are.
pub(super) fn merge_from(runs: &[RunMeta]) -> Option<usize> {
    let (base, above) = runs.split_first()?;
    let bytes = |runs: &[RunMeta]| runs.iter().map(|run| run.length).sum::<u64>();
    if bytes(above) > (base.length / 4).max(WORTH_BYTES) {
        return Some(0);
    }
    // What is merged begins at `from`; from `lower` on there are only runs of lower levels.
    let (mut from, mut lower) = (above.len(), above.len());
    for at in 0..=LEVELS {
        let begin = above[..lower].iter().rposition(|run| level(run.length) > at).map_or(0, |before| before + 1);
        let merged = from < above.len() && level(bytes(&above[from..])) >= at;
        if lower - begin + usize::from(merged) >= FAN_OUT {
            from = begin;
        }
        lower = begin;
    }
    (from < above.len()).then_some(from + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A list of runs under the rule, and the bytes that it cost.
    #[derive(Default)]
    struct Model {
        runs: Vec<RunMeta>,
        changed: u64,
        written: u64,
        bases: usize,
    }

    impl Model {
        fn checkpoint(&mut self, length: u64) {
            self.push(length);
            self.changed += length.max(UNIT_BYTES);
            assert!(self.runs.len() <= RUNS_MAX, "{} runs", self.runs.len());
            if let Some(from) = merge_from(&self.runs) {
                assert!(self.runs.len() - from > 1, "one run is no merge");
                let length = self.runs.drain(from..).map(|run| run.length).sum();
                self.push(length);
                self.bases += usize::from(from == 0);
            }
        }

        fn push(&mut self, length: u64) {
            self.written += length.max(UNIT_BYTES);
            self.runs.push(RunMeta { number: 1, length, records: 1, crc: 0 });
        }
    }

    #[test]
    fn a_trickle_of_writes_never_rewrites_a_large_base() {
        let mut model = Model::default();
        model.push(1 << 30);
        let before = model.written;
        // A day of checkpoints, five seconds apart.
        (0..17_280).for_each(|_| model.checkpoint(500));
        assert_eq!(model.bases, 0);
        let written = model.written - before;
        assert!(written < 6 * model.changed, "{written} bytes for {} changed ones", model.changed);
        assert!(model.runs.len() < 20, "{} runs", model.runs.len());
    }

    #[test]
    fn a_base_is_rewritten_when_a_quarter_of_it_lies_above() {
        let mut model = Model::default();
        model.push(400 << 20);
        (0..100).for_each(|_| model.checkpoint(1 << 20));
        assert_eq!(model.bases, 0);
        model.checkpoint(1 << 20);
        assert_eq!((model.bases, model.runs.len()), (1, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn runs_stay_few_and_each_byte_is_written_a_logarithm_of_times(
            base in 0u64..1 << 34, lengths in prop::collection::vec((0u32..28, 100u64..200), 1..2_000),
        ) {
            let mut model = Model::default();
            model.push(base);
            let before = model.written;
            lengths.iter().for_each(|(exponent, length)| model.checkpoint(length << exponent));
            // Once itself, once a level, and its part of a base, which is at most four times what lies on it.
            let times = 1 + u64::from(LEVELS) + 1 + 5;
            prop_assert!(model.written - before <= times * model.changed + 2 * WORTH_BYTES);
        }
    }
}
