//! The rooms of the node that stand on the way of every write: apply, and who is told of it.

use std::hint::black_box;
use std::time::Duration;

use basalt_proto::etcdserverpb::{PutRequest, WatchCreateRequest};
use basalt_proto::log::request::Kind;
use basalt_proto::log::{LogEntry, Request};
use basalt_server::apply::machine::Machine;
use basalt_server::apply::values::Values;
use basalt_server::watch::{Event, EventKind, Input, Output, StreamId, WatchConfig, Watches};
use basalt_storage::mvcc::key_value::KeyValue;
use basalt_storage::mvcc::range::Hit;
use basalt_storage::mvcc::shard_map::{ShardId, ShardMap};
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::revision::Revision;
use basalt_tests::opening::empty_store;
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// Requests of one log entry: a batch of a busy node.
const BATCH: u64 = 64;
/// Log entries that one store applies. Never checkpointed, it would grow without end.
const ENTRIES: u64 = 64;
const KEYS: u64 = 10_000;
const VALUE_BYTES: usize = 256;

/// Puts compare nothing, so no value is ever asked for.
struct NoValues;

impl Values for NoValues {
    fn value(&mut self, hit: Hit) -> Bytes {
        panic!("a put needs the value of {hit:?}")
    }
}

fn entry(first: u64) -> LogEntry {
    let value = Bytes::from_static(&[7; VALUE_BYTES]);
    let put = |number: u64| {
        let key = Bytes::from(format!("/registry/pods/default/pod-{:08}", number % KEYS));
        Kind::Put(PutRequest { key, value: value.clone(), ..PutRequest::default() })
    };
    let request = |id| Request { id, principal: None, kind: Some(put(id)) };
    LogEntry { requests: (first..first + BATCH).map(request).collect(), ..LogEntry::default() }
}

fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply");
    group.throughput(Throughput::Elements(ENTRIES * BATCH));
    group.bench_function("4,096 puts of 256 B, a view every 64", |bencher| {
        let entries = || (0..ENTRIES).map(|number| entry(number * BATCH)).collect::<Vec<_>>();
        let fresh = || (Machine::new(empty_store()), entries());
        bencher.iter_batched_ref(
            fresh,
            |(machine, entries)| {
                for (index, entry) in (1..).zip(entries.iter()) {
                    black_box(machine.apply(LogPosition { index, term: 1 }, entry, &mut NoValues));
                    black_box(machine.store().head());
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn event(main: i64, key: &str) -> Event {
    let value = [7; VALUE_BYTES];
    let stored =
        KeyValue { key: key.as_bytes(), create_revision: 2, mod_revision: main, version: 2, value: &value, lease: 0 };
    let key_value = stored.encode();
    Event {
        revision: Revision::new(main, 0),
        shard: ShardId(0),
        key: KeyValue::key_of(&key_value),
        kind: EventKind::Put,
        key_value,
        previous: Some(Revision::new(main - 1, 0)),
    }
}

/// A room with 100 streams and `watchers` watchers of the ranges that `range` gives.
fn room(watchers: u64, range: impl Fn(u64) -> (String, String)) -> Watches {
    let config = WatchConfig {
        cluster_id: 1,
        member_id: 2,
        raft_term: 3,
        progress_notify_interval: Duration::from_secs(600),
        fragment_bytes: 2 << 20,
        ring_bytes: 64 << 20,
        stream_queue_bytes_max: usize::MAX,
        queue_bytes_max: usize::MAX,
        watcher_bytes_max: 512 << 20,
        scan_revisions_max: 1000,
        seed: 1,
    };
    let mut room = Watches::new(config, ShardMap::default(), 1, 0);
    let mut out = Vec::new();
    for stream in 0..100 {
        room.handle(Input::Open(StreamId(stream)), Duration::ZERO, &mut out);
    }
    for watcher in 0..watchers {
        let (key, range_end) = range(watcher);
        let request =
            WatchCreateRequest { key: key.into(), range_end: range_end.into(), ..WatchCreateRequest::default() };
        room.handle(Input::Create { stream: StreamId(watcher % 100), request }, Duration::ZERO, &mut out);
    }
    room
}

fn watch(c: &mut Criterion) {
    let key = |number: u64| format!("/registry/pods/default/pod-{number:08}");
    let rooms = [
        ("event to nobody", room(0, |_| unreachable!("no watchers"))),
        ("event to one of 10,000 with a key each", room(10_000, |number| (key(number), String::new()))),
        ("event to 1,000 of one prefix", room(1_000, |_| ("/registry/pods/".into(), "/registry/pods0".into()))),
    ];
    let mut group = c.benchmark_group("watch");
    for (name, mut room) in rooms {
        let mut revision = 1;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                revision += 1;
                let events = vec![event(revision, &key(revision.cast_unsigned() % KEYS))];
                let mut out: Vec<Output> = Vec::new();
                room.handle(Input::Applied { revision, events }, Duration::ZERO, &mut out);
                black_box(out)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, apply, watch);
criterion_main!(benches);
