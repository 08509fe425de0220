//! What was seen beside what.

/// How often work was seen beside other work, and how often some of it ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overlaps {
    /// Entries applied between two steps of a checkpoint.
    pub applied_in_checkpoint: usize,
    /// Entries applied while a sync of a checkpoint had not returned.
    pub applied_in_checkpoint_sync: usize,
    /// Entries applied while a sync of the log had not returned.
    pub applied_in_log_sync: usize,
    /// Entries applied between two steps of a compaction.
    pub applied_in_sweep: usize,
    /// Steps of a compaction between two steps of a checkpoint.
    pub swept_in_checkpoint: usize,
    /// Entries applied between two steps of a snapshot.
    pub applied_in_snapshot: usize,
    /// Requests whose leader was gone before it ordered them, and that went to the next one.
    pub asked_again: usize,
    /// Compactions whose last step was taken.
    pub compactions: usize,
    /// Checkpoints that ended.
    pub checkpoints: usize,
    /// Defragmentations that ended.
    pub defragmentations: usize,
    /// Checkpoints after which the page files were shorter than before.
    pub shrinks: usize,
    /// Checkpoints that were refused because the disk was full.
    pub refusals: usize,
    /// Log segments that were not prepared because the disk was full.
    pub unprepared: usize,
    /// Log segments that ended and were given up.
    pub recycles: usize,
    /// Snapshots that were taken whole.
    pub snapshots: usize,
    /// Leases that ended by themselves.
    pub expired: usize,
}
