//! The faults are over: a healed cluster takes writes again, and all members come to the same state.

use std::time::Duration;

use super::super::invariants::{checksums, liveness};
use super::member::MemberPlace;
use super::{Cluster, Event};
use crate::model::ModelMembers;

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(50);

impl Cluster {
    /// Everything that can be repaired is.
    pub(super) fn heal(&mut self) {
        self.is_calm = true;
        self.agenda.retain(|event| {
            !matches!(
                event,
                Event::Fault(_)
                    | Event::FaultEnds(_)
                    | Event::Request
                    | Event::Register(_)
                    | Event::Keep(_)
                    | Event::Administer
            )
        });
        self.watchers.hurry();
        self.end_all_faults();
        for id in self.members() {
            let member = self.members.get_mut(&id).expect("there");
            member.recover();
            self.start(id);
        }
    }

    /// Waits until all agree, and looks at everything that each has.
    pub(super) fn agree(&mut self) {
        let (healed, before) = (self.now, self.clients.seen.acknowledged);
        let is_alive = |cluster: &Self| cluster.clients.seen.acknowledged >= before + liveness::WRITES as u64;
        while !(is_alive(self)
            && self.is_agreed()
            && !self.is_out_of_space()
            && self.leases.is_empty()
            && self.watchers.are_up_to_date(&self.ledger))
        {
            // Then nothing more is asked, so that it can.
            if !is_alive(self) {
                self.ask();
            }
            self.disarm();
            self.advance_to(self.now + PAUSE);
            liveness::within(self.now - healed, || self.standing());
        }
        self.registers.check();
        let replica = self.ledger.hashed_replica();
        for id in self.expected() {
            let node = self.members[&id].node.as_ref().expect("all are up");
            self.ledger.check_beside(node, &replica);
            checksums::whole(id, node);
        }
    }

    fn advance_to(&mut self, until: Duration) {
        while self.now < until {
            self.advance(until);
        }
    }

    fn standing(&self) -> String {
        let state = |(id, member): (&u64, &MemberPlace)| format!("{id}: {}; ", member.state());
        let states: String = self.members.iter().map(state).collect();
        format!(
            "seed {}: entry {}: {states}states: {}",
            self.plan.seed,
            self.ledger.last_index(),
            self.transfers.state()
        )
    }

    /// Those that are to come to agree.
    fn expected(&self) -> Vec<u64> {
        let ModelMembers { voters, learners, .. } = self.ledger.members();
        voters.iter().chain(learners).copied().filter(|id| self.members.contains_key(id)).collect()
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
