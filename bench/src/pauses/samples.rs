//! Puts by what the server was at meanwhile.

use std::time::Duration;

use super::open_loop::Outcome;
use super::windows::Windows;
use crate::histogram::Histogram;

/// Latencies in one state of the server.
#[derive(Clone, Default)]
pub struct Sample {
    /// Of all puts that met the state.
    pub latencies: Histogram,
    /// How long the state lasted.
    pub length: Duration,
    /// How often it came; 0 for calm and all.
    pub times: usize,
}

/// The samples of a round, or of several together.
#[derive(Clone, Default)]
pub struct Samples {
    /// Neither of the others.
    pub calm: Sample,
    /// A compaction was under way.
    pub compaction: Sample,
    /// A checkpoint was under way; `None` if the server knows none.
    pub checkpoint: Option<Sample>,
    /// Whatever the server was at.
    pub all: Sample,
    /// Puts that failed.
    pub errors: u64,
    /// Why the first of them failed.
    pub first_error: Option<String>,
}

impl Samples {
    /// Sorts the puts of a round.
    pub fn of(outcome: Outcome, round: Duration, compactions: &Windows, checkpoints: Option<&Windows>) -> Self {
        let sample = |windows: &Windows| Sample {
            latencies: Histogram::default(),
            length: windows.length(),
            times: windows.count(),
        };
        let (mut calm, mut compaction) = (Sample::default(), sample(compactions));
        let mut checkpoint = checkpoints.map(sample);
        let mut all = Sample { length: round, ..Default::default() };
        for put in &outcome.answered {
            let latency = put.done - put.due;
            all.latencies.record(latency);
            let compacting = compactions.meet(put.due, put.done);
            let checkpointing = checkpoints.is_some_and(|windows| windows.meet(put.due, put.done));
            if compacting {
                compaction.latencies.record(latency);
            }
            if let Some(checkpoint) = checkpoint.as_mut().filter(|_| checkpointing) {
                checkpoint.latencies.record(latency);
            }
            if !compacting && !checkpointing {
                calm.latencies.record(latency);
            }
        }
        let busy = compaction.length + checkpoint.as_ref().map_or(Duration::ZERO, |sample| sample.length);
        // Too short where both lasted at once: it is shown, not reckoned with.
        calm.length = round.saturating_sub(busy);
        let Outcome { errors, first_error, .. } = outcome;
        Self { calm, compaction, checkpoint, all, errors, first_error }
    }

    /// Adds those of another round.
    pub fn merge(&mut self, other: Self) {
        self.calm.merge(&other.calm);
        self.compaction.merge(&other.compaction);
        match (&mut self.checkpoint, other.checkpoint) {
            (Some(mine), Some(theirs)) => mine.merge(&theirs),
            (mine, theirs) => *mine = mine.take().or(theirs),
        }
        self.all.merge(&other.all);
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

impl Sample {
    fn merge(&mut self, other: &Self) {
        self.latencies.merge(&other.latencies);
        self.length += other.length;
        self.times += other.times;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::super::open_loop::Answered;
    use super::*;

    #[test]
    fn a_put_counts_to_all_that_it_met() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let windows = |begin, end| {
            let mut windows = Windows::default();
            windows.add(at(begin), at(end));
            windows
        };
        let puts = [(0, 1), (9, 11), (15, 16), (25, 26), (40, 41)];
        let answered = puts.map(|(due, done)| Answered { due: at(due), done: at(done) }).into();
        let outcome = Outcome { answered, errors: 2, first_error: Some("gone".into()) };
        let round = Duration::from_millis(100);
        let mut samples = Samples::of(outcome, round, &windows(10, 20), Some(&windows(14, 30)));
        let totals = |samples: &Samples| {
            let checkpoint = samples.checkpoint.as_ref().map(|sample| sample.latencies.total());
            (
                samples.calm.latencies.total(),
                samples.compaction.latencies.total(),
                checkpoint,
                samples.all.latencies.total(),
            )
        };
        assert_eq!(totals(&samples), (2, 2, Some(2), 5));
        samples.merge(samples.clone());
        assert_eq!(totals(&samples), (4, 4, Some(4), 10));
        assert_eq!(
            (samples.compaction.times, samples.compaction.length, samples.errors),
            (2, Duration::from_millis(20), 4)
        );
    }
}
