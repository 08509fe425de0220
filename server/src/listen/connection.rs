//! One connection, from its first byte to its last.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower_service::Service;
use tracing::{debug, warn};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::accept::{Deadlines, ListenOptions};
use super::tls::Tls;
use super::transport::{Protocol, Sniffed, Socket, Transport};

/// All headers of a request.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// What HTTP/1.1 buffers of a connection.
const HTTP1_BUFFER_BYTES: usize = 64 << 10;
/// What a client may send before we read it, for a call and for all of a connection. Requests are small; this lets the
/// largest of 1.5 MiB through in two round trips.
const WINDOW_BYTES: u32 = 1 << 20;
/// What one call may have waiting to be sent.
const SEND_BUFFER_BYTES: usize = 400 << 10;
/// Calls that were reset before we saw them (rapid reset, CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 20;
/// Calls that we reset for errors of the client.
const LOCAL_RESETS_MAX: usize = 1024;

/// A timeout that never comes; a longer one would overflow the clock.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Who asks: stands in the extensions of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConnection {
    /// Address of the client; `None` over a Unix socket.
    pub remote_address: Option<SocketAddr>,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Common name of the verified client certificate, if `client-cert-auth` is on and it has one that is not empty.
    pub common_name: Option<Arc<str>>,
}

/// A connection that ended before it could be served.
enum Rejected {
    /// The peer went away, as port scanners and TCP health checks do.
    Gone,
    /// It was too slow.
    Late(&'static str),
    /// It failed.
    Failed(io::Error),
}

/// What a service must be to be served here.
pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// Serves one accepted socket until it ends, or until `shutdown` says stop and the calls under way are done.
pub(super) async fn serve<S, B>(
    socket: Socket,
    remote_address: Option<SocketAddr>,
    tls: Option<Arc<Tls>>,
    options: ListenOptions,
    service: S,
    mut shutdown: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let opened = tokio::select! {
        biased;
        () = stopped(&mut shutdown) => return,
        opened = open(socket, remote_address, tls, options.deadlines) => opened,
    };
    let (stream, protocol, client) = match opened {
        Ok(opened) => opened,
        Err(rejected) => return log_rejected(remote_address, rejected),
    };
    let builder = http_builder(&options, protocol);
    let service = TowerToHyperService::new(WithClient { client, service });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        biased;
        served = connection.as_mut() => served,
        () = stopped(&mut shutdown) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        debug!(remote_addr = remote_text(remote_address), %error, "connection failed");
    }
}

/// Returns once the process is to stop; also if nobody is left who could say so.
pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Handshake and first bytes, each within its deadline.
async fn open(
    socket: Socket,
    remote_address: Option<SocketAddr>,
    tls: Option<Arc<Tls>>,
    deadlines: Deadlines,
) -> Result<(Sniffed, Protocol, ClientConnection), Rejected> {
    let mut client = ClientConnection { remote_address, tls: tls.is_some(), common_name: None };
    let transport = match tls {
        None => Transport::Plain(socket),
        Some(tls) => {
            let acceptor = TlsAcceptor::from(tls.server_config(Instant::now()));
            let shaken = timeout(deadlines.handshake, acceptor.accept(socket)).await;
            let stream = shaken.map_err(|_| Rejected::Late("TLS handshake"))?.map_err(Rejected::from)?;
            if tls.reports_common_name() {
                client.common_name = common_name(stream.get_ref().1);
            }
            Transport::Tls(Box::new(stream))
        }
    };
    let sniffed = timeout(deadlines.first_bytes, Sniffed::read_protocol(transport)).await;
    let (stream, protocol) = sniffed.map_err(|_| Rejected::Late("first bytes"))?.map_err(Rejected::from)?;
    Ok((stream, protocol, client))
}

impl From<io::Error> for Rejected {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Gone,
            _ => Self::Failed(error),
        }
    }
}

fn log_rejected(remote_address: Option<SocketAddr>, rejected: Rejected) {
    let remote_addr = remote_text(remote_address);
    match rejected {
        Rejected::Gone => debug!(remote_addr, error = "EOF", "rejected connection on client endpoint"),
        Rejected::Late(what) => {
            warn!(remote_addr, error = format!("no {what} in time"), "rejected connection on client endpoint");
        }
        Rejected::Failed(error) => warn!(remote_addr, %error, "rejected connection on client endpoint"),
    }
}

fn remote_text(remote_address: Option<SocketAddr>) -> String {
    remote_address.map_or_else(|| "unix".to_owned(), |address| address.to_string())
}

/// The last common name of the client's certificate, as Go takes it. It was verified in the handshake.
fn common_name(session: &rustls::ServerConnection) -> Option<Arc<str>> {
    let certificate = session.peer_certificates()?.first()?;
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().last()?.as_str().ok()?;
    Some(name).filter(|name| !name.is_empty()).map(Arc::from)
}

fn http_builder(options: &ListenOptions, protocol: Protocol) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    match protocol {
        Protocol::Http1 => {
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(options.deadlines.first_bytes)
                .max_buf_size(HTTP1_BUFFER_BYTES);
            builder.http1_only()
        }
        Protocol::Http2 => {
            let keepalive = options.keepalive;
            builder
                .http2()
                .timer(TokioTimer::new())
                .max_concurrent_streams(options.concurrent_streams_max)
                .max_header_list_size(HEADER_BYTES_MAX)
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES)
                .max_send_buf_size(SEND_BUFFER_BYTES)
                .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
                .max_local_error_reset_streams(LOCAL_RESETS_MAX)
                .keep_alive_interval(keepalive.server_interval)
                .keep_alive_timeout(keepalive.server_timeout.unwrap_or(FOREVER));
            builder.http2_only()
        }
    }
}

/// Adds the [`ClientConnection`] to each request.
#[derive(Clone, Debug)]
struct WithClient<S> {
    client: ClientConnection,
    service: S,
}

impl<S, T> Service<Request<T>> for WithClient<S>
where
    S: Service<Request<T>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<T>) -> Self::Future {
        request.extensions_mut().insert(self.client.clone());
        self.service.call(request)
    }
}
