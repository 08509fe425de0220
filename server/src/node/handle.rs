//! What the API may do with a node: propose, look at a View, fetch values, ask for the rare things that only the apply
//! thread knows. Cheap to share; nothing in it waits on a lock that is held for long.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use basalt_proto::log::Request;
use basalt_proto::log::request::Kind;
use basalt_storage::hashes::HashKvCache;
use basalt_storage::mvcc::range::Hit;
use basalt_storage::mvcc::view::View;
use bytes::Bytes;
use prost::Message;
use tokio::sync::{Semaphore, oneshot};

use super::node_thread::NodeInput;
use super::readers::Readers;
use crate::apply::answer::{Answer, Refusal};
use crate::apply::machine::Machine;
use crate::lease::LeaseClock;
use crate::watch;

/// Why the node did not answer.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unavailable {
    /// It is going down.
    #[error("stopped")]
    Stopped,
    /// It took too long; the request may still take effect.
    #[error("timed out")]
    TimedOut,
    /// Too much waits already.
    #[error("too many requests")]
    TooManyRequests,
    /// The request is larger than a log entry may be.
    #[error("request too large")]
    TooLarge,
    /// Stored bytes are not what was written.
    #[error("damaged")]
    Damaged,
    /// It was ordered, and changed nothing.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// An answered proposal.
#[derive(Clone)]
pub struct Completed {
    /// What apply says.
    pub answer: Answer,
    /// The View right after it, where the answer's values are.
    pub view: Arc<View>,
}

/// How a proposal ends.
pub type Completion = Result<Completed, Refusal>;

/// A question to the apply thread.
pub type Question = Box<dyn FnOnce(&mut Machine) + Send>;

/// What reaches the apply thread from the API.
pub enum ApplyRequest {
    /// Answer from the machine's state, between two batches.
    Ask(Question),
    /// Write a checkpoint now; the sender hears of its end.
    Checkpoint(oneshot::Sender<()>),
    /// Tell when no compaction is being swept and a checkpoint contains it.
    Compacted(oneshot::Sender<()>),
}

/// Who this node is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster (etcd-contract 53).
    pub cluster_id: u64,
    /// The member.
    pub member_id: u64,
}

/// Figures that several threads write and the API shows.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Raft term.
    pub term: AtomicU64,
    /// Whether this node leads.
    pub leads: AtomicBool,
    /// Last index handed to apply.
    pub committed_index: AtomicU64,
    /// Last applied index.
    pub applied_index: AtomicU64,
    /// Bytes of revisions that no checkpoint holds yet.
    pub delta_bytes: AtomicU64,
    /// Allocated bytes of page files, with the deltas.
    pub db_size: AtomicU64,
    /// Stored bytes of revisions not marked dead, with the deltas.
    pub db_size_in_use: AtomicU64,
    /// Watch streams, watchers, those that fell behind, and events on their way to them.
    pub watch_streams: AtomicU64,
    /// See [`Self::watch_streams`].
    pub watchers: AtomicU64,
    /// See [`Self::watch_streams`].
    pub slow_watchers: AtomicU64,
    /// See [`Self::watch_streams`].
    pub pending_events: AtomicU64,
    /// Whether NOSPACE is armed by anybody.
    pub no_space: AtomicBool,
    /// Whether CORRUPT is armed by anybody.
    pub corrupt: AtomicBool,
}

/// Caps of the API.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest request, bytes (`--max-request-bytes`).
    pub request_bytes_max: usize,
    /// Operations of a transaction (`--max-txn-ops`).
    pub txn_operations_max: usize,
    /// Quota in bytes; `None` for none (`--quota-backend-bytes`).
    pub quota_bytes: Option<u64>,
}

/// Committed entries that may wait for apply (etcd `maxGapBetweenApplyAndCommitIndex`, etcd-contract 41).
pub const UNAPPLIED_MAX: u64 = 5000;

/// Revisions in memory beyond which nothing more is ordered until a checkpoint took some: a disk that is too slow, or
/// full, must not become memory without end.
pub const DELTA_BYTES_MAX: u64 = 1 << 30;

/// The node as the API sees it.
pub struct NodeHandle {
    pub(super) inbox: Sender<NodeInput>,
    pub(super) apply: Sender<super::apply_thread::ApplyInput>,
    pub(super) waiters: Arc<Waiters>,
    pub(super) next_id: AtomicU64,
    pub(super) view: Arc<ArcSwap<View>>,
    pub(super) readers: Readers,
    pub(super) started: Instant,
    pub(super) hash_cache: Arc<Mutex<HashKvCache>>,
    /// Snapshots at the same time (DESIGN 3.6).
    pub(super) snapshots: Arc<Semaphore>,
    /// Who this is.
    pub identity: Identity,
    /// Figures.
    pub gauges: Arc<Gauges>,
    /// Caps.
    pub limits: Limits,
    /// When leases end; only the leader's runs.
    pub leases: Arc<Mutex<LeaseClock>>,
    /// The watch thread.
    pub watches: Sender<watch::Input>,
}

/// Callers that wait for their proposals.
#[derive(Default)]
pub struct Waiters(Mutex<HashMap<u64, oneshot::Sender<Completion>>>);

impl Waiters {
    fn add(&self, id: u64, sender: oneshot::Sender<Completion>) {
        self.lock().insert(id, sender);
    }

    /// Takes those that wait for `ids`.
    pub fn take(&self, ids: impl Iterator<Item = u64>) -> Vec<Option<oneshot::Sender<Completion>>> {
        let mut waiting = self.lock();
        ids.map(|id| waiting.remove(&id)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Completion>>> {
        self.0.lock().expect("no one panics while holding the waiters: a panic stops the process")
    }
}

impl NodeHandle {
    /// Time on the clock that leases and watches go by.
    pub fn now(&self) -> std::time::Duration {
        self.started.elapsed()
    }

    /// Has a request ordered and applied. The future gives the answer after it is durable and visible.
    ///
    /// # Errors
    /// [`Unavailable`]; only [`Unavailable::Refused`] says for certain that nothing changed.
    pub fn propose(
        &self,
        kind: Kind,
    ) -> Result<impl Future<Output = Result<Completed, Unavailable>> + use<>, Unavailable> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let request = Request { id, principal: None, kind: Some(kind) };
        if request.encoded_len() > self.limits.request_bytes_max {
            return Err(Unavailable::TooLarge);
        }
        if self.gauges.committed_index.load(Ordering::Relaxed)
            > self.gauges.applied_index.load(Ordering::Relaxed) + UNAPPLIED_MAX
        {
            return Err(Unavailable::TooManyRequests);
        }
        if self.gauges.delta_bytes.load(Ordering::Relaxed) > DELTA_BYTES_MAX {
            return Err(Unavailable::TooManyRequests);
        }
        let (sender, receiver) = oneshot::channel();
        self.waiters.add(id, sender);
        let input = NodeInput::Propose(request);
        self.inbox.send(input).map_err(|_| Unavailable::Stopped)?;
        Ok(async move { Ok(receiver.await.map_err(|_| Unavailable::Stopped)??) })
    }

    /// The newest View.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// A View that holds every write acknowledged before the call. A single voter's newest View does: a write is
    /// acknowledged after its View is published (DESIGN 4).
    pub fn linearizable_view(&self) -> Arc<View> {
        self.view()
    }

    /// Values of a View, in the order of `hits`: at once when they are in memory, else by a read thread.
    pub fn fetch(&self, view: Arc<View>, hits: Vec<Hit>) -> Fetched {
        self.readers.fetch(view, hits)
    }

    /// The threads that read pages.
    pub fn readers(&self) -> &Readers {
        &self.readers
    }

    /// Asks the apply thread.
    ///
    /// # Errors
    /// [`Unavailable::Stopped`].
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Machine) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (sender, receiver) = oneshot::channel();
        let question = move |machine: &mut Machine| drop(sender.send(question(machine)));
        self.request(ApplyRequest::Ask(Box::new(question)))?;
        receiver.await.map_err(|_| Unavailable::Stopped)
    }

    /// Writes a checkpoint and waits for it.
    ///
    /// # Errors
    /// [`Unavailable::Stopped`].
    pub async fn checkpoint(&self) -> Result<(), Unavailable> {
        let (sender, receiver) = oneshot::channel();
        self.request(ApplyRequest::Checkpoint(sender))?;
        receiver.await.map_err(|_| Unavailable::Stopped)
    }

    /// Waits until compactions up to now have dropped what they drop (`physical`, etcd-contract 13).
    ///
    /// # Errors
    /// [`Unavailable::Stopped`].
    pub async fn compaction_finished(&self) -> Result<(), Unavailable> {
        let (sender, receiver) = oneshot::channel();
        self.request(ApplyRequest::Compacted(sender))?;
        receiver.await.map_err(|_| Unavailable::Stopped)
    }

    fn request(&self, request: ApplyRequest) -> Result<(), Unavailable> {
        let input = super::apply_thread::ApplyInput::Request(request);
        self.apply.send(input).map_err(|_| Unavailable::Stopped)
    }
}

/// Values, now or later.
pub enum Fetched {
    /// All were in memory.
    Ready(Vec<Bytes>),
    /// A read thread sends them.
    Pending(oneshot::Receiver<Result<Vec<Bytes>, Unavailable>>),
}

impl Fetched {
    /// The values.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn wait(self) -> Result<Vec<Bytes>, Unavailable> {
        match self {
            Fetched::Ready(values) => Ok(values),
            Fetched::Pending(receiver) => receiver.await.map_err(|_| Unavailable::Stopped)?,
        }
    }
}

/// The proposer's clock, ns since 1970; 0 for a clock before that.
pub fn unix_time_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
