//! What another member may say. The `raft` crate trusts its peers and panics on some of what a faulty, forged or amnesiac
//! one could send (`faults.md`, trap 4): all of it ends here, before anything is used.

use std::collections::BTreeSet;

use basalt_proto::log::LogEntry;
use basalt_proto::nesting::decode_log_entry;
use raft::prelude::{Entry, EntryType, Message, MessageType};
use raft::{RawNode, StateRole};
use thiserror::Error;

use super::super::log_store::LogStore;
use crate::apply::known;

/// Terms above this are no work of elections, and the crate would count beyond the end of numbers.
const TERM_MAX: u64 = 1 << 62;

/// Contexts of reads are two numbers ([`super::reads`]); a later release may want more.
const CONTEXT_BYTES_MAX: usize = 64;

/// Why a message is not used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadMessage {
    /// It is for somebody else, or from nobody.
    #[error("from {from:x} to {to:x} does not belong here")]
    Misdirected {
        /// Its sender.
        from: u64,
        /// Its receiver.
        to: u64,
    },
    /// No member sends such a message to another.
    #[error("{0} is no message between members")]
    Kind(&'static str),
    /// A number that cannot be.
    #[error("{0}")]
    Field(&'static str),
    /// The sender believes that this member stores what it does not: one of the two lost data.
    #[error(
        "this member is believed to have entries up to {believed}, and has them up to {last}: one of the two lost data"
    )]
    Amnesia {
        /// What the sender believes.
        believed: u64,
        /// What is true.
        last: u64,
    },
}

/// Requests of a proposal, as they were decoded to look at them.
pub(super) type Proposed = Vec<LogEntry>;

/// Whether `message` may be given to `raft`; gives what a proposal proposes.
///
/// # Errors
/// [`BadMessage`].
pub(super) fn check(raft: &RawNode<LogStore>, message: &Message) -> Result<Proposed, BadMessage> {
    let state = &raft.raft;
    if message.to != state.id || message.from == state.id || message.from == 0 {
        return Err(BadMessage::Misdirected { from: message.from, to: message.to });
    }
    let terms = [message.term, message.log_term, message.commit_term];
    if terms.iter().any(|term| *term > TERM_MAX) {
        return Err(BadMessage::Field("a term beyond all elections"));
    }
    let kind = MessageType::from_i32(message.msg_type).ok_or(BadMessage::Kind("an unknown number"))?;
    // Without a term the crate takes a message for the member's own word, and compares no terms. Only what is asked of a
    // leader has none.
    let is_asked_of_leader =
        matches!(kind, MessageType::MsgPropose | MessageType::MsgReadIndex | MessageType::MsgTransferLeader);
    if message.term == 0 && !is_asked_of_leader {
        return Err(BadMessage::Field("a message without a term"));
    }
    let last = state.raft_log.last_index();
    let believed = |index| if index > last { Err(BadMessage::Amnesia { believed: index, last }) } else { Ok(()) };
    let is_of_this_term = message.term == state.term;
    match kind {
        MessageType::MsgAppend => check_append(message)?,
        // What an older leader believed may have been replaced since.
        MessageType::MsgHeartbeat if message.term >= state.term => believed(message.commit)?,
        MessageType::MsgAppendResponse if is_of_this_term && state.state == StateRole::Leader && !message.reject => {
            believed(message.index)?;
        }
        MessageType::MsgPropose => return check_proposal(message),
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => {
            if message.entries.len() != 1 || message.entries[0].data.is_empty() {
                return Err(BadMessage::Field("a read without its context"));
            }
            if message.entries[0].data.len() > CONTEXT_BYTES_MAX {
                return Err(BadMessage::Field("a read with a context that nobody makes"));
            }
        }
        MessageType::MsgHeartbeat
        | MessageType::MsgAppendResponse
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgTransferLeader
        | MessageType::MsgTimeoutNow => {}
        MessageType::MsgSnapshot => return Err(BadMessage::Kind("a snapshot on its way alone")),
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum => return Err(BadMessage::Kind("a member's word to itself")),
    }
    Ok(Vec::new())
}

/// Whether the message that came with a snapshot may be given to Raft.
///
/// # Errors
/// [`BadMessage`].
pub(super) fn check_snapshot(raft: &RawNode<LogStore>, message: &Message) -> Result<(), BadMessage> {
    let own = raft.raft.id;
    if message.to != own || message.from == own || message.from == 0 {
        return Err(BadMessage::Misdirected { from: message.from, to: message.to });
    }
    if MessageType::from_i32(message.msg_type) != Some(MessageType::MsgSnapshot) {
        return Err(BadMessage::Kind("what came with a snapshot"));
    }
    let metadata = message.get_snapshot().get_metadata();
    if metadata.index == 0 || metadata.term == 0 || metadata.term > message.term || message.term > TERM_MAX {
        return Err(BadMessage::Field("a snapshot of an entry that cannot be"));
    }
    let members = metadata.get_conf_state();
    let is_joint = !members.voters_outgoing.is_empty() || !members.learners_next.is_empty() || members.auto_leave;
    let all: Vec<u64> = members.voters.iter().chain(&members.learners).copied().collect();
    let distinct: BTreeSet<u64> = all.iter().copied().collect();
    if is_joint || members.voters.is_empty() || distinct.len() < all.len() || distinct.contains(&0) {
        return Err(BadMessage::Field("a snapshot of members that cannot be"));
    }
    Ok(())
}

/// Entries follow one another, and no term goes back.
fn check_append(message: &Message) -> Result<(), BadMessage> {
    // Of an entry that is not there the crate says that its term is 0, and would take one of that term for the same.
    if message.index > 0 && message.log_term == 0 {
        return Err(BadMessage::Field("entries behind one without a term"));
    }
    let mut term = message.log_term.max(1);
    for (entry, index) in message.entries.iter().zip(message.index.saturating_add(1)..) {
        if entry.index != index {
            return Err(BadMessage::Field("entries with a gap"));
        }
        if entry.term < term || entry.term > message.term {
            return Err(BadMessage::Field("entries of impossible terms"));
        }
        if EntryType::from_i32(entry.entry_type).is_none() {
            return Err(BadMessage::Field("an entry of unknown type"));
        }
        term = entry.term;
    }
    Ok(())
}

/// What is proposed here stands in everybody's log: it must be something that can be applied.
fn check_proposal(message: &Message) -> Result<Proposed, BadMessage> {
    if message.entries.is_empty() {
        return Err(BadMessage::Field("a proposal of nothing"));
    }
    message.entries.iter().map(proposed).collect()
}

fn proposed(entry: &Entry) -> Result<LogEntry, BadMessage> {
    if EntryType::from_i32(entry.entry_type) != Some(EntryType::EntryNormal) || entry.data.is_empty() {
        return Err(BadMessage::Field("a proposal that is no request"));
    }
    let decoded = decode_log_entry(entry.data.clone().into());
    let decoded = decoded.map_err(|_| BadMessage::Field("a proposal that cannot be read"))?;
    match known::check(0, &decoded) {
        Ok(()) => Ok(decoded),
        Err(_) => Err(BadMessage::Field("a proposal of a newer release")),
    }
}
