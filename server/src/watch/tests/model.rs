//! Random lives of a room beside a client that knows all history: every watch gets exactly its events, in order, whole
//! revisions, once; progress never lies; and in the end nobody is left behind.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use basalt_storage::mvcc::key_range::KeyRange;
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::super::{Event, EventKind, Input, Output, StreamId, WatchConfig, Watches};
use super::store::{Store, Write};

const KEYS: [&str; 6] = ["a", "b", "c/1", "e/1", "e/2", "z"];
const RANGES: [(&str, &str); 8] =
    [("a", ""), ("e/1", ""), ("z", ""), ("e/", "e0"), ("a", "c0"), ("a", "z"), ("b", "\0"), ("", "\0")];
const STREAMS: u64 = 3;

#[derive(Clone, Debug)]
enum Step {
    /// Transactions applied together.
    Apply(Vec<Vec<(usize, Option<u8>)>>),
    /// The same on another member, whose snapshot this one takes; compacted so far below its revision.
    Restore(Vec<Vec<(usize, Option<u8>)>>, i64),
    Create(CreateStep),
    Cancel(u64, i64),
    Reopen(u64),
    Progress(u64),
    /// How far below the store's revision.
    Compact(i64),
    Answer(usize),
    Drain(u64, usize),
    Wait(u64),
}

#[derive(Clone, Debug)]
struct CreateStep {
    stream: u64,
    range: usize,
    /// Relative to the store's revision; `None` is 0.
    start: Option<i64>,
    watch_id: i64,
    flags: [bool; 5],
}

fn step() -> impl Strategy<Value = Step> {
    let stream = 0..STREAMS;
    let write = (0..KEYS.len(), prop::option::weighted(0.7, any::<u8>()));
    let transactions = prop::collection::vec(prop::collection::vec(write, 1..4), 1..4);
    let create = (
        stream.clone(),
        0..RANGES.len(),
        prop::option::of(-12..4i64),
        prop_oneof![0..4i64, Just(-3i64)],
        any::<[bool; 5]>(),
    );
    prop_oneof![
        6 => transactions.clone().prop_map(Step::Apply),
        1 => (transactions, 0..8i64).prop_map(|(transactions, below)| Step::Restore(transactions, below)),
        4 => create.prop_map(|(stream, range, start, watch_id, flags)| {
            Step::Create(CreateStep { stream, range, start, watch_id, flags })
        }),
        1 => (stream.clone(), -3..5i64).prop_map(|(stream, id)| Step::Cancel(stream, id)),
        1 => stream.clone().prop_map(Step::Reopen),
        2 => stream.clone().prop_map(Step::Progress),
        1 => (0..8i64).prop_map(Step::Compact),
        6 => any::<usize>().prop_map(Step::Answer),
        4 => (stream, 1..300usize).prop_map(|(stream, bytes)| Step::Drain(stream, bytes)),
        2 => (1..200u64).prop_map(Step::Wait),
    ]
}

/// A watch as its client knows it.
struct Watch {
    range: KeyRange,
    request: WatchCreateRequest,
    /// First revision it is owed.
    first: i64,
    received: Vec<Event>,
    heard: i64,
    /// A fragmented response is under way.
    fragments: bool,
}

impl Watch {
    fn owed<'a>(&'a self, history: &'a [Event]) -> impl Iterator<Item = &'a Event> {
        history.iter().filter(|event| {
            let filter = if event.kind == EventKind::Put { 0 } else { 1 };
            event.revision.main >= self.first
                && self.range.contains(&event.key)
                && !self.request.filters.contains(&filter)
        })
    }

    /// All up to `revision` was received, and nothing that claims more may follow with less.
    fn hears(&mut self, revision: i64, history: &[Event]) {
        let owed = self.owed(history).filter(|event| event.revision.main <= revision).count();
        assert!(self.received.len() >= owed, "progress {revision} with {owed} owed, {} sent", self.received.len());
        assert!(revision >= self.heard, "progress went back");
        self.heard = revision;
    }
}

#[derive(Default)]
struct Client {
    watches: BTreeMap<i64, Watch>,
    requests: std::collections::VecDeque<WatchCreateRequest>,
    undrained: usize,
    progress_answers: Vec<i64>,
}

struct World {
    room: Watches,
    store: Store,
    now: Duration,
    clients: BTreeMap<u64, Client>,
    /// Stream numbers in use; reopening takes a new one.
    names: Vec<u64>,
    questions: Vec<Output>,
}

impl World {
    fn new(figures: [usize; 4]) -> Self {
        let store = Store::default();
        let config = WatchConfig {
            cluster_id: 1,
            member_id: 2,
            raft_term: 3,
            progress_notify_interval: Duration::from_millis(100),
            fragment_bytes: figures[0],
            ring_bytes: figures[1],
            stream_queue_bytes_max: figures[2],
            queue_bytes_max: 64 << 20,
            watcher_bytes_max: 64 << 20,
            scan_revisions_max: figures[3],
            seed: 7,
        };
        let room = Watches::new(config, store.map.clone(), store.revision, store.compact_revision);
        let mut world = Self {
            room,
            store,
            now: Duration::ZERO,
            clients: BTreeMap::new(),
            names: (0..STREAMS).collect(),
            questions: Vec::new(),
        };
        (0..STREAMS).for_each(|stream| world.open(stream));
        world
    }

    fn open(&mut self, name: u64) {
        self.clients.insert(name, Client::default());
        self.give(Input::Open(StreamId(name)));
    }

    fn give(&mut self, input: Input) {
        let mut out = Vec::new();
        self.room.handle(input, self.now, &mut out);
        for output in out {
            match output {
                Output::Send { stream, message, .. } => self.receive(stream.0, &message),
                question => self.questions.push(question),
            }
        }
    }

    fn receive(&mut self, name: u64, message: &[Bytes]) {
        let bytes = message.concat();
        let response = WatchResponse::decode(&bytes[..]).expect("a WatchResponse");
        assert_eq!(response.encode_to_vec(), bytes, "canonical wire form");
        let client = self.clients.get_mut(&name).expect("nothing is sent to a closed stream");
        client.undrained += bytes.len();
        let revision = response.header.expect("every response has a header").revision;
        if response.created {
            let request = client.requests.pop_front().expect("one answer a request");
            if response.canceled {
                assert_eq!(response.watch_id, -1);
                return;
            }
            let range =
                KeyRange::from_wire(if request.key.is_empty() { b"\0" } else { &request.key }, &request.range_end);
            let first = if request.start_revision == 0 { revision + 1 } else { request.start_revision };
            let heard = if request.start_revision == 0 { revision } else { 0 };
            let watch = Watch { range, request, first, received: vec![], heard, fragments: false };
            assert!(client.watches.insert(response.watch_id, watch).is_none(), "an id was given twice");
        } else if response.canceled {
            let watch = client.watches.remove(&response.watch_id);
            if response.compact_revision != 0 {
                assert_eq!((revision, response.compact_revision), (0, self.store.compact_revision));
                assert!(watch.expect("a watch").heard < response.compact_revision, "it had heard of more");
            }
        } else if response.watch_id == -1 && response.events.is_empty() {
            client.progress_answers.push(revision);
            client.watches.values_mut().for_each(|watch| watch.hears(revision, &self.store.history));
            assert!(client.watches.values().all(|watch| revision >= watch.request.start_revision));
        } else {
            let watch = client.watches.get_mut(&response.watch_id).expect("a watch that lives");
            assert!(revision >= watch.request.start_revision, "nothing before the start");
            if response.events.is_empty() {
                assert!(watch.request.progress_notify);
            }
            Self::take_events(watch, &response, &self.store);
            watch.fragments = response.fragment;
            assert!(!response.fragment || watch.request.fragment);
            if !response.fragment {
                watch.hears(revision, &self.store.history);
                let last = watch.received.last().map_or(0, |event| event.revision.main);
                let owed = watch.owed(&self.store.history).filter(|event| event.revision.main <= last).count();
                assert_eq!(watch.received.len(), owed, "whole revisions");
            }
        }
    }

    fn take_events(watch: &mut Watch, response: &WatchResponse, store: &Store) {
        for event in &response.events {
            let kv = event.kv.as_ref().expect("an event shows its key");
            let owed = watch.owed(&store.history).nth(watch.received.len()).expect("nothing that is not owed").clone();
            assert_eq!(kv.encode_to_vec(), owed.key_value);
            assert_eq!(event.r#type, i32::from(owed.kind == EventKind::Delete));
            let shown = event.prev_kv.as_ref().map(|kv| Bytes::from(kv.encode_to_vec()));
            let previous = store.previous_of(&owed).filter(|_| watch.request.prev_kv);
            let may_be_gone = owed.revision.main - 1 < store.compact_revision;
            assert!(shown == previous || (shown.is_none() && may_be_gone), "wrong previous value");
            watch.received.push(owed);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Apply(transactions) => {
                let events = self.write(&transactions);
                self.give(Input::Applied { revision: self.store.revision, events });
            }
            Step::Restore(transactions, below) => {
                self.write(&transactions);
                let revision = self.store.revision;
                self.store.compact_revision = self.store.compact_revision.max(revision - below);
                self.give(Input::Restored { revision, compact_revision: self.store.compact_revision });
            }
            Step::Create(create) => self.create(&create),
            Step::Cancel(stream, watch_id) => {
                let stream = StreamId(self.names[stream as usize]);
                self.give(Input::Cancel { stream, watch_id });
            }
            Step::Reopen(stream) => {
                let new = self.names.iter().max().unwrap() + 1;
                let old = std::mem::replace(&mut self.names[stream as usize], new);
                self.clients.remove(&old);
                self.give(Input::Close(StreamId(old)));
                self.open(new);
            }
            Step::Progress(stream) => self.give(Input::Progress { stream: StreamId(self.names[stream as usize]) }),
            Step::Compact(below) => {
                let revision = self.store.revision - below;
                if revision > self.store.compact_revision && revision > 0 {
                    self.store.compact_revision = revision;
                    self.give(Input::Compacted(revision));
                }
            }
            Step::Answer(which) => {
                if !self.questions.is_empty() {
                    let question = self.questions.remove(which % self.questions.len());
                    self.give(self.store.answer(&question));
                }
            }
            Step::Drain(stream, bytes) => self.drain(self.names[stream as usize], bytes),
            Step::Wait(millis) => {
                self.now += Duration::from_millis(millis);
                self.give(Input::Tick);
            }
        }
    }

    fn write(&mut self, transactions: &[Vec<(usize, Option<u8>)>]) -> Vec<Event> {
        let mut events = Vec::new();
        for transaction in transactions {
            let value = |n: &u8| vec![*n; usize::from(*n)].into();
            // A key is written once in a transaction (etcd-contract 4).
            let writes: BTreeMap<usize, Option<Bytes>> =
                transaction.iter().map(|(key, n)| (*key, n.as_ref().map(value))).collect();
            let writes: Vec<Write> = writes.into_iter().map(|(key, value)| (KEYS[key].into(), value)).collect();
            events.extend(self.store.write(&writes));
        }
        events
    }

    fn create(&mut self, create: &CreateStep) {
        let name = self.names[create.stream as usize];
        let (key, range_end) = RANGES[create.range];
        let [prev_kv, fragment, progress_notify, no_put, no_delete] = create.flags;
        let request = WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            start_revision: create.start.map_or(0, |start| self.store.revision + start),
            progress_notify,
            // A filter now and then, not half the time.
            filters: [(no_put && fragment, 0), (no_delete && progress_notify, 1)]
                .into_iter()
                .filter_map(|(set, filter)| set.then_some(filter))
                .collect(),
            prev_kv,
            watch_id: create.watch_id,
            fragment,
        };
        self.clients.get_mut(&name).unwrap().requests.push_back(request.clone());
        self.give(Input::Create { stream: StreamId(name), request });
    }

    fn drain(&mut self, name: u64, bytes: usize) {
        let client = self.clients.get_mut(&name).unwrap();
        let bytes = bytes.min(client.undrained);
        client.undrained -= bytes;
        self.give(Input::Drained { stream: StreamId(name), bytes });
    }

    /// Answers, drains and ticks until nothing more happens, then looks whether everybody has everything.
    fn settle(&mut self) {
        for name in self.names.clone() {
            self.give(Input::Progress { stream: StreamId(name) });
        }
        let mut rounds = 0;
        while !self.questions.is_empty() || self.room.figures().slow_watchers > 0 {
            rounds += 1;
            assert!(rounds < 1000, "never settles");
            self.step(Step::Answer(0));
            for name in self.names.clone() {
                self.drain(name, usize::MAX);
            }
            self.step(Step::Wait(1));
        }
        for name in self.names.clone() {
            self.drain(name, usize::MAX);
            self.give(Input::Progress { stream: StreamId(name) });
        }
        assert_eq!(self.room.figures().pending_events, 0);
        let watchers: usize = self.clients.values().map(|client| client.watches.len()).sum();
        assert_eq!(self.room.figures().watchers, watchers);
        for client in self.clients.values() {
            assert!(client.requests.is_empty(), "a request was not answered");
            let future = client.watches.values().any(|watch| watch.request.start_revision > self.store.revision);
            if !client.watches.is_empty() && !future {
                assert_eq!(client.progress_answers.last(), Some(&self.store.revision), "progress in the end");
            }
            for watch in client.watches.values() {
                assert_eq!(watch.received.len(), watch.owed(&self.store.history).count(), "all events in the end");
                assert!(!watch.fragments, "the last fragment is missing");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn every_watch_gets_exactly_its_events(
        figures in (60..2000usize, 0..8000usize, 0..2000usize, 1..5usize),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new([figures.0, figures.1, figures.2, figures.3]);
        steps.into_iter().for_each(|step| world.step(step));
        world.settle();
    }
}
