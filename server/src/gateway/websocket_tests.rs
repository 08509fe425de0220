//! Websockets against clients of all kinds, over a stream in memory.

use std::convert::Infallible;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Full, StreamBody};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;
use crate::listen::RequestRooms;

type TestBody = UnsyncBoxBody<Bytes, Infallible>;

const KEEPALIVE: KeepaliveConfig = KeepaliveConfig {
    client_interval_min: None,
    server_interval: Some(Duration::from_secs(7_200)),
    server_timeout: Some(Duration::from_secs(20)),
};

fn bounds(message_bytes_max: usize) -> Bounds {
    let room = RequestRooms::new(64 << 10).of_connection();
    let message_wait_max = Duration::from_secs(600);
    let (held, hurry) = (Some(room.nothing()), Hurry::default());
    Bounds { message_bytes_max, message_wait_max, held, keepalive: KEEPALIVE, hurry }
}

/// Says each message back, as a line.
async fn echo(mut body: RequestBody) -> Response<TestBody> {
    let lines = futures_util::stream::poll_fn(move |context| {
        std::pin::Pin::new(&mut body).poll_frame(context).map(|frame| {
            let data = frame?.ok()?.into_data().ok()?;
            Some(Ok(http_body::Frame::data([&data[..], b"\n"].concat().into())))
        })
    });
    Response::new(StreamBody::new(lines).boxed_unsync())
}

/// A server that echoes, and the stream to it.
fn echoing(bounds: Bounds) -> (DuplexStream, JoinHandle<()>) {
    let (near, far) = duplex(1 << 10);
    (near, tokio::spawn(serve(far, bounds, echo, HasAsked::default(), std::future::pending())))
}

async fn client(stream: DuplexStream) -> WebSocketStream<DuplexStream> {
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

async fn closed_with(client: &mut WebSocketStream<DuplexStream>) -> Option<u16> {
    loop {
        match client.next().await {
            Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}

#[tokio::test]
async fn each_line_is_a_message_and_pings_are_answered() {
    let (stream, server) = echoing(bounds(1 << 20));
    let mut client = client(stream).await;
    for text in ["{}", r#"{"a":"b"}"#] {
        client.send(Message::text(text)).await.expect("sent");
        assert_eq!(client.next().await.expect("a message").expect("well"), Message::text(text));
    }
    client.send(Message::Ping(Bytes::from_static(b"x"))).await.expect("sent");
    assert_eq!(client.next().await.expect("a message").expect("well"), Message::Pong(Bytes::from_static(b"x")));
    client.send(Message::binary("a\nb\n\nc")).await.expect("sent");
    for text in ["a", "b", "c"] {
        assert_eq!(client.next().await.expect("a message").expect("well"), Message::text(text));
    }
    client.close(None).await.expect("sent");
    assert_eq!(closed_with(&mut client).await, None);
    server.await.expect("it ended");
}

#[tokio::test]
async fn long_lines_go_in_frames_and_arrive_as_one_message() {
    let (stream, _server) = echoing(bounds(1 << 20));
    let mut client = client(stream).await;
    for length in [FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES] {
        // One half at a time: each needs room of its own.
        let text = "x".repeat(length.min(30 << 10));
        client.send(Message::text(text.clone())).await.expect("sent");
        assert_eq!(client.next().await.expect("a message").expect("well"), Message::text(text));
    }
    let (near, far) = duplex(1 << 10);
    let answer = "y".repeat(3 * FRAME_BYTES + 7);
    let whole = answer.clone();
    let unary = async move |_| Response::new(Full::new(Bytes::from(whole)));
    let server =
        tokio::spawn(
            async move { serve(far, bounds(1 << 20), unary, HasAsked::default(), std::future::pending()).await },
        );
    let mut client = self::client(near).await;
    assert_eq!(client.next().await.expect("a message").expect("well"), Message::text(answer));
    // The end of the call is the end of the connection, and nothing is said of it.
    assert!(matches!(client.next().await, Some(Err(_))));
    server.await.expect("it ended");
}

#[tokio::test]
async fn a_message_too_long_is_refused_before_it_has_come() {
    for fragments in [1, 100] {
        let (stream, server) = echoing(bounds(1 << 10));
        let mut client = client(stream).await;
        let content = Bytes::from(vec![b' '; 2_000 / fragments]);
        for n in 0..fragments {
            let kind = if n == 0 { Data::Text } else { Data::Continue };
            let frame = Frame::message(content.clone(), OpCode::Data(kind), n + 1 == fragments);
            if client.send(Message::Frame(frame)).await.is_err() {
                break;
            }
        }
        assert_eq!(closed_with(&mut client).await, Some(1009));
        server.await.expect("it ended");
    }
}

#[tokio::test]
async fn who_keeps_what_others_need_is_sent_away() {
    // Half of the room of all is one connection's: 32 KiB.
    let (stream, server) = echoing(bounds(1 << 20));
    let mut hoarder = client(stream).await;
    let half = Frame::message(vec![b' '; 40 << 10], OpCode::Data(Data::Text), false);
    _ = hoarder.send(Message::Frame(half)).await;
    assert_eq!(closed_with(&mut hoarder).await, Some(1013));
    server.await.expect("it ended");

    // A message that has begun, and pings that are to make it forgotten.
    let (stream, server) = echoing(Bounds { message_wait_max: Duration::from_millis(50), ..bounds(1 << 20) });
    let mut slow = client(stream).await;
    slow.send(Message::Frame(Frame::message("{", OpCode::Data(Data::Text), false))).await.expect("sent");
    for _ in 0..3 {
        _ = slow.send(Message::Ping(Bytes::new())).await;
    }
    assert_eq!(closed_with(&mut slow).await, Some(1008));
    server.await.expect("it ended");
}

#[tokio::test]
async fn a_silent_client_is_asked_and_given_up() {
    let moment = Some(Duration::from_millis(20));
    let keepalive = KeepaliveConfig { server_interval: moment, server_timeout: moment, ..KEEPALIVE };
    let (mut stream, server) = echoing(Bounds { keepalive, ..bounds(1 << 20) });
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.expect("an end");
    assert_eq!(heard, [0x89, 0], "one ping");
    server.await.expect("it ended");
}

#[tokio::test]
async fn bytes_that_are_no_frames_end_it_and_nothing_else() {
    let masked = |head: &[u8], content: &[u8]| [head, &[0; 4], content].concat();
    let hostile = [
        // Not masked; bits that mean nothing; kinds that are none; a ping in pieces; a ping that is long; a piece of nothing.
        vec![0x81, 2, b'{', b'}'],
        masked(&[0xF1, 0x82], b"{}"),
        masked(&[0x83, 0x82], b"{}"),
        masked(&[0x09, 0x80], b""),
        masked(&[0x89, 0xFE, 0, 126], &[0; 126]),
        masked(&[0x80, 0x82], b"{}"),
        // Longer than anything.
        masked(&[0x81, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], b""),
        // No UTF-8.
        masked(&[0x81, 0x81], &[0xFF]),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    for bytes in hostile {
        let (mut stream, server) = echoing(bounds(1 << 20));
        stream.write_all(&bytes).await.expect("sent");
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.expect("an end");
        assert_eq!(heard.first(), Some(&0x88), "{bytes:x?}: a close");
        server.await.expect("it ended");
    }
}

#[tokio::test]
async fn a_stop_ends_who_owes_a_request_and_not_who_waits_for_an_answer() {
    let stopping = || tokio::sync::watch::channel(false);
    let stopped = |mut stop: tokio::sync::watch::Receiver<bool>| async move { drop(stop.wait_for(|stop| *stop).await) };
    let (mut near, far) = duplex(1 << 10);
    let (stop, told) = stopping();
    let never = async |_body| std::future::pending::<Response<TestBody>>().await;
    let asked = HasAsked::default();
    let server = tokio::spawn(async move { serve(far, bounds(1 << 10), never, asked, stopped(told)).await });
    stop.send(true).expect("it waits");
    assert_eq!(near.read(&mut [0; 8]).await.expect("an end"), 0);
    server.await.expect("it ended");

    // What was heard and is no request yet: it is still owed.
    let (near, far) = duplex(1 << 10);
    let (stop, told) = stopping();
    let (taken, heard) = tokio::sync::oneshot::channel();
    let half = async move |mut body: RequestBody| {
        drop(body.frame().await);
        taken.send(()).expect("it waits");
        std::future::pending::<Response<TestBody>>().await
    };
    let asked = HasAsked::default();
    let server = tokio::spawn(async move { serve(far, bounds(1 << 10), half, asked, stopped(told)).await });
    let mut client = client(near).await;
    client.send(Message::text("{")).await.expect("sent");
    heard.await.expect("it was heard");
    stop.send(true).expect("it runs");
    assert_eq!(closed_with(&mut client).await, None);
    server.await.expect("it ended");

    let (near, far) = duplex(1 << 10);
    let (stop, told) = stopping();
    let (taken, asked) = tokio::sync::oneshot::channel();
    let (go_on, held) = tokio::sync::oneshot::channel::<()>();
    let has_asked = HasAsked::default();
    let told_so = has_asked.clone();
    let slow = async move |mut body: RequestBody| {
        drop(body.frame().await);
        told_so.set();
        taken.send(()).expect("it waits");
        drop(held.await);
        Response::new(Full::new(Bytes::from_static(b"{}")))
    };
    let server = tokio::spawn(async move { serve(far, bounds(1 << 10), slow, has_asked, stopped(told)).await });
    let mut client = self::client(near).await;
    client.send(Message::text("{}")).await.expect("sent");
    asked.await.expect("it was asked");
    stop.send(true).expect("it runs");
    tokio::task::yield_now().await;
    go_on.send(()).expect("it waits");
    assert_eq!(client.next().await.expect("a message").expect("well"), Message::text("{}"));
    server.await.expect("it ended");
}

#[tokio::test]
async fn pongs_for_who_does_not_read_are_bounded() {
    let (near, far) = duplex(64);
    let server = tokio::spawn(serve(far, bounds(1 << 20), echo, HasAsked::default(), std::future::pending()));
    let ping = [&[0x89, 0x80 | 125, 0, 0, 0, 0][..], &[7; 125]].concat();
    let (mut reader, mut writer) = tokio::io::split(near);
    // More than may wait: they are read, and of those that do not fit the last is kept.
    for _ in 0..2 * WAITING_BYTES_MAX / 127 {
        writer.write_all(&ping).await.expect("read on");
    }
    writer.write_all(&[&[0x88, 0x80][..], &[0; 4]].concat()).await.expect("sent");
    let mut heard = Vec::new();
    reader.read_to_end(&mut heard).await.expect("an end");
    assert!(heard.len() <= WAITING_BYTES_MAX + 64 + 127, "{} bytes", heard.len());
    server.await.expect("it ended");
}
