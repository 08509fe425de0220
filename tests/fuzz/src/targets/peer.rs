//! What members say to each other: frames, and messages of Raft as a faulty, forged or forgetful member could send them, to the core
//! of a member that follows, votes or leads. The first byte says which log it has.
//!
//! What is said is heard, and what was changed on the way is not. No message makes the core panic: it is refused, or used. Only what
//! a leader had the member commit may end it, and then by an error.

use std::time::Duration;

use arbitrary::Unstructured;
use basalt_proto::etcdserverpb::PutRequest;
use basalt_proto::log::request::Kind;
use basalt_proto::log::{LogEntry, Request};
use basalt_proto::members::Member;
use basalt_proto::peer::deliver_request::Kind as Delivered;
use basalt_proto::peer::{DeliverRequest, Hello};
use basalt_server::apply::members::Members;
use basalt_server::node::core::{Core, CoreConfig, CoreError, Input, Output};
use basalt_server::node::log_store::LogStore;
use basalt_server::peer::frame::{Introduction, PartChecksum, Refused};
use prost::Message as _;
use raft::prelude::{ConfState, Entry, HardState, Message, MessageType};
use raft_prost::Message as _;

use crate::forge::{below, byte, joined, pieces};

const OWN: u64 = 1;
const CLUSTER_ID: u64 = 7;
const TICKS_MAX: usize = 32;

pub(super) fn run(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    frames(data);
    let mut node = Node::start(*mode);
    for piece in pieces(data).into_iter().take(40) {
        if node.event(piece).is_err() {
            return;
        }
    }
}

fn introduction(from: u64) -> Introduction {
    Introduction { cluster_id: CLUSTER_ID, from, to: OWN, incarnation: 5, protocol: 1 }
}

fn members() -> Members {
    Members::first([1, 2, 3].map(|id| Member { id, ..Member::default() }).into())
}

/// The bytes as frames of a stream.
fn frames(data: &[u8]) {
    if let Ok(hello) = Hello::decode(data)
        && let Ok(read) = Introduction::read_hello(&hello, CLUSTER_ID, OWN, &members())
    {
        assert!(read.to == OWN && read.from != OWN && read.cluster_id == CLUSTER_ID);
        let again = read.hello_message(&hello.peer_urls);
        assert_eq!(Introduction::read_hello(&again, CLUSTER_ID, OWN, &members()), Ok(read));
    }
    if let Ok(request) = DeliverRequest::decode(data) {
        match introduction(2).messages(request) {
            Ok(messages) => assert!(messages.iter().all(|message| message.from == 2 && message.to == OWN)),
            Err(refused) => {
                assert!(matches!(refused, Refused::NoHello | Refused::Checksum | Refused::Malformed | Refused::Foreign))
            }
        }
    }
    let (first, second) = data.split_at(data.len() / 2);
    let sum = |chunks: &[&[u8]]| {
        let mut checksum = PartChecksum::new(3);
        chunks.iter().map(|chunk| checksum.add(chunk)).last()
    };
    assert_eq!(sum(&[first, second]), sum(&[first, second]));
    assert!(first.is_empty() || sum(&[first, second]) != sum(&[second]), "a part that is lost is missed");
}

/// The core with what stands around it.
struct Node {
    core: Core,
    appends: Vec<u64>,
    applied: u64,
    unapplied: u64,
    installs: bool,
}

impl Node {
    /// With an empty log, or one of six entries of which four are committed.
    fn start(mode: u8) -> Self {
        let members = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
        let has_log = mode & 1 == 1;
        let entries = (1..=6u64).filter(|_| has_log).map(|index| entry(index, 1 + index / 3)).collect();
        let (commit, term) = if has_log { (4, 3) } else { (0, 0) };
        let hard_state = HardState { term, vote: 0, commit };
        let store = LogStore::new((0, 0), entries, hard_state, members);
        let config = CoreConfig {
            member_id: OWN,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            applied: commit,
            pre_vote: mode & 2 == 0,
            shards: 3,
            catchup_entries: 4,
            apply_version: 1,
            seed: 5,
        };
        let core = Core::new(&config, store, &slog::Logger::root(slog::Discard, slog::o!())).expect("a member");
        let mut node = Self { core, appends: Vec::new(), applied: commit, unapplied: commit, installs: false };
        let mut outputs = Vec::new();
        node.core.start(&mut outputs).expect("its own log is sound");
        node.carry(outputs);
        node
    }

    fn step(&mut self, input: Input) -> Result<(), CoreError> {
        let mut outputs = Vec::new();
        match self.core.step(input, &mut outputs) {
            Ok(()) => {
                self.carry(outputs);
                Ok(())
            }
            Err(error @ (CoreError::Newer(_) | CoreError::Malformed { .. } | CoreError::MalformedChange { .. })) => {
                Err(error)
            }
            Err(other) => panic!("what another member says ends this one: {other}"),
        }
    }

    fn carry(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Append(append) => self.appends.push(append.number),
                Output::Apply(committed) => {
                    for entry in committed {
                        assert!(entry.position.index > self.unapplied, "an entry is applied once, and in order");
                        self.unapplied = entry.position.index;
                    }
                }
                Output::Install(position) => {
                    self.installs = true;
                    (self.applied, self.unapplied) = (position.index, position.index);
                }
                _ => {}
            }
        }
    }

    fn event(&mut self, piece: &[u8]) -> Result<(), CoreError> {
        let mut feed = Unstructured::new(piece);
        match byte(&mut feed) {
            0..=23 => (0..=below(&mut feed, TICKS_MAX)).try_for_each(|_| self.step(Input::Tick)),
            24..=47 => {
                std::mem::take(&mut self.appends).into_iter().try_for_each(|number| self.step(Input::Persisted(number)))
            }
            48..=63 if self.unapplied > self.applied && !self.installs => {
                self.applied = self.unapplied;
                self.step(Input::Applied(self.applied))
            }
            64..=79 if self.installs => {
                self.installs = false;
                self.step(Input::Installed)
            }
            80..=95 => {
                let Ok(mut message) = Message::decode(feed.take_rest()) else { return Ok(()) };
                message.set_msg_type(MessageType::MsgSnapshot);
                (message.from, message.to) = (2, OWN);
                self.step(Input::Received(Box::new(message)))
            }
            96..=103 => self.step(Input::Reads(vec![1, 2])),
            104..=107 => self.step(Input::HandOver),
            kind => self.message(kind, feed.take_rest()),
        }
    }

    /// A message, through the frame in which it comes.
    fn message(&mut self, kind: u8, bytes: &[u8]) -> Result<(), CoreError> {
        let Ok(mut message) = Message::decode(bytes) else { return Ok(()) };
        if kind & 7 != 7 {
            (message.from, message.to) = (2 + u64::from(kind & 1), OWN);
        }
        let introduction = introduction(message.from);
        let framed = introduction.batch([&message]).encode_to_vec();
        let request = DeliverRequest::decode(&*framed).expect("encoded just now");
        let Some(Delivered::Batch(mut batch)) = request.kind.clone() else { panic!("a batch") };
        match introduction.messages(request) {
            Ok(heard) => assert_eq!(heard, std::slice::from_ref(&message)),
            Err(refused) => {
                assert_eq!(refused, Refused::Foreign);
                assert_ne!(message.to, OWN);
            }
        }
        batch.crc ^= 1 << (kind % 32);
        let spoilt = DeliverRequest { kind: Some(Delivered::Batch(batch)) };
        assert_eq!(introduction.messages(spoilt), Err(Refused::Checksum));
        self.step(Input::Message(Box::new(message)))
    }
}

fn entry(index: u64, term: u64) -> Entry {
    let put = PutRequest { key: "a".into(), ..PutRequest::default() };
    let request = Request { id: index, principal: None, kind: Some(Kind::Put(put)) };
    let entry = LogEntry { format_version: 1, apply_version: 1, requests: vec![request], ..LogEntry::default() };
    Entry { index, term, data: entry.encode_to_vec(), ..Entry::default() }
}

/// Messages of each kind that members send, in some term.
fn messages(term: u64) -> Vec<Message> {
    let of_kind = |kind: MessageType, change: fn(&mut Message, u64)| {
        let mut message = Message { from: 2, to: OWN, term, ..Message::default() };
        message.set_msg_type(kind);
        change(&mut message, term);
        message
    };
    vec![
        of_kind(MessageType::MsgAppend, |message, term| {
            (message.index, message.log_term, message.commit) = (6, 3, 7);
            message.entries = vec![entry(7, term), entry(8, term)];
        }),
        of_kind(MessageType::MsgAppend, |message, term| {
            (message.index, message.log_term, message.commit) = (0, 0, 2);
            message.entries = vec![entry(1, term), entry(2, term)];
        }),
        of_kind(MessageType::MsgAppend, |message, term| {
            (message.index, message.log_term) = (4, 2);
            message.entries = vec![entry(5, term)];
        }),
        of_kind(MessageType::MsgHeartbeat, |message, _| message.commit = 4),
        of_kind(MessageType::MsgRequestPreVote, |message, term| (message.index, message.log_term) = (9, term)),
        of_kind(MessageType::MsgRequestVote, |message, term| (message.index, message.log_term) = (9, term)),
        of_kind(MessageType::MsgRequestPreVoteResponse, |_, _| {}),
        of_kind(MessageType::MsgRequestVoteResponse, |_, _| {}),
        of_kind(MessageType::MsgAppendResponse, |message, _| message.index = 7),
        of_kind(MessageType::MsgAppendResponse, |message, _| {
            (message.reject, message.reject_hint, message.log_term, message.index) = (true, 3, 2, 6);
        }),
        of_kind(MessageType::MsgHeartbeatResponse, |message, _| message.commit = 4),
        of_kind(MessageType::MsgPropose, |message, term| {
            (message.entries, message.commit_term) = (vec![entry(0, 0)], term);
        }),
        of_kind(MessageType::MsgReadIndex, |message, _| {
            message.entries = vec![Entry { data: vec![1; 16], ..Entry::default() }];
        }),
        of_kind(MessageType::MsgReadIndexResp, |message, _| {
            (message.index, message.entries) = (4, vec![Entry { data: vec![1; 16], ..Entry::default() }]);
        }),
        of_kind(MessageType::MsgTransferLeader, |_, _| {}),
        of_kind(MessageType::MsgTimeoutNow, |_, _| {}),
    ]
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let said = |kind: u8, message: &Message| [&[kind][..], &message.encode_to_vec()].concat();
    let [ticks, persist, apply] = [vec![0, 31], vec![30], vec![50]];
    let mut seeds = Vec::new();
    for mode in [0, 1, 3] {
        let all: Vec<Vec<u8>> = messages(4).iter().map(|message| said(208, message)).collect();
        seeds.push([vec![mode], joined(&all)].concat());
        // It is elected, then hears everything.
        let mut script = vec![ticks.clone(), persist.clone()];
        for term in [1, 2, 4, 5] {
            let votes = [6, 7].map(|vote| said(208, &messages(term)[vote]));
            script.extend(votes);
            script.push(persist.clone());
        }
        script.extend(all.iter().cloned());
        script.extend([persist.clone(), apply.clone(), ticks.clone()]);
        seeds.push([vec![mode], joined(&script)].concat());
    }
    for message in messages(4) {
        seeds.push([vec![1], joined([&said(208, &message), &persist, &apply])].concat());
    }
    let mut snapshot = Message { from: 2, to: OWN, term: 5, ..Message::default() };
    let metadata = snapshot.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (20, 4);
    metadata.set_conf_state(ConfState { voters: vec![1, 2, 3], ..ConfState::default() });
    let script = [said(90, &snapshot), persist, vec![70], apply];
    seeds.push([vec![1], joined(&script)].concat());
    seeds.push([vec![0], introduction(2).hello_message(&["http://a:1".to_owned()]).encode_to_vec()].concat());
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_elects_this_member() {
        let mut node = Node::start(0);
        let vote = |kind: usize, term| [&[208][..], &messages(term)[kind].encode_to_vec()].concat();
        for event in [vec![0, 31], vote(6, 1), vec![30], vote(7, 1), vec![30]] {
            node.event(&event).expect("it goes on");
        }
        assert!(node.core.leads(), "{}", node.core.standing());
    }
}
