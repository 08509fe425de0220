//! Values that come in time, late, or never.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::time::{advance, timeout};

use super::*;
use crate::gateway::transcoder::Transcoder;
use crate::listen::{RequestRoom, RequestRooms};

const BOUNDS: JsonBounds = JsonBounds { bytes: 1 << 20, values: 100 };
const LATE: Failure = Failure { code: 4, message: String::new() };

fn room() -> RequestRoom {
    RequestRooms::new(64 << 10).of_connection()
}

/// Values of keepalives, and where a client says them.
fn values(room: &RequestRoom) -> (mpsc::UnboundedSender<&'static [u8]>, JsonValues, tokio::task::JoinHandle<()>) {
    let request = Transcoder::new().signature("etcdserverpb.Lease", "LeaseKeepAlive").expect("a method").request;
    let (client, mut said) = mpsc::unbounded_channel::<&'static [u8]>();
    let (messages, body) = mpsc::channel(1);
    let carrier = tokio::spawn(async move {
        while let Some(piece) = said.recv().await {
            if messages.send(Bytes::from_static(piece)).await.is_err() {
                return;
            }
        }
    });
    (client, JsonValues::new(RequestBody::Messages(body), request, BOUNDS, Some(room.nothing())), carrier)
}

fn code(next: Option<Result<Bytes, Failure>>) -> Option<u16> {
    next.map(|value| value.map_or_else(|failure| failure.code, |_| 0))
}

#[tokio::test(start_paused = true)]
async fn a_value_that_has_begun_must_end_in_time_and_gives_its_room_back() {
    let room = room();
    let (client, mut values, _carrier) = values(&room);
    static BLANKS: [u8; 20 << 10] = [b' '; 20 << 10];
    client.send(b"{").expect("heard");
    client.send(&BLANKS).expect("heard");
    assert!(timeout(Duration::from_millis(1), values.next()).await.is_err());
    assert!(!room.nothing().set(20 << 10), "what waits has its room");
    // Who says a little now and then has no more time for it.
    for _ in 0..59 {
        advance(Duration::from_secs(1)).await;
        client.send(b" ").expect("heard");
        assert!(timeout(Duration::from_millis(1), values.next()).await.is_err());
    }
    let before = tokio::time::Instant::now();
    assert_eq!(code(values.next().await), Some(LATE.code));
    assert!(before.elapsed() < Duration::from_secs(2));
    drop(values);
    assert!(room.nothing().set(32 << 10));
}

#[tokio::test(start_paused = true)]
async fn between_values_a_client_may_be_silent_and_each_has_its_own_time() {
    let room = room();
    let (client, mut values, _carrier) = values(&room);
    for piece in [&b"{"[..], b"}\n", b" \n", b"{}", b"  {\"ID\":", b"\"7\"} "] {
        client.send(piece).expect("heard");
        let whole = piece.contains(&b'}');
        let next = timeout(Duration::from_secs(50), values.next()).await;
        assert_eq!(next.ok().and_then(code), whole.then_some(0), "{}", String::from_utf8_lossy(piece));
    }
    // Blanks behind a value begin nothing, and nothing of them is kept.
    assert!(timeout(Duration::from_secs(600), values.next()).await.is_err());
    client.send(b" \n ").expect("heard");
    assert!(timeout(Duration::from_secs(600), values.next()).await.is_err());
    assert!(room.nothing().set(32 << 10));
    client.send(b"[").expect("heard");
    assert_eq!(code(values.next().await), Some(LATE.code));
}

#[tokio::test]
async fn who_has_said_a_value_has_asked() {
    let (has_asked, room) = (HasAsked::default(), room());
    let (client, values, carrier) = values(&room);
    let mut values = values.telling(Some(has_asked.clone()));
    client.send(b"{").expect("heard");
    tokio::task::yield_now().await;
    assert!(values.next().now_or_never().is_none() && !has_asked.get());
    client.send(b"}").expect("heard");
    assert_eq!(code(values.next().await), Some(0));
    assert!(has_asked.get());
    // Nothing of it is kept, not even by what is left of the buffer.
    assert_eq!(values.waiting.capacity(), 0);
    drop(client);
    carrier.await.expect("it ended");
    assert_eq!(code(values.next().await), None);
}

#[tokio::test(start_paused = true)]
async fn a_call_inside_ends_as_one_of_grpc() {
    let room = room();
    let (client, values, _carrier) = values(&room);
    client.send(b"{").expect("heard");
    let mut messages = crate::api::request_messages::RequestMessages::new(Inside::Many(values), 1 << 20);
    assert_eq!(messages.next().await, Err(Status::new(Code::DeadlineExceeded, MESSAGE_LATE)));
}
