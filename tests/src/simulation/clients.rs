//! Clients: they write, read what they must see, and remember everything.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_proto::log::request::Kind;
use basalt_proto::log::{Principal, Request};
use basalt_server::apply::answer::Refusal;
use rand::Rng;
use rand::rngs::StdRng;

use super::accounts::Asker;
use super::invariants::reads::{self, Question, linearizable};
use super::invariants::{compaction, permissions};
use crate::ledger::Ledger;
use crate::node_sim::{Outcome, SimulatedNode};
use crate::workload::Workload;

/// What clients saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered.
    pub acknowledged: u64,
    /// Linearizable reads that saw what they had to.
    pub reads: u64,
    /// Reads that asked nobody, and saw what they had to.
    pub serializable: u64,
    /// Reads that were told to come again.
    pub reads_failed: u64,
    /// Requests that users and roles refused where they were applied.
    pub denied: u64,
    /// Reads likewise.
    pub reads_denied: u64,
}

/// A client that waits for a member, which forgets it when it dies.
struct Waiting {
    member: u64,
    life: u64,
    /// A lease that it asked for, and when.
    grant: Option<(i64, Duration)>,
    /// The newest entry that anybody was told of when it asked.
    floor: u64,
}

struct Reading {
    member: u64,
    life: u64,
    /// The newest revision that anybody was told of when the read began.
    floor: i64,
    /// The newest entry likewise.
    floor_entry: u64,
    asker: Asker,
    question: Question,
    /// Where in the past it looks besides.
    past: Option<u64>,
}

/// All clients.
pub struct Clients {
    workload: Workload,
    next_read: u64,
    waiting: BTreeMap<u64, Waiting>,
    reading: BTreeMap<u64, Reading>,
    /// The newest revision that anybody was told of.
    told: i64,
    /// The newest entry likewise, whatever it changed.
    told_entry: u64,
    /// Figures.
    pub seen: Seen,
}

impl Clients {
    /// Clients of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            workload: Workload::of_cluster(seed),
            next_read: 0,
            waiting: BTreeMap::new(),
            reading: BTreeMap::new(),
            told: 0,
            told_entry: 0,
            seen: Seen::default(),
        }
    }

    /// What a client wants done next; `lease` may be what a written key hangs on.
    pub fn draw(&mut self, lease: Option<i64>) -> Request {
        let mut request = self.workload.next_request(self.told.max(1));
        if let (Some(Kind::Put(put)), Some(lease)) = (&mut request.kind, lease) {
            put.lease = lease;
        }
        request
    }

    /// Sends it to a member in its life; gives it for the ledger.
    pub fn write(&mut self, node: &mut SimulatedNode, at: (u64, u64), request: Request, now: Duration) -> Request {
        self.seen.sent += 1;
        self.send(node, at, request, now)
    }

    /// Has this ordered, on somebody's behalf; gives the request for the ledger.
    pub fn order(
        &mut self,
        node: &mut SimulatedNode,
        at: (u64, u64),
        (kind, principal): (Kind, Option<Principal>),
        now: Duration,
    ) -> Request {
        let request = Request { principal, ..self.workload.request(kind) };
        self.send(node, at, request, now)
    }

    /// An id that no other request has.
    pub fn next_id(&mut self) -> u64 {
        self.workload.next_id()
    }

    fn send(&mut self, node: &mut SimulatedNode, at: (u64, u64), request: Request, now: Duration) -> Request {
        let grant = match &request.kind {
            Some(Kind::LeaseGrant(grant)) => Some((grant.id, now)),
            _ => None,
        };
        let (member, life) = at;
        self.waiting.insert(request.id, Waiting { member, life, grant, floor: self.told_entry });
        node.propose(request.clone());
        request
    }

    /// Reads at a member, linearizably or not.
    pub fn read(
        &mut self,
        node: &mut SimulatedNode,
        (member, life): (u64, u64),
        asker: Asker,
        random: &mut StdRng,
        ledger: &Ledger,
    ) {
        let question = self.workload.question();
        let past = random.random_ratio(1, 4).then(|| random.random());
        if random.random_ratio(1, 3) {
            if !permissions::may_read(node, &asker, &question, ledger) {
                self.seen.reads_denied += 1;
                return;
            }
            question.ask(node, 0, ledger);
            self.seen.serializable += 1;
            return;
        }
        self.next_read += 1;
        let (floor, floor_entry) = (self.told, self.told_entry);
        self.reading.insert(self.next_read, Reading { member, life, floor, floor_entry, asker, question, past });
        node.read_index(self.next_read);
    }

    /// A member applied entries: whoever waits there is answered. Gives leases that were granted: lease, request, and when it
    /// was asked for.
    pub fn hear_outcomes(&mut self, outcomes: &[Outcome], member: u64, life: u64) -> Vec<(i64, u64, Duration)> {
        let mut granted = Vec::new();
        for (outcome, entry) in outcomes.iter().filter_map(|outcome| Some((outcome, outcome.entry.as_ref()?))) {
            if entry.proposer != member {
                continue;
            }
            for (id, answer) in &outcome.answers {
                let waits = |waiting: &&Waiting| (waiting.member, waiting.life) == (member, life);
                let Some(Waiting { grant, floor, .. }) = self.waiting.get(id).filter(waits) else { continue };
                let (grant, floor) = (*grant, *floor);
                self.waiting.remove(id);
                self.seen.acknowledged += 1;
                self.seen.denied += u64::from(matches!(answer, Err(Refusal::Auth(_))));
                reads::is_behind(member, outcome.position.index, floor);
                self.told_entry = self.told_entry.max(outcome.position.index);
                if let Ok(answer) = answer {
                    self.told = self.told.max(answer.revision());
                    granted.extend(grant.map(|(lease, asked)| (lease, *id, asked)));
                }
            }
        }
        granted
    }

    /// Reads that a member lets go on: each must find what was told to anybody before it began.
    ///
    /// # Panics
    /// When one does not.
    pub fn hear_reads(
        &mut self,
        node: &SimulatedNode,
        (ready, failed): (&[u64], &[u64]),
        (member, life): (u64, u64),
        ledger: &Ledger,
    ) {
        for read in ready {
            let reading = self.reading.remove(read).unwrap_or_else(|| panic!("read {read} was answered twice"));
            assert_eq!((reading.member, reading.life), (member, life), "a read of another life was answered");
            reads::is_behind(member, node.machine().store().applied.index, reading.floor_entry);
            // After the View: whoever sees it is judged by no older users and roles.
            if !permissions::may_read(node, &reading.asker, &reading.question, ledger) {
                self.seen.reads_denied += 1;
                continue;
            }
            let (revision, _) = reading.question.ask(node, 0, ledger);
            linearizable(member, revision, reading.floor);
            if let Some(share) = reading.past {
                compaction::past(member, node, &reading.question, share, ledger);
            }
            self.seen.reads += 1;
        }
        for read in failed {
            self.reading.remove(read);
            self.seen.reads_failed += 1;
        }
    }

    /// Those that wait at a life of a member that is over hear nothing more.
    pub fn forget(&mut self, member: u64) {
        self.waiting.retain(|_, waiting| waiting.member != member);
        self.reading.retain(|_, reading| reading.member != member);
    }

    /// A pause until the next thing that clients do.
    pub fn pause(random: &mut StdRng, per_second: u32) -> Duration {
        Duration::from_secs(2).mul_f64(random.random()) / per_second.max(1)
    }
}
