//! I13, resumable: a watch that begins at a revision is told everything from there on, and nothing from before.

use crate::model::Happened;

/// Of what happened, the first at or behind `revision`.
pub fn first_at(revision: i64, history: &[Happened]) -> usize {
    history.partition_point(|happened| happened.version.mod_revision < revision)
}
