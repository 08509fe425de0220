//! Many watchers, slow ones among them.

use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::WatchCreateRequest;
use bytes::Bytes;

use super::super::{Input, Output, StreamId, WatchConfig, WatchFigures, Watches};
use super::store::Store;

fn room(store: &Store) -> Watches {
    let config = WatchConfig {
        cluster_id: 1,
        member_id: 2,
        raft_term: 3,
        progress_notify_interval: Duration::from_secs(600),
        fragment_bytes: 2 << 20,
        ring_bytes: 1 << 20,
        stream_queue_bytes_max: 64 << 10,
        scan_revisions_max: 1000,
        seed: 1,
    };
    Watches::new(config, store.map.clone(), store.revision, store.compact_revision)
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

#[test]
fn a_slow_stream_holds_nothing_and_holds_up_nobody() {
    let mut store = Store::default();
    let mut room = room(&store);
    watch(&mut room, 1, "a", "");
    watch(&mut room, 2, "a", "");
    let (mut slow_bytes, mut fast_events) = (0, 0);
    for _ in 0..100 {
        for output in put(&mut room, &mut store, "a", 4096) {
            let Output::Send { stream, message } = output else { panic!("nothing is read for a blocked stream") };
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
    assert_eq!(room.figures(), WatchFigures { streams: 2, watchers: 2, slow_watchers: 1, pending_events: 0 });
    let mut out = Vec::new();
    room.handle(Input::Drained { stream: StreamId(1), bytes: slow_bytes }, Duration::ZERO, &mut out);
    assert!(!out.is_empty(), "it goes on where it stopped");
}
