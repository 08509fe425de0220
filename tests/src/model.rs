//! What a log of requests must come to: one list of versions for each key, and no more thought than that.

use std::collections::{BTreeMap, BTreeSet};

use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::compare::{CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::request_op::Request as Op;
use basalt_proto::etcdserverpb::{Compare, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};
use basalt_proto::log::member_change::Kind as Change;
use basalt_proto::log::request::Kind;
use basalt_proto::log::{MemberChange, Request};

use crate::workload::LEASE_TTL_MIN;

/// A version of a key; without a value it is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Main revision of the put that made the key.
    pub create_revision: i64,
    /// Its own main revision.
    pub mod_revision: i64,
    /// Puts since the key was made.
    pub version: i64,
    /// The attached lease, or 0.
    pub lease: i64,
    /// The value.
    pub value: Option<Vec<u8>>,
}

/// A lease: granted seconds, remembered remainder, attached keys.
pub type Lease = (i64, i64, BTreeSet<Vec<u8>>);

/// The state.
#[derive(Clone, Debug)]
pub struct Model {
    /// The store's revision.
    pub revision: i64,
    /// The compact revision, -1 before the first.
    pub compact_revision: i64,
    keys: BTreeMap<Vec<u8>, Vec<Version>>,
    leases: BTreeMap<i64, (i64, i64)>,
    no_space: bool,
    /// Who belongs to the cluster.
    pub members: ModelMembers,
}

/// Ids of members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelMembers {
    /// Those who vote.
    pub voters: BTreeSet<u64>,
    /// Those who do not yet.
    pub learners: BTreeSet<u64>,
    /// Those who left.
    pub removed: BTreeSet<u64>,
}

impl ModelMembers {
    /// Changes them; says whether that may be.
    fn change(&mut self, change: &MemberChange) -> bool {
        match change.kind.as_ref().expect("a workload leaves none empty") {
            Change::Add(addition) => {
                let id = addition.member.as_ref().expect("a workload leaves none empty").id;
                let new = ![&self.voters, &self.learners, &self.removed].iter().any(|ids| ids.contains(&id));
                let fits = !addition.learner || self.learners.len() < addition.learners_max as usize;
                let ids = if addition.learner { &mut self.learners } else { &mut self.voters };
                new && fits && ids.insert(id)
            }
            Change::Remove(id) => {
                let others = self.voters.iter().any(|voter| voter != id);
                let is_gone = others && (self.voters.remove(id) || self.learners.remove(id));
                is_gone && self.removed.insert(*id)
            }
            Change::Promote(promotion) => {
                !promotion.behind && self.learners.remove(&promotion.id) && self.voters.insert(promotion.id)
            }
            Change::Update(_) => panic!("no workload makes it"),
        }
    }
}

impl Default for Model {
    fn default() -> Self {
        let (keys, leases) = (BTreeMap::new(), BTreeMap::new());
        let members = ModelMembers::default();
        Self { revision: 1, compact_revision: -1, keys, leases, no_space: false, members }
    }
}

impl Model {
    /// The live keys at a revision, in order.
    pub fn live(&self, at: i64) -> Vec<(Vec<u8>, Version)> {
        let newest = |versions: &Vec<Version>| versions.iter().rfind(|version| version.mod_revision <= at).cloned();
        let live = self.keys.iter().filter_map(|(key, versions)| Some((key.clone(), newest(versions)?)));
        live.filter(|(_, version)| version.value.is_some()).collect()
    }

    /// All leases.
    pub fn leases(&self) -> BTreeMap<i64, Lease> {
        let live = self.live(self.revision);
        let keys = |id| live.iter().filter(|(_, version)| version.lease == id).map(|(key, _)| key.clone()).collect();
        self.leases.iter().map(|(id, (ttl, remaining))| (*id, (*ttl, *remaining, keys(*id)))).collect()
    }

    /// Whether the NOSPACE alarm is armed.
    pub fn is_out_of_space(&self) -> bool {
        self.no_space
    }

    /// Applies one request; gives the revision that it answers, `None` for a refusal.
    ///
    /// # Panics
    /// For a request that no workload makes.
    pub fn apply(&mut self, request: &Request) -> Option<i64> {
        let kind = request.kind.as_ref()?;
        if self.no_space && puts(kind) {
            return None;
        }
        match kind {
            Kind::Put(put) => self.write(&[Op::RequestPut(put.clone())]),
            Kind::DeleteRange(delete) => self.write(&[Op::RequestDeleteRange(delete.clone())]),
            Kind::Txn(txn) => self.txn(txn),
            Kind::Compaction(request) => {
                let allowed = request.revision > self.compact_revision && request.revision <= self.revision;
                allowed.then(|| self.compact_revision = request.revision)?;
                Some(self.revision)
            }
            Kind::LeaseGrant(grant) => {
                if self.leases.contains_key(&grant.id) {
                    return None;
                }
                self.leases.insert(grant.id, (grant.ttl.max(LEASE_TTL_MIN), 0));
                Some(self.revision)
            }
            Kind::LeaseRevoke(revoke) => {
                let (_, _, keys) = self.leases().remove(&revoke.id)?;
                let delete = |key: Vec<u8>| DeleteRangeRequest { key: key.into(), ..Default::default() };
                let deletes: Vec<_> = keys.into_iter().map(|key| Op::RequestDeleteRange(delete(key))).collect();
                let revision = self.write(&deletes);
                self.leases.remove(&revoke.id);
                revision
            }
            Kind::LeaseCheckpoint(request) => {
                for checkpoint in &request.checkpoints {
                    if let Some((_, remaining)) = self.leases.get_mut(&checkpoint.id) {
                        *remaining = checkpoint.remaining_ttl;
                    }
                }
                Some(self.revision)
            }
            Kind::Alarm(alarm) => {
                self.no_space = alarm.action == AlarmAction::Activate as i32;
                Some(self.revision)
            }
            Kind::MemberChange(change) => self.members.change(change).then_some(self.revision),
            other => panic!("no workload makes {other:?}"),
        }
    }

    fn txn(&mut self, txn: &TxnRequest) -> Option<i64> {
        let holds = txn.compare.iter().all(|compare| self.holds(compare));
        let branch = if holds { &txn.success } else { &txn.failure };
        let operation = |op: &RequestOp| op.request.clone().expect("a workload leaves none empty");
        self.write(&branch.iter().map(operation).collect::<Vec<_>>())
    }

    fn holds(&self, compare: &Compare) -> bool {
        let live = self.newest_live(&compare.key);
        match (CompareTarget::try_from(compare.target), &compare.target_union) {
            (Ok(CompareTarget::Mod), Some(TargetUnion::ModRevision(wanted))) => {
                live.map_or(0, |version| version.mod_revision) == *wanted
            }
            (Ok(CompareTarget::Value), Some(TargetUnion::Value(wanted))) => {
                live.is_some_and(|version| version.value.as_deref() == Some(wanted))
            }
            other => panic!("no workload compares {other:?}"),
        }
    }

    fn newest_live(&self, key: &[u8]) -> Option<&Version> {
        self.keys.get(key)?.last().filter(|version| version.value.is_some())
    }

    /// Puts and deletes in one revision, all or nothing.
    fn write(&mut self, operations: &[Op]) -> Option<i64> {
        let before = self.clone();
        let mut changed = false;
        for operation in operations {
            let done = match operation {
                Op::RequestPut(put) => self.put(put),
                Op::RequestDeleteRange(delete) => Some(self.delete(delete)),
                Op::RequestRange(_) => Some(false),
                Op::RequestTxn(_) => panic!("no workload nests"),
            };
            match done {
                Some(change) => changed |= change,
                None => {
                    *self = before;
                    return None;
                }
            }
        }
        self.revision += i64::from(changed);
        Some(self.revision)
    }

    fn put(&mut self, put: &PutRequest) -> Option<bool> {
        let live = self.newest_live(&put.key).cloned();
        if (put.lease != 0 && !self.leases.contains_key(&put.lease)) || (put.ignore_value && live.is_none()) {
            return None;
        }
        let mod_revision = self.revision + 1;
        let version = match live {
            Some(live) => Version {
                mod_revision,
                version: live.version + 1,
                lease: put.lease,
                value: if put.ignore_value { live.value } else { Some(put.value.to_vec()) },
                ..live
            },
            None => Version {
                create_revision: mod_revision,
                mod_revision,
                version: 1,
                lease: put.lease,
                value: Some(put.value.to_vec()),
            },
        };
        self.keys.entry(put.key.to_vec()).or_default().push(version);
        Some(true)
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) -> bool {
        let (mod_revision, key, end) = (self.revision + 1, &delete.key[..], &delete.range_end[..]);
        let mut changed = false;
        for (_, versions) in self.keys.iter_mut().filter(|(k, _)| k[..] == *key || (k[..] >= *key && k[..] < *end)) {
            if versions.last().is_some_and(|version| version.value.is_some()) {
                versions.push(Version { create_revision: 0, mod_revision, version: 0, lease: 0, value: None });
                changed = true;
            }
        }
        changed
    }
}

/// What NOSPACE refuses (etcd-contract 42).
fn puts(kind: &Kind) -> bool {
    let put = |op: &RequestOp| matches!(op.request, Some(Op::RequestPut(_)));
    match kind {
        Kind::Put(_) | Kind::LeaseGrant(_) => true,
        Kind::Txn(txn) => txn.success.iter().chain(&txn.failure).any(put),
        _ => false,
    }
}
