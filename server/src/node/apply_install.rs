//! Apply, when the state of another member takes the place of its own.

use std::sync::atomic::Ordering;

use basalt_storage::checkpoint::Filled;
use basalt_storage::mvcc::store::Store;
use tracing::info;

use super::apply_thread::ApplyThread;
use super::checkpoint_thread::CheckpointWork;
use super::node_thread::NodeInput;
use super::read_ahead::ReadAhead;
use crate::apply::machine::Machine;
use crate::watch;

/// A state that was installed.
pub struct InstalledState {
    /// The state.
    pub store: Store,
    /// Bytes of page files.
    pub file_bytes: u64,
    /// Stored bytes of revisions not marked dead.
    pub live_bytes: u64,
    /// Whether no leaf waits to be rewritten.
    pub tidy: bool,
}

/// What is left of the state before.
#[derive(Default)]
pub(super) struct Replacing {
    /// Whether another state is being installed: nothing is applied or checkpointed meanwhile.
    pub under_way: bool,
    /// Values that are being read for entries that will never be applied.
    pub stale_reads: usize,
}

impl ApplyThread {
    /// Begins to install. What is held was of the state before: it is in the new one.
    pub(super) fn begin_install(&mut self, filled: Filled) {
        self.replacing.under_way = true;
        self.links.metrics.snapshot_apply_in_progress.set(1);
        self.held.clear();
        if matches!(std::mem::take(&mut self.read_ahead), ReadAhead::Running) {
            self.replacing.stale_reads += 1;
        }
        // The checkpoint thread is gone only when the process is about to be.
        drop(self.links.checkpoint.send(CheckpointWork::Install(Box::new(filled))));
    }

    /// The manifest names the new state.
    pub(super) fn installed(&mut self, installed: InstalledState) {
        let InstalledState { store, file_bytes, live_bytes, tidy } = installed;
        (self.file_bytes, self.live_bytes) = (file_bytes, live_bytes);
        self.machine = Machine::new(store);
        self.replacing.under_way = false;
        self.links.metrics.snapshot_apply_in_progress.set(0);
        self.show_every_alarm();
        self.marks.forget();
        let now = self.links.started.elapsed();
        if !tidy {
            self.checkpoints.leave_untidy();
        }
        if self.machine.store().is_sweeping() {
            self.compactions.begin(now);
        }
        self.links.auth.replaced();
        let view = self.publish();
        let members = self.machine.members();
        self.links.members.store(members.clone());
        drop(self.links.node.send(NodeInput::ApplyVersion(members.apply_version())));
        self.links.metrics.apply_version.set(members.apply_version().into());
        let (revision, compact_revision) = (view.revision, view.compact_revision);
        // Watchers are told from history what they lack.
        drop(self.links.watches.send(watch::Input::Restored { revision, compact_revision }));
        self.links.gauges.applied_index.store(view.applied.index, Ordering::Relaxed);
        self.show_sizes();
        self.tell_compacted();
        info!(applied_index = view.applied.index, revision, "applied snapshot");
        drop(self.links.node.send(NodeInput::Installed));
    }
}
