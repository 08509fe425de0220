//! Connections that leave HTTP: an answer with status 101 names who goes on with them, as websockets do.
//!
//! Whoever does runs on the connection's own task: it keeps its place among the connections, and the stop waits for it, and cuts
//! it, like any other.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_service::Service;

use super::pace::Hurry;
use super::transport::Sniffed;
use super::unread::Unread;
use crate::config::KeepaliveConfig;

type Going = Pin<Box<dyn Future<Output = ()> + Send>>;
type GoOn = Box<dyn FnOnce(Upgraded) -> Going + Send>;

/// Among the extensions of an answer with status 101 over HTTP/1.1: who goes on with its connection.
#[derive(Clone)]
pub struct Takeover(Arc<Mutex<Option<GoOn>>>);

impl Takeover {
    /// `go_on` has the connection until it ends.
    pub fn new<F>(go_on: impl FnOnce(Upgraded) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self(Arc::new(Mutex::new(Some(Box::new(|upgraded| Box::pin(go_on(upgraded)))))))
    }

    /// Goes on; nothing happens the second time.
    pub(super) async fn run(self, upgraded: Upgraded) {
        let go_on = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(go_on) = go_on {
            go_on(upgraded).await;
        }
    }
}

/// A connection behind its last answer of HTTP.
#[derive(Debug)]
pub struct Upgraded {
    /// What came before HTTP ended.
    early: Bytes,
    stream: Unread<Sniffed>,
    /// Where it is said that an answer begins.
    pub hurry: Hurry,
    /// When to ask whether the client is still there, as over HTTP/2.
    pub keepalive: KeepaliveConfig,
}

impl Upgraded {
    pub(super) fn new(early: Bytes, stream: Unread<Sniffed>, keepalive: KeepaliveConfig) -> Self {
        let hurry = stream.hurry();
        Self { early, stream, hurry, keepalive }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let count = this.early.len().min(buffer.remaining());
        buffer.put_slice(&this.early[..count]);
        this.early.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// Where the takeover of an answer is put, for whoever drives the connection.
#[derive(Clone, Default)]
pub(super) struct Slot(Arc<Mutex<Option<Takeover>>>);

impl Slot {
    pub(super) fn take(&self) -> Option<Takeover> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A service of HTTP/1.1 whose takeovers are noted, and how fast its answers have to be taken.
#[derive(Clone)]
pub(super) struct Noting<S> {
    service: S,
    slot: Slot,
    hurry: Hurry,
}

impl<S> Noting<S> {
    pub(super) fn new(service: S, slot: Slot, hurry: Hurry) -> Self {
        Self { service, slot, hurry }
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Noting<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone,
    S::Future: Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Noted<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // Services here are always ready: what they wait for they wait for in their answers.
        Noted { answer: self.service.clone().call(request), slot: self.slot.clone(), hurry: self.hurry.clone() }
    }
}

/// An answer that is looked at.
pub(super) struct Noted<F> {
    answer: F,
    slot: Slot,
    hurry: Hurry,
}

impl<F, B, E> Future for Noted<F>
where
    F: Future<Output = Result<Response<B>, E>> + Unpin,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let answered = std::task::ready!(Pin::new(&mut this.answer).poll(context));
        if let Ok(response) = &answered {
            this.hurry.begin(response);
            if let Some(takeover) = response.extensions().get::<Takeover>() {
                *this.slot.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(takeover.clone());
            }
        }
        Poll::Ready(answered)
    }
}
