//! I12, reliable: no event is left out.

use super::Wanted;
use crate::model::Happened;

/// Where the event is in what happened: the next one from `position` on that is wanted.
///
/// # Panics
/// When that is another one, or nothing happened.
pub fn next(history: &[Happened], position: usize, wanted: &Wanted, key: &[u8], revision: i64) -> usize {
    let next = history.iter().enumerate().skip(position).find(|(_, happened)| wanted.wants(happened));
    let shown = String::from_utf8_lossy(key);
    let (at, happened) = next.unwrap_or_else(|| panic!("I12: an event of {shown} at {revision} that did not happen"));
    let (expected, at_revision) = (String::from_utf8_lossy(&happened.key), happened.version.mod_revision);
    assert!(
        happened.key == key && at_revision == revision,
        "I12: the event of {expected} at {at_revision} was left out, or another one came in its place: {shown} at {revision}"
    );
    at
}
