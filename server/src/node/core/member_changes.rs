//! Changes of who votes and who gets entries: one at a time, each in an entry of Raft's own type.
//!
//! ```text
//!   round ─► waits until the one before is applied ─► entry ─► apply decides ─► Input::ConfChange ─► Raft
//! ```

use std::collections::VecDeque;

use basalt_proto::log::member_change::Kind as Change;
use basalt_proto::log::request::Kind as RequestKind;
use basalt_proto::log::{LogEntry, MemberChange, Request};
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::planted::{Bug, is_planted};
use prost::Message as _;
use raft::prelude::{ConfChangeSingle, ConfChangeType, ConfChangeV2};
use raft_prost::Message as _;

use super::Core;
use super::traffic::{CoreError, Output};
use crate::apply::effects::Effect;

/// A learner that has so many tenths of the leader's entries may vote (etcd-contract 46).
const READY_TENTHS: u64 = 9;

/// Ticks after which a leader hands over because nothing waits but its own removal.
const OWN_REMOVAL_TICKS: u32 = 2;

/// Changes that wait for the one before them.
pub(super) type Waiting = VecDeque<LogEntry>;

impl Core {
    /// Takes a change that is to become an entry here.
    pub(super) fn enqueue_change(&mut self, entry: LogEntry) {
        self.changes.push_back(entry);
    }

    /// Orders the next change, if the one before is applied.
    pub(super) fn propose_change(&mut self) -> Result<(), CoreError> {
        let is_due = self.can_order() && self.unpersisted.is_empty() && !self.raft.raft.has_pending_conf();
        let first = self.changes.iter().position(|entry| !self.removes_leader(entry)).filter(|_| is_due);
        let Some(mut entry) = first.and_then(|first| self.changes.remove(first)) else { return Ok(()) };
        self.mark_behind(&mut entry);
        match conf_change(&entry) {
            Some(mut change) => {
                change.context = entry.encode_to_vec();
                self.raft.propose_conf_change(Vec::new(), change)?;
            }
            None => self.raft.propose(Vec::new(), entry.encode_to_vec())?,
        }
        let raft = &self.raft.raft;
        let position = LogPosition { index: raft.raft_log.last_index(), term: raft.term };
        self.remember(position, entry);
        Ok(())
    }

    /// Another one is to order the removal of this leader: one that is no member any more cannot tell the others. Not at once: where
    /// two are to be removed, each as soon as it leads, what removes the other is to have its turn (seed 3006540).
    pub(super) fn tick_own_removal(&mut self) {
        let waits = !self.changes.is_empty() && self.changes.iter().all(|entry| self.removes_leader(entry));
        self.own_removal_ticks = if waits && self.can_order() { self.own_removal_ticks + 1 } else { 0 };
        if self.own_removal_ticks >= OWN_REMOVAL_TICKS {
            self.hand_over();
        }
    }

    /// This member leads no more: what waits here was never ordered. Whoever sent the others' asks again.
    pub(super) fn drop_changes(&mut self, outputs: &mut Vec<Output>) {
        let own = std::mem::take(&mut self.changes).into_iter().filter(|entry| entry.proposer == self.member_id);
        let requests: Vec<Request> = own.flat_map(|entry| entry.requests).collect();
        if !requests.is_empty() {
            outputs.push(Output::Lost(requests));
        }
    }

    /// Only the leader knows whether a learner has enough to vote.
    fn mark_behind(&self, entry: &mut LogEntry) {
        for request in &mut entry.requests {
            if let Some(RequestKind::MemberChange(MemberChange { kind: Some(Change::Promote(promotion)) })) =
                &mut request.kind
            {
                let matched = |id| self.raft.raft.prs().get(id).map(|progress| progress.matched);
                let own = matched(self.member_id).unwrap_or(0);
                // Who is no member is refused for that.
                promotion.behind = matched(promotion.id).is_some_and(|matched| matched * 10 < own * READY_TENTHS);
            }
        }
    }

    /// A change was applied, and is one of Raft's too.
    pub(super) fn conf_changed(&mut self, change: &ConfChangeV2, outputs: &mut Vec<Output>) -> Result<(), CoreError> {
        let conf_state = self.raft.apply_conf_change(change)?;
        self.raft.mut_store().set_conf_state(conf_state);
        let removes = |one: &ConfChangeSingle| {
            one.get_change_type() == ConfChangeType::RemoveNode && one.node_id == self.member_id
        };
        if !change.changes.iter().any(removes) {
            return Ok(());
        }
        if is_planted(Bug::RemovedMemberStops) {
            outputs.push(Output::Left);
            return Ok(());
        }
        // Those who do not know yet may wait for its vote: it goes on until it is told (`farewell`). One that leads was elected
        // with its removal in its log; the crate has no place for a leader that is no member.
        if self.leads() {
            let term = self.raft.raft.term;
            self.raft.raft.become_follower(term, raft::INVALID_ID);
        }
        Ok(())
    }

    /// Whether a change removes this member, and another can do that.
    fn removes_leader(&self, entry: &LogEntry) -> bool {
        let removed = entry.requests.iter().any(|request| {
            matches!(&request.kind, Some(RequestKind::MemberChange(MemberChange { kind: Some(Change::Remove(id)) })) if *id == self.member_id)
        });
        removed && !self.raft.raft.prs().is_singleton() && !is_planted(Bug::RemovedMemberStops)
    }
}

/// Whether a request is to become an entry of Raft's own type.
pub(super) fn is_change(request: &Request) -> bool {
    let Some(RequestKind::MemberChange(change)) = &request.kind else { return false };
    !matches!(change.kind, Some(Change::Update(_)))
}

/// Whether an entry is one.
pub(super) fn is_change_entry(entry: &LogEntry) -> bool {
    entry.requests.iter().any(is_change)
}

/// What Raft is told when a change is proposed; `None` for one that will be refused.
fn conf_change(entry: &LogEntry) -> Option<ConfChangeV2> {
    let [Request { kind: Some(RequestKind::MemberChange(MemberChange { kind: Some(change) })), .. }] =
        entry.requests.as_slice()
    else {
        return None;
    };
    match change {
        Change::Add(addition) => {
            let id = addition.member.as_ref().map_or(0, |member| member.id);
            Some(single(if addition.learner { ConfChangeType::AddLearnerNode } else { ConfChangeType::AddNode }, id))
        }
        Change::Remove(id) => Some(single(ConfChangeType::RemoveNode, *id)),
        Change::Promote(promotion) if promotion.behind => None,
        Change::Promote(promotion) => Some(single(ConfChangeType::AddNode, promotion.id)),
        Change::Update(_) => None,
    }
}

/// What Raft is told when an effect of an applied entry changed who votes or who gets entries.
pub fn conf_change_of(effect: &Effect) -> Option<ConfChangeV2> {
    match effect {
        Effect::MemberAdded { member, learner: true } if !is_planted(Bug::LearnerVotes) => {
            Some(single(ConfChangeType::AddLearnerNode, member.id))
        }
        Effect::MemberAdded { member, .. } => Some(single(ConfChangeType::AddNode, member.id)),
        Effect::MemberRemoved { id } => Some(single(ConfChangeType::RemoveNode, *id)),
        Effect::MemberPromoted { id } => Some(single(ConfChangeType::AddNode, *id)),
        _ => None,
    }
}

fn single(kind: ConfChangeType, id: u64) -> ConfChangeV2 {
    let mut one = ConfChangeSingle { node_id: id, ..ConfChangeSingle::default() };
    one.set_change_type(kind);
    let mut change = ConfChangeV2::default();
    change.changes.push(one);
    change
}

/// The data of an entry of Raft's own type; `None` for one that will be refused, or is no change.
pub fn change_data(entry: &LogEntry) -> Option<Vec<u8>> {
    let mut change = conf_change(entry)?;
    change.context = entry.encode_to_vec();
    Some(raft_prost::Message::encode_to_vec(&change))
}

/// The requests of an entry of Raft's own type, by its data.
///
/// # Errors
/// What is wrong with it.
pub fn context_of(data: &[u8]) -> Result<Vec<u8>, raft_prost::DecodeError> {
    ConfChangeV2::decode(data).map(|change| change.context)
}
