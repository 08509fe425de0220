//! Where the time of a long call went, step by step, in etcd's line `trace` (`pkg/traceutil`).

use std::fmt::Write;
use std::time::{Duration, Instant};

use basalt_proto::log::request::Kind;
use bytes::Bytes;
use prost::Message;
use rand::TryRngCore;
use time::OffsetDateTime;
use tracing::{info, warn};

use crate::logging::{FOREIGN_TEXT_BYTES_MAX, ForeignText, Reminder, time_text};

/// A call that takes longer is told (etcd `traceThreshold`); of its steps, those that took more than an equal share of this.
const LONG: Duration = Duration::from_millis(100);
/// Lines of calls that took long, in ten seconds: somebody may have made them so on purpose.
const LINES: u64 = 20;
static LONG_CALLS: Reminder = Reminder::new(LINES);
static SLOW_READS: Reminder = Reminder::new(LINES);

/// Steps that etcd has too, in its words.
pub(super) const AGREEMENT: &str = "agreement among raft nodes before linearized reading";
pub(super) const PROCESSING: &str = "process raft request";
pub(super) const ASSEMBLY: &str = "assemble the response";
/// The most steps that a call has.
const STEPS_MAX: usize = 4;

/// What was done for a call, and when.
pub(super) struct Steps {
    operation: &'static str,
    began: Instant,
    done: [Option<(&'static str, Instant)>; STEPS_MAX],
}

impl Steps {
    /// Of a call that begins now.
    pub(super) fn begin(operation: &'static str) -> Self {
        Self { operation, began: Instant::now(), done: [None; STEPS_MAX] }
    }

    /// A step is done.
    pub(super) fn done(&mut self, step: &'static str) {
        self.done_at(step, Instant::now());
    }

    /// A step was done at that time. No node ends for a line of its log: what is beyond [`STEPS_MAX`] takes the last place.
    pub(super) fn done_at(&mut self, step: &'static str, at: Instant) {
        let place = self.done.iter().position(Option::is_none);
        debug_assert!(place.is_some(), "more than {STEPS_MAX} steps: {step}");
        self.done[place.unwrap_or(STEPS_MAX - 1)] = Some((step, at));
    }

    /// Up to the end of the last step.
    pub(super) fn took(&self) -> Duration {
        let last = self.done.iter().flatten().last();
        last.map_or(Duration::ZERO, |(_, at)| at.saturating_duration_since(self.began))
    }

    /// Logs a call that took long, with what `detail` says of it.
    pub(super) fn tell_if_long(&self, detail: impl FnOnce() -> Detail) {
        let took = self.took();
        if took <= LONG {
            return;
        }
        let Some(times) = LONG_CALLS.due() else { return };
        let end = OffsetDateTime::now_utc();
        let steps = self.long_steps();
        info!(
            trace_id = rand::rngs::OsRng.try_next_u32().map_or(0, |number| number >> 1),
            operation = self.operation,
            detail = detail().text(),
            duration = ?took,
            start = time_text(end - took),
            end = time_text(end),
            steps = steps.join(", "),
            step_count = steps.len(),
            times = (times > 1).then_some(times),
            "trace"
        );
    }

    /// Logs a read that took longer than `slow` as etcd does, and says whether it did. Where etcd tells all of the request and its
    /// answer, no more than is told with the steps.
    pub(super) fn tell_if_slow_read(&self, slow: Duration) -> bool {
        let took = self.took();
        if took <= slow {
            return false;
        }
        if let Some(times) = SLOW_READS.due() {
            let times = (times > 1).then_some(times);
            warn!(?took, expected_duration = ?slow, prefix = "read-only range ", times, "apply request took too long");
        }
        true
    }

    fn long_steps(&self) -> Vec<String> {
        let share = LONG / (self.done.iter().flatten().count() as u32 + 1);
        let mut before = self.began;
        let mut long = Vec::new();
        for (step, at) in self.done.iter().flatten() {
            let took = at.saturating_duration_since(before);
            if took > share {
                long.push(format!("'{step}' (duration: {took:?})"));
            }
            before = *at;
        }
        long
    }
}

/// What is said of a call: fields as etcd writes them. Never values.
#[derive(Default)]
pub(super) struct Detail(String);

impl Detail {
    /// Adds a figure.
    pub(super) fn with(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        // Writing to a text cannot fail.
        _ = write!(self.0, "{name}:{value}; ");
        self
    }

    /// Adds a key, cut if it is long.
    pub(super) fn with_key(self, name: &str, key: &[u8]) -> Self {
        self.with(name, ForeignText(String::from_utf8_lossy(key)))
    }

    fn text(&self) -> String {
        format!("{{{}}}", self.0)
    }
}

/// As much of a key as a line has room for, and nothing of the message that it came in.
pub(super) fn head_of(key: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&key[..key.len().min(FOREIGN_TEXT_BYTES_MAX)])
}

/// A write under way, of which etcd would tell the steps.
pub(super) struct OrderedSteps {
    steps: Steps,
    about: About,
}

/// What is told of it.
enum About {
    Put { key: Bytes, request_bytes: usize },
    DeleteRange { key: Bytes, range_end: Bytes },
    Txn,
}

impl OrderedSteps {
    /// Of a request that is about to be proposed; `None` for those of which etcd tells nothing.
    pub(super) fn begin(kind: &Kind) -> Option<Self> {
        let (operation, about) = match kind {
            Kind::Put(put) => ("put", About::Put { key: head_of(&put.key), request_bytes: put.encoded_len() }),
            Kind::DeleteRange(delete) => {
                let (key, range_end) = (head_of(&delete.key), head_of(&delete.range_end));
                ("delete_range", About::DeleteRange { key, range_end })
            }
            Kind::Txn(_) => ("transaction", About::Txn),
            _ => return None,
        };
        Some(Self { steps: Steps::begin(operation), about })
    }

    /// It was applied just now, which began at `since`.
    pub(super) fn applied(&mut self, since: Instant) {
        self.steps.done_at(PROCESSING, since);
        self.steps.done("apply the request");
    }

    /// It was answered just now, at that revision.
    pub(super) fn answered(mut self, revision: i64) {
        self.steps.done(ASSEMBLY);
        self.steps.tell_if_long(|| self.about.detail().with("response_revision", revision));
    }
}

impl About {
    fn detail(&self) -> Detail {
        let detail = Detail::default();
        match self {
            About::Put { key, request_bytes } => detail.with_key("key", key).with("req_size", request_bytes),
            About::DeleteRange { key, range_end } => detail.with_key("key", key).with_key("range_end", range_end),
            About::Txn => detail.with("read_only", false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_steps_above_their_share_are_told() {
        let mut steps = Steps::begin("range");
        let at = |ms| steps.began + Duration::from_millis(ms);
        let (first, second, third) = (at(40), at(60), at(161));
        steps.done_at("long", first);
        steps.done_at("short", second);
        steps.done_at("longer", third);
        assert_eq!(steps.took(), Duration::from_millis(161));
        assert_eq!(steps.long_steps(), ["'long' (duration: 40ms)", "'longer' (duration: 101ms)"]);
        // What another thread saw a little earlier than it began here took no time.
        let mut early = Steps::begin("put");
        early.done_at("before", early.began - Duration::from_secs(1));
        assert_eq!((early.took(), early.long_steps().len()), (Duration::ZERO, 0));
    }

    #[test]
    fn a_detail_has_etcds_form_and_no_more_of_a_key_than_a_line_has_room_for() {
        let detail = Detail::default().with_key("range_begin", b"/registry/\xff").with("response_count", 7);
        assert_eq!(detail.text(), "{range_begin:/registry/\u{fffd}; response_count:7; }");
        let long = Detail::default().with_key("key", &[b'k'; 10_000]).text();
        assert!(long.len() < 300 && long.contains("(10000 bytes)"), "{long}");
    }
}
