//! Writes of one turn of a connection, joined.
//!
//! `h2` writes a frame of data by itself as soon as it is larger than some hundred bytes, so that ten answers to ten
//! calls that arrived together would be ten system calls or more. Here they gather until the connection has nothing
//! more to say for now, and leave in one.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Gathered up to here, then written even amid a turn: seven of the largest frames that clients take, each of 16 KiB and a
/// head. The kernel takes this much at once, and it stays in cache.
const BUFFER_BYTES: usize = 7 * ((16 << 10) + 9);

/// What an idle connection keeps of its buffer, at most.
const IDLE_BYTES: usize = 4 << 10;
/// Sizes of the buffer: of small frames, of one of the largest, and of as many as come.
const ROOMS_BYTES: [usize; 3] = [IDLE_BYTES, BUFFER_BYTES.div_ceil(4), BUFFER_BYTES];

/// The byte stream as `h2` holds it. Flushing it does nothing: [`Flusher`] does.
pub(super) struct Coalesced<T>(Arc<Mutex<Gathering<T>>>);

/// The end of a turn: whoever drives the connection has the gathered bytes written.
pub(super) struct Flusher<T>(Arc<Mutex<Gathering<T>>>);

struct Gathering<T> {
    stream: T,
    /// What was gathered since it was last empty, at most [`BUFFER_BYTES`]. What is written stays until all is: nothing is
    /// moved to the front.
    buffer: Vec<u8>,
    /// How much of it the peer has.
    written: usize,
}

/// Joins the writes on `stream`.
pub(super) fn coalesced<T>(stream: T) -> (Coalesced<T>, Flusher<T>) {
    let gathering = Arc::new(Mutex::new(Gathering { stream, buffer: Vec::new(), written: 0 }));
    (Coalesced(gathering.clone()), Flusher(gathering))
}

fn lock<T>(gathering: &Mutex<Gathering<T>>) -> MutexGuard<'_, Gathering<T>> {
    gathering.lock().expect("one task holds both ends: no one panics in between and goes on")
}

impl<T: AsyncWrite + Unpin> Gathering<T> {
    /// Writes all that was gathered.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.buffer.len() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, &self.buffer[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.buffer.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Makes room for `wanted` bytes, in all at most [`BUFFER_BYTES`].
    fn reserve(&mut self, wanted: usize) {
        let length = self.buffer.len() + wanted;
        if length > self.buffer.capacity() {
            let room = ROOMS_BYTES.into_iter().find(|room| length <= *room).unwrap_or(length);
            self.buffer.reserve_exact(room - self.buffer.len());
        }
    }
}

impl<T: AsyncWrite + Unpin> Flusher<T> {
    /// Writes what the turn gathered. Pending until the peer takes more.
    pub(super) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = lock(&self.0);
        ready!(gathering.poll_drain(context))?;
        if gathering.buffer.capacity() > IDLE_BYTES {
            gathering.buffer = Vec::new();
        }
        Pin::new(&mut gathering.stream).poll_flush(context)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Coalesced<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Coalesced<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathering = lock(&self.0);
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        if gathering.buffer.len() + wanted > BUFFER_BYTES {
            ready!(gathering.poll_drain(context))?;
        }
        if wanted > BUFFER_BYTES {
            return Pin::new(&mut gathering.stream).poll_write_vectored(context, slices);
        }
        gathering.reserve(wanted);
        slices.iter().for_each(|slice| gathering.buffer.extend_from_slice(slice));
        Poll::Ready(Ok(wanted))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = lock(&self.0);
        ready!(gathering.poll_drain(context))?;
        Pin::new(&mut gathering.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn nothing_leaves_before_the_turn_ends_and_then_all_does() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut stream, flusher) = coalesced(near);
        for part in [b"one ".as_slice(), b"two ", b"three"] {
            stream.write_all(part).await.expect("gathered");
            stream.flush().await.expect("without effect");
        }
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut bytes = [0; 32];
        let mut buffer = ReadBuf::new(&mut bytes);
        assert!(Pin::new(&mut far).poll_read(&mut context, &mut buffer).is_pending());
        assert!(flusher.poll_flush(&mut context).is_ready());
        let count = far.read(&mut bytes).await.expect("read");
        assert_eq!(&bytes[..count], b"one two three");
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_bounds_what_is_gathered() {
        let (near, mut far) = tokio::io::duplex(1000);
        let (mut stream, _flusher) = coalesced(near);
        let mut context = Context::from_waker(std::task::Waker::noop());
        let chunk = [7; 16 << 10];
        let mut taken = 0;
        while let Poll::Ready(count) = Pin::new(&mut stream).poll_write(&mut context, &chunk) {
            taken += count.expect("written");
            assert!(taken <= BUFFER_BYTES + 1000, "gathered {taken} bytes");
        }
        let expected = taken;
        let writer = tokio::spawn(async move { stream.shutdown().await });
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.expect("read");
        assert_eq!(all.len(), expected);
        writer.await.expect("joined").expect("shut down");
    }
}
