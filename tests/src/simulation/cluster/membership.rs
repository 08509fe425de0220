//! Members that come and go while a cluster runs.

use basalt_proto::log::member_change::Kind as Change;
use basalt_proto::log::request::Kind;
use basalt_proto::log::{MemberAddition, MemberChange, MemberPromotion};
use basalt_proto::members::Member;
use rand::Rng;
use rand::rngs::StdRng;

use super::Cluster;
use crate::model::ModelMembers;

impl Cluster {
    /// A member that was removed stops, for good.
    pub(super) fn stop(&mut self, id: u64) {
        self.forget(id);
        self.members.get_mut(&id).expect("there").end();
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
