//! What changes of keys are to watchers.

use basalt_storage::mvcc::key_value::KeyValue;
use basalt_storage::mvcc::transaction::{Change, ChangeKind};

use crate::watch::{Event, EventKind, Input};

/// A change as watchers see it. A delete shows key and revision only (etcd-contract 20); what a create replaces, a
/// tombstone perhaps, is nobody's previous value.
pub fn event_of(change: &Change) -> Event {
    let (kind, key_value, previous) = match &change.kind {
        ChangeKind::Put { key_value, create_revision, .. } => {
            let replaces = *create_revision != change.revision.main;
            (EventKind::Put, key_value.clone(), change.previous.filter(|_| replaces))
        }
        ChangeKind::Delete => {
            let shown = KeyValue { key: &change.key, mod_revision: change.revision.main, ..KeyValue::default() };
            (EventKind::Delete, shown.encode(), change.previous)
        }
    };
    Event { revision: change.revision, shard: change.shard, key: change.key.clone(), kind, key_value, previous }
}

/// Takes the events that were applied together, if there are any. `revision` is the store's after them, if nothing of the
/// batch comes behind them.
pub fn applied(events: &mut Vec<Event>, revision: i64) -> Option<Input> {
    let revision = revision.max(events.last()?.revision.main);
    let mut events = std::mem::take(events);
    look_before_transactions(&mut events);
    Some(Input::Applied { revision, events })
}

/// What a watcher is shown as previous stood before the whole transaction, not before the change inside it
/// (etcd-contract 21). Events are in order, so that the earlier change of a key is settled before the later one.
pub(super) fn look_before_transactions(events: &mut [Event]) {
    for at in 0..events.len() {
        let (before, rest) = events.split_at_mut(at);
        let event = &mut rest[0];
        let Some(inner) = event.previous.filter(|previous| previous.main == event.revision.main) else { continue };
        let earlier = before.binary_search_by_key(&inner, |earlier| earlier.revision);
        event.previous = earlier.ok().and_then(|earlier| before[earlier].previous);
    }
}
