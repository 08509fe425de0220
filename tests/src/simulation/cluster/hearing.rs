//! What a member said and did becomes known.

use std::hash::Hasher;
use std::time::Duration;

use basalt_server::apply::effects::Effect;
use basalt_storage::disk::PowerCut;
use raft::prelude::{Message, MessageType};
use rand::Rng;

use super::super::accounts::is_of_account;
use super::super::invariants::revisions;
use super::super::keepers::FIRST_LEASE;
use super::super::network::Spoken;
use super::super::registers::is_of_register;
use super::{Cluster, Event};
use crate::node_sim::{Appended, Outcome, Said, SimulatedNode};

/// Reads of a kind, and the others.
fn parts(reads: &[u64], is_of_kind: impl Fn(u64) -> bool) -> (Vec<u64>, Vec<u64>) {
    reads.iter().partition(|read| is_of_kind(**read))
}

impl Cluster {
    /// A member holds the users and roles that belong to what it applied.
    fn check_auth(&self, id: u64) {
        let node = self.members[&id].node.as_ref().expect("it spoke just now");
        self.ledger.auth().check(id, &node.shown_auth(), node.machine().store().applied.index);
    }

    /// What a member said and did becomes known.
    pub(super) fn hear(&mut self, id: u64) {
        let member = self.members.get_mut(&id).expect("there");
        let (node, life) = (member.node.as_mut().expect("it spoke just now"), member.life);
        let said = node.take_said();
        let outcomes = node.take_outcomes();
        member.look();
        // Who lost its disk is believed to have what it has no more.
        let is_wiped = member.is_wiped;
        assert!(said.refused.is_empty() || is_wiped, "an honest member was refused: {:?}", said.refused);
        self.hear_log(id, &said.appended);
        if !outcomes.is_empty() {
            self.hear_outcomes(id, life, outcomes);
        }
        let (of_registers, reads) = parts(&said.reads, is_of_register);
        let (failed_of_registers, failed) = parts(&said.failed_reads, is_of_register);
        let (of_accounts, reads) = parts(&reads, is_of_account);
        let (failed_of_accounts, failed) = parts(&failed, is_of_account);
        if said.has_installed {
            self.check_auth(id);
        }
        self.hear_account_reads(id, &of_accounts, &failed_of_accounts);
        self.read_registers(id, &of_registers, &failed_of_registers);
        let node = self.members[&id].node.as_ref().expect("it spoke just now");
        self.clients.hear_reads(node, (&reads, &failed), (id, life), &self.ledger);
        if let Some((position, term)) = said.committed {
            self.completeness.committed(position, term);
        }
        self.hear_roles(id, &said);
        said.requests.iter().for_each(|request| self.ledger.sent(request));
        self.send(id, life, said);
    }

    fn hear_log(&mut self, id: u64, appended: &[Appended]) {
        appended.iter().for_each(|appended| self.logs.wrote(id, appended));
    }

    fn hear_outcomes(&mut self, id: u64, life: u64, outcomes: Vec<Outcome>) {
        let granted = self.clients.hear_outcomes(&outcomes, id, life);
        self.hear_registers(id, &outcomes);
        self.accounts.hear_outcomes(id, &outcomes);
        let is_of_users = |effect: &Effect| matches!(effect, Effect::AuthChanged(_));
        let changes_users = outcomes.iter().any(|outcome| outcome.effects.effects.iter().any(is_of_users));
        let last = self.ledger.last_index();
        for outcome in &outcomes {
            self.hasher.write_u64(id);
            self.hasher.write_u64(outcome.position.index);
            self.hasher.write_i64(outcome.effects.revision);
            if outcome.position.index > last {
                self.revision = revisions::follow(self.revision, outcome);
                self.follow_leases(outcome);
            }
        }
        // Only now: whoever is told of it is told of what the ledger has.
        // Where a client takes the id of a lease that ended for another one, the end of the first may still be on its way
        // and meet the second, as with etcd: a holder relies on an id of its own.
        for (lease, grant, asked) in granted.into_iter().filter(|(lease, ..)| *lease >= FIRST_LEASE) {
            self.leases.acknowledged(lease, grant, asked);
        }
        let before = self.ledger.membership_changes();
        self.ledger.take(outcomes);
        if changes_users {
            self.check_auth(id);
        }
        let changes = self.ledger.membership_changes() - before;
        self.changes += changes;
        if self.trace && changes > 0 {
            println!("{:?} {:?}", self.now, self.ledger.members());
        }
    }

    fn hear_roles(&mut self, id: u64, said: &Said) {
        for role in &said.roles {
            self.hasher.write_u64(role.term);
            if self.trace {
                println!("{:?} {id}: {role:?}", self.now);
            }
            if !role.leads {
                continue;
            }
            self.leaders.elected(id, role.term);
            self.completeness.elected(id, role.term, &self.logs);
            if self.is_stormy() {
                let pause = Duration::from_millis(self.random.random_range(100..2500));
                self.members.get_mut(&id).expect("there").paused_until = self.now + pause;
            }
        }
    }

    fn send(&mut self, id: u64, life: u64, said: Said) {
        let votes =
            |message: &Message| message.get_msg_type() == MessageType::MsgRequestVoteResponse && !message.reject;
        let dies = self.is_stormy() && said.messages.iter().any(votes) && self.random.random_ratio(1, 2);
        let applied = self.members[&id].node.as_ref().map_or(0, |node| node.machine().store().applied.index);
        for (stream, message) in said.watched {
            self.watchers.arrive(stream, message, applied);
        }
        said.leaderless.into_iter().for_each(|stream| self.watchers.lost_leader(stream));
        self.answer_renewals(said.renewals);
        for (message, snapshot) in said.snapshots {
            let life_there = self.members.get(&message.to).map_or(0, |member| member.life);
            if self.trace {
                println!("{:?} {id}: the state of {:?} leaves for {}", self.now, snapshot.position(), message.to);
            }
            self.transfers.begin(message, snapshot, (life, life_there), self.now);
        }
        let incarnation = self.members[&id].node.as_ref().map_or(0, SimulatedNode::incarnation);
        for message in said.messages {
            self.network.send(Spoken { message, incarnation }, self.now, &mut self.random);
        }
        if dies {
            self.cut_power(id, PowerCut::KeepNone);
            let back = self.now + Duration::from_millis(self.random.random_range(1..30));
            self.agenda.file(back, Event::Return(id));
        }
        if said.left {
            self.stop(id);
        }
    }
}
