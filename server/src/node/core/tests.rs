use std::time::Duration;

use basalt_proto::etcdserverpb::{LeaseRevokeRequest, PutRequest};
use basalt_proto::log::Request;
use basalt_proto::log::request::Kind;
use basalt_storage::disk::SimulatedDisk;
use basalt_storage::job::{BUDGET_UNLIMITED, run};
use basalt_storage::mvcc::shard_map::ShardMap;
use basalt_storage::wal::{Identity, Log, LogOptions};
use prost::Message as _;
use raft::prelude::{ConfState, Entry};

use super::super::log_thread;
use super::*;
use crate::admission::Proposal;
use crate::apply::known::LOG_FORMAT_VERSION;
use crate::apply::machine::APPLY_VERSION;

const MEMBER: u64 = 7;
const POD: &str = "/registry/pods/a";
const EVENT: &str = "/registry/events/a";

fn config() -> CoreConfig {
    CoreConfig {
        member_id: MEMBER,
        heartbeat_interval: Duration::from_millis(100),
        election_timeout: Duration::from_secs(1),
        applied: 0,
        pre_vote: true,
        shards: 3,
        catchup_entries: 0,
        apply_version: APPLY_VERSION,
        seed: 5,
    }
}

/// One of these, over an empty log.
pub(super) fn one_of(voters: &[u64]) -> Core {
    let members = ConfState { voters: voters.to_vec(), ..ConfState::default() };
    let store = LogStore::new((0, 0), Vec::new(), HardState::default(), members);
    Core::new(&config(), store, &slog::Logger::root(slog::Discard, slog::o!())).expect("a member")
}

/// A single voter over a log, with the requests of all it ever did.
struct Rig {
    core: Core,
    appends: VecDeque<Append>,
    applied: Vec<u64>,
}

fn entry(index: u64, entry: &LogEntry) -> Entry {
    Entry { index, term: 1, data: entry.encode_to_vec(), ..Entry::default() }
}

fn known_entry(id: u64) -> LogEntry {
    LogEntry {
        format_version: LOG_FORMAT_VERSION,
        apply_version: APPLY_VERSION,
        requests: vec![put(id, POD, 1).request],
        ..LogEntry::default()
    }
}

fn put(id: u64, key: &'static str, bytes: usize) -> Proposal {
    let put = PutRequest { key: key.into(), value: vec![7; bytes].into(), ..PutRequest::default() };
    Proposal::new(Request { id, principal: None, kind: Some(Kind::Put(put)) }, &ShardMap::default())
}

impl Rig {
    fn over(entries: Vec<Entry>, commit: u64) -> Self {
        let members = ConfState { voters: vec![MEMBER], ..ConfState::default() };
        let hard_state = HardState { term: 1, vote: MEMBER, commit };
        let store = LogStore::new((0, 0), entries, hard_state, members);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let core = Core::new(&config(), store, &logger).expect("a single voter");
        Self { core, appends: VecDeque::new(), applied: Vec::new() }
    }

    fn start(&mut self) -> Result<(), CoreError> {
        let mut outputs = Vec::new();
        self.core.start(&mut outputs)?;
        self.carry(outputs);
        Ok(())
    }

    /// A node that leads, with nothing under way.
    fn leading() -> Self {
        let mut rig = Self::over(Vec::new(), 0);
        rig.start().expect("nothing in the log");
        while rig.persist().is_some() {}
        assert!(rig.core.leads());
        rig
    }

    fn step(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.core.step(input, &mut outputs).expect("the core goes on");
        self.carry(outputs);
    }

    fn propose(&mut self, proposals: Vec<Proposal>) {
        self.step(Input::Propose { proposals, time_unix_ns: 1 });
    }

    fn carry(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Append(append) => self.appends.push_back(append),
                Output::Apply(committed) => self.applied.extend(committed.iter().map(|entry| entry.position.index)),
                other => assert!(matches!(other, Output::Role(_)), "a single voter has nobody to talk to: {other:?}"),
            }
        }
    }

    /// The append under way becomes durable; gives it.
    fn persist(&mut self) -> Option<Append> {
        let append = self.appends.pop_front()?;
        self.step(Input::Persisted(append.number));
        Some(append)
    }
}

fn ids(append: &Append) -> Vec<u64> {
    let entries = append.entries.iter().filter(|entry| !entry.data.is_empty());
    entries.flat_map(|entry| LogEntry::decode(&*entry.data).expect("ours").requests).map(|request| request.id).collect()
}

fn new_log() -> Log {
    let identity = Identity { cluster: 1, member: MEMBER, incarnation: 3 };
    let options = LogOptions { segment_bytes: 1 << 20, first_segment_bytes: 1 << 20 };
    run(&mut Log::create(identity, options, 5), &SimulatedDisk::new(1), BUDGET_UNLIMITED).expect("a healthy disk").log
}

#[test]
fn what_gathers_behind_a_slow_sync_is_split_into_batches_of_the_log() {
    let mut rig = Rig::over(Vec::new(), 0);
    rig.start().expect("nothing in the log");
    // The first append is on its way, and large puts come.
    rig.propose((1..=60).map(|id| put(id, POD, 1_200_000)).collect());
    let (mut log, mut ordered) = (new_log(), Vec::new());
    while let Some(append) = rig.persist() {
        ordered.extend(ids(&append));
        let bytes: usize = append.entries.iter().map(|entry| entry.data.len()).sum();
        assert!(bytes <= ROUND_BYTES_MAX + APPEND_OVERHEAD_BYTES, "an append of {bytes} bytes");
        let last_index = log.last_index();
        log.append(log_thread::records(append, last_index), 1).expect("a batch takes it");
    }
    assert_eq!(ordered, (1..=60).collect::<Vec<_>>());
    assert_eq!(rig.core.queued(), 0);
}

#[test]
fn the_largest_request_goes_alone_and_fits_the_log() {
    let mut rig = Rig::leading();
    let small = put(1, POD, 10);
    let overhead = put(2, POD, 1 << 20).length - (1 << 20);
    let largest = put(2, POD, PROPOSAL_BYTES_MAX - overhead - 8);
    assert!(largest.length > PROPOSAL_BYTES_MAX - 16 && largest.length <= PROPOSAL_BYTES_MAX);
    rig.propose(vec![largest, small]);
    let append = rig.persist().expect("ordered");
    assert_eq!(ids(&append), [2]);
    let mut log = new_log();
    let first = append.entries[0].index;
    let before = basalt_storage::wal::Record::StartAfter { index: first - 1, term: append.entries[0].term };
    log.append(vec![before], 1).expect("a batch takes it");
    log.append(log_thread::records(append, first - 1), 1).expect("a batch takes it");
    assert_eq!(ids(&rig.persist().expect("the next round")), [1]);
}

#[test]
fn a_flood_of_events_delays_a_pod_by_no_round() {
    let mut rig = Rig::leading();
    rig.propose((1..=60_000).map(|id| put(id, EVENT, 1000)).collect());
    let revoke = Some(Kind::LeaseRevoke(LeaseRevokeRequest { id: 1 }));
    let revoke = Proposal::new(Request { id: 90_001, principal: None, kind: revoke }, &ShardMap::default());
    rig.propose(vec![put(90_000, POD, 1000), revoke]);
    rig.persist().expect("the flood's first round, which was under way");
    let next = ids(&rig.persist().expect("the next round"));
    assert!(next.contains(&90_000) && next.contains(&90_001), "{} others went", next.len());
    assert!(rig.core.queued() > 0, "the flood has not ended");
}

#[test]
fn the_commit_index_travels_with_the_next_append() {
    let mut rig = Rig::leading();
    rig.propose(vec![put(1, POD, 1)]);
    rig.persist().expect("ordered");
    rig.propose(vec![put(2, POD, 1)]);
    let next = rig.persist().expect("ordered");
    let before = next.entries[0].index - 1;
    assert_eq!(next.hard_state.map(|state| state.commit), Some(before));
}

#[test]
fn a_start_is_complete_only_with_what_was_not_known_as_committed() {
    let entries = (1..=5).map(|index| entry(index, &known_entry(index))).collect();
    let mut rig = Rig::over(entries, 2);
    rig.start().expect("all is known");
    // The node leads already, and all that it knew as committed is applied; three acknowledged writes are missing.
    assert!(rig.core.leads());
    assert_eq!((rig.applied.last(), rig.core.complete_at()), (Some(&2), 6));
    while rig.persist().is_some() {}
    assert_eq!(rig.applied, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn an_entry_of_a_newer_release_stops_the_node_before_it_is_applied() {
    let newer = LogEntry { apply_version: APPLY_VERSION + 1, ..known_entry(2) };
    let mut rig = Rig::over(vec![entry(1, &known_entry(1)), entry(2, &newer)], 2);
    let error = rig.start().expect_err("the log is of a newer release");
    assert!(error.to_string().contains("log entry 2 has format 1 and apply version 2"), "{error}");
    assert!(error.to_string().contains("start the newer release"), "{error}");
    assert_eq!(rig.applied, [0; 0]);
    let torn = Entry { index: 1, term: 1, data: vec![0xff], ..Entry::default() };
    let mut rig = Rig::over(vec![torn], 1);
    assert!(matches!(rig.start(), Err(CoreError::Malformed { index: 1, .. })));
}

#[test]
fn what_nobody_waits_for_is_not_ordered() {
    let mut rig = Rig::over(Vec::new(), 0);
    rig.start().expect("nothing in the log");
    rig.propose((1..=4).map(|id| put(id, POD, 1)).collect());
    assert_eq!(rig.core.retain_queued(|request| request.id != 2), 1);
    let mut ordered = Vec::new();
    while let Some(append) = rig.persist() {
        ordered.extend(ids(&append));
    }
    assert_eq!(ordered, [1, 3, 4]);
    assert_eq!(rig.core.left_queue().map(|left| left.proposals).sum::<u64>(), 4);
}

fn follower() -> Core {
    one_of(&[MEMBER, 8])
}

/// A whole state of entry 90, as the leader announces it.
fn announced(members: &[u64]) -> Message {
    let mut message = Message { from: 8, to: MEMBER, term: 4, ..Message::default() };
    message.set_msg_type(MessageType::MsgSnapshot);
    let metadata = message.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (90, 3);
    metadata.mut_conf_state().voters = members.to_vec();
    message
}

pub(super) fn outputs(core: &mut Core, input: Input) -> Vec<Output> {
    let mut outputs = Vec::new();
    core.step(input, &mut outputs).expect("the core goes on");
    outputs
}

#[test]
fn the_log_follows_a_state_that_was_installed_and_nothing_is_promised_before() {
    let mut core = follower();
    let out = outputs(&mut core, Input::Received(Box::new(announced(&[MEMBER, 8]))));
    let at = LogPosition { index: 90, term: 3 };
    assert!(out.iter().any(|output| matches!(output, Output::Install(position) if *position == at)), "{out:?}");
    // Entries behind it come while it is installed: they wait, and so does every answer.
    let mut append = Message { from: 8, to: MEMBER, term: 4, log_term: 3, index: 90, ..Message::default() };
    append.set_msg_type(MessageType::MsgAppend);
    append.entries = vec![Entry { index: 91, term: 4, ..Entry::default() }];
    let out = outputs(&mut core, Input::Message(Box::new(append)));
    assert!(!out.iter().any(|output| matches!(output, Output::Append(_) | Output::Send(_))), "{out:?}");
    for _ in 0..50 {
        let out = outputs(&mut core, Input::Tick);
        assert!(!out.iter().any(|output| matches!(output, Output::Send(_))), "it does not campaign: {out:?}");
    }

    let out = outputs(&mut core, Input::Installed);
    let appends: Vec<&Append> =
        out.iter().filter_map(|output| if let Output::Append(append) = output { Some(append) } else { None }).collect();
    assert_eq!(appends[0].start_after, Some(at));
    assert_eq!(appends[0].hard_state.as_ref().map(|state| (state.term, state.commit)), Some((4, 90)));
    assert!(appends[1].start_after.is_none() && appends[1].entries[0].index == 91);
    let last = appends[1].number;
    let out = outputs(&mut core, Input::Persisted(last));
    let answered = out.iter().any(|output| matches!(output, Output::Send(messages) if !messages.is_empty()));
    assert!(answered, "{out:?}");
    let mut commit = Message { from: 8, to: MEMBER, term: 4, commit: 91, ..Message::default() };
    commit.set_msg_type(MessageType::MsgHeartbeat);
    let out = outputs(&mut core, Input::Message(Box::new(commit)));
    assert!(
        out.iter().any(|output| matches!(output, Output::Apply(entries) if entries[0].position.index == 91)),
        "{out:?}"
    );
}

#[test]
fn a_state_that_cannot_be_or_is_not_needed_is_given_back() {
    let refused = |change: fn(&mut Message)| {
        let mut message = announced(&[MEMBER, 8]);
        change(&mut message);
        let out = outputs(&mut follower(), Input::Received(Box::new(message)));
        assert!(out.iter().any(|output| matches!(output, Output::Discard)), "{out:?}");
        assert!(!out.iter().any(|output| matches!(output, Output::Install(_))), "{out:?}");
        out.iter().any(|output| matches!(output, Output::Refused { .. }))
    };
    assert!(refused(|message| message.mut_snapshot().mut_metadata().index = 0));
    assert!(refused(|message| message.mut_snapshot().mut_metadata().term = 5));
    assert!(refused(|message| message.mut_snapshot().mut_metadata().mut_conf_state().voters.clear()));
    assert!(refused(|message| message.mut_snapshot().mut_metadata().mut_conf_state().voters.push(8)));
    assert!(refused(|message| message.mut_snapshot().mut_metadata().mut_conf_state().learners.push(8)));
    assert!(refused(|message| message.mut_snapshot().mut_metadata().mut_conf_state().voters_outgoing.push(8)));
    assert!(refused(|message| message.to = 9));
    assert!(refused(|message| message.set_msg_type(MessageType::MsgAppend)));
    // Of a cluster without this member: sound, and of no use.
    assert!(!refused(|message| message.mut_snapshot().mut_metadata().mut_conf_state().voters = vec![8]));
    // Alone it is refused: what it announces would not be there.
    let out = outputs(&mut follower(), Input::Message(Box::new(announced(&[MEMBER, 8]))));
    assert!(matches!(out[..], [Output::Refused { .. }]), "{out:?}");
}

#[test]
fn a_candidate_of_an_earlier_term_hears_of_the_later_one() {
    let mut core = follower();
    let message = |kind, from, term| {
        let mut message = Message { from, to: MEMBER, term, ..Message::default() };
        message.set_msg_type(kind);
        Input::Message(Box::new(message))
    };
    let said = |outputs: Vec<Output>| {
        let sent = outputs.into_iter().filter_map(|output| match output {
            Output::Send(messages) => Some(messages),
            _ => None,
        });
        sent.flatten().collect::<Vec<_>>()
    };
    let appends = outputs(&mut core, message(MessageType::MsgHeartbeat, 8, 5));
    let number = appends.iter().find_map(|output| match output {
        Output::Append(append) => Some(append.number),
        _ => None,
    });
    // Nobody knows 9 here yet.
    let late = || message(MessageType::MsgRequestVote, 9, 3);
    assert!(said(outputs(&mut core, late())).is_empty(), "the term that it would speak of is not durable yet");
    let said = said(outputs(&mut core, Input::Persisted(number.expect("the new term is written"))));
    let refusal = said.iter().find(|message| message.to == 9).expect("an answer");
    assert_eq!((refusal.get_msg_type(), refusal.term), (MessageType::MsgRequestVoteResponse, 5));
    assert!(refusal.reject);
}

#[test]
fn a_question_with_a_context_that_nobody_makes_is_refused() {
    let asks = |bytes: usize| {
        let entries = vec![Entry { data: vec![7; bytes], ..Entry::default() }];
        let mut message = Message { from: 8, to: MEMBER, entries, ..Message::default() };
        message.set_msg_type(MessageType::MsgReadIndex);
        let outputs = outputs(&mut follower(), Input::Message(Box::new(message)));
        outputs.iter().any(|output| matches!(output, Output::Refused { .. }))
    };
    assert!(!asks(16) && !asks(64));
    assert!(asks(0) && asks(65));
}

#[test]
fn who_was_told_that_it_is_removed_asks_for_no_votes_and_goes_when_most_said_so() {
    let asks = |outputs: &[Output]| outputs.iter().any(|output| matches!(output, Output::Send(_)));
    let leaves = |outputs: &[Output]| outputs.iter().any(|output| matches!(output, Output::Left));
    let ticks = |core: &mut Core| {
        let mut outputs = Vec::new();
        (0..50).for_each(|_| core.step(Input::Tick, &mut outputs).expect("the core goes on"));
        outputs
    };
    assert!(asks(&ticks(&mut one_of(&[1, 2, MEMBER]))), "others ask when they hear of no leader");
    let (mut core, mut outputs) = (one_of(&[1, 2, MEMBER]), Vec::new());
    core.step(Input::Told { by: 1 }, &mut outputs).expect("the core goes on");
    outputs.extend(ticks(&mut core));
    assert!(!asks(&outputs) && !leaves(&outputs));
    core.step(Input::Told { by: 2 }, &mut outputs).expect("the core goes on");
    assert!(leaves(&outputs));
}

/// Ticks until votes are asked for.
fn ticks_to_votes(core: &mut Core) -> usize {
    let asks = |outputs: Vec<Output>| outputs.iter().any(|output| matches!(output, Output::Send(_)));
    1 + (0..50).position(|_| asks(outputs(core, Input::Tick))).expect("an election comes")
}

/// Takes an input, and makes durable what follows from it.
fn step_durably(core: &mut Core, input: Input) {
    for output in outputs(core, input) {
        if let Output::Append(append) = output {
            outputs(core, Input::Persisted(append.number));
        }
    }
}

#[test]
fn the_first_election_comes_sooner_where_no_leader_is_known() {
    let whole = ticks_to_votes(&mut one_of(&[1, 2, MEMBER]));
    let mut core = one_of(&[1, 2, MEMBER]);
    outputs(&mut core, Input::AdvanceElection);
    let election_ticks = 10;
    assert_eq!(ticks_to_votes(&mut core), whole - (election_ticks - 2));

    let mut core = one_of(&[1, 2, MEMBER]);
    let mut heartbeat = Message { from: 1, to: MEMBER, term: 1, ..Message::default() };
    heartbeat.set_msg_type(MessageType::MsgHeartbeat);
    step_durably(&mut core, Input::Message(Box::new(heartbeat)));
    outputs(&mut core, Input::AdvanceElection);
    assert!(ticks_to_votes(&mut core) >= election_ticks, "who knows a leader waits for him");
}

#[test]
fn a_message_without_a_term_is_not_taken_for_a_word_of_its_own() {
    let refused = |kind: MessageType| {
        let mut message = Message { from: 8, to: MEMBER, commit: 4, ..Message::default() };
        message.set_msg_type(kind);
        let outputs = outputs(&mut follower(), Input::Message(Box::new(message)));
        outputs.iter().any(|output| matches!(output, Output::Refused { from: 8, .. }))
    };
    // At a heartbeat without one the crate panicked: it believed that four entries are committed, of which there are none.
    assert!(refused(MessageType::MsgHeartbeat) && refused(MessageType::MsgAppend));
    assert!(refused(MessageType::MsgRequestVote) && refused(MessageType::MsgTimeoutNow));
    assert!(!refused(MessageType::MsgTransferLeader));
}

#[test]
fn entries_without_a_term_are_not_taken_for_those_that_are_not_there() {
    let refused = |index: u64, log_term: u64, terms: [u64; 2]| {
        let of_term = |(index, term)| Entry { index, term, ..Entry::default() };
        let entries = (index + 1..).zip(terms).map(of_term).collect();
        let mut message = Message { from: 8, to: MEMBER, term: 4, index, log_term, entries, ..Message::default() };
        message.set_msg_type(MessageType::MsgAppend);
        let outputs = outputs(&mut follower(), Input::Message(Box::new(message)));
        outputs.iter().any(|output| matches!(output, Output::Refused { from: 8, .. }))
    };
    assert!(refused(0, 0, [0, 4]), "the crate panicked: it kept the first one for known, and appended behind a gap");
    assert!(refused(90, 0, [4, 4]));
    assert!(!refused(0, 0, [4, 4]) && !refused(90, 4, [4, 4]));
}
