//! The stream below a websocket, whose library keeps a message until it is whole: what it keeps is counted as what is kept of
//! any request, and has to be whole in time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::listen::HeldRequest;

/// Fails where a message that has begun finds no room, or is not whole in time.
#[derive(Debug)]
pub(super) struct Metered<S> {
    stream: S,
    held: Option<HeldRequest>,
    /// Of the message that has begun.
    bytes: usize,
    whole_max: Duration,
    whole_until: Option<Pin<Box<Sleep>>>,
}

impl<S> Metered<S> {
    /// What is kept takes room of `held`, for at most `whole_max`.
    pub fn new(stream: S, held: Option<HeldRequest>, whole_max: Duration) -> Self {
        Self { stream, held, bytes: 0, whole_max, whole_until: None }
    }

    /// A message is whole, and handed on: nothing is kept.
    pub fn handed_on(&mut self) {
        self.release(self.bytes);
    }

    /// So much was no part of a message.
    pub fn release(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(held) = &mut self.held {
            held.set(self.bytes);
        }
        if self.bytes == 0 {
            self.whole_until = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                let late = this.whole_until.as_mut().is_some_and(|until| until.as_mut().poll(context).is_ready());
                return if late { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { Poll::Pending };
            }
        }
        this.bytes += buffer.filled().len() - before;
        this.whole_until.get_or_insert_with(|| Box::pin(sleep(this.whole_max)));
        let fits = this.held.as_mut().is_none_or(|held| held.set(this.bytes));
        Poll::Ready(if fits { Ok(()) } else { Err(io::ErrorKind::OutOfMemory.into()) })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
