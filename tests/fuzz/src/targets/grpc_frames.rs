//! Bodies of gRPC calls, cut into data frames anywhere; and the query of a page.
//!
//! However a body is cut, the same messages come out of it, in the same order, and the same ends it: what a plain reading of the
//! whole body says.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use arbitrary::Unstructured;
use basalt_server::api::request_messages::RequestMessages;
use basalt_server::api::status::Code;
use basalt_server::http::PageRequest;
use bytes::Bytes;
use futures_util::FutureExt;
use http_body::{Body, Frame};
use tokio::runtime::{Builder, Runtime};

use crate::forge::below;

const MESSAGE_BYTES_MAX: usize = 300;
const HEAD_BYTES: usize = 5;

/// Data frames that are all there.
struct Frames(VecDeque<Bytes>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }
}

/// What comes out of a body: messages, and how it ends.
#[derive(Debug, PartialEq)]
struct Heard {
    messages: Vec<Bytes>,
    end: Option<Code>,
}

/// A message that has begun has a deadline, which needs a clock; nothing here waits for it.
static CLOCK: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a clock"));

fn heard(frames: Vec<Bytes>) -> Heard {
    let _clock = CLOCK.enter();
    let mut requests = RequestMessages::new(Frames(frames.into()), MESSAGE_BYTES_MAX);
    let mut messages = Vec::new();
    loop {
        match requests.next().now_or_never().expect("all frames are there") {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return Heard { messages, end: None },
            Err(status) => return Heard { messages, end: Some(status.code) },
        }
    }
}

/// By a plain reading.
fn expected(mut body: &[u8]) -> Heard {
    let mut messages = Vec::new();
    let end = loop {
        let Some((head, rest)) = body.split_first_chunk::<HEAD_BYTES>() else {
            break if body.is_empty() { None } else { Some(Code::Internal) };
        };
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if head[0] != 0 {
            break Some(Code::Internal);
        }
        if length > MESSAGE_BYTES_MAX {
            break Some(Code::ResourceExhausted);
        }
        let Some((message, rest)) = rest.split_at_checked(length) else { break Some(Code::Internal) };
        messages.push(Bytes::copy_from_slice(message));
        body = rest;
    };
    Heard { messages, end }
}

pub(super) fn run(data: &[u8]) {
    let mut feed = Unstructured::new(data);
    let cuts: Vec<usize> = (0..below(&mut feed, 8)).map(|_| below(&mut feed, 40)).collect();
    let body = Bytes::copy_from_slice(feed.take_rest());
    let expected = expected(&body);
    assert_eq!(heard(vec![body.clone()]), expected, "in one frame");
    let (mut rest, mut frames) = (body.clone(), Vec::new());
    for cut in &cuts {
        frames.push(rest.split_to((*cut).min(rest.len())));
    }
    frames.push(rest);
    assert_eq!(heard(frames), expected, "cut at {cuts:?}");
    let single: Vec<Bytes> = body.chunks(1).map(Bytes::copy_from_slice).collect();
    assert_eq!(heard(single), expected, "byte by byte");
    page(&body);
}

/// The same bytes as the query of a page.
fn page(bytes: &[u8]) {
    let query = String::from_utf8_lossy(bytes);
    for path in ["/health", "/readyz", "/readyz/linearizable_read"] {
        let request =
            PageRequest { method: "GET", path, query: &query, host: &query, origin: Some(&query), encrypted: false };
        let again = request.reads_linearizably();
        assert_eq!(request.reads_linearizably(), again);
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let frame = |flag: u8, length: u32, message: &[u8]| [&[flag], &length.to_be_bytes()[..], message].concat();
    let bodies = [
        [frame(0, 3, b"abc"), frame(0, 0, b""), frame(0, 2, b"de")].concat(),
        frame(1, 3, b"abc"),
        frame(0, 301, &[7; 301]),
        [frame(0, 300, &[7; 300]), frame(0, 9, b"cut off")].concat(),
        b"serializable=true&exclude=%6c&exclude=linearizable_read;x".to_vec(),
    ];
    let cuts: [&[u8]; 3] = [&[0], &[2, 3, 9], &[5, 1, 4, 6, 0, 30]];
    // Numbers come off the front, so that they stand before the body.
    let seed = |body: &Vec<u8>| cuts.map(|cut| [cut, &body[..]].concat());
    bodies.iter().flat_map(seed).collect()
}
