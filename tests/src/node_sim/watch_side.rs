//! The watch thread and its read threads, piece by piece.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use basalt_server::node::watch_history::{Scanned, previous, scan};
use basalt_server::watch::{Input, Output, StreamId, WatchConfig, WatchFigures, Watches};
use basalt_storage::disk::SimulatedDisk;
use basalt_storage::mvcc::shard_map::{ShardId, ShardMap};
use basalt_storage::mvcc::view::View;
use basalt_storage::revision::Revision;
use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;

use crate::opening::CLUSTER_ID;

/// Small, so that streams fill, memory forgets, and history is read in many steps.
const FRAGMENT_BYTES: usize = 8 << 10;
const RING_BYTES: usize = 48 << 10;
const STREAM_QUEUE_BYTES_MAX: usize = 24 << 10;
const QUEUE_BYTES_MAX: usize = 128 << 10;
const WATCHER_BYTES_MAX: usize = 1 << 20;
const SCAN_REVISIONS_MAX: usize = 16;
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// What a read thread is to read, of the View that was the newest when it was asked.
enum Reading {
    Scan { ticket: basalt_server::watch::Ticket, shards: Vec<ShardId>, from: i64, to: i64, revisions_max: usize },
    Previous { ticket: basalt_server::watch::Ticket, hits: Vec<(ShardId, Revision)> },
}

/// The watches of a node.
pub(super) struct WatchSide {
    watches: Watches,
    inbox: VecDeque<Input>,
    readings: Vec<(Arc<View>, Reading)>,
}

impl WatchSide {
    pub(super) fn new(member_id: u64, shard_map: ShardMap, view: &View, seed: u64) -> Self {
        let config = WatchConfig {
            cluster_id: CLUSTER_ID,
            member_id,
            raft_term: 0,
            progress_notify_interval: PROGRESS_INTERVAL,
            fragment_bytes: FRAGMENT_BYTES,
            ring_bytes: RING_BYTES,
            stream_queue_bytes_max: STREAM_QUEUE_BYTES_MAX,
            queue_bytes_max: QUEUE_BYTES_MAX,
            watcher_bytes_max: WATCHER_BYTES_MAX,
            scan_revisions_max: SCAN_REVISIONS_MAX,
            seed,
        };
        let watches = Watches::new(config, shard_map, view.revision, view.compact_revision);
        Self { watches, inbox: VecDeque::new(), readings: Vec::new() }
    }

    pub(super) fn push(&mut self, input: Input) {
        self.inbox.push_back(input);
    }

    pub(super) fn has_inputs(&self) -> bool {
        !self.inbox.is_empty()
    }

    pub(super) fn has_readings(&self) -> bool {
        !self.readings.is_empty()
    }

    pub(super) fn figures(&self) -> WatchFigures {
        self.watches.figures()
    }

    /// Takes the next input; gives what is sent.
    pub(super) fn take_input(&mut self, now: Duration, view: &Arc<View>) -> Vec<(StreamId, Vec<Bytes>)> {
        let input = self.inbox.pop_front().expect("there are inputs");
        let (mut outputs, mut sent) = (Vec::new(), Vec::new());
        self.watches.handle(input, now, &mut outputs);
        for output in outputs {
            match output {
                Output::Send { stream, message, .. } => sent.push((stream, message)),
                Output::Scan { ticket, shards, from, to, revisions_max } => {
                    self.readings.push((view.clone(), Reading::Scan { ticket, shards, from, to, revisions_max }));
                }
                Output::FetchPrevious { ticket, hits } => {
                    self.readings.push((view.clone(), Reading::Previous { ticket, hits }));
                }
            }
        }
        sent
    }

    /// One of the readings is done.
    pub(super) fn read(&mut self, disk: &SimulatedDisk, random: &mut StdRng) {
        let (view, reading) = self.readings.swap_remove(random.random_range(0..self.readings.len()));
        match reading {
            Reading::Scan { ticket, shards, from, to, revisions_max } => {
                let scanned = scan(&view, &shards, from, to, revisions_max, disk);
                self.push(Input::Compacted(view.compact_revision));
                self.push(match scanned {
                    Scanned::Events { events, next } => Input::Scanned { ticket, events, next },
                    Scanned::Damaged => panic!("history of {shards:?} cannot be read from {from} on"),
                });
            }
            Reading::Previous { ticket, hits } => {
                let values = previous(&view, &hits, disk);
                self.push(Input::Previous { ticket, values });
            }
        }
    }
}
