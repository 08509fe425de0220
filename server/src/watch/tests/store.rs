//! A store in a few lines: every event that ever was, and what compaction leaves of them.

use std::collections::BTreeMap;

use basalt_proto::mvccpb::KeyValue;
use basalt_storage::mvcc::shard_map::{ShardId, ShardMap, ShardSpec};
use basalt_storage::revision::Revision;
use bytes::Bytes;
use prost::Message;

use super::super::{Event, EventKind, Output, PreviousValue};

/// A write: `None` deletes.
pub type Write = (Bytes, Option<Bytes>);

/// All history, and what an answering node would show of it.
pub struct Store {
    pub map: ShardMap,
    pub revision: i64,
    pub compact_revision: i64,
    pub history: Vec<Event>,
    live: BTreeMap<Bytes, (Revision, KeyValue)>,
}

impl Default for Store {
    /// Two shards: `e/` has its own.
    fn default() -> Self {
        let spec = |name: &str, prefixes: Vec<Vec<u8>>| ShardSpec { name: name.to_owned(), prefixes };
        let map = ShardMap::new(vec![spec("main", vec![]), spec("e", vec![b"e/".to_vec()])]);
        Self { map, revision: 1, compact_revision: -1, history: Vec::new(), live: BTreeMap::new() }
    }
}

impl Store {
    /// Writes in one revision; no event when all of it deletes nothing.
    pub fn write(&mut self, writes: &[Write]) -> Vec<Event> {
        let main = self.revision + 1;
        let mut events = Vec::new();
        for (key, value) in writes {
            let before = self.live.remove(key);
            let revision = Revision::new(main, events.len() as i64);
            let (kind, shown) = match value {
                Some(value) => {
                    let (create_revision, version) =
                        before.as_ref().map_or((main, 0), |(_, kv)| (kv.create_revision, kv.version));
                    let kv = KeyValue {
                        key: key.clone(),
                        create_revision,
                        mod_revision: main,
                        version: version + 1,
                        value: value.clone(),
                        lease: 0,
                    };
                    self.live.insert(key.clone(), (revision, kv.clone()));
                    (EventKind::Put, kv)
                }
                None if before.is_none() => continue,
                None => (EventKind::Delete, KeyValue { key: key.clone(), mod_revision: main, ..KeyValue::default() }),
            };
            events.push(Event {
                revision,
                shard: self.map.shard_of(key),
                key: key.clone(),
                kind,
                key_value: shown.encode_to_vec().into(),
                previous: before.map(|(at, _)| at),
            });
        }
        if !events.is_empty() {
            self.revision = main;
            self.history.extend(events.iter().cloned());
        }
        events
    }

    /// The version that an event replaced.
    pub fn previous_of(&self, event: &Event) -> Option<Bytes> {
        let at = event.previous?;
        self.history.iter().find(|event| event.revision == at).map(|event| event.key_value.clone())
    }

    /// Whether compaction dropped what was written then: something newer of the key is compacted too.
    fn is_dead(&self, event: &Event) -> bool {
        let newer = |other: &&Event| other.key == event.key && other.revision > event.revision;
        self.history.iter().filter(newer).any(|other| other.revision.main <= self.compact_revision)
    }

    /// Whole revisions of what is left.
    pub fn scan(&self, shards: &[ShardId], from: i64, to: i64, revisions_max: usize) -> (Vec<Event>, Option<i64>) {
        assert!(from <= to && to <= self.revision && revisions_max > 0);
        let wanted = |event: &&Event| {
            (from..=to).contains(&event.revision.main) && shards.contains(&event.shard) && !self.is_dead(event)
        };
        let found: Vec<Event> = self.history.iter().filter(wanted).cloned().collect();
        let mut mains: Vec<i64> = found.iter().map(|event| event.revision.main).collect();
        mains.dedup();
        let next = mains.get(revisions_max).copied();
        (found.into_iter().filter(|event| next.is_none_or(|next| event.revision.main < next)).collect(), next)
    }

    /// Values of versions that are left.
    pub fn values(&self, hits: &[(ShardId, Revision)]) -> Vec<PreviousValue> {
        let value = |(shard, at): &(ShardId, Revision)| {
            let event = self.history.iter().find(|event| event.revision == *at).expect("a version that was written");
            assert_eq!(event.shard, *shard);
            if self.is_dead(event) { PreviousValue::Gone } else { PreviousValue::Value(event.key_value.clone()) }
        };
        hits.iter().map(value).collect()
    }

    /// What a reader answers.
    pub fn answer(&self, question: &Output) -> super::super::Input {
        use super::super::Input;
        match question {
            Output::Scan { ticket, shards, from, to, revisions_max } => {
                let (events, next) = self.scan(shards, *from, *to, *revisions_max);
                Input::Scanned { ticket: *ticket, events, next }
            }
            Output::FetchPrevious { ticket, hits } => Input::Previous { ticket: *ticket, values: self.values(hits) },
            Output::Send { .. } => panic!("no question"),
        }
    }
}
