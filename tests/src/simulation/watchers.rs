//! Clients that watch, at any member: some read slowly, some ask how far they are, and all go on elsewhere when their member
//! dies, or when they feel like it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use basalt_proto::etcdserverpb::watch_create_request::FilterType;
use basalt_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use basalt_server::api::watch_permission::Asked;
use basalt_server::watch::{Input, StreamId};
use bytes::Bytes;
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::accounts::Asker;
use super::invariants::watch::permitted::{self, Listener};
use super::invariants::watch::{Wanted, Watched};
use crate::ledger::Ledger;
use crate::node_sim::SimulatedNode;
use crate::workload::Workload;

const STREAMS: usize = 6;
const WATCHES_MAX: i64 = 3;
/// Of a thousand readings, after so many a client goes elsewhere, and after so many it begins anew.
const MOVES: u32 = 8;
const STARTS_ANEW: u32 = 4;

/// What watchers saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct WatchSeen {
    /// Events.
    pub events: u64,
    /// Responses without events that said how far a watch is.
    pub progress: u64,
    /// Watches that went on at another member or in another life of one.
    pub resumed: u64,
    /// Watches that ended because what they lacked was compacted.
    pub compacted: u64,
    /// Watches that ended, or did not begin, because their client might not read their keys.
    pub denied: u64,
    /// Streams that ended because their member knew no leader.
    pub leaderless: u64,
}

/// One watch of a stream.
struct Watch {
    wanted: Wanted,
    progress_notify: bool,
    fragment: bool,
    /// `None` until it is created for the first time: it begins with what comes then.
    watched: Option<Watched>,
    is_created: bool,
    /// Where it was last asked to begin, 0 for what comes.
    start_revision: i64,
}

/// A client with one stream.
struct Client {
    id: StreamId,
    /// The member and its life.
    at: Option<(u64, u64)>,
    watches: BTreeMap<i64, Watch>,
    /// As whom it watches there; `None` for nobody.
    user: Option<String>,
    /// Up to which entry its member had applied when the stream began.
    begun: u64,
    /// Whether its stream is to end where there is no leader.
    asks_for_leader: bool,
    /// Whether it might not watch what it wants.
    is_denied: bool,
    /// Arrived, and not read yet; with the entry up to which its member had applied.
    inbox: VecDeque<(Vec<Bytes>, u64)>,
    /// Between two readings.
    pause: Duration,
}

/// All clients that watch.
pub struct Watchers {
    random: StdRng,
    workload: Workload,
    clients: Vec<Client>,
    by_stream: BTreeMap<StreamId, usize>,
    streams: u64,
    /// What they saw.
    pub seen: WatchSeen,
}

impl Watchers {
    /// Clients of a seed, of whom some may ask for a leader.
    pub fn new(seed: u64, leader_watches: bool) -> Self {
        let mut watchers = Self {
            random: StdRng::seed_from_u64(seed ^ 0x3a7c),
            workload: Workload::new(seed ^ 0x3a7c),
            clients: Vec::new(),
            by_stream: BTreeMap::new(),
            streams: 0,
            seen: WatchSeen::default(),
        };
        for number in 0..STREAMS {
            let pause = Duration::from_millis([20, 100, 400, 3000][watchers.random.random_range(0..4)]);
            watchers.clients.push(Client {
                id: StreamId(0),
                at: None,
                watches: BTreeMap::new(),
                user: None,
                begun: 0,
                asks_for_leader: leader_watches && number % 2 == 0,
                is_denied: false,
                inbox: VecDeque::new(),
                pause,
            });
        }
        watchers
    }

    /// How many clients there are.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// When a client that read at `now` reads again.
    pub fn next_reading(&mut self, client: usize, now: Duration) -> Duration {
        now + self.clients[client].pause.mul_f64(self.random.random_range(0.5..1.5))
    }

    /// Nobody reads slowly any more.
    pub fn hurry(&mut self) {
        self.clients.iter_mut().for_each(|client| client.pause = client.pause.min(Duration::from_millis(50)));
    }

    /// The member of a client, if it has one.
    pub fn member_of(&self, client: usize) -> Option<(u64, u64)> {
        self.clients[client].at
    }

    /// A message arrives, if anybody still waits for it.
    pub fn arrive(&mut self, stream: StreamId, message: Vec<Bytes>, applied: u64) {
        if let Some(client) = self.by_stream.get(&stream) {
            self.clients[*client].inbox.push_back((message, applied));
        }
    }

    /// A client opens its stream at a member, and goes on with its watches there.
    pub fn open(&mut self, client: usize, node: &mut SimulatedNode, at: (u64, u64), asker: &Asker, ledger: &Ledger) {
        self.leave(client, None);
        if self.clients[client].asks_for_leader && node.leader() == 0 {
            return;
        }
        self.streams += 1;
        let id = StreamId(self.streams);
        self.by_stream.insert(id, client);
        if self.clients[client].watches.is_empty() {
            self.draw_watches(client, ledger);
        }
        let one = &mut self.clients[client];
        (one.id, one.at, one.is_denied) = (id, Some(at), false);
        (one.user, one.begun) = (asker.user().map(str::to_owned), node.machine().store().applied.index);
        if one.asks_for_leader {
            node.watch_under_leader(id);
        } else {
            node.watch(Input::Open(id));
        }
        for (watch_id, watch) in &mut one.watches {
            if let Some(watched) = &mut watch.watched {
                watched.resumed(ledger.model().history());
                watch.start_revision = watched.resume_at();
                self.seen.resumed += 1;
            }
            watch.is_created = false;
            let request = request(*watch_id, watch);
            match node.may_watch(&asker.caller, &request) {
                Ok(asked) => {
                    if let Asked::By { user, auth } = asked {
                        node.watch(Input::Asker { stream: id, user, auth });
                    }
                    node.watch(Input::Create { stream: id, request });
                }
                Err(reason) => node.watch(Input::Refuse { stream: id, reason }),
            }
        }
    }

    /// A client gives its stream up; the member, if it still is the one, hears of it.
    pub fn leave(&mut self, client: usize, node: Option<&mut SimulatedNode>) {
        let one = &mut self.clients[client];
        self.by_stream.remove(&one.id);
        one.inbox.clear();
        if let (Some(node), Some(_)) = (node, one.at) {
            node.watch(Input::Close(one.id));
        }
        one.at = None;
    }

    /// A member ended a stream because it knows no leader.
    pub fn lost_leader(&mut self, stream: StreamId) {
        let Some(client) = self.by_stream.get(&stream).copied() else { return };
        assert!(self.clients[client].asks_for_leader, "I24: a stream that asked for no leader ended for want of one");
        self.seen.leaderless += 1;
        self.leave(client, None);
    }

    fn draw_watches(&mut self, client: usize, ledger: &Ledger) {
        for watch_id in 1..=self.random.random_range(1..=WATCHES_MAX) {
            let question = self.workload.question();
            let (key, range_end) = match self.random.random_range(0..3) {
                0 => (b"/registry/".to_vec(), b"/registry0".to_vec()),
                _ => (question.key, question.range_end),
            };
            let wanted = Wanted {
                key,
                range_end,
                prev_kv: self.random.random(),
                no_put: self.random.random_ratio(1, 8),
                no_delete: self.random.random_ratio(1, 8),
                begins: 0,
            };
            let newest = ledger.revision();
            let start_revision = match self.random.random_range(0..4) {
                0 => newest - self.random.random_range(0..200),
                1 => newest + self.random.random_range(0..20),
                _ => 0,
            };
            let (progress_notify, fragment) = (self.random.random(), self.random.random());
            let start_revision = start_revision.max(0);
            let watch = Watch { wanted, progress_notify, fragment, watched: None, is_created: false, start_revision };
            self.clients[client].watches.insert(watch_id, watch);
        }
    }

    /// A client reads what arrived, and says so to its member; says whether it goes elsewhere then.
    ///
    /// # Panics
    /// When it was told what cannot be.
    pub fn read(&mut self, client: usize, node: &mut SimulatedNode, ledger: &Ledger, calm: bool) -> bool {
        let stream = self.clients[client].id;
        let mut drained = 0;
        while let Some((message, applied)) = self.clients[client].inbox.pop_front() {
            let bytes = message.concat();
            drained += bytes.len();
            let response = WatchResponse::decode(&bytes[..]).expect("a response is whole");
            self.take(client, &response, applied, ledger);
        }
        if drained > 0 {
            node.watch(Input::Drained { stream, bytes: drained });
        }
        if self.random.random_ratio(1, 10) {
            node.watch(Input::Progress { stream });
        }
        let drawn = self.random.random_range(0..1000);
        if !calm && drawn < STARTS_ANEW {
            self.clients[client].watches.clear();
        }
        // A client whose watches all ended makes others.
        let one = &self.clients[client];
        one.watches.is_empty() || one.is_denied || (!calm && drawn < MOVES)
    }

    fn take(&mut self, client: usize, response: &WatchResponse, applied: u64, ledger: &Ledger) {
        let (history, compact_revision) = (ledger.model().history(), ledger.model().compact_revision);
        let revision = response.header.as_ref().expect("a response has a header").revision;
        assert!(revision <= ledger.revision(), "a watch was told of revision {revision}, which is still to come");
        let Client { watches, user, begun, is_denied, .. } = &mut self.clients[client];
        let listener = Listener { user: user.as_deref(), begun: *begun, applied };
        if response.watch_id == -1 && response.created {
            let wanted: Vec<&Wanted> = watches.values().map(|watch| &watch.wanted).collect();
            permitted::denied(&listener, &wanted, &response.cancel_reason, ledger.auth());
            self.seen.denied += 1;
            *is_denied = true;
            return;
        }
        if response.watch_id == -1 {
            assert!(response.events.is_empty() && !response.canceled, "{response:?}");
            self.seen.progress += 1;
            let told = watches.values_mut().filter_map(|watch| watch.watched.as_mut().filter(|_| watch.is_created));
            return told.for_each(|watched| watched.told_progress(revision, history));
        }
        let Some(watch) = watches.get_mut(&response.watch_id) else { return };
        if response.canceled && response.compact_revision == 0 {
            permitted::denied(&listener, &[&watch.wanted], &response.cancel_reason, ledger.auth());
            self.seen.denied += 1;
            watch.is_created = false;
            *is_denied = true;
            return;
        }
        if response.canceled {
            let (compacted, start) = (response.compact_revision, watch.resume_at());
            assert!(
                compacted > 0 && compacted <= compact_revision && start < compacted,
                "a watch from {start} on was ended, compacted is {compact_revision}: {response:?}"
            );
            self.seen.compacted += 1;
            watches.remove(&response.watch_id);
            return;
        }
        if response.created {
            watch.is_created = true;
            let begin = if watch.start_revision == 0 { revision + 1 } else { watch.start_revision };
            watch.watched.get_or_insert_with(|| Watched::from(watch.wanted.clone(), begin, history));
            return;
        }
        assert!(watch.is_created, "a watch that is not created was told {response:?}");
        let watched = watch.watched.as_mut().expect("it is created");
        if response.events.is_empty() {
            self.seen.progress += 1;
            return watched.told_progress(revision, history);
        }
        assert!(!response.fragment || watch.fragment, "fragments that nobody asked for");
        self.seen.events += response.events.len() as u64;
        let last = response.events.last().and_then(|event| event.kv.as_ref()).expect("an event has a key");
        permitted::told(&listener, &watch.wanted, last.mod_revision, ledger.auth());
        watched.told(&response.events, response.fragment, history, compact_revision);
    }

    /// Whether all were told everything.
    pub fn are_up_to_date(&self, ledger: &Ledger) -> bool {
        let told =
            |watch: &Watch| watch.watched.as_ref().is_some_and(|all| all.is_up_to_date(ledger.model().history()));
        self.clients.iter().all(|client| client.watches.values().all(told))
    }
}

impl Watch {
    fn resume_at(&self) -> i64 {
        self.watched.as_ref().map_or(self.start_revision, Watched::resume_at)
    }
}

fn request(watch_id: i64, watch: &Watch) -> WatchCreateRequest {
    let Wanted { key, range_end, prev_kv, no_put, no_delete, .. } = &watch.wanted;
    let filters = [(no_put, FilterType::Noput), (no_delete, FilterType::Nodelete)];
    WatchCreateRequest {
        key: key.clone().into(),
        range_end: range_end.clone().into(),
        start_revision: watch.start_revision,
        progress_notify: watch.progress_notify,
        filters: filters.into_iter().filter(|(asked, _)| **asked).map(|(_, filter)| filter as i32).collect(),
        prev_kv: *prev_kv,
        watch_id,
        fragment: watch.fragment,
    }
}
