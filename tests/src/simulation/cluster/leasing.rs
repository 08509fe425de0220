//! Clients that hold leases, and the members that renew them.

use std::time::Duration;

use basalt_proto::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest};
use basalt_proto::log::Request;
use basalt_proto::log::request::Kind;
use rand::Rng;

use super::super::keepers::{Call, Wish};
use super::{Cluster, Event};
use crate::node_sim::{Outcome, SimulatedNode};
use crate::workload::LEASE_TTL_MIN;

impl Cluster {
    /// A client that holds a lease does what it wants.
    pub(super) fn keep(&mut self, keeper: usize) {
        if self.is_calm {
            return;
        }
        let leases = &self.leases;
        let (wish, pause) = self.keepers.next(keeper, |lease| leases.exists(lease));
        self.agenda.file(self.now + pause, Event::Keep(keeper));
        match wish {
            Wish::Grant(one) => self.order(Kind::LeaseGrant(LeaseGrantRequest { id: one.lease, ttl: one.ttl })),
            Wish::Revoke(one) => self.order(Kind::LeaseRevoke(LeaseRevokeRequest { id: one.lease })),
            Wish::Renew(one) => self.renew(one.lease),
            Wish::Nothing => {}
        }
    }

    /// Somebody has this ordered, at some member.
    pub(super) fn order(&mut self, kind: Kind) {
        let root = self.accounts.root();
        if let Some(id) = self.some_up() {
            self.order_as(id, root, kind);
        }
    }

    /// Through some member, which asks the leader.
    fn renew(&mut self, lease: i64) {
        let Some(via) = self.some_up() else { return };
        let leader = self.members[&via].node.as_ref().expect("it is up").leader();
        let Some(life) = self.members.get(&leader).map(|member| member.life) else { return };
        let number = self.keepers.call(Call { lease, asked: self.now, leader: (leader, life) });
        if via == leader {
            return self.call_arrives(number);
        }
        if let Some(delay) = self.network.call(via, leader, &mut self.random) {
            self.agenda.file(self.now + delay, Event::Call(number));
        }
    }

    /// A renewal comes to the leader.
    pub(super) fn call_arrives(&mut self, number: u64) {
        let Some(Call { lease, leader: (id, life), .. }) = self.keepers.calling(number) else { return };
        let now = self.now;
        let Some(member) = self.members.get_mut(&id).filter(|member| member.life == life) else { return };
        let Some(node) = member.awake(now) else { return };
        node.renew(number, lease, self.clients.next_id());
        member.look();
    }

    /// The leader answers renewals; `None` says nothing.
    pub(super) fn answer_renewals(&mut self, renewals: Vec<(u64, Option<i64>)>) {
        for (number, ttl) in renewals {
            let (Some(call), Some(ttl)) = (self.keepers.calling(number), ttl) else { continue };
            if ttl > 0 {
                self.leases.touched(call.lease, self.now);
            }
            let delay = Duration::from_micros(self.random.random_range(100..20_000));
            self.agenda.file(self.now + delay, Event::Renewed(number, ttl));
        }
    }

    /// A client hears that its lease lives on, or is none.
    pub(super) fn renewed(&mut self, number: u64, ttl: i64) {
        let Some(call) = self.keepers.answered(number) else { return };
        if ttl > 0 {
            self.keepers.renewed += 1;
            self.leases.renewed(call.lease, call.asked, self.now);
        } else {
            self.leases.denied(call.lease, call.asked);
        }
    }

    /// What entries that nobody applied before did to leases.
    pub(super) fn follow_leases(&mut self, outcome: &Outcome) {
        let requests = outcome.entry.iter().flat_map(|entry| &entry.requests);
        for (Request { id, kind, .. }, (_, answer)) in requests.zip(&outcome.answers) {
            match kind {
                _ if answer.is_err() => {}
                Some(Kind::LeaseGrant(grant)) => {
                    self.leases.granted(grant.id, *id, grant.ttl.max(LEASE_TTL_MIN), self.now);
                }
                Some(Kind::LeaseRevoke(revoke)) => self.leases.ended(revoke.id, *id == 0, self.now),
                _ => {}
            }
        }
    }

    /// Where everybody is healthy, leases end in time.
    pub(super) fn look_at_leases(&mut self) {
        let nodes = || self.members.values().filter_map(|member| member.node.as_ref());
        let leaders: Vec<u64> = nodes().map(SimulatedNode::leader).collect();
        // Where one of two voters waits for a whole state, no end of a lease is committed (seed 1795951640).
        let is_whole = !nodes().any(SimulatedNode::is_bringing_up_a_voter);
        let is_healthy =
            self.active.is_empty() && is_whole && self.members.values().all(|member| member.is_healthy(self.now));
        let leader = leaders.first().copied().filter(|leader| *leader != 0 && leaders.iter().all(|one| one == leader));
        let before = (self.leaders.count(), leader);
        if !is_healthy || leader.is_none() || self.healthy.is_none_or(|(_, seen)| seen != before) {
            self.healthy = (is_healthy && leader.is_some()).then_some((self.now, before));
            return;
        }
        if let Some((since, _)) = self.healthy {
            self.leases.check_late(since, self.now);
        }
    }
}
