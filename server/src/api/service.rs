//! What the handlers share, and how a unary call finds its handler. A handler is decoded request in, pieces of a
//! message out, now or later; it knows no framework (DESIGN D7).

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use basalt_proto::TXN_NESTING_MAX;
use basalt_proto::etcdserverpb::{RangeRequest, TxnRequest};
use basalt_proto::log::Principal;
use basalt_proto::log::request::Kind;
use basalt_proto::nesting::{self, NestingError};
use basalt_storage::mvcc::kept_views::KeptViews;
use basalt_storage::mvcc::view::View;
use bytes::Bytes;
use prost::Message;

use super::chunks::Chunks;
use super::encode::{self, HeaderBase};
use super::kept_request::{KeptRequest, by_itself, decode_kept};
use super::leader_loss::LeaderLoss;
use super::member_changes::MemberRules;
use super::method::Method;
use super::status::{self, Code, Status};
use super::steps::OrderedSteps;
use super::timeouts::Awaited;
use crate::apply::answer::Answer;
use crate::auth::{Caller, Passwords};
use crate::metrics::{Metrics, Operation};
use crate::node::gather::Shown;
use crate::node::handle::{Completed, LinearizableView, NodeHandle, Unavailable};
use crate::node::watch_thread::StreamSinks;
use crate::peer::Peers;
use crate::traces::Tracer;

/// An answer that comes later. Nothing is done for it, nor waited for, before it is asked for.
pub type Answering = Pin<Box<dyn Future<Output = Result<Chunks, Status>> + Send>>;

/// The answer to a unary call.
pub enum Reply {
    /// Here it is.
    Ready(Result<Chunks, Status>),
    /// It comes later.
    Pending(Answering),
    /// It comes later, and much of what was asked is kept until then, which nobody has counted.
    Keeping {
        /// How much.
        bytes: usize,
        /// The answer.
        answer: Answering,
    },
}

/// What a call may keep of its request before it is counted: about what its place among the open calls is reckoned at.
const KEPT_BYTES_FREE: usize = 4 << 10;

impl Reply {
    /// An answer that comes later.
    pub fn later(answer: impl Future<Output = Result<Chunks, Status>> + Send + 'static) -> Self {
        Reply::Pending(Box::pin(answer))
    }

    /// The same, of a call that keeps so much of its request, which does not go to admission.
    pub fn keeping(bytes: usize, answer: impl Future<Output = Result<Chunks, Status>> + Send + 'static) -> Self {
        let answer = Box::pin(answer);
        if bytes > KEPT_BYTES_FREE { Reply::Keeping { bytes, answer } } else { Reply::Pending(answer) }
    }

    /// The answer, waited for.
    ///
    /// # Errors
    /// Its own.
    pub async fn settled(self) -> Result<Chunks, Status> {
        match self {
            Reply::Ready(answer) => answer,
            Reply::Pending(answer) | Reply::Keeping { answer, .. } => answer.await,
        }
    }
}

impl From<Result<Chunks, Status>> for Reply {
    fn from(answer: Result<Chunks, Status>) -> Self {
        Reply::Ready(answer)
    }
}

/// All handlers.
pub struct Service {
    /// The node.
    pub node: Arc<NodeHandle>,
    /// Where watch messages go.
    pub sinks: StreamSinks,
    /// Other members; `None` for a node without any.
    pub peers: Option<Arc<Peers>>,
    /// Indexes that first pages were read from.
    pub kept: Mutex<KeptViews>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where calls are traced, if they are.
    pub tracer: Option<Arc<Tracer>>,
    /// A unary call that takes longer is logged (`--warning-unary-request-duration`).
    pub slow_unary: Duration,
    /// A read that takes longer is logged too (`--warning-apply-duration`).
    pub slow_apply: Duration,
    /// Time without a leader until an election (`--election-timeout`).
    pub election_timeout: Duration,
    /// How long a call waits for the node (etcd-contract 38).
    pub request_timeout: Duration,
    /// Hashes of passwords.
    pub passwords: Passwords,
    /// By which rules members change.
    pub member_rules: MemberRules,
    /// Turns true when the process is to stop: streams that have no end of their own end then.
    pub stopping: tokio::sync::watch::Receiver<bool>,
}

/// Decodes a request; one that is short keeps nothing but its message.
///
/// # Errors
/// As grpc-go words it.
pub fn decode<M: Message + Default>(body: Bytes) -> Result<M, Status> {
    M::decode(by_itself(body))
        .map_err(|cause| Status::new(Code::Internal, format!("grpc: error unmarshalling request: {cause}")))
}

/// Decodes a transaction. One that is nested too deep has also used up the budget of operations, unless that is larger
/// than etcd's: the refusal is etcd's then (docs/decisions/0010).
fn decode_txn(body: Bytes, operations_max: usize) -> Result<TxnRequest, Status> {
    let body_bytes = body.len();
    let mut request = nesting::decode_txn(by_itself(body)).map_err(|cause| match cause {
        NestingError::TooDeep if operations_max <= TXN_NESTING_MAX => status::too_many_ops(),
        NestingError::TooDeep => status::nested_too_deep(),
        NestingError::Malformed(cause) => {
            Status::new(Code::Internal, format!("grpc: error unmarshalling request: {cause}"))
        }
    })?;
    request.leave_message(body_bytes);
    Ok(request)
}

/// Unary calls that a learner answers.
fn is_for_learners(method: Method, body: &Bytes) -> bool {
    match method {
        Method::Status | Method::Describe => true,
        Method::Range => RangeRequest::decode(body.clone()).is_ok_and(|request| request.serializable),
        _ => false,
    }
}

impl Service {
    /// Handles a unary call of `caller`.
    pub fn call(self: &Arc<Self>, method: Method, body: Bytes, caller: Caller) -> Reply {
        self.dispatch(method, body, caller).unwrap_or_else(|status| Reply::Ready(Err(status)))
    }

    fn dispatch(self: &Arc<Self>, method: Method, body: Bytes, caller: Caller) -> Result<Reply, Status> {
        if self.is_learner() && !is_for_learners(method, &body) {
            return Err(status::not_for_learners());
        }
        self.authorize(method.policy(), &caller)?;
        Ok(match method {
            Method::Range => self.range(&decode_kept(body)?, caller),
            Method::Put => self.put(decode_kept(body)?, &caller),
            Method::DeleteRange => self.delete_range(decode_kept(body)?, &caller),
            Method::Txn => self.txn(decode_txn(body, self.node.limits.txn_operations_max)?, caller),
            Method::Compact => self.compact(decode(body)?, &caller),
            Method::LeaseGrant => self.lease_grant(decode(body)?, &caller),
            Method::LeaseRevoke => self.lease_revoke(decode(body)?, &caller),
            Method::LeaseTimeToLive => self.lease_time_to_live(decode(body)?, caller),
            Method::LeaseLeases => self.lease_leases(caller),
            Method::MemberList => self.member_list(&decode(body)?),
            Method::MemberAdd => self.member_add(&decode(body)?, &caller),
            Method::MemberRemove => self.member_remove(&decode(body)?, &caller),
            Method::MemberUpdate => self.member_update(decode(body)?, &caller),
            Method::MemberPromote => self.member_promote(&decode(body)?, &caller),
            Method::Alarm => self.alarm(decode(body)?, &caller),
            Method::Status => self.status(),
            Method::Defragment => self.defragment(),
            Method::MoveLeader => self.move_leader(&decode(body)?),
            Method::Downgrade => self.downgrade(decode(body)?, caller),
            Method::Hash => self.hash(),
            Method::HashKv => self.hash_kv(decode(body)?),
            Method::Describe => self.describe(),
            Method::Lock => self.lock(decode(body)?, caller),
            Method::Unlock => self.unlock(decode(body)?, caller),
            Method::Campaign => self.campaign(decode(body)?, caller),
            Method::Proclaim => self.proclaim(decode(body)?, caller),
            Method::Leader => self.leader(decode(body)?, caller),
            Method::Resign => self.resign(decode(body)?, caller),
            Method::AuthStatus => self.auth_status(),
            Method::AuthEnable => self.propose(Kind::AuthEnable(decode(body)?), &caller),
            Method::AuthDisable => self.propose(Kind::AuthDisable(decode(body)?), &caller),
            Method::Authenticate => self.authenticate(decode(body)?),
            Method::UserAdd => self.user_add(decode(body)?, caller),
            Method::UserGet => self.user_get(decode(body)?, caller),
            Method::UserList => self.user_list(caller),
            Method::UserDelete => self.propose(Kind::UserDelete(decode(body)?), &caller),
            Method::UserChangePassword => self.user_change_password(decode(body)?, caller),
            Method::UserGrantRole => self.propose(Kind::UserGrantRole(decode(body)?), &caller),
            Method::UserRevokeRole => self.propose(Kind::UserRevokeRole(decode(body)?), &caller),
            Method::RoleAdd => self.propose(Kind::RoleAdd(decode(body)?), &caller),
            Method::RoleGet => self.role_get(decode(body)?, caller),
            Method::RoleList => self.role_list(caller),
            Method::RoleDelete => self.propose(Kind::RoleDelete(decode(body)?), &caller),
            Method::RoleGrantPermission => self.propose(Kind::RoleGrantPermission(decode_kept(body)?), &caller),
            Method::RoleRevokePermission => self.propose(Kind::RoleRevokePermission(decode_kept(body)?), &caller),
            Method::HealthCheck => Self::health_check(&decode(body)?),
            Method::RangeStream
            | Method::Watch
            | Method::LeaseKeepAlive
            | Method::Snapshot
            | Method::Observe
            | Method::HealthWatch => Reply::Ready(Err(Status::new(Code::Internal, "a stream was called as unary"))),
        })
    }

    /// Whether this member has no vote yet: it serves little (etcd-contract 45).
    pub fn is_learner(&self) -> bool {
        self.node.members.load().is_learner(self.node.identity.member_id)
    }

    /// The parts of a header beside the revision.
    pub fn header(&self) -> HeaderBase {
        HeaderBase {
            cluster_id: self.node.identity.cluster_id,
            member_id: self.node.identity.member_id,
            raft_term: self.node.gauges.term.load(Ordering::Relaxed),
        }
    }

    /// Has a request ordered on behalf of its caller, and answers it.
    pub fn propose(self: &Arc<Self>, kind: Kind, caller: &Caller) -> Reply {
        let principal = match self.principal(caller) {
            Ok(principal) => principal,
            Err(status) => return Reply::Ready(Err(status)),
        };
        let steps = OrderedSteps::begin(&kind);
        let ordered = match self.order(kind, principal) {
            Ok(ordered) => ordered,
            Err(status) => return Reply::Ready(Err(status)),
        };
        let service = self.clone();
        Reply::later(async move {
            let Completed { answer, view, applied_since } = ordered.await?;
            let Some(mut steps) = steps else { return service.finish(&answer, view).await };
            steps.applied(applied_since);
            let revision = view.revision;
            let finished = service.finish(&answer, view).await;
            steps.answered(revision);
            finished
        })
    }

    /// Has a request ordered; the future gives what apply says.
    ///
    /// # Errors
    /// Before it is ordered, and after: the node's, and apply's.
    pub fn order(
        self: &Arc<Self>,
        kind: Kind,
        principal: Option<Principal>,
    ) -> Result<impl Future<Output = Result<Completed, Status>> + use<>, Status> {
        let (operation, started) = (Operation::of_request(&kind), Instant::now());
        let was_led = self.node.leader().is_some();
        let completed = self.node.propose(kind, principal)?;
        let (service, awaited) = (self.clone(), Awaited::of(self.metrics.clone()));
        Ok(async move {
            let completed = tokio::time::timeout(service.request_timeout, completed).await;
            if completed.is_ok() {
                awaited.completed();
            }
            if let Some(operation) = operation {
                // What apply refused was ordered and answered all the same.
                let answered = matches!(completed, Ok(Ok(_) | Err(Unavailable::Refused(_))));
                service.metrics.request_seconds.observe(operation, answered, started.elapsed());
            }
            match completed {
                Ok(completed) => Ok(completed?),
                Err(_) => Err(service.proposal_timed_out(started, was_led)),
            }
        })
    }

    /// Encodes an answer with the values that it shows.
    pub async fn finish(&self, answer: &Answer, view: Arc<View>) -> Result<Chunks, Status> {
        let hits = answer.hits();
        let count = hits.len();
        let fetched = self.node.fetch(view, hits, Shown::Whole);
        let (values, held) = self.node.within_budget(count, fetched).await?;
        let encoded = encode::answer(answer, self.header(), values);
        encoded.map(|chunks| chunks.keeping(held)).map_err(|_| Unavailable::Damaged.into())
    }

    /// Returns once the process is to stop; also if nobody is left who could say so.
    pub async fn stopped(&self) {
        _ = self.stopping.clone().wait_for(|stop| *stop).await;
    }

    /// Returns when no leader was known for three election timeouts, if anybody cares.
    pub async fn leaderless(&self, cares: bool) {
        if !cares {
            return std::future::pending().await;
        }
        let mut loss = LeaderLoss::default();
        loop {
            tokio::time::sleep(self.election_timeout).await;
            if loss.look(self.node.leader().is_some()) {
                return;
            }
        }
    }

    /// A View that holds all that was acknowledged before now.
    ///
    /// # Errors
    /// The leader changed, or did not answer.
    pub async fn linearizable_view(&self) -> Result<Arc<View>, Status> {
        match self.node.linearizable_view() {
            LinearizableView::Ready(view) => Ok(view),
            LinearizableView::Later(view) => {
                let view = self.within(view.wait()).await;
                if view.as_ref().is_err_and(|status| *status == status::timed_out()) {
                    self.metrics.read_indexes_slow_total.inc();
                }
                view
            }
        }
    }

    /// The same for what etcd has ordered though it only reads: without a leader it ends as a request that is to be ordered.
    ///
    /// # Errors
    /// As for [`Self::linearizable_view`].
    pub async fn view_as_if_ordered(&self) -> Result<Arc<View>, Status> {
        let was_led = self.node.leader().is_some();
        self.linearizable_view().await.map_err(|status| {
            let was_never_led = !was_led && self.node.leader().is_none();
            if was_never_led && status == status::timed_out() { status::deadline_exceeded() } else { status }
        })
    }

    /// Waits as long as a request may.
    ///
    /// # Errors
    /// The node's, and timing out.
    pub async fn within<T>(&self, answer: impl Future<Output = Result<T, Unavailable>>) -> Result<T, Status> {
        match tokio::time::timeout(self.request_timeout, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(status::timed_out()),
        }
    }
}
