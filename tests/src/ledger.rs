//! What a client that forgets nothing knows: every answer it ever got, in the order of the log, over all lives of a
//! node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use basalt_proto::effects::EffectBatch;
use basalt_proto::log::member_change::Kind as Change;
use basalt_proto::log::request::Kind;
use basalt_proto::log::{LogEntry, MemberChange, Request};
use basalt_server::apply::alarms::AlarmKind;
use basalt_server::apply::effects::Effects;
use basalt_server::apply::machine::Machine;
use basalt_storage::hashes::{HashKv, HashKvJob, HashPurpose};
use basalt_storage::job::{BUDGET_UNLIMITED, run};
use basalt_storage::mvcc::key_value::KeyValue;
use basalt_storage::mvcc::view::{LogPosition, View};
use basalt_storage::revision::Revision;
use basalt_storage::snapshot::KEY_BUCKET;
use basalt_storage::snapshot::bbolt::{Item, Reader};
use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::auth_history::AuthHistory;
use crate::model::{Lease, Model, ModelAuth, ModelMembers, Refused, Version};
use crate::node_sim::{Outcome, SimulatedNode, TakenSnapshot};
use crate::opening;
use crate::stored::read_range;

/// Revisions looked at besides the newest and the oldest readable.
const REVISIONS_CHECKED: usize = 4;

/// Entries that were applied, and so acknowledged, at any time.
#[derive(Clone, Default)]
pub struct Ledger {
    /// The entry behind which the log begins.
    begins_after: u64,
    entries: BTreeMap<u64, Recorded>,
    /// Sent and not yet seen in an entry, by id.
    in_flight: BTreeMap<u64, Request>,
    model: Model,
    auth: AuthHistory,
    membership_changes: usize,
}

/// A machine that was given nothing but effects, and its HashKV at some revisions.
pub struct HashedReplica {
    machine: Machine,
    hashes: Vec<(i64, HashKv)>,
}

#[derive(Clone)]
struct Recorded {
    position: LogPosition,
    entry: Option<LogEntry>,
    /// What was answered: a revision, or a refusal.
    answers: Vec<(u64, Result<i64, Refused>)>,
    effects: Effects,
}

impl Ledger {
    /// The last index that anybody heard of.
    pub fn last_index(&self) -> u64 {
        self.entries.last_key_value().map_or(self.begins_after, |(index, _)| *index)
    }

    /// Of a cluster with these first members, whose log begins behind the entries that name them.
    pub fn of_cluster(voters: &[u64]) -> Self {
        let mut ledger = Self { begins_after: voters.len() as u64, ..Self::default() };
        ledger.model.members.voters = voters.iter().copied().collect();
        ledger.model.remember();
        ledger
    }

    /// What the log came to.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Who belongs to the cluster after the last entry.
    pub fn members(&self) -> &ModelMembers {
        &self.model.members
    }

    /// How often that changed.
    pub fn membership_changes(&self) -> usize {
        self.membership_changes
    }

    /// Users, roles and tokens after each entry.
    pub fn auth(&self) -> &AuthHistory {
        &self.auth
    }

    /// The store's revision after it.
    pub fn revision(&self) -> i64 {
        self.model.revision
    }

    /// Whether somebody asked that another member than `id` be removed, and nobody knows yet whether it will be.
    pub fn awaits_removal_beside(&self, id: u64) -> bool {
        let belongs = |other: &u64| self.model.members.voters.contains(other);
        self.in_flight.values().any(|request| {
            let Some(Kind::MemberChange(MemberChange { kind: Some(Change::Remove(other)) })) = &request.kind else {
                return false;
            };
            *other != id && belongs(other)
        })
    }

    /// Notes what is about to be sent: nothing else may ever be applied, and nothing twice.
    pub fn sent(&mut self, request: &Request) {
        let before = self.in_flight.insert(request.id, request.clone());
        assert!(before.is_none(), "{} is the id of another request", request.id);
    }

    /// Takes what a node applied. What was heard of before must come again exactly, with the same answers and effects;
    /// what is new must follow it.
    ///
    /// # Panics
    /// When it does not.
    pub fn take(&mut self, outcomes: Vec<Outcome>) {
        for Outcome { position, entry, answers, effects } in outcomes {
            let answers = answers
                .into_iter()
                .map(|(id, answer)| (id, answer.map(|answer| answer.revision()).map_err(Refused::from)));
            let recorded = Recorded { position, entry, answers: answers.collect(), effects };
            match self.entries.get(&position.index) {
                Some(before) => same_again(before, &recorded),
                None => self.append(recorded),
            }
        }
    }

    fn append(&mut self, recorded: Recorded) {
        let Recorded { position, entry, answers, effects } = &recorded;
        assert_eq!(position.index, self.last_index() + 1, "an entry was left out");
        let requests = entry.iter().flat_map(|entry| &entry.requests);
        for request in requests.clone().filter(|request| request.id != 0) {
            let sent = self.in_flight.remove(&request.id);
            assert_eq!(sent, Some(as_sent(request)), "an entry holds what nobody sent, or sent once");
        }
        let expected: Vec<_> = requests.clone().map(|request| (request.id, self.model.apply(request))).collect();
        assert_eq!(*answers, expected, "answers of entry {}: {entry:?}", position.index);
        assert!(entry.is_none() || effects.revision == self.model.revision);
        let is_change = |request: &&Request| matches!(request.kind, Some(Kind::MemberChange(_)));
        let changed =
            requests.clone().filter(is_change).filter(|request| answers.contains(&(request.id, Ok(effects.revision))));
        self.membership_changes += changed.count();
        self.auth.appended(position.index, requests, answers, &self.model);
        self.entries.insert(position.index, recorded);
    }

    /// Looks whether a node that came to rest holds everything that was acknowledged, and nothing else.
    ///
    /// # Panics
    /// When it does not.
    pub fn check(&self, node: &SimulatedNode) {
        self.check_beside(node, &self.hashed_replica());
    }

    /// The same beside a replica that was made for several nodes.
    ///
    /// # Panics
    /// As [`Self::check`].
    pub fn check_beside(&self, node: &SimulatedNode, replica: &HashedReplica) {
        let view = node.view();
        assert_eq!(view.applied.index, self.last_index(), "acknowledged entries are there");
        assert_eq!((view.revision, view.compact_revision), (self.model.revision, self.model.compact_revision));
        for at in self.revisions() {
            assert!(read_range(node, &view, &[0], &[0], at) == self.model.live(at), "other keys at {at}");
        }
        assert_eq!(leases(node.machine()), self.model.leases());
        assert_eq!(ModelAuth::of(node.machine().auth()), self.model.auth, "users and roles");
        let alarms = node.machine().alarms().list(Some(AlarmKind::NoSpace));
        let out_of_space: BTreeSet<u64> = alarms.iter().map(|alarm| alarm.member_id).collect();
        assert_eq!(out_of_space, *self.model.out_of_space(), "who armed NOSPACE");
        if !self.model.members.voters.is_empty() {
            let members = node.machine().members();
            let (voters, learners): (BTreeSet<u64>, BTreeSet<u64>) =
                members.iter().map(|member| member.id).partition(|id| !members.is_learner(*id));
            assert_eq!((&voters, &learners), (&self.model.members.voters, &self.model.members.learners), "members");
            let described = members.iter().filter(|member| !member.incarnation.is_empty());
            let incarnations: BTreeMap<u64, Vec<u8>> =
                described.map(|member| (member.id, member.incarnation.to_vec())).collect();
            assert_eq!(incarnations, self.model.members.incarnations, "from which data directories members speak");
            let full: BTreeSet<u64> =
                members.iter().filter(|member| member.disk_full).map(|member| member.id).collect();
            assert_eq!(full, self.model.members.full, "whose disks are full");
        }
        self.check_replica(node, replica);
    }

    /// Looks whether a snapshot is whole and holds the store of its revision.
    ///
    /// # Panics
    /// When it is not.
    pub fn check_snapshot(&self, snapshot: TakenSnapshot) {
        let TakenSnapshot { revision, compact_revision, file, digest } = snapshot;
        assert_eq!(digest, Some(Sha256::digest(&file).into()), "the digest of a snapshot");
        let mut newest = BTreeMap::new();
        for (at, tombstone, value) in stored_in(file) {
            assert!(at.main <= revision, "a snapshot of {revision} holds {at:?}");
            let stored = KeyValue::parse(&value).expect("stored values are whole");
            newest.insert(stored.key.to_vec(), (!tombstone).then(|| Version::of(&stored)));
        }
        let live: Vec<_> = newest.into_iter().filter_map(|(key, version)| Some((key, version?))).collect();
        assert!(live == self.model.live(revision), "a snapshot of {revision}, compacted at {compact_revision}");
    }

    /// The recorded effects, installed into an empty store, come to the same state.
    fn check_replica(&self, node: &SimulatedNode, replica: &HashedReplica) {
        assert_eq!(replica.machine.leases(), node.machine().leases());
        assert_eq!(replica.machine.alarms(), node.machine().alarms());
        assert_eq!(replica.machine.auth(), node.machine().auth());
        let view = node.view();
        for (at, hash) in &replica.hashes {
            assert_eq!(node.read(hash_job(&view, *at)), *hash, "HashKV at {at}");
        }
    }

    /// A machine that knows the effects only, and its HashKVs.
    pub fn hashed_replica(&self) -> HashedReplica {
        let machine = self.replica();
        let copy = Arc::new(machine.store().head());
        let hashes = self.revisions().into_iter().map(|at| (at, hash_of_memory(&copy, at))).collect();
        HashedReplica { machine, hashes }
    }

    /// A machine that knows the effects only, as they come from a wire.
    ///
    /// # Panics
    /// When they do not follow one another.
    pub fn replica(&self) -> Machine {
        let mut replica = Machine::new(opening::empty_store());
        for recorded in self.entries.values().filter(|recorded| recorded.entry.is_some()) {
            let bytes = recorded.effects.to_wire().encode_to_vec();
            let batch = EffectBatch::decode(&bytes[..]).expect("what was encoded decodes");
            let effects = Effects::from_wire(batch).expect("this release reads what it writes");
            assert_eq!(effects, recorded.effects, "effects survive the wire");
            replica.install(&effects);
        }
        replica
    }

    /// Some readable revisions, the oldest and the newest among them.
    fn revisions(&self) -> Vec<i64> {
        let (oldest, newest) = (self.model.compact_revision.max(1), self.model.revision);
        let step = usize::try_from(newest - oldest).expect("compaction stays below head") / REVISIONS_CHECKED;
        (oldest..newest).step_by(step.max(1)).chain([newest]).collect()
    }
}

/// A request without what the leader says beside it.
fn as_sent(request: &Request) -> Request {
    let mut sent = request.clone();
    if let Some(Kind::MemberChange(MemberChange { kind: Some(Change::Promote(promotion)) })) = &mut sent.kind {
        promotion.behind = false;
    }
    sent
}

fn same_again(before: &Recorded, again: &Recorded) {
    assert_eq!(before.position, again.position, "an acknowledged entry was replaced");
    assert_eq!(before.entry, again.entry, "an acknowledged entry was changed");
    assert_eq!(before.answers, again.answers, "an entry was answered differently when it was replayed");
    assert_eq!(before.effects, again.effects, "an entry had other effects when it was replayed");
}

fn hash_job(view: &Arc<View>, at: i64) -> HashKvJob {
    HashKvJob::new(view.clone(), at, view.compact_revision, HashPurpose::Request)
}

/// HashKV of a View that no checkpoint has touched: it needs no disk.
fn hash_of_memory(view: &Arc<View>, at: i64) -> HashKv {
    let disk = basalt_storage::disk::SimulatedDisk::new(0);
    run(&mut hash_job(view, at), &disk, BUDGET_UNLIMITED).expect("nothing is read")
}

/// The revisions in a snapshot's file, in their order.
fn stored_in(file: Vec<u8>) -> Vec<(Revision, bool, Bytes)> {
    let reader = Reader::open(Bytes::from(file)).expect("a snapshot is a bbolt file");
    let (mut stored, mut in_keys) = (Vec::new(), false);
    for item in reader.items() {
        match item.expect("a snapshot is whole") {
            Item::Bucket(name) => in_keys = name == KEY_BUCKET,
            Item::Entry { key, value } if in_keys => {
                let (revision, tombstone) = Revision::parse(&key).expect("keys of the bucket are revisions");
                stored.push((revision, tombstone, value));
            }
            Item::Entry { .. } => {}
        }
    }
    stored
}

fn leases(machine: &Machine) -> BTreeMap<i64, Lease> {
    let lease = |record: &basalt_server::apply::lease_table::LeaseRecord| {
        (record.ttl, record.remaining_ttl, record.keys.iter().map(|key| key.to_vec()).collect())
    };
    machine.leases().iter().map(|(id, record)| (id, lease(record))).collect()
}
