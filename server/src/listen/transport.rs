//! The byte stream of one connection, whatever carries it, and the look at its first bytes.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// What every HTTP/2 client sends first (RFC 9113, 3.4).
pub(super) const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An accepted socket.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// The address that the client connected to; `None` for a Unix socket.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

/// An accepted socket, with TLS or without. An enum, so that HTTP is compiled once and not per carrier.
#[derive(Debug)]
pub(super) enum Transport {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// A [`Transport`] whose first bytes were looked at; they are read again from here.
#[derive(Debug)]
pub(super) struct Sniffed {
    first: [u8; HTTP2_PREFACE.len()],
    start: usize,
    end: usize,
    transport: Transport,
}

impl Sniffed {
    /// Reads until it is clear what the client speaks: all of the preface, or the first byte that differs.
    ///
    /// # Errors
    /// The connection fails or ends before.
    pub(super) async fn read_protocol(mut transport: Transport) -> io::Result<(Self, Protocol)> {
        let mut first = [0; HTTP2_PREFACE.len()];
        let mut end = 0;
        while end < first.len() && first[..end] == HTTP2_PREFACE[..end] {
            let count = transport.read(&mut first[end..]).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            end += count;
        }
        let protocol = if first == *HTTP2_PREFACE { Protocol::Http2 } else { Protocol::Http1 };
        Ok((Self { first, start: 0, end, transport }, protocol))
    }
}

impl AsyncRead for Sniffed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.start < this.end {
            let count = buffer.remaining().min(this.end - this.start);
            buffer.put_slice(&this.first[this.start..this.start + count]);
            this.start += count;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.transport).poll_read(context, buffer)
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

/// Writes go straight through; vectored writes too, for HTTP/2 sends headers and body in one call.
macro_rules! forward_writes {
    ($type:ty, $this:ident => $inner:expr) => {
        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                let $this = self.get_mut();
                $inner.poll_write(context, bytes)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                let $this = self.get_mut();
                $inner.poll_write_vectored(context, slices)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                let $this = self.get_mut();
                $inner.poll_flush(context)
            }

            fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                let $this = self.get_mut();
                $inner.poll_shutdown(context)
            }
        }
    };
}

forward_writes!(Sniffed, this => Pin::new(&mut this.transport));
forward_writes!(Transport, this => this.writer());
forward_writes!(Socket, this => this.writer());

impl Transport {
    fn writer(&mut self) -> Pin<&mut Writer> {
        match self {
            Self::Plain(socket) => Pin::new(socket as &mut Writer),
            Self::Tls(stream) => Pin::new(stream.as_mut() as &mut Writer),
        }
    }
}

impl Socket {
    fn writer(&mut self) -> Pin<&mut Writer> {
        match self {
            Self::Tcp(stream) => Pin::new(stream as &mut Writer),
            Self::Unix(stream) => Pin::new(stream as &mut Writer),
        }
    }
}

/// The write half of whatever it is.
type Writer = dyn AsyncWrite + Send + Unpin;
