//! I24: streams whose clients asked for a leader end when three looks in a row find none, an election timeout apart, and by
//! nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_server::api::leader_loss::LeaderLoss;
use basalt_server::watch::StreamId;

use super::member_clock::MemberClock;
use super::node::ELECTION_TIMEOUT;

/// Looks that etcd waits for.
const LOOKS: usize = 3;

struct AskingStream {
    loss: LeaderLoss,
    next_look: Duration,
    /// What all looks found, the first one first.
    found: Vec<bool>,
}

/// Streams of one member.
#[derive(Default)]
pub(super) struct LeaderLosses {
    streams: BTreeMap<StreamId, AskingStream>,
}

impl LeaderLosses {
    pub(super) fn begin(&mut self, stream: StreamId, now: Duration, clock: MemberClock) {
        let next_look = now + clock.until(ELECTION_TIMEOUT);
        self.streams.insert(stream, AskingStream { loss: LeaderLoss::default(), next_look, found: Vec::new() });
    }

    pub(super) fn end(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
    }

    /// Looks that are due; gives the streams that end.
    pub(super) fn look(&mut self, has_leader: bool, now: Duration, clock: MemberClock) -> Vec<StreamId> {
        let mut over = Vec::new();
        for (id, stream) in self.streams.iter_mut().filter(|(_, stream)| stream.next_look <= now) {
            stream.next_look = now + clock.until(ELECTION_TIMEOUT);
            stream.found.push(has_leader);
            let ends = stream.loss.look(has_leader);
            let is_due = stream.found.len() >= LOOKS && !stream.found.iter().rev().take(LOOKS).any(|found| *found);
            assert_eq!(ends, is_due, "I24: whether {id:?} ends after looks that found {:?}", stream.found);
            over.extend(ends.then_some(*id));
        }
        over.iter().for_each(|id| self.end(*id));
        over
    }
}
