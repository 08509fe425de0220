use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use basalt_proto::etcdserverpb::compare::{CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::{CompactionRequest, Compare, PutRequest, TxnRequest};
use basalt_storage::checkpoint::recovery::{self, Birth, Opened};
use basalt_storage::checkpoint::{Checkpoint, Salt};
use basalt_storage::disk::{Disk, Io, IoOutput, SimulatedDisk};
use basalt_storage::hashes::HashKvCache;
use basalt_storage::job::{BUDGET_UNLIMITED, run};
use basalt_storage::mvcc::shard_map::ShardMap;
use basalt_storage::mvcc::store::Store;
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::pages::PageCache;
use basalt_storage::pages::allocator::PAGE_SIZE;
use tokio::sync::oneshot;

use super::*;
use crate::admission::Gate;
use crate::apply::answer::Refusal;
use crate::apply::values::Values;
use crate::auth::{Auth, TokenKind};
use crate::lease::{LeaseClock, LeaseClockConfig};
use crate::metrics::Metrics;
use crate::node::checkpoint_thread::CheckpointWork;
use crate::node::compaction_hashes::CompactionHashes;
use crate::node::handle::{Completion, Gauges, Unavailable};
use crate::node::readers::{ReadPools, Readers};
use crate::node::waiters::Waiters;
use crate::watch;

const COLD: &str = "/registry/pods/cold";
const CACHE_BYTES: usize = 1 << 20;
/// For what would never come if it did not come.
const NEVER: Duration = Duration::from_secs(300);

/// A disk whose reads wait until the gate's sender is gone.
struct GatedDisk {
    disk: SimulatedDisk,
    gate: Mutex<Receiver<()>>,
}

impl Disk for GatedDisk {
    fn perform(&self, io: Io) -> io::Result<IoOutput> {
        if matches!(io, Io::Read { .. }) {
            _ = self.gate.lock().expect("no one panics here").recv();
        }
        self.disk.perform(io)
    }
}

struct NoValues;

impl Values for NoValues {
    fn value(&mut self, hit: basalt_storage::mvcc::range::Hit) -> bytes::Bytes {
        panic!("a plain put needs no value, asked for {hit:?}")
    }
}

fn entry(id: u64, kind: Kind) -> LogEntry {
    LogEntry { proposer: 7, requests: vec![Request { id, principal: None, kind: Some(kind) }], ..LogEntry::default() }
}

fn put(key: &str, value: &str) -> Kind {
    Kind::Put(PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..PutRequest::default() })
}

fn value_is(key: &str, value: &str) -> Kind {
    let target_union = Some(TargetUnion::Value(value.to_owned().into()));
    let target = CompareTarget::Value as i32;
    let compare = Compare { target, target_union, key: key.to_owned().into(), ..Compare::default() };
    Kind::Txn(TxnRequest { compare: vec![compare], ..TxnRequest::default() })
}

/// A store with the value of [`COLD`] in a page that no cache holds.
fn cold_store(disk: &SimulatedDisk) -> Store {
    let birth =
        Birth { cluster_id: 1, member_id: 7, incarnation: 3, conf_state: Vec::new(), shard_map: ShardMap::default() };
    let new_cache = || Arc::new(PageCache::new(CACHE_BYTES));
    let Opened { store, checkpointer, .. } =
        recovery::create(disk, &new_cache(), Salt::new(1), birth).expect("a healthy disk");
    let mut machine = Machine::new(store);
    machine.apply(LogPosition { index: 1, term: 1 }, &entry(1, put(COLD, "value")), &mut NoValues);
    let mut job = checkpointer.begin(machine.store_mut().freeze());
    let Checkpoint { .. } = run(&mut job, disk, BUDGET_UNLIMITED).expect("a healthy disk");
    let opened = recovery::open(disk, &new_cache(), Salt::new(2)).expect("a healthy disk");
    opened.expect("it was created").store
}

/// An apply thread over a store, and what it talks to. Every checkpoint finds the disk full.
struct Rig {
    apply: Sender<ApplyInput>,
    waiters: Arc<Waiters>,
    metrics: Arc<Metrics>,
    hash_cache: Arc<Mutex<HashKvCache>>,
    walks: Readers,
    /// What it tells others is kept, so that they seem to live.
    _others: (Receiver<NodeInput>, Receiver<watch::Input>),
    thread: JoinHandle<()>,
}

impl Rig {
    fn start(store: Store, disk: &Arc<dyn Disk>) -> Self {
        let (apply, inbox) = channel();
        let (node, node_inbox) = channel();
        let (watches, watch_inbox) = channel();
        let (checkpoint, checkpoints) = channel();
        let (waiters, metrics) = (Arc::new(Waiters::default()), Arc::new(Metrics::default()));
        let pools = ReadPools::start(disk).expect("threads").0;
        let (hash_cache, walks) = (Arc::new(Mutex::new(HashKvCache::new())), pools.walk.clone());
        let links = ApplyLinks {
            member_id: 7,
            node,
            inbox: apply.clone(),
            gate: Arc::new(Gate::new(3, 1 << 30)),
            checkpoint,
            checkpoint_pace: Arc::default(),
            watches,
            view: Arc::new(ArcSwap::from_pointee(store.head())),
            members: Arc::default(),
            waiters: waiters.clone(),
            leases: Arc::new(Mutex::new(LeaseClock::new(LeaseClockConfig::default()))),
            gauges: Arc::new(Gauges::default()),
            readers: pools.apply,
            hashes: CompactionHashes::new(pools.walk, hash_cache.clone()),
            metrics: metrics.clone(),
            started: Instant::now(),
            former_life: 0,
            checkpoint_bytes: 256 << 20,
            sweep_pause: Duration::from_millis(10),
            sweep_batch: 1000,
            downgrade: Arc::default(),
            auth: Arc::new(Auth::new(Arc::default(), TokenKind::None.into())),
            hash_mark_interval: NEVER,
            slow_apply: NEVER,
        };
        let thread = ApplyThread::new(Machine::new(store), links, 0, 0, true);
        let thread = std::thread::spawn(move || thread.run(&inbox));
        let full_disk = apply.clone();
        std::thread::spawn(move || {
            for work in checkpoints {
                let CheckpointWork::Write(frozen) = work else { unreachable!("nobody sends a state") };
                if full_disk.send(ApplyInput::CheckpointRefused(Box::new(frozen))).is_err() {
                    return;
                }
            }
        });
        Self { apply, waiters, metrics, hash_cache, walks, _others: (node_inbox, watch_inbox), thread }
    }

    fn send(&self, input: ApplyInput) {
        self.apply.send(input).expect("it works");
    }

    fn commit(&self, index: u64, kind: Kind) -> oneshot::Receiver<Completion> {
        let (sender, receiver) = oneshot::channel();
        self.waiters.add(index, sender);
        let entry = Some(entry(index, kind));
        self.send(ApplyInput::Committed(vec![Committed { position: LogPosition { index, term: 1 }, entry }]));
        receiver
    }

    /// Asks between two inputs.
    fn revision(&self) -> i64 {
        let (sender, receiver) = channel();
        let question = move |machine: &mut Machine| _ = sender.send(machine.store().revision());
        self.send(ApplyInput::Request(ApplyRequest::Ask(Box::new(question))));
        receiver.recv_timeout(NEVER).expect("apply answers")
    }

    fn checkpoint(&self) -> oneshot::Receiver<Result<bool, Unavailable>> {
        let (done, receiver) = oneshot::channel();
        self.send(ApplyInput::Request(ApplyRequest::Checkpoint { tidy: false, done }));
        receiver
    }

    /// Waits until what was handed to the walks before is done: each of their two threads has come here.
    fn walks_are_done(&self) {
        let here = Arc::new(std::sync::Barrier::new(3));
        for _ in 0..2 {
            let here = here.clone();
            self.walks.spawn(move |_| _ = here.wait());
        }
        here.wait();
    }

    /// Whether the cache has the hash of a compaction at `revision`.
    fn has_hash(&self, revision: i64) -> bool {
        let cache = self.hash_cache.lock().expect("no one panics here");
        cache.hashes().iter().any(|hash| hash.revision == revision)
    }

    fn stop(self) {
        self.send(ApplyInput::Stop);
        self.thread.join().expect("it ends");
    }
}

#[test]
fn apply_goes_on_with_all_else_while_a_value_is_read_for_an_entry() {
    let (open_gate, gate) = channel::<()>();
    let disk = SimulatedDisk::new(1);
    let store = cold_store(&disk);
    let disk: Arc<dyn Disk> = Arc::new(GatedDisk { disk, gate: Mutex::new(gate) });
    let rig = Rig::start(store, &disk);

    let first = rig.commit(2, put("/registry/pods/a", "1"));
    assert!(first.blocking_recv().expect("answered").is_ok());
    let revision = rig.revision();
    let mut held = rig.commit(3, value_is(COLD, "value"));
    let mut behind = rig.commit(4, put("/registry/pods/a", "2"));
    // The disk does not answer; apply does, and keeps the order of entries.
    assert_eq!(rig.revision(), revision);
    assert!(held.try_recv().is_err() && behind.try_recv().is_err());
    let checkpoint = rig.checkpoint();
    assert_eq!(checkpoint.blocking_recv(), Ok(Err(Refusal::NoSpace.into())));
    assert_eq!(rig.metrics.apply_disk_waits_total.get(), 1);

    drop(open_gate);
    let held = held.blocking_recv().expect("answered").expect("applied").answer;
    assert!(matches!(held, Answer::Txn(txn) if txn.succeeded && txn.revision == revision));
    let behind = behind.blocking_recv().expect("answered").expect("applied").answer;
    assert_eq!(behind.revision(), revision + 1);
    // Read for a decision, it is in the cache.
    let again = rig.commit(5, value_is(COLD, "value"));
    assert!(again.blocking_recv().expect("answered").is_ok());
    assert_eq!(rig.metrics.apply_disk_waits_total.get(), 1);
    rig.stop();
}

/// A compaction hashes what it compacts; damage that this meets is nobody's error but the hash's.
#[test]
fn damage_under_the_hash_of_a_compaction_stops_nothing() {
    for damaged in [false, true] {
        let disk = SimulatedDisk::new(1);
        let store = cold_store(&disk);
        if damaged {
            let name = basalt_storage::checkpoint::page_file_name(1);
            let bytes = disk.contents(&name).expect("it is there");
            let value = bytes.windows(5).position(|window| window == b"value").expect("it is stored");
            // The hash is made of what the head of the leaf says, the first of its slots here.
            let slot = value / PAGE_SIZE * PAGE_SIZE + 72;
            assert!(disk.flip_bit(&name, slot as u64, 0));
        }
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let rig = Rig::start(store, &disk);
        let revision = rig.revision();
        let compaction = Kind::Compaction(CompactionRequest { revision, physical: false });
        assert!(rig.commit(2, compaction).blocking_recv().expect("answered").is_ok());
        rig.walks_are_done();
        assert_eq!(rig.has_hash(revision), !damaged);
        // The node goes on, the next compaction too.
        assert!(rig.commit(3, put("/registry/pods/a", "1")).blocking_recv().expect("answered").is_ok());
        assert_eq!(rig.revision(), revision + 1);
        rig.stop();
    }
}

/// Else a HashKV right behind it would find no hash of this compaction, and compute another.
#[test]
fn a_compaction_has_ended_when_its_hash_is_there() {
    let disk = SimulatedDisk::new(9);
    let store = cold_store(&disk);
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let rig = Rig::start(store, &disk);
    let revision = rig.revision();
    // Nothing that walks gets on until both of these threads are let go.
    let gate = Arc::new(std::sync::Barrier::new(3));
    for _ in 0..2 {
        let gate = gate.clone();
        rig.walks.spawn(move |_| _ = gate.wait());
    }
    let compaction = Kind::Compaction(CompactionRequest { revision, physical: true });
    assert!(rig.commit(2, compaction).blocking_recv().expect("answered").is_ok());
    let (done, mut ended) = oneshot::channel();
    rig.send(ApplyInput::Request(ApplyRequest::Compacted(done)));
    let swept = || {
        let (sender, receiver) = channel();
        let question = move |machine: &mut Machine| _ = sender.send(!machine.store().is_sweeping());
        rig.send(ApplyInput::Request(ApplyRequest::Ask(Box::new(question))));
        receiver.recv_timeout(NEVER).expect("apply answers")
    };
    // Without a pause between questions: the sweep goes on beside them.
    while !swept() {}
    assert!(ended.try_recv().is_err(), "told before the hash is there");
    gate.wait();
    ended.blocking_recv().expect("told");
    assert!(rig.has_hash(revision));
    rig.stop();
}

#[test]
fn a_compaction_drops_a_batch_at_a_time_and_is_counted() {
    let disk = SimulatedDisk::new(9);
    let store = cold_store(&disk);
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let rig = Rig::start(store, &disk);
    const KEYS: u64 = 300;
    const VERSIONS: u64 = 20;
    let puts = (0..KEYS * VERSIONS).map(|put| rig.commit(2 + put, self::put(&format!("/{}", put % KEYS), "value")));
    let puts: Vec<_> = puts.collect();
    puts.into_iter().for_each(|put| assert!(put.blocking_recv().expect("answered").is_ok()));
    let compaction = Kind::Compaction(CompactionRequest { revision: rig.revision(), physical: true });
    assert!(rig.commit(2 + KEYS * VERSIONS, compaction).blocking_recv().expect("answered").is_ok());
    let (done, ended) = oneshot::channel();
    rig.send(ApplyInput::Request(ApplyRequest::Compacted(done)));
    ended.blocking_recv().expect("told");
    let metrics = &rig.metrics;
    assert_eq!(metrics.compaction_keys_total.get(), KEYS * (VERSIONS - 1));
    assert_eq!(metrics.compaction_milliseconds.get_sample_count(), 1);
    // A step drops its batch of a thousand and what is left of the leaf in which that is full; the last may find nothing.
    let steps = metrics.compaction_pause_milliseconds.get_sample_count();
    assert!((3..=7).contains(&steps), "{steps} steps");
    rig.stop();
}
