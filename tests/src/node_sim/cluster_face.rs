//! What other members and the clients of a cluster do with a node.

use std::time::Duration;

use basalt_server::apply::members::Members;
use basalt_server::node::core::Input;
use basalt_server::watch::{self, StreamId, WatchFigures};
use basalt_storage::revision::Revision;
use bytes::Bytes;
use raft::prelude::Message;

use super::node::SimulatedNode;
use super::said::Said;

impl SimulatedNode {
    /// What it said since the last call.
    pub fn take_said(&mut self) -> Said {
        std::mem::take(&mut self.said)
    }

    /// Whether it said or applied something since.
    pub fn has_said(&self) -> bool {
        !self.said.is_empty() || !self.apply.outcomes.is_empty()
    }

    /// Another member says something.
    pub fn hear(&mut self, message: Message) {
        self.inbox.push_back(Input::Message(Box::new(message)));
    }

    /// A client wants to read what was acknowledged before.
    pub fn read_index(&mut self, read: u64) {
        self.inbox.push_back(Input::Reads(vec![read]));
    }

    /// This member was removed, says another.
    pub fn told(&mut self, by: u64) {
        self.inbox.push_back(Input::Told { by });
    }

    /// Whether it knows, also after a power cut, that this member was removed.
    pub fn has_removed(&self, member: u64) -> bool {
        self.machine().members().is_removed(member) && self.checkpointed_members().is_removed(member)
    }

    /// Whether it knows this member by another data directory. One that was removed is judged as what it was, until that is
    /// durable, as by `Peers::members_for`.
    pub fn knows_as_wiped(&self, member: u64, incarnation: u128) -> bool {
        let members = self.machine().members();
        if members.is_removed(member) {
            return self.checkpointed_members().is_wiped(member, incarnation);
        }
        members.is_wiped(member, incarnation)
    }

    /// Another member shall lead.
    pub fn transfer(&mut self, member: u64) {
        self.inbox.push_back(Input::Transfer(member));
    }

    /// A stream of a whole state begins, with its first chunk; `id` is the state's.
    pub fn open_arrival(&mut self, id: u64, message: &Message, head: Bytes) {
        let opened = self.transfers.open(&self.disk, id, self.checkpoints.manifest(), message, head);
        self.over = opened.err().or(self.over);
    }

    /// The next chunk of it; says whether it was the last. `None` if another state arrives by now.
    pub fn take_arrival(&mut self, id: u64, message: &Message, chunk: Bytes) -> Option<bool> {
        match self.transfers.take(&self.disk, id, message, chunk) {
            Ok(taken) => {
                let (is_whole, received) = taken?;
                self.inbox.extend(received);
                Some(is_whole)
            }
            Err(over) => {
                self.over = Some(over);
                None
            }
        }
    }

    /// The last revision of state `id` that arrived.
    pub fn arrived(&self, id: u64) -> Option<Revision> {
        self.transfers.last(id)
    }

    /// In words, for whoever finds it stuck.
    pub fn state(&self) -> String {
        let (applied, committed) = (self.machine().store().applied.index, self.core.committed());
        let (busy, installing) = (self.is_busy(), self.is_installing());
        let (standing, progress) = (self.core.standing(), self.core.progress());
        format!(
            "applied {applied}, committed {committed}, busy {busy}, installing {installing}; {standing}; {progress}"
        )
    }

    /// Whether a state that arrived is neither installed nor discarded.
    pub fn is_installing(&self) -> bool {
        self.transfers.has_filled() || self.apply.is_replaced
    }

    /// Whether this member leads, and one that votes lacks what its log does not hold.
    pub fn is_bringing_up_a_voter(&self) -> bool {
        self.core.is_bringing_up_a_voter()
    }

    /// A state for another member is on its way no more.
    pub fn snapshot_sent(&mut self, to: u64, arrived: bool) {
        self.inbox.push_back(Input::SnapshotSent { to, arrived });
    }

    /// The number of its data directory.
    pub fn incarnation(&self) -> u128 {
        self.incarnation
    }

    /// Whether it knows, also after a power cut, from which data directory this member speaks.
    pub fn knows_of(&self, member: u64) -> bool {
        self.checkpointed_members().get(member).is_some_and(|member| !member.incarnation.is_empty())
    }

    fn checkpointed_members(&self) -> Members {
        Members::decode(&self.checkpoints.manifest().conf_state).expect("every manifest names its members")
    }

    /// Whether it leads.
    pub fn leads(&self) -> bool {
        self.core.leads()
    }

    /// The time on its clock goes on to `now`, but never back.
    pub fn pass_until(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    /// A client wants to renew a lease, which this node answers by its own clock ([`Said::renewals`]); under the id `request`
    /// it may have a request ordered for that.
    pub fn renew(&mut self, number: u64, lease: i64, request: u64) {
        self.leases.ask(number, lease, request, self.now);
    }

    /// A client begins a stream, which is to end when there is no leader for a while.
    pub fn watch_under_leader(&mut self, stream: StreamId) {
        self.leader_losses.begin(stream, self.now, self.clock);
        self.watch(watch::Input::Open(stream));
    }

    /// A client does something with its watches.
    pub fn watch(&mut self, input: watch::Input) {
        if let watch::Input::Close(stream) = input {
            self.leader_losses.end(stream);
        }
        if let Some(watches) = &mut self.watches {
            watches.push(input);
        }
    }

    /// What watches hold.
    pub fn watch_figures(&self) -> WatchFigures {
        self.watches.as_ref().map(|watches| watches.figures()).unwrap_or_default()
    }

    /// Who leads, as it knows; 0 for nobody.
    pub fn leader(&self) -> u64 {
        self.leadership.leader
    }

    /// Its term, as it knows.
    pub fn term(&self) -> u64 {
        self.leadership.term
    }

    /// The last entry that it knows as committed.
    pub fn committed(&self) -> u64 {
        self.core.committed()
    }

    /// Entries in memory, requests that wait for an order, and what waits for a turn.
    pub fn held(&self) -> (usize, usize, usize) {
        let waiting = self.proposals.len() + self.inbox.len();
        (self.core.entries_in_memory(), self.core.queued(), waiting)
    }

    /// Its disk answers nothing before then.
    pub fn stall_disk(&mut self, until: Duration) {
        self.disk_stalls_until = self.disk_stalls_until.max(until);
    }

    /// Its disk answers again, and no sync fails.
    pub fn heal_disk(&mut self) {
        self.disk_stalls_until = Duration::ZERO;
        self.disk.fail_sync(0);
    }

    /// Whether its disk does not answer.
    pub fn is_stalled(&self) -> bool {
        self.disk_stalls_until > self.now
    }

    /// Its wall clock is so much ahead from now on.
    pub fn set_wall_ahead(&mut self, ms: i64) {
        self.clock.wall_ahead_ms = ms;
    }

    /// When it does something again, if nobody says anything before: now, or with its next tick.
    pub fn next_turn(&self) -> Duration {
        if self.over.is_some() || self.may_advance() {
            return self.now;
        }
        let stalled = self.disk_stalls_until > self.now;
        if stalled { self.next_tick.min(self.disk_stalls_until) } else { self.next_tick }
    }
}
