//! I16: a compaction takes nothing that a revision from its own on needs, and nobody is refused one of these.

use super::reads::Question;
use crate::ledger::Ledger;
use crate::node_sim::SimulatedNode;

/// Reads a past revision of a member, between what it compacted and what it has: `share` says where, of a thousand.
///
/// # Panics
/// When that is not what the log came to, or the member compacted what nobody asked it to.
pub fn past(member: u64, node: &SimulatedNode, question: &Question, share: u64, ledger: &Ledger) {
    let view = node.view();
    let (oldest, newest) = (view.compact_revision.max(1), view.revision);
    assert!(
        view.compact_revision <= ledger.model().compact_revision,
        "I16: member {member:x} is compacted at {}, asked was {}",
        view.compact_revision,
        ledger.model().compact_revision
    );
    let at = oldest + (newest - oldest) * i64::try_from(share % 1001).expect("small") / 1000;
    question.ask(node, at, ledger);
}
