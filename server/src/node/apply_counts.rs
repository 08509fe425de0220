//! What applying counts, by etcd's rules: operations, not requests, and no operation that was refused.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use basalt_proto::log::member_change::Kind as Change;
use basalt_proto::log::request::Kind;
use basalt_proto::log::{LogEntry, MemberChange};
use basalt_storage::mvcc::key_value::KeyValue;
use basalt_storage::mvcc::transaction::ChangeKind;

use tracing::warn;

use super::node_thread::ID_NOBODY;
use crate::apply::alarms::Alarm;
use crate::apply::answer::{Answer, OpAnswer, Refusal, TxnAnswer};
use crate::apply::effects::Effect;
use crate::apply::machine::Applied;
use crate::metrics::{Metrics, Operation};

/// The counters that apply moves.
pub struct ApplyCounts {
    metrics: Arc<Metrics>,
    /// An entry that takes longer is slow, and logged (`--warning-apply-duration`).
    slow: Duration,
}

/// Operations of one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Operations {
    ranges: u64,
    puts: u64,
    deletes: u64,
    /// Requests of more than one operation (etcd calls only these transactions).
    transactions: u64,
    /// Keys that the deletes have removed.
    keys_deleted: u64,
}

impl ApplyCounts {
    /// Counts into `metrics`; an entry that takes longer than `slow` is logged.
    pub fn new(metrics: Arc<Metrics>, slow: Duration) -> Self {
        Self { metrics, slow }
    }

    /// One entry was applied in `elapsed`. Its requests are applied as one piece of work; each counts an equal share.
    pub fn entry(&self, entry: &LogEntry, applied: &Applied, elapsed: Duration, leads: bool) {
        let metrics = &self.metrics;
        if elapsed > self.slow {
            metrics.slow_apply_total.inc();
            let kinds = entry.requests.iter().filter_map(|request| Operation::of_request(request.kind.as_ref()?));
            let kinds: BTreeSet<&str> = kinds.map(Operation::label).collect();
            // Of what etcd tells, what the requests and answers hold is left out.
            warn!(
                took = ?elapsed,
                expected_duration = ?self.slow,
                requests = entry.requests.len(),
                request = kinds.into_iter().collect::<Vec<_>>().join(" "),
                "apply request took too long"
            );
        }
        let share = elapsed / u32::try_from(entry.requests.len().max(1)).unwrap_or(u32::MAX);
        let mut operations = Operations::default();
        for (request, (_, answer)) in entry.requests.iter().zip(&applied.answers) {
            if let Some(operation) = request.kind.as_ref().and_then(Operation::of_request) {
                let success = !matches!(answer, Err(refusal) if *refusal != Refusal::Compacted);
                metrics.apply_seconds.observe(operation, success, share);
            }
            if leads {
                self.promotion(request.kind.as_ref(), answer.as_ref().err());
            }
            let Ok(answer) = answer else { continue };
            operations.add(answer);
            // Nobody asked for this revoke: the leader's clock did.
            if leads && request.id == ID_NOBODY && matches!(request.kind, Some(Kind::LeaseRevoke(_))) {
                metrics.lease_expired_total.inc();
            }
        }
        let keys_deleted = self.effects(&applied.effects.effects);
        // A revoke deletes its keys one by one, and no answer says so.
        let deletes = operations.deletes + keys_deleted.saturating_sub(operations.keys_deleted);
        metrics.range_total.inc_by(operations.ranges);
        metrics.put_total.inc_by(operations.puts);
        metrics.delete_total.inc_by(deletes);
        metrics.txn_total.inc_by(operations.transactions);
    }

    /// The leader counts promotions, and why they were refused.
    fn promotion(&self, kind: Option<&Kind>, refused: Option<&Refusal>) {
        let Some(Kind::MemberChange(MemberChange { kind: Some(Change::Promote(_)) })) = kind else { return };
        match refused {
            None => self.metrics.learner_promote_successes.inc(),
            Some(refusal) => {
                // The words of etcd's errors within, of which there are few.
                let words = refusal.to_string();
                let reason = match refusal {
                    Refusal::MemberNotFound => "membership: ID not found",
                    Refusal::NotALearner => "membership: can only promote a learner member",
                    Refusal::LearnerNotReady => {
                        "etcdserver: can only promote a learner member which is in sync with leader"
                    }
                    _ => &words,
                };
                self.metrics.learner_promote_failures.with_label_values(&[reason]).inc();
            }
        }
    }

    /// An alarm is armed now, 1, or is not any more, 0.
    pub fn alarm(&self, alarm: &Alarm, armed: i64) {
        let member = format!("{:x}", alarm.member_id);
        self.metrics.alarms.with_label_values(&[&member, alarm.kind.name()]).set(armed);
    }

    /// Counts what effects say; returns how many keys were deleted.
    fn effects(&self, effects: &[Effect]) -> u64 {
        let metrics = &self.metrics;
        let (mut put_bytes, mut keys_deleted) = (0, 0);
        for effect in effects {
            match effect {
                Effect::Key(change) => match &change.kind {
                    ChangeKind::Put { key_value, .. } => {
                        let value = KeyValue::parse(key_value).map_or(0, |parsed| parsed.value.len());
                        put_bytes += change.key.len() + value;
                    }
                    ChangeKind::Delete => keys_deleted += 1,
                },
                Effect::LeaseGranted { ttl, .. } => {
                    metrics.lease_granted_total.inc();
                    metrics.lease_ttl_seconds.observe(*ttl as f64);
                }
                Effect::LeaseRevoked { .. } => metrics.lease_revoked_total.inc(),
                Effect::AlarmRaised(alarm) => self.alarm(alarm, 1),
                Effect::AlarmCleared(alarm) => self.alarm(alarm, 0),
                Effect::Compaction { .. }
                | Effect::LeaseCheckpointed { .. }
                | Effect::AuthChanged(_)
                | Effect::DowngradeSet(_)
                | Effect::MemberDescribed(_)
                | Effect::ApplyVersionRaised { .. }
                | Effect::MemberAdded { .. }
                | Effect::MemberRemoved { .. }
                | Effect::MemberUrlsSet { .. }
                | Effect::MemberPromoted { .. } => {}
            }
        }
        metrics.put_bytes.add(i64::try_from(put_bytes).unwrap_or(i64::MAX));
        keys_deleted
    }
}

impl Operations {
    fn add(&mut self, answer: &Answer) {
        match answer {
            Answer::Put(_) => self.puts += 1,
            Answer::DeleteRange(delete) => self.add_delete(delete.deleted),
            Answer::Txn(txn) => {
                let before = self.ranges + self.puts + self.deletes;
                self.add_branch(txn);
                self.transactions += u64::from(self.ranges + self.puts + self.deletes > before + 1);
            }
            Answer::Compact { .. }
            | Answer::LeaseGrant { .. }
            | Answer::Done { .. }
            | Answer::Alarm { .. }
            | Answer::Downgrade { .. }
            | Answer::Members { .. } => {}
        }
    }

    /// Nesting is bounded where requests are checked.
    fn add_branch(&mut self, txn: &TxnAnswer) {
        for response in &txn.responses {
            match response {
                OpAnswer::Range(_) => self.ranges += 1,
                OpAnswer::Put(_) => self.puts += 1,
                OpAnswer::DeleteRange(delete) => self.add_delete(delete.deleted),
                OpAnswer::Txn(nested) => self.add_branch(nested),
            }
        }
    }

    fn add_delete(&mut self, keys: i64) {
        self.deletes += 1;
        self.keys_deleted += keys.unsigned_abs();
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::etcdserverpb::{LeaseRevokeRequest, PutRequest};
    use basalt_proto::log::Request;
    use basalt_storage::mvcc::shard_map::ShardId;
    use basalt_storage::mvcc::transaction::Change;
    use basalt_storage::revision::Revision;

    use super::*;
    use crate::apply::answer::{DeleteAnswer, PutAnswer};
    use crate::apply::effects::Effects;

    const PUT: PutAnswer = PutAnswer { revision: 2, previous: None };

    fn delete(deleted: i64) -> DeleteAnswer {
        DeleteAnswer { revision: 2, deleted, previous: Vec::new() }
    }

    fn txn(responses: Vec<OpAnswer>) -> TxnAnswer {
        TxnAnswer { revision: 2, succeeded: true, responses }
    }

    fn deleted_key() -> Effect {
        Effect::Key(Change {
            shard: ShardId(0),
            key: "k".into(),
            revision: Revision::new(2, 0),
            previous: None,
            kind: ChangeKind::Delete,
        })
    }

    #[test]
    fn a_transaction_is_more_than_one_operation_on_any_level() {
        let mut operations = Operations::default();
        operations.add(&Answer::Put(PUT));
        operations.add(&Answer::Txn(txn(vec![OpAnswer::Put(PUT)])));
        assert_eq!(operations, Operations { puts: 2, ..Operations::default() });
        let nested = txn(vec![OpAnswer::Put(PUT), OpAnswer::DeleteRange(delete(3))]);
        operations.add(&Answer::Txn(txn(vec![OpAnswer::Txn(nested)])));
        let expected = Operations { puts: 3, deletes: 1, keys_deleted: 3, transactions: 1, ..Operations::default() };
        assert_eq!(operations, expected);
    }

    #[test]
    fn a_lease_that_ends_by_itself_counts_its_deletes_and_its_end() {
        let counts = ApplyCounts::new(Arc::new(Metrics::default()), Duration::from_secs(1));
        let request = |id, kind| Request { id, principal: None, kind: Some(kind) };
        let revoke = Kind::LeaseRevoke(LeaseRevokeRequest { id: 5 });
        let requests = vec![request(1, Kind::Put(PutRequest::default())), request(ID_NOBODY, revoke)];
        let entry = LogEntry { requests, ..LogEntry::default() };
        let effects = vec![deleted_key(), deleted_key(), Effect::LeaseRevoked { id: 5 }];
        let applied = Applied {
            answers: vec![(1, Err(Refusal::NoSpace)), (ID_NOBODY, Ok(Answer::Done { revision: 2 }))],
            effects: Effects { effects, ..Effects::default() },
        };
        counts.entry(&entry, &applied, Duration::from_millis(2), true);
        let metrics = &counts.metrics;
        assert_eq!((metrics.put_total.get(), metrics.delete_total.get()), (0, 2));
        assert_eq!((metrics.lease_revoked_total.get(), metrics.lease_expired_total.get()), (1, 1));
        let page = metrics.render();
        assert!(page.contains(r#"etcd_server_apply_duration_seconds_count{op="Put",success="false",version="v3"} 1"#));
        assert!(
            page.contains(
                r#"etcd_server_apply_duration_seconds_count{op="LeaseRevoke",success="true",version="v3"} 1"#
            )
        );
    }
}
