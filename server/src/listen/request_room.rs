//! How much of requests the process keeps before admission counts it: calls that are open, messages that are not whole yet, and
//! those of calls that wait for others or for their client.
//!
//! HTTP/2 bounds how much a client may send before it is read, not how much of it is kept: ten thousand calls, each one byte
//! short of the largest request, are 20 GB on one connection. So what is kept is counted, for a connection and for all, and
//! who finds no room is told to come again. Nobody waits for room: what waited would fill the window of its connection, and
//! nothing that has room could go on.
//!
//! Any other request that came in one frame of data is never counted; it is on to where admission counts it.
//!
//! Requests of calls that wait have a room beside: their clients hold them for as long as they like, and must not keep
//! others' messages from being read.
//!
//! Large pages, as that of all figures, have their places beside: they are made before their client is known to take them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// What an open call takes at least, with what HTTP/2 keeps of it.
const CALL_BYTES: usize = 4 << 10;
/// So many calls may be open whatever memory there is.
const CALLS_MIN: usize = 32 << 10;
/// The part of the room for messages, and of that for those of calls that wait, that one connection may fill.
const CONNECTION_PART: usize = 2;
/// What there is for messages of calls that wait, as a part of the room for others.
const WAITING_PART: usize = 2;
/// Large pages that one connection may have asked for and not yet taken.
const LARGE_PAGES_OF_CONNECTION: usize = 8;
/// Bytes of large pages that wait for their clients, of all connections.
const LARGE_PAGE_BYTES: usize = 16 << 20;

/// The room of all connections.
#[derive(Clone, Debug)]
pub struct RequestRooms {
    all: Arc<Room>,
}

/// The room of one connection, within that of all.
#[derive(Clone, Debug)]
pub struct RequestRoom {
    own: Arc<OwnRoom>,
    all: Arc<Room>,
}

#[derive(Debug)]
struct OwnRoom {
    bytes: Count,
    waiting_bytes: Count,
    large_pages: Count,
}

#[derive(Debug)]
struct Room {
    calls: Count,
    bytes: Count,
    waiting_bytes: Count,
    large_page_bytes: Count,
}

/// So much of something, and what of it is taken.
#[derive(Debug)]
struct Count {
    taken: AtomicUsize,
    max: usize,
}

impl Count {
    fn new(max: usize) -> Self {
        Self { taken: AtomicUsize::new(0), max }
    }

    fn take(&self, count: usize) -> bool {
        let fits = self.taken.fetch_add(count, Ordering::Relaxed).saturating_add(count) <= self.max;
        if !fits {
            self.give_back(count);
        }
        fits
    }

    fn give_back(&self, count: usize) {
        self.taken.fetch_sub(count, Ordering::Relaxed);
    }
}

impl RequestRooms {
    /// Room for so many bytes of messages, for half as many of calls that wait, and for as many calls as take the same, 32,768
    /// at least.
    pub fn new(bytes: usize) -> Self {
        let all = Room {
            calls: Count::new((bytes / CALL_BYTES).max(CALLS_MIN)),
            bytes: Count::new(bytes),
            waiting_bytes: Count::new(bytes / WAITING_PART),
            large_page_bytes: Count::new(LARGE_PAGE_BYTES),
        };
        Self { all: Arc::new(all) }
    }

    /// Of a new connection.
    pub fn of_connection(&self) -> RequestRoom {
        let own = OwnRoom {
            bytes: Count::new(self.all.bytes.max / CONNECTION_PART),
            waiting_bytes: Count::new(self.all.waiting_bytes.max / CONNECTION_PART),
            large_pages: Count::new(LARGE_PAGES_OF_CONNECTION),
        };
        RequestRoom { own: Arc::new(own), all: self.all.clone() }
    }
}

impl RequestRoom {
    /// A place for one more call, until it is dropped; `None` if there is none.
    pub fn open_call(&self) -> Option<OpenCall> {
        self.all.calls.take(1).then(|| OpenCall { all: self.all.clone() })
    }

    /// A place for a large page that is yet to be made; `None` if this connection has asked for too many.
    pub fn large_page(&self) -> Option<LargePage> {
        self.own.large_pages.take(1).then(|| LargePage { room: self.clone(), bytes: 0 })
    }

    /// Room for a whole message that a call keeps while it waits, until what is given is dropped; `None` if there is none. One
    /// alone is never too large.
    pub fn waiting(&self, bytes: usize) -> Option<WaitingRequest> {
        let bytes = bytes.min(self.own.waiting_bytes.max);
        if !self.own.waiting_bytes.take(bytes) {
            return None;
        }
        if !self.all.waiting_bytes.take(bytes) {
            self.own.waiting_bytes.give_back(bytes);
            return None;
        }
        Some(WaitingRequest { room: self.clone(), bytes })
    }

    /// Of a message, nothing of which is kept yet.
    pub fn nothing(&self) -> HeldRequest {
        HeldRequest { room: self.clone(), bytes: 0 }
    }
}

/// The place of a call.
#[derive(Debug)]
pub struct OpenCall {
    all: Arc<Room>,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.all.calls.give_back(1);
    }
}

/// What a call keeps of its request while it waits.
#[derive(Debug)]
pub struct WaitingRequest {
    room: RequestRoom,
    bytes: usize,
}

impl Drop for WaitingRequest {
    fn drop(&mut self) {
        self.room.own.waiting_bytes.give_back(self.bytes);
        self.room.all.waiting_bytes.give_back(self.bytes);
    }
}

/// The place of a large page.
#[derive(Debug)]
pub struct LargePage {
    room: RequestRoom,
    bytes: usize,
}

impl LargePage {
    /// The page, which has its place until the last of it is gone: sent, or dropped with its connection. `None` if there is no
    /// room for it.
    pub fn hold(mut self, page: Bytes) -> Option<Bytes> {
        if !self.room.all.large_page_bytes.take(page.len()) {
            return None;
        }
        self.bytes = page.len();
        Some(Bytes::from_owner(Placed { page, _place: self }))
    }
}

impl Drop for LargePage {
    fn drop(&mut self) {
        self.room.all.large_page_bytes.give_back(self.bytes);
        self.room.own.large_pages.give_back(1);
    }
}

/// A page with its place.
struct Placed {
    page: Bytes,
    _place: LargePage,
}

impl AsRef<[u8]> for Placed {
    fn as_ref(&self) -> &[u8] {
        &self.page
    }
}

/// What is kept of one message; given back when this is dropped.
#[derive(Debug)]
pub struct HeldRequest {
    room: RequestRoom,
    bytes: usize,
}

impl HeldRequest {
    /// So much is kept now; `false`, and nothing changed, if there is no room.
    pub fn set(&mut self, bytes: usize) -> bool {
        let (own, all) = (&self.room.own.bytes, &self.room.all);
        if bytes == self.bytes {
            return true;
        }
        if let Some(more) = bytes.checked_sub(self.bytes) {
            if !own.take(more) {
                return false;
            }
            if !all.bytes.take(more) {
                own.give_back(more);
                return false;
            }
        } else {
            own.give_back(self.bytes - bytes);
            all.bytes.give_back(self.bytes - bytes);
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for HeldRequest {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_may_fill_half_of_what_all_have() {
        let rooms = RequestRooms::new(1_000);
        let (first, second) = (rooms.of_connection(), rooms.of_connection());
        let (mut a, mut b) = (first.nothing(), first.nothing());
        assert!(a.set(300) && b.set(200) && !b.set(201) && !a.set(301));
        let (mut c, mut d) = (second.nothing(), rooms.of_connection().nothing());
        assert!(c.set(500) && !d.set(1));
        drop(a);
        assert!(d.set(300) && !d.set(301) && d.set(0));
        assert!(b.set(500));
        drop((b, c, d));
        assert_eq!(rooms.all.bytes.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn requests_of_calls_that_wait_have_a_room_of_their_own() {
        let rooms = RequestRooms::new(1_000);
        let (first, second) = (rooms.of_connection(), rooms.of_connection());
        let held = first.waiting(250).expect("half of half");
        assert!(first.waiting(1).is_none() && first.nothing().set(500));
        let rest = (second.waiting(200), second.waiting(50));
        assert!(rest.1.is_some() && rooms.of_connection().waiting(1).is_none());
        drop(held);
        assert!(first.waiting(250).is_some() && second.waiting(1).is_none());
        drop(rest);
        let larger = first.waiting(251).expect("it is alone");
        assert!(first.waiting(1).is_none() && second.waiting(usize::MAX).is_some());
        drop(larger);
        assert_eq!(rooms.all.waiting_bytes.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn large_pages_have_places_until_the_last_of_them_is_gone() {
        let rooms = RequestRooms::new(1_000);
        let room = rooms.of_connection();
        let page = Bytes::from(vec![7; 1 << 20]);
        let mut pages: Vec<_> = std::iter::from_fn(|| room.large_page()).collect();
        assert_eq!(pages.len(), LARGE_PAGES_OF_CONNECTION);
        let held = pages.pop().and_then(|place| place.hold(page.clone())).expect("there is room");
        let rest = held.slice(1..2);
        drop(held);
        assert!(room.large_page().is_none() && rooms.of_connection().large_page().is_some());
        drop(rest);
        assert!(room.large_page().is_some());
        // Of all connections.
        let fits = |_| rooms.of_connection().large_page().expect("its first").hold(page.clone());
        let held: Vec<_> = (0..LARGE_PAGE_BYTES >> 20).map(fits).collect();
        assert!(held.iter().all(Option::is_some) && fits(0).is_none());
        drop(held);
        assert!(fits(0).is_some());
        assert_eq!(rooms.all.large_page_bytes.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn calls_have_places_and_give_them_back() {
        let rooms = RequestRooms::new(0);
        let room = rooms.of_connection();
        let mut calls: Vec<_> = std::iter::from_fn(|| room.open_call()).collect();
        assert_eq!(calls.len(), CALLS_MIN);
        assert!(rooms.of_connection().open_call().is_none());
        calls.pop();
        assert!(rooms.of_connection().open_call().is_some());
        assert_eq!(RequestRooms::new(1 << 30).all.calls.max, 262_144);
    }
}
