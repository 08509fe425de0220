//! I9, ordered: events come in the order of their revisions.

/// An event of this revision comes behind one of `last`.
///
/// # Panics
/// When it is older.
pub fn follows(last: i64, revision: i64) {
    assert!(revision >= last, "I9: an event of {revision} came behind one of {last}");
}
