//! Bodies in between: JSON values that a client sends one after the other, as messages of gRPC.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use prost_reflect::MessageDescriptor;
use serde::de::IgnoredAny;

use super::failure::Failure;
use super::transcoder::{framed, from_json};
use crate::listen::RequestBody;

/// The body of a call inside.
pub(super) enum Inside {
    /// One message.
    One(Option<Bytes>),
    /// Messages as a client sends them.
    Many(JsonValues),
}

/// JSON values of a client's body.
pub(super) struct JsonValues {
    body: RequestBody,
    message: MessageDescriptor,
    waiting: Vec<u8>,
    bytes_max: usize,
    ended: bool,
}

impl JsonValues {
    /// None of more than `bytes_max` bytes.
    pub fn new(body: RequestBody, message: MessageDescriptor, bytes_max: usize) -> Self {
        Self { body, message, waiting: Vec::new(), bytes_max, ended: false }
    }

    /// The first value, once it is whole.
    fn take(&mut self) -> Result<Option<Bytes>, Failure> {
        let mut values = serde_json::Deserializer::from_slice(&self.waiting).into_iter::<IgnoredAny>();
        let whole = match values.next() {
            None => false,
            Some(Ok(_)) => true,
            Some(Err(error)) if error.is_eof() && !self.ended => false,
            Some(Err(error)) => return Err(Failure::invalid(error.to_string())),
        };
        if !whole {
            return Ok(None);
        }
        let end = values.byte_offset();
        let message = from_json(&self.message, &self.waiting[..end])?;
        self.waiting.drain(..end);
        Ok(Some(framed(&message)))
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
