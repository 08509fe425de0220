//! Members that come and go while a cluster runs.

use std::time::Duration;

use basalt_proto::log::member_change::Kind as Change;
use basalt_proto::log::{MemberAddition, MemberPromotion};
use basalt_proto::members::Member;
use basalt_storage::disk::SimulatedDisk;
use rand::Rng;

use super::{Cluster, MemberPlace, TURN};
use crate::model::ModelMembers;
use crate::opening::Place;

impl Cluster {
    /// A member that was removed stops, for good.
    pub(super) fn stop(&mut self, id: u64) {
        let member = self.members.get_mut(&id).expect("there");
        if let Some(node) = member.node.take() {
            member.asked_again += node.overlaps.asked_again;
            member.installs += node.installs;
        }
    }

    /// Somebody adds a learner, has one vote, or removes a member.
    pub(super) fn change_members(&mut self) {
        let ModelMembers { voters, learners, .. } = self.ledger.members().clone();
        let voters: Vec<u64> = voters.into_iter().collect();
        let grows = voters.len() < 6 && self.random.random();
        let change = match learners.first() {
            Some(learner) if !self.members.contains_key(learner) => return self.join(*learner),
            Some(learner) if self.random.random_ratio(3, 4) => {
                Change::Promote(MemberPromotion { id: *learner, behind: false })
            }
            Some(learner) => Change::Remove(*learner),
            None if grows || voters.len() <= 2 => {
                let member = Member { id: self.next_member, ..Member::default() };
                self.next_member += 1;
                Change::Add(MemberAddition { member: Some(member), learner: true, learners_max: 1 })
            }
            None => Change::Remove(voters[self.random.random_range(0..voters.len())]),
        };
        let up: Vec<u64> = self.members.iter().filter(|(_, member)| member.node.is_some()).map(|(id, _)| *id).collect();
        if up.is_empty() {
            return;
        }
        let id = up[self.random.random_range(0..up.len())];
        let member = self.members.get_mut(&id).expect("it is up");
        let node = member.node.as_mut().expect("it is up");
        node.pass_until(self.now.max(member.paused_until));
        let request = self.clients.change(node, id, member.life, change);
        self.ledger.sent(&request);
    }

    /// A member that was added starts, with an empty disk.
    fn join(&mut self, member_id: u64) {
        let ModelMembers { voters, learners, .. } = self.ledger.members().clone();
        let place = Place {
            member_id,
            voters: voters.into_iter().chain(learners).collect(),
            pre_vote: self.plan.pre_vote,
            catchup_entries: self.plan.catchup_entries,
            joins: true,
        };
        let disk = Some(SimulatedDisk::new(self.plan.seed ^ member_id));
        let (life, turn, paused_until) = (0, TURN, Duration::ZERO);
        let member = MemberPlace { place, node: None, disk, life, turn, paused_until, asked_again: 0, installs: 0 };
        self.members.insert(member_id, member);
        self.start(member_id);
    }
}
