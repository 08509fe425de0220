//! Linearizable reads: one question to the leader for all that came together, and then a wait for apply.
//!
//! ```text
//!   waiting ─► asked: one batch, one context ─► index known ─► applied that far ─► ready
//! ```
//!
//! * A read joins a batch that is asked after it came, never one that is under way.
//! * A context is never used twice, also not in two lives: a late answer must not meet a new question.
//! * The crate drops questions without a word, so one that stays open is asked again.

use std::collections::VecDeque;

use basalt_storage::planted::{Bug, is_planted};

/// Ticks after which a question is asked again (etcd: 500 ms): the crate drops what it cannot answer yet, and messages get lost.
pub(super) const ASK_AGAIN_TICKS: u32 = 5;

/// Reads by how far they have come.
pub(super) struct Reads {
    life: u64,
    batches: u64,
    waiting: Vec<u64>,
    asked: Option<Asked>,
    /// By the index that apply must reach. Later batches have no lower one.
    applying: VecDeque<(u64, Vec<u64>)>,
    applied: u64,
}

struct Asked {
    context: Vec<u8>,
    reads: Vec<u64>,
    ticks: u32,
}

impl Reads {
    /// None yet. `life` is drawn for this life of the node.
    pub(super) fn new(life: u64, applied: u64) -> Self {
        Self { life, batches: 0, waiting: Vec::new(), asked: None, applying: VecDeque::new(), applied }
    }

    pub(super) fn add(&mut self, read: u64) {
        match &mut self.asked {
            Some(asked) if is_planted(Bug::ReadJoinsQuestion) => asked.reads.push(read),
            _ => self.waiting.push(read),
        }
    }

    /// Whether a question is under way.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether [`Self::ask`] gives something.
    pub(super) fn is_due(&self) -> bool {
        self.asked.is_none() && !self.waiting.is_empty()
    }

    /// The context of a question to be asked now, if a batch is due. To be called when a leader is known.
    pub(super) fn ask(&mut self) -> Option<Vec<u8>> {
        if !self.is_due() {
            return None;
        }
        self.batches += 1;
        let context = [self.life.to_le_bytes(), self.batches.to_le_bytes()].concat();
        let reads = std::mem::take(&mut self.waiting);
        self.asked = Some(Asked { context: context.clone(), reads, ticks: 0 });
        Some(context)
    }

    /// Time passes; gives the context of a question to be asked again.
    pub(super) fn tick(&mut self) -> Option<Vec<u8>> {
        let asked = self.asked.as_mut()?;
        asked.ticks += 1;
        asked.ticks.is_multiple_of(ASK_AGAIN_TICKS).then(|| asked.context.clone())
    }

    /// A question was answered: everything up to `index` had been acknowledged.
    pub(super) fn answered(&mut self, context: &[u8], index: u64) {
        if let Some(asked) = self.asked.take_if(|asked| asked.context == context) {
            self.applying.push_back((index, asked.reads));
        }
    }

    /// The leader is gone: its answers may never come. Gives the reads that waited for them.
    pub(super) fn leader_changed(&mut self) -> Vec<u64> {
        if is_planted(Bug::ReadOfFormerLeader)
            && let Some(asked) = self.asked.take()
        {
            let confirmed = self.applying.back().map_or(0, |(index, _)| *index);
            self.applying.push_back((confirmed, asked.reads));
        }
        self.asked.take().map(|asked| asked.reads).unwrap_or_default()
    }

    pub(super) fn applied(&mut self, index: u64) {
        self.applied = self.applied.max(index);
    }

    /// Reads that may go on.
    pub(super) fn ready(&mut self) -> Vec<u64> {
        let applied = if is_planted(Bug::ReadBeforeApply) { u64::MAX } else { self.applied };
        let mut ready = Vec::new();
        while let Some((_, reads)) = self.applying.pop_front_if(|(index, _)| *index <= applied) {
            ready.extend(reads);
        }
        ready
    }

    /// Forgets reads that nobody waits for.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(u64) -> bool) {
        self.waiting.retain(|read| keep(*read));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_never_answered_by_a_question_asked_before_it() {
        let mut reads = Reads::new(7, 10);
        reads.add(1);
        let first = reads.ask().expect("one waits");
        reads.add(2);
        assert_eq!(reads.ask(), None);
        reads.answered(&first, 12);
        assert!(reads.ready().is_empty());
        let second = reads.ask().expect("the other waits");
        reads.answered(&first, 12);
        reads.applied(12);
        assert_eq!(reads.ready(), [1]);
        reads.answered(&second, 12);
        assert_eq!(reads.ready(), [2]);
    }

    #[test]
    fn a_lost_question_is_asked_again_and_fails_with_its_leader() {
        let mut reads = Reads::new(7, 0);
        assert_eq!(reads.tick(), None);
        reads.add(1);
        let context = reads.ask().expect("one waits");
        let again: Vec<_> = (0..ASK_AGAIN_TICKS).filter_map(|_| reads.tick()).collect();
        assert_eq!(again, std::slice::from_ref(&context));
        assert_eq!(reads.leader_changed(), [1]);
        reads.answered(&context, 1);
        reads.applied(1);
        assert!(reads.ready().is_empty());
        assert_ne!(Reads::new(8, 0).ask(), Some(context));
    }
}
