//! The level, while the process runs (docs/decisions/0030).

use tracing::level_filters::LevelFilter;
use tracing::warn;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload::Handle;

use super::subscriber::Lines;

/// Changes the level of the process's log.
#[derive(Clone, Debug)]
pub struct LevelControl(Handle<Lines, Registry>);

/// From few lines to many. Below the first there is the silence of `--log-level=fatal`, which can only be left.
const STEPS: [LevelFilter; 4] = [LevelFilter::ERROR, LevelFilter::WARN, LevelFilter::INFO, LevelFilter::DEBUG];

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More lines.
    More,
    /// Fewer lines; errors stay.
    Fewer,
}

impl LevelControl {
    pub(super) fn new(handle: Handle<Lines, Registry>) -> Self {
        Self(handle)
    }

    /// Goes one level up or down, and says so in the log.
    pub fn step(&self, step: Step) {
        // It fails only if the subscriber is gone, and then nobody reads either.
        let Ok(from) = self.0.with_current(|lines| lines.level) else { return };
        let to = next(from, step);
        let told = || warn!(from = name(from), to = name(to), "log level changed");
        // At whichever of the two levels shows it.
        if step == Step::Fewer && to != from {
            told();
        }
        let _ = self.0.modify(|lines| lines.level = to);
        if step == Step::More && to != from {
            told();
        }
    }
}

fn next(from: LevelFilter, step: Step) -> LevelFilter {
    let more = STEPS.into_iter().find(|level| *level > from);
    let fewer = STEPS.into_iter().rev().find(|level| *level < from);
    match step {
        Step::More => more.unwrap_or(from),
        Step::Fewer => fewer.unwrap_or(from),
    }
}

fn name(level: LevelFilter) -> &'static str {
    match level {
        LevelFilter::OFF => "fatal",
        LevelFilter::ERROR => "error",
        LevelFilter::WARN => "warn",
        LevelFilter::INFO => "info",
        _ => "debug",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_end_at_debug_and_at_error() {
        let walk = |step| std::iter::successors(Some(LevelFilter::INFO), move |level| Some(next(*level, step))).take(4);
        let names = |step| walk(step).map(name).collect::<Vec<_>>();
        assert_eq!(names(Step::More), ["info", "debug", "debug", "debug"]);
        assert_eq!(names(Step::Fewer), ["info", "warn", "error", "error"]);
        assert_eq!(name(next(LevelFilter::OFF, Step::More)), "error");
        assert_eq!(name(next(LevelFilter::OFF, Step::Fewer)), "fatal");
    }
}
