//! Flips single bits of a data directory, of every kind of page, record and manifest, and reads whatever stands on
//! them: an error that says where, or the right answer.
//!
//! `BASALT_FLIPS` sets how many: `docs/faults.md` has the figures.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::{AlarmRequest, AlarmType, PutRequest};
use basalt_proto::log::request::Kind;
use basalt_proto::log::{LogEntry, Request};
use basalt_server::apply::machine::Machine;
use basalt_server::apply::values::Values;
use basalt_storage::disk::SimulatedDisk;
use basalt_storage::job::{BUDGET_UNLIMITED, run};
use basalt_storage::mvcc::range::Hit;
use basalt_storage::mvcc::view::LogPosition;
use basalt_tests::anatomy::{Anatomy, Part, Span};
use basalt_tests::client::Client;
use basalt_tests::node_sim::SimulatedNode;
use basalt_tests::opening::{self, MEMBER_ID, Parts};
use basalt_tests::stored::Stored;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SEED: u64 = 5;
/// Of the quick form.
const FLIPS: u64 = 100_000;
/// Enough for leaves and branches in each shard, several runs, and a log of several segments.
const REQUESTS: usize = 400;
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(60);
/// Nothing happens by itself in a life that only reads.
const NEVER: Duration = Duration::from_secs(1 << 20);

type Failure = Box<dyn Error>;

/// What came of the flips of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Nobody noticed, for nobody needs those bytes or there is a second copy.
    harmless: u64,
    /// An error said where.
    refused: u64,
    /// The last batch of the log was taken for one that a power cut tore: nothing tells them apart.
    torn: u64,
}

/// A data directory and what it holds.
struct Directory {
    disk: SimulatedDisk,
    anatomy: Anatomy,
    /// In checkpoints alone.
    opened: Stored,
    /// After its log was replayed.
    replayed: Stored,
    /// After a further checkpoint.
    checkpointed: Stored,
}

impl Directory {
    fn new() -> Self {
        let mut client = Client::new(SEED, CHECKPOINT_INTERVAL);
        let mut node = client.open(SimulatedDisk::new(SEED));
        client.work(&mut node, REQUESTS).expect("the disk is healthy");
        client.work_for_checkpoints(&mut node, 1);
        client.work(&mut node, 2).expect("the disk is healthy");
        while node.is_busy() || node.named_runs().is_none() {
            client.turn(&mut node).expect("the disk is healthy");
        }
        let disk = node.restart();
        // What it holds is what the model says; from here on it is compared with itself.
        client.open(disk.restart());
        let whole = "the directory is whole";
        let opened = opened(&disk.restart()).expect(whole);
        let replayed = replayed(&disk.restart()).expect(whole);
        assert!(opened.applied_index() < replayed.applied_index(), "there is something to replay");
        let checkpointed = checkpointed(&disk.restart()).expect(whole);
        Self { anatomy: Anatomy::of(&disk), opened, replayed, checkpointed, disk }
    }

    /// Reads what stands on a flipped bit, and compares.
    fn judge(&self, part: Part, span: &Span, at: usize, bit: u8, tally: &mut Tally) {
        let context = format!("bit {bit} of byte {at} of {}, {part:?} {span:?}", span.name);
        let disk = self.disk.restart();
        assert!(disk.flip_bit(&span.name, at as u64, bit), "{context}");
        let (found, right) = match part {
            // Only who allocates reads these.
            Part::MapRootPage | Part::IndexPage | Part::BitmapPage => (checkpointed(&disk), &self.checkpointed),
            Part::LeafHeader | Part::SlotTable | Part::Entry | Part::BranchHeader | Part::BranchEntries => {
                (opened(&disk), &self.opened)
            }
            _ => (replayed(&disk), &self.replayed),
        };
        match found {
            Ok(found) if found == *right => tally.harmless += 1,
            Ok(found) => {
                let last = self.anatomy.last_batch.as_ref().expect("there is a log");
                let in_last = span.name == last.name && (last.from..last.to).contains(&at);
                assert!(in_last && found.applied_index() < right.applied_index(), "{context}: another answer");
                tally.torn += 1;
            }
            Err(error) => {
                let text = chain(&*error);
                assert!(says_where(&text, &span.name, at), "{context}: {text}");
                tally.refused += 1;
            }
        }
    }
}

fn random() -> StdRng {
    StdRng::seed_from_u64(SEED)
}

/// What is in checkpoints, read from the disk.
fn opened(disk: &SimulatedDisk) -> Result<Stored, Failure> {
    let store = opening::try_open(disk, &mut random())?.store;
    Stored::read(&store.head().into(), disk)
}

/// What is there once the log was replayed.
fn replayed(disk: &SimulatedDisk) -> Result<Stored, Failure> {
    let mut random = random();
    let parts = opening::try_open(disk, &mut random)?;
    let mut node = SimulatedNode::start(disk.clone(), parts, random, NEVER);
    node.rest().expect("nobody stops this disk");
    Stored::read(&node.view(), disk)
}

/// What is there after a checkpoint that adds to every shard and rewrites all that is partly dead; it is read once in
/// this life and once in the next.
fn checkpointed(disk: &SimulatedDisk) -> Result<Stored, Failure> {
    let Parts { store, checkpointer, .. } = opening::try_open(disk, &mut random())?;
    let mut machine = Machine::new(store);
    let LogPosition { index, term } = machine.store().head().applied;
    let put = |key: &'static str| {
        let put = PutRequest { key: key.into(), value: vec![b'v'; 9000].into(), ..PutRequest::default() };
        Request { id: 0, principal: None, kind: Some(Kind::Put(put)) }
    };
    let mut requests = ["/registry/pods/x", "/registry/events/x", "/registry/leases/x"].map(put).to_vec();
    let puts = requests.len();
    // The alarm may be armed.
    let (action, alarm) = (AlarmAction::Deactivate as i32, AlarmType::Nospace as i32);
    let disarm = Kind::Alarm(AlarmRequest { action, member_id: MEMBER_ID, alarm });
    requests.insert(0, Request { id: 0, principal: None, kind: Some(disarm) });
    let entry = LogEntry { requests, ..LogEntry::default() };
    machine.apply(LogPosition { index: index + 1, term }, &entry, &mut NoValues);
    let mut frozen = machine.store_mut().freeze();
    frozen.rewrite_all = true;
    let checkpoint = run(&mut checkpointer.begin(frozen), disk, BUDGET_UNLIMITED)?;
    assert_eq!(checkpoint.entries, puts, "all shards were written to");
    machine.store_mut().checkpointed(checkpoint.checkpointed);
    let now = Stored::read(&machine.store().head().into(), disk)?;
    let again = opened(&disk.restart())?;
    assert!(now == again, "another answer in the next life");
    Ok(now)
}

struct NoValues;

impl Values for NoValues {
    fn value(&mut self, hit: Hit) -> Bytes {
        panic!("a plain put needs no value, asked for {hit:?}")
    }
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Whether an error names the place of byte `at` of a file: the segment, the run, the page that begins at or before it.
fn says_where(text: &str, name: &str, at: usize) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    let number = file.trim_start_matches("run-").trim_end_matches(".wal");
    match name.split('/').next() {
        Some("wal") => text.contains(number),
        Some("runs") => text.contains(&format!("run {} ", u64::from_str_radix(number, 16).expect("hexadecimal"))),
        Some("pages") => {
            let page = text.split("page ").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
            page.and_then(|page| page.parse::<usize>().ok()).is_some_and(|page| page <= at / 4096)
        }
        _ => text.contains(name),
    }
}

#[test]
fn no_flipped_bit_gives_another_answer() {
    let flips = std::env::var("BASALT_FLIPS").map_or(FLIPS, |text| text.parse().expect("a number"));
    let directory = Directory::new();
    let kinds: Vec<(Part, &Vec<Span>)> = directory.anatomy.parts.iter().map(|(part, spans)| (*part, spans)).collect();
    assert_eq!(kinds.len(), 18, "the directory has every kind of bytes: {kinds:?}");
    let mut random = random();
    let mut tallies: BTreeMap<Part, Tally> = BTreeMap::new();
    for flip in 0..flips {
        let (part, spans) = kinds[(flip % kinds.len() as u64) as usize];
        let span = &spans[random.random_range(0..spans.len())];
        let (at, bit) = (random.random_range(span.from..span.to), random.random_range(0..8));
        directory.judge(part, span, at, bit, tallies.entry(part).or_default());
    }
    for (part, tally) in &tallies {
        println!("{part:?}: {tally:?}");
    }
    for (part, tally) in &tallies {
        match part {
            // There is a second copy.
            Part::ManifestHeader | Part::ManifestBody | Part::SegmentHead => {
                assert_eq!((tally.refused, tally.torn), (0, 0), "{part:?}");
            }
            Part::Unused => assert_eq!((tally.refused, tally.torn), (0, 0), "{part:?}"),
            _ => assert!(tally.refused > 0, "{part:?}: {tally:?}"),
        }
    }
}
