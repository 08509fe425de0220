//! The peer port: streams of other members, and questions to the leader. Everything else is refused with a line that says
//! what this port is.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use basalt_proto::peer::deliver_request::Kind;
use basalt_proto::peer::snapshot_request::Kind as SnapshotKind;
use basalt_proto::peer::{
    DeliverRequest, HashKvRequest, MembersRequest, MembersResponse, PingRequest, PingResponse, RenewLeaseRequest,
    RenewLeaseResponse, RenewLeasesRequest, RenewLeasesResponse, SnapshotPositionRequest, SnapshotRequest,
    SnapshotResponse, TimeToLiveRequest,
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use raft::prelude::Message;
use raft_prost::Message as _;
use tokio::sync::watch;
use tower_service::Service as TowerService;
use tracing::{info, warn};

use crate::api::chunks::Chunks;
use crate::api::grpc::{self, GrpcBody};
use crate::api::request_messages::RequestMessages;
use crate::api::service::{Service, decode};
use crate::api::status::{Code, Status};
use crate::edge::EdgeBody;
use crate::failpoints::{self, Point};
use crate::listen::{ClientConnection, RequestBody};
use crate::logging::{ForeignText, Reminder};
use crate::node::core::PROPOSAL_BYTES_MAX;
use crate::node::handle::unix_time_ns;
use crate::node::node_thread::NodeInput;
use crate::peer::frame::{Introduction, PartChecksum, Refused};
use crate::peer::{ArrivalError, Peers, RENEWALS_MAX, TAKES_LONGER};

/// Longest message of a stream: the largest entry with what is around it.
const MESSAGE_BYTES_MAX: usize = PROPOSAL_BYTES_MAX + (2 << 20);

/// How often a silent stream is looked at.
const MEMBERSHIP_CHECK: Duration = Duration::from_secs(1);

/// A sender that brings nothing for so long has stopped.
const PART_TIMEOUT: Duration = Duration::from_secs(30);

/// Where members have no certificates, whoever reaches the port may come as one: ten lines of a kind in ten seconds.
const LINES: u64 = 10;
static OPENED_STREAMS: Reminder = Reminder::new(LINES);
static REFUSED_STREAMS: Reminder = Reminder::new(LINES);
static REFUSED_STATES: Reminder = Reminder::new(LINES);
static MEMBERS_OF_ETCD: Reminder = Reminder::new(LINES);

const DELIVER: &str = "/basalt.peer.v1.Peer/Deliver";
const SNAPSHOT: &str = "/basalt.peer.v1.Peer/Snapshot";
const SNAPSHOT_POSITION: &str = "/basalt.peer.v1.Peer/SnapshotPosition";
const MEMBERS: &str = "/basalt.peer.v1.Peer/Members";
const RENEW_LEASE: &str = "/basalt.peer.v1.Peer/RenewLease";
const RENEW_LEASES: &str = "/basalt.peer.v1.Peer/RenewLeases";
const TIME_TO_LIVE: &str = "/basalt.peer.v1.Peer/TimeToLive";
const PING: &str = "/basalt.peer.v1.Peer/Ping";
const HASH_KV: &str = "/basalt.peer.v1.Peer/HashKv";

/// The service of the peer port.
#[derive(Clone)]
pub struct PeerEdge {
    /// Who may come.
    pub peers: Arc<Peers>,
    /// For questions.
    pub service: Arc<Service>,
    /// True once other members are heard no more.
    pub stopping: watch::Receiver<bool>,
}

impl PeerEdge {
    async fn answer(self, request: Request<RequestBody>) -> Response<GrpcBody> {
        let answered = match request.uri().path() {
            DELIVER => match self.deliver(request).await {
                // The sender went away.
                Ok(()) => Ok(Chunks::default()),
                Err(refused) => {
                    if let Some(times) = REFUSED_STREAMS.due() {
                        warn!(%refused, times, "refused a stream between members");
                    }
                    // It is to know, and to stop.
                    let is_expelled = matches!(refused, Refused::Removed(_) | Refused::Wiped(_));
                    let code = if is_expelled { Code::PermissionDenied } else { Code::FailedPrecondition };
                    Err(Status::new(code, refused.to_string()))
                }
            },
            SNAPSHOT => self.take_snapshot(request).await,
            SNAPSHOT_POSITION => self.snapshot_position(request).await,
            MEMBERS => self.members(request).await,
            RENEW_LEASE => self.renew_lease(request).await,
            RENEW_LEASES => self.renew_leases(request).await,
            TIME_TO_LIVE => self.time_to_live(request).await,
            PING => self.ping(request).await,
            HASH_KV => self.hash_kv(request).await,
            path => Err(Status::new(Code::Unimplemented, format!("basalt: {path} is not served to members"))),
        };
        grpc::answer(answered)
    }

    async fn renew_lease(&self, request: Request<RequestBody>) -> Result<Chunks, Status> {
        failpoints::hit_in_task(Point::BeforeServeHttpLeaseRenew).await;
        let request: RenewLeaseRequest = decode(one_message(request).await?)?;
        self.expect_cluster(request.cluster_id)?;
        let ttl = self.service.renew_here(request.id).await?;
        Ok(Chunks::of(&RenewLeaseResponse { ttl }))
    }

    async fn renew_leases(&self, request: Request<RequestBody>) -> Result<Chunks, Status> {
        failpoints::hit_in_task(Point::BeforeServeHttpLeaseRenew).await;
        let RenewLeasesRequest { cluster_id, ids } = decode(one_message(request).await?)?;
        self.expect_cluster(cluster_id)?;
        if ids.len() > RENEWALS_MAX {
            return Err(Status::new(Code::InvalidArgument, format!("more than {RENEWALS_MAX} leases in one call")));
        }
        let renewed = self.service.renew_at_once(&ids).await?;
        let ttls = renewed.into_iter().map(|ttl| ttl.unwrap_or(TAKES_LONGER)).collect();
        Ok(Chunks::of(&RenewLeasesResponse { ttls }))
    }

    async fn time_to_live(&self, request: Request<RequestBody>) -> Result<Chunks, Status> {
        failpoints::hit_in_task(Point::BeforeLookupWhenForwardLeaseTimeToLive).await;
        let request: TimeToLiveRequest = decode(one_message(request).await?)?;
        self.expect_cluster(request.cluster_id)?;
        let answer = self.service.time_to_live_here(request.request.unwrap_or_default()).await?;
        Ok(Chunks::of(&answer))
    }

    async fn ping(&self, request: Request<RequestBody>) -> Result<Chunks, Status> {
        let request: PingRequest = decode(one_message(request).await?)?;
        self.expect_cluster(request.cluster_id)?;
        Ok(Chunks::of(&PingResponse { time_unix_ns: unix_time_ns() }))
    }

    async fn hash_kv(&self, request: Request<RequestBody>) -> Result<Chunks, Status> {
        let request: HashKvRequest = decode(one_message(request).await?)?;
        self.expect_cluster(request.cluster_id)?;
        let answer = self.service.hash_kv_here(request.request.unwrap_or_default().revision).await?;
        Ok(Chunks::of(&answer))
    }

    /// Whoever asks to join is no member yet, and must be told of the newest ones.
    async fn members(self, request: Request<RequestBody>) -> Result<Chunks, Status> {
        let MembersRequest { as_known } = decode(one_message(request).await?)?;
        if !as_known {
            self.service.linearizable_view().await?;
        }
        let node = &self.service.node;
        let membership = node.members.load().membership().clone();
        Ok(Chunks::of(&MembersResponse {
            cluster_id: node.identity.cluster_id,
            membership: Some(membership),
            shards: node.view().shard_map.to_string(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    async fn snapshot_position(&self, request: Request<RequestBody>) -> Result<Chunks, Status> {
        let request: SnapshotPositionRequest = decode(one_message(request).await?)?;
        self.expect_cluster(request.cluster_id)?;
        Ok(Chunks::of(&self.peers.arrivals.position(request.snapshot_id)))
    }

    fn expect_cluster(&self, found: u64) -> Result<(), Status> {
        let own = self.service.node.identity.cluster_id;
        if found == own {
            return Ok(());
        }
        Err(Status::new(Code::FailedPrecondition, Refused::Cluster { own, found }.to_string()))
    }
}

async fn one_message(request: Request<RequestBody>) -> Result<Bytes, Status> {
    let message = RequestMessages::new(request.into_body(), MESSAGE_BYTES_MAX).next().await?;
    message.ok_or_else(|| Status::new(Code::Internal, "a call without a request"))
}

impl PeerEdge {
    /// Hears one stream, to its end.
    async fn deliver(&self, request: Request<RequestBody>) -> Result<(), Refused> {
        let mut requests = RequestMessages::new(request.into_body(), MESSAGE_BYTES_MAX);
        let Some(hello) = next(&mut requests).await? else { return Ok(()) };
        let peers = &self.peers;
        let (cluster_id, own) = (peers.identity.cluster_id, peers.identity.member_id);
        let Some(Kind::Hello(hello)) = hello.kind else { return Err(Refused::NoHello) };
        let introduction = Introduction::read_hello(&hello, cluster_id, own, &peers.members_for(hello.from))?;
        peers.introduced(&hello);
        if !peers.is_first_incarnation(introduction.from, introduction.incarnation) {
            return Err(Refused::Second(introduction.from));
        }
        let mut refusals = peers.refusals(introduction.from);
        let mut stopping = self.stopping.clone();
        let meters = peers.received_from(introduction.from);
        if let Some(times) = OPENED_STREAMS.due() {
            info!(member_id = format_args!("{:x}", introduction.from), times, "a member opened a stream");
        }
        loop {
            let request = tokio::select! {
                biased;
                _ = refusals.changed() => {
                    meters.failed();
                    let cause = refusals.borrow().clone();
                    return Err(Refused::Impossible(cause.unwrap_or_default()));
                }
                // A stream never ends by itself; nor does it outlive who could say so.
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                request = next(&mut requests) => request.inspect_err(|_| meters.failed())?,
                // One that was removed may say nothing more, and is to know.
                () = tokio::time::sleep(MEMBERSHIP_CHECK) => {
                    if peers.has_removed(introduction.from) {
                        return Err(Refused::Removed(introduction.from));
                    }
                    continue;
                }
            };
            let Some(request) = request else { return Ok(()) };
            if peers.has_removed(introduction.from) {
                return Err(Refused::Removed(introduction.from));
            }
            for message in introduction.messages(request).inspect_err(|_| meters.failed())? {
                meters.received(message.encoded_len());
                // The node thread is gone only when the process is about to be.
                let room = peers.room_for(message.encoded_len()).await;
                drop(peers.node.send(NodeInput::Message(Box::new(message), room)));
            }
        }
    }
}

/// Why a whole state of another member is not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Arrival(#[from] ArrivalError),
    #[error("nothing came for {} s", PART_TIMEOUT.as_secs())]
    Stalled,
    #[error("the stream ended before the state was whole")]
    CutOff,
}

impl PeerEdge {
    /// On a task of its own: what has arrived must not go down with a connection.
    async fn take_snapshot(self, request: Request<RequestBody>) -> Result<Chunks, Status> {
        let taken = tokio::spawn(async move { self.snapshot(request).await });
        match taken.await {
            Ok(Ok(())) => Ok(Chunks::of(&SnapshotResponse {})),
            Ok(Err(cause)) => {
                if let Some(times) = REFUSED_STATES.due() {
                    warn!(%cause, times, "the state of another member is not taken");
                }
                Err(Status::new(Code::FailedPrecondition, cause.to_string()))
            }
            Err(_) => Err(Status::new(Code::Unavailable, "this member stops")),
        }
    }

    /// Hears one stream that brings a state.
    async fn snapshot(&self, request: Request<RequestBody>) -> Result<(), NotTaken> {
        let mut requests = RequestMessages::new(request.into_body(), MESSAGE_BYTES_MAX);
        let Some(SnapshotKind::Opening(opening)) = next_part(&mut requests).await? else {
            return Err(Refused::NoHello.into());
        };
        let peers = &self.peers;
        let (cluster_id, own) = (peers.identity.cluster_id, peers.identity.member_id);
        let hello = opening.hello.unwrap_or_default();
        let introduction = Introduction::read_hello(&hello, cluster_id, own, &peers.members.load())?;
        if !peers.is_first_incarnation(introduction.from, introduction.incarnation) {
            return Err(Refused::Second(introduction.from).into());
        }
        let message = Message::decode(&*opening.message).map_err(|_| Refused::Malformed)?;
        if message.from != introduction.from || message.to != own {
            return Err(Refused::Foreign.into());
        }
        let meters = peers.state_from(introduction.from);
        let mut arrival = peers.arrivals.begin(opening.snapshot_id, message)?;
        let mut checksum = PartChecksum::new(opening.snapshot_id);
        loop {
            let Some(SnapshotKind::Part(part)) = next_part(&mut requests).await? else {
                return Err(Refused::Malformed.into());
            };
            if checksum.add(&part.chunk) != part.crc {
                return Err(Refused::Checksum.into());
            }
            meters.part(part.chunk.len());
            if arrival.take(part.chunk).await? {
                meters.arrived();
                return Ok(());
            }
        }
    }
}

async fn next_part(requests: &mut RequestMessages<RequestBody>) -> Result<Option<SnapshotKind>, NotTaken> {
    let message = tokio::time::timeout(PART_TIMEOUT, requests.next()).await.map_err(|_| NotTaken::Stalled)?;
    let Ok(Some(message)) = message else { return Err(NotTaken::CutOff) };
    let request: SnapshotRequest = decode(message).map_err(|_| Refused::Malformed)?;
    Ok(request.kind)
}

/// The next message; `None` at the end, also at one that the network made.
async fn next(requests: &mut RequestMessages<RequestBody>) -> Result<Option<DeliverRequest>, Refused> {
    match requests.next().await {
        Ok(Some(message)) => decode(message).map(Some).map_err(|_| Refused::Malformed),
        Ok(None) => Ok(None),
        Err(status) if status.code == Code::ResourceExhausted => Err(Refused::Malformed),
        Err(_) => Ok(None),
    }
}

impl TowerService<Request<RequestBody>> for PeerEdge {
    type Response = Response<EdgeBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        if grpc::is_grpc(&request) {
            let edge = self.clone();
            return Box::pin(async move { Ok(edge.answer(request).await.map(EdgeBody::Grpc)) });
        }
        let remote = request.extensions().get::<ClientConnection>().and_then(|client| client.remote_address);
        let path = request.uri().path();
        if (path.starts_with("/raft") || path == "/members")
            && let Some(times) = MEMBERS_OF_ETCD.due()
        {
            let (remote, path) = (remote.map(|remote| remote.to_string()).unwrap_or_default(), ForeignText(path));
            warn!(remote, %path, times, "refused a member of etcd: it cannot be one of a basalt cluster");
        }
        let text = "basalt: this port is for members of a basalt cluster; etcd's cannot be among them\n";
        let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = StatusCode::NOT_FOUND;
        Box::pin(std::future::ready(Ok(response.map(EdgeBody::Page))))
    }
}
