//! Recent events of one hub.

use std::collections::VecDeque;

use basalt_storage::revision::Revision;

use super::event::SharedEvent;

/// The newest delivered events, oldest first: all of them from `first_revision` on.
#[derive(Debug)]
pub(super) struct Ring {
    events: VecDeque<SharedEvent>,
    first_revision: i64,
    bytes: usize,
}

impl Ring {
    /// A ring that will hold what happens from `first_revision` on.
    pub fn new(first_revision: i64) -> Self {
        Self { events: VecDeque::new(), first_revision, bytes: 0 }
    }

    /// The main revision from which on nothing is missing.
    pub fn first_revision(&self) -> i64 {
        self.first_revision
    }

    /// Memory it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends events newer than all here.
    pub fn extend(&mut self, events: Vec<SharedEvent>) {
        self.bytes += events.iter().map(SharedEvent::bytes).sum::<usize>();
        self.events.extend(events);
    }

    /// Forgets its oldest main revision; `false` when there is none.
    pub fn evict(&mut self) -> bool {
        let Some(main) = self.events.front().map(|event| event.revision.main) else { return false };
        while let Some(event) = self.events.pop_front_if(|event| event.revision.main == main) {
            self.bytes -= event.bytes();
        }
        self.first_revision = main + 1;
        true
    }

    /// Up to `revisions_max` main revisions from `from` on, and the main revision where the rest begins.
    pub fn revisions(&self, from: i64, revisions_max: usize) -> (impl Iterator<Item = &SharedEvent>, Option<i64>) {
        let begin = self.events.partition_point(|event| event.revision.main < from);
        let (mut revisions, mut last, mut end, mut rest) = (0, None, begin, None);
        for event in self.events.range(begin..) {
            if last != Some(event.revision.main) {
                if revisions == revisions_max {
                    rest = Some(event.revision.main);
                    break;
                }
                revisions += 1;
                last = Some(event.revision.main);
            }
            end += 1;
        }
        (self.events.range(begin..end), rest)
    }

    /// The event of exactly this revision.
    pub fn get(&self, revision: Revision) -> Option<&SharedEvent> {
        let at = self.events.binary_search_by_key(&revision, |event| event.revision).ok()?;
        self.events.get(at)
    }

    /// Keeps the previous value that was fetched for `event`, if that is still here.
    pub fn resolve(&mut self, event: &SharedEvent) {
        if let Ok(at) = self.events.binary_search_by_key(&event.revision, |event| event.revision) {
            let held = &mut self.events[at];
            self.bytes -= held.bytes();
            held.resolve_like(event);
            self.bytes += held.bytes();
        }
    }
}
