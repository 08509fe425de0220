//! Requests as clients make them, and as the API lets them through: few keys in all shards, so that everything meets everything.

use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::compare::{CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::request_op::Request as Op;
use basalt_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use basalt_proto::log::Request;
use basalt_proto::log::request::Kind;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::opening::MEMBER_ID;
use crate::simulation::invariants::reads::Question;

/// Shortest lease of a simulated node, seconds.
pub const LEASE_TTL_MIN: i64 = 1;

const KEYS: u32 = 24;
const COLD_KEYS: u32 = 10_000;
const LEASES: i64 = 6;
/// As many as etcd allows.
const LARGE_TXN_OPS: u32 = 128;

/// A seeded stream of requests.
pub struct Workload {
    random: StdRng,
    next_id: u64,
    /// Keys beside the few that everybody writes.
    cold_keys: u32,
}

impl Workload {
    /// The workload of a seed.
    pub fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), next_id: 1, cold_keys: 0 }
    }

    /// The workload of a cluster: some seeds have many keys that are rarely written, and large transactions.
    pub fn of_cluster(seed: u64) -> Self {
        Self { cold_keys: if seed.is_multiple_of(4) { COLD_KEYS } else { 0 }, ..Self::new(seed) }
    }

    /// The next request, to a store at about `revision`.
    pub fn next_request(&mut self, revision: i64) -> Request {
        let kind = match self.random.random_range(0..100) {
            0..55 => Kind::Put(self.put()),
            55..65 => Kind::DeleteRange(self.delete()),
            65..82 => Kind::Txn(self.txn(revision)),
            82..90 => {
                let ttl = self.random.random_range(0..4).max(LEASE_TTL_MIN);
                Kind::LeaseGrant(LeaseGrantRequest { id: self.lease(), ttl })
            }
            90..93 => Kind::LeaseRevoke(LeaseRevokeRequest { id: self.lease() }),
            93..97 => {
                let revision = revision - self.random.random_range(-1..20);
                Kind::Compaction(CompactionRequest { revision, physical: false })
            }
            _ => Kind::Alarm(self.alarm()),
        };
        self.request(kind)
    }

    /// A request of the caller's own, under the next id.
    pub fn request(&mut self, kind: Kind) -> Request {
        Request { id: self.next_id(), principal: None, kind: Some(kind) }
    }

    /// An id that no other request has.
    pub fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// What a client reads: a key, or some.
    pub fn question(&mut self) -> Question {
        let key = self.key();
        let range_end = if self.random.random_ratio(1, 8) { decade_end(&key) } else { Vec::new() };
        Question { key, range_end }
    }

    fn key(&mut self) -> Vec<u8> {
        if self.cold_keys > 0 && self.random.random_ratio(1, 4) {
            return cold_key(self.random.random_range(0..self.cold_keys));
        }
        let prefix = ["/registry/pods/", "/registry/events/", "/registry/leases/"][self.random.random_range(0..3)];
        format!("{prefix}{:02}", self.random.random_range(0..KEYS)).into_bytes()
    }

    fn lease(&mut self) -> i64 {
        self.random.random_range(1..=LEASES)
    }

    /// Mostly small, now and then most of a log segment.
    fn value(&mut self) -> Vec<u8> {
        let length = if self.random.random_ratio(1, 20) { 6000 } else { self.random.random_range(0..200) };
        (0..length).map(|_| self.random.random()).collect()
    }

    fn put(&mut self) -> PutRequest {
        let lease = if self.random.random_ratio(1, 4) { self.lease() } else { 0 };
        let ignore_value = self.random.random_ratio(1, 8);
        let value = if ignore_value { Vec::new() } else { self.value() };
        PutRequest { key: self.key().into(), value: value.into(), lease, ignore_value, ..Default::default() }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let key = self.key();
        let range_end = if self.random.random_ratio(1, 4) { decade_end(&key) } else { Vec::new() };
        DeleteRangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }
    }

    fn txn(&mut self, revision: i64) -> TxnRequest {
        let op = |request| RequestOp { request: Some(request) };
        if self.cold_keys > 0 && self.random.random_ratio(1, 20) {
            let first = self.random.random_range(0..self.cold_keys);
            let value: Vec<u8> = (0..20).map(|_| self.random.random()).collect();
            let put = |key: Vec<u8>| PutRequest { key: key.into(), value: value.clone().into(), ..Default::default() };
            let puts = (first..first + self.random.random_range(2..=LARGE_TXN_OPS)).map(cold_key).map(put);
            return TxnRequest { success: puts.map(|put| op(Op::RequestPut(put))).collect(), ..Default::default() };
        }
        let (target, union) = if self.random.random() {
            (CompareTarget::Mod, TargetUnion::ModRevision(self.random.random_range(0..2) * revision))
        } else {
            (CompareTarget::Value, TargetUnion::Value(self.value().into()))
        };
        let compare =
            Compare { key: self.key().into(), target: target as i32, target_union: Some(union), ..Default::default() };
        let range = RangeRequest { key: self.key().into(), ..Default::default() };
        TxnRequest {
            compare: vec![compare],
            success: vec![op(Op::RequestPut(self.put())), op(Op::RequestRange(range))],
            failure: vec![op(Op::RequestDeleteRange(self.delete()))],
        }
    }

    /// Soon disarmed again: half of the time it is.
    fn alarm(&mut self) -> AlarmRequest {
        let action = if self.random.random_ratio(1, 6) { AlarmAction::Activate } else { AlarmAction::Deactivate };
        AlarmRequest { action: action as i32, member_id: MEMBER_ID, alarm: AlarmType::Nospace as i32 }
    }
}

/// The end of the keys from `key` on that differ from it in the last digit alone.
fn decade_end(key: &[u8]) -> Vec<u8> {
    let (_, rest) = key.split_last().expect("keys are not empty");
    [rest, &[b'9' + 1]].concat()
}

fn cold_key(number: u32) -> Vec<u8> {
    format!("/registry/configmaps/{number:05}").into_bytes()
}
