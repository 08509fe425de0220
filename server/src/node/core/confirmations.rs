//! At the leader: what members ask before they read (ReadIndex). A quorum is asked once for all questions that came together,
//! its own among them; those that come meanwhile wait for the next time.
//!
//! Without this each question costs a heartbeat to every member and its answer.

use basalt_storage::planted::{Bug, is_planted};
use raft::prelude::{Entry, Message, MessageType};

use super::Core;
use super::reads::ASK_AGAIN_TICKS;

/// Questions that may wait. A member has one at a time; of more one is lost, and asked again.
const QUESTIONS_MAX: usize = 1024;

/// What a member asked; this one, if it is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) from: u64,
    /// By which the member knows it again.
    pub(super) context: Vec<u8>,
}

struct Asked {
    context: Vec<u8>,
    questions: Vec<Question>,
    ticks: u32,
}

/// Questions, and what a quorum is asked for them.
pub(super) struct Confirmations {
    life: u64,
    count: u64,
    waiting: Vec<Question>,
    asked: Option<Asked>,
}

impl Confirmations {
    /// None yet. `life` is drawn for this life of the node: no context is used twice.
    pub(super) fn new(life: u64) -> Self {
        Self { life, count: 0, waiting: Vec::new(), asked: None }
    }

    /// A member asks, perhaps once more.
    pub(super) fn add(&mut self, question: Question) {
        if is_planted(Bug::QuestionJoinsConfirmation)
            && let Some(asked) = &mut self.asked
        {
            return asked.questions.push(question);
        }
        let is_asked = |questions: &[Question]| questions.contains(&question);
        if self.waiting.len() < QUESTIONS_MAX
            && !is_asked(&self.waiting)
            && !self.asked.as_ref().is_some_and(|asked| is_asked(&asked.questions))
        {
            self.waiting.push(question);
        }
    }

    /// Whether [`Self::ask`] gives something.
    pub(super) fn is_due(&self) -> bool {
        self.asked.is_none() && !self.waiting.is_empty()
    }

    /// What a quorum is to be asked now.
    pub(super) fn ask(&mut self) -> Option<Vec<u8>> {
        if !self.is_due() {
            return None;
        }
        self.count += 1;
        let context = [self.life.to_le_bytes(), self.count.to_le_bytes()].concat();
        let questions = std::mem::take(&mut self.waiting);
        self.asked = Some(Asked { context: context.clone(), questions, ticks: 0 });
        Some(context)
    }

    /// Time passes; gives what a quorum is to be asked again.
    pub(super) fn tick(&mut self) -> Option<Vec<u8>> {
        let asked = self.asked.as_mut()?;
        asked.ticks += 1;
        asked.ticks.is_multiple_of(ASK_AGAIN_TICKS).then(|| asked.context.clone())
    }

    /// A quorum answered: gives the questions that are answered by that.
    pub(super) fn confirmed(&mut self, context: &[u8]) -> Vec<Question> {
        self.asked.take_if(|asked| asked.context == context).map(|asked| asked.questions).unwrap_or_default()
    }

    /// This member leads no more, or in another term: whoever asked asks the next leader.
    pub(super) fn forget(&mut self) {
        (self.waiting, self.asked) = (Vec::new(), None);
    }
}

impl Core {
    /// Whether [`Self::ask_for_reads`] asks somebody something.
    pub(super) fn asks_for_reads(&self) -> bool {
        (self.may_confirm() && self.confirmations.is_due())
            || (self.leader() != raft::INVALID_ID && self.reads.is_due())
    }

    /// Reads that wait ask the leader, and a leader asks a quorum.
    pub(super) fn ask_for_reads(&mut self) {
        if self.leader() != raft::INVALID_ID
            && let Some(context) = self.reads.ask()
        {
            self.ask_leader(context);
        }
        if self.may_confirm()
            && let Some(context) = self.confirmations.ask()
        {
            self.raft.read_index(context);
        }
    }

    /// A leader that has committed nothing in its term yet cannot say what is committed.
    fn may_confirm(&self) -> bool {
        self.leads() && self.raft.raft.commit_to_current_term()
    }

    pub(super) fn ask_leader(&mut self, context: Vec<u8>) {
        if self.leads() {
            self.confirmations.add(Question { from: self.member_id, context });
        } else if self.leader() != raft::INVALID_ID {
            self.raft.read_index(context);
        }
    }

    /// A quorum confirmed that this member leads: gives the answers to the others that asked.
    pub(super) fn confirmed(&mut self, context: &[u8], index: u64) -> Vec<Message> {
        let mut answers = Vec::new();
        for Question { from, context } in self.confirmations.confirmed(context) {
            if from == self.member_id {
                self.reads.answered(&context, index);
                continue;
            }
            let (term, entries) = (self.raft.raft.term, vec![Entry { data: context, ..Entry::default() }]);
            let mut answer = Message { from: self.member_id, to: from, term, index, entries, ..Message::default() };
            answer.set_msg_type(MessageType::MsgReadIndexResp);
            answers.push(answer);
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(from: u64, context: u8) -> Question {
        Question { from, context: vec![context] }
    }

    #[test]
    fn a_question_is_never_answered_by_what_was_asked_before_it() {
        let mut confirmations = Confirmations::new(7);
        assert_eq!(confirmations.ask(), None);
        confirmations.add(question(1, 1));
        confirmations.add(question(2, 1));
        let first = confirmations.ask().expect("two wait");
        confirmations.add(question(3, 9));
        assert_eq!((confirmations.is_due(), confirmations.ask()), (false, None));
        assert_eq!(confirmations.confirmed(b"other"), []);
        assert_eq!(confirmations.confirmed(&first), [question(1, 1), question(2, 1)]);
        let second = confirmations.ask().expect("the third waits");
        assert_eq!(confirmations.confirmed(&first), []);
        assert_eq!(confirmations.confirmed(&second), [question(3, 9)]);
    }

    #[test]
    fn who_asks_again_is_answered_once() {
        let mut confirmations = Confirmations::new(7);
        confirmations.add(question(1, 1));
        confirmations.add(question(1, 1));
        let context = confirmations.ask().expect("one waits");
        confirmations.add(question(1, 1));
        let again: Vec<_> = (0..ASK_AGAIN_TICKS).filter_map(|_| confirmations.tick()).collect();
        assert_eq!(again, std::slice::from_ref(&context));
        assert_eq!(confirmations.confirmed(&context), [question(1, 1)]);
        assert_eq!(confirmations.ask(), None);
    }

    #[test]
    fn questions_are_bounded() {
        let mut confirmations = Confirmations::new(7);
        let many = u32::try_from(QUESTIONS_MAX).expect("few") + 5;
        (0..many).for_each(|at| confirmations.add(Question { from: 1, context: at.to_le_bytes().to_vec() }));
        let context = confirmations.ask().expect("they wait");
        assert_eq!(confirmations.confirmed(&context).len(), QUESTIONS_MAX);
    }

    #[test]
    fn who_leads_no_more_answers_nobody() {
        let mut confirmations = Confirmations::new(7);
        confirmations.add(question(1, 1));
        let context = confirmations.ask().expect("one waits");
        confirmations.add(question(2, 2));
        confirmations.forget();
        assert_eq!(confirmations.confirmed(&context), []);
        assert_eq!(confirmations.ask(), None);
    }
}
