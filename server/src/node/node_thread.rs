//! The node thread: carries the inputs and outputs of [`Core`], and proposes what time brings: ends of leases and their
//! checkpoints.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest};
use basalt_proto::log::Request;
use basalt_proto::log::request::Kind;
use basalt_storage::checkpoint::Filled;
use basalt_storage::mvcc::shard_map::ShardMap;
use raft::prelude::{ConfChangeV2, Message, MessageType};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::{info, warn};

use super::apply_thread::ApplyInput;
use super::core::{Append, BadMessage, Core, Input, Leadership, Output};
use super::fatal;
use super::handle::{ApplyRequest, Expelled, Gauges, Unavailable, unix_time_ns};
use super::read_queue::{ReadQueue, ReadWaiters};
use super::waiters::Waiters;
use crate::admission::{Gate, Proposal};
use crate::apply::auth::check::cluster_principal;
use crate::apply::machine::Machine;
use crate::failpoints::{self, Point};
use crate::lease::{LeaseClock, REVOKES_IN_FLIGHT_MAX};
use crate::metrics::Metrics;
use crate::transfer::MemberSnapshot;
use crate::watch;

/// Leases that may be ended in one tick. With ticks of 100 ms, 100,000 that expire together are gone within 15 seconds.
const LEASES_PER_TICK: usize = REVOKES_IN_FLIGHT_MAX;

/// Ids of requests that nobody waits for.
pub(super) const ID_NOBODY: u64 = 0;

/// What reaches the node thread.
#[derive(Debug)]
pub enum NodeInput {
    /// A caller's request, or one of the node itself, that the gate knows of.
    Propose(Proposal),
    /// An append is durable.
    Persisted(u64),
    /// Apply has come this far.
    Applied(u64),
    /// A checkpoint holds everything up to here.
    Release(u64),
    /// Another member says something. What it may have waiting here is bounded by bytes; the permit ends with the message.
    Message(Box<Message>, OwnedSemaphorePermit),
    /// This member belongs to the cluster no more.
    Expelled(Expelled),
    /// This member was removed, says another one, which has that in a checkpoint.
    Told {
        /// Who.
        by: u64,
    },
    /// A message to this member was lost here.
    Unreachable(u64),
    /// An applied entry changed who votes or who gets entries.
    ConfChange(Box<ConfChangeV2>),
    /// All members apply by these rules from now on.
    ApplyVersion(u32),
    /// A whole state of another member has arrived.
    Received(Box<Received>),
    /// It is this member's state.
    Installed,
    /// A state for this member, which lacks what the log holds no more.
    SnapshotMade(u64, Arc<MemberSnapshot>),
    /// It is on its way no more; whether it arrived.
    SnapshotSent(u64, bool),
    /// Callers that want to read what was acknowledged before now wait in [`NodeLinks::reads`].
    Reads,
    /// Another member shall lead.
    Transfer(u64),
    /// Whoever is fit shall lead: this node is about to stop.
    HandOver,
    /// Others are reached, and no leader is known: the first election may come soon.
    AdvanceElection,
    /// Stop now.
    Stop,
}

/// A state of another member that is durable beside this one's.
pub struct Received {
    /// What goes to Raft.
    pub message: Message,
    /// The files.
    pub filled: Filled,
    /// Hears what became of it: nothing if it is installed, or the files if nobody needs them.
    pub ended: oneshot::Sender<Option<Filled>>,
}

impl std::fmt::Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Received").field("applied", &self.filled.applied()).finish_non_exhaustive()
    }
}

/// The way to other members. Nothing in it waits.
pub trait Outgoing: Send + Sync {
    /// Brings messages to their receivers, or loses them.
    fn send(&self, messages: Vec<Message>);
    /// Brings a whole state to the receiver of `message`, then the message; [`NodeInput::SnapshotSent`] follows.
    fn send_snapshot(&self, message: Message, snapshot: Arc<MemberSnapshot>);
    /// This member said what cannot be: what came from it ends.
    fn refuse(&self, from: u64, cause: &BadMessage);
}

/// Where the node thread's outputs go.
pub struct NodeLinks {
    /// The log thread.
    pub log: Sender<LogInput>,
    /// The apply thread.
    pub apply: Sender<ApplyInput>,
    /// Lease ends.
    pub leases: Arc<Mutex<LeaseClock>>,
    /// Callers, some of whom give up before their turn.
    pub waiters: Arc<Waiters>,
    /// Those who want to read.
    pub reads: Arc<ReadQueue>,
    /// Hears what has left the queue.
    pub gate: Arc<Gate>,
    /// How proposals are classed.
    pub shards: Arc<ShardMap>,
    /// Back to the node thread.
    pub node: Sender<NodeInput>,
    /// Other members.
    pub peers: Arc<dyn Outgoing>,
    /// Figures.
    pub gauges: Arc<Gauges>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// This cluster's id.
    pub cluster_id: u64,
    /// Hears when this member is one no more.
    pub expelled: tokio::sync::watch::Sender<Option<Expelled>>,
    /// The watch thread.
    pub watches: Sender<watch::Input>,
    /// The beginning of the node's clock.
    pub started: Instant,
    /// Time between ticks (`--heartbeat-interval`).
    pub tick: Duration,
    /// What a new leader adds to every lease (`--election-timeout`, etcd-contract 37).
    pub lease_extension: Duration,
}

/// What reaches the log thread.
#[derive(Debug)]
pub enum LogInput {
    /// Make this durable.
    Append(Append),
    /// Everything up to this index is in a durable checkpoint.
    Release(u64),
    /// The next segment is ready.
    Prepared(basalt_storage::wal::Prepared),
    /// There was no space for it.
    NotPrepared,
    /// Stop now.
    Stop,
}

/// Works until told to stop or until the handle is gone.
pub fn serve(mut core: Core, links: &NodeLinks, inbox: &Receiver<NodeInput>) {
    let _ends = EndOfReads(&links.reads);
    let mut outputs = Vec::new();
    let mut next_tick = Instant::now() + links.tick;
    let mut reads = ReadWaiters::default();
    let mut snapshots = Snapshots::default();
    core.start(&mut outputs).unwrap_or_else(|cause| fatal::stop("starting consensus", &cause));
    links.gauges.committed_index.store(core.committed(), Ordering::Relaxed);
    carry(&mut outputs, &mut reads, &mut snapshots, links);
    loop {
        let wait = next_tick.saturating_duration_since(Instant::now());
        let first = match inbox.recv_timeout(wait) {
            Ok(NodeInput::Stop) | Err(RecvTimeoutError::Disconnected) => return drop(links.log.send(LogInput::Stop)),
            Ok(input) => Some(input),
            Err(RecvTimeoutError::Timeout) => None,
        };
        let (mut proposals, mut inputs) = (Vec::new(), Vec::new());
        for input in first.into_iter().chain(inbox.try_iter()) {
            match input {
                NodeInput::Propose(proposal) => proposals.push(proposal),
                NodeInput::Persisted(number) => inputs.push(Input::Persisted(number)),
                NodeInput::Applied(index) => inputs.push(Input::Applied(index)),
                // The log thread is gone only when the process is about to be; so with all sends here.
                NodeInput::Release(index) => drop(links.log.send(LogInput::Release(index))),
                NodeInput::Message(message, _permit) => inputs.push(Input::Message(message)),
                NodeInput::Unreachable(member) => inputs.push(Input::Unreachable(member)),
                // Whoever waits for it may be gone: the process is stopping.
                NodeInput::Expelled(cause) => _ = links.expelled.send(Some(cause)),
                NodeInput::Told { by } => inputs.push(Input::Told { by }),
                NodeInput::ConfChange(change) => inputs.push(Input::ConfChange(change)),
                NodeInput::Received(received) => inputs.extend(snapshots.received(*received)),
                NodeInput::ApplyVersion(version) => inputs.push(Input::ApplyVersion(version)),
                NodeInput::Installed => inputs.push(snapshots.installed()),
                NodeInput::SnapshotMade(to, snapshot) => inputs.push(snapshots.made(to, snapshot)),
                NodeInput::SnapshotSent(to, arrived) => inputs.push(Input::SnapshotSent { to, arrived }),
                // They are taken below, as soon as they may be asked for.
                NodeInput::Reads => {}
                NodeInput::HandOver => inputs.push(Input::HandOver),
                NodeInput::AdvanceElection => inputs.push(Input::AdvanceElection),
                NodeInput::Transfer(member) => inputs.push(Input::Transfer(member)),
                NodeInput::Stop => return drop(links.log.send(LogInput::Stop)),
            }
        }
        if Instant::now() >= next_tick {
            mind_late_tick(&core, next_tick, links);
            next_tick = Instant::now() + links.tick;
            *links.gauges.lags.lock().expect("no one panics while holding lags") = core.lags();
            inputs.push(Input::Tick);
            // Nobody would hear of the answer, and the client may have tried again.
            core.retain_queued(|request| !links.waiters.forget_gone(request.id));
            core.retain_reads(|read| !reads.forget_gone(read));
            links.reads.forget_gone();
            if core.leads() {
                proposals.extend(lease_proposals(links));
            }
        }
        // First of all, so that they are in the round that a finished append lets begin.
        if !proposals.is_empty() {
            step(&mut core, Input::Propose { proposals, time_unix_ns: unix_time_ns() }, &mut outputs);
        }
        inputs.into_iter().for_each(|input| step(&mut core, input, &mut outputs));
        take_reads(&mut core, &mut reads, links, &mut outputs);
        links.gate.set_left(core.left_queue());
        links.metrics.raft_log_entries.set(i64::try_from(core.entries_in_memory()).unwrap_or(i64::MAX));
        // Before others hear of it: what they apply and tell then is not above it.
        links.gauges.committed_index.store(core.committed(), Ordering::Relaxed);
        links.gauges.single_voter.store(core.is_single_voter(), Ordering::Relaxed);
        carry(&mut outputs, &mut reads, &mut snapshots, links);
        failpoints::hit(Point::RaftBeforeAdvance);
    }
}

/// A tick of a leader is a heartbeat to every other member. One that is late by more than a tick says that this thread
/// had too much to do (etcd counts heartbeats that leave after more than twice their interval).
fn mind_late_tick(core: &Core, due: Instant, links: &NodeLinks) {
    let late = due.elapsed();
    if core.leads() && !core.is_single_voter() && late > links.tick {
        let (exceeded_ms, expected_ms) = (late.as_millis() as u64, links.tick.as_millis() as u64);
        warn!(
            expected_ms,
            exceeded_ms, "leader failed to send out heartbeat on time; took too long, leader is overloaded"
        );
        links.metrics.heartbeat_send_failures_total.inc();
    }
}

fn step(core: &mut Core, input: Input, outputs: &mut Vec<Output>) {
    core.step(input, outputs).unwrap_or_else(|cause| fatal::stop("consensus", &cause));
}

/// Takes the reads that came while the leader was being asked, unless it still is.
fn take_reads(core: &mut Core, reads: &mut ReadWaiters, links: &NodeLinks, outputs: &mut Vec<Output>) {
    // A leader that votes alone answers at once: then those who came meanwhile are to be taken too.
    while core.may_take_reads() {
        let waiters = links.reads.take();
        if waiters.is_empty() {
            return;
        }
        step(core, Input::Reads(waiters.into_iter().map(|waiter| reads.add(waiter)).collect()), outputs);
    }
}

/// However the node thread ends, nobody waits for it any more.
struct EndOfReads<'a>(&'a ReadQueue);

impl Drop for EndOfReads<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn carry(outputs: &mut Vec<Output>, reads: &mut ReadWaiters, snapshots: &mut Snapshots, links: &NodeLinks) {
    for output in outputs.drain(..) {
        match output {
            Output::Append(append) => drop(links.log.send(LogInput::Append(append))),
            Output::Apply(committed) => {
                drop(links.apply.send(ApplyInput::Committed(committed)));
            }
            Output::Lost(requests) => requests.into_iter().for_each(|request| ask_again(request, links)),
            Output::Send(messages) => send(messages, links),
            Output::SnapshotWanted(to) => make_snapshot(to, links),
            Output::SendSnapshot(message) => snapshots.send(*message, links),
            Output::Install(_) => {
                let filled = snapshots.take_received();
                drop(links.apply.send(ApplyInput::Install(Box::new(filled))));
            }
            Output::Discard => snapshots.discard(),
            Output::DiskTooSlow { to } => {
                links.metrics.slow_disk_hand_overs_total.inc();
                let to = format_args!("{to:x}");
                warn!(to, "the log's disk is slower than those of other members: one of them is to lead");
            }
            // Whoever waits for it may be gone: the process is stopping.
            Output::Left => _ = links.expelled.send(Some(Expelled::Removed)),
            Output::Role(leadership) => change_role(leadership, links),
            Output::ReadsReady(ready) => reads.answer(&ready, Ok(())),
            Output::ReadsFailed(failed) => {
                links.metrics.read_indexes_failed_total.inc();
                reads.answer(&failed, Err(Unavailable::LeaderChanged));
            }
            Output::Refused { from, cause } => {
                warn!(from = format_args!("{from:x}"), %cause, "a member said what cannot be; its stream ends");
                links.peers.refuse(from, &cause);
            }
        }
    }
}

fn send(mut messages: Vec<Message>, links: &NodeLinks) {
    let leads = links.gauges.leads.load(Ordering::Relaxed);
    failpoints::hit(if leads { Point::RaftBeforeLeaderSend } else { Point::RaftBeforeFollowerSend });
    let is_heartbeat = |message: &Message| {
        matches!(message.get_msg_type(), MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse)
    };
    messages.retain(|message| !is_heartbeat(message) || !failpoints::fails(Point::RaftDropHeartbeat));
    links.peers.send(messages);
}

/// Has apply take its state between two batches.
fn make_snapshot(to: u64, links: &NodeLinks) {
    let (node, cluster_id) = (links.node.clone(), links.cluster_id);
    let question = move |machine: &mut Machine| {
        let snapshot = Arc::new(MemberSnapshot::of(machine, cluster_id));
        drop(node.send(NodeInput::SnapshotMade(to, snapshot)));
    };
    drop(links.apply.send(ApplyInput::Request(ApplyRequest::Ask(Box::new(question)))));
}

/// Whole states on their way.
#[derive(Default)]
struct Snapshots {
    /// By receiver, until Raft has them sent.
    outgoing: HashMap<u64, Arc<MemberSnapshot>>,
    /// Arrived, and not yet wanted or refused by Raft; then only who waits for its end.
    incoming: Option<Incoming>,
}

struct Incoming {
    filled: Option<Filled>,
    ended: oneshot::Sender<Option<Filled>>,
}

impl Snapshots {
    fn made(&mut self, to: u64, snapshot: Arc<MemberSnapshot>) -> Input {
        let offered = Box::new(snapshot.raft_snapshot());
        self.outgoing.insert(to, snapshot);
        Input::SnapshotOffer { to, snapshot: offered }
    }

    fn send(&mut self, message: Message, links: &NodeLinks) {
        let announced = message.get_snapshot().get_metadata().index;
        match self.outgoing.remove(&message.to).filter(|made| made.position().index == announced) {
            Some(snapshot) => links.peers.send_snapshot(message, snapshot),
            // Another one was made since: Raft asks again.
            None => drop(links.node.send(NodeInput::SnapshotSent(message.to, false))),
        }
    }

    /// One at a time: another one is not looked at.
    fn received(&mut self, received: Received) -> Option<Input> {
        let Received { message, filled, ended } = received;
        if self.incoming.is_some() {
            // Who waits for it may be gone.
            _ = ended.send(Some(filled));
            return None;
        }
        self.incoming = Some(Incoming { filled: Some(filled), ended });
        Some(Input::Received(Box::new(message)))
    }

    fn take_received(&mut self) -> Filled {
        let incoming = self.incoming.as_mut().expect("the core installs what was received");
        incoming.filled.take().expect("the core installs it once")
    }

    fn discard(&mut self) {
        if let Some(Incoming { filled, ended }) = self.incoming.take() {
            _ = ended.send(filled);
        }
    }

    fn installed(&mut self) -> Input {
        if let Some(Incoming { ended, .. }) = self.incoming.take() {
            _ = ended.send(None);
        }
        Input::Installed
    }
}

/// A leader is gone with what it should have ordered.
fn ask_again(request: Request, links: &NodeLinks) {
    let is_gone = request.id != ID_NOBODY && links.waiters.forget_gone(request.id);
    if !is_gone {
        let proposal = Proposal::new(request, &links.shards);
        links.gate.enter(&proposal);
        // To itself: it takes it with its next turn.
        drop(links.node.send(NodeInput::Propose(proposal)));
    }
}

fn change_role(leadership: Leadership, links: &NodeLinks) {
    let Leadership { leads, term, leader } = leadership;
    links.gauges.term.store(term, Ordering::Relaxed);
    let followed = links.gauges.leader.swap(leader, Ordering::Relaxed);
    let led = links.gauges.leads.swap(leads, Ordering::Relaxed);
    drop(links.watches.send(watch::Input::Term(term)));
    info!(leads, term, leader = format_args!("{leader:x}"), "raft role changed");
    if followed != leader && leader != 0 {
        links.metrics.leader_changes_total.inc();
        let now_ns = u64::try_from(links.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        links.gauges.leader_since_ns.store(now_ns.max(1), Ordering::Relaxed);
    }
    if led == leads {
        return;
    }
    let (clock, started, extension) = (links.leases.clone(), links.started, links.lease_extension);
    // Leases are the apply thread's to know; it promotes the clock when it has come to this point.
    let question = move |machine: &mut Machine| {
        let table = machine.leases().iter().map(|(id, record)| (id, record.ttl, record.remaining_ttl));
        let mut clock = clock.lock().expect("no one panics while holding the lease clock");
        if leads { clock.promote(table, started.elapsed(), extension) } else { clock.demote() }
    };
    let request = ApplyRequest::Ask(Box::new(question));
    drop(links.apply.send(ApplyInput::Request(request)));
}

/// Ends of leases and remainders worth remembering, as proposals.
fn lease_proposals(links: &NodeLinks) -> Vec<Proposal> {
    let now = links.started.elapsed();
    let mut clock = links.leases.lock().expect("no one panics while holding the lease clock");
    let revoke = |id| Kind::LeaseRevoke(LeaseRevokeRequest { id });
    let mut kinds: Vec<_> = clock.expired(now, LEASES_PER_TICK).into_iter().map(revoke).collect();
    let checkpoints = clock.checkpoints(now, LEASES_PER_TICK).into_iter();
    let checkpoints: Vec<_> = checkpoints.map(|(id, remaining_ttl)| LeaseCheckpoint { id, remaining_ttl }).collect();
    if !checkpoints.is_empty() {
        kinds.push(Kind::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints }));
    }
    let proposal = |kind| {
        let request = Request { id: ID_NOBODY, principal: Some(cluster_principal()), kind: Some(kind) };
        let proposal = Proposal::new(request, &links.shards);
        links.gate.enter(&proposal);
        proposal
    };
    kinds.into_iter().map(proposal).collect()
}
