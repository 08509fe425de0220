//! A stream whose other side has to take what it asked for.
//!
//! HTTP/2 knows by its windows that nothing is taken of an answer ([`call`](super::call)). Over HTTP/1.1, and what comes after it,
//! the socket alone says so: it is full.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Fails when nothing could be written for so long.
#[derive(Debug)]
pub(super) struct Unread<T> {
    stream: T,
    unread_max: Duration,
    /// Until nothing has been taken for too long. Only while something waits.
    until: Option<Pin<Box<Sleep>>>,
}

impl<T> Unread<T> {
    pub(super) fn new(stream: T, unread_max: Duration) -> Self {
        Self { stream, unread_max, until: None }
    }

    fn judged<R>(&mut self, written: Poll<io::Result<R>>, context: &mut Context<'_>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.until = None;
            return written;
        }
        let until = self.until.get_or_insert_with(|| Box::pin(sleep(self.unread_max)));
        until.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Unread<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Unread<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.judged(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.judged(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        if flushed.is_pending() {
            // Of TLS: what was written still waits here.
            return this.judged(flushed, context);
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(context);
        this.judged(shut, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn who_takes_nothing_is_left_and_who_takes_some_has_time_again() {
        let (near, mut far) = tokio::io::duplex(1_000);
        let mut stream = Unread::new(near, Duration::from_millis(50));
        stream.write_all(&[7; 1_000]).await.expect("there is room");
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut stream).poll_write(&mut context, &[7]).is_pending() && stream.until.is_some());
        far.read_exact(&mut [0; 500]).await.expect("written");
        assert!(Pin::new(&mut stream).poll_write(&mut context, &[7]).is_ready() && stream.until.is_none());
        let left = stream.write_all(&[7; 1_000]).await.expect_err("nobody takes it");
        assert_eq!(left.kind(), io::ErrorKind::TimedOut);
    }
}
