//! All other members, by id.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use basalt_proto::peer::Hello;
use basalt_proto::peer::peer_client::PeerClient;
use raft::prelude::{Message, MessageType};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::AbortHandle;
use tonic::transport::Channel;

use super::arrivals::Arrivals;
use super::connect::PeerConnector;
use super::departure::Departure;
use super::frame::{Introduction, protocol_of};
use super::lane::{Destination, Kind, Lane};
use super::meters::{MemberMeters, ReceivedMeters, StateMeters};
use super::renewals::Renewals;
use crate::apply::members::Members;
use crate::metrics::Metrics;
use crate::node::core::BadMessage;
use crate::node::handle::Identity;
use crate::node::node_thread::{NodeInput, Outgoing};
use crate::node::readers::Readers;
use crate::node::start::Inbound;
use crate::transfer::MemberSnapshot;

/// What all members together may have waiting for the node thread: some of the largest messages.
const INBOUND_KIBIBYTES_MAX: u32 = 128 << 10;

/// What all of a state's stream may bring in a second: a disk and a network that also serve others.
const SNAPSHOT_BYTES_PER_SECOND: u64 = 128 << 20;

/// How long a member that was removed is still told what was said before.
const FAREWELL: Duration = Duration::from_secs(5);

/// Members that one may not know yet.
const STRANGERS_MAX: usize = 64;

/// The way to other members, and what is known of those who come.
pub struct Peers {
    /// Who this member is.
    pub identity: Identity,
    /// Who belongs to the cluster.
    pub members: Arc<ArcSwap<Members>>,
    pub(super) metrics: Arc<Metrics>,
    /// Takes what members say.
    pub node: Sender<NodeInput>,
    pub(super) connector: PeerConnector,
    incarnation: u128,
    pub(super) runtime: Handle,
    ways: Mutex<Ways>,
    /// Connections for questions.
    pub(super) asked: tokio::sync::Mutex<HashMap<u64, PeerClient<Channel>>>,
    pub(super) renewals: Renewals,
    /// By member, why its streams are to end.
    refused: Mutex<HashMap<u64, watch::Sender<Option<String>>>>,
    /// What members said and the node has not taken yet, in KiB.
    inbound: Arc<Semaphore>,
    /// The first incarnation of each member that was heard here.
    heard: Mutex<HashMap<u64, u128>>,
    /// Where members are reached that this one does not know yet.
    strangers: Mutex<HashMap<u64, Vec<String>>>,
    /// Page reads for states that leave.
    readers: Readers,
    /// States on their way, by receiver: a newer one takes the place of an older. How many bytes are on it.
    departures: Mutex<HashMap<u64, (AbortHandle, Arc<AtomicU64>)>>,
    /// Where those of others arrive.
    pub arrivals: Arrivals,
}

/// Lanes by member, made when there is something to send.
#[derive(Default)]
struct Ways {
    lanes: HashMap<u64, Lanes>,
    /// Who belonged to the cluster when they were looked through last.
    made_for: Arc<Members>,
}

struct Lanes {
    urls: Vec<String>,
    /// When they end, if the member was removed.
    ends: Option<Instant>,
    urgent: Lane,
    entries: Lane,
}

impl Peers {
    /// The way to the members that `inbound` names.
    pub fn new(inbound: Inbound, connector: PeerConnector, runtime: Handle, metrics: Arc<Metrics>) -> Self {
        let arrivals = Arrivals::new(inbound.disk, inbound.manifest, inbound.node.clone(), metrics.clone());
        Self {
            arrivals,
            departures: Mutex::default(),
            strangers: Mutex::default(),
            readers: inbound.readers,
            identity: inbound.identity,
            members: inbound.members,
            metrics,
            node: inbound.node,
            connector,
            incarnation: inbound.incarnation,
            runtime,
            ways: Mutex::default(),
            asked: tokio::sync::Mutex::default(),
            renewals: Renewals::default(),
            refused: Mutex::default(),
            inbound: Arc::new(Semaphore::new(INBOUND_KIBIBYTES_MAX as usize)),
            heard: Mutex::default(),
        }
    }

    /// The members by which `id` is heard or not. One that was removed is heard, as what it was, until the last checkpoint knows of
    /// that: it may have the vote that is needed (decision 0027).
    pub fn members_for(&self, id: u64) -> Arc<Members> {
        let members = self.members.load_full();
        if members.is_removed(id) { Arc::new(self.arrivals.checkpointed_members()) } else { members }
    }

    /// Whether `id` was removed, and the last checkpoint knows it.
    pub fn has_removed(&self, id: u64) -> bool {
        self.members.load().is_removed(id) && self.members_for(id).is_removed(id)
    }

    /// Whether `incarnation` of a member is the first that was heard of it: what counts until the log says it
    /// ([`Members::is_wiped`]).
    pub fn is_first_incarnation(&self, member: u64, incarnation: u128) -> bool {
        *lock(&self.heard).entry(member).or_insert(incarnation) == incarnation
    }

    /// Room for a message of so many bytes on its way to the node thread. Who finds none waits, and the sender with him.
    pub async fn room_for(&self, bytes: usize) -> OwnedSemaphorePermit {
        let kibibytes = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).saturating_add(1).min(INBOUND_KIBIBYTES_MAX);
        self.inbound.clone().acquire_many_owned(kibibytes).await.expect("nobody closes it")
    }

    /// How long a member has been reached without a break; `None` if it is not.
    pub fn reached_for(&self, member: u64) -> Option<Duration> {
        lock(&self.ways).lanes.get(&member)?.urgent.reached_for()
    }

    /// Hears when streams of this member are to end, and why.
    pub fn refusals(&self, member: u64) -> watch::Receiver<Option<String>> {
        lock(&self.refused).entry(member).or_insert_with(|| watch::channel(None).0).subscribe()
    }

    /// Peer URLs of a member.
    pub(super) fn urls(&self, member: u64) -> Vec<String> {
        let known = self.members.load().get(member).map(|member| member.peer_urls.clone());
        known.or_else(|| lock(&self.strangers).get(&member).cloned()).unwrap_or_default()
    }

    /// A member says where it is reached. One that this member does not know yet, because it lags behind, could not be
    /// answered otherwise.
    pub fn introduced(&self, hello: &Hello) {
        let members = self.members.load();
        let is_known = members.get(hello.from).is_some() || members.is_removed(hello.from);
        let mut strangers = lock(&self.strangers);
        if is_known || hello.peer_urls.is_empty() || strangers.len() >= STRANGERS_MAX {
            strangers.remove(&hello.from);
        } else {
            strangers.insert(hello.from, hello.peer_urls.clone());
        }
    }

    /// Counters of a stream from a member.
    pub fn received_from(&self, member: u64) -> ReceivedMeters {
        ReceivedMeters::new(&self.metrics, member)
    }

    /// Counters of a whole state from a member.
    pub fn state_from(&self, member: u64) -> StateMeters {
        StateMeters::receiving(&self.metrics, member)
    }

    /// Whole states on their way: to whom, and how many bytes are there.
    pub fn departing(&self) -> Vec<(u64, u64)> {
        let departures = lock(&self.departures);
        let under_way = departures.iter().filter(|(_, (task, _))| !task.is_finished());
        under_way.map(|(member, (_, bytes))| (*member, bytes.load(Ordering::Relaxed))).collect()
    }

    fn meters(&self, member: u64) -> MemberMeters {
        MemberMeters::new(&self.metrics, self.identity.member_id, member)
    }

    fn introduction(&self, to: u64) -> Introduction {
        Introduction {
            cluster_id: self.identity.cluster_id,
            from: self.identity.member_id,
            to,
            incarnation: self.incarnation,
            protocol: protocol_of(&self.members.load()),
        }
    }

    fn lanes_to<'a>(&self, ways: &'a mut Ways, to: u64) -> Option<&'a Lanes> {
        let vacant = match ways.lanes.entry(to) {
            Entry::Occupied(lanes) => return Some(lanes.into_mut()),
            Entry::Vacant(vacant) => vacant,
        };
        let urls = self.urls(to);
        if urls.is_empty() {
            return None;
        }
        let _inside = self.runtime.enter();
        let introduction = self.introduction(to);
        let (connector, node) = (self.connector.clone(), self.node.clone());
        let own_urls = self.urls(self.identity.member_id);
        let members = self.members.clone();
        let (urls_known, meters) = (urls.clone(), self.meters(to));
        let destination = Destination { introduction, members, urls: urls_known, own_urls, connector, node, meters };
        let urgent = Lane::start(Kind::Urgent, destination.clone());
        Some(vacant.insert(Lanes { urls, ends: None, urgent, entries: Lane::start(Kind::Entries, destination) }))
    }
}

impl Outgoing for Peers {
    fn send(&self, messages: Vec<Message>) {
        let mut ways = lock(&self.ways);
        let members = self.members.load_full();
        if !Arc::ptr_eq(&members, &ways.made_for) {
            // A lane ends with its near end; one to a member that was removed brings it that first.
            for (_, lanes) in ways.lanes.iter_mut().filter(|(id, _)| members.is_removed(**id)) {
                lanes.ends.get_or_insert_with(|| Instant::now() + FAREWELL);
            }
            ways.lanes.retain(|id, lanes| lanes.ends.is_some() || self.urls(*id) == lanes.urls);
            let own = self.identity.member_id;
            for id in members.iter().map(|member| member.id).filter(|id| *id != own) {
                self.lanes_to(&mut ways, id);
            }
            ways.made_for = members;
        }
        if ways.lanes.values().any(|lanes| lanes.ends.is_some_and(|end| end <= Instant::now())) {
            ways.lanes.retain(|_, lanes| lanes.ends.is_none_or(|end| end > Instant::now()));
        }
        for message in messages {
            let to = message.to;
            let Some(lanes) = self.lanes_to(&mut ways, to) else { continue };
            let lane = match message.get_msg_type() {
                MessageType::MsgAppend | MessageType::MsgPropose => &lanes.entries,
                _ => &lanes.urgent,
            };
            if !lane.send(message) {
                self.meters(to).failed();
                // The node thread is gone only when the process is about to be.
                drop(self.node.send(NodeInput::Unreachable(to)));
            }
        }
    }

    fn send_snapshot(&self, message: Message, snapshot: Arc<MemberSnapshot>) {
        let (to, node) = (message.to, self.node.clone());
        let urls = self.urls(to);
        if urls.is_empty() {
            return drop(node.send(NodeInput::SnapshotSent(to, false)));
        }
        let meters = StateMeters::sending(&self.metrics, to);
        let progress = meters.progress();
        let departure = Departure {
            introduction: self.introduction(to),
            urls,
            own_urls: self.urls(self.identity.member_id),
            connector: self.connector.clone(),
            readers: self.readers.clone(),
            bytes_per_second: SNAPSHOT_BYTES_PER_SECOND,
            snapshot_id: StdRng::from_os_rng().random(),
            meters,
        };
        let task = self.runtime.spawn(async move {
            let arrived = departure.run(message, snapshot).await;
            drop(node.send(NodeInput::SnapshotSent(to, arrived)));
        });
        if let Some((older, _)) = lock(&self.departures).insert(to, (task.abort_handle(), progress)) {
            older.abort();
        }
    }

    fn refuse(&self, from: u64, cause: &BadMessage) {
        if let Some(refused) = lock(&self.refused).get(&from) {
            refused.send_replace(Some(cause.to_string()));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no one panics while holding what is known of members: a panic stops the process")
}
