//! A stream whose other side has to take what it asked for.
//!
//! HTTP/2 knows by its windows that nothing is taken of an answer ([`call`](super::call)). Over HTTP/1.1, and what comes after it,
//! the socket alone says so: it is full.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pace::{Hurry, Pace};

/// Fails when too little could be written for so long.
#[derive(Debug)]
pub(super) struct Unread<T> {
    stream: T,
    pace: Pace,
    hurry: Hurry,
}

impl<T> Unread<T> {
    pub(super) fn new(stream: T, unread_max: Duration) -> Self {
        Self { stream, pace: Pace::new(unread_max), hurry: Hurry::default() }
    }

    /// Where it is said that an answer begins.
    pub(super) fn hurry(&self) -> Hurry {
        self.hurry.clone()
    }

    fn judged<R>(&mut self, written: Poll<io::Result<R>>, context: &mut Context<'_>) -> Poll<io::Result<R>> {
        if written.is_pending() && self.pace.is_over(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        written
    }

    fn counted(&mut self, written: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.pace.took(*bytes, self.hurry.is_unhurried());
        }
        self.judged(written, context)
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
        this.counted(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.counted(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        if flushed.is_ready() {
            // Nothing waits any more: until the next write the time stands still.
            this.pace.took(0, this.hurry.is_unhurried());
        }
        // Of TLS: what was written may still wait here.
        this.judged(flushed, context)
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
    use tokio::time::Instant;

    use super::*;
    use crate::listen::pace::Unhurried;

    /// As TLS: what it takes waits in it until it is flushed.
    struct Buffering<T> {
        stream: T,
        waiting: Vec<u8>,
    }

    impl<T: AsyncWrite + Unpin> AsyncWrite for Buffering<T> {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.get_mut().waiting.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            let this = self.get_mut();
            while !this.waiting.is_empty() {
                let written = std::task::ready!(Pin::new(&mut this.stream).poll_write(context, &this.waiting))?;
                this.waiting.drain(..written);
            }
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll_flush(context)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn between_two_answers_nobody_is_slow() {
        let (near, mut far) = tokio::io::duplex(1_000);
        let mut stream = Unread::new(Buffering { stream: near, waiting: Vec::new() }, Duration::from_secs(60));
        let mut context = Context::from_waker(std::task::Waker::noop());
        for _ in 0..5 {
            stream.write_all(&[7; 1_001]).await.expect("it is buffered");
            assert!(Pin::new(&mut stream).poll_flush(&mut context).is_pending());
            tokio::time::advance(Duration::from_secs(11)).await;
            far.read_exact(&mut [0; 1_000]).await.expect("written");
            stream.flush().await.expect("there is room");
            far.read_exact(&mut [0]).await.expect("written");
            tokio::time::advance(Duration::from_secs(90)).await;
        }
        // What it waited counts, and no more than that.
        stream.write_all(&[7; 1_001]).await.expect("it is buffered");
        let (since, left) = (Instant::now(), stream.flush().await.expect_err("nobody takes it"));
        assert_eq!((left.kind(), since.elapsed().as_secs()), (io::ErrorKind::TimedOut, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_left_and_who_takes_a_little_too_unless_nobody_hurries() {
        for is_unhurried in [false, true] {
            let (near, mut far) = tokio::io::duplex(1_000);
            let mut stream = Unread::new(near, Duration::from_secs(60));
            let mut response = http::Response::new(());
            if is_unhurried {
                response.extensions_mut().insert(Unhurried);
            }
            stream.hurry().begin(&response);
            stream.write_all(&[7; 1_000]).await.expect("there is room");
            for _ in 0..3 {
                let mut context = Context::from_waker(std::task::Waker::noop());
                assert!(Pin::new(&mut stream).poll_write(&mut context, &[7]).is_pending());
                tokio::time::advance(Duration::from_secs(25)).await;
                far.read_exact(&mut [0]).await.expect("written");
                stream.write_all(&[7]).await.expect("there is room");
            }
            let (since, left) = (Instant::now(), stream.write_all(&[7]).await.expect_err("nobody takes it"));
            assert_eq!(left.kind(), io::ErrorKind::TimedOut);
            assert_eq!(since.elapsed().as_secs() >= 60, is_unhurried, "{:?}", since.elapsed());
        }
    }
}
