//! I11, atomic: all events of a revision come in one response, or in fragments that say so.

use super::Wanted;
use crate::model::Happened;

/// A response ended with events of this revision; `rest` is what happened behind them.
///
/// # Panics
/// When some of the revision are left.
pub fn is_whole(rest: &[Happened], wanted: &Wanted, revision: i64) {
    let mut same = rest.iter().take_while(|happened| happened.version.mod_revision == revision);
    assert!(!same.any(|happened| wanted.wants(happened)), "I11: a response ends within revision {revision}");
}
