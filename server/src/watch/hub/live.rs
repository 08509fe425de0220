//! Events on their way from apply to the watchers that are up to date.

use super::super::event::SharedEvent;
use super::super::lane::Fetching;
use super::super::messages::{Output, PreviousValue, Ticket};
use super::super::registry::{Pick, Registry, Told};
use super::{Hub, fetch};

/// Events that were applied together.
#[derive(Debug)]
pub(in super::super) struct Batch {
    events: Vec<SharedEvent>,
    /// No event up to here comes later.
    upto: i64,
    fetching: Option<Fetching>,
}

impl Batch {
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn events(&self) -> &[SharedEvent] {
        &self.events
    }
}

impl Hub {
    /// Takes what was applied; tells it at once unless previous values must be fetched, for it or for what is before.
    pub fn apply(&mut self, events: Vec<SharedEvent>, upto: i64, registry: &mut Registry, out: &mut Vec<Output>) {
        if let (true, Some(last)) = (events.is_empty(), self.pending.back_mut()) {
            last.upto = upto;
            return;
        }
        let mut events = events;
        let missing = self.find_previous(&mut events, |event| {
            let wants = |key| {
                let watcher = registry.watcher(key);
                watcher.prev_kv && watcher.next_revision <= event.revision.main && watcher.shows(event.kind)
            };
            self.live.any(event.key(), wants) || self.behind.any(event.key(), wants)
        });
        let fetching = (!missing.hits.is_empty()).then(|| fetch(missing, registry, out));
        self.pending.push_back(Batch { events, upto, fetching });
        self.deliver(registry, out);
    }

    /// Takes previous values that a batch waits for; gives them back if none does.
    pub fn take_previous(
        &mut self,
        ticket: Ticket,
        values: Vec<PreviousValue>,
        registry: &mut Registry,
        out: &mut Vec<Output>,
    ) -> Option<Vec<PreviousValue>> {
        let waits = |batch: &&mut Batch| batch.fetching.as_ref().is_some_and(|fetching| fetching.ticket == ticket);
        let Some(batch) = self.pending.iter_mut().find(waits) else { return Some(values) };
        let fetching = batch.fetching.take();
        let damaged = fetching.map(|fetching| fetching.finish(&mut batch.events, values)).unwrap_or_default();
        self.cancel_unshowable(&damaged, true, registry, out);
        self.deliver(registry, out);
        None
    }

    /// Tells the live watchers of the batches that are complete, in order.
    fn deliver(&mut self, registry: &mut Registry, out: &mut Vec<Output>) {
        while let Some(batch) = self.pending.pop_front_if(|batch| batch.fetching.is_none()) {
            let late = self.tell_live(&batch, registry, out);
            self.delivered = batch.upto;
            self.ring.extend(batch.events);
            // Only now: where a watcher is filed hangs on what is delivered.
            for (key, next_revision) in late {
                self.move_to(key, next_revision, registry);
            }
        }
    }

    /// Tells live watchers of one batch; returns those that could not be told all, and from where on.
    fn tell_live(
        &self,
        batch: &Batch,
        registry: &mut Registry,
        out: &mut Vec<Output>,
    ) -> Vec<(super::WatcherKey, i64)> {
        let mut picks = Vec::new();
        for (event, shared) in batch.events.iter().enumerate() {
            self.live.each(shared.key(), |key| {
                let watcher = registry.watcher(key);
                if watcher.next_revision <= shared.revision.main && watcher.shows(shared.kind) {
                    picks.push(Pick { watcher: key, event });
                }
            });
        }
        if batch.events.len() > 1 {
            picks.sort_unstable();
        }
        let mut late = Vec::new();
        for picks in picks.chunk_by(|a, b| a.watcher == b.watcher) {
            if let Told::Below(revision) = registry.tell(picks, &batch.events, batch.upto, out) {
                late.push((picks[0].watcher, revision));
            }
        }
        late
    }
}
