//! The node as a state machine, by hand.

use std::time::Duration;

use basalt_proto::etcdserverpb::PutRequest;
use basalt_proto::log::Request;
use basalt_proto::log::request::Kind;
use basalt_storage::wal::BATCH_BYTES_MAX;
use raft::prelude::{ConfState, HardState};

use super::core::{Core, CoreConfig, Input, Output};
use super::log_store::LogStore;

fn leader() -> Core {
    let config = CoreConfig {
        member_id: 1,
        heartbeat_interval: Duration::from_millis(100),
        election_timeout: Duration::from_secs(1),
        applied: 0,
        pre_vote: true,
    };
    let members = ConfState { voters: vec![1], ..ConfState::default() };
    let store = LogStore::new((0, 0), Vec::new(), HardState::default(), members);
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let mut core = Core::new(&config, store, &logger).expect("a single voter");
    let mut outputs = Vec::new();
    core.start(&mut outputs).expect("it starts");
    while let Some(number) = take_append(&mut outputs).map(|(number, _)| number) {
        core.step(Input::Persisted(number), &mut outputs).expect("it goes on");
    }
    core
}

/// The append among the outputs: its number and the bytes of its entries.
fn take_append(outputs: &mut Vec<Output>) -> Option<(u64, usize)> {
    outputs.drain(..).find_map(|output| match output {
        Output::Append(append) => Some((append.number, append.entries.iter().map(|entry| entry.data.len()).sum())),
        _ => None,
    })
}

/// More than a batch of the log holds gathers while a disk is slow; it stopped the node.
#[test]
fn what_gathers_behind_a_slow_disk_goes_out_in_appends_that_fit() {
    let mut core = leader();
    let value = bytes::Bytes::from(vec![7; 1_500_000]);
    let requests = (1..=100).map(|id| {
        let put = PutRequest { key: "a".into(), value: value.clone(), ..PutRequest::default() };
        Request { id, principal: None, kind: Some(Kind::Put(put)) }
    });
    let mut outputs = Vec::new();
    core.step(Input::Propose { requests: requests.collect(), time_unix_ns: 1 }, &mut outputs).expect("it goes on");
    let (mut appends, mut bytes) = (0, 0);
    while let Some((number, append_bytes)) = take_append(&mut outputs) {
        assert!(append_bytes < BATCH_BYTES_MAX, "an append of {append_bytes} bytes");
        appends += usize::from(append_bytes > 0);
        bytes += append_bytes;
        core.step(Input::Persisted(number), &mut outputs).expect("it goes on");
    }
    assert!(appends > 1 && bytes > 100 * 1_500_000 && core.queued() == 0, "{appends} appends of {bytes} bytes");
}
