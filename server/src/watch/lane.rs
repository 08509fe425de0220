//! One way to catch up: from the ring, or from history.

use std::collections::BTreeSet;

use basalt_storage::mvcc::shard_map::ShardId;
use basalt_storage::revision::Revision;

use super::event::SharedEvent;
use super::messages::{PreviousValue, Ticket};
use super::watcher::WatcherKey;

/// Events whose previous values are being fetched.
#[derive(Debug)]
pub(super) struct Fetching {
    pub ticket: Ticket,
    /// Positions of the events, in the order of the hits.
    pub events: Vec<usize>,
}

impl Fetching {
    /// Gives the events their previous values; one that is not there is gone. Returns the events whose values cannot be
    /// read: they stay without.
    pub fn finish(&self, events: &mut [SharedEvent], values: Vec<PreviousValue>) -> Vec<SharedEvent> {
        assert_eq!(values.len(), self.events.len(), "one value for each hit");
        let mut damaged = Vec::new();
        for (at, value) in self.events.iter().zip(values) {
            match value {
                PreviousValue::Value(value) => events[*at].resolve(Some(value)),
                PreviousValue::Gone => events[*at].resolve(None),
                PreviousValue::Damaged => damaged.push(events[*at].clone()),
            }
        }
        damaged
    }
}

/// What is to be fetched, and for which events.
#[derive(Debug, Default)]
pub(super) struct Missing {
    pub hits: Vec<(ShardId, Revision)>,
    pub events: Vec<usize>,
}

/// All events from `from` up to `upto` that anybody watches who waited when it was made.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Whose wait began later was not asked what he watches, and is not served.
    pub waits_begun: u64,
    pub from: i64,
    pub upto: i64,
    pub events: Vec<SharedEvent>,
}

/// What a lane waits for.
#[derive(Debug)]
pub(super) enum Flight {
    /// A read of history.
    Scan { ticket: Ticket, from: i64, to: i64 },
    /// Previous values of a chunk.
    Fetch { fetching: Fetching, chunk: Chunk },
}

/// One step at a time, each shared by all watchers that it serves.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Where the next step would go on.
    position: i64,
    pub flight: Option<Flight>,
}

impl Lane {
    /// Where the next step begins: at the first watcher that waits at or after the last step's end, else at the very
    /// first. Going round keeps watchers that come with old revisions all the time from starving the others.
    pub fn start(&self, waiting: &BTreeSet<(i64, WatcherKey)>, first: i64, last: i64) -> Option<i64> {
        if first > last {
            return None;
        }
        let at_or_after = |from: i64| {
            let next = waiting.range((from, WatcherKey(0))..).next()?.0;
            (next <= last).then_some(next)
        };
        at_or_after(self.position.max(first)).or_else(|| at_or_after(first))
    }

    /// A step that ended at `upto` was made.
    pub fn stepped(&mut self, upto: i64) {
        self.position = upto.saturating_add(1);
        self.flight = None;
    }
}
