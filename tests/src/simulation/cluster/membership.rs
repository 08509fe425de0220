//! Members that come and go while a cluster runs.

use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::{AlarmRequest, AlarmType};
use basalt_proto::log::member_change::Kind as Change;
use basalt_proto::log::request::Kind;
use basalt_proto::log::{MemberAddition, MemberChange, MemberPromotion};
use basalt_proto::members::Member;
use rand::Rng;
use rand::rngs::StdRng;

use super::Cluster;
use super::member::MemberPlace;
use crate::model::ModelMembers;

impl Cluster {
    /// A member that was removed stops, for good.
    pub(super) fn stop(&mut self, id: u64) {
        self.forget(id);
        self.members.get_mut(&id).expect("there").end();
    }

    /// Whether writes that grow the store are refused.
    pub(super) fn is_out_of_space(&self) -> bool {
        !self.ledger.model().out_of_space().is_empty()
    }

    /// Whether the cluster knows that a disk is full.
    pub(super) fn knows_of_full_disks(&self) -> bool {
        !self.ledger.members().full.is_empty()
    }

    /// Somebody disarms every NOSPACE.
    pub(super) fn disarm(&mut self) {
        let (action, alarm) = (AlarmAction::Deactivate as i32, AlarmType::Nospace as i32);
        for member_id in self.ledger.model().out_of_space().clone() {
            self.order(Kind::Alarm(AlarmRequest { action, member_id, alarm }));
        }
    }

    /// A member that was removed hears so from another, as where its stream ends, if anything comes through.
    pub(super) fn tell_removed(&mut self, removed: u64, by: u64) {
        if self.network.is_cut(by, removed) {
            return;
        }
        let Some(member) = self.members.get_mut(&removed) else { return };
        if let Some(node) = member.awake(self.now) {
            node.told(by);
            member.look();
        }
    }

    /// Streams stay open, and end when who hears knows durably that who speaks was removed.
    pub(super) fn tell_all_removed(&mut self) {
        let is_up = |id: &u64| self.members.get(id).is_some_and(|member| member.node.is_some());
        let removed: Vec<u64> = self.ledger.members().removed.iter().copied().filter(is_up).collect();
        for removed in removed {
            let knows = |(_, member): &(&u64, &MemberPlace)| {
                member.paused_until <= self.now && member.node.as_ref().is_some_and(|node| node.has_removed(removed))
            };
            let others = self.members.iter().filter(|(id, _)| **id != removed);
            let tellers: Vec<u64> = others.filter(knows).map(|(id, _)| *id).collect();
            tellers.into_iter().for_each(|by| self.tell_removed(removed, by));
        }
    }

    /// Somebody adds a learner, has one vote, or removes a member.
    pub(super) fn change_members(&mut self, random: &mut StdRng) {
        // One thing at a time: who lost its disk is removed first.
        if self.wiped.is_some() {
            return;
        }
        let ModelMembers { voters, learners, .. } = self.ledger.members().clone();
        let voters: Vec<u64> = voters.into_iter().collect();
        let grows = voters.len() < 6 && random.random();
        let change = match learners.first() {
            Some(learner) if !self.members.contains_key(learner) => {
                let known = voters.iter().chain(&learners).copied().collect();
                return self.add(*learner, known, true);
            }
            Some(learner) if random.random_ratio(3, 4) => {
                Change::Promote(MemberPromotion { id: *learner, behind: false })
            }
            Some(learner) => Change::Remove(*learner),
            None if grows || voters.len() <= self.plan.voters_min => {
                let member = Member { id: self.next_member, ..Member::default() };
                self.next_member += 1;
                Change::Add(MemberAddition { member: Some(member), learner: true, learners_max: 1 })
            }
            None => Change::Remove(voters[random.random_range(0..voters.len())]),
        };
        self.order(Kind::MemberChange(MemberChange { kind: Some(change) }));
    }
}
