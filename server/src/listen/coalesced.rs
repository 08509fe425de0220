//! The byte stream of a connection in turns: writes of one are joined, reads of one are bounded.
//!
//! `h2` writes a frame of data by itself as soon as it is larger than some hundred bytes, so that ten answers to ten
//! calls that arrived together would be ten system calls or more. Here they gather until the connection has nothing
//! more to say for now, and leave in one. And `h2` reads as long as there is something to read, so that one client with
//! much to say would keep a thread from all others: here it is told that there is no more, and has its next turn behind
//! theirs. All that passes is shown to the [`Guard`].

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::guard::{Guard, Verdict};

/// Gathered up to here, then written even amid a turn: seven of the largest frames that clients take, each of 16 KiB and a
/// head. The kernel takes this much at once, and it stays in cache.
const BUFFER_BYTES: usize = 7 * ((16 << 10) + 9);

/// Sizes of the buffer: of small frames, of one of the largest, and of as many as come.
const ROOMS_BYTES: [usize; 3] = [4 << 10, BUFFER_BYTES.div_ceil(4), BUFFER_BYTES];

/// Read in one turn, as [`Guard`] counts: some two hundred calls. What they take is bounded by [`super::turn`].
const TURN_BYTES: usize = 64 << 10;
/// The same behind a turn that was too long for what had been read before: some calls, fewer than it took, that what waits does
/// not grow; or ten pings, resets or windows, that these are heard however much there is to do.
const BUSY_TURN_BYTES: usize = 256;

/// How long a client that is sent away may take to hear why.
const FAREWELL_MAX: Duration = Duration::from_millis(500);
/// What it may still say meanwhile, and how much of that is taken at once. A socket that is closed with bytes unread takes
/// back what was sent on it.
const UNHEARD_BYTES_MAX: usize = 1 << 20;
const UNHEARD_BYTES: usize = 1 << 10;

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
    guard: Guard,
    /// What may still be read in this turn.
    turn_bytes: usize,
}

/// Joins the writes on `stream`, and has `guard` see all that passes.
pub(super) fn coalesced<T>(stream: T, guard: Guard) -> (Coalesced<T>, Flusher<T>) {
    let gathering = Gathering { stream, buffer: Vec::new(), written: 0, guard, turn_bytes: TURN_BYTES };
    let gathering = Arc::new(Mutex::new(gathering));
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

impl<T: AsyncRead + AsyncWrite + Unpin> Flusher<T> {
    /// Ends a turn. Little is read in the next if this one `was_cut`. `has_calls` is whether a call is open, asked only if it
    /// matters.
    ///
    /// # Errors
    /// The client is to be sent away.
    pub(super) fn end_turn(&self, was_cut: bool, has_calls: impl FnOnce() -> bool) -> Result<(), Verdict> {
        let mut gathering = lock(&self.0);
        gathering.turn_bytes = if was_cut { BUSY_TURN_BYTES } else { TURN_BYTES };
        gathering.guard.end_turn(has_calls).map_or(Ok(()), Err)
    }

    /// Writes what the turn gathered. Pending until the peer takes more.
    pub(super) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = lock(&self.0);
        ready!(gathering.poll_drain(context))?;
        // Allocated anew costs a hundredth of the write, and ten thousand connections that idle keep nothing.
        gathering.buffer = Vec::new();
        Pin::new(&mut gathering.stream).poll_flush(context)
    }

    /// Closes a connection that `h2` holds no more: says what is left to say and why there is no more, and waits a moment
    /// until the client has heard it. Gives the reason if it was sent away.
    pub(super) async fn close(self) -> Option<Verdict> {
        let gathering = Arc::into_inner(self.0)?.into_inner().ok()?;
        let Gathering { mut stream, mut buffer, written, mut guard, .. } = gathering;
        buffer.extend(guard.farewell().unwrap_or_default());
        let parting = async {
            stream.write_all(&buffer[written..]).await?;
            stream.shutdown().await?;
            let (mut unheard, mut heard) = ([0; UNHEARD_BYTES], 0);
            while heard < UNHEARD_BYTES_MAX {
                match stream.read(&mut unheard).await? {
                    0 => break,
                    count => heard += count,
                }
            }
            Ok::<_, io::Error>(())
        };
        // Whether it hears it is its affair: the connection is over.
        let _ = timeout(FAREWELL_MAX, parting).await;
        guard.end_turn(|| true)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Coalesced<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut gathering = lock(&self.0);
        let Gathering { stream, guard, turn_bytes, .. } = &mut *gathering;
        if *turn_bytes == 0 {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let known = buffer.filled().len();
        if buffer.remaining() <= *turn_bytes {
            ready!(Pin::new(stream).poll_read(context, buffer))?;
        } else {
            // Into the same room, no more than the turn has left.
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(*turn_bytes));
            ready!(Pin::new(stream).poll_read(context, &mut part))?;
            let count = part.filled().len();
            buffer.advance(count);
        }
        let bytes = &buffer.filled()[known..];
        Poll::Ready(match guard.read(bytes, Instant::now) {
            Some(weight) => {
                *turn_bytes = turn_bytes.saturating_sub(weight);
                Ok(())
            }
            // `h2` gives up the connection; who drives it asks for the reason.
            None => {
                buffer.set_filled(known);
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        })
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
        let taken = if wanted > BUFFER_BYTES {
            ready!(Pin::new(&mut gathering.stream).poll_write_vectored(context, slices))?
        } else {
            gathering.reserve(wanted);
            slices.iter().for_each(|slice| gathering.buffer.extend_from_slice(slice));
            wanted
        };
        let mut left = taken;
        for slice in slices {
            let (said, _) = slice.split_at(left.min(slice.len()));
            left -= said.len();
            gathering.guard.wrote(said);
        }
        Poll::Ready(Ok(taken))
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
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Wake, Waker};

    use super::super::frame_heads::FrameHead;
    use super::*;

    /// Whether the task was woken.
    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    fn guard() -> Guard {
        Guard::new(0, None, Instant::now())
    }

    #[tokio::test]
    async fn nothing_leaves_before_the_turn_ends_and_then_all_does() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut stream, flusher) = coalesced(near, guard());
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
        let (mut stream, _flusher) = coalesced(near, guard());
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

    #[tokio::test]
    async fn a_turn_reads_so_much_and_the_rest_is_read_in_the_next() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut stream, flusher) = coalesced(near, guard());
        // One frame of data, too long for one turn.
        far.write_all(&[&[3, 0, 0, 0, 0, 0, 0, 0, 1], &*vec![7; 3 << 16]].concat()).await.expect("sent");
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        let mut bytes = vec![0; 10_000];
        let mut turns = vec![0];
        while turns.iter().sum::<usize>() < (3 << 16) + 9 {
            let mut buffer = ReadBuf::new(&mut bytes);
            if Pin::new(&mut stream).poll_read(&mut context, &mut buffer).is_ready() {
                *turns.last_mut().expect("a turn") += buffer.filled().len();
            } else {
                assert!(woken.0.swap(false, Ordering::SeqCst), "nobody comes back");
                flusher.end_turn(false, || true).expect("nothing is wrong");
                turns.push(0);
            }
        }
        assert_eq!(turns, [65_536, 65_536, 65_536, 9]);
    }

    #[tokio::test]
    async fn behind_a_turn_that_was_too_long_little_is_read() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut stream, flusher) = coalesced(near, guard());
        far.write_all(&[&[3, 0, 0, 0, 0, 0, 0, 0, 1], &*vec![7; 3 << 16]].concat()).await.expect("sent");
        let mut context = Context::from_waker(Waker::noop());
        for (was_cut, expected) in [(true, 256), (true, 256), (false, 65_536), (true, 256)] {
            flusher.end_turn(was_cut, || true).expect("nothing is wrong");
            let (mut bytes, mut taken) = (vec![0; 10_000], 0);
            loop {
                let mut buffer = ReadBuf::new(&mut bytes);
                if Pin::new(&mut stream).poll_read(&mut context, &mut buffer).is_pending() {
                    break;
                }
                assert!(buffer.filled().iter().skip(9).all(|byte| *byte == 7));
                taken += buffer.filled().len();
            }
            assert_eq!(taken, expected);
        }
    }

    #[tokio::test]
    async fn who_is_sent_away_hears_why_behind_all_that_was_said() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut stream, flusher) = coalesced(near, guard());
        let ping = FrameHead::frame(FrameHead::PING, &[7; 8]);
        stream.write_all(&ping).await.expect("gathered");
        far.write_all(&ping.repeat(6_000)).await.expect("sent");
        let mut bytes = vec![0; 1 << 20];
        while stream.read(&mut bytes).await.is_ok() {
            _ = flusher.end_turn(false, || true);
        }
        drop(stream);
        let closed = tokio::spawn(flusher.close());
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.expect("an end");
        assert!(heard.starts_with(&ping) && heard.ends_with(b"too_many_control_frames"), "{heard:?}");
        drop(far);
        assert_eq!(closed.await.expect("joined"), Some(Verdict::TooManyControlFrames));
    }
}
