//! I9 to I14 and what events hold: what a watcher is told, against what the log came to. The names are those of etcd's
//! robustness tests.

pub mod atomic;
pub mod bookmarkable;
pub mod content;
pub mod ordered;
pub mod permitted;
pub mod reliable;
pub mod resumable;
pub mod unique;

use basalt_proto::mvccpb::Event;
use basalt_proto::mvccpb::event::EventType;

use crate::model::Happened;

/// What a watcher asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The first key.
    pub key: Vec<u8>,
    /// The end, excluded; empty for that key alone.
    pub range_end: Vec<u8>,
    /// Previous values.
    pub prev_kv: bool,
    /// No puts.
    pub no_put: bool,
    /// No deletes.
    pub no_delete: bool,
    /// Nothing from before this revision.
    pub begins: i64,
}

impl Wanted {
    /// Whether it is to be told of this.
    pub fn wants(&self, happened: &Happened) -> bool {
        let key = &happened.key[..];
        let within =
            if self.range_end.is_empty() { key == self.key } else { key >= &self.key[..] && key < &self.range_end[..] };
        let filtered = if happened.version.value.is_some() { self.no_put } else { self.no_delete };
        within && !filtered && happened.version.mod_revision >= self.begins
    }
}

/// What one watch was told, over all members and lives it was resumed at.
#[derive(Clone, Debug)]
pub struct Watched {
    /// What it asked for.
    pub wanted: Wanted,
    /// Of all that happened, the first that it was not told of and may still be.
    position: usize,
    /// Revision of the last event.
    last: i64,
    /// Up to there it knows that it was told everything.
    bookmark: i64,
    /// Whether the next response goes on with a revision of the last one.
    in_fragments: bool,
}

impl Watched {
    /// A watch that begins at this revision.
    pub fn from(wanted: Wanted, revision: i64, history: &[Happened]) -> Self {
        let wanted = Wanted { begins: revision, ..wanted };
        let position = resumable::first_at(revision, history);
        Self { wanted, position, last: 0, bookmark: revision - 1, in_fragments: false }
    }

    /// Where it goes on at another member.
    pub fn resume_at(&self) -> i64 {
        self.last.max(self.bookmark) + 1
    }

    /// It goes on elsewhere. What it had of a revision in fragments it throws away.
    pub fn resumed(&mut self, history: &[Happened]) {
        if std::mem::take(&mut self.in_fragments) {
            self.last -= 1;
        }
        self.position = resumable::first_at(self.resume_at(), history);
    }

    /// A response with events.
    ///
    /// # Panics
    /// When one of the invariants does not hold.
    pub fn told(&mut self, events: &[Event], fragment: bool, history: &[Happened], compact_revision: i64) {
        for event in events {
            let shown = event.kv.as_ref().expect("an event has a key");
            let revision = shown.mod_revision;
            ordered::follows(self.last, revision);
            bookmarkable::is_behind(self.bookmark, revision);
            unique::is_new(&history[..self.position], &self.wanted, &shown.key, revision);
            self.position = reliable::next(history, self.position, &self.wanted, &shown.key, revision);
            content::matches(&history[self.position], event, &self.wanted, compact_revision);
            self.position += 1;
            self.last = revision;
        }
        self.in_fragments = fragment;
        if !fragment {
            atomic::is_whole(&history[self.position..], &self.wanted, self.last);
        }
    }

    /// A response without events: everything up to there was told.
    ///
    /// # Panics
    /// When it was not.
    pub fn told_progress(&mut self, revision: i64, history: &[Happened]) {
        bookmarkable::was_told(&history[self.position..], &self.wanted, self.bookmark, revision);
        self.bookmark = revision;
    }

    /// Whether it was told all that happened.
    pub fn is_up_to_date(&self, history: &[Happened]) -> bool {
        !history[self.position..].iter().any(|happened| self.wanted.wants(happened))
    }
}

fn is_put(event: &Event) -> bool {
    event.r#type == EventType::Put as i32
}

#[cfg(test)]
mod tests;
