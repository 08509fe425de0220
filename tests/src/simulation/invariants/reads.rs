//! I7: a linearizable read sees everything that anybody was told before it began. I8: every read, also one that asks nobody,
//! sees what the log came to at the revision that it names.

use crate::ledger::Ledger;
use crate::model::Version;
use crate::node_sim::SimulatedNode;
use crate::stored::read_range;

/// Keys from the first to behind the last, and what they are read for.
#[derive(Clone, Debug)]
pub struct Question {
    /// The first key.
    pub key: Vec<u8>,
    /// The end, excluded; empty for that key alone.
    pub range_end: Vec<u8>,
}

impl Question {
    /// Reads at a revision, 0 for the newest, and compares; gives the revision of the store and what was read.
    ///
    /// # Panics
    /// When it is not what the log came to.
    pub fn ask(&self, node: &SimulatedNode, at: i64, ledger: &Ledger) -> (i64, Vec<(Vec<u8>, Version)>) {
        let view = node.view();
        let revision = if at == 0 { view.revision } else { at };
        let read = read_range(node, &view, &self.key, &self.range_end, revision);
        let expected = ledger.model().range(&self.key, &self.range_end, revision);
        assert!(read == expected, "I8: a read of {:?} at {revision} saw {read:?}, not {expected:?}", self.text());
        (view.revision, read)
    }

    fn text(&self) -> (String, String) {
        (String::from_utf8_lossy(&self.key).into(), String::from_utf8_lossy(&self.range_end).into())
    }
}

/// A linearizable read was answered at `revision`; `floor` is the newest that anybody was told of when it began.
///
/// # Panics
/// When it missed something.
pub fn linearizable(member: u64, revision: i64, floor: i64) {
    assert!(revision >= floor, "I7: a read found {revision} at {member:x}, {floor} was told before");
}

/// Something was answered by what led up to an entry; `floor` is the newest that anybody was told of when it was asked for.
///
/// # Panics
/// When that is missing: a permission that is taken away is away for all who ask then.
pub fn is_behind(member: u64, entry: u64, floor: u64) {
    assert!(entry >= floor, "I7: {member:x} answered by entry {entry}, {floor} was told before");
}
