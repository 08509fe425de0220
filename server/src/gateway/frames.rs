//! Bodies in between: JSON values that a client sends one after the other, as messages of gRPC.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use prost_reflect::MessageDescriptor;

use super::failure::Failure;
use super::transcoder::{framed, from_json};
use crate::api::status;
use crate::listen::{HeldRequest, RequestBody};

/// The body of a call inside.
pub(super) enum Inside {
    /// One message.
    One(Option<Bytes>),
    /// Messages as a client sends them.
    Many(JsonValues),
}

/// Finds where a value ends, looking at each byte once however the bytes come.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    at: usize,
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Scanner {
    /// Where the object or list ends that `json` begins with; at once for what is neither, which is no message.
    pub(super) fn end_of_value(&mut self, json: &[u8]) -> Option<usize> {
        while let Some(byte) = json.get(self.at) {
            self.at += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_text => self.escaped = true,
                b'"' => self.in_text = !self.in_text,
                _ if self.in_text => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(self.at);
                    }
                }
                byte if self.depth == 0 && !byte.is_ascii_whitespace() => return Some(self.at),
                _ => {}
            }
        }
        None
    }
}

/// JSON values of a client's body.
pub(super) struct JsonValues {
    body: RequestBody,
    message: MessageDescriptor,
    waiting: BytesMut,
    scanner: Scanner,
    bytes_max: usize,
    /// The room for what waits, where that is bounded.
    held: Option<HeldRequest>,
    ended: bool,
}

impl JsonValues {
    /// None of more than `bytes_max` bytes; what waits takes room of `held`.
    pub fn new(body: RequestBody, message: MessageDescriptor, bytes_max: usize, held: Option<HeldRequest>) -> Self {
        Self { body, message, waiting: BytesMut::new(), scanner: Scanner::default(), bytes_max, held, ended: false }
    }

    /// The next value as a message; `None` when the client sends no more.
    pub async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    /// Counts what waits.
    fn keep(&mut self) -> Result<(), Failure> {
        let bytes = self.waiting.len();
        let fits = self.held.as_mut().is_none_or(|held| held.set(bytes));
        if fits { Ok(()) } else { Err(Failure::new(8, status::too_many_requests().message)) }
    }

    /// The first value, once it is whole.
    fn take(&mut self) -> Result<Option<Bytes>, Failure> {
        let end = match self.scanner.end_of_value(&self.waiting) {
            Some(end) => end,
            None if self.ended && !self.waiting.iter().all(u8::is_ascii_whitespace) => {
                return Err(Failure::invalid("unexpected EOF"));
            }
            None => return Ok(None),
        };
        self.scanner = Scanner::default();
        let value = self.waiting.split_to(end);
        self.keep()?;
        Ok(Some(framed(&from_json(&self.message, &value)?)))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        loop {
            match self.take() {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Err(failure) => return Poll::Ready(Some(Err(failure))),
                Ok(None) if self.ended => return Poll::Ready(None),
                Ok(None) if self.waiting.len() > self.bytes_max => {
                    return Poll::Ready(Some(Err(Failure::new(8, "basalt: a JSON value that is too long"))));
                }
                Ok(None) => {}
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None => self.ended = true,
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.waiting.extend_from_slice(&data);
                        if let Err(failure) = self.keep() {
                            return Poll::Ready(Some(Err(failure)));
                        }
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(Failure::new(1, error.to_string())))),
            }
        }
    }
}

/// Why a body cannot be read on.
#[derive(Debug)]
pub(super) struct Unreadable(Failure);

impl std::fmt::Display for Unreadable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

impl Body for Inside {
    type Data = Bytes;
    type Error = Unreadable;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = match self.get_mut() {
            Inside::One(frame) => frame.take().map(Ok),
            Inside::Many(values) => ready!(values.poll(context)),
        };
        Poll::Ready(frame.map(|frame| frame.map(Frame::data).map_err(Unreadable)))
    }
}
