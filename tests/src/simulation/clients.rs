//! Clients: they write, read what they must see, and remember everything.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_proto::log::MemberChange;
use basalt_proto::log::member_change::Kind as Change;
use basalt_proto::log::request::Kind;
use rand::Rng;
use rand::rngs::StdRng;

use crate::node_sim::{Outcome, SimulatedNode};
use crate::workload::Workload;

/// What clients saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Requests sent.
    pub sent: usize,
    /// Requests answered.
    pub acknowledged: usize,
    /// Reads that saw what they had to.
    pub reads: usize,
    /// Reads that were told to come again.
    pub reads_failed: usize,
}

/// A client that waits for a member, which forgets it when it dies.
struct Waiting {
    member: u64,
    life: u64,
}

struct Reading {
    member: u64,
    life: u64,
    /// The newest revision that anybody was told of when the read began.
    floor: i64,
}

/// All clients.
pub struct Clients {
    workload: Workload,
    next_read: u64,
    waiting: BTreeMap<u64, Waiting>,
    reading: BTreeMap<u64, Reading>,
    /// The newest revision that anybody was told of.
    told: i64,
    /// Figures.
    pub seen: Seen,
}

impl Clients {
    /// Clients of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            workload: Workload::new(seed),
            next_read: 0,
            waiting: BTreeMap::new(),
            reading: BTreeMap::new(),
            told: 0,
            seen: Seen::default(),
        }
    }

    /// Sends a request to a member; gives it for the ledger.
    pub fn write(&mut self, node: &mut SimulatedNode, member: u64, life: u64) -> basalt_proto::log::Request {
        let request = self.workload.next_request(self.told.max(1));
        self.waiting.insert(request.id, Waiting { member, life });
        self.seen.sent += 1;
        node.propose(request.clone());
        request
    }

    /// Has a member change who belongs to the cluster; gives the request for the ledger.
    pub fn change(
        &mut self,
        node: &mut SimulatedNode,
        member: u64,
        life: u64,
        change: Change,
    ) -> basalt_proto::log::Request {
        let request = self.workload.request(Kind::MemberChange(MemberChange { kind: Some(change) }));
        self.waiting.insert(request.id, Waiting { member, life });
        node.propose(request.clone());
        request
    }

    /// Begins a linearizable read at a member.
    pub fn read(&mut self, node: &mut SimulatedNode, member: u64, life: u64) {
        self.next_read += 1;
        self.reading.insert(self.next_read, Reading { member, life, floor: self.told });
        node.read_index(self.next_read);
    }

    /// A member applied entries: whoever waits there is answered.
    pub fn hear_outcomes(&mut self, outcomes: &[Outcome], member: u64, life: u64) {
        for (outcome, entry) in outcomes.iter().filter_map(|outcome| Some((outcome, outcome.entry.as_ref()?))) {
            if entry.proposer != member {
                continue;
            }
            for (id, answer) in &outcome.answers {
                let waits =
                    self.waiting.get(id).is_some_and(|waiting| (waiting.member, waiting.life) == (member, life));
                if waits {
                    self.waiting.remove(id);
                    self.seen.acknowledged += 1;
                    if let Ok(answer) = answer {
                        self.told = self.told.max(answer.revision());
                    }
                }
            }
        }
    }

    /// Reads that a member lets go on: each must find what was told to anybody before it began (I7).
    ///
    /// # Panics
    /// When one does not.
    pub fn hear_reads(&mut self, node: &SimulatedNode, ready: &[u64], failed: &[u64], member: u64, life: u64) {
        for read in ready {
            let reading = self.reading.remove(read).unwrap_or_else(|| panic!("read {read} was answered twice"));
            assert_eq!((reading.member, reading.life), (member, life), "a read of another life was answered");
            let revision = node.view().revision;
            assert!(
                revision >= reading.floor,
                "a read found {revision} at {member:x}, {} was told before",
                reading.floor
            );
            self.seen.reads += 1;
        }
        for read in failed {
            self.reading.remove(read);
            self.seen.reads_failed += 1;
        }
    }

    /// A pause until the next thing that clients do.
    pub fn pause(random: &mut StdRng, per_second: u32) -> Duration {
        Duration::from_secs(2).mul_f64(random.random()) / per_second.max(1)
    }
}
