//! I10, unique: an event comes once.

use super::Wanted;
use crate::model::Happened;

/// An event is none of those told before; `told` is everything that happened up to the last of them.
///
/// # Panics
/// When it is.
pub fn is_new(told: &[Happened], wanted: &Wanted, key: &[u8], revision: i64) {
    let recent = told.iter().rev().take_while(|happened| happened.version.mod_revision >= revision);
    let twice = recent
        .filter(|happened| wanted.wants(happened))
        .any(|happened| happened.version.mod_revision == revision && happened.key == key);
    assert!(!twice, "I10: the event of {} at {revision} came twice", String::from_utf8_lossy(key));
}
