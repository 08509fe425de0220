//! Bodies in between: JSON values that a client sends one after the other, as messages of gRPC.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame};
use prost_reflect::MessageDescriptor;
use tokio::time::{Sleep, sleep};

use super::failure::Failure;
use super::transcoder::{framed, from_json};
use crate::api::request_messages::{MESSAGE_LATE, MESSAGE_WAIT_MAX};
use crate::api::status::{self, Code, Status};
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

/// Whether a call has a request: its client waits for an answer, and no more owes anything.
#[derive(Clone, Debug, Default)]
pub(super) struct HasAsked(Arc<AtomicBool>);

impl HasAsked {
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the JSON of one message may be at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct JsonBounds {
    /// Its length.
    pub bytes: usize,
    /// How many values it holds.
    pub values: usize,
}

/// JSON values of a client's body. Between two of them a client may be silent for as long as it likes; one that has begun has to
/// end in time.
pub(super) struct JsonValues {
    body: RequestBody,
    message: MessageDescriptor,
    waiting: BytesMut,
    scanner: Scanner,
    bounds: JsonBounds,
    /// The room for what waits, where that is bounded.
    held: Option<HeldRequest>,
    /// While a value has begun: when it must be whole.
    whole_until: Option<Pin<Box<Sleep>>>,
    /// Told of the first value, where somebody wants to know.
    has_asked: Option<HasAsked>,
    ended: bool,
}

impl JsonValues {
    /// None beyond `bounds`; what waits takes room of `held`.
    pub fn new(body: RequestBody, message: MessageDescriptor, bounds: JsonBounds, held: Option<HeldRequest>) -> Self {
        let (waiting, scanner) = (BytesMut::new(), Scanner::default());
        Self { body, message, waiting, scanner, bounds, held, whole_until: None, has_asked: None, ended: false }
    }

    /// Tells `has_asked` when there is a value.
    pub fn telling(self, has_asked: Option<HasAsked>) -> Self {
        Self { has_asked, ..self }
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
        if self.whole_until.is_none() {
            self.skip_blanks()?;
        }
        let end = match self.scanner.end_of_value(&self.waiting) {
            Some(end) => end,
            None if self.ended && !self.waiting.is_empty() => return Err(Failure::invalid("unexpected EOF")),
            None => return Ok(None),
        };
        (self.scanner, self.whole_until) = (Scanner::default(), None);
        let value = self.waiting.split_to(end);
        if self.waiting.len() <= value.len() {
            // What is left of a buffer keeps the room of all that was in it.
            self.waiting = BytesMut::from(&self.waiting[..]);
        }
        self.keep()?;
        if let Some(has_asked) = &self.has_asked {
            has_asked.set();
        }
        Ok(Some(framed(&from_json(&self.message, &value, self.bounds.values)?)))
    }

    /// Forgets what stands before a value: it is none of it, and nobody has begun anything.
    fn skip_blanks(&mut self) -> Result<(), Failure> {
        let blanks = self.waiting.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        if blanks == self.waiting.len() {
            self.waiting = BytesMut::new();
        } else {
            self.waiting.advance(blanks);
        }
        self.keep()
    }

    /// Whether a value that has begun is not whole in time.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let until = self.whole_until.get_or_insert_with(|| Box::pin(sleep(MESSAGE_WAIT_MAX)));
        until.as_mut().poll(context).is_ready()
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        loop {
            match self.take() {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Err(failure) => return Poll::Ready(Some(Err(failure))),
                Ok(None) if self.ended => return Poll::Ready(None),
                Ok(None) if self.waiting.len() > self.bounds.bytes => {
                    return Poll::Ready(Some(Err(Failure::new(8, "basalt: a JSON value that is too long"))));
                }
                Ok(None) => {}
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                return if self.is_late(context) {
                    Poll::Ready(Some(Err(Failure::new(4, MESSAGE_LATE))))
                } else {
                    Poll::Pending
                };
            };
            match frame {
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

impl From<Unreadable> for Status {
    fn from(Unreadable(failure): Unreadable) -> Self {
        let code = match failure.code {
            3 => Code::InvalidArgument,
            4 => Code::DeadlineExceeded,
            8 => Code::ResourceExhausted,
            _ => Code::Canceled,
        };
        Self::new(code, failure.message)
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

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
