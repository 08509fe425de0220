//! Ranges with every option against a naive reading of etcd-contract 12 and 14 to 17, over keys of several shards.

use std::collections::{BTreeMap, BTreeSet};

use basalt_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use basalt_proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest};
use basalt_proto::log::request::Kind;
use basalt_proto::log::{LogEntry, Request};
use basalt_server::apply::machine::Machine;
use basalt_server::apply::query::range_query;
use basalt_server::apply::values::Values;
use basalt_storage::mvcc::key_value::KeyValue;
use basalt_storage::mvcc::range::{Hit, RevisionError};
use basalt_storage::mvcc::view::LogPosition;
use basalt_tests::opening::empty_store;
use bytes::Bytes;
use proptest::prelude::*;

const LEASE: i64 = 5;

/// Keys around the borders of shards.
const KEYS: [&str; 9] = [
    "/registry/events",
    "/registry/events/a",
    "/registry/events/b",
    "/registry/leases/a",
    "/registry/masterleases/a",
    "/registry/pods/a",
    "/registry/pods/b",
    "a",
    "b",
];

/// Where ranges begin and end; `\0` as an end takes all that follows.
const BOUNDS: [&str; 10] = [
    "\0",
    "/registry/",
    "/registry/events/",
    "/registry/events/b",
    "/registry/events0",
    "/registry/leases/",
    "/registry/pods/",
    "/registry/pods0",
    "a",
    "b",
];

/// What a key holds: create and mod revision, version, value, lease.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    create: i64,
    modified: i64,
    version: i64,
    value: Vec<u8>,
    lease: i64,
}

type State = BTreeMap<&'static str, Version>;

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: usize,
        value: u8,
        leased: bool,
    },
    Delete {
        key: usize,
    },
    /// So many revisions below the newest.
    Compact {
        back: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..KEYS.len(), 0..4u8, any::<bool>()).prop_map(|(key, value, leased)| Step::Put { key, value, leased }),
        2 => (0..KEYS.len()).prop_map(|key| Step::Delete { key }),
        1 => (0..6i64).prop_map(|back| Step::Compact { back }),
    ]
}

fn request() -> impl Strategy<Value = RangeRequest> {
    let revision = prop_oneof![3 => Just(0i64), 1 => Just(-1i64), 4 => 1..40i64];
    let bound = prop_oneof![3 => Just(0i64), 1 => 1..30i64];
    let span = (0..BOUNDS.len(), prop::option::of(0..BOUNDS.len()), 0..KEYS.len());
    let bounds = (bound.clone(), bound.clone(), bound.clone(), bound);
    let flags = (any::<bool>(), prop::bool::weighted(0.1), -1..6i64);
    (span, revision, bounds, flags, 0..3i32, 0..5i32).prop_map(|(span, revision, bounds, flags, order, target)| {
        let (start, end, single) = span;
        let (key, range_end) = match end {
            Some(end) => (BOUNDS[start], BOUNDS[end]),
            None => (KEYS[single], ""),
        };
        RangeRequest {
            key: Bytes::from_static(key.as_bytes()),
            range_end: Bytes::from_static(range_end.as_bytes()),
            limit: flags.2,
            revision,
            sort_order: order,
            sort_target: target,
            serializable: false,
            keys_only: flags.0,
            count_only: flags.1,
            min_mod_revision: bounds.0,
            max_mod_revision: bounds.1,
            min_create_revision: bounds.2,
            max_create_revision: bounds.3,
        }
    })
}

struct NoValues;

impl Values for NoValues {
    fn value(&mut self, hit: Hit) -> Bytes {
        panic!("nothing here looks at a value, asked for {hit:?}")
    }
}

/// The store, and all its states.
struct Both {
    machine: Machine,
    /// By revision, from 1 on.
    states: Vec<State>,
    compacted: i64,
}

impl Both {
    fn new() -> Self {
        let mut both = Self { machine: Machine::new(empty_store()), states: vec![State::new()], compacted: -1 };
        both.apply(Kind::LeaseGrant(LeaseGrantRequest { id: LEASE, ttl: 60 }));
        both
    }

    fn apply(&mut self, kind: Kind) {
        let index = self.machine.store().applied.index + 1;
        let entry =
            LogEntry { requests: vec![Request { id: 1, principal: None, kind: Some(kind) }], ..LogEntry::default() };
        self.machine.apply(LogPosition { index, term: 1 }, &entry, &mut NoValues);
    }

    fn head(&self) -> i64 {
        self.states.len() as i64
    }

    fn take(&mut self, step: &Step) {
        let mut state = self.states.last().expect("the first is there").clone();
        let modified = self.head() + 1;
        match *step {
            Step::Put { key, value, leased } => {
                let (key, lease) = (KEYS[key], if leased { LEASE } else { 0 });
                let value = vec![b'v'; value.into()];
                let before = state.get(key);
                let create = before.map_or(modified, |before| before.create);
                let version = before.map_or(1, |before| before.version + 1);
                state.insert(key, Version { create, modified, version, value: value.clone(), lease });
                let request = PutRequest { key: key.into(), value: value.into(), lease, ..PutRequest::default() };
                self.apply(Kind::Put(request));
                self.states.push(state);
            }
            Step::Delete { key } => {
                let existed = state.remove(KEYS[key]).is_some();
                self.apply(Kind::DeleteRange(DeleteRangeRequest { key: KEYS[key].into(), ..Default::default() }));
                if existed {
                    self.states.push(state);
                }
            }
            Step::Compact { back } => {
                let revision = self.head() - back;
                if revision > self.compacted.max(0) {
                    self.compacted = revision;
                    self.apply(Kind::Compaction(CompactionRequest { revision, physical: false }));
                }
            }
        }
        assert_eq!(self.machine.store().revision(), self.head());
    }

    fn asked(&self, request: &RangeRequest) -> Result<Answer, RevisionError> {
        let view = self.machine.store().head();
        let plan = view.plan(&range_query(request))?;
        let values = plan.hits.iter().map(|hit| view.resident(*hit).expect("nothing was checkpointed"));
        let result = plan.assemble(values.collect()).expect("stored values are whole");
        let one = |bytes: &Bytes| {
            let kv = KeyValue::parse(bytes).expect("a KeyValue");
            let version = Version {
                create: kv.create_revision,
                modified: kv.mod_revision,
                version: kv.version,
                value: kv.value.to_vec(),
                lease: kv.lease,
            };
            (kv.key.to_vec(), version)
        };
        Ok(Answer { kvs: result.key_values.iter().map(one).collect(), more: result.more, count: plan.count })
    }

    fn expected(&self, request: &RangeRequest) -> Result<Answer, RevisionError> {
        let at = if request.revision <= 0 { self.head() } else { request.revision };
        if at > self.head() {
            return Err(RevisionError::Future);
        }
        if at < self.compacted {
            return Err(RevisionError::Compacted);
        }
        let inside = |key: &str| match &*request.range_end {
            b"" => key.as_bytes() == request.key,
            b"\0" => key.as_bytes() >= &*request.key,
            end => key.as_bytes() >= &*request.key && key.as_bytes() < end,
        };
        let state = &self.states[usize::try_from(at - 1).expect("from 1 on")];
        let found = state.iter().filter(|(key, _)| inside(key));
        let mut kvs: Vec<(Vec<u8>, Version)> =
            found.map(|(key, version)| (key.as_bytes().to_vec(), version.clone())).collect();
        let count = kvs.len() as i64;
        if request.count_only {
            return Ok(Answer { kvs: Vec::new(), more: false, count });
        }
        let bounds = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let natural = request.sort_order() == SortOrder::None
            || (request.sort_order() == SortOrder::Ascend && request.sort_target() == SortTarget::Key);
        if natural && bounds == [0; 4] {
            kvs.truncate(limit.saturating_add(1));
        }
        let within = |n: i64, min: i64, max: i64| (min == 0 || n >= min) && (max == 0 || n <= max);
        kvs.retain(|(_, kv)| within(kv.modified, bounds[0], bounds[1]) && within(kv.create, bounds[2], bounds[3]));
        kvs.sort_by_key(|kv| sort_key(request, kv));
        if request.sort_order() == SortOrder::Descend {
            kvs.reverse();
        }
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        Ok(Answer { kvs, more, count })
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    kvs: Vec<(Vec<u8>, Version)>,
    more: bool,
    count: i64,
}

/// What a KeyValue is sorted by, as bytes that sort alike.
fn sort_key(request: &RangeRequest, (key, version): &(Vec<u8>, Version)) -> Vec<u8> {
    match request.sort_target() {
        SortTarget::Key => key.clone(),
        SortTarget::Version => version.version.to_be_bytes().to_vec(),
        SortTarget::Create => version.create.to_be_bytes().to_vec(),
        SortTarget::Mod => version.modified.to_be_bytes().to_vec(),
        SortTarget::Value => version.value.clone(),
    }
}

/// An answer is right if it shows what the model shows, but for which of several with equal sort keys: etcd leaves that
/// open.
fn check(both: &Both, request: &RangeRequest) {
    let (asked, expected) = (both.asked(request), both.expected(request));
    let (Ok(asked), Ok(expected)) = (&asked, &expected) else {
        assert_eq!(asked.map(|_| ()), expected.map(|_| ()), "{request:?}");
        return;
    };
    assert_eq!((asked.more, asked.count), (expected.more, expected.count), "{request:?}");
    // What keys_only leaves out cannot be sorted by here: look it up by key.
    let at = if request.revision <= 0 { both.head() } else { request.revision };
    let state = &both.states[usize::try_from(at - 1).expect("from 1 on")];
    let whole = |key: &[u8]| state[std::str::from_utf8(key).expect("our keys")].clone();
    let sorted_by = |kvs: &[(Vec<u8>, Version)]| -> Vec<Vec<u8>> {
        kvs.iter().map(|(key, _)| sort_key(request, &(key.clone(), whole(key)))).collect()
    };
    assert_eq!(sorted_by(&asked.kvs), sorted_by(&expected.kvs), "{request:?}");
    let distinct: BTreeSet<_> = asked.kvs.iter().map(|(key, _)| key).collect();
    assert_eq!(distinct.len(), asked.kvs.len(), "a key twice: {request:?}");
    for (key, shown) in &asked.kvs {
        let mut full = whole(key);
        if request.keys_only {
            full.value.clear();
            // Sorted by value the lease stays (etcd-contract 16).
            if request.sort_target() != SortTarget::Value {
                full.lease = 0;
            }
        }
        assert_eq!(*shown, full, "{request:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn ranges_answer_as_a_naive_model(
        steps in prop::collection::vec(step(), 1..40),
        requests in prop::collection::vec(request(), 1..24),
    ) {
        let mut both = Both::new();
        for (at, step) in steps.iter().enumerate() {
            both.take(step);
            // A compaction drops, step by step, what nobody may see any more.
            if at % 3 == 0 {
                both.machine.store_mut().sweep(1);
            }
        }
        requests.iter().for_each(|request| check(&both, request));
    }
}
