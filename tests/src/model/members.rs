//! Who belongs to the cluster, as simply as it can be said.

use std::collections::{BTreeMap, BTreeSet};

use basalt_proto::log::member_change::Kind as Change;
use basalt_proto::log::{MemberChange, MemberDescription};

/// Ids of members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelMembers {
    /// Those who vote.
    pub voters: BTreeSet<u64>,
    /// Those who do not yet.
    pub learners: BTreeSet<u64>,
    /// Those who left.
    pub removed: BTreeSet<u64>,
    /// From which data directory each speaks that said so.
    pub incarnations: BTreeMap<u64, Vec<u8>>,
    /// Those whose disks are full.
    pub full: BTreeSet<u64>,
}

impl ModelMembers {
    /// Changes them; says whether that may be.
    pub(super) fn change(&mut self, change: &MemberChange) -> bool {
        match change.kind.as_ref().expect("a workload leaves none empty") {
            Change::Add(addition) => {
                let id = addition.member.as_ref().expect("a workload leaves none empty").id;
                let new = ![&self.voters, &self.learners, &self.removed].iter().any(|ids| ids.contains(&id));
                let fits = !addition.learner || self.learners.len() < addition.learners_max as usize;
                let ids = if addition.learner { &mut self.learners } else { &mut self.voters };
                new && fits && ids.insert(id)
            }
            Change::Remove(id) => {
                let others = self.voters.iter().any(|voter| voter != id);
                let is_gone = others && (self.voters.remove(id) || self.learners.remove(id));
                if is_gone {
                    self.incarnations.remove(id);
                    self.full.remove(id);
                }
                is_gone && self.removed.insert(*id)
            }
            Change::Promote(promotion) => {
                !promotion.behind && self.learners.remove(&promotion.id) && self.voters.insert(promotion.id)
            }
            Change::Update(_) => panic!("no workload makes it"),
        }
    }

    /// Where nobody counts members there is one, to whom everything is told.
    pub(super) fn is_alone(&self) -> bool {
        self.voters.is_empty()
    }

    fn belongs(&self, id: u64) -> bool {
        self.is_alone() || self.voters.contains(&id) || self.learners.contains(&id)
    }

    /// A member says who it is and whether its disk is full; says whether that may be.
    pub(super) fn describe(&mut self, description: &MemberDescription) -> bool {
        let id = description.id;
        if !self.belongs(id) {
            return true;
        }
        let said = description.incarnation.to_vec();
        if !said.is_empty() && *self.incarnations.entry(id).or_insert(said) != description.incarnation {
            return false;
        }
        if description.disk_full {
            self.full.insert(id)
        } else {
            self.full.remove(&id)
        };
        true
    }

    pub(super) fn are_mostly_full(&self) -> bool {
        self.is_alone() || self.voters.intersection(&self.full).count() * 2 > self.voters.len()
    }
}
