//! The checkpoint thread: performs one checkpoint job after another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use arc_swap::ArcSwap;
use basalt_storage::checkpoint::manifest::Manifest;
use basalt_storage::checkpoint::recovery::Opened;
use basalt_storage::checkpoint::{Checkpoint, CheckpointError, Checkpointer, Filled, RESERVE_BYTES, Reserve};
use basalt_storage::disk::Disk;
use basalt_storage::mvcc::store::Frozen;
use basalt_storage::pages::PageCache;
use tracing::{debug, warn};

use super::apply_thread::{ApplyInput, CheckpointEnd, InstalledState};
use super::fatal;
use super::pace::Pace;
use crate::failpoints::{self, Point};
use crate::metrics::Metrics;

/// Units of work between two looks at the pace.
const STEP_BUDGET: usize = 256;

/// What the checkpoint thread is to do.
pub enum CheckpointWork {
    /// Write a checkpoint.
    Write(Frozen),
    /// Make the state of another member this one's.
    Install(Box<Filled>),
}

/// Whom the checkpoint thread tells, and by what it works.
pub struct CheckpointLinks {
    /// Hears of every end.
    pub apply: Sender<ApplyInput>,
    /// How fast it goes.
    pub pace: Arc<Pace>,
    /// The generation of the last manifest, for the log.
    pub generation: Arc<AtomicU64>,
    /// The last manifest, for a state that is received beside it.
    pub manifest: Arc<ArcSwap<Manifest>>,
    /// Pages of all files.
    pub cache: Arc<PageCache>,
    /// Figures.
    pub metrics: Arc<Metrics>,
}

/// Works until nobody freezes any more. `checkpointer` is at home here, but while a checkpoint waits for apply.
pub fn serve(
    mut checkpointer: Checkpointer,
    disk: &Arc<dyn Disk>,
    inbox: &Receiver<CheckpointWork>,
    links: &CheckpointLinks,
) {
    let CheckpointLinks { apply, pace, metrics, .. } = links;
    let mut reserve = Reserve::new(RESERVE_BYTES);
    hold(&mut reserve, &**disk);
    show(&checkpointer, metrics);
    while let Ok(work) = inbox.recv() {
        let frozen = match work {
            CheckpointWork::Write(frozen) => frozen,
            CheckpointWork::Install(filled) => {
                let Some(next) = install(checkpointer, disk, *filled, links) else { return };
                checkpointer = next;
                continue;
            }
        };
        failpoints::hit(Point::RaftBeforeSaveSnap);
        failpoints::hit(Point::BeforeCommit);
        let started = Instant::now();
        let applied = frozen.applied;
        let mut job = checkpointer.begin(frozen);
        let ended = match pace.run(&mut job, &**disk, STEP_BUDGET) {
            Ok((Checkpoint { checkpointer: next, checkpointed, entries, tidy }, work)) => {
                checkpointer = next;
                failpoints::hit(Point::AfterCommit);
                failpoints::hit(Point::RaftAfterSaveSnap);
                let elapsed = started.elapsed();
                metrics.checkpoint_seconds.observe(elapsed.as_secs_f64());
                // What etcd's backend commits, a checkpoint makes durable here. Its sleeps say nothing of the disk.
                metrics.backend_commit_seconds.observe(work.as_secs_f64());
                let (elapsed_ms, work_ms) = (elapsed.as_millis() as u64, work.as_millis() as u64);
                debug!(applied_index = applied.index, entries, elapsed_ms, work_ms, "checkpoint written");
                hold(&mut reserve, &**disk);
                remove_retired(&mut checkpointer, &**disk);
                publish(&checkpointer, links);
                ApplyInput::Checkpointed(CheckpointEnd {
                    checkpointed,
                    applied_index: applied.index,
                    file_bytes: checkpointer.file_bytes(),
                    live_bytes: checkpointer.live_bytes(),
                    tidy,
                })
            }
            Err(CheckpointError::NoSpace { checkpointer: given_back, frozen, cause }) => {
                warn!(error = %cause, "no space for a checkpoint: puts are refused until there is room and the alarm is disarmed");
                metrics.checkpoint_failures_total.inc();
                release(&mut reserve, &**disk);
                checkpointer = *given_back;
                ApplyInput::CheckpointRefused(frozen)
            }
            Err(cause) => fatal::stop("writing a checkpoint", &cause),
        };
        if apply.send(ended).is_err() {
            return;
        }
    }
}

/// Makes a state of another member this one's; `None` if nobody wants to know any more.
fn install(
    checkpointer: Checkpointer,
    disk: &Arc<dyn Disk>,
    filled: Filled,
    links: &CheckpointLinks,
) -> Option<Checkpointer> {
    failpoints::hit(Point::RaftBeforeApplySnap);
    failpoints::hit(Point::ApplyBeforeOpenSnapshot);
    let installed = checkpointer.install(&**disk, &links.cache, filled);
    let Opened { store, checkpointer, .. } =
        installed.unwrap_or_else(|cause| fatal::stop("installing the state of another member", &cause));
    failpoints::hit(Point::ApplyAfterOpenSnapshot);
    publish(&checkpointer, links);
    failpoints::hit(Point::RaftAfterApplySnap);
    let installed = InstalledState {
        store,
        file_bytes: checkpointer.file_bytes(),
        live_bytes: checkpointer.live_bytes(),
        tidy: checkpointer.is_tidy(false),
    };
    links.apply.send(ApplyInput::Installed(Box::new(installed))).ok().map(|()| checkpointer)
}

/// Tells others of the last manifest.
fn publish(checkpointer: &Checkpointer, links: &CheckpointLinks) {
    show(checkpointer, &links.metrics);
    links.manifest.store(Arc::new(checkpointer.manifest().clone()));
    links.generation.store(checkpointer.manifest().generation, Ordering::Release);
}

fn remove_retired(checkpointer: &mut Checkpointer, disk: &dyn Disk) {
    if let Err(error) = checkpointer.remove_retired(disk) {
        warn!(%error, "files of the state before this one stay until the next start");
    }
}

/// Sets space aside again, if there is some.
fn hold(reserve: &mut Reserve, disk: &dyn Disk) {
    if let Err(error) = reserve.hold(disk) {
        warn!(%error, "cannot set space aside for a full disk");
    }
}

/// Shows how large the page files are.
fn show(checkpointer: &Checkpointer, metrics: &Metrics) {
    for (shard, bytes) in checkpointer.shard_file_bytes() {
        metrics.shard_db_size_bytes.with_label_values(&[shard]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// Lets the next attempts have what was set aside.
fn release(reserve: &mut Reserve, disk: &dyn Disk) {
    match reserve.release(disk) {
        Ok(true) => warn!(bytes = RESERVE_BYTES, "the space that was set aside is given to checkpoints"),
        Ok(false) => {}
        Err(error) => warn!(%error, "cannot give away the space that was set aside"),
    }
}
