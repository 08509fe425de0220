//! Rounds: how requests become entries, here or at the leader, and what becomes of those that did not
//! (docs/decisions/0020).

use basalt_proto::log::request::Kind as RequestKind;
use basalt_proto::log::{LogEntry, Request};
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::planted::{Bug, is_planted};
use prost::Message as _;

use super::member_changes::is_change;
use super::traffic::{CoreError, Output};
use super::{Core, ENTRY_BYTES_MAX, ROUND_BYTES_MAX};
use crate::admission::Proposal;
use crate::apply::known::LOG_FORMAT_VERSION;
use crate::node::node_thread::ID_NOBODY;

impl Core {
    /// Leases are the leader's to end: one that was leads no more, and ends none (etcd 15247).
    pub(super) fn drop_leaders_own(&mut self) {
        if is_planted(Bug::RevokeOutlivesLeader) {
            return;
        }
        self.queue.retain(|request| !is_leaders_own(request));
    }

    /// Packs what waits into the entries of one append, or of one message to the leader each.
    pub(super) fn propose_round(&mut self) -> Result<(), CoreError> {
        let mut entry = self.empty_entry();
        let (mut entry_bytes, mut round_bytes) = (0, 0);
        // The first one goes whatever its size: nothing else is in its way.
        let mut room = usize::MAX;
        while let Some(Proposal { request, bytes, .. }) = self.queue.take(room) {
            if is_change(&request) {
                self.hand_on_change(request)?;
                continue;
            }
            if entry_bytes + bytes > ENTRY_BYTES_MAX && !entry.requests.is_empty() {
                let full = std::mem::replace(&mut entry, self.empty_entry());
                self.propose(full)?;
                entry_bytes = 0;
            }
            entry.requests.push(request);
            entry_bytes += bytes;
            round_bytes += bytes;
            room = ROUND_BYTES_MAX.saturating_sub(round_bytes);
        }
        if entry.requests.is_empty() { Ok(()) } else { self.propose(entry) }
    }

    /// A change of members goes alone: to where such changes wait, here or at the leader.
    fn hand_on_change(&mut self, request: Request) -> Result<(), CoreError> {
        let entry = LogEntry { requests: vec![request], ..self.empty_entry() };
        if self.leads() {
            self.enqueue_change(entry);
            return Ok(());
        }
        self.propose(entry)
    }

    fn propose(&mut self, entry: LogEntry) -> Result<(), CoreError> {
        self.raft.propose(Vec::new(), entry.encode_to_vec())?;
        let raft = &self.raft.raft;
        if self.leads() {
            let position = LogPosition { index: raft.raft_log.last_index(), term: raft.term };
            self.remember(position, entry);
        } else {
            self.forwarded.add(raft.term, entry);
        }
        Ok(())
    }

    fn empty_entry(&mut self) -> LogEntry {
        self.round += 1;
        LogEntry {
            format_version: LOG_FORMAT_VERSION,
            apply_version: self.apply_version,
            proposer: self.member_id,
            time_unix_ns: self.time_unix_ns,
            requests: Vec::new(),
            round: self.round,
        }
    }

    /// Keeps an entry as it was before encoding. One of an earlier term in its place may still be in another's log.
    pub(super) fn remember(&mut self, position: LogPosition, entry: LogEntry) {
        let before = self.proposed.insert(position.index, (position.term, entry));
        if let Some((term, entry)) = before.filter(|(_, entry)| entry.proposer == self.member_id) {
            self.forwarded.add(term, entry);
        }
    }

    /// The entry at `position` as this member ordered it, if it did. What it ordered there in another term is another
    /// entry: an older one than that may be what is committed.
    pub(super) fn take_proposed(&mut self, position: LogPosition) -> Option<LogEntry> {
        let (term, _) = self.proposed.get(&position.index)?;
        let is_this = *term == position.term || is_planted(Bug::ProposedOfAnyTerm);
        if is_this { self.proposed.remove(&position.index).map(|(_, entry)| entry) } else { None }
    }

    /// An entry at `position` is committed: what this member ordered or sent in an earlier term, and what was not committed
    /// before it, never will be.
    pub(super) fn give_back(&mut self, position: LogPosition, outputs: &mut Vec<Output>) {
        if position.term == self.committed_term {
            return;
        }
        self.committed_term = position.term;
        let mut lost = self.forwarded.lost(position.term);
        let overruled: Vec<u64> =
            self.proposed.iter().filter(|(_, (term, _))| *term < position.term).map(|(index, _)| *index).collect();
        lost.extend(overruled.iter().filter_map(|index| self.proposed.remove(index)).map(|(_, entry)| entry));
        let own = lost.into_iter().filter(|entry| entry.proposer == self.member_id);
        let requests: Vec<Request> =
            own.flat_map(|entry| entry.requests).filter(|request| !is_leaders_own(request)).collect();
        if !requests.is_empty() {
            outputs.push(Output::Lost(requests));
        }
    }
}

/// What only the leader may ask for, while it leads.
pub(super) fn is_leaders_own(request: &Request) -> bool {
    let of_leases = matches!(request.kind, Some(RequestKind::LeaseRevoke(_) | RequestKind::LeaseCheckpoint(_)));
    request.id == ID_NOBODY && of_leases
}
