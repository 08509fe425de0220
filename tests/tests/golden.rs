//! Scripts in, whole traces out: requests to the state machine, and for each its answer and every effect. A line with `>`
//! is a request, the lines with `<` behind it are what came of it; the rest is comment. With `UPDATE_GOLDEN=1` in the
//! environment the traces are written anew, to be reviewed.
//!
//! What is refused before the log (`server/src/api/checks.rs`) is not asked here.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::request_op::Request as Op;
use basalt_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, Compare, DeleteRangeRequest, LeaseCheckpoint, LeaseCheckpointRequest,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, alarm_request::AlarmAction,
};
use basalt_proto::log::request::Kind;
use basalt_proto::log::{LogEntry, Request};
use basalt_proto::membershippb::DowngradeInfoSetRequest;
use basalt_server::apply::answer::{Answer, OpAnswer, TxnAnswer};
use basalt_server::apply::effects::Effect;
use basalt_server::apply::machine::Machine;
use basalt_server::apply::values::Values;
use basalt_storage::mvcc::key_value::KeyValue;
use basalt_storage::mvcc::range::Hit;
use basalt_storage::mvcc::transaction::ChangeKind;
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::revision::Revision;
use basalt_tests::opening::empty_store;
use bytes::Bytes;

/// All values ever written.
#[derive(Default)]
struct Written(HashMap<Revision, Bytes>);

impl Values for &Written {
    fn value(&mut self, hit: Hit) -> Bytes {
        self.0[&hit.revision].clone()
    }
}

struct Script {
    machine: Machine,
    written: Written,
    index: u64,
}

impl Script {
    fn run(&mut self, line: &str) -> Vec<String> {
        self.index += 1;
        let mut words = Words { words: line.split_whitespace().collect(), at: 0 };
        let request = Request { id: self.index, principal: None, kind: Some(words.request()) };
        assert_eq!(words.at, words.words.len(), "words left over in: {line}");
        let entry = LogEntry { requests: vec![request], ..LogEntry::default() };
        let applied = self.machine.apply(LogPosition { index: self.index, term: 1 }, &entry, &mut &self.written);
        let mut lines: Vec<String> = applied.effects.effects.iter().map(show_effect).collect();
        for effect in applied.effects.effects {
            if let Effect::Key(change) = effect
                && let ChangeKind::Put { key_value, .. } = change.kind
            {
                self.written.0.insert(change.revision, key_value);
            }
        }
        let (id, answer) = &applied.answers[0];
        assert_eq!((applied.answers.len(), *id), (1, self.index), "one request, one answer");
        lines.insert(0, answer.as_ref().map_or_else(|refusal| format!("refused: {refusal}"), |it| self.show(it)));
        lines
    }

    fn show(&self, answer: &Answer) -> String {
        match answer {
            Answer::Put(put) => format!("put at {}{}", put.revision, self.show_previous(put.previous.as_slice())),
            Answer::DeleteRange(delete) => {
                format!("deleted {} at {}{}", delete.deleted, delete.revision, self.show_previous(&delete.previous))
            }
            Answer::Txn(txn) => format!("txn at {} {}", txn.revision, self.show_txn(txn)),
            Answer::Compact { revision } => format!("compacted at {revision}"),
            Answer::LeaseGrant { revision, id, ttl } => format!("lease {id} of {ttl} s at {revision}"),
            Answer::Done { revision } => format!("done at {revision}"),
            Answer::Members { revision, members } => format!("{} members at {revision}", members.iter().count()),
            Answer::Downgrade { revision, cluster_version } => format!("was {cluster_version} at {revision}"),
            Answer::Alarm { revision, alarms } => {
                let alarms = alarms.iter().map(|alarm| format!(" {} of {}", alarm.kind.name(), alarm.member_id));
                format!("alarms at {revision}:{}", alarms.collect::<String>())
            }
        }
    }

    fn show_txn(&self, txn: &TxnAnswer) -> String {
        let one = |response: &OpAnswer| match response {
            OpAnswer::Range(plan) => format!(" get@{}({})", plan.revision, self.show_values(&plan.hits)),
            OpAnswer::Put(put) => format!(" put@{}{}", put.revision, self.show_previous(put.previous.as_slice())),
            OpAnswer::DeleteRange(delete) => {
                format!(" deleted {}@{}{}", delete.deleted, delete.revision, self.show_previous(&delete.previous))
            }
            OpAnswer::Txn(txn) => format!(" [{}]", self.show_txn(txn)),
        };
        let branch = if txn.succeeded { "then:" } else { "else:" };
        txn.responses.iter().fold(branch.to_owned(), |line, response| line + &one(response))
    }

    fn show_previous(&self, hits: &[Hit]) -> String {
        if hits.is_empty() { String::new() } else { format!(" was {}", self.show_values(hits)) }
    }

    fn show_values(&self, hits: &[Hit]) -> String {
        let one = |hit: &Hit| show_key_value(&self.written.0[&hit.revision]);
        hits.iter().map(one).collect::<Vec<_>>().join(" ")
    }
}

fn show_key_value(bytes: &[u8]) -> String {
    let shown = KeyValue::parse(bytes).expect("a KeyValue");
    let text = String::from_utf8_lossy;
    let (key, value) = (text(shown.key), text(shown.value));
    let mut line = format!("{key}={value}@{}/{}v{}", shown.create_revision, shown.mod_revision, shown.version);
    if shown.lease != 0 {
        write!(line, "~{}", shown.lease).expect("to a string");
    }
    line
}

fn show_effect(effect: &Effect) -> String {
    match effect {
        Effect::Key(change) => {
            let previous = change.previous.map(|at| format!(" over {}.{}", at.main, at.sub)).unwrap_or_default();
            let at = format!("{}.{} shard {}", change.revision.main, change.revision.sub, change.shard.0);
            match &change.kind {
                ChangeKind::Put { key_value, .. } => format!("+ {at}: put {}{previous}", show_key_value(key_value)),
                ChangeKind::Delete => format!("+ {at}: delete {}{previous}", String::from_utf8_lossy(&change.key)),
            }
        }
        Effect::Compaction { revision } => format!("+ compaction {revision}"),
        Effect::LeaseGranted { id, ttl } => format!("+ lease {id} granted, {ttl} s"),
        Effect::LeaseRevoked { id } => format!("+ lease {id} revoked"),
        Effect::LeaseCheckpointed { id, remaining_ttl } => format!("+ lease {id} has {remaining_ttl} s left"),
        Effect::AlarmRaised(alarm) => format!("+ {} of {} raised", alarm.kind.name(), alarm.member_id),
        Effect::MemberDescribed(member) => format!("+ member {} is {}", member.id, member.name),
        Effect::ApplyVersionRaised { version } => format!("+ rules {version}"),
        Effect::MemberAdded { member, learner } => format!("+ member {} added, learner {learner}", member.id),
        Effect::MemberRemoved { id } => format!("+ member {id} removed"),
        Effect::MemberUrlsSet { id, peer_urls } => format!("+ member {id} at {}", peer_urls.join(",")),
        Effect::MemberPromoted { id } => format!("+ member {id} promoted"),
        Effect::DowngradeSet(downgrade) => format!("+ cluster version {}", downgrade.cluster_version()),
        Effect::AuthChanged(record) => format!("+ record {:?} {:?}", record.table, record.key),
        Effect::AlarmCleared(alarm) => format!("+ {} of {} cleared", alarm.kind.name(), alarm.member_id),
    }
}

/// The words of a line, taken from the left.
struct Words<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> &'a str {
        self.at += 1;
        self.words[self.at - 1]
    }

    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    /// Takes the next word if it is `word`.
    fn take(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        self.at += usize::from(found);
        found
    }

    /// Takes the next word if it is `name=…`.
    fn named(&mut self, name: &str) -> Option<&'a str> {
        let value = self.peek()?.strip_prefix(name)?.strip_prefix('=')?;
        self.at += 1;
        Some(value)
    }

    fn number(&mut self, name: &str) -> i64 {
        self.named(name).map_or(0, |n| n.parse().expect("a number"))
    }

    fn request(&mut self) -> Kind {
        match self.next() {
            "put" => Kind::Put(self.put()),
            "delete" => Kind::DeleteRange(self.delete()),
            "txn" => Kind::Txn(self.txn()),
            "compact" => Kind::Compaction(CompactionRequest { revision: self.number("at"), physical: false }),
            "grant" => Kind::LeaseGrant(LeaseGrantRequest { id: self.number("id"), ttl: self.number("ttl") }),
            "revoke" => Kind::LeaseRevoke(LeaseRevokeRequest { id: self.number("id") }),
            "checkpoint" => {
                let checkpoint = LeaseCheckpoint { id: self.number("id"), remaining_ttl: self.number("left") };
                Kind::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints: vec![checkpoint] })
            }
            "alarm" => Kind::Alarm(self.alarm()),
            "downgrade" => {
                let ver = self.named("to").unwrap_or_default().to_owned();
                Kind::DowngradeInfoSet(DowngradeInfoSetRequest { enabled: !ver.is_empty(), ver })
            }
            other => panic!("no such request: {other}"),
        }
    }

    /// `key=value`, then options in this order.
    fn put(&mut self) -> PutRequest {
        let (key, value) = self.next().split_once('=').expect("key=value");
        PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            lease: self.number("lease"),
            prev_kv: self.take("prev_kv"),
            ignore_value: self.take("ignore_value"),
            ignore_lease: self.take("ignore_lease"),
        }
    }

    /// `key`, or `key..end`.
    fn range(&mut self) -> (Bytes, Bytes) {
        let (key, end) = self.next().split_once("..").unwrap_or((self.words[self.at - 1], ""));
        (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(end.as_bytes()))
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let (key, range_end) = self.range();
        DeleteRangeRequest { key, range_end, prev_kv: self.take("prev_kv") }
    }

    /// `if COMPARE… then OP… else OP…`, each part if there is any; a nested one stands in brackets.
    fn txn(&mut self) -> TxnRequest {
        let mut request = TxnRequest::default();
        if self.take("if") {
            while self.peek().is_some_and(|word| word.contains('(')) {
                request.compare.push(compare(self.next()));
            }
        }
        if self.take("then") {
            request.success = self.operations();
        }
        if self.take("else") {
            request.failure = self.operations();
        }
        request
    }

    fn operations(&mut self) -> Vec<RequestOp> {
        let mut operations = Vec::new();
        loop {
            let operation = match self.peek() {
                Some("put") => Op::RequestPut((self.next(), self.put()).1),
                Some("delete") => Op::RequestDeleteRange((self.next(), self.delete()).1),
                Some("get") => {
                    self.next();
                    let (key, range_end) = self.range();
                    let revision = self.number("rev");
                    Op::RequestRange(RangeRequest { key, range_end, revision, ..RangeRequest::default() })
                }
                Some("[") => {
                    self.next();
                    let nested = self.txn();
                    assert!(self.take("]"), "a nested transaction ends with a bracket");
                    Op::RequestTxn(nested)
                }
                _ => return operations,
            };
            operations.push(RequestOp { request: Some(operation) });
        }
    }

    fn alarm(&mut self) -> AlarmRequest {
        let action = match self.next() {
            "get" => AlarmAction::Get as i32,
            "activate" => AlarmAction::Activate as i32,
            "deactivate" => AlarmAction::Deactivate as i32,
            number => number.parse().expect("the number of an action"),
        };
        let alarm = match self.next() {
            "NONE" => AlarmType::None,
            "NOSPACE" => AlarmType::Nospace,
            "CORRUPT" => AlarmType::Corrupt,
            other => panic!("no such alarm: {other}"),
        };
        AlarmRequest { action, alarm: alarm as i32, member_id: self.number("member").cast_unsigned() }
    }
}

/// `target(key)=operand`, with `=`, `!`, `<` or `>`.
fn compare(word: &str) -> Compare {
    let (target, rest) = word.split_once('(').expect("target(key)");
    let (range, rest) = rest.split_once(')').expect("target(key)");
    let (key, range_end) = range.split_once("..").unwrap_or((range, ""));
    let (result, operand) = rest.split_at(1);
    let result = match result {
        "=" => CompareResult::Equal,
        "!" => CompareResult::NotEqual,
        "<" => CompareResult::Less,
        ">" => CompareResult::Greater,
        other => panic!("no such comparison: {other}"),
    };
    let number = || operand.parse().expect("a number");
    let (target, operand) = match target {
        "version" => (CompareTarget::Version, TargetUnion::Version(number())),
        "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number())),
        "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number())),
        "value" => (CompareTarget::Value, TargetUnion::Value(Bytes::copy_from_slice(operand.as_bytes()))),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number())),
        other => panic!("no such target: {other}"),
    };
    Compare {
        result: result as i32,
        target: target as i32,
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(range_end.as_bytes()),
        target_union: Some(operand),
    }
}

#[test]
fn scripts_give_their_traces() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut scripts: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for path in scripts {
        let expected = std::fs::read_to_string(&path).unwrap();
        let mut script = Script { machine: Machine::new(empty_store()), written: Written::default(), index: 0 };
        let mut trace = String::new();
        for line in expected.lines().filter(|line| !line.starts_with('<')) {
            writeln!(trace, "{line}").unwrap();
            if let Some(request) = line.strip_prefix("> ") {
                script.run(request).iter().for_each(|output| writeln!(trace, "< {output}").unwrap());
            }
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &trace).unwrap();
        }
        assert_eq!(trace, std::fs::read_to_string(&path).unwrap(), "{}", path.display());
    }
}
