//! What one connection of HTTP/2 may do to the server, judged by the heads of its frames.
//!
//! `h2` answers pings, settings and resets by itself and tells nobody. The guard sees the same bytes, after TLS and before
//! `h2`, and those that `h2` writes. It keeps two rules: [`ControlBudget`] against floods, and [`ClientPings`] where etcd
//! keeps it. What `h2` bounds itself is left to it: headers, frames of one header block, calls reset before they were
//! seen, our own resets, small data that nobody reads.

use std::time::{Duration, Instant};

use super::client_pings::ClientPings;
use super::control_budget::ControlBudget;
use super::frame_heads::{FrameHead, FrameHeads};

/// The code of a GOAWAY for a client that does too much of something (RFC 9113, 7).
const ENHANCE_YOUR_CALM: u32 = 11;

/// What a call costs in a turn beside its bytes, and a point of the budget, in bytes: heads of calls are short, and what they
/// set going is not.
const CALL_BYTES: usize = 256;
const POINT_BYTES: usize = 64;

/// Why a client is sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It pings more often than it may. Its library knows the text, and goes on more calmly (gRPC proposal A8).
    TooManyPings,
    /// It says too much that is not of a call.
    TooManyControlFrames,
}

impl Verdict {
    /// What the client is told, and the label under which it is counted.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::TooManyPings => "too_many_pings",
            Self::TooManyControlFrames => "too_many_control_frames",
        }
    }
}

/// Both directions of a connection.
#[derive(Debug)]
pub(super) struct Guard {
    read: FrameHeads,
    written: FrameHeads,
    budget: ControlBudget,
    pings: Option<ClientPings>,
    /// The newest call that the client opened.
    newest_stream: u32,
    verdict: Option<Verdict>,
}

impl Guard {
    /// Of a client that sends `preface_bytes` before its first frame. Its pings are free without `ping_interval_min`.
    pub(super) fn new(preface_bytes: usize, ping_interval_min: Option<Duration>, now: Instant) -> Self {
        Self {
            read: FrameHeads::after(preface_bytes),
            written: FrameHeads::after(0),
            budget: ControlBudget::new(now),
            pings: ping_interval_min.map(ClientPings::new),
            newest_stream: 0,
            verdict: None,
        }
    }

    /// The client sent `bytes`. Gives how many they count for in a turn; `None` if they are not to be looked at, nor any after
    /// them. Looks at the clock only where they hold more than calls.
    pub(super) fn read(&mut self, bytes: &[u8], now: impl FnOnce() -> Instant) -> Option<usize> {
        let (mut cost, mut pings, mut calls) = (0, 0, 0);
        let newest_stream = &mut self.newest_stream;
        self.read.follow(bytes, |head| {
            cost += ControlBudget::cost(head);
            match head.kind {
                FrameHead::HEADERS => {
                    *newest_stream = head.stream.max(*newest_stream);
                    calls += 1;
                }
                FrameHead::PING if !head.has(FrameHead::ACK) => pings += 1,
                _ => {}
            }
        });
        if cost > 0 {
            let now = now();
            if !self.budget.spend(cost, now) {
                self.verdict.get_or_insert(Verdict::TooManyControlFrames);
            }
            if let Some(client) = &mut self.pings {
                (0..pings).for_each(|_| client.came(now));
            }
        }
        let weight = bytes.len() + calls * CALL_BYTES + cost as usize * POINT_BYTES;
        self.verdict.is_none().then_some(weight)
    }

    /// `h2` says `bytes` to the client.
    pub(super) fn wrote(&mut self, bytes: &[u8]) {
        let Self { written, budget, pings, .. } = self;
        written.follow(bytes, |head| {
            budget.sent(head);
            if let (FrameHead::DATA | FrameHead::HEADERS, Some(client)) = (head.kind, &mut *pings) {
                client.answered();
            }
        });
    }

    /// The verdict, once what came was answered as far as it could be. `has_calls` is asked only if it matters.
    pub(super) fn end_turn(&mut self, has_calls: impl FnOnce() -> bool) -> Option<Verdict> {
        if let Some(pings) = &mut self.pings
            && pings.are_too_many(has_calls)
        {
            // A flood of pings is told in the words that clients know.
            self.verdict = Some(Verdict::TooManyPings);
        }
        self.verdict
    }

    /// The last frame for a client that is sent away; `None` for one that is not, or that would not understand it amid
    /// another frame.
    pub(super) fn farewell(&self) -> Option<Vec<u8>> {
        let verdict = self.verdict.filter(|_| self.written.is_between_frames())?;
        let parts = [&self.newest_stream.to_be_bytes(), &ENHANCE_YOUR_CALM.to_be_bytes(), verdict.text().as_bytes()];
        Some(FrameHead::frame(FrameHead::GOAWAY, &parts.concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(ping_interval_min: Option<Duration>) -> Guard {
        Guard::new(24, ping_interval_min, Instant::now())
    }

    fn frames(kind: u8, payload: &[u8], count: usize) -> Vec<u8> {
        FrameHead::frame(kind, payload).repeat(count)
    }

    #[test]
    fn floods_of_every_kind_end_with_a_goaway() {
        for (kind, payload) in [(0, 0), (2, 5), (3, 4), (4, 0), (6, 8), (8, 4), (9, 100), (77, 1)] {
            let (mut guard, now) = (guard(None), Instant::now());
            assert_eq!(guard.read(&[7; 24], || now), Some(24));
            let flood = frames(kind, &vec![7; payload], 5_000);
            assert_eq!(guard.read(&flood, || now).is_some(), kind != FrameHead::SETTINGS, "kind {kind}");
            assert_eq!(guard.read(&frames(kind, &vec![7; payload], 1), || now), None, "kind {kind}");
            assert_eq!(guard.end_turn(|| true), Some(Verdict::TooManyControlFrames));
            let farewell = guard.farewell().expect("nothing is cut");
            assert_eq!(farewell[..9], [0, 0, 31, 7, 0, 0, 0, 0, 0]);
            assert_eq!(&farewell[9..], b"\0\0\0\0\0\0\0\x0btoo_many_control_frames");
        }
    }

    #[test]
    fn calls_alone_need_no_clock() {
        let mut guard = guard(Some(Duration::from_secs(5)));
        let no_clock = || -> Instant { unreachable!("nothing here is to be timed") };
        assert_eq!(guard.read(&[7; 24], no_clock), Some(24));
        for _ in 0..1_000 {
            assert_eq!(guard.read(&frames(FrameHead::HEADERS, &[7; 30], 10), no_clock), Some(10 * (39 + 256)));
            assert_eq!(guard.read(&frames(FrameHead::DATA, &[7; 30], 10), no_clock), Some(390));
        }
        assert_eq!((guard.end_turn(|| true), guard.farewell()), (None, None));
    }

    #[test]
    fn pings_are_counted_where_there_is_a_rule_and_their_answers_are_not() {
        let now = Instant::now();
        let ping = frames(FrameHead::PING, &[7; 8], 4);
        let mut free = guard(None);
        assert!(free.read(&[7; 24], || now).and(free.read(&ping, || now)).is_some());
        assert_eq!(free.end_turn(|| false), None);
        let mut bound = guard(Some(Duration::from_secs(5)));
        assert!(bound.read(&[7; 24], || now).is_some());
        let mut answer = ping.clone();
        answer.chunks_mut(17).for_each(|frame| frame[4] = FrameHead::ACK);
        assert!(bound.read(&answer, || now).is_some());
        assert_eq!(bound.end_turn(|| false), None);
        // Data of a call makes the next one free.
        bound.wrote(&frames(FrameHead::DATA, &[7; 100], 1));
        assert!(bound.read(&ping[17..], || now).is_some());
        assert_eq!(bound.end_turn(|| false), None);
        assert!(bound.read(&ping[..17], || now).is_some());
        assert_eq!(bound.end_turn(|| false), Some(Verdict::TooManyPings));
    }

    #[test]
    fn nobody_is_told_anything_amid_a_frame() {
        let (mut guard, now) = (guard(None), Instant::now());
        let frame = frames(FrameHead::DATA, &[7; 100], 1);
        guard.wrote(&frame[..50]);
        let flood = [&[7; 24], &*frames(FrameHead::PING, &[7; 8], 5_001)].concat();
        assert_eq!(guard.read(&flood, || now), None);
        assert_eq!(guard.farewell(), None);
        guard.wrote(&frame[50..]);
        assert!(guard.farewell().is_some());
    }
}
