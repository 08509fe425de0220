//! How watchers that are behind come up to date: chunk by chunk, each chunk shared by all whom it concerns.

use std::collections::HashSet;

use basalt_storage::planted::{Bug, is_planted};

use super::super::event::{Event, SharedEvent};
use super::super::lane::{Chunk, Flight};
use super::super::messages::{Output, PreviousValue, Ticket};
use super::super::registry::{Pick, Registry, Told};
use super::super::watcher::{Sync, WatcherKey};
use super::{Hub, damaged, fetch};

/// Chunks from the ring per call, so that a large ring does not hold up what came in meanwhile.
const RING_CHUNKS_PER_CALL: usize = 4;

#[derive(Clone, Copy)]
enum LaneName {
    Ring,
    Scan,
}

impl Hub {
    /// Goes on with those who are behind, as far as memory reaches; asks for what must be read.
    pub fn catch_up(&mut self, registry: &mut Registry, out: &mut Vec<Output>) {
        self.cancel_compacted(registry, out);
        for _ in 0..RING_CHUNKS_PER_CALL {
            if !self.step_ring(registry, out) {
                break;
            }
        }
        self.step_scan(registry, out);
    }

    /// Serves one chunk from memory; `false` if there is none to serve now.
    fn step_ring(&mut self, registry: &mut Registry, out: &mut Vec<Output>) -> bool {
        if self.ring_lane.flight.is_some() {
            return false;
        }
        let Some(from) = self.ring_lane.start(&self.waiting, self.ring.first_revision(), self.delivered) else {
            return false;
        };
        let (revisions, rest) = self.ring.revisions(from, self.revisions_max);
        let events = revisions.filter(|event| self.is_waited_for(event, registry)).cloned().collect();
        let upto = rest.map_or(self.delivered, |rest| rest - 1);
        self.take_chunk(
            LaneName::Ring,
            Chunk { waits_begun: registry.waits_begun(), from, upto, events },
            registry,
            out,
        );
        true
    }

    fn step_scan(&mut self, registry: &mut Registry, out: &mut Vec<Output>) {
        if self.scan_lane.flight.is_some() {
            return;
        }
        let to = self.delivered.min(self.ring.first_revision() - 1);
        let Some(from) = self.scan_lane.start(&self.waiting, i64::MIN, to) else { return };
        let ticket = registry.draw_ticket();
        self.scan_lane.flight = Some(Flight::Scan { ticket, from, to });
        out.push(Output::Scan { ticket, shards: self.shards.clone(), from, to, revisions_max: self.revisions_max });
    }

    /// Takes the history that it asked for; others' is let pass.
    pub fn take_scanned(
        &mut self,
        ticket: Ticket,
        events: &[Event],
        next: Option<i64>,
        registry: &mut Registry,
        out: &mut Vec<Output>,
    ) {
        let Some(Flight::Scan { ticket: asked, from, to }) = self.scan_lane.flight else { return };
        if asked != ticket {
            return;
        }
        let upto = next.map_or(to, |next| to.min(next.saturating_sub(1)));
        let within = |event: &&Event| (from..=upto).contains(&event.revision.main);
        let events = events.iter().filter(within).map(SharedEvent::new);
        let events = events.filter(|event| self.is_waited_for(event, registry)).collect();
        self.take_chunk(
            LaneName::Scan,
            Chunk { waits_begun: registry.waits_begun(), from, upto, events },
            registry,
            out,
        );
    }

    /// Notes that the history it asked for cannot be read from its first revision on: who waits there is told no more.
    pub fn take_unreadable(&mut self, ticket: Ticket, registry: &mut Registry, out: &mut Vec<Output>) {
        let Some(Flight::Scan { ticket: asked, from, .. }) = self.scan_lane.flight else { return };
        if asked != ticket {
            return;
        }
        self.scan_lane.stepped(from);
        let there = (from, WatcherKey(0))..=(from, WatcherKey(u32::MAX));
        let lost: Vec<WatcherKey> = self.waiting.range(there).map(|(_, key)| *key).collect();
        lost.into_iter().for_each(|key| self.cancel(key, damaged, registry, out));
    }

    /// Whether a chunk waits for these previous values.
    pub fn waits_for_previous(&self, ticket: Ticket) -> bool {
        let waits = |lane: &super::Lane| matches!(&lane.flight, Some(Flight::Fetch { fetching, .. }) if fetching.ticket == ticket);
        waits(&self.ring_lane) || waits(&self.scan_lane)
    }

    /// Takes previous values that a chunk waits for; others' are let pass.
    pub fn take_chunk_previous(
        &mut self,
        ticket: Ticket,
        values: Vec<PreviousValue>,
        registry: &mut Registry,
        out: &mut Vec<Output>,
    ) {
        for name in [LaneName::Ring, LaneName::Scan] {
            let lane = self.lane(name);
            let flight = lane.flight.take();
            match flight {
                Some(Flight::Fetch { fetching, mut chunk }) if fetching.ticket == ticket => {
                    let damaged = fetching.finish(&mut chunk.events, values);
                    self.cancel_unshowable(&damaged, false, registry, out);
                    return self.serve(name, chunk, registry, out);
                }
                other => lane.flight = other,
            }
        }
    }

    /// Serves a chunk, or asks for the previous values that it lacks.
    fn take_chunk(&mut self, name: LaneName, mut chunk: Chunk, registry: &mut Registry, out: &mut Vec<Output>) {
        // What was there before a compacted revision cannot be read any more, swept or not: how far a compaction has come
        // shows in no answer (etcd-contract 21).
        let compacted = chunk.events.partition_point(|event| event.revision.main <= self.compact_revision);
        keep_last_of_each_key(&mut chunk.events, compacted);
        let compacted = chunk.events.iter_mut().take_while(|event| event.revision.main <= self.compact_revision);
        compacted.for_each(|event| event.resolve(None));
        let missing = self.find_previous(&mut chunk.events, |event| {
            self.behind.any(event.key(), |key| registry.watcher(key).prev_kv && waits_for(key, event, registry))
        });
        if missing.hits.is_empty() {
            return self.serve(name, chunk, registry, out);
        }
        let fetching = fetch(missing, registry, out);
        self.lane(name).flight = Some(Flight::Fetch { fetching, chunk });
    }

    /// Tells everybody who waits within the chunk of his part, and moves him behind it.
    fn serve(&mut self, name: LaneName, chunk: Chunk, registry: &mut Registry, out: &mut Vec<Output>) {
        self.lane(name).stepped(chunk.upto);
        chunk.events.iter().for_each(|event| self.ring.resolve(event));
        if chunk.upto < chunk.from {
            return;
        }
        let concerns = |key, registry: &Registry| registry.watcher(key).waiting_since <= chunk.waits_begun;
        let mut picks = Vec::new();
        for (event, shared) in chunk.events.iter().enumerate() {
            self.behind.each(shared.key(), |key| {
                let behind_chunk = registry.watcher(key).next_revision < chunk.from;
                if concerns(key, registry) && !behind_chunk && waits_for(key, shared, registry) {
                    picks.push(Pick { watcher: key, event });
                }
            });
        }
        picks.sort_unstable();
        let within = (chunk.from, WatcherKey(0))..=(chunk.upto, WatcherKey(u32::MAX));
        let waiting = self.waiting.range(within).map(|(_, key)| *key);
        let served: Vec<WatcherKey> = waiting.filter(|key| concerns(*key, registry)).collect();
        let mut cut = Vec::new();
        for picks in picks.chunk_by(|a, b| a.watcher == b.watcher) {
            if let Told::Below(revision) = registry.tell(picks, &chunk.events, chunk.upto, out) {
                cut.push((picks[0].watcher, revision));
            }
        }
        for key in served {
            let told = cut.binary_search_by_key(&key, |(watcher, _)| *watcher);
            let behind = chunk.upto + 1 + i64::from(is_planted(Bug::WatchSkipsRevision));
            self.move_to(key, told.map_or(behind, |at| cut[at].1), registry);
        }
    }

    fn is_waited_for(&self, event: &SharedEvent, registry: &Registry) -> bool {
        self.behind.any(event.key(), |key| waits_for(key, event, registry))
    }

    fn lane(&mut self, name: LaneName) -> &mut super::Lane {
        match name {
            LaneName::Ring => &mut self.ring_lane,
            LaneName::Scan => &mut self.scan_lane,
        }
    }
}

/// Of the first `compacted` events keeps what a compaction keeps, the last of each key: one transaction may put a key and
/// then delete it (etcd-contract 4, 13).
fn keep_last_of_each_key(events: &mut Vec<SharedEvent>, compacted: usize) {
    let mut later = HashSet::new();
    let is_last: Vec<bool> = events[..compacted].iter().rev().map(|event| later.insert(event.key())).collect();
    if later.len() < compacted {
        let mut is_last = is_last.into_iter().rev();
        events.retain(|_| is_last.next().unwrap_or(true));
    }
}

/// Whether a watcher that is behind is to be told of `event` now.
fn waits_for(key: WatcherKey, event: &SharedEvent, registry: &Registry) -> bool {
    let watcher = registry.watcher(key);
    let is_due = watcher.next_revision <= event.revision.main || is_planted(Bug::WatchFromBefore);
    watcher.sync == Sync::Waiting && is_due && watcher.shows(event.kind)
}
