//! The log thread: makes appends durable, one batch after another, and keeps segments prepared and recycled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use basalt_storage::disk::Disk;
use basalt_storage::job::{BUDGET_UNLIMITED, run};
use basalt_storage::wal::{Entry, HardState, Log, Record, WalError};
use bytes::Bytes;

use super::core::Append;
use super::fatal;
use super::node_thread::{LogInput, NodeInput};
use crate::metrics::Metrics;

/// Works until the node thread is gone.
pub fn serve(
    mut log: Log,
    disk: &Arc<dyn Disk>,
    inbox: &Receiver<LogInput>,
    node: &Sender<NodeInput>,
    manifest_generation: &AtomicU64,
    metrics: &Metrics,
) {
    let fail = |cause: WalError| -> ! { fatal::stop("writing the log", &cause) };
    while let Ok(input) = inbox.recv() {
        match input {
            LogInput::Append(append) => {
                let number = append.number;
                let records = records(append, log.last_index());
                let started = Instant::now();
                log.append(records, manifest_generation.load(Ordering::Acquire)).unwrap_or_else(|cause| fail(cause));
                while let Some(mut batch) = log.start_batch() {
                    let durable = run(&mut batch, &**disk, BUDGET_UNLIMITED).unwrap_or_else(|cause| fail(cause));
                    log.finish_batch(&durable);
                }
                metrics.wal_fsync_seconds.observe(started.elapsed().as_secs_f64());
                // The node thread is gone only when the process is about to be.
                drop(node.send(NodeInput::Persisted(number)));
            }
            LogInput::Release(index) => {
                if let Some(mut job) = log.recycle_below(index) {
                    let recycled = run(&mut job, &**disk, BUDGET_UNLIMITED).unwrap_or_else(|cause| fail(cause));
                    log.finish_recycle(recycled);
                }
            }
        }
    }
}

/// The append in the log's words. Entries that replace others cut these off first.
fn records(append: Append, last_index: u64) -> Vec<Record> {
    let first = append.entries.first().map(|entry| entry.index);
    let cut = first.filter(|first| *first <= last_index).map(|index| Record::TruncateFrom { index });
    let hard_state = append
        .hard_state
        .map(|state| Record::HardState(HardState { term: state.term, vote: state.vote, commit: state.commit }));
    let entries = append.entries.into_iter().map(|entry| {
        let kind = u8::try_from(entry.entry_type).expect("raft has three entry types");
        Record::Entry(Entry { index: entry.index, term: entry.term, kind, data: Bytes::from(entry.data) })
    });
    cut.into_iter().chain(entries).chain(hard_state).collect()
}
