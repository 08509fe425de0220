//! What Raft hands out: entries to be made durable, messages that wait for that or do not, entries to be applied.

use basalt_proto::log::LogEntry;
use basalt_proto::nesting::decode_log_entry;
use basalt_storage::mvcc::view::LogPosition;
use raft::prelude::{Entry, EntryType, MessageType};

use super::Core;
use super::member_changes::context_of;
use super::traffic::{Append, Committed, CoreError, Output};
use crate::apply::known;

impl Core {
    pub(super) fn take_ready(&mut self, outputs: &mut Vec<Output>) -> Result<(), CoreError> {
        let mut ready = self.raft.ready();
        let number = ready.number();
        let committed = ready.take_committed_entries();
        let entries = ready.take_entries();
        let votes = ready.hs().is_some_and(|state| {
            let before = self.raft.store().hard_state();
            (state.term, state.vote) != (before.term, before.vote)
        });
        if let Some(hard_state) = ready.hs() {
            self.raft.mut_store().set_hard_state(hard_state.clone());
            self.unwritten = Some(hard_state.clone());
        }
        self.outbox.take(number, ready.take_messages(), false, votes);
        let mut held = ready.take_persisted_messages();
        let proposals = held.iter_mut().filter(|message| message.get_msg_type() == MessageType::MsgPropose);
        // The crate leaves these without a term; whoever leads in another one must not take them.
        proposals.for_each(|message| message.commit_term = self.raft.raft.term);
        self.outbox.take(number, held, true, votes);
        for read in ready.take_read_states() {
            self.reads.answered(&read.request_ctx, read.index);
            let answers = self.confirmed(&read.request_ctx, read.index);
            self.outbox.take(number, answers, false, votes);
        }
        let restarts = !ready.snapshot().is_empty();
        if restarts {
            self.begin_install(&ready, outputs);
        }
        self.raft.mut_store().append(&entries);
        // A commit index alone is not worth a sync: it travels with the next append, and is found again without it.
        let writes = !entries.is_empty() || restarts || ready.must_sync();
        self.raft.advance_append_async(ready);
        self.hand_to_apply(committed, outputs)?;
        if writes {
            self.unpersisted.push_back((number, true));
            self.slow_disk.began(number, self.raft.raft.raft_log.last_index());
            let hard_state = self.unwritten.take();
            self.append(Append { number, entries, hard_state, start_after: None }, outputs);
        } else {
            self.unpersisted.push_back((number, false));
            self.pass_persisted();
        }
        Ok(())
    }

    pub(super) fn persisted(&mut self, number: u64) {
        for (waiting, needs_disk) in &mut self.unpersisted {
            *needs_disk = *needs_disk && *waiting > number;
        }
        self.pass_persisted();
    }

    /// Tells Raft of all readies that wait for no disk, in order.
    pub(super) fn pass_persisted(&mut self) {
        while let Some((number, false)) = self.unpersisted.front() {
            self.raft.on_persist_ready(*number);
            self.outbox.persisted(*number);
            self.unpersisted.pop_front();
        }
    }

    pub(super) fn hand_to_apply(&mut self, entries: Vec<Entry>, outputs: &mut Vec<Output>) -> Result<(), CoreError> {
        let mut committed = Vec::with_capacity(entries.len());
        for entry in entries {
            let position = LogPosition { index: entry.index, term: entry.term };
            self.give_back(position, outputs);
            let proposed = self.take_proposed(position);
            let entry = match entry.get_entry_type() {
                _ if entry.data.is_empty() => None,
                EntryType::EntryConfChange => None,
                kind => Some(match proposed {
                    Some(proposed) => proposed,
                    None if kind == EntryType::EntryNormal => decode(entry.index, entry.data.clone())?,
                    None => {
                        let index = entry.index;
                        let context =
                            context_of(&entry.data).map_err(|cause| CoreError::MalformedChange { index, cause })?;
                        decode(index, context)?
                    }
                }),
            };
            if let Some(entry) = &entry
                && entry.proposer == self.member_id
            {
                self.forwarded.committed(entry.round);
            }
            committed.push(Committed { position, entry });
        }
        if !committed.is_empty() {
            outputs.push(Output::Apply(committed));
        }
        Ok(())
    }
}

/// An entry of another life or member, if this release may apply it.
fn decode(index: u64, data: Vec<u8>) -> Result<LogEntry, CoreError> {
    let decoded = decode_log_entry(data.into()).map_err(|cause| CoreError::Malformed { index, cause })?;
    known::check(index, &decoded)?;
    Ok(decoded)
}
