//! Many watchers, slow ones among them.

use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use bytes::Bytes;
use prost::Message;

use super::super::{Input, Output, StreamId, WatchConfig, WatchFigures, Watches};
use super::store::Store;

pub(super) fn config() -> WatchConfig {
    WatchConfig {
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
    }
}

fn room(store: &Store) -> Watches {
    Watches::new(config(), store.map.clone(), store.revision, store.compact_revision)
}

fn watch(room: &mut Watches, stream: u64, key: &str, range_end: &str) {
    let request =
        WatchCreateRequest { key: key.to_owned().into(), range_end: range_end.to_owned().into(), ..Default::default() };
    room.handle(Input::Open(StreamId(stream)), Duration::ZERO, &mut Vec::new());
    room.handle(Input::Create { stream: StreamId(stream), request }, Duration::ZERO, &mut Vec::new());
}

fn put(room: &mut Watches, store: &mut Store, key: &str, value_bytes: usize) -> Vec<Output> {
    let events = store.write(&[(key.to_owned().into(), Some(vec![1; value_bytes].into()))]);
    let mut out = Vec::new();
    room.handle(Input::Applied { revision: store.revision, events }, Duration::ZERO, &mut out);
    out
}

#[test]
fn ids_that_stay_taken_count_as_watchers() {
    let mut store = Store::default();
    (0..3).for_each(|_| drop(store.write(&[("a".into(), Some(Bytes::from_static(b"v")))])));
    store.compact_revision = 3;
    let mut room = room(&store);
    room.handle(Input::Open(StreamId(1)), Duration::ZERO, &mut Vec::new());
    // It is cancelled at once, and the client keeps its id.
    let request = WatchCreateRequest { key: "a".into(), start_revision: 1, ..Default::default() };
    let is_refused = |room: &mut Watches| {
        let mut out = Vec::new();
        let input = Input::Create { stream: StreamId(1), request: request.clone() };
        room.handle(input, Duration::ZERO, &mut out);
        let Some(Output::Send { message, .. }) = out.first() else { panic!("no answer: {out:?}") };
        !WatchResponse::decode(&message.concat()[..]).unwrap().cancel_reason.is_empty()
    };
    let taken = (0..5_000_000).position(|_| is_refused(&mut room)).expect("a bound");
    assert!(taken > 100_000, "{taken}");
    // Who lets go of one has room for another.
    room.handle(Input::Cancel { stream: StreamId(1), watch_id: 0 }, Duration::ZERO, &mut Vec::new());
    assert!(!is_refused(&mut room));
    room.handle(Input::Close(StreamId(1)), Duration::ZERO, &mut Vec::new());
    room.handle(Input::Open(StreamId(1)), Duration::ZERO, &mut Vec::new());
    assert_eq!((0..taken).position(|_| is_refused(&mut room)), None);
}

#[test]
fn a_large_event_is_encoded_once_for_all_its_watchers() {
    let mut store = Store::default();
    let mut room = room(&store);
    (0..100).for_each(|stream| watch(&mut room, stream, "a/", "a0"));
    let sent = put(&mut room, &mut store, "a/1", 4096);
    let shared: Vec<*const u8> = sent
        .iter()
        .map(|output| match output {
            Output::Send { message, .. } => message.last().unwrap().as_ptr(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(shared.len(), 100);
    assert!(shared.iter().all(|at| *at == shared[0]));
}

#[test]
fn ten_thousand_single_key_watchers_do_not_slow_each_other() {
    let mut store = Store::default();
    let mut room = room(&store);
    for stream in 0..10_000 {
        watch(&mut room, stream, &format!("k{stream}"), "");
    }
    let begin = Instant::now();
    for n in 0..1000 {
        let out = put(&mut room, &mut store, &format!("k{n}"), 8);
        assert!(matches!(out[..], [Output::Send { stream: StreamId(stream), .. }] if stream == n));
    }
    // About 3 ms; a look at every watcher would take a hundred times as long.
    assert!(begin.elapsed() < Duration::from_secs(2));
}

/// No stream alone holds too much; all together do.
#[test]
fn streams_that_hold_more_than_their_share_fall_behind_when_all_hold_too_much() {
    let mut store = Store::default();
    let mut config = config();
    config.queue_bytes_max = 100 << 10;
    let mut room = Watches::new(config, store.map.clone(), store.revision, store.compact_revision);
    (0..10).for_each(|stream| watch(&mut room, stream, "a", ""));
    let mut queued = 0;
    for _ in 0..20 {
        for output in put(&mut room, &mut store, "a", 4096) {
            let Output::Send { stream, message, .. } = output else { continue };
            let bytes = message.iter().map(Bytes::len).sum::<usize>();
            // One takes what it is sent.
            match stream {
                StreamId(3) => room.handle(Input::Drained { stream, bytes }, Duration::ZERO, &mut Vec::new()),
                _ => queued += bytes,
            }
        }
    }
    assert!((100 << 10..200 << 10).contains(&queued), "{queued}");
    assert_eq!(room.figures().slow_watchers, 9);
    // Whoever ends makes room.
    (4..10).for_each(|stream| room.handle(Input::Close(StreamId(stream)), Duration::ZERO, &mut Vec::new()));
    assert_eq!(room.figures().slow_watchers, 3);
    let mut out = Vec::new();
    room.handle(Input::Drained { stream: StreamId(0), bytes: usize::MAX }, Duration::ZERO, &mut out);
    assert!(!out.is_empty(), "it goes on where it stopped");
}

#[test]
fn watchers_are_bounded_by_their_bytes() {
    let store = Store::default();
    let mut config = config();
    config.watcher_bytes_max = 100 << 10;
    let mut room = Watches::new(config, store.map.clone(), store.revision, store.compact_revision);
    (0..100).for_each(|stream| watch(&mut room, stream, &"k".repeat(1000), ""));
    let watchers = room.figures().watchers;
    assert!((30..60).contains(&watchers), "{watchers}");
    let request = WatchCreateRequest { key: "k".into(), ..Default::default() };
    let create = Input::Create { stream: StreamId(99), request };
    let mut out = Vec::new();
    room.handle(create.clone(), Duration::ZERO, &mut out);
    let [Output::Send { message, .. }] = &out[..] else { panic!("{out:?}") };
    let response = WatchResponse::decode(&*message.concat()).unwrap();
    assert!(response.created && response.canceled && response.watch_id == -1);
    assert_eq!(
        response.cancel_reason,
        "basalt: too many watches: no memory is left for another; end some, or watch wider ranges"
    );
    room.handle(Input::Close(StreamId(0)), Duration::ZERO, &mut Vec::new());
    room.handle(create, Duration::ZERO, &mut Vec::new());
    assert_eq!(room.figures().watchers, watchers);
}

#[test]
fn a_slow_stream_holds_nothing_and_holds_up_nobody() {
    let mut store = Store::default();
    let mut room = room(&store);
    watch(&mut room, 1, "a", "");
    watch(&mut room, 2, "a", "");
    let (mut slow_bytes, mut fast_events) = (0, 0);
    for _ in 0..100 {
        for output in put(&mut room, &mut store, "a", 4096) {
            let Output::Send { stream, message, .. } = output else { panic!("nothing is read for a blocked stream") };
            let bytes = message.iter().map(Bytes::len).sum::<usize>();
            if stream == StreamId(1) {
                slow_bytes += bytes;
            } else {
                fast_events += 1;
                room.handle(Input::Drained { stream, bytes }, Duration::ZERO, &mut Vec::new());
            }
        }
    }
    assert_eq!(fast_events, 100);
    assert!(slow_bytes < (64 << 10) + 5000, "{slow_bytes}");
    assert_eq!(
        room.figures(),
        WatchFigures {
            streams: 2,
            watchers: 2,
            slow_watchers: 1,
            pending_events: 0,
            events_sent: room.figures().events_sent
        }
    );
    let mut out = Vec::new();
    room.handle(Input::Drained { stream: StreamId(1), bytes: slow_bytes }, Duration::ZERO, &mut out);
    assert!(!out.is_empty(), "it goes on where it stopped");
}
