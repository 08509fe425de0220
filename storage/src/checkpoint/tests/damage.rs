//! Pages that went bad, as an operator hears of them.

use std::error::Error;
use std::iter::successors;

use crate::hashes::{HashKvJob, HashPurpose};
use crate::mvcc::fetch::Fetch;
use crate::mvcc::history::History;
use crate::mvcc::range::Hit;
use crate::mvcc::shard_map::ShardId;
use crate::revision::Revision;
use crate::snapshot::view_rig::ViewRig;
use crate::snapshot::{SnapshotJob, SystemTables};

const KEY: &str = "/registry/events/a";

fn damaged() -> ViewRig {
    let mut rig = ViewRig::new();
    rig.write(&[(KEY, Some(vec![1; 100]))]);
    rig.checkpoint();
    rig.damage_pages();
    rig
}

fn causes(error: &(dyn Error + 'static)) -> String {
    let causes: Vec<_> = successors(Some(error), |error| (*error).source()).map(ToString::to_string).collect();
    causes.join(": ")
}

#[test]
fn whoever_reads_says_in_which_shard() {
    let rig = damaged();
    let (view, shard, revision) = (rig.view(), ShardId(1), Revision::new(2, 0));
    let mut fetch = Fetch::new(view.clone(), vec![Hit { shard, revision }]);
    let mut history = History::new(view.clone(), shard, revision, revision, 10);
    let mut hash = HashKvJob::new(view.clone(), 2, -1, HashPurpose::Request);
    let mut snapshot = SnapshotJob::new(view, SystemTables::new());
    let told = [
        causes(&rig.run(&mut fetch, 10).unwrap_err()),
        causes(&rig.run(&mut history, 10).unwrap_err()),
        causes(&rig.run(&mut hash, 10).unwrap_err()),
        causes(&rig.run(&mut snapshot.next_chunk(), 10).unwrap_err()),
    ];
    for line in &told {
        assert!(line.contains("reading shard \"events\": page "), "{line}");
    }
}

#[test]
#[should_panic(expected = "writing pages of shard \"events\"")]
fn so_does_a_checkpoint() {
    let mut rig = damaged();
    rig.write(&[(KEY, Some(vec![2; 100]))]);
    rig.checkpoint();
}
