//! Which message may leave when (the order of durability; docs/durability.md).
//!
//! * A vote, an answer to an append: after everything that this member decided before is durable.
//! * A heartbeat, its answer, a read, a proposal for the leader, a leader's append: at once, unless the term or the vote that
//!   it speaks in is not durable yet. They promise nothing about entries, and a disk that is slow must not look like a
//!   leader that is gone.
//!
//! The crate sorts by role alone: it holds back everything that a follower says.

use std::collections::VecDeque;

use basalt_storage::planted::{Bug, is_planted};
use raft::prelude::{Message, MessageType};

/// Messages, and what they wait for.
#[derive(Default)]
pub(super) struct Outbox {
    /// By the ready after which they may leave, ascending.
    held: VecDeque<(u64, Message)>,
    /// The last ready that changed term or vote and is not durable.
    vote_unpersisted: Option<u64>,
    ready: Vec<Message>,
}

impl Outbox {
    /// Takes the messages of ready `number`. `persisted_first` as the crate says of them, `votes` if the ready changes
    /// term or vote.
    pub(super) fn take(&mut self, number: u64, messages: Vec<Message>, persisted_first: bool, votes: bool) {
        if votes && !is_planted(Bug::VoteBeforeSync) {
            self.vote_unpersisted = Some(number);
        }
        for message in messages {
            if self.vote_unpersisted.is_none() && (!persisted_first || promises_nothing(&message)) {
                self.ready.push(message);
            } else {
                self.held.push_back((number, message));
            }
        }
    }

    /// Takes a message that promises nothing and belongs to no ready.
    pub(super) fn add(&mut self, message: Message) {
        match self.vote_unpersisted {
            Some(number) => self.held.push_back((number, message)),
            None => self.ready.push(message),
        }
    }

    /// Ready `number` is durable, and with it all before.
    pub(super) fn persisted(&mut self, number: u64) {
        if self.vote_unpersisted.is_some_and(|waits_for| waits_for <= number) {
            self.vote_unpersisted = None;
        }
        while let Some((_, message)) = self.held.pop_front_if(|(waits_for, _)| *waits_for <= number) {
            self.ready.push(message);
        }
    }

    /// What may leave now.
    pub(super) fn leave(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.ready)
    }
}

fn promises_nothing(message: &Message) -> bool {
    let kind = message.get_msg_type();
    if is_planted(Bug::AnswerBeforeSync) && kind == MessageType::MsgAppendResponse
        || is_planted(Bug::VoteBeforeSync) && kind == MessageType::MsgRequestVoteResponse
    {
        return true;
    }
    matches!(
        kind,
        MessageType::MsgHeartbeatResponse
            | MessageType::MsgPropose
            | MessageType::MsgReadIndex
            | MessageType::MsgTransferLeader
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: MessageType) -> Message {
        let mut message = Message::default();
        message.set_msg_type(kind);
        message
    }

    fn kinds(outbox: &mut Outbox) -> Vec<MessageType> {
        outbox.leave().iter().map(Message::get_msg_type).collect()
    }

    #[test]
    fn a_follower_holds_back_what_promises_something() {
        let mut outbox = Outbox::default();
        let said = [MessageType::MsgAppendResponse, MessageType::MsgHeartbeatResponse, MessageType::MsgReadIndex];
        outbox.take(1, said.map(message).into(), true, false);
        assert_eq!(kinds(&mut outbox), [MessageType::MsgHeartbeatResponse, MessageType::MsgReadIndex]);
        outbox.take(2, vec![message(MessageType::MsgAppendResponse)], true, false);
        outbox.persisted(1);
        assert_eq!(kinds(&mut outbox), [MessageType::MsgAppendResponse]);
        outbox.persisted(2);
        assert_eq!(kinds(&mut outbox), [MessageType::MsgAppendResponse]);
    }

    #[test]
    fn nothing_leaves_in_a_term_that_is_not_durable() {
        let mut outbox = Outbox::default();
        outbox.take(1, vec![message(MessageType::MsgRequestVote)], true, true);
        outbox.take(2, vec![message(MessageType::MsgHeartbeatResponse)], true, false);
        // A single voter leads before its term is durable.
        outbox.take(3, vec![message(MessageType::MsgAppend)], false, false);
        assert_eq!(kinds(&mut outbox), []);
        outbox.persisted(1);
        assert_eq!(kinds(&mut outbox), [MessageType::MsgRequestVote]);
        outbox.take(4, vec![message(MessageType::MsgHeartbeatResponse)], true, false);
        assert_eq!(kinds(&mut outbox), [MessageType::MsgHeartbeatResponse]);
        outbox.persisted(3);
        assert_eq!(kinds(&mut outbox), [MessageType::MsgHeartbeatResponse, MessageType::MsgAppend]);
    }
}
