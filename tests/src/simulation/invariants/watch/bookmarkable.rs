//! I14, bookmarkable: progress up to a revision comes behind all events up to it, and never goes back.

use super::Wanted;
use crate::model::Happened;

/// Progress up to `revision` comes; `rest` is what happened behind the last event that was told.
///
/// # Panics
/// When an event up to there was not told, or more progress was.
pub fn was_told(rest: &[Happened], wanted: &Wanted, bookmark: i64, revision: i64) {
    assert!(revision >= bookmark, "I14: progress went back from {bookmark} to {revision}");
    let untold = rest.iter().take_while(|happened| happened.version.mod_revision <= revision);
    let untold = untold.filter(|happened| wanted.wants(happened)).map(|happened| happened.version.mod_revision).next();
    assert_eq!(untold, None, "I14: progress up to {revision} came before an event");
}

/// An event of `revision` comes after progress up to `bookmark`.
///
/// # Panics
/// When the progress was too much.
pub fn is_behind(bookmark: i64, revision: i64) {
    assert!(revision > bookmark, "I14: an event of {revision} came after progress up to {bookmark}");
}
