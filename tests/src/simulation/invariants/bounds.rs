//! I19: what a member holds in memory is bounded, whatever the others do.

use crate::node_sim::SimulatedNode;

/// Requests of clients that wait at a member: those of all clients, in the time that the longest fault lasts.
const WAITING_MAX: usize = 20_000;
/// Entries of the log that wait for apply or for members that are behind, above those kept for them.
const ENTRIES_MAX: usize = 20_000;

/// Looks at a member.
///
/// # Panics
/// When it holds too much.
pub fn check(member: u64, node: &SimulatedNode, catchup_entries: u64) {
    let (entries, queued, waiting) = node.held();
    let entries_max = ENTRIES_MAX + usize::try_from(catchup_entries).expect("a few");
    assert!(entries <= entries_max, "I19: member {member:x} holds {entries} entries");
    assert!(queued + waiting <= WAITING_MAX, "I19: at member {member:x} {queued} requests and {waiting} inputs wait");
}
