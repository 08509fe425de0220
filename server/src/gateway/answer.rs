//! Answers on their way to a client: messages of a call inside, as JSON.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::Full;
use prost_reflect::MessageDescriptor;

use super::failure::Failure;
use super::json_writer::JsonWriter;
use super::transcoder::take_message;
use crate::api::grpc::GrpcBody;
use crate::api::pieces::Pieces;

/// An answer of the gateway.
pub enum GatewayBody {
    /// All of it.
    Whole(Full<Bytes>),
    /// One message, a piece at a time: what is not yet written has its room among answers.
    Message(Bytes, Box<JsonWriter>),
    /// A line for each message, as they come.
    Lines(Box<Lines>),
}

impl GatewayBody {
    /// Of one message.
    ///
    /// # Errors
    /// The message cannot be shown, as far as its first piece tells.
    pub(super) fn message(mut message: JsonWriter) -> Result<Self, Failure> {
        let mut first = BytesMut::new();
        message.write(&mut first)?;
        let first = first.freeze();
        Ok(if message.is_done() { Self::Whole(Full::new(first)) } else { Self::Message(first, Box::new(message)) })
    }
}

/// The messages of a call inside.
pub(super) struct Messages {
    inside: GrpcBody,
    waiting: Pieces,
    ended: bool,
}

impl Messages {
    pub fn new(inside: GrpcBody) -> Self {
        Self { inside, waiting: Pieces::default(), ended: false }
    }

    /// The next message, or how the call failed; `None` at its good end.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Pieces, Failure>>> {
        loop {
            if let Some(message) = take_message(&mut self.waiting) {
                return Poll::Ready(Some(Ok(message)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let Some(Ok(frame)) = ready!(Pin::new(&mut self.inside).poll_frame(context)) else {
                self.ended = true;
                continue;
            };
            match frame.into_data() {
                Ok(data) => self.waiting.append(data),
                Err(frame) => {
                    self.ended = true;
                    let trailers = frame.into_trailers().unwrap_or_default();
                    if let Some(failure) = Failure::of_trailers(&trailers) {
                        return Poll::Ready(Some(Err(failure)));
                    }
                }
            }
        }
    }

    /// The message of a unary call, once that has ended well.
    pub async fn only(&mut self) -> Result<Pieces, Failure> {
        let mut only = Pieces::default();
        while let Some(message) = std::future::poll_fn(|context| self.poll_next(context)).await {
            only = message?;
        }
        Ok(only)
    }
}

/// The messages of a call as lines of JSON.
pub struct Lines {
    messages: Messages,
    response: MessageDescriptor,
    /// The message that is being written.
    line: Option<JsonWriter>,
    /// Whether some of its line is written.
    has_begun: bool,
}

impl Lines {
    /// Of a call whose first message is there.
    pub(super) fn new(messages: Messages, response: MessageDescriptor, first: Pieces) -> Self {
        let line = Some(JsonWriter::new(response.clone(), first));
        Self { messages, response, line, has_begun: false }
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.line.is_none() {
            match ready!(self.messages.poll_next(context)) {
                None => return Poll::Ready(None),
                Some(Err(failure)) => return Poll::Ready(Some(self.failed(&failure))),
                Some(Ok(message)) => self.line = Some(JsonWriter::new(self.response.clone(), message)),
            }
        }
        Poll::Ready(self.write().map(BytesMut::freeze))
    }

    /// The next piece of the line.
    fn write(&mut self) -> Option<BytesMut> {
        let line = self.line.as_mut()?;
        let mut piece = BytesMut::new();
        if !std::mem::replace(&mut self.has_begun, true) {
            piece.extend_from_slice(b"{\"result\":");
        }
        if let Err(failure) = line.write(&mut piece) {
            return Some(self.failed(&failure)[..].into());
        }
        if line.is_done() {
            piece.extend_from_slice(b"}\n");
            (self.line, self.has_begun) = (None, false);
        }
        Some(piece)
    }

    /// The last line: how the call failed. One that has begun is cut, and no JSON.
    fn failed(&mut self, failure: &Failure) -> Bytes {
        self.messages.ended = true;
        self.messages.waiting = Pieces::default();
        let cut = if self.has_begun { "\n" } else { "" };
        (self.line, self.has_begun) = (None, false);
        format!("{cut}{}\n", failure.to_line()).into()
    }
}

/// The next piece of one message.
fn piece_of(first: &mut Bytes, message: &mut JsonWriter) -> Option<Bytes> {
    if first.has_remaining() {
        return Some(std::mem::take(first));
    }
    if message.is_done() {
        return None;
    }
    let mut piece = BytesMut::new();
    match message.write(&mut piece) {
        Ok(()) => Some(piece.freeze()),
        Err(failure) => {
            // The head is long gone: what the client has is cut, and no JSON.
            tracing::error!(error = failure.message, "an answer of the JSON gateway ends before its end");
            None
        }
    }
}

impl Body for GatewayBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match self.get_mut() {
            Self::Whole(body) => return Pin::new(body).poll_frame(context),
            Self::Message(first, message) => piece_of(first, message),
            Self::Lines(lines) => ready!(lines.poll_piece(context)),
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Message(first, message) => first.is_empty() && message.is_done(),
            Self::Lines(_) => false,
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Message(..) | Self::Lines(_) => http_body::SizeHint::default(),
        }
    }
}
