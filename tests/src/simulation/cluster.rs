//! The members, their clocks, and whose turn it is.

mod agreement;
mod authenticating;
mod hearing;
mod injection;
mod leasing;
mod member;
mod membership;
mod registering;
mod watching;
mod wiping;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use basalt_storage::disk::SimulatedDisk;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::injection::Active;
use self::member::MemberPlace;
use super::accounts::Accounts;
use super::agenda::Agenda;
use super::clients::Clients;
use super::invariants::leader_completeness::LeaderCompleteness;
use super::invariants::leases::Leases;
use super::invariants::log_matching::LogMatching;
use super::invariants::one_leader::OneLeader;
use super::invariants::{bounds, permissions, recovery};
use super::keepers::Keepers;
use super::network::{Network, Spoken};
use super::plan::Plan;
use super::registers::Registers;
use super::report::Report;
use super::schedule::{Schedule, Scheduled};
use super::transfers::{End, Transfers};
use super::watchers::Watchers;
use crate::ledger::Ledger;
use crate::node_sim::{MemberClock, SimulatedNode};
use crate::opening::Place;

const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(2);
/// Between two looks at what members hold.
const LOOK: Duration = Duration::from_millis(500);
/// In one of so many looks somebody disarms NOSPACE, whether there is room again or not.
const DISARM_RATIO: u32 = 8;

/// What is to happen.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Something goes wrong.
    Fault(Scheduled),
    /// It is over.
    FaultEnds(usize),
    /// A member comes back.
    Return(u64),
    /// A client does something.
    Request,
    /// A client reads what its watches were told.
    Watch(usize),
    /// A client of a register asks for something.
    Register(usize),
    /// A member whose disk was lost is removed.
    Remove(u64),
    /// A client does something with its lease.
    Keep(usize),
    /// A renewal comes to the leader.
    Call(u64),
    /// Its answer comes to the client: seconds to live, or 0.
    Renewed(u64, i64),
    /// Somebody changes who may do what.
    Administer,
    /// What members hold is looked at.
    Look,
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
    watchers: Watchers,
    keepers: Keepers,
    registers: Registers,
    accounts: Accounts,
    ledger: Ledger,
    /// After the last entry of the ledger.
    revision: i64,
    agenda: Agenda<Event>,
    /// What goes wrong now.
    active: Vec<Active>,
    /// The id of the next one to be added.
    next_member: u64,
    leaders: OneLeader,
    logs: LogMatching,
    completeness: LeaderCompleteness,
    leases: Leases,
    /// Since when everybody was healthy, as it was last seen; how many leaders there were then, and the last.
    healthy: Option<(Duration, (usize, Option<u64>))>,
    /// Lost its disk, and is not removed yet.
    wiped: Option<u64>,
    /// Whether all faults are over.
    is_calm: bool,
    /// Changes of members that were seen.
    changes: usize,
    hasher: DefaultHasher,
    report: Report,
    /// Whether to say what happens.
    trace: bool,
}

impl Cluster {
    /// A new cluster.
    pub fn new(plan: Plan, trace: bool) -> Self {
        Self::with(plan, &Schedule::of(&plan), trace)
    }

    /// A new cluster in which this goes wrong.
    pub fn with(plan: Plan, schedule: &Schedule, trace: bool) -> Self {
        let voters: Vec<u64> = (1..=plan.members).collect();
        let mut cluster = Self {
            plan,
            random: StdRng::seed_from_u64(plan.seed),
            now: Duration::ZERO,
            members: BTreeMap::new(),
            network: Network::default(),
            transfers: Transfers::default(),
            clients: Clients::new(plan.seed),
            watchers: Watchers::new(plan.seed, plan.leader_watches),
            keepers: Keepers::new(plan.seed),
            registers: Registers::new(plan.seed, plan.registers),
            accounts: Accounts::new(plan.seed),
            ledger: Ledger::of_cluster(&voters),
            revision: 1,
            agenda: Agenda::default(),
            active: Vec::new(),
            next_member: plan.members + 1,
            leaders: OneLeader::default(),
            logs: LogMatching::default(),
            completeness: LeaderCompleteness::default(),
            leases: Leases::new(plan.drift_ppm),
            healthy: None,
            wiped: None,
            is_calm: false,
            changes: 0,
            hasher: DefaultHasher::new(),
            report: Report::default(),
            trace,
        };
        for member_id in voters.clone() {
            cluster.add(member_id, voters.clone(), false);
        }
        for scheduled in schedule.faults() {
            cluster.agenda.file(scheduled.at, Event::Fault(*scheduled));
        }
        cluster.agenda.file(Duration::ZERO, Event::Request);
        (0..cluster.watchers.len()).for_each(|client| cluster.agenda.file(Duration::ZERO, Event::Watch(client)));
        (0..cluster.keepers.len()).for_each(|keeper| cluster.agenda.file(Duration::ZERO, Event::Keep(keeper)));
        (0..cluster.registers.len()).for_each(|client| cluster.agenda.file(Duration::ZERO, Event::Register(client)));
        cluster.agenda.file(LOOK, Event::Look);
        if plan.users {
            cluster.agenda.file(Duration::ZERO, Event::Administer);
        }
        cluster
    }

    /// A member with an empty disk starts.
    fn add(&mut self, member_id: u64, voters: Vec<u64>, joins: bool) {
        let Plan { pre_vote, catchup_entries, segment_bytes, lease_checkpoint_interval, .. } = self.plan;
        let clock = MemberClock { drift_ppm: self.plan.drift_of(member_id), wall_ahead_ms: 0 };
        let place = Place {
            member_id,
            voters,
            pre_vote,
            catchup_entries,
            joins,
            segment_bytes,
            clock,
            lease_checkpoint_interval: Some(lease_checkpoint_interval),
            is_watched: true,
            has_users: self.plan.users,
        };
        let disk = SimulatedDisk::new(self.plan.seed ^ member_id);
        self.members.insert(member_id, MemberPlace::new(place, disk));
        self.start(member_id);
    }

    /// All ids.
    pub fn members(&self) -> Vec<u64> {
        self.members.keys().copied().collect()
    }

    /// Those that are up.
    fn up(&self) -> Vec<u64> {
        self.members.iter().filter(|(_, member)| member.node.is_some()).map(|(id, _)| *id).collect()
    }

    /// Some member that is up.
    fn some_up(&mut self) -> Option<u64> {
        let up = self.up();
        (!up.is_empty()).then(|| up[self.random.random_range(0..up.len())])
    }

    /// Runs the plan: faults, then none, then a look at everything.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn run(mut self) -> Report {
        while self.now < self.plan.length {
            self.advance(self.plan.length);
        }
        self.heal();
        self.agree();
        self.into_report()
    }

    fn into_report(mut self) -> Report {
        let (seen, watched) = (self.clients.seen, self.watchers.seen);
        let (again, installs) =
            self.members.values().map(MemberPlace::totals).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let counts = [
            ("sent", seen.sent),
            ("acknowledged", seen.acknowledged),
            ("linearizable reads", seen.reads),
            ("serializable reads", seen.serializable),
            ("events", watched.events),
            ("progress", watched.progress),
            ("resumed watches", watched.resumed),
            ("compacted watches", watched.compacted),
            ("renewals", self.keepers.renewed),
            ("searched operations", self.registers.known()),
            ("expired leases", self.leases.expired),
            ("flipped bits", self.network.flips),
            ("logins", self.accounts.logged_in),
            ("denied", seen.denied),
            ("denied reads", seen.reads_denied),
            ("denied watches", watched.denied),
            ("streams without a leader", watched.leaderless),
            ("leaders", self.leaders.count() as u64),
            ("asked again", again as u64),
            ("messages", self.network.arrived),
            ("whole states", installs as u64),
            ("resumed states", self.transfers.resumed as u64),
            ("changes of members", self.changes as u64),
            ("entries", self.ledger.last_index()),
        ];
        counts.into_iter().for_each(|(what, times)| self.report.count(what, times));
        self.report.fingerprint = self.hasher.finish();
        self.report.seeds = 1;
        self.report.virtual_time = self.now;
        self.report
    }

    /// The earliest thing that can happen does, or the time goes on to `until`.
    fn advance(&mut self, until: Duration) {
        let (turn, second) = self.next_turns();
        let (arrival, transfer, event) = (self.network.next_arrival(), self.transfers.next(), self.agenda.next());
        let next = [arrival, transfer, event, turn.map(|(time, _)| time)].into_iter().flatten().min();
        let Some(next) = next.filter(|next| *next < until) else {
            self.now = self.now.max(until);
            return;
        };
        self.now = self.now.max(next);
        if let Some(event) = self.agenda.take(self.now) {
            return self.take_event(event);
        }
        if let Some(spoken) = self.network.arrive(self.now) {
            return self.deliver(spoken);
        }
        if transfer.is_some_and(|time| time <= next) {
            return self.go_on_with_transfer();
        }
        if let Some((_, member)) = turn {
            // Nobody else does anything before.
            let others = [arrival, transfer, event, second].into_iter().flatten().min();
            self.take_turns(member, others.map_or(until, |others| others.min(until)));
        }
    }

    /// Whose turn is next, and when; and when the next one's after that is.
    fn next_turns(&self) -> (Option<(Duration, u64)>, Option<Duration>) {
        let (mut first, mut second) = (None, None);
        for (id, member) in &self.members {
            let Some(at) = member.turn_at() else { continue };
            if first.is_none_or(|(earliest, _)| at < earliest) {
                second = first.map(|(earliest, _)| earliest);
                first = Some((at, *id));
            } else if second.is_none_or(|next| at < next) {
                second = Some(at);
            }
        }
        (first, second)
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Fault(scheduled) => self.inject(scheduled),
            Event::FaultEnds(number) => self.end_fault(number),
            Event::Return(id) => self.start(id),
            Event::Request => {
                self.ask();
                let pause = Clients::pause(&mut self.random, self.plan.per_second);
                self.agenda.file(self.now + pause, Event::Request);
            }
            Event::Watch(client) => self.read_watches(client),
            Event::Register(client) => self.ask_register(client),
            Event::Remove(id) => self.remove_wiped(id),
            Event::Keep(keeper) => self.keep(keeper),
            Event::Administer => self.administer(),
            Event::Call(number) => self.call_arrives(number),
            Event::Renewed(number, ttl) => self.renewed(number, ttl),
            Event::Look => {
                for (id, member) in &self.members {
                    let Some(node) = &member.node else { continue };
                    bounds::check(*id, node, self.plan.catchup_entries);
                }
                self.look_at_leases();
                self.tell_all_removed();
                self.report.count("looks while a full disk was told of", u64::from(self.knows_of_full_disks()));
                if self.is_out_of_space() && self.random.random_ratio(1, DISARM_RATIO) {
                    self.disarm();
                }
                self.agenda.file(self.now + LOOK, Event::Look);
            }
        }
    }

    /// Turns of a member up to this time, or until it says something.
    fn take_turns(&mut self, id: u64, until: Duration) {
        loop {
            self.report.turns += 1;
            let now = self.now;
            let Some(member) = self.members.get_mut(&id) else { return };
            let Some(node) = &mut member.node else { return };
            node.pass_until(now);
            if let Err(over) = node.turn_of(member.turn) {
                return self.dies(id, over);
            }
            if node.has_said() {
                return self.hear(id);
            }
            member.look();
            match member.turn_at() {
                Some(at) if at < until => self.now = self.now.max(at),
                _ => return,
            }
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
        for (id, member) in self.members.iter_mut().filter(|(id, _)| [from, to].contains(id)) {
            if let Some(node) = &mut member.node {
                node.pass_until(self.now);
                ends.insert(*id, End { node, life: member.life });
            }
        }
        let (sender, receiver) = (ends.remove(&from), ends.remove(&to));
        self.transfers.go_on(transfer, sender, receiver, &self.network, self.now, &mut self.random);
        for id in [from, to] {
            self.members.entry(id).and_modify(MemberPlace::look);
        }
    }

    fn deliver(&mut self, Spoken { message, incarnation }: Spoken) {
        let (now, from, to) = (self.now, message.from, message.to);
        let Some(member) = self.members.get_mut(&to) else { return };
        let Some(node) = &member.node else { return };
        // As where its stream ends, and it is told why.
        if node.has_removed(from) {
            return self.tell_removed(from, to);
        }
        if node.knows_as_wiped(from, incarnation) {
            return self.refuse_wiped(from, to, incarnation);
        }
        if !member.is_first_incarnation(from, incarnation) {
            return;
        }
        let Some(node) = member.awake(now) else { return };
        node.hear(message);
        member.look();
    }

    /// A client does something, at some member.
    fn ask(&mut self) {
        let Some(id) = self.some_up() else { return };
        let reads = self.random.random_ratio(1, 3);
        let now = self.now;
        let session = if self.is_calm || !self.plan.users { self.accounts.root() } else { self.accounts.some() };
        let Some(asker) = self.asker(id, session) else { return };
        let member = self.members.get_mut(&id).expect("it is up");
        let life = member.life;
        let node = member.awake(now).expect("it is up");
        if reads {
            self.clients.read(node, (id, life), asker, &mut self.random, &self.ledger);
            return member.look();
        }
        let lease = if self.random.random_ratio(1, 4) { self.keepers.some_lease() } else { None };
        let mut request = self.clients.draw(lease);
        let kind = request.kind.as_ref().expect("a client leaves none empty");
        match permissions::principal(node, &asker, kind, &self.ledger) {
            Ok(principal) => request.principal = principal,
            Err(_) => return self.report.count("refused before the log", 1),
        }
        let request = self.clients.write(node, (id, life), request, now);
        self.ledger.sent(&request);
        member.look();
    }

    fn start(&mut self, id: u64) {
        let (now, seed) = (self.now, self.random.random());
        let member = self.members.get_mut(&id).expect("there");
        let Some(disk) = member.disk.take() else { return };
        member.life += 1;
        member.heard.clear();
        let opened = SimulatedNode::open_as(&member.place, disk.clone(), seed, CHECKPOINT_INTERVAL, now);
        let is_full = self.active.iter().any(|active| active.fills(id));
        match recovery::started(id, opened, is_full) {
            Ok(node) => {
                self.ledger.auth().check(id, &node.shown_auth(), node.machine().store().applied.index);
                member.node = Some(node);
                self.hear(id);
            }
            // The disk is full: later it may be so no more.
            Err(_) => {
                member.disk = Some(disk.restart());
                self.comes_back(id);
            }
        }
    }
}
