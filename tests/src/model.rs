//! What a log of requests must come to: one list of versions for each key, and no more thought than that.

mod auth;
mod members;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::compare::{CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::request_op::Request as Op;
use basalt_proto::etcdserverpb::{Compare, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};
use basalt_proto::log::Request;
use basalt_proto::log::request::Kind;
use basalt_server::apply::answer::Refusal;
use basalt_server::apply::auth::error::AuthError;
use basalt_storage::mvcc::key_value::KeyValue;

pub use self::auth::{Access, Grants, ModelAuth, ModelUser};
pub use self::members::ModelMembers;
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

impl Version {
    /// As it is stored.
    pub fn of(stored: &KeyValue<'_>) -> Self {
        Self {
            create_revision: stored.create_revision,
            mod_revision: stored.mod_revision,
            version: stored.version,
            lease: stored.lease,
            value: Some(stored.value.to_vec()),
        }
    }
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// Which key.
    pub key: Vec<u8>,
    /// What it is from then on; without a value it was deleted.
    pub version: Version,
    /// The live version before.
    pub previous: Option<Version>,
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
    /// Who armed NOSPACE.
    no_space: BTreeSet<u64>,
    /// Every change, in order, where somebody wants to know.
    history: Option<Vec<Happened>>,
    /// Who belongs to the cluster.
    pub members: ModelMembers,
    /// Users and roles.
    pub auth: ModelAuth,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// By users and roles, for this reason.
    Auth(AuthError),
    /// For another reason.
    Otherwise,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Auth(error) => Refused::Auth(error),
            _ => Refused::Otherwise,
        }
    }
}

impl Default for Model {
    fn default() -> Self {
        let (keys, leases) = (BTreeMap::new(), BTreeMap::new());
        let (members, auth) = (ModelMembers::default(), ModelAuth::default());
        Self {
            revision: 1,
            compact_revision: -1,
            keys,
            leases,
            no_space: BTreeSet::new(),
            history: None,
            members,
            auth,
        }
    }
}

impl Model {
    /// The live keys at a revision, in order.
    pub fn live(&self, at: i64) -> Vec<(Vec<u8>, Version)> {
        self.range(&[0], &[0], at)
    }

    /// The live keys of a range at a revision, in order; as on the wire an empty end means the first key alone, and a zero
    /// all that follow.
    pub fn range(&self, key: &[u8], range_end: &[u8], at: i64) -> Vec<(Vec<u8>, Version)> {
        let end = match range_end {
            [] => Bound::Included(key),
            [0] => Bound::Unbounded,
            end => Bound::Excluded(end),
        };
        let newest = |versions: &Vec<Version>| versions.iter().rfind(|version| version.mod_revision <= at).cloned();
        let keys = self.keys.range::<[u8], _>((Bound::Included(key), end));
        let live = keys.filter_map(|(key, versions)| Some((key.clone(), newest(versions)?)));
        live.filter(|(_, version)| version.value.is_some()).collect()
    }

    /// Remembers every change from now on.
    pub fn remember(&mut self) {
        self.history.get_or_insert_default();
    }

    /// Every change that is remembered, in order.
    pub fn history(&self) -> &[Happened] {
        self.history.as_deref().unwrap_or_default()
    }

    /// Granted seconds of a lease, if there is one.
    pub fn lease_ttl(&self, id: i64) -> Option<i64> {
        self.leases.get(&id).map(|(ttl, _)| *ttl)
    }

    /// All leases.
    pub fn leases(&self) -> BTreeMap<i64, Lease> {
        let live = self.live(self.revision);
        let keys = |id| live.iter().filter(|(_, version)| version.lease == id).map(|(key, _)| key.clone()).collect();
        self.leases.iter().map(|(id, (ttl, remaining))| (*id, (*ttl, *remaining, keys(*id)))).collect()
    }

    /// Those for whom the NOSPACE alarm is armed.
    pub fn out_of_space(&self) -> &BTreeSet<u64> {
        &self.no_space
    }

    /// Applies one request; gives the revision that it answers.
    ///
    /// # Errors
    /// [`Refused`].
    ///
    /// # Panics
    /// For a request that no workload makes.
    pub fn apply(&mut self, request: &Request) -> Result<i64, Refused> {
        let kind = request.kind.as_ref().expect("a workload leaves none empty");
        if !self.no_space.is_empty() && puts(kind) {
            return Err(Refused::Otherwise);
        }
        let keys_of = |lease: i64| self.keys_of_lease(lease);
        self.auth.judge(request.principal.as_ref(), kind, keys_of).map_err(Refused::Auth)?;
        if let Some(changed) = self.auth.change(kind) {
            return changed.map(|()| self.revision).map_err(Refused::Auth);
        }
        self.change(kind).ok_or(Refused::Otherwise)
    }

    fn keys_of_lease(&self, lease: i64) -> Vec<Vec<u8>> {
        let newest = |versions: &Vec<Version>| versions.last().is_some_and(|last| last.lease == lease);
        self.keys.iter().filter(|(_, versions)| newest(versions)).map(|(key, _)| key.clone()).collect()
    }

    fn change(&mut self, kind: &Kind) -> Option<i64> {
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
                self.leases.get(&revoke.id)?;
                let delete = |key: Vec<u8>| DeleteRangeRequest { key: key.into(), ..Default::default() };
                let attached = self.keys_of_lease(revoke.id).into_iter();
                let deletes: Vec<_> = attached.map(|key| Op::RequestDeleteRange(delete(key))).collect();
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
                let (id, is_armed) = (alarm.member_id, alarm.action == AlarmAction::Activate as i32);
                if is_armed {
                    self.no_space.insert(id)
                } else {
                    self.no_space.remove(&id)
                };
                Some(self.revision)
            }
            Kind::MemberChange(change) => self.members.change(change).then_some(self.revision),
            Kind::MemberDescription(description) => {
                let allowed = self.members.describe(description);
                // Who stands alone with a full disk stands back; where most do, nothing is to grow.
                if allowed && self.members.full.contains(&description.id) && self.members.are_mostly_full() {
                    self.no_space.insert(description.id);
                }
                allowed.then_some(self.revision)
            }
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
        let mut changed = false;
        for (position, operation) in operations.iter().enumerate() {
            let done = match operation {
                Op::RequestPut(put) => self.put(put),
                Op::RequestDeleteRange(delete) => Some(self.delete(delete)),
                Op::RequestRange(_) => Some(false),
                Op::RequestTxn(_) => panic!("no workload nests"),
            };
            match done {
                Some(change) => changed |= change,
                None => {
                    operations[..position].iter().for_each(|done| self.take_back(done));
                    return None;
                }
            }
        }
        self.revision += i64::from(changed);
        Some(self.revision)
    }

    /// As if an operation of the revision that does not come about had not been.
    fn take_back(&mut self, operation: &Op) {
        let revision = self.revision;
        if let Some(history) = &mut self.history {
            while history.pop_if(|happened| happened.version.mod_revision > revision).is_some() {}
        }
        let forget = |versions: &mut Vec<Version>| {
            while versions.pop_if(|version| version.mod_revision > revision).is_some() {}
        };
        match operation {
            Op::RequestPut(put) => self.keys.get_mut(&put.key[..]).into_iter().for_each(forget),
            Op::RequestDeleteRange(delete) => {
                keys_of(&mut self.keys, delete).for_each(|(_, versions)| forget(versions));
            }
            Op::RequestRange(_) | Op::RequestTxn(_) => {}
        }
    }

    fn put(&mut self, put: &PutRequest) -> Option<bool> {
        let live = self.newest_live(&put.key).cloned();
        if (put.lease != 0 && !self.leases.contains_key(&put.lease)) || (put.ignore_value && live.is_none()) {
            return None;
        }
        let mod_revision = self.revision + 1;
        let previous = live.clone();
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
        if let Some(history) = &mut self.history {
            history.push(Happened { key: put.key.to_vec(), version: version.clone(), previous });
        }
        self.keys.entry(put.key.to_vec()).or_default().push(version);
        Some(true)
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) -> bool {
        let mod_revision = self.revision + 1;
        let mut changed = false;
        for (key, versions) in keys_of(&mut self.keys, delete) {
            let Some(live) = versions.last().filter(|version| version.value.is_some()) else { continue };
            let version = Version { create_revision: 0, mod_revision, version: 0, lease: 0, value: None };
            if let Some(history) = &mut self.history {
                history.push(Happened { key: key.clone(), version: version.clone(), previous: Some(live.clone()) });
            }
            versions.push(version);
            changed = true;
        }
        changed
    }
}

/// What a delete is about.
fn keys_of<'a>(
    keys: &'a mut BTreeMap<Vec<u8>, Vec<Version>>,
    delete: &DeleteRangeRequest,
) -> impl Iterator<Item = (&'a Vec<u8>, &'a mut Vec<Version>)> {
    let first = delete.key.to_vec();
    let end = if delete.range_end.is_empty() { [&first[..], &[0]].concat() } else { delete.range_end.to_vec() };
    // An end below the first key is no range; one key is named at least.
    let end = end.max([&first[..], &[0]].concat());
    keys.range_mut(first..end)
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
