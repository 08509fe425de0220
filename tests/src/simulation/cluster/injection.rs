//! What goes wrong begins, and ends.

use std::collections::BTreeSet;
use std::time::Duration;

use basalt_storage::disk::PowerCut;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::super::faults::Fault;
use super::super::network::Weather;
use super::super::schedule::Scheduled;
use super::member::TURN;
use super::{Cluster, Event};
use crate::over::Over;

/// More than any run needs.
const DISK_BYTES: u64 = 16 << 30;

/// What goes wrong for a while.
pub(super) struct Active {
    number: usize,
    trouble: Trouble,
}

impl Active {
    /// Whether it fills the disk of this member.
    pub(super) fn fills(&self, id: u64) -> bool {
        matches!(self.trouble, Trouble::Full(full) if full == id)
    }
}

enum Trouble {
    /// Nothing comes from one to the other.
    Cuts(BTreeSet<(u64, u64)>),
    /// What one says to the other is held up until then.
    Clog(u64, u64, Duration),
    Weather(Weather),
    Storm,
    Slow(u64, Duration),
    /// The disk of a member is full.
    Full(u64),
}

impl Cluster {
    /// A fault begins.
    pub(super) fn inject(&mut self, scheduled: Scheduled) {
        if self.trace {
            println!("{scheduled}");
        }
        let Scheduled { number, length, fault, .. } = scheduled;
        *self.report.faults.entry(fault.kind()).or_default() += 1;
        // Who left for good is none of them any more.
        let members: Vec<u64> =
            self.members.iter().filter(|(_, member)| !member.is_gone()).map(|(id, _)| *id).collect();
        if members.is_empty() {
            return;
        }
        let all_ways = || members.iter().flat_map(|one| members.iter().map(move |other| (*one, *other)));
        match fault {
            Fault::PowerCut(pick, power_cut) => self.cut_power_for(&[pick.of(&members)], power_cut, length),
            Fault::Blackout(power_cut) => self.cut_power_for(&members, power_cut, length),
            Fault::Pause(pick) => {
                let member = self.members.get_mut(&pick.of(&members)).expect("there");
                member.paused_until = member.paused_until.max(self.now + length);
            }
            Fault::Slow(pick, turn) => self.begin(number, length, Trouble::Slow(pick.of(&members), turn)),
            Fault::Split(seed) => {
                let mut random = StdRng::seed_from_u64(seed);
                let mut group = members.clone();
                group.shuffle(&mut random);
                group.truncate(random.random_range(1..members.len().max(2)));
                let divided = |(one, other): &(u64, u64)| group.contains(one) != group.contains(other);
                self.begin(number, length, Trouble::Cuts(all_ways().filter(divided).collect()));
            }
            Fault::OneWay(from, to) => {
                let from = from.of(&members);
                let cuts = to.other_than(from, &members).map(|to| (from, to)).into_iter().collect();
                self.begin(number, length, Trouble::Cuts(cuts));
            }
            Fault::Clog(from, to) => {
                let from = from.of(&members);
                if let Some(to) = to.other_than(from, &members) {
                    self.begin(number, length, Trouble::Clog(from, to, self.now + length));
                }
            }
            Fault::Bridge(middle) => {
                let middle = middle.of(&members);
                let past = |(one, other): &(u64, u64)| one != other && *one != middle && *other != middle;
                self.begin(number, length, Trouble::Cuts(all_ways().filter(past).collect()));
            }
            Fault::Weather(weather) => self.begin(number, length, Trouble::Weather(weather)),
            Fault::Storm => self.begin(number, length, Trouble::Storm),
            Fault::Transfer(to) => {
                let to = to.of(&members);
                self.members.values_mut().filter_map(|member| member.node.as_mut()).for_each(|node| node.transfer(to));
                self.members.values_mut().for_each(|member| member.look());
            }
            Fault::DiskStall(pick) => {
                let until = self.now + length;
                let member = self.members.get_mut(&pick.of(&members)).expect("there");
                if let Some(node) = &mut member.node {
                    node.stall_disk(until);
                }
                member.look();
            }
            Fault::SyncFails(pick, nth) => {
                let member = &self.members[&pick.of(&members)];
                member.node.iter().for_each(|node| node.disk().fail_sync(nth));
            }
            Fault::DiskFull(pick, room) => {
                let id = pick.of(&members);
                let disk = self.members[&id].any_disk();
                disk.iter().for_each(|disk| disk.set_capacity(disk.used_bytes() + room));
                self.begin(number, length, Trouble::Full(id));
            }
            Fault::WallJump(pick, ms) => {
                let member = self.members.get_mut(&pick.of(&members)).expect("there");
                member.place.clock.wall_ahead_ms = ms;
                member.node.iter_mut().for_each(|node| node.set_wall_ahead(ms));
            }
            Fault::Wipe(pick) => self.wipe(pick.of(&members), length),
            Fault::Change(seed) => self.change_members(&mut StdRng::seed_from_u64(seed)),
        }
    }

    fn begin(&mut self, number: usize, length: Duration, trouble: Trouble) {
        self.active.push(Active { number, trouble });
        self.agenda.file(self.now + length, Event::FaultEnds(number));
        self.show_active();
    }

    /// A fault is over.
    pub(super) fn end_fault(&mut self, number: usize) {
        let (ended, active) = std::mem::take(&mut self.active).into_iter().partition(|active| active.number == number);
        self.active = active;
        self.free_disks(ended);
        self.show_active();
    }

    fn free_disks(&mut self, ended: Vec<Active>) {
        for Active { trouble, .. } in ended {
            if let Trouble::Full(id) = trouble
                && let Some(disk) = self.members.get(&id).and_then(|member| member.any_disk())
            {
                disk.set_capacity(DISK_BYTES);
            }
        }
    }

    /// Nothing goes wrong any more.
    pub(super) fn end_all_faults(&mut self) {
        let ended = std::mem::take(&mut self.active);
        self.free_disks(ended);
        self.show_active();
    }

    /// Network and members are as what goes wrong now makes them.
    fn show_active(&mut self) {
        self.network.heal();
        self.members.values_mut().for_each(|member| member.turn = TURN);
        for Active { trouble, .. } in &self.active {
            match trouble {
                Trouble::Cuts(cuts) => cuts.iter().for_each(|(from, to)| self.network.cut(*from, *to)),
                Trouble::Clog(from, to, until) => self.network.clog(*from, *to, *until),
                Trouble::Weather(weather) => self.network.weather = *weather,
                Trouble::Storm => self.network.weather = Weather::STORM,
                Trouble::Full(_) => {}
                Trouble::Slow(id, turn) => {
                    self.members.entry(*id).and_modify(|member| member.turn = member.turn.max(TURN + *turn));
                }
            }
        }
    }

    /// Whether whoever gives a vote may die of it, and whoever is elected stands still.
    pub(super) fn is_stormy(&self) -> bool {
        self.active.iter().any(|active| matches!(active.trouble, Trouble::Storm))
    }

    fn cut_power_for(&mut self, members: &[u64], power_cut: PowerCut, length: Duration) {
        for id in members.iter().filter(|id| self.members[id].node.is_some()).copied().collect::<Vec<_>>() {
            self.cut_power(id, power_cut);
            self.agenda.file(self.now + length, Event::Return(id));
        }
    }

    pub(super) fn cut_power(&mut self, id: u64, power_cut: PowerCut) {
        self.forget(id);
        self.members.get_mut(&id).expect("there").lose_power(power_cut);
        self.report.count("power cuts", 1);
    }

    /// A member met a fault of its disk that it must not live on with; it is started again after a while.
    pub(super) fn dies(&mut self, id: u64, over: Over) {
        if self.trace {
            println!("{:?} {id}: ends by {over:?}", self.now);
        }
        self.forget(id);
        self.members.get_mut(&id).expect("there").end_process();
        self.report.count("ends by a disk", 1);
        self.comes_back(id);
    }

    /// Who waits at a member hears nothing more.
    pub(super) fn forget(&mut self, id: u64) {
        self.clients.forget(id);
        self.registers.forget(id);
        self.accounts.forget(id);
    }

    /// A member is started again after a while.
    pub(super) fn comes_back(&mut self, id: u64) {
        let back = self.now + Duration::from_millis(self.random.random_range(1..2000));
        self.agenda.file(back, Event::Return(id));
    }
}
