//! What the API may do with a node: propose, look at a View, fetch values, ask for the rare things that only the apply
//! thread knows. Cheap to share; nothing in it waits on a lock that is held for long.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use basalt_proto::log::request::Kind;
use basalt_proto::log::{Principal, Request};
use basalt_storage::hashes::HashKvCache;
use basalt_storage::mvcc::range::Hit;
use basalt_storage::mvcc::view::View;
use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use super::answer_budget::{AnswerBudget, Held};
use super::core::PROPOSAL_BYTES_MAX;
use super::gather::{ANSWER_BYTES_MAX, Gather, Limit, Shown};
use super::node_thread::NodeInput;
use super::read_ahead;
use super::read_queue::ReadQueue;
use super::readers::{Gathering, ReadPools};
use super::waiters::Waiters;
use crate::admission::{Full, Gate, Proposal};
use crate::apply::answer::{Answer, Refusal};
use crate::apply::downgrade::Downgrade;
use crate::apply::lease_table::LeaseTable;
use crate::apply::machine::Machine;
use crate::apply::members::Members;
use crate::auth::Auth;
use crate::lease::LeaseClock;
use crate::watch;

/// Why the node did not answer.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unavailable {
    /// It is going down.
    #[error("stopped")]
    Stopped,
    /// The leader changed, or was lost, before it answered.
    #[error("leader changed")]
    LeaderChanged,
    /// It took too long; the request may still take effect.
    #[error("timed out")]
    TimedOut,
    /// Too much waits already.
    #[error("too many requests")]
    TooManyRequests,
    /// The request is larger than a log entry may be.
    #[error("request too large")]
    TooLarge,
    /// The answer is longer than a message may be; so many bytes were gathered until that was seen.
    #[error("an answer of {bytes} bytes or more")]
    AnswerTooLarge {
        /// How many.
        bytes: usize,
    },
    /// The client does not take what it asked for.
    #[error("not read")]
    NotRead,
    /// A record is longer than the form of a snapshot can hold.
    #[error("a record too long for a snapshot")]
    NotInSnapshot,
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
    /// When it began to be applied, with whatever came with it.
    pub applied_since: Instant,
}

/// How a proposal ends.
pub type Completion = Result<Completed, Refusal>;

/// A question to the apply thread.
pub type Question = Box<dyn FnOnce(&mut Machine) + Send>;

/// What reaches the apply thread from the API.
pub enum ApplyRequest {
    /// Answer from the machine's state, between two batches.
    Ask(Question),
    /// Write a checkpoint of all that is applied by now.
    Checkpoint {
        /// Rewrite partly dead leaves however little of them is dead, up to a bound.
        tidy: bool,
        /// Hears of its end, and whether no leaf is left that waits to be rewritten.
        done: oneshot::Sender<Result<bool, Unavailable>>,
    },
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
    /// Who leads; 0 while nobody is known to.
    pub leader: AtomicU64,
    /// When that leader was first heard of, on the node's clock; 0 before the first.
    pub leader_since_ns: AtomicU64,
    /// Entries that each other member is not known to have; of a leader.
    pub lags: Mutex<Vec<(u64, u64)>>,
    /// Leases that are granted and not revoked, whoever leads.
    pub leases: AtomicU64,
    /// Whether this node is the only one that votes.
    pub single_voter: AtomicBool,
    /// Last index known as committed.
    pub committed_index: AtomicU64,
    /// Last applied index.
    pub applied_index: AtomicU64,
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
    /// Events sent to watchers since the start.
    pub events_sent: AtomicU64,
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
    /// Quota in bytes, as it is shown; less than nothing is none (`--quota-backend-bytes`).
    pub quota_bytes: i64,
    /// Shortest lease that is granted, seconds (etcd-contract 33).
    pub lease_ttl_min: i64,
    /// How long a client may leave a piece of its snapshot unread ([`super::content::SNAPSHOT_UNREAD_MAX`]).
    pub snapshot_unread: Duration,
}

/// Why a member belongs to the cluster no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expelled {
    /// It was removed.
    Removed,
    /// It ran before with another data directory: what that one promised to keep is lost.
    Wiped,
}

/// Committed entries that may wait for apply (etcd `maxGapBetweenApplyAndCommitIndex`, etcd-contract 41).
pub const UNAPPLIED_MAX: u64 = 5000;

/// The node as the API sees it.
pub struct NodeHandle {
    pub(super) inbox: Sender<NodeInput>,
    pub(super) apply: Sender<super::apply_thread::ApplyInput>,
    pub(super) waiters: Arc<Waiters>,
    pub(super) reads: Arc<ReadQueue>,
    pub(super) gate: Arc<Gate>,
    pub(super) next_id: AtomicU64,
    pub(super) view: Arc<ArcSwap<View>>,
    pub(super) readers: ReadPools,
    pub(super) started: Instant,
    pub(super) hash_cache: Arc<Mutex<HashKvCache>>,
    /// Snapshots at the same time (DESIGN 3.6).
    pub(super) snapshots: Arc<Semaphore>,
    /// Memory of answers.
    pub(super) answers: AnswerBudget,
    /// Hashes at the same time.
    pub(super) hashes: Arc<Semaphore>,
    /// Who this is.
    pub identity: Identity,
    /// Figures.
    pub gauges: Arc<Gauges>,
    /// Caps.
    pub limits: Limits,
    /// Who belongs to the cluster.
    pub members: Arc<ArcSwap<Members>>,
    /// The release that the cluster says it is of.
    pub downgrade: Arc<ArcSwap<Downgrade>>,
    /// Of this data directory.
    pub incarnation: u128,
    /// Whether this member belongs to the cluster no more, and why.
    pub expelled: tokio::sync::watch::Receiver<Option<Expelled>>,
    /// When leases end; only the leader's runs.
    pub leases: Arc<Mutex<LeaseClock>>,
    /// Users, roles and tokens.
    pub auth: Arc<Auth>,
    /// The watch thread.
    pub watches: Sender<watch::Input>,
}

impl NodeHandle {
    /// This member was found to belong to the cluster no more.
    pub fn expel(&self, cause: Expelled) {
        // The node thread is gone only when the process is about to be.
        drop(self.inbox.send(NodeInput::Expelled(cause)));
    }

    /// Time on the clock that leases and watches go by.
    pub fn now(&self) -> std::time::Duration {
        self.started.elapsed()
    }

    /// Has a request ordered and applied, on somebody's behalf: [`cluster_principal`](crate::apply::auth::check::cluster_principal) is the node's own,
    /// nobody may do nothing while authentication is on. The future gives the answer after it is durable and visible.
    ///
    /// # Errors
    /// [`Unavailable`]; only [`Unavailable::Refused`] says for certain that nothing changed.
    pub fn propose(
        &self,
        kind: Kind,
        principal: Option<Principal>,
    ) -> Result<impl Future<Output = Result<Completed, Unavailable>> + use<>, Unavailable> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let request = Request { id, principal, kind: Some(kind) };
        let view = self.view.load();
        let proposal = Proposal::new(request, &view.shard_map);
        if proposal.length > self.limits.request_bytes_max.min(PROPOSAL_BYTES_MAX) {
            return Err(Unavailable::TooLarge);
        }
        if self.gauges.committed_index.load(Ordering::Relaxed)
            > self.gauges.applied_index.load(Ordering::Relaxed) + UNAPPLIED_MAX
        {
            return Err(Unavailable::TooManyRequests);
        }
        self.gate.admit(&proposal).map_err(|Full| Unavailable::TooManyRequests)?;
        if let Some(kind) = &proposal.request.kind {
            let principal = proposal.request.principal.as_ref();
            // Which keys hang on a lease only apply knows.
            let may = || self.auth.now().state.check(principal, kind, &LeaseTable::default()).is_ok();
            read_ahead::warm(kind, &view, &self.readers.apply, may);
        }
        let (sender, receiver) = oneshot::channel();
        self.waiters.add(id, sender);
        self.inbox.send(NodeInput::Propose(proposal)).map_err(|_| Unavailable::Stopped)?;
        Ok(async move { Ok(receiver.await.map_err(|_| Unavailable::Stopped)??) })
    }

    /// Proposals that were not answered yet, also those whose caller gave up.
    pub fn proposals_pending(&self) -> u64 {
        self.waiters.len() as u64
    }

    /// How long the oldest of them has waited. Looks at all: for health checks.
    pub fn oldest_proposal_wait(&self) -> Duration {
        self.waiters.longest_wait()
    }

    /// The newest View.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// A View that holds every write acknowledged before the call: at once from the only voter, since a write is
    /// acknowledged after its View is published, else when the leader has said how far that is and apply has come so far
    /// (DESIGN 4).
    pub fn linearizable_view(&self) -> LinearizableView {
        if self.gauges.single_voter.load(Ordering::Relaxed) {
            return LinearizableView::Ready(self.view());
        }
        let (waiter, answer) = oneshot::channel();
        // A node that is gone drops the waiter, which says so.
        if self.reads.add(waiter) {
            drop(self.inbox.send(NodeInput::Reads));
        }
        LinearizableView::Later(PendingView { answer, view: self.view.clone() })
    }

    /// Has another member lead, if this one does. Whether it came to that, the leader of later says.
    pub fn transfer_leadership(&self, member_id: u64) {
        // A node that is gone leads nobody.
        drop(self.inbox.send(NodeInput::Transfer(member_id)));
    }

    /// Has whoever is fit for it lead, if this one does: it is about to stop.
    pub fn hand_over(&self) {
        drop(self.inbox.send(NodeInput::HandOver));
    }

    /// Others are reached: if no leader is known, the first election comes soon.
    pub fn advance_election(&self) {
        drop(self.inbox.send(NodeInput::AdvanceElection));
    }

    /// Entries that each other member is not known to have; nothing unless this node leads.
    pub fn lags(&self) -> Vec<(u64, u64)> {
        self.gauges.lags.lock().expect("no one panics while holding lags").clone()
    }

    /// Who leads, if anybody is known to.
    pub fn leader(&self) -> Option<u64> {
        Some(self.gauges.leader.load(Ordering::Relaxed)).filter(|leader| *leader != 0)
    }

    /// Values of a View, in the order of `hits`: at once when they are in memory, else by a read thread.
    /// Not more than a message can hold.
    pub fn fetch(&self, view: Arc<View>, hits: Vec<Hit>, shown: Shown) -> Fetched {
        self.gather(Gather::new(view, hits, shown, Limit::Refuse(ANSWER_BYTES_MAX)))
    }

    /// Waits for the values of an answer, and for room for them if they come from disk.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn within_budget(
        &self,
        hits: usize,
        fetched: Fetched,
    ) -> Result<(Vec<Bytes>, Option<Held>), Unavailable> {
        match fetched {
            Fetched::Ready(values) => Ok((values, None)),
            later => self.answers.gather(hits, later.wait()).await,
        }
    }

    /// What a gathering finds: at once or later, as [`Self::fetch`].
    pub fn gather(&self, gather: Gather) -> Fetched {
        self.readers.client.gather(gather)
    }

    /// The threads that walk over the store, for tests that do what they do.
    #[cfg(test)]
    pub(crate) fn walk_readers(&self) -> &super::readers::Readers {
        &self.readers.walk
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

    /// Writes a checkpoint of all that is applied by now and waits for it, however much is written meanwhile.
    ///
    /// # Errors
    /// [`Refusal::NoSpace`] when the disk is full, [`Unavailable::Stopped`].
    pub async fn checkpoint(&self) -> Result<(), Unavailable> {
        self.checkpoint_and_tidy(false).await?;
        Ok(())
    }

    /// Writes checkpoints until no leaf of the page files is partly dead. Each rewrites some 256 MiB, in the space that
    /// the ones before it left. Whoever stops waiting stops it.
    ///
    /// # Errors
    /// As [`Self::checkpoint`].
    pub async fn defragment(&self) -> Result<(), Unavailable> {
        while !self.checkpoint_and_tidy(true).await? {}
        Ok(())
    }

    async fn checkpoint_and_tidy(&self, tidy: bool) -> Result<bool, Unavailable> {
        let (done, receiver) = oneshot::channel();
        self.request(ApplyRequest::Checkpoint { tidy, done })?;
        receiver.await.map_err(|_| Unavailable::Stopped)?
    }

    /// How much waits to be ordered.
    pub fn gate(&self) -> &Gate {
        &self.gate
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

/// A View for a linearizable read, now or later.
pub enum LinearizableView {
    /// Here it is.
    Ready(Arc<View>),
    /// The leader is asked.
    Later(PendingView),
}

/// A View that comes when it is new enough.
pub struct PendingView {
    answer: oneshot::Receiver<Result<(), Unavailable>>,
    view: Arc<ArcSwap<View>>,
}

impl PendingView {
    /// Waits for it.
    ///
    /// # Errors
    /// [`Unavailable::LeaderChanged`], [`Unavailable::Stopped`].
    pub async fn wait(self) -> Result<Arc<View>, Unavailable> {
        self.answer.await.map_err(|_| Unavailable::Stopped)??;
        Ok(self.view.load_full())
    }
}

/// Values, now or later.
pub enum Fetched {
    /// All were in memory.
    Ready(Vec<Bytes>),
    /// A read thread finds them.
    Pending(Box<Gathering>),
    /// They are not to be had.
    Failed(Unavailable),
}

impl Fetched {
    /// The values.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn wait(self) -> Result<Vec<Bytes>, Unavailable> {
        match self {
            Fetched::Ready(values) => Ok(values),
            Fetched::Pending(gathering) => gathering.start().await.map_err(|_| Unavailable::Stopped)?,
            Fetched::Failed(cause) => Err(cause),
        }
    }

    /// The values, waited for on this thread.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub fn wait_blocking(self) -> Result<Vec<Bytes>, Unavailable> {
        match self {
            Fetched::Ready(values) => Ok(values),
            Fetched::Pending(gathering) => gathering.start().blocking_recv().map_err(|_| Unavailable::Stopped)?,
            Fetched::Failed(cause) => Err(cause),
        }
    }
}

/// The proposer's clock, ns since 1970; 0 for a clock before that.
pub fn unix_time_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
