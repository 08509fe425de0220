//! The log thread: makes appends durable, as many as have come with one sync, and keeps segments prepared and recycled.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use basalt_storage::disk::{Disk, Io, IoOutput};
use basalt_storage::job::{BUDGET_UNLIMITED, run};
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::wal::{Entry, HardState, Log, Record, WalError};
use bytes::Bytes;
use tracing::warn;

use super::core::Append;
use super::fatal;
use super::node_thread::{LogInput, NodeInput};
use crate::failpoints::{self, Point};
use crate::metrics::Metrics;

/// After the disk was too full to prepare a segment: longer than a checkpoint waits, which may free something.
const PREPARE_RETRY: Duration = Duration::from_secs(30);
/// A sync that takes longer is logged (etcd `warnSyncDuration`).
const SLOW_SYNC: Duration = Duration::from_secs(1);

/// Works until told to stop. `outbox` leads back here: segments are prepared on a thread of their own.
pub fn serve(
    mut log: Log,
    disk: &Arc<dyn Disk>,
    (outbox, inbox): (&Sender<LogInput>, &Receiver<LogInput>),
    node: &Sender<NodeInput>,
    manifest_generation: &AtomicU64,
    metrics: &Metrics,
) {
    let fail = |cause: WalError| -> ! { fatal::stop("writing the log", &cause) };
    let mut prepare_due = Instant::now();
    let mut preparing = prepare(&mut log, disk, outbox);
    // Came behind appends, and has its turn after them.
    let mut next = None;
    while let Some(input) = next.take().or_else(|| inbox.recv().ok()) {
        match input {
            LogInput::Append(append) => {
                failpoints::hit(Point::RaftBeforeSave);
                let started = Instant::now();
                let mut number = append.number;
                let mut gather = |append: Append| {
                    let records = records(append, log.last_index());
                    let generation = manifest_generation.load(Ordering::Acquire);
                    log.append(records, generation).unwrap_or_else(|cause| fail(cause));
                };
                gather(append);
                // A follower is sent many while one is synced: one sync for all of them.
                while let Ok(more) = inbox.try_recv() {
                    let LogInput::Append(append) = more else {
                        next = Some(more);
                        break;
                    };
                    number = append.number;
                    gather(append);
                }
                metrics.wal_write_bytes.add(i64::try_from(log.gathered_bytes()).unwrap_or(i64::MAX));
                failpoints::hit(Point::WalBeforeSync);
                while let Some(mut batch) = log.start_batch() {
                    let timed = WriteTimes { disk: &**disk, metrics };
                    let durable = run(&mut batch, &timed, BUDGET_UNLIMITED).unwrap_or_else(|cause| fail(cause));
                    log.finish_batch(&durable);
                }
                failpoints::hit(Point::WalAfterSync);
                let took = started.elapsed();
                if took > SLOW_SYNC {
                    warn!(?took, expected_duration = ?SLOW_SYNC, "slow fdatasync");
                }
                metrics.wal_fsync_seconds.observe(took.as_secs_f64());
                metrics.log_syncs.observe(took);
                failpoints::hit(Point::RaftAfterSave);
                // The node thread is gone only when the process is about to be.
                drop(node.send(NodeInput::Persisted(number)));
                if Instant::now() >= prepare_due {
                    preparing = prepare(&mut log, disk, outbox).or(preparing);
                }
            }
            LogInput::Prepared(prepared) => log.finish_prepare(prepared),
            LogInput::NotPrepared => {
                log.give_up_prepare();
                prepare_due = Instant::now() + PREPARE_RETRY;
            }
            LogInput::Stop => break,
            LogInput::Release(index) => {
                if let Some(mut job) = log.recycle_below(index) {
                    let recycled = run(&mut job, &**disk, BUDGET_UNLIMITED).unwrap_or_else(|cause| fail(cause));
                    log.finish_recycle(recycled);
                    failpoints::hit(Point::RaftAfterWalRelease);
                }
            }
        }
    }
    // It writes to the directory, which whoever stops the node may take away.
    if let Some(thread) = preparing {
        drop(thread.join());
    }
}

/// The disk under the log, with its writes timed.
struct WriteTimes<'a> {
    disk: &'a dyn Disk,
    metrics: &'a Metrics,
}

impl Disk for WriteTimes<'_> {
    fn perform(&self, request: Io) -> io::Result<IoOutput> {
        if !matches!(request, Io::Write { .. }) {
            return self.disk.perform(request);
        }
        let began = Instant::now();
        let written = self.disk.perform(request);
        self.metrics.wal_write_seconds.observe(began.elapsed().as_secs_f64());
        written
    }
}

/// Has the next segment made in the background, unless one is ready or in the making: a batch that had to make its own
/// would wait for it. No space for it is no failure: a batch may still fit the segment that is there, or a small one. Gives
/// the thread that does it.
fn prepare(log: &mut Log, disk: &Arc<dyn Disk>, outbox: &Sender<LogInput>) -> Option<JoinHandle<()>> {
    let mut job = log.prepare()?;
    let (disk, outbox) = (disk.clone(), outbox.clone());
    let work = move || {
        let input = match run(&mut job, &*disk, BUDGET_UNLIMITED) {
            Ok(prepared) => LogInput::Prepared(prepared),
            Err(cause @ WalError::NoSpace { .. }) => {
                warn!(error = %cause, "no space to prepare a log segment: free some, or the log stops the node soon");
                job.give_up().into_iter().for_each(|io| drop(disk.perform(io)));
                LogInput::NotPrepared
            }
            Err(cause) => fatal::stop("preparing a log segment", &cause),
        };
        // The log thread is gone only when the process is about to be.
        drop(outbox.send(input));
    };
    let spawned = std::thread::Builder::new().name("basalt-segment".to_owned()).spawn(work);
    Some(spawned.unwrap_or_else(|cause| fatal::stop("starting a thread", &cause)))
}

/// The append in the log's words. Entries that replace others cut these off first.
pub fn records(append: Append, last_index: u64) -> Vec<Record> {
    let start = append.start_after.map(|LogPosition { index, term }| Record::StartAfter { index, term });
    let last_index = append.start_after.map_or(last_index, |position| position.index);
    let first = append.entries.first().map(|entry| entry.index);
    let cut = first.filter(|first| *first <= last_index).map(|index| Record::TruncateFrom { index });
    let hard_state = append
        .hard_state
        .map(|state| Record::HardState(HardState { term: state.term, vote: state.vote, commit: state.commit }));
    let entries = append.entries.into_iter().map(|entry| {
        let kind = u8::try_from(entry.entry_type).expect("raft has three entry types");
        Record::Entry(Entry { index: entry.index, term: entry.term, kind, data: Bytes::from(entry.data) })
    });
    start.into_iter().chain(cut).chain(entries).chain(hard_state).collect()
}
