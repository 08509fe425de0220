//! Stored data that cannot be read: the watches that need it end, with a reason, and nobody else notices.

use std::time::Duration;

use basalt_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use prost::Message;

use super::super::{Input, Output, PreviousValue, StreamId, WatchConfig, Watches};
use super::store::Store;

const REASON: &str = "basalt: stored data is damaged; see the server's log";

struct Room {
    room: Watches,
    store: Store,
}

/// What a stream was told.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Canceled(u64, String),
    Events(u64, usize),
}

impl Room {
    /// Beside a store that wrote `a` in revisions 2 to 5 before the room was there: no memory holds them.
    fn new() -> Self {
        let mut store = Store::default();
        for value in ["1", "2", "3", "4"] {
            store.write(&[("a".into(), Some(value.into()))]);
        }
        let config = WatchConfig {
            cluster_id: 1,
            member_id: 2,
            raft_term: 3,
            progress_notify_interval: Duration::from_secs(600),
            fragment_bytes: 2 << 20,
            ring_bytes: 1 << 20,
            stream_queue_bytes_max: 64 << 10,
            queue_bytes_max: 64 << 20,
            watcher_bytes_max: 64 << 20,
            scan_revisions_max: 1000,
            seed: 1,
        };
        Self { room: Watches::new(config, store.map.clone(), store.revision, store.compact_revision), store }
    }

    fn handle(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.room.handle(input, Duration::ZERO, &mut out);
        out
    }

    /// Watches `a`; returns what the room asks for.
    fn watch(&mut self, stream: u64, start_revision: i64, prev_kv: bool) -> Vec<Output> {
        let request = WatchCreateRequest { key: "a".into(), start_revision, prev_kv, ..Default::default() };
        self.handle(Input::Open(StreamId(stream)));
        let out = self.handle(Input::Create { stream: StreamId(stream), request });
        out.into_iter().filter(|output| !matches!(output, Output::Send { .. })).collect()
    }

    fn put(&mut self) -> Vec<Output> {
        let events = self.store.write(&[("a".into(), Some("new".into()))]);
        self.handle(Input::Applied { revision: self.store.revision, events })
    }
}

fn told(outputs: &[Output]) -> Vec<Told> {
    let told = outputs.iter().filter_map(|output| {
        let Output::Send { stream, message, .. } = output else { return None };
        let response = WatchResponse::decode(&*message.concat()).expect("a response");
        Some(match response.canceled {
            true => Told::Canceled(stream.0, response.cancel_reason),
            false => Told::Events(stream.0, response.events.len()),
        })
    });
    told.collect()
}

fn canceled(stream: u64) -> Told {
    Told::Canceled(stream, REASON.to_owned())
}

fn previous_damaged(asked: &[Output]) -> Input {
    let [Output::FetchPrevious { ticket, hits }] = asked else { panic!("{asked:?}") };
    Input::Previous { ticket: *ticket, values: vec![PreviousValue::Damaged; hits.len()] }
}

#[test]
fn history_that_cannot_be_read_ends_the_watches_that_stand_there() {
    let mut room = Room::new();
    let asked = room.watch(1, 2, false);
    assert!(room.watch(2, 4, false).is_empty(), "one read at a time");
    assert!(room.watch(3, 0, false).is_empty());
    let [Output::Scan { ticket, from: 2, .. }] = asked[..] else { panic!("{asked:?}") };
    let out = room.handle(Input::Unreadable { ticket });
    assert_eq!(told(&out), [canceled(1)]);
    // The one behind the damage goes on.
    let Some(scan @ Output::Scan { from: 4, .. }) = out.last() else { panic!("{out:?}") };
    let answer = room.store.answer(scan);
    assert_eq!(told(&room.handle(answer)), [Told::Events(2, 2)]);
    assert_eq!(told(&room.put()), [Told::Events(2, 1), Told::Events(3, 1)]);
    assert_eq!(room.room.figures().watchers, 2);
}

#[test]
fn a_previous_value_that_cannot_be_read_ends_the_watches_that_want_it() {
    let mut room = Room::new();
    room.watch(1, 0, true);
    room.watch(2, 0, false);
    let asked = room.put();
    assert_eq!(told(&room.handle(previous_damaged(&asked))), [canceled(1), Told::Events(2, 1)]);
    // Who comes back is not told of a create where there was a value.
    let asked = room.watch(3, room.store.revision, true);
    let out = room.handle(previous_damaged(&asked));
    assert_eq!(told(&out), [canceled(3)]);
    // The next change shows the one before, which is in memory.
    room.watch(4, 0, true);
    let mut last = told(&room.put());
    last.sort_unstable();
    assert_eq!(last, [Told::Events(2, 1), Told::Events(4, 1)]);
}
