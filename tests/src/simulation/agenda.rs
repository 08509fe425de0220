//! What is to happen, by when.

use std::collections::BTreeMap;
use std::time::Duration;

/// Events by their time; those of one time in the order in which they were filed.
pub struct Agenda<E> {
    events: BTreeMap<(Duration, u64), E>,
    filed: u64,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { events: BTreeMap::new(), filed: 0 }
    }
}

impl<E> Agenda<E> {
    /// Files one.
    pub fn file(&mut self, at: Duration, event: E) {
        self.filed += 1;
        self.events.insert((at, self.filed), event);
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Duration> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes one that is due by `now`.
    pub fn take(&mut self, now: Duration) -> Option<E> {
        if self.next()? > now {
            return None;
        }
        self.events.pop_first().map(|(_, event)| event)
    }

    /// Forgets those that this does not keep.
    pub fn retain(&mut self, mut keep: impl FnMut(&E) -> bool) {
        self.events.retain(|_, event| keep(event));
    }
}
