//! The members, their clocks, and whose turn it is.

mod membership;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use basalt_storage::disk::{PowerCut, SimulatedDisk};
use raft::prelude::{Message, MessageType};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::clients::{Clients, Seen};
use super::faults::{self, Fault};
use super::network::{Network, Weather};
use super::transfers::{End, Transfers};
use crate::ledger::Ledger;
use crate::model::ModelMembers;
use crate::node_sim::{Said, SimulatedNode};
use crate::opening::Place;

const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(2);
/// A turn of a healthy member takes this at most.
const TURN: Duration = Duration::from_micros(400);
/// How long a healed cluster may take to agree (I20): ten election timeouts, and what it has to catch up.
const AGREEMENT: Duration = Duration::from_secs(40);

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// How many members.
    pub members: u64,
    /// Virtual time with faults.
    pub length: Duration,
    /// Requests a second, reads among them.
    pub per_second: u32,
    /// Longest pause between two faults; `None` for none.
    pub fault_pause: Option<Duration>,
    /// Whether members ask for votes before an election (`--pre-vote`); without, elections collide.
    pub pre_vote: bool,
    /// Entries kept for members that lag behind; who lags more gets the whole state.
    pub catchup_entries: u64,
    /// Pause between two changes of members, about; `None` for none.
    pub change_pause: Option<Duration>,
}

impl Plan {
    /// The plan of a seed: every kind of cluster and of trouble comes.
    pub fn of(seed: u64) -> Self {
        let pauses = [None, Some(Duration::from_secs(4)), Some(Duration::from_secs(1)), Some(Duration::from_secs(2))];
        Self {
            seed,
            members: if seed.is_multiple_of(3) { 5 } else { 3 },
            length: Duration::from_secs(60),
            per_second: [20, 50, 100][seed as usize % 3],
            fault_pause: pauses[seed as usize % 4],
            pre_vote: !seed.is_multiple_of(5),
            catchup_entries: [10, 100, 1000][seed as usize % 7 % 3],
            change_pause: (seed % 5 < 2).then_some(Duration::from_millis(1500)),
        }
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Of everything that happened, in order.
    pub fingerprint: u64,
    /// Requests sent, and answered.
    pub sent: usize,
    /// See [`Self::sent`].
    pub acknowledged: usize,
    /// Linearizable reads that were checked.
    pub reads: usize,
    /// Leaders that were elected.
    pub leaders: usize,
    /// Power cuts.
    pub crashes: usize,
    /// Requests that outlived their leader and were ordered by another.
    pub asked_again: usize,
    /// Messages that arrived.
    pub messages: u64,
    /// States of other members that took the place of a member's own.
    pub installs: usize,
    /// Changes of members that came about.
    pub changes: usize,
    /// Of these on their way, those that went on after they were cut off.
    pub resumed: usize,
}

/// One member, up or down.
struct MemberPlace {
    place: Place,
    node: Option<SimulatedNode>,
    /// While it is down.
    disk: Option<SimulatedDisk>,
    life: u64,
    turn: Duration,
    /// It stands still until then.
    paused_until: Duration,
    asked_again: usize,
    installs: usize,
}

/// The cluster.
pub struct Cluster {
    plan: Plan,
    random: StdRng,
    now: Duration,
    members: BTreeMap<u64, MemberPlace>,
    network: Network,
    transfers: Transfers,
    clients: Clients,
    ledger: Ledger,
    /// When somebody changes the members again.
    next_change: Option<Duration>,
    /// The id of the next one to be added.
    next_member: u64,
    /// Until then whoever gives a vote may die of it, and whoever is elected stands still.
    storm_until: Duration,
    /// Members that come back by themselves, and when.
    returns: BTreeMap<Duration, u64>,
    /// By term.
    leaders: BTreeMap<u64, u64>,
    hasher: DefaultHasher,
    report: Report,
    /// Whether to say what happens.
    trace: bool,
}

impl Cluster {
    /// A new cluster.
    pub fn new(plan: Plan, trace: bool) -> Self {
        let voters: Vec<u64> = (1..=plan.members).collect();
        let mut cluster = Self {
            plan,
            random: StdRng::seed_from_u64(plan.seed),
            now: Duration::ZERO,
            members: BTreeMap::new(),
            network: Network::default(),
            transfers: Transfers::default(),
            clients: Clients::new(plan.seed),
            ledger: Ledger::of_cluster(&voters),
            next_change: plan.change_pause,
            next_member: plan.members + 1,
            storm_until: Duration::ZERO,
            returns: BTreeMap::new(),
            leaders: BTreeMap::new(),
            hasher: DefaultHasher::new(),
            report: Report::default(),
            trace,
        };
        for member_id in voters.clone() {
            let catchup_entries = plan.catchup_entries;
            let (voters, pre_vote) = (voters.clone(), plan.pre_vote);
            let place = Place { member_id, voters, pre_vote, catchup_entries, joins: false };
            let disk = Some(SimulatedDisk::new(plan.seed ^ member_id));
            let (life, turn, paused_until) = (0, TURN, Duration::ZERO);
            let member = MemberPlace { place, node: None, disk, life, turn, paused_until, asked_again: 0, installs: 0 };
            cluster.members.insert(member_id, member);
            cluster.start(member_id);
        }
        cluster
    }

    /// All ids.
    pub fn members(&self) -> Vec<u64> {
        self.members.keys().copied().collect()
    }

    /// Those that are down.
    pub fn down(&self) -> Vec<u64> {
        self.members.iter().filter(|(_, member)| member.node.is_none()).map(|(id, _)| *id).collect()
    }

    /// Runs the plan: faults, then none, then a look at everything.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn run(mut self) -> Report {
        let mut next_request = Duration::ZERO;
        let mut next_fault = self.plan.fault_pause.map(|pause| pause.mul_f64(self.random.random()));
        while self.now < self.plan.length {
            if self.now >= next_request {
                self.ask();
                next_request = self.now + Clients::pause(&mut self.random, self.plan.per_second);
            }
            if let (Some(due), Some(pause)) = (next_fault, self.plan.fault_pause)
                && self.now >= due
            {
                let fault = faults::draw(&self, &mut self.random.clone());
                // One draw of its own, so that the next fault differs.
                let _: u64 = self.random.random();
                self.inject(fault);
                next_fault = Some(self.now + pause.mul_f64(self.random.random()));
            }
            if self.next_change.is_some_and(|due| self.now >= due) {
                self.change_members();
                self.next_change = self.plan.change_pause.map(|pause| self.now + pause.mul_f64(self.random.random()));
            }
            while let Some(back) = self.returns.first_entry().filter(|back| *back.key() <= self.now) {
                let id = back.remove();
                self.start(id);
            }
            let until = next_fault.map_or(next_request, |due| due.min(next_request));
            let until = self.returns.first_key_value().map_or(until, |(back, _)| until.min(*back));
            let until = self.next_change.map_or(until, |due| until.min(due));
            self.advance(until.min(self.plan.length));
        }
        self.heal();
        self.agree();
        let Seen { sent, acknowledged, reads, .. } = self.clients.seen;
        let asked_again = self.members.values().map(|member| member.asked_again + again(member)).sum();
        let installs = self.members.values().map(|member| member.installs + installs(member)).sum();
        Report {
            fingerprint: self.hasher.finish(),
            sent,
            acknowledged,
            reads,
            leaders: self.leaders.len(),
            asked_again,
            messages: self.network.arrived,
            installs,
            resumed: self.transfers.resumed,
            ..self.report
        }
    }

    /// The earliest thing that can happen does, or the time goes on to `until`.
    fn advance(&mut self, until: Duration) {
        let arrival = self.network.next_arrival();
        let turn = self.next_turn();
        let transfer = self.transfers.next();
        let next = [arrival, transfer, turn.map(|(time, _)| time)].into_iter().flatten().min();
        let Some(next) = next.filter(|next| *next < until) else {
            self.now = self.now.max(until);
            return;
        };
        self.now = self.now.max(next);
        if arrival.is_some_and(|time| time <= next) {
            while let Some(message) = self.network.arrive(self.now) {
                self.deliver(message);
            }
            return;
        }
        if transfer.is_some_and(|time| time <= next) {
            return self.go_on_with_transfer();
        }
        if let Some((_, member)) = turn {
            self.take_turn(member);
        }
    }

    /// A chunk of a whole state comes to its receiver.
    fn go_on_with_transfer(&mut self) {
        let Some((transfer, from, to)) = self.transfers.take_next() else { return };
        let paused = [from, to].map(|id| self.members.get(&id).map_or(Duration::ZERO, |member| member.paused_until));
        // Who stands still hears nothing, and says nothing.
        if let Some(until) = paused.into_iter().max().filter(|until| *until > self.now) {
            return self.transfers.put_off(transfer, until);
        }
        let mut ends = BTreeMap::new();
        for (id, member) in &mut self.members {
            if let Some(node) = &mut member.node {
                node.pass_until(self.now);
                ends.insert(*id, End { node, life: member.life });
            }
        }
        let (from, to) = (ends.remove(&from), ends.remove(&to));
        self.transfers.go_on(transfer, from, to, &self.network, self.now, &mut self.random);
    }

    /// Whose turn is next, and when. Members that are equally early take turns by chance.
    fn next_turn(&mut self) -> Option<(Duration, u64)> {
        let times = self
            .members
            .iter()
            .filter_map(|(id, member)| Some((member.node.as_ref()?.next_turn().max(member.paused_until), *id)));
        times.min()
    }

    fn take_turn(&mut self, id: u64) {
        let now = self.now;
        let Some(member) = self.members.get_mut(&id) else { return };
        let Some(node) = &mut member.node else { return };
        node.pass_until(now);
        node.turn_of(member.turn).expect("nobody stops this disk");
        self.carry(id);
    }

    /// What a member said and did becomes known.
    fn carry(&mut self, id: u64) {
        let member = self.members.get_mut(&id).expect("there");
        let (node, life) = (member.node.as_mut().expect("it spoke just now"), member.life);
        let Said { messages, reads, failed_reads, snapshots, left, roles, refused } = node.take_said();
        assert!(refused.is_empty(), "an honest member was refused: {refused:?}");
        let outcomes = node.take_outcomes();
        self.clients.hear_outcomes(&outcomes, id, life);
        self.clients.hear_reads(node, &reads, &failed_reads, id, life);
        for outcome in &outcomes {
            self.hasher.write_u64(id);
            self.hasher.write_u64(outcome.position.index);
            self.hasher.write_i64(outcome.effects.revision);
        }
        let before = self.ledger.members().clone();
        self.ledger.take(outcomes);
        if *self.ledger.members() != before {
            self.report.changes += 1;
            if self.trace {
                println!("{:?} {:?}", self.now, self.ledger.members());
            }
        }
        for role in roles {
            self.hasher.write_u64(role.term);
            if role.leads {
                // I1
                let leader = *self.leaders.entry(role.term).or_insert(id);
                assert_eq!(leader, id, "two leaders in term {}", role.term);
                if self.now < self.storm_until {
                    let member = self.members.get_mut(&id).expect("there");
                    member.paused_until = self.now + Duration::from_millis(self.random.random_range(100..2500));
                }
            }
            if self.trace {
                println!("{:?} {id}: {role:?}", self.now);
            }
        }
        let votes =
            |message: &Message| message.get_msg_type() == MessageType::MsgRequestVoteResponse && !message.reject;
        let dies = self.now < self.storm_until && messages.iter().any(votes) && self.random.random_ratio(1, 2);
        for (message, snapshot) in snapshots {
            let life_there = self.members.get(&message.to).map_or(0, |member| member.life);
            if self.trace {
                println!("{:?} {id}: the state of {:?} leaves for {}", self.now, snapshot.position(), message.to);
            }
            self.transfers.begin(message, snapshot, (life, life_there), self.now);
        }
        for message in messages {
            self.network.send(message, self.now, &mut self.random);
        }
        if dies {
            self.inject(Fault::Crash(id, PowerCut::KeepNone));
            let back = self.now + Duration::from_millis(self.random.random_range(1..30));
            self.returns.insert(back, id);
        }
        if left {
            self.stop(id);
        }
    }

    /// Those that are to come to agree.
    fn expected(&self) -> Vec<u64> {
        let ModelMembers { voters, learners, .. } = self.ledger.members();
        voters.iter().chain(learners).copied().filter(|id| self.members.contains_key(id)).collect()
    }

    fn deliver(&mut self, message: Message) {
        let Some(member) = self.members.get_mut(&message.to) else { return };
        let Some(node) = &mut member.node else { return };
        // As where its stream ends, and it is told why.
        if node.machine().members().is_removed(message.from) {
            return self.stop(message.from);
        }
        // Who stands still hears it when he goes on.
        node.pass_until(self.now.max(member.paused_until));
        node.hear(message);
    }

    /// A client does something, at some member.
    fn ask(&mut self) {
        let up: Vec<u64> = self.members.iter().filter(|(_, member)| member.node.is_some()).map(|(id, _)| *id).collect();
        if up.is_empty() {
            return;
        }
        let id = up[self.random.random_range(0..up.len())];
        let reads = self.random.random_ratio(1, 3);
        let member = self.members.get_mut(&id).expect("it is up");
        let node = member.node.as_mut().expect("it is up");
        node.pass_until(self.now.max(member.paused_until));
        if reads {
            self.clients.read(node, id, member.life);
        } else {
            let request = self.clients.write(node, id, member.life);
            self.ledger.sent(&request);
        }
    }

    fn inject(&mut self, fault: Fault) {
        if self.trace {
            println!("{:?} {fault:?}", self.now);
        }
        let members = self.members();
        match fault {
            Fault::Crash(id, power_cut) => {
                let member = self.members.get_mut(&id).expect("there");
                if let Some(node) = member.node.take() {
                    member.asked_again += node.overlaps.asked_again;
                    member.installs += node.installs;
                    member.disk = Some(node.crash(power_cut));
                    self.report.crashes += 1;
                }
            }
            Fault::Restart(id) => self.start(id),
            Fault::Pause(id, length) => self.members.get_mut(&id).expect("there").paused_until = self.now + length,
            Fault::Slow(id, turn) => self.members.get_mut(&id).expect("there").turn = TURN + turn,
            Fault::Split(group) => {
                for one in &members {
                    for other in &members {
                        if group.contains(one) != group.contains(other) {
                            self.network.cut(*one, *other);
                        }
                    }
                }
            }
            Fault::OneWay(from, to) => self.network.cut(from, to),
            Fault::Bridge(middle) => {
                for one in members.iter().filter(|one| **one != middle) {
                    for other in members.iter().filter(|other| **other != middle && *other != one) {
                        self.network.cut(*one, *other);
                    }
                }
            }
            Fault::Storm(length) => {
                self.storm_until = self.now + length;
                self.network.weather = Weather::STORM;
            }
            Fault::Weather(weather) => self.network.weather = weather,
            Fault::Heal => self.network.heal(),
            Fault::Transfer(to) => {
                self.members.values_mut().filter_map(|member| member.node.as_mut()).for_each(|node| node.transfer(to));
            }
        }
    }

    fn start(&mut self, id: u64) {
        let (now, seed) = (self.now, self.random.random());
        let member = self.members.get_mut(&id).expect("there");
        let Some(disk) = member.disk.take() else { return };
        member.life += 1;
        let opened = SimulatedNode::open_as(&member.place, disk, seed, CHECKPOINT_INTERVAL, now);
        member.node = Some(opened.expect("nobody stops this disk"));
        self.carry(id);
    }

    fn heal(&mut self) {
        (self.storm_until, self.returns) = (Duration::ZERO, BTreeMap::new());
        self.network.heal();
        for id in self.members() {
            self.start(id);
            let member = self.members.get_mut(&id).expect("there");
            (member.turn, member.paused_until) = (TURN, Duration::ZERO);
        }
    }

    /// A healed cluster takes writes again, and all members come to the same state (I5, I20).
    fn agree(&mut self) {
        let deadline = self.now + AGREEMENT;
        let mut asked = Duration::ZERO;
        let before = self.clients.seen.acknowledged;
        loop {
            if self.now >= asked {
                self.ask();
                asked = self.now + Duration::from_millis(50);
            }
            self.advance(self.now + Duration::from_millis(20));
            let is_alive = self.clients.seen.acknowledged >= before + 20;
            if is_alive && self.is_agreed() {
                break;
            }
            assert!(
                self.now < deadline,
                "seed {}: a healed cluster does not come to agree on entry {}: {}states: {}",
                self.plan.seed,
                self.ledger.last_index(),
                self.members.iter().map(|(id, member)| format!("{id}: {}; ", state(member))).collect::<String>(),
                self.transfers.state()
            );
            // Nothing more is asked, so that it can.
            if is_alive {
                asked = deadline * 2;
            }
        }
        for id in self.expected() {
            self.ledger.check(self.members[&id].node.as_ref().expect("all are up"));
        }
    }

    fn is_agreed(&self) -> bool {
        let last = self.ledger.last_index();
        let agrees = |id: u64| {
            let node = self.members[&id].node.as_ref();
            node.is_some_and(|node| !node.is_busy() && node.view().applied.index == last)
        };
        self.expected().into_iter().all(agrees)
    }
}

fn state(member: &MemberPlace) -> String {
    member.node.as_ref().map_or("down".to_owned(), SimulatedNode::state)
}

fn installs(member: &MemberPlace) -> usize {
    member.node.as_ref().map_or(0, |node| node.installs)
}

fn again(member: &MemberPlace) -> usize {
    member.node.as_ref().map_or(0, |node| node.overlaps.asked_again)
}
