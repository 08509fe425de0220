//! The accept loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body::Body;
use prometheus::IntCounterVec;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower_service::Service;
use tracing::warn;

use super::bind::BoundSocket;
use super::call::Part;
use super::connection::{self, BoxError, stopped};
use super::error::ListenError;
use super::handshakes::Handshakes;
use super::limit::{Admitted, ConnectionLimit};
use super::request_body::RequestBody;
use super::request_room::RequestRooms;
use super::tls::Tls;
use super::transport::Socket;
use crate::config::{KeepaliveConfig, SocketConfig, Url};
use crate::logging::Reminder;

/// First pause after the operating system refused a connection for lack of descriptors or memory; then it doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long a client may be silent at the start, or take too little of what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// For the TLS handshake. Default 10 s, as in etcd.
    pub handshake: Duration,
    /// For showing what it speaks after that, and over HTTP/1.1 for the head of each request, so that an idle
    /// connection is closed too. Default 10 s.
    pub first_bytes: Duration,
    /// For the same where others wait for its place. Default 1 s: time for a handshake far away.
    pub silent: Duration,
    /// For taking a mebibyte of an answer that is ready, or all of it. Default 1 minute.
    pub unread: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            first_bytes: Duration::from_secs(10),
            silent: Duration::from_secs(1),
            unread: Duration::from_secs(60),
        }
    }
}

/// Whose port it is, in etcd's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// For clients.
    Client,
    /// For other members.
    Peer,
}

/// What all connections of a listener have in common.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Who is expected.
    pub endpoint: Endpoint,
    /// Options of the socket.
    pub socket: SocketConfig,
    /// Pings of HTTP/2.
    pub keepalive: KeepaliveConfig,
    /// Calls at a time on one connection.
    pub concurrent_streams_max: u32,
    /// Shared by all listeners of the process.
    pub connections: ConnectionLimit,
    /// Shared in the same way.
    pub handshakes: Handshakes,
    /// Shared in the same way.
    pub request_rooms: RequestRooms,
    /// For the first seconds of a connection.
    pub deadlines: Deadlines,
    /// How long what is sent over TCP may stay untaken; the system's rule if none is given.
    pub write_timeout: Option<Duration>,
    /// How long calls under way may take after the stop; what is left then is cut.
    pub shutdown_grace: Duration,
    /// Where connections that are cut are counted.
    pub cut_total: IntCounterVec,
}

/// An open port.
#[derive(Debug)]
pub struct Listener {
    url: Url,
    socket: BoundSocket,
    tls: Option<Arc<Tls>>,
    options: Arc<ListenOptions>,
}

impl Listener {
    /// Opens the port that `url` names; clients can connect from here on and wait for [`Listener::serve`]. `tls` is
    /// used for `https` and `unixs` only. To be called inside a runtime.
    ///
    /// # Errors
    /// [`ListenError`], naming the URL.
    pub fn bind(url: &Url, tls: Option<&Arc<Tls>>, options: ListenOptions) -> Result<Self, ListenError> {
        let tls = if url.is_tls() {
            Some(Arc::clone(tls.ok_or_else(|| ListenError::NoCertificate { url: url.clone() })?))
        } else {
            None
        };
        let socket = BoundSocket::open(url, options.socket, options.keepalive)?;
        Ok(Self { url: url.clone(), socket, tls, options: Arc::new(options) })
    }

    /// The URL it was opened with.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The address, with the port that was chosen for port 0; `None` for a Unix socket.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.socket.local_address()
    }

    /// Serves connections, each with a clone of `service`, until `shutdown` turns true or its sender is gone. Then it
    /// closes the port, lets calls under way end within the grace, and returns when no connection is left.
    pub async fn serve<S, B>(self, service: S, mut shutdown: watch::Receiver<bool>)
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Unpin + 'static,
        S::Future: Send + Unpin + 'static,
        S::Error: Into<BoxError>,
        B: Body + Send + Unpin + 'static,
        B::Data: Part + Send + Unpin,
        B::Error: Into<BoxError>,
    {
        let mut connections = JoinSet::new();
        let mut pause = Pause::default();
        loop {
            let accepted = tokio::select! {
                // Stop first; then make room; then take more.
                biased;
                () = stopped(&mut shutdown) => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.socket.accept() => accepted,
            };
            let wait = match accepted {
                Ok((socket, remote)) if self.limit_writes(&socket).is_ok() => {
                    let admitted = self.options.connections.admit(Instant::now(), self.options.deadlines.silent);
                    let (place, full) = match admitted {
                        Admitted::Free(place, given_away) => (Some((place, given_away)), None),
                        Admitted::Instead(place, given_away) => {
                            (Some((place, given_away)), Some(Full::SILENT_GIVE_WAY))
                        }
                        Admitted::Refused => (None, Some(Full::REFUSES)),
                    };
                    if let Some(place) = place {
                        let (tls, options) = (self.tls.clone(), Arc::clone(&self.options));
                        let (service, shutdown) = (service.clone(), shutdown.clone());
                        connections.spawn(connection::serve(socket, remote, tls, options, service, shutdown, place));
                        pause.over();
                    }
                    let Some(full) = full else { continue };
                    self.options.cut_total.with_label_values(&[full.label]).inc();
                    pause.full(&self.url, full.pause)
                }
                // It is gone already.
                Ok(_) => continue,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => pause.failed(&self.url, &error),
            };
            tokio::select! {
                biased;
                () = stopped(&mut shutdown) => break,
                () = sleep(wait) => {}
            }
        }
        drop(self.socket);
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(self.options.shutdown_grace, drained).await.is_err() {
            warn!(
                address = self.url.as_str(),
                connections = connections.len(),
                "calls did not end in time: cutting them off"
            );
            connections.shutdown().await;
        }
    }
}

impl Listener {
    fn limit_writes(&self, socket: &Socket) -> io::Result<()> {
        match (self.options.write_timeout, socket) {
            (Some(limit), Socket::Tcp(stream)) => limit_writes(stream, limit),
            _ => Ok(()),
        }
    }
}

/// Ends a connection with an error when what was sent is not taken for so long; 49 days at most.
pub(super) fn limit_writes(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(stream, milliseconds)?)
}

/// What a new connection meets where all places are taken.
#[derive(Clone, Copy, Debug)]
struct Full {
    /// Under which the connection that ends is counted.
    label: &'static str,
    /// Before the next accept, which bounds what a crowd costs.
    pause: Duration,
}

impl Full {
    /// At most 1,000 a second, a tenth of a core: whoever has something to say stands among those who wait to be accepted.
    const SILENT_GIVE_WAY: Self = Self { label: "silent", pause: Duration::from_millis(1) };
    /// At most 200 a second: nobody gains by more.
    const REFUSES: Self = Self { label: "limit", pause: Duration::from_millis(5) };
}

/// How long to wait before the next accept, and what was already said about it.
#[derive(Debug)]
struct Pause {
    last: Option<Duration>,
    full: Reminder,
    failures: Reminder,
}

impl Default for Pause {
    fn default() -> Self {
        Self { last: None, full: Reminder::new(1), failures: Reminder::new(1) }
    }
}

impl Pause {
    /// A connection was taken: the next failure is the first of its kind.
    fn over(&mut self) {
        self.last = None;
    }

    /// The limit is reached.
    fn full(&mut self, url: &Url, pause: Duration) -> Duration {
        if let Some(connections) = self.full.due() {
            warn!(
                %url,
                connections,
                "closing connections, silent ones first, else new ones: as many are open as RLIMIT_NOFILE allows less a reserve"
            );
        }
        pause
    }

    /// The operating system is out of something. The connection waits in the backlog, and an accept at once would
    /// fail again: without a pause the loop takes a whole core.
    fn failed(&mut self, url: &Url, error: &io::Error) -> Duration {
        if let Some(times) = self.failures.due() {
            warn!(%url, %error, times, "failed to accept a connection; trying again more slowly");
        }
        let next = self.last.map_or(BACKOFF_MIN, |last| (last * 2).min(BACKOFF_MAX));
        self.last = Some(next);
        next
    }
}

/// Whether accept failed for the connection that it would have returned, so that the next one may be well.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, InvalidInput, NotConnected,
    };
    // Socket options of a connection that is gone already fail with one of the last two.
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | InvalidInput | NotConnected
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second_and_end_with_success() {
        let url = Url::parse("http://localhost:1").expect("a URL");
        let mut pause = Pause::default();
        let error = io::Error::from_raw_os_error(24);
        let mut waits: Vec<_> = (0..9).map(|_| pause.failed(&url, &error).as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        pause.over();
        waits = vec![pause.failed(&url, &error).as_millis()];
        assert_eq!(waits, [10]);
        assert!(!is_of_one_connection(&error));
    }
}
