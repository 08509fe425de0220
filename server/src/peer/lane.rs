//! One way to one member: a bounded queue, a connection, a stream, and again when it ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use basalt_proto::peer::DeliverRequest;
use raft::prelude::Message;
use raft_prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{info, warn};

use super::connect::PeerConnector;
use super::frame::{Introduction, Refused, protocol_of};
use super::meters::MemberMeters;
use crate::apply::members::Members;
use crate::node::handle::Expelled;
use crate::node::node_thread::NodeInput;

/// Bytes that may wait in one lane (DESIGN 4).
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Messages that may wait in one lane.
const QUEUE_MESSAGES_MAX: usize = 4096;
/// Bytes of one batch, unless one message alone is larger.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Batches encoded ahead of what the connection takes.
const BATCHES_AHEAD: usize = 2;
/// First pause after a stream failed; then it doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Which messages a lane carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Heartbeats, votes, reads, all answers: small, and in a hurry.
    Urgent,
    /// Entries, on their way from the leader or to it.
    Entries,
}

/// Where to.
#[derive(Clone)]
pub(super) struct Destination {
    pub(super) introduction: Introduction,
    /// They say in which form each stream speaks.
    pub(super) members: Arc<ArcSwap<Members>>,
    pub(super) urls: Vec<String>,
    /// Where this member is reached.
    pub(super) own_urls: Vec<String>,
    pub(super) connector: PeerConnector,
    pub(super) node: Sender<NodeInput>,
    pub(super) meters: MemberMeters,
}

/// The near end of a lane. The task ends with it.
pub(super) struct Lane {
    queue: mpsc::UnboundedSender<(usize, Message)>,
    waiting: Arc<Waiting>,
    open_since: OpenSince,
}

/// Since when the stream is open; `None` while it is not.
type OpenSince = Arc<Mutex<Option<Instant>>>;

#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    messages: AtomicUsize,
}

impl Lane {
    /// Starts the lane. To be called inside a runtime.
    pub(super) fn start(kind: Kind, destination: Destination) -> Self {
        let (queue, inbox) = mpsc::unbounded_channel();
        let (waiting, open_since) = (Arc::new(Waiting::default()), OpenSince::default());
        tokio::spawn(work(kind, destination, inbox, waiting.clone(), open_since.clone()));
        Self { queue, waiting, open_since }
    }

    /// How long the member has been reached without a break; `None` if it is not.
    pub(super) fn reached_for(&self) -> Option<Duration> {
        set(&self.open_since, |since| *since).map(|since| since.elapsed())
    }

    /// Brings a message on its way; says whether there was room for it.
    pub(super) fn send(&self, message: Message) -> bool {
        let bytes = message.encoded_len();
        let room = self.waiting.bytes.load(Ordering::Relaxed) + bytes <= QUEUE_BYTES_MAX
            && self.waiting.messages.load(Ordering::Relaxed) < QUEUE_MESSAGES_MAX;
        if room {
            self.waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.waiting.messages.fetch_add(1, Ordering::Relaxed);
            // The task goes on as long as this end is there.
            _ = self.queue.send((bytes, message));
        }
        room
    }
}

type Inbox = mpsc::UnboundedReceiver<(usize, Message)>;

/// Looks at when a stream was opened, or changes it.
fn set<T>(open_since: &OpenSince, act: impl FnOnce(&mut Option<Instant>) -> T) -> T {
    act(&mut open_since.lock().expect("no one panics while holding a time"))
}

async fn work(kind: Kind, destination: Destination, mut inbox: Inbox, waiting: Arc<Waiting>, open_since: OpenSince) {
    let (member, urls) = (destination.introduction.to, &destination.urls);
    let (mut backoff, mut told) = (BACKOFF_MIN, None::<String>);
    // Which URL is next.
    let mut turn = 0;
    loop {
        // What is urgent finds its stream open, and shows whether the member is reached.
        let mut held = match kind {
            Kind::Urgent if inbox.is_closed() => return,
            Kind::Urgent => None,
            Kind::Entries => match inbox.recv().await {
                Some(first) => Some(first),
                None => return,
            },
        };
        let url = &urls[turn % urls.len()];
        let ended = stream(kind, &destination, url, &mut held, &mut inbox, &waiting, &open_since).await;
        let was_open = set(&open_since, Option::take).is_some();
        if was_open && kind == Kind::Urgent {
            destination.meters.closed();
        }
        if let Some((bytes, _)) = held {
            waiting.left(bytes);
        }
        let Err(failure) = ended else { return };
        destination.meters.failed();
        // The node goes on from what the member has.
        drop(destination.node.send(NodeInput::Unreachable(member)));
        if let Some(cause) = failure.expelled {
            let told = match cause {
                Expelled::Removed => NodeInput::Told { by: member },
                Expelled::Wiped => NodeInput::Expelled(cause),
            };
            drop(destination.node.send(told));
        }
        if failure.was_open {
            backoff = BACKOFF_MIN;
        }
        if told.as_ref() != Some(&failure.text) {
            let (member_id, error) = (format_args!("{member:x}"), &failure.text);
            if failure.was_open {
                info!(member_id, url, lane = ?kind, error, "lost the stream to a member");
            } else {
                warn!(member_id, url, lane = ?kind, error, "cannot reach a member; trying again");
            }
            told = Some(failure.text);
        }
        turn += 1;
        sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
        // Too old by now: who waits for them asks again.
        while let Ok((bytes, _)) = inbox.try_recv() {
            waiting.left(bytes);
            destination.meters.failed();
        }
    }
}

struct Failure {
    was_open: bool,
    /// The member says that this one belongs to the cluster no more.
    expelled: Option<Expelled>,
    text: String,
}

/// One stream, to its end. `held` is its first message, and none once it is on its way. `Ok` when the near end is gone.
async fn stream(
    kind: Kind,
    destination: &Destination,
    url: &str,
    held: &mut Option<(usize, Message)>,
    inbox: &mut Inbox,
    waiting: &Waiting,
    open_since: &OpenSince,
) -> Result<(), Failure> {
    let closed = |text: String| Failure { was_open: false, expelled: None, text };
    let mut client = destination.connector.connect(url).await.map_err(closed)?;
    let introduction = Introduction { protocol: protocol_of(&destination.members.load()), ..destination.introduction };
    let (batches, outgoing) = mpsc::channel::<DeliverRequest>(BATCHES_AHEAD);
    let requests = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let mut answer = std::pin::pin!(client.deliver(requests));
    let mut is_open = false;
    let mut next = Some(introduction.hello(&destination.own_urls));
    loop {
        let batch = match next.take() {
            Some(hello) => hello,
            None => {
                let first = match held.take() {
                    Some(first) => Some(first),
                    None => tokio::select! {
                        biased;
                        ended = &mut answer => return Err(failure(introduction.from, is_open, ended)),
                        first = inbox.recv() => first,
                    },
                };
                let Some(first) = first else { return Ok(()) };
                let (mut bytes, mut messages) = (first.0, vec![first.1]);
                while bytes < BATCH_BYTES_MAX
                    && let Ok((more, message)) = inbox.try_recv()
                {
                    bytes += more;
                    messages.push(message);
                }
                let batch = introduction.batch(&messages);
                waiting.some_left(bytes, messages.len());
                destination.meters.sent(bytes);
                batch
            }
        };
        tokio::select! {
            biased;
            ended = &mut answer => return Err(failure(introduction.from, is_open, ended)),
            // Fails only when the call is over, which its answer says next.
            _ = batches.send(batch) => {}
        }
        if held.is_none() && !is_open {
            is_open = true;
            set(open_since, |since| *since = Some(Instant::now()));
            if kind == Kind::Urgent {
                destination.meters.opened();
            }
        }
    }
}

/// How a stream ended that the member ended.
fn failure<T>(own: u64, was_open: bool, ended: Result<T, tonic::Status>) -> Failure {
    match ended {
        Ok(_) => Failure { was_open, expelled: None, text: "the member ended the stream".to_owned() },
        Err(status) => {
            // Whatever else may answer under that address says no such thing of this very member.
            let causes =
                [(Refused::Removed(own), Expelled::Removed), (Refused::Wiped(own), Expelled::Wiped)].into_iter();
            let is_denied = status.code() == tonic::Code::PermissionDenied;
            let mut said = causes.filter(|(refused, _)| is_denied && refused.to_string() == status.message());
            let expelled = said.next().map(|(_, cause)| cause);
            Failure { was_open, expelled, text: status.message().to_owned() }
        }
    }
}

impl Waiting {
    fn left(&self, bytes: usize) {
        self.some_left(bytes, 1);
    }

    fn some_left(&self, bytes: usize, messages: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.messages.fetch_sub(messages, Ordering::Relaxed);
    }
}
