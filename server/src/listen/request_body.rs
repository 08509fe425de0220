//! The body of a request, over either version of HTTP.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::connection::BoxError;

/// What a client sends with a request, as it comes.
#[derive(Debug)]
pub enum RequestBody {
    /// Over HTTP/1.1.
    Http1(Incoming),
    /// Over HTTP/2. What is taken is given back to the client's window at once: whoever takes it bounds what he keeps.
    Http2(h2::RecvStream),
    /// Messages of a connection that has left HTTP.
    Messages(mpsc::Receiver<Bytes>),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let stream = match self.get_mut() {
            Self::Http1(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
            }
            Self::Http2(stream) => stream,
            Self::Messages(messages) => {
                return messages.poll_recv(context).map(|message| message.map(|message| Ok(Frame::data(message))));
            }
        };
        match ready!(stream.poll_data(context)) {
            Some(Ok(data)) => {
                // Fails only for a stream that is over, whose window is nobody's concern.
                _ = stream.flow_control().release_capacity(data.len());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            None => {
                let trailers = ready!(stream.poll_trailers(context));
                Poll::Ready(trailers.transpose().map(|trailers| Ok(Frame::trailers(trailers?))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(stream) => stream.is_end_stream(),
            Self::Messages(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(_) | Self::Messages(_) => SizeHint::default(),
        }
    }
}
