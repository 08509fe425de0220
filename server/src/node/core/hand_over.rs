//! A leader that is about to stop, or has a slow disk, has another member lead: who answers, and has most of the log.
//!
//! Whose connection is known to be down is asked last, and given up at once when it goes down amid the change: Raft alone
//! would wait an election timeout for it, in which nothing is ordered.

use std::cmp::Reverse;

use raft::ProgressState;

use super::Core;

impl Core {
    /// Has whoever is fit lead because this member stops; if that one goes, the next.
    pub(super) fn hand_over_for_good(&mut self) {
        self.stops_in_term = Some(self.raft.raft.term);
        self.hand_over();
    }

    /// Has whoever is fit lead; gives whom, if there is one and this member leads.
    pub(super) fn hand_over(&mut self) -> Option<u64> {
        self.hand_over_but_to(None)
    }

    fn hand_over_but_to(&mut self, gone: Option<u64>) -> Option<u64> {
        let raft = &self.raft.raft;
        let voters = &raft.prs().conf().to_conf_state().voters;
        let fit = raft.prs().iter().filter(|(id, progress)| {
            **id != self.member_id && Some(**id) != gone && progress.recent_active && voters.contains(id)
        });
        // Of those with equal logs the one with the lowest id: a map has no order of its own.
        let best = fit
            .max_by_key(|(id, progress)| (progress.state == ProgressState::Replicate, progress.matched, Reverse(**id)));
        let member = best.map(|(id, _)| *id).filter(|_| self.leads())?;
        self.raft.transfer_leader(member);
        Some(member)
    }

    /// A connection to a member is down.
    pub(super) fn unreachable(&mut self, member: u64) {
        self.raft.report_unreachable(member);
        let raft = &mut self.raft.raft;
        if raft.lead_transferee == Some(member) && self.stops_in_term == Some(raft.term) {
            raft.abort_leader_transfer();
            self.hand_over_but_to(Some(member));
        }
    }
}

#[cfg(test)]
mod tests {
    use raft::prelude::{Message, MessageType};

    use super::super::tests::{one_of, outputs};
    use super::super::{Input, Output};
    use super::*;

    const OWN: u64 = 7;

    /// What a member says that agrees and has every entry.
    fn answer(message: &Message) -> Option<Message> {
        let (kind, index) = match message.get_msg_type() {
            MessageType::MsgRequestPreVote => (MessageType::MsgRequestPreVoteResponse, 0),
            MessageType::MsgRequestVote => (MessageType::MsgRequestVoteResponse, 0),
            MessageType::MsgAppend => (MessageType::MsgAppendResponse, message.index + message.entries.len() as u64),
            MessageType::MsgHeartbeat => (MessageType::MsgHeartbeatResponse, 0),
            _ => return None,
        };
        let mut answer = Message { from: message.to, to: OWN, term: message.term, index, ..Message::default() };
        answer.set_msg_type(kind);
        Some(answer)
    }

    /// Takes an input, makes durable what follows from it, and has the others agree; gives all that was said to them.
    fn converse(core: &mut Core, input: Input) -> Vec<Message> {
        let (mut inputs, mut said) = (vec![input], Vec::new());
        while let Some(input) = inputs.pop() {
            for output in outputs(core, input) {
                match output {
                    Output::Append(append) => inputs.push(Input::Persisted(append.number)),
                    Output::Send(messages) => {
                        inputs
                            .extend(messages.iter().filter_map(answer).map(|answer| Input::Message(Box::new(answer))));
                        said.extend(messages);
                    }
                    _ => {}
                }
            }
        }
        said
    }

    /// Whom it told to lead.
    fn asked_to_lead(said: &[Message]) -> Vec<u64> {
        let asks = |message: &&Message| message.get_msg_type() == MessageType::MsgTimeoutNow;
        said.iter().filter(asks).map(|message| message.to).collect()
    }

    /// Leads two others, of whom both have all there is.
    fn leader() -> Core {
        let mut core = one_of(&[OWN, 8, 9]);
        for _ in 0..100 {
            if core.leads() {
                break;
            }
            converse(&mut core, Input::Tick);
        }
        converse(&mut core, Input::Tick);
        assert!(core.leads(), "nobody else wants to");
        core
    }

    #[test]
    fn who_answers_is_asked_before_whose_connection_is_down() {
        assert_eq!(asked_to_lead(&converse(&mut leader(), Input::HandOver)), [8]);
        let mut core = leader();
        converse(&mut core, Input::Unreachable(8));
        assert_eq!(asked_to_lead(&converse(&mut core, Input::HandOver)), [9]);
        let mut core = leader();
        for member in [8, 9] {
            converse(&mut core, Input::Unreachable(member));
        }
        assert_eq!(asked_to_lead(&converse(&mut core, Input::HandOver)), [8], "it may be wrong");
    }

    #[test]
    fn who_goes_amid_a_hand_over_is_given_up_at_once() {
        let mut core = leader();
        assert_eq!(asked_to_lead(&converse(&mut core, Input::HandOver)), [8]);
        assert!(asked_to_lead(&converse(&mut core, Input::Unreachable(9))).is_empty(), "it was not asked");
        let mut core = leader();
        converse(&mut core, Input::HandOver);
        assert_eq!(asked_to_lead(&converse(&mut core, Input::Unreachable(8))), [9]);
        // Whom a client named is not exchanged for another.
        let mut core = leader();
        assert_eq!(asked_to_lead(&converse(&mut core, Input::Transfer(8))), [8]);
        assert!(asked_to_lead(&converse(&mut core, Input::Unreachable(8))).is_empty());
    }
}
