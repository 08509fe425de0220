//! Snapshots: which members need one, what the log must keep for them, and one that takes the place of our own state.

use std::collections::BTreeMap;

use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::planted::{Bug, is_planted};
use raft::prelude::{ConfState, Message, MessageType, Ready, Snapshot};
use raft::{ProgressState, SnapshotStatus};

use super::message_check;
use super::traffic::{Append, CoreError, Output};
use super::{CATCHUP_BYTES_MAX, Core};

/// Entries kept for members that are brought a snapshot, bytes: beyond that the log is cut, and what is on its way is in
/// vain.
const PINNED_BYTES_MAX: usize = 8 * CATCHUP_BYTES_MAX;

/// What the core knows of snapshots.
#[derive(Default)]
pub(super) struct Snapshots {
    /// By member, the entry behind which the log must stay whole; 0 while nobody has made one.
    outgoing: BTreeMap<u64, u64>,
    incoming: Incoming,
}

/// A snapshot for this member.
#[derive(Default)]
enum Incoming {
    #[default]
    None,
    /// It was given to Raft, who may refuse it.
    Received,
    /// It takes the place of the state; what is to be appended behind it waits.
    Installing { number: u64, position: LogPosition, held: Vec<Append> },
    /// It has, and the log is to go on behind it.
    Installed { number: u64, position: LogPosition },
}

impl Core {
    /// Raft asks for what it lacks, again and again: one is made, and another only when that was of no use.
    pub(super) fn want_snapshots(&mut self, outputs: &mut Vec<Output>) {
        for member in self.raft.mut_store().take_wanted() {
            if self.snapshots.outgoing.insert(member, 0) != Some(0) {
                outputs.push(Output::SnapshotWanted(member));
            }
        }
    }

    pub(super) fn offer_snapshot(&mut self, to: u64, snapshot: Snapshot) {
        if let Some(index) = self.snapshots.outgoing.get_mut(&to) {
            *index = snapshot.get_metadata().index;
            self.raft.mut_store().offer(to, snapshot);
        }
    }

    pub(super) fn snapshot_sent(&mut self, to: u64, arrived: bool) {
        let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raft.report_snapshot(to, status);
        if !arrived {
            self.forget_outgoing(to);
        }
    }

    /// Lets go of what members need no more: those that came near the end of the log, that are not heard any more, or all of
    /// them once this member leads no more.
    pub(super) fn tend_snapshots(&mut self) {
        if self.snapshots.outgoing.is_empty() {
            return;
        }
        let raft = &self.raft.raft;
        let leads = self.leads();
        let tail = raft.raft_log.applied.saturating_sub(self.catchup_entries);
        let is_over = |member: u64| {
            let Some(progress) = raft.prs().get(member).filter(|_| leads) else { return true };
            let is_near = progress.state == ProgressState::Replicate && progress.matched >= tail;
            is_near || !progress.recent_active
        };
        let over: Vec<u64> = self.snapshots.outgoing.keys().copied().filter(|member| is_over(*member)).collect();
        over.into_iter().for_each(|member| self.forget_outgoing(member));
    }

    /// Whether this node leads and a voter of its has to get a whole state: where few vote, nothing may be committed until then.
    pub fn is_bringing_up_a_voter(&self) -> bool {
        let voters = self.raft.raft.prs().conf().to_conf_state().voters;
        self.leads() && self.snapshots.outgoing.keys().any(|member| voters.contains(member))
    }

    fn forget_outgoing(&mut self, member: u64) {
        self.snapshots.outgoing.remove(&member);
        self.raft.mut_store().withdraw(member);
    }

    /// The entry behind which the log must stay whole, for members that are being brought up.
    pub(super) fn pinned(&self) -> u64 {
        if self.raft.store().bytes() > PINNED_BYTES_MAX {
            return u64::MAX;
        }
        let raft = &self.raft.raft;
        let reached = |(member, index): (&u64, &u64)| {
            let matched = raft.prs().get(*member).map_or(0, |progress| progress.matched);
            // Nobody has made one yet: it will be of what is applied then.
            if *index == 0 { u64::MAX } else { matched.max(*index) }
        };
        self.snapshots.outgoing.iter().map(reached).min().unwrap_or(u64::MAX)
    }

    /// A snapshot is at hand.
    pub(super) fn received(&mut self, message: Message, outputs: &mut Vec<Output>) -> Result<(), CoreError> {
        let is_busy = !matches!(self.snapshots.incoming, Incoming::None);
        if let Err(cause) = message_check::check_snapshot(&self.raft, &message) {
            outputs.push(Output::Discard);
            outputs.push(Output::Refused { from: message.from, cause });
            return Ok(());
        }
        if is_busy {
            outputs.push(Output::Discard);
            return Ok(());
        }
        self.snapshots.incoming = Incoming::Received;
        match self.raft.step(message) {
            Err(raft::Error::StepPeerNotFound) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Whether a snapshot takes the place of the state. Raft would look for entries that are gone if it campaigned now.
    pub(super) fn is_installing(&self) -> bool {
        matches!(self.snapshots.incoming, Incoming::Installing { .. } | Incoming::Installed { .. })
    }

    /// Takes the snapshot of a ready. What is to be appended from then on waits until it is installed.
    pub(super) fn begin_install(&mut self, ready: &Ready, outputs: &mut Vec<Output>) {
        let metadata = ready.snapshot().get_metadata();
        let position = LogPosition { index: metadata.index, term: metadata.term };
        let conf_state: ConfState = metadata.get_conf_state().clone();
        self.raft.mut_store().restart((position.index, position.term), conf_state);
        // Whether these are in it, nobody here will know: who waits for them times out.
        self.proposed = self.proposed.split_off(&(position.index + 1));
        self.forwarded.forget();
        self.give_back(position, outputs);
        self.snapshots.incoming = Incoming::Installing { number: ready.number(), position, held: Vec::new() };
        outputs.push(Output::Install(position));
    }

    /// Raft took what was received, or it did not.
    pub(super) fn end_received(&mut self, outputs: &mut Vec<Output>) {
        if matches!(self.snapshots.incoming, Incoming::Received) {
            self.snapshots.incoming = Incoming::None;
            outputs.push(Output::Discard);
        }
    }

    /// Hands an append out, or keeps it while a snapshot is installed.
    pub(super) fn append(&mut self, mut append: Append, outputs: &mut Vec<Output>) {
        match &mut self.snapshots.incoming {
            Incoming::Installing { number, position, held } => {
                let restarts = append.number == *number && !is_planted(Bug::LogRestartForgotten);
                append.start_after = restarts.then_some(*position);
                held.push(append);
            }
            _ => outputs.push(Output::Append(append)),
        }
    }

    pub(super) fn installed(&mut self, outputs: &mut Vec<Output>) {
        if let Incoming::Installing { number, position, held } = std::mem::take(&mut self.snapshots.incoming) {
            self.snapshots.incoming = Incoming::Installed { number, position };
            outputs.extend(held.into_iter().map(Output::Append));
        }
    }

    /// Append `number` is durable: perhaps that which the log restarts with.
    pub(super) fn snapshot_persisted(&mut self, number: u64) {
        if let Incoming::Installed { number: waits_for, position } = self.snapshots.incoming
            && waits_for <= number
        {
            self.snapshots.incoming = Incoming::None;
            self.applied(position.index);
        }
    }
}

/// Whether a message is to go with its snapshot.
pub(super) fn is_snapshot(message: &Message) -> bool {
    message.get_msg_type() == MessageType::MsgSnapshot
}
