//! Effects are all that changes state: recorded and installed elsewhere they come to the same.

use std::time::Duration;

use basalt_proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest};
use basalt_proto::log::request::Kind;
use basalt_proto::log::{LogEntry, Request};
use basalt_server::apply::effects::{Effect, Effects};
use basalt_server::apply::machine::Machine;
use basalt_server::apply::values::Values;
use basalt_storage::disk::SimulatedDisk;
use basalt_storage::mvcc::range::Hit;
use basalt_storage::mvcc::view::LogPosition;
use basalt_tests::client::Client;
use basalt_tests::opening::empty_store;
use bytes::Bytes;

#[test]
fn a_recorded_stream_installed_into_an_empty_store_gives_equal_hashes_leases_and_alarms() {
    let mut client = Client::new(1, Duration::from_millis(40));
    let mut node = client.open(SimulatedDisk::new(1));
    let (mut with_leases, mut compacted) = (0, 0);
    for _ in 0..60 {
        for _ in 0..10 {
            client.send(&mut node);
        }
        // Compares HashKV at several revisions, the table of leases with their keys, and the alarms.
        client.rest_and_check(&mut node);
        let replica = client.ledger.replica();
        with_leases += usize::from(replica.leases().iter().any(|(_, lease)| !lease.keys.is_empty()));
        compacted += usize::from(replica.store().compact_revision() > 1);
    }
    assert!(with_leases > 0 && compacted > 0, "nothing was compared");
}

struct NoValues;

impl Values for NoValues {
    fn value(&mut self, hit: Hit) -> Bytes {
        panic!("a plain put needs no value, asked for {hit:?}")
    }
}

fn apply(machine: &mut Machine, index: u64, kind: Kind) -> Effects {
    let request = Request { id: index, principal: None, kind: Some(kind) };
    let entry = LogEntry { requests: vec![request], ..LogEntry::default() };
    machine.apply(LogPosition { index, term: 1 }, &entry, &mut NoValues).effects
}

#[test]
fn effects_do_not_tell_how_far_a_compaction_is() {
    let put = || Kind::Put(PutRequest { key: "k".into(), value: "v".into(), ..Default::default() });
    let delete = Kind::DeleteRange(DeleteRangeRequest { key: "k".into(), ..Default::default() });
    let compaction = Kind::Compaction(CompactionRequest { revision: 4, physical: false });
    let other = Kind::Put(PutRequest { key: "other".into(), ..Default::default() });
    let effects = |sweeps: bool| {
        let mut machine = Machine::new(empty_store());
        for (index, kind) in (1..).zip([put(), delete.clone(), other.clone(), compaction.clone()]) {
            apply(&mut machine, index, kind);
        }
        while sweeps && machine.store().is_sweeping() {
            machine.store_mut().sweep(1);
        }
        apply(&mut machine, 5, put())
    };
    assert_eq!(effects(false), effects(true));
}

#[test]
fn a_lease_is_granted_as_the_log_says_whatever_a_member_is_set_to() {
    let mut machine = Machine::new(empty_store());
    let grant = Kind::LeaseGrant(LeaseGrantRequest { id: 5, ttl: 1 });
    assert_eq!(apply(&mut machine, 1, grant).effects, [Effect::LeaseGranted { id: 5, ttl: 1 }]);
}
