//! A member that loses its disk and is started under its old name: it has forgotten what it voted and what it acknowledged.

use std::time::Duration;

use basalt_proto::log::MemberChange;
use basalt_proto::log::member_change::Kind as Change;
use basalt_proto::log::request::Kind;
use basalt_storage::disk::{PowerCut, SimulatedDisk};
use rand::Rng;

use super::{Cluster, Event};
use crate::model::ModelMembers;

/// Until somebody removes it, at most; and until he tries again.
const REPLACED_AFTER: Duration = Duration::from_secs(6);
const TRIED_AGAIN: Duration = Duration::from_secs(1);

/// With fewer voters there is no majority beside the one that is lost and another one that fails.
const VOTERS_MIN: usize = 3;

impl Cluster {
    /// A voter loses its disk and is started again after `length` as if nothing had been; later somebody removes it.
    ///
    /// Not while another one waits for that, and not before all others know it durably: who never heard of the first disk
    /// cannot tell the second one from it (`docs/operations/members.md`). Nor before all others know who votes: one that left
    /// and stopped counts as lost for who still asks it, and two lost are too many (seed 2001042).
    pub(super) fn wipe(&mut self, id: u64, length: Duration) {
        let ModelMembers { voters, learners, removed, .. } = self.ledger.members();
        let knows = |other: &u64| {
            let node = self.members.get(other).and_then(|member| member.node.as_ref());
            node.is_some_and(|node| node.knows_of(id) && node.machine().members().voters().iter().eq(voters))
        };
        // Who was removed may be there still, and be asked for its vote by whoever does not know.
        let stays = |other: &&u64| self.members.get(other).is_some_and(|member| !member.is_gone());
        let mut others =
            voters.iter().chain(learners).chain(removed.iter().filter(stays)).filter(|other| **other != id);
        // Removing two of three at once leaves none who could decide.
        let is_alone = self.wiped.is_none() && !self.ledger.awaits_removal_beside(id);
        if !is_alone || voters.len() < VOTERS_MIN || !voters.contains(&id) || !others.all(knows) {
            return;
        }
        if self.members[&id].node.is_some() {
            self.cut_power(id, PowerCut::KeepNone);
        }
        let member = self.members.get_mut(&id).expect("there");
        (member.disk, member.is_wiped) = (Some(SimulatedDisk::new(self.random.random())), true);
        self.wiped = Some(id);
        self.report.count("wiped", 1);
        self.agenda.file(self.now + length, Event::Return(id));
        let removed = length + REPLACED_AFTER.mul_f64(self.random.random());
        self.agenda.file(self.now + removed, Event::Remove(id));
    }

    /// Somebody removes a member whose disk was lost, until the cluster did.
    pub(super) fn remove_wiped(&mut self, id: u64) {
        let ModelMembers { voters, .. } = self.ledger.members();
        if !voters.contains(&id) {
            self.wiped = None;
            return;
        }
        let change = MemberChange { kind: Some(Change::Remove(id)) };
        self.order(Kind::MemberChange(change));
        self.agenda.file(self.now + TRIED_AGAIN, Event::Remove(id));
    }

    /// A member that speaks from another disk than the one that is known is not listened to; it hears so, if anything
    /// comes back, and stops.
    pub(super) fn refuse_wiped(&mut self, from: u64, to: u64, incarnation: u128) {
        self.report.count("refused as wiped", 1);
        let speaks = |id| self.members.get(id).and_then(|member| member.node.as_ref());
        if speaks(&from).is_some_and(|node| node.incarnation() == incarnation) && !self.network.is_cut(to, from) {
            self.stop(from);
        }
    }
}
