//! The service KV.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest,
    alarm_request, range_request,
};
use basalt_proto::log::request::Kind;
use basalt_storage::mvcc::range::{Hit, RangePlan, RevisionError};
use basalt_storage::mvcc::view::View;
use bytes::Bytes;
use prost::Message;

use super::chunks::Chunks;
use super::policy::{Permitted, Policy};
use super::service::{Reply, Service};
use super::status::{self, Status};
use super::steps::{AGREEMENT, ASSEMBLY, Detail, PROCESSING, Steps, head_of};
use super::{checks, encode};
use crate::apply::answer::Answer;
use crate::apply::auth::check::cluster_principal;
use crate::apply::lease_table::LeaseTable;
use crate::apply::query::{is_read_only, parts_bytes, range_query};
use crate::apply::read_txn;
use crate::apply::values::Prefetched;
use crate::auth::Caller;
use crate::failpoints::{self, Point};
use crate::metrics::Operation;
use crate::node::gather::{Gather, Limit, Shown};
use crate::node::handle::{Completed, Fetched, LinearizableView, Unavailable};

/// What a put costs beside its bytes when the quota is looked at (etcd `server/storage/quota.go`, etcd-contract 42).
const PUT_OVERHEAD_BYTES: u64 = 256;
/// What a lease costs.
const LEASE_BYTES: u64 = 64;

impl From<RevisionError> for Status {
    fn from(error: RevisionError) -> Self {
        match error {
            RevisionError::Compacted => status::compacted(),
            RevisionError::Future => status::future_revision(),
        }
    }
}

/// What is told of a range that took long, as far as its request says.
fn range_detail(request: &RangeRequest) -> Detail {
    Detail::default().with_key("range_begin", &request.key).with_key("range_end", &request.range_end)
}

/// A request of the same keys and no more, to tell of them later.
fn bounds_of(request: &RangeRequest) -> RangeRequest {
    RangeRequest { key: head_of(&request.key), range_end: head_of(&request.range_end), ..RangeRequest::default() }
}

impl Service {
    pub(super) fn range(self: &Arc<Self>, request: &RangeRequest, caller: Caller) -> Reply {
        if let Err(status) = checks::check_range(request) {
            return Reply::Ready(Err(status));
        }
        let mut steps = Steps::begin("range");
        if request.serializable {
            return self.range_of(&self.node.view(), request, &caller, steps);
        }
        match self.node.linearizable_view() {
            LinearizableView::Ready(view) => self.range_of(&view, request, &caller, steps),
            LinearizableView::Later(view) => {
                let (service, request) = (self.clone(), request.clone());
                Reply::keeping(request.key.len() + request.range_end.len(), async move {
                    let view = service.within(view.wait()).await;
                    steps.done(AGREEMENT);
                    match view {
                        Ok(view) => service.range_of(&view, &request, &caller, steps).settled().await,
                        Err(status) => {
                            service.tell_read(&steps, || range_detail(&request));
                            Err(status)
                        }
                    }
                })
            }
        }
    }

    fn range_of(
        self: &Arc<Self>,
        view: &Arc<View>,
        request: &RangeRequest,
        caller: &Caller,
        mut steps: Steps,
    ) -> Reply {
        let started = Instant::now();
        let permitted = match self.may_read(caller, &request.key, &request.range_end) {
            Ok(permitted) => permitted,
            Err(status) => {
                // It was asked for, and nothing was read.
                self.metrics.request_seconds.observe(Operation::Range, false, started.elapsed());
                self.tell_read(&steps, || range_detail(request));
                return Reply::Ready(Err(status));
            }
        };
        let plan = match self.plan(&permitted, view, request) {
            Ok(plan) => plan,
            Err(refused) => {
                self.count_range(false, started);
                self.tell_read(&steps, || range_detail(request));
                return Reply::Ready(Err(refused.into()));
            }
        };
        steps.done("range keys from in-memory index tree");
        let header = self.header().at(plan.revision);
        let damaged = |_| Status::from(Unavailable::Damaged);
        let detail = |request: &RangeRequest, plan: &RangePlan| {
            range_detail(request).with("response_count", plan.hits.len()).with("response_revision", plan.revision)
        };
        match self.node.fetch(view.clone(), plan.hits.clone(), shown(request, plan.hits.len())) {
            Fetched::Ready(values) => {
                let answer = encode::range(&plan, &header, values).map_err(damaged);
                steps.done(ASSEMBLY);
                self.count_range(answer.is_ok(), started);
                self.tell_read(&steps, || detail(request, &plan));
                Reply::Ready(answer)
            }
            later => {
                let (service, request) = (self.clone(), bounds_of(request));
                Reply::later(async move {
                    let fetched = service.node.within_budget(plan.hits.len(), later).await.map_err(Status::from);
                    steps.done("range keys from page files");
                    let answer = fetched.and_then(|(values, held)| {
                        encode::range(&plan, &header, values).map(|chunks| chunks.keeping(held)).map_err(damaged)
                    });
                    steps.done(ASSEMBLY);
                    service.count_range(answer.is_ok(), started);
                    service.tell_read(&steps, || detail(&request, &plan));
                    answer
                })
            }
        }
    }

    /// Plans a range. Later pages come back at the revision of the first: they find the index as it stood then.
    fn plan(&self, _: &Permitted, view: &Arc<View>, request: &RangeRequest) -> Result<RangePlan, RevisionError> {
        let query = range_query(request);
        if request.limit <= 0 && request.revision <= 0 {
            return view.plan(&query);
        }
        let kept = || self.kept.lock().expect("no one panics while holding kept indexes");
        let paged = kept().view_at(view, request.revision);
        let plan = paged.plan(&query)?;
        let has_more = usize::try_from(request.limit).is_ok_and(|limit| limit > 0 && plan.hits.len() > limit);
        if has_more && request.revision <= 0 {
            kept().keep(view);
        }
        Ok(plan)
    }

    /// Logs a read that took long, and counts one that is slow (etcd `WarnOfExpensiveReadOnlyRangeRequest`).
    fn tell_read(&self, steps: &Steps, detail: impl FnOnce() -> Detail) {
        if steps.tell_if_slow_read(self.slow_apply) {
            self.metrics.slow_apply_total.inc();
        }
        steps.tell_if_long(detail);
    }

    /// A range that came to an end, good or bad, as etcd counts it.
    fn count_range(&self, success: bool, started: Instant) {
        let elapsed = started.elapsed();
        self.metrics.range_total.inc();
        self.metrics.range_seconds.observe(success, elapsed);
        self.metrics.request_seconds.observe(Operation::Range, success, elapsed);
    }

    pub(super) fn put(self: &Arc<Self>, request: PutRequest, caller: &Caller) -> Reply {
        let (cost, checked) = (put_cost(&request), checks::check_put(&request));
        self.propose_within_quota(cost, checked, Kind::Put(request), caller)
    }

    pub(super) fn delete_range(self: &Arc<Self>, request: DeleteRangeRequest, caller: &Caller) -> Reply {
        match checks::check_delete_range(&request) {
            Ok(()) => self.propose(Kind::DeleteRange(request), caller),
            Err(status) => Reply::Ready(Err(status)),
        }
    }

    pub(super) fn txn(self: &Arc<Self>, request: TxnRequest, caller: Caller) -> Reply {
        let checked = checks::check_txn(&request, self.node.limits.txn_operations_max);
        match (txn_cost(&request), checked) {
            (0, Err(status)) => Reply::Ready(Err(status)),
            (0, Ok(())) if is_read_only(&request) => self.read_only_txn(request, caller),
            (0, Ok(())) => self.propose(Kind::Txn(request), &caller),
            (cost, checked) => self.propose_within_quota(cost, checked, Kind::Txn(request), &caller),
        }
    }

    /// Answers a transaction that only reads from a View, as a range. No alarm refuses it (etcd-contract 42, 43).
    fn read_only_txn(self: &Arc<Self>, request: TxnRequest, caller: Caller) -> Reply {
        let stale = read_txn::is_serializable(&request);
        let (started, mut steps) = (Instant::now(), Steps::begin("transaction"));
        let service = self.clone();
        Reply::keeping(request.encoded_len() + parts_bytes(&request), async move {
            let view = if stale { service.node.view() } else { service.linearizable_view().await? };
            steps.done(AGREEMENT);
            let detail = || Detail::default().with("read_only", true);
            // What only reads names no lease.
            let permitted = match service.ask(&caller, |asking| asking.may_txn(&request, &LeaseTable::default())) {
                Ok(permitted) => permitted,
                Err(status) => {
                    service.tell_read(&steps, detail);
                    return Err(status);
                }
            };
            let answer = service.evaluate_read_only(&permitted, &request, view).await;
            steps.done("read what it compares and shows");
            service.metrics.request_seconds.observe(Operation::ReadonlyTxn, answer.is_ok(), started.elapsed());
            service.tell_read(&steps, detail);
            answer
        })
    }

    async fn evaluate_read_only(&self, _: &Permitted, request: &TxnRequest, view: Arc<View>) -> Result<Chunks, Status> {
        let succeeded = self.compares_hold(request, &view).await?;
        let answer = read_txn::evaluate(request, &view, succeeded)?;
        // etcd counts a transaction where it does more than one thing.
        let ranges = answer.responses.len() as u64;
        self.metrics.range_total.inc_by(ranges);
        self.metrics.txn_total.inc_by(u64::from(ranges > 1));
        self.finish(&Answer::Txn(answer), view).await
    }

    /// Compare by compare: each may look at as many values as there are keys, which are held within the budget of answers.
    async fn compares_hold(&self, request: &TxnRequest, view: &Arc<View>) -> Result<bool, Status> {
        for compare in &request.compare {
            let needed = read_txn::needed_values(compare, view);
            let fetched = self.node.fetch(view.clone(), needed.clone(), Shown::Whole);
            let (values, _held) = self.node.within_budget(needed.len(), fetched).await?;
            if !read_txn::holds(compare, &**view, &mut Prefetched::of(&needed, values)) {
                return Ok(false);
            }
            if !compare.range_end.is_empty() {
                // After a walk over many keys others have their turn.
                tokio::task::yield_now().await;
            }
        }
        Ok(true)
    }

    pub(super) fn compact(self: &Arc<Self>, request: CompactionRequest, caller: &Caller) -> Reply {
        let (physical, mut steps) = (request.physical, Steps::begin("compact"));
        let reply = self.propose(Kind::Compaction(request), caller);
        let service = self.clone();
        match reply {
            Reply::Pending(answer) => Reply::later(async move {
                let answer = answer.await?;
                steps.done(PROCESSING);
                if physical {
                    service.node.compaction_finished().await?;
                    service.node.checkpoint().await?;
                    steps.done("physically apply compaction");
                }
                steps.tell_if_long(|| Detail::default().with("response_revision", service.node.view().revision));
                Ok(answer)
            }),
            other => other,
        }
    }

    /// Refuses what would go over the quota, and then arms NOSPACE for the whole cluster (etcd-contract 42); as in etcd that
    /// comes before what else is wrong with the request (`v3rpc/quota.go`), which `checked` says.
    pub(super) fn propose_within_quota(
        self: &Arc<Self>,
        cost: u64,
        checked: Result<(), Status>,
        kind: Kind,
        caller: &Caller,
    ) -> Reply {
        let used = self.node.gauges.db_size_in_use.load(Ordering::Relaxed);
        match u64::try_from(self.node.limits.quota_bytes) {
            Ok(quota) if used + cost >= quota => {
                // Who may not write this stops nobody's writes.
                if let Err(status) = self.may_ask_for(&kind, caller) {
                    return Reply::Ready(Err(status));
                }
                let service = self.clone();
                Reply::later(async move {
                    service.raise_no_space().await?;
                    Err(status::no_space())
                })
            }
            _ => match checked {
                Ok(()) => self.propose(kind, caller),
                Err(status) => Reply::Ready(Err(status)),
            },
        }
    }

    /// Whether a caller may have this ordered, by the newest users and roles; which keys hang on a lease only apply knows.
    fn may_ask_for(&self, kind: &Kind, caller: &Caller) -> Result<(), Status> {
        self.authorize(Policy::User, caller)?;
        let principal = self.principal(caller)?;
        Ok(self.node.auth.now().state.check(principal.as_ref(), kind, &LeaseTable::default())?)
    }

    pub(super) fn lease_cost() -> u64 {
        LEASE_BYTES
    }

    async fn raise_no_space(&self) -> Result<Completed, Status> {
        let request = AlarmRequest {
            action: alarm_request::AlarmAction::Activate as i32,
            member_id: self.node.identity.member_id,
            alarm: AlarmType::Nospace as i32,
        };
        let raised = self.node.propose(Kind::Alarm(request), Some(cluster_principal())).map_err(Status::from)?;
        self.within(raised).await
    }

    /// The messages of a RangeStream: chunks of keys, and header, more and count in the last (etcd-contract 18).
    pub(super) async fn range_stream(
        self: &Arc<Self>,
        request: &RangeRequest,
        caller: &Caller,
        out: &tokio::sync::mpsc::Sender<Result<Chunks, Status>>,
    ) -> Result<(), Status> {
        checks::check_range_stream(request)?;
        let view = if request.serializable { self.node.view() } else { self.linearizable_view().await? };
        let permitted = self.may_read(caller, &request.key, &request.range_end)?;
        let plan = self.plan(&permitted, &view, request)?;
        let header = self.header().at(plan.revision);
        // What they are sorted by stands in the values: they are gathered whole, as for a Range, before the first is sent. etcd
        // sorts each message by itself, and repeats keys in the next.
        let mut _held = None;
        let (mut source, more) = if request.sort_target() == range_request::SortTarget::Key {
            let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
            let hits = &plan.hits[..plan.hits.len().min(limit)];
            let source = StreamSource { service: self, request, view, hits, waiting: VecDeque::new() };
            (source, plan.hits.len() > limit)
        } else {
            let fetched = self.node.fetch(view.clone(), plan.hits.clone(), shown(request, plan.hits.len()));
            let (values, held) = self.node.within_budget(plan.hits.len(), fetched).await?;
            _held = Some(held);
            let sorted = plan.assemble(values).map_err(|_| Unavailable::Damaged)?;
            let waiting = sorted.key_values.into();
            (StreamSource { service: self, request, view, hits: &[], waiting }, sorted.more)
        };
        let mut keys = STREAM_KEYS_FIRST;
        loop {
            failpoints::hit_in_task(Point::BeforeRangeStreamChunk).await;
            let started = Instant::now();
            let values = source.next(keys).await?;
            // etcd reads anew for every message.
            self.metrics.range_total.inc();
            self.metrics.range_seconds.observe(true, started.elapsed());
            let mut chunk = Chunks::default();
            let last = source.is_empty();
            if last {
                chunk.nested(1, Chunks::of(&header));
            }
            values.iter().for_each(|value| chunk.shared(2, value));
            if last {
                chunk.number(3, u64::from(more));
                chunk.number(4, plan.count.cast_unsigned());
            }
            let bytes = chunk.len();
            let mut message = Chunks::default();
            message.nested(1, chunk);
            if out.send(Ok(message)).await.is_err() || last {
                return Ok(());
            }
            keys = next_stream_keys(keys, bytes, self.node.limits.request_bytes_max);
        }
    }
}

/// The values of a stream that were not sent yet.
struct StreamSource<'a> {
    service: &'a Service,
    request: &'a RangeRequest,
    view: Arc<View>,
    hits: &'a [Hit],
    /// Fetched; what did not fit into the last message.
    waiting: VecDeque<Bytes>,
}

impl StreamSource<'_> {
    /// The values of the next message: up to `keys`, fewer where their bytes come to those of the largest request. etcd
    /// looks at the number only, and sends gigabytes at once where large values come after many small ones.
    async fn next(&mut self, keys: usize) -> Result<Vec<Bytes>, Status> {
        let enough = self.service.node.limits.request_bytes_max;
        let (mut values, mut bytes) = (Vec::new(), 0);
        while values.len() < keys && bytes < enough && !self.is_empty() {
            if self.waiting.is_empty() {
                self.fetch(keys - values.len(), enough - bytes).await?;
            }
            let Some(value) = self.waiting.pop_front() else { break };
            bytes += value.len();
            values.push(value);
        }
        Ok(values)
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.hits.is_empty()
    }

    async fn fetch(&mut self, keys: usize, enough: usize) -> Result<(), Status> {
        let wanted = &self.hits[..self.hits.len().min(keys)];
        let shown = if self.request.keys_only { Shown::KeysOnly } else { Shown::Whole };
        let gather = Gather::new(self.view.clone(), wanted.to_vec(), shown, Limit::Stop(enough));
        self.waiting.extend(self.service.node.gather(gather).wait().await?);
        self.hits = &self.hits[self.waiting.len()..];
        Ok(())
    }
}

/// Keys of a list whose values may be in memory at once although it shows none.
const KEYS_ONLY_AT_ONCE: usize = 128;

/// Keys of a stream's first message (etcd `initialStreamChunkLimit`).
const STREAM_KEYS_FIRST: usize = 10;

/// Doubles or halves towards the target size of a message, as etcd does.
fn next_stream_keys(keys: usize, bytes: usize, target: usize) -> usize {
    match bytes {
        small if small < target / 2 => keys * 2,
        large if large > target * 2 => (keys / 2).max(1),
        _ => keys,
    }
}

/// What is kept of a stored value until the answer is put together. A long list of keys gives up its values as they come;
/// not where they are sorted by.
fn shown(request: &RangeRequest, hits: usize) -> Shown {
    let by_value = request.sort_target() == range_request::SortTarget::Value;
    if request.keys_only && !by_value && hits > KEYS_ONLY_AT_ONCE { Shown::KeysOnly } else { Shown::Whole }
}

fn put_cost(request: &PutRequest) -> u64 {
    PUT_OVERHEAD_BYTES + (request.key.len() + request.value.len()) as u64
}

/// The larger branch, nested ones included.
fn txn_cost(request: &TxnRequest) -> u64 {
    let branch = |ops: &[basalt_proto::etcdserverpb::RequestOp]| -> u64 {
        let op = |op: &basalt_proto::etcdserverpb::RequestOp| match &op.request {
            Some(Request::RequestPut(put)) => put_cost(put),
            Some(Request::RequestTxn(nested)) => txn_cost(nested),
            _ => 0,
        };
        ops.iter().map(op).sum()
    };
    branch(&request.success).max(branch(&request.failure))
}
