//! One connection, from its first byte to its last.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower_service::Service;
use tracing::{debug, warn};

use super::accept::{Endpoint, ListenOptions};
use super::call::Part;
use super::common_name::common_name;
use super::http2::Http2;
use super::limit::{GivenAway, Place};
use super::remote_address::{self, SystemNames};
use super::request_body::RequestBody;
use super::request_room::RequestRoom;
use super::takeover::{Noting, Slot, Upgraded};
use super::tls::Tls;
use super::transport::{Protocol, Sniffed, Socket, Transport};
use super::unread::Unread;
use crate::logging::{ForeignText, Reminder};

/// What HTTP/1.1 buffers of a connection.
const HTTP1_BUFFER_BYTES: usize = 64 << 10;
/// What a client may be too slow with.
const TLS_HANDSHAKE: &str = "TLS handshake";
const FIRST_BYTES: &str = "first bytes";

/// Lines about connections that were rejected, in ten seconds at each kind of port.
const REJECTED_LINES: u64 = 10;
static REJECTED_CLIENTS: Reminder = Reminder::new(REJECTED_LINES);
static REJECTED_PEERS: Reminder = Reminder::new(REJECTED_LINES);

/// Who asks: stands in the extensions of every request.
#[derive(Clone, Debug)]
pub struct ClientConnection {
    /// Address of the client; `None` over a Unix socket.
    pub remote_address: Option<SocketAddr>,
    /// The address that it connected to; `None` over a Unix socket.
    pub local_address: Option<SocketAddr>,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Common name of the verified client certificate, if `client-cert-auth` is on and it has one that is not empty.
    pub common_name: Option<Arc<str>>,
    /// Room for what is kept of its requests while they come.
    pub request_room: RequestRoom,
    /// Whether this request has its place among the open calls already.
    pub has_place: bool,
}

/// A connection that is ready for requests; in boxes, for it waits among what is kept as long as it lives.
enum Opened<S, B>
where
    S: Service<Request<RequestBody>>,
    B: Body,
{
    Http1(Box<(Sniffed, WithClient<S>)>),
    /// Or it speaks HTTP/2 no further than its first bytes.
    Http2(Result<Box<Http2<WithClient<S>, B>>, BoxError>),
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

/// Serves one accepted socket until it ends, or until `shutdown` says stop and the calls under way are done. It has its place
/// among the connections until then.
///
/// No `async fn`: that would keep room for what it is given, which is needed until the connection is open and never after.
pub(super) fn serve<S, B>(
    socket: Socket,
    remote_address: Option<SocketAddr>,
    tls: Option<Arc<Tls>>,
    options: Arc<ListenOptions>,
    service: S,
    mut shutdown: watch::Receiver<bool>,
    (place, given_away): (Place, GivenAway),
) -> impl Future<Output = ()> + Send
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Unpin + 'static,
    S::Future: Send + Unpin + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + Unpin + 'static,
    B::Data: Part + Send + Unpin,
    B::Error: Into<BoxError>,
{
    // Boxed, as is what follows: else an idle connection keeps the room that its handshake needed.
    let opening = begin(socket, remote_address, tls, Arc::clone(&options), service, place);
    let opening = Box::pin(async move {
        let mut opening = pin!(opening);
        tokio::select! {
            biased;
            Ok(()) = given_away => None,
            opened = &mut opening => opened,
        }
    });
    async move {
        let opened = tokio::select! {
            biased;
            () = stopped(&mut shutdown) => return,
            opened = opening => opened,
        };
        // Another has its place.
        let Some((opened, permit)) = opened else { return };
        let served = match opened {
            Ok(Opened::Http1(opened)) => {
                let (stream, service) = *opened;
                Box::pin(serve_http1(stream, &options, service, &mut shutdown)).await
            }
            Ok(Opened::Http2(Ok(connection))) => serve_http2(connection, &options, &mut shutdown).await,
            Ok(Opened::Http2(Err(error))) => Err(error),
            Err(rejected) => {
                options.cut_total.with_label_values(&[rejected.label()]).inc();
                return log_rejected(options.endpoint, remote_address, rejected);
            }
        };
        if let Err(error) = served {
            debug!(remote_addr = remote_text(remote_address), %error, "connection failed");
        }
        drop(permit);
    }
}

async fn serve_http1<S, B>(
    stream: Sniffed,
    options: &ListenOptions,
    service: WithClient<S>,
    shutdown: &mut watch::Receiver<bool>,
) -> Result<(), BoxError>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Unpin + 'static,
    S::Future: Unpin + 'static,
    S::Error: Into<BoxError>,
    B: Body + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(options.deadlines.first_bytes)
        .max_buf_size(HTTP1_BUFFER_BYTES);
    let slot = Slot::default();
    let stream = Unread::new(stream, options.deadlines.unread);
    let noting = Noting::new(service, slot.clone(), stream.hurry());
    let mut connection = builder.serve_connection(TokioIo::new(stream), noting);
    let ended = tokio::select! {
        biased;
        served = poll_fn(|context| connection.poll_without_shutdown(context)) => Some(served),
        () = stopped(shutdown) => None,
    };
    match ended {
        Some(served) => served?,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|context| connection.poll_without_shutdown(context)).await?;
        }
    }
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    match slot.take() {
        Some(takeover) => takeover.run(Upgraded::new(parts.read_buf, stream, options.keepalive)).await,
        None => stream.shutdown().await?,
    }
    Ok(())
}

async fn serve_http2<S, B>(
    mut connection: Box<Http2<WithClient<S>, B>>,
    options: &ListenOptions,
    shutdown: &mut watch::Receiver<bool>,
) -> Result<(), BoxError>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Unpin,
    S::Future: Unpin,
    B: Body + Unpin,
    B::Data: Part + Unpin,
{
    let ended = tokio::select! {
        biased;
        served = &mut connection => Some(served),
        () = stopped(shutdown) => None,
    };
    let served = match ended {
        Some(served) => served,
        None => {
            connection.graceful_shutdown();
            (&mut connection).await
        }
    };
    if served.is_err()
        // What it reads at the end is no part of what is kept.
        && let Some(verdict) = Box::pin(connection.end().close()).await
    {
        options.cut_total.with_label_values(&[verdict.text()]).inc();
    }
    served
}

/// Returns once the process is to stop; also if nobody is left who could say so.
pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// All that comes before the first request, and the place that is kept until the last; `None` if another has it.
async fn begin<S, B>(
    socket: Socket,
    remote_address: Option<SocketAddr>,
    tls: Option<Arc<Tls>>,
    options: Arc<ListenOptions>,
    service: S,
    mut place: Place,
) -> Option<(Result<Opened<S, B>, Rejected>, OwnedSemaphorePermit)>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Unpin,
    S::Future: Unpin,
    B: Body + Unpin,
    B::Data: Part + Unpin,
{
    let opened = open(socket, remote_address, tls, &options, &mut place).await;
    if !place.keep() {
        return None;
    }
    let opened = match opened {
        Ok((stream, protocol, client)) => {
            let service = WithClient { client, service };
            Ok(match protocol {
                Protocol::Http1 => Opened::Http1(Box::new((stream, service))),
                Protocol::Http2 => Opened::Http2(Http2::open(stream, &options, service).await.map(Box::new)),
            })
        }
        Err(rejected) => Err(rejected),
    };
    Some((opened, place.into_permit()?))
}

/// Handshake and first bytes, each within its deadline. Whose certificate was verified keeps its place from there on.
async fn open(
    socket: Socket,
    remote_address: Option<SocketAddr>,
    tls: Option<Arc<Tls>>,
    options: &ListenOptions,
    place: &mut Place,
) -> Result<(Sniffed, Protocol, ClientConnection), Rejected> {
    let deadlines = options.deadlines;
    let mut client = ClientConnection {
        remote_address,
        local_address: socket.local_address(),
        tls: tls.is_some(),
        common_name: None,
        request_room: options.request_rooms.of_connection(),
        has_place: false,
    };
    let transport = match tls {
        None => Transport::Plain(socket),
        Some(tls) => {
            let acceptor = TlsAcceptor::from(tls.server_config(Instant::now()));
            let shaken = timeout(deadlines.handshake, options.handshakes.run(acceptor.accept(socket))).await;
            let stream = shaken.map_err(|_| Rejected::Late(TLS_HANDSHAKE))?.map_err(Rejected::from)?;
            // Asked for only where they are verified.
            if stream.get_ref().1.peer_certificates().is_some() {
                place.keep();
            }
            if let (true, Some(remote)) = (tls.checks_addresses(), remote_address) {
                let checked = timeout(deadlines.handshake, check_address(stream.get_ref().1, remote)).await;
                let refused = |why| Rejected::Failed(io::Error::other(why));
                checked.map_err(|_| Rejected::Late("answer of DNS"))?.map_err(refused)?;
            }
            if tls.reports_common_name() {
                client.common_name = common_name_of(stream.get_ref().1);
            }
            Transport::Tls(Box::new(stream))
        }
    };
    let sniffed = timeout(deadlines.first_bytes, Sniffed::read_protocol(transport)).await;
    let (stream, protocol) = sniffed.map_err(|_| Rejected::Late(FIRST_BYTES))?.map_err(Rejected::from)?;
    Ok((stream, protocol, client))
}

/// Whether the client's certificate, if it has one, may be shown from there.
async fn check_address(session: &rustls::ServerConnection, remote: SocketAddr) -> Result<(), String> {
    match session.peer_certificates().and_then(|shown| shown.first()) {
        Some(certificate) => remote_address::check(certificate, remote.ip(), &SystemNames).await,
        None => Ok(()),
    }
}

impl Rejected {
    /// Under which it is counted.
    fn label(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Late(_) => "late",
            Self::Failed(_) => "failed",
        }
    }
}

impl From<io::Error> for Rejected {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Gone,
            _ => Self::Failed(error),
        }
    }
}

fn log_rejected(endpoint: Endpoint, remote_address: Option<SocketAddr>, rejected: Rejected) {
    let remote_addr = remote_text(remote_address);
    let (text, reminder) = match endpoint {
        Endpoint::Client => ("rejected connection on client endpoint", &REJECTED_CLIENTS),
        Endpoint::Peer => ("rejected connection on peer endpoint", &REJECTED_PEERS),
    };
    let error = match rejected {
        Rejected::Gone => return debug!(remote_addr, error = "EOF", "{text}"),
        Rejected::Late(what) => format!("no {what} in time"),
        // It may hold names of a certificate.
        Rejected::Failed(error) => ForeignText(error).to_string(),
    };
    if let Some(times) = reminder.due() {
        warn!(remote_addr, error, times, "{text}");
    }
}

fn remote_text(remote_address: Option<SocketAddr>) -> String {
    remote_address.map_or_else(|| "unix".to_owned(), |address| address.to_string())
}

/// Of the client's certificate, which was verified in the handshake.
fn common_name_of(session: &rustls::ServerConnection) -> Option<Arc<str>> {
    let name = common_name(session.peer_certificates()?.first()?)?;
    Some(name).filter(|name| !name.is_empty()).map(Arc::from)
}

/// Adds the [`ClientConnection`] to each request.
#[derive(Clone, Debug)]
struct WithClient<S> {
    client: ClientConnection,
    service: S,
}

impl<S: Service<Request<RequestBody>>> Service<Request<RequestBody>> for WithClient<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        request.extensions_mut().insert(self.client.clone());
        self.service.call(request)
    }
}

/// As hyper gives requests.
impl<S: Service<Request<RequestBody>>> Service<Request<Incoming>> for WithClient<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        self.call(request.map(RequestBody::Http1))
    }
}
