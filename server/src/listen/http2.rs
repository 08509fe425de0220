//! One connection of HTTP/2: calls in, answers out, all on the one task of the connection.
//!
//! `hyper` gives each call a task of its own; a call then costs two or three wake-ups across threads, and each answer a
//! write. Here a call is a future among those of its connection: what arrives together is answered together, and leaves
//! in one write ([`super::coalesced`]). The price: calls of one connection share a core.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream};
use h2::server::Connection;
use h2::{Ping, PingPong};
use http::{Request, Response};
use http_body::Body;
use tokio::time::{Instant, Sleep, sleep};
use tower_service::Service;

use super::accept::ListenOptions;
use super::call::{Call, Part};
use super::coalesced::{Coalesced, Flusher, coalesced};
use super::connection::BoxError;
use super::guard::Guard;
use super::request_body::RequestBody;
use super::transport::{HTTP2_PREFACE, Sniffed};
use super::turn;

/// All headers of a request.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// What a client may send before we read it, for a call and for all of a connection. Requests are small; this lets the
/// largest of 1.5 MiB through in two round trips.
const WINDOW_BYTES: u32 = 1 << 20;
/// What unread small DATA frames may cost by the count of `h2`: 256 bytes each, less their length. The window bounds what a
/// client may have on its way, and 5 bytes is the smallest message of gRPC: a client that sends without waiting, as
/// keepalives of many leases on one stream, may fill the window with such frames, each of which costs a place in the buffer
/// of `h2`. What `h2` allows by itself ends a connection after 2,200 of them.
const SMALL_FRAMES_BUDGET: usize = WINDOW_BYTES as usize / 5 * 256;
/// What one call may have waiting to be sent.
const SEND_BUFFER_BYTES: usize = 400 << 10;
/// Calls that were reset before we saw them (rapid reset, CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 20;
/// Calls that we reset for errors of the client.
const LOCAL_RESETS_MAX: usize = 1024;

/// A connection; a future that ends with it.
///
/// Each turn takes what arrived, lets calls go on, and then has everything written that they said. One that takes long is
/// ended, and goes on behind those of others.
pub(super) struct Http2<S, B>
where
    S: Service<Request<RequestBody>>,
    B: Body,
{
    connection: Connection<Coalesced<Sniffed>, B::Data>,
    flusher: Flusher<Sniffed>,
    service: S,
    calls: FuturesUnordered<Call<S::Future, B>>,
    keepalive: Option<Keepalive>,
    unread_max: Duration,
}

impl<S, B> Http2<S, B>
where
    S: Service<Request<RequestBody>, Response = Response<B>>,
    S::Future: Unpin,
    B: Body + Unpin,
    B::Data: Part + Unpin,
{
    /// Exchanges settings with a client whose preface was seen.
    ///
    /// # Errors
    /// The client does not speak HTTP/2 after all, or is gone.
    pub(super) async fn open(stream: Sniffed, options: &ListenOptions, service: S) -> Result<Self, BoxError> {
        let guard = Guard::new(HTTP2_PREFACE.len(), options.keepalive.client_interval_min, std::time::Instant::now());
        let (stream, flusher) = coalesced(stream, guard);
        let mut connection = h2::server::Builder::new()
            .max_concurrent_streams(options.concurrent_streams_max)
            .max_header_list_size(HEADER_BYTES_MAX)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .data_frame_budget(SMALL_FRAMES_BUDGET)
            .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
            .max_local_error_reset_streams(Some(LOCAL_RESETS_MAX))
            .handshake(stream)
            .await?;
        let pings = connection.ping_pong();
        let keepalive = options.keepalive;
        let keepalive = pings.zip(keepalive.server_interval).map(|(pings, interval)| Keepalive {
            pings,
            interval,
            timeout: keepalive.server_timeout,
            waits: false,
            timer: Box::pin(sleep(interval)),
        });
        let unread_max = options.deadlines.unread;
        Ok(Self { connection, flusher, service, calls: FuturesUnordered::new(), keepalive, unread_max })
    }

    /// Takes no more calls; those under way go on.
    pub(super) fn graceful_shutdown(&mut self) {
        self.connection.graceful_shutdown();
    }

    /// Ends what is left of a connection that is over; what is given back closes it.
    pub(super) fn end(self) -> Flusher<Sniffed> {
        self.flusher
    }

    /// Takes the calls that arrived, one at least, and makes frames of what calls said; gives how many were taken, `None` when
    /// the connection is over.
    ///
    /// # Errors
    /// The connection failed.
    fn accept(&mut self, context: &mut Context<'_>) -> Result<Option<usize>, BoxError> {
        let mut taken = 0;
        loop {
            match self.connection.poll_accept(context) {
                Poll::Ready(Some(accepted)) => {
                    let (request, respond) = accepted?;
                    let answer = self.service.call(request.map(RequestBody::Http2));
                    self.calls.push(Call::new(answer, respond, self.unread_max));
                    taken += 1;
                    turn::step();
                    if turn::is_over() {
                        return Ok(Some(taken));
                    }
                }
                Poll::Ready(None) => return Ok(None),
                Poll::Pending => return Ok(Some(taken)),
            }
        }
    }
}

impl<S, B> Future for Http2<S, B>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Unpin,
    S::Future: Unpin,
    B: Body + Unpin,
    B::Data: Part + Unpin,
{
    type Output = Result<(), BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut looks = 0;
        turn::begin();
        loop {
            match this.accept(context)? {
                None => return Poll::Ready(Ok(())),
                // This look made frames of what the calls said; but for the first, it brought none.
                Some(taken) if turn::is_over() || (taken == 0 && looks > 0) => break,
                Some(_) => looks += 1,
            }
            while !turn::is_over() && matches!(Pin::new(&mut this.calls).poll_next(context), Poll::Ready(Some(()))) {}
        }
        if turn::is_over() {
            context.waker().wake_by_ref();
        }
        if let Some(keepalive) = &mut this.keepalive
            && keepalive.poll_lost(context).is_ready()
        {
            return Poll::Ready(Err("no answer to a ping in time".into()));
        }
        if let Err(verdict) = this.flusher.end_turn(turn::is_over(), || this.connection.has_streams()) {
            return Poll::Ready(Err(verdict.text().into()));
        }
        match this.flusher.poll_flush(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }
}

/// Finds out whether the client is still there.
struct Keepalive {
    pings: PingPong,
    interval: Duration,
    /// How long an answer may take; for ever if `None`.
    timeout: Option<Duration>,
    /// Whether a ping waits for its answer.
    waits: bool,
    /// Until the next ping, or until its answer is late.
    timer: Pin<Box<Sleep>>,
}

impl Keepalive {
    /// Ready when the client did not answer in time.
    fn poll_lost(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waits && matches!(self.pings.poll_pong(context), Poll::Ready(Ok(_))) {
                self.waits = false;
                self.timer.as_mut().reset(Instant::now() + self.interval);
            }
            // A connection without answer for ever has no timer to look at.
            if (self.waits && self.timeout.is_none()) || self.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if self.waits {
                return Poll::Ready(());
            }
            // Fails only when the connection is over, which is seen elsewhere.
            self.waits = self.pings.send_ping(Ping::opaque()).is_ok();
            let next = if self.waits { self.timeout.unwrap_or(self.interval) } else { self.interval };
            self.timer.as_mut().reset(Instant::now() + next);
        }
    }
}
