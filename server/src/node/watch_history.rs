//! What watches read on the read threads: history in steps of bounded size, and previous values.
//!
//! Damage ends the watches that it concerns and nothing else: a reader that comes again and again must not stop the node
//! again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use basalt_storage::disk::Disk;
use basalt_storage::job::{BUDGET_UNLIMITED, run};
use basalt_storage::mvcc::delta::DeltaEntry;
use basalt_storage::mvcc::fetch::{Fetch, FetchError};
use basalt_storage::mvcc::history::History;
use basalt_storage::mvcc::key_value::KeyValue;
use basalt_storage::mvcc::range::Hit;
use basalt_storage::mvcc::shard_map::ShardId;
use basalt_storage::mvcc::view::View;
use basalt_storage::revision::Revision;
use bytes::Bytes;
use tracing::error;

use super::fatal::causes;
use super::watch_events::look_before_transactions;
use crate::watch::{Event, EventKind, PreviousValue};

/// Values of one step of history, over all shards; a step ends behind the revision that brings it above this.
pub const SCAN_BYTES_MAX: usize = 4 << 20;
/// Entries of the first read of a step, and of any: values may be longer than those before, and a step holds so many of
/// them above its limit at worst.
const READ_ENTRIES_FIRST: usize = 4;
const READ_ENTRIES_MAX: usize = 64;
/// What a read holds, if its values are no longer than the longest before.
const READ_BYTES: usize = 1 << 20;

/// What a step of history came to.
#[derive(Debug)]
pub enum Scanned {
    /// Whole main revisions, ascending, and the one to go on from.
    Events {
        /// The changes.
        events: Vec<Event>,
        /// `None` when all asked for is there.
        next: Option<i64>,
    },
    /// The very first revision cannot be read.
    Damaged,
}

/// History of some shards, whole main revisions, merged in the order of writing: up to about `revisions_max` revisions
/// and [`SCAN_BYTES_MAX`], and to what is damaged.
pub fn scan(
    view: &Arc<View>,
    shards: &[ShardId],
    from: i64,
    to: i64,
    revisions_max: usize,
    disk: &dyn Disk,
) -> Scanned {
    let to = to.min(view.revision);
    let mut entries: Vec<(ShardId, DeltaEntry)> = Vec::new();
    let mut complete_below = i64::MAX;
    for shard in shards {
        let limits =
            ShardLimits { entries: revisions_max.saturating_mul(4).max(1), bytes: SCAN_BYTES_MAX / shards.len() };
        let (found, next) = scan_shard(view, *shard, (from, to), limits, disk);
        complete_below = complete_below.min(next.unwrap_or(i64::MAX));
        entries.extend(found.into_iter().map(|entry| (*shard, entry)));
    }
    if complete_below <= from {
        return Scanned::Damaged;
    }
    entries.retain(|(_, entry)| entry.revision.main < complete_below);
    entries.sort_unstable_by_key(|(_, entry)| entry.revision);
    let next = (complete_below <= to).then_some(complete_below);
    let mut events: Vec<Event> = entries.into_iter().map(|(shard, entry)| past_event(shard, &entry)).collect();
    look_before_transactions(&mut events);
    Scanned::Events { events, next }
}

#[derive(Clone, Copy)]
struct ShardLimits {
    entries: usize,
    bytes: usize,
}

/// History of one shard; the main revision below which it is complete, if not all is there. That is `from` only where
/// the first revision cannot be read.
fn scan_shard(
    view: &Arc<View>,
    shard: ShardId,
    (from, to): (i64, i64),
    limits: ShardLimits,
    disk: &dyn Disk,
) -> (Vec<DeltaEntry>, Option<i64>) {
    let last = Revision::new(to, i64::MAX);
    let (mut found, mut bytes, mut longest) = (Vec::<DeltaEntry>::new(), 0, 0);
    let mut read_entries = READ_ENTRIES_FIRST.min(limits.entries);
    let mut next = Some(Revision::new(from, 0));
    while let Some(start) = next {
        let mut job = History::new(view.clone(), shard, start, last, read_entries);
        let chunk = match run(&mut job, disk, BUDGET_UNLIMITED) {
            Ok(chunk) => chunk,
            // Again, one by one, up to the damage itself.
            Err(_) if read_entries > 1 => {
                read_entries = 1;
                continue;
            }
            Err(cause) => {
                tell_of_damage(&cause);
                return (found, Some(start.main));
            }
        };
        for entry in chunk.entries {
            bytes += entry.key_value.len();
            longest = longest.max(entry.key_value.len());
            found.push(entry);
        }
        next = chunk.next;
        let full = found.len() >= limits.entries || bytes >= limits.bytes;
        // A main revision is never cut: read on until the next one begins.
        if let (true, Some(next), Some(first)) = (full, next, found.first())
            && next.main > first.revision.main
        {
            return (found, Some(next.main));
        }
        if read_entries > 1 {
            read_entries = (READ_BYTES / longest.max(1)).min(read_entries * 2).clamp(2, READ_ENTRIES_MAX);
        }
    }
    (found, None)
}

fn past_event(shard: ShardId, entry: &DeltaEntry) -> Event {
    let stored = KeyValue::parse(&entry.key_value).unwrap_or_default();
    let mod_revision = entry.revision.main;
    let replaces = entry.tombstone || stored.create_revision != mod_revision;
    let (kind, key_value) = if entry.tombstone {
        let shown = KeyValue { key: stored.key, mod_revision, ..KeyValue::default() };
        (EventKind::Delete, shown.encode())
    } else {
        // History from pages shares large buffers: keep only this value alive.
        (EventKind::Put, Bytes::copy_from_slice(&entry.key_value))
    };
    let key = KeyValue::key_of(&key_value);
    Event { revision: entry.revision, shard, key, kind, key_value, previous: entry.previous.filter(|_| replaces) }
}

/// Previous values; one below the compact revision may be gone, and is then left out (etcd-contract 21).
pub fn previous(view: &Arc<View>, hits: &[(ShardId, Revision)], disk: &dyn Disk) -> Vec<PreviousValue> {
    let one = |&(shard, revision): &(ShardId, Revision)| {
        let hit = Hit { shard, revision };
        if let Some(value) = view.resident(hit) {
            return PreviousValue::Value(value);
        }
        let mut fetch = Fetch::new(view.clone(), vec![hit]);
        match run(&mut fetch, disk, BUDGET_UNLIMITED).map(|mut values| values.pop()) {
            // A value just read is a slice of the block around it: keep only this value alive.
            Ok(Some(value)) => PreviousValue::Value(Bytes::copy_from_slice(&value)),
            Ok(None) | Err(FetchError::NotStored { .. }) => PreviousValue::Gone,
            Err(cause @ FetchError::Pages(_)) => {
                tell_of_damage(&cause);
                PreviousValue::Damaged
            }
        }
    };
    hits.iter().map(one).collect()
}

/// Once: whoever watches there comes back, and finds the same.
fn tell_of_damage(cause: &(dyn std::error::Error + 'static)) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Ordering::Relaxed) {
        error!(error = %causes(cause), "stored data is damaged: watches that need it are cancelled");
    }
}
