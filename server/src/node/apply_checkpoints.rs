//! Apply and its checkpoints: when one is due, hurried, refused, or the last.

use std::sync::mpsc::Receiver;

use basalt_proto::log::request::Kind;
use basalt_storage::mvcc::store::Frozen;
use tokio::sync::oneshot;

use super::apply_thread::{ApplyInput, ApplyThread, CheckpointEnd};
use super::checkpoint_schedule::{CHECKPOINT_INTERVAL, Next};
use super::checkpoint_thread::CheckpointWork;
use super::handle::Unavailable;
use super::node_thread::NodeInput;
use crate::apply::alarms::AlarmKind;
use crate::apply::answer::Refusal;

/// A checkpoint starts when the deltas hold so many revisions, or their share of memory is used up so far, or after so
/// long (DESIGN 3.5).
const CHECKPOINT_ENTRIES: usize = 200_000;

/// A checkpoint is hurried when the next one is due by this share of what starts one, lest that one waits for it.
const HURRY_SHARE: usize = 2;

/// Who asked for a checkpoint.
pub(super) struct CheckpointWaiter {
    pub(super) tidy: bool,
    pub(super) done: oneshot::Sender<Result<bool, Unavailable>>,
}

impl ApplyThread {
    pub(super) fn checkpoint_if_due(&mut self) {
        if self.replacing.under_way {
            return;
        }
        self.checkpoints.forget(|waiter| waiter.done.is_closed());
        let next = self.checkpoints.next(self.links.started.elapsed(), self.deltas_reach(1));
        // Once hurried it is so to its end. What one is about to freeze counts: so much in one interval is a flood.
        let goes_on = self.hurried && !matches!(next, Next::Start);
        self.hurry(goes_on || self.checkpoints.is_awaited() || self.deltas_reach(HURRY_SHARE));
        match next {
            Next::Wait => {}
            Next::Start => self.freeze(),
            Next::Done(waiters) => tell(waiters, Ok(true)),
        }
    }

    /// Whether the deltas hold this share of what starts a checkpoint.
    fn deltas_reach(&self, share: usize) -> bool {
        let store = self.machine.store();
        store.delta_bytes() >= self.links.checkpoint_bytes / share
            || store.delta_entries() >= CHECKPOINT_ENTRIES / share
    }

    /// Whether checkpoints go on without sleep.
    fn hurry(&mut self, hurried: bool) {
        if self.hurried != hurried {
            self.hurried = hurried;
            self.links.checkpoint_pace.set_hurried(hurried);
        }
    }

    fn freeze(&mut self) {
        let mut frozen = self.machine.store_mut().freeze();
        frozen.rewrite_all = self.checkpoints.bound().iter().any(|waiter| waiter.tidy);
        self.publish();
        drop(self.links.checkpoint.send(CheckpointWork::Write(frozen)));
    }

    pub(super) fn checkpointed(&mut self, end: CheckpointEnd) {
        self.file_bytes = end.file_bytes;
        self.live_bytes = end.live_bytes;
        self.machine.store_mut().checkpointed(end.checkpointed);
        self.publish();
        self.show_sizes();
        drop(self.links.node.send(NodeInput::Release(end.applied_index)));
        if !end.tidy {
            self.checkpoints.leave_untidy();
        }
        if self.machine.members().get(self.links.member_id).is_some_and(|member| member.disk_full) {
            self.tell_disk(false);
        }
        tell(self.checkpoints.ended(), Ok(end.tidy));
    }

    pub(super) fn checkpoint_refused(&mut self, frozen: Frozen) {
        self.machine.store_mut().checkpoint_failed(frozen);
        self.publish();
        tell(self.checkpoints.refused(self.links.started.elapsed()), Err(Refusal::NoSpace.into()));
        self.tell_disk(true);
        let members = self.machine.members();
        if members.voters().len() > 1 && members.has_room() && !self.machine.alarms().any(AlarmKind::NoSpace) {
            // One that has room leads from now on, if this one does.
            drop(self.links.node.send(NodeInput::HandOver));
        }
    }

    /// Tells the others whether the disk here has room. If most have none, writes that grow the store are refused until somebody
    /// made room and disarmed the alarm.
    fn tell_disk(&self, is_full: bool) {
        if let Some(description) = self.machine.members().with_disk(self.links.member_id, is_full) {
            self.propose(Kind::MemberDescription(description));
        }
    }

    /// So that the next start has nothing to replay. Not needed for safety: the log has everything.
    pub(super) fn last_checkpoint(mut self, inbox: &Receiver<ApplyInput>) {
        if self.replacing.under_way {
            return;
        }
        self.hurry(true);
        while self.checkpoints.is_unfinished() {
            if self.checkpoints.start_last() {
                self.freeze();
            }
            match inbox.recv_timeout(CHECKPOINT_INTERVAL * 4) {
                Ok(ApplyInput::Checkpointed(checkpoint)) => self.checkpointed(checkpoint),
                Ok(ApplyInput::CheckpointRefused(_)) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

fn tell(waiters: Vec<CheckpointWaiter>, end: Result<bool, Unavailable>) {
    // Whoever gave up needs no telling.
    waiters.into_iter().for_each(|waiter| _ = waiter.done.send(end));
}
