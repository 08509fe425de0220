//! Connections to other members.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use basalt_proto::peer::peer_client::PeerClient;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use crate::config::{Url, UrlAddress};
use crate::listen::PeerTlsClient;

/// For the TCP connection and, again, the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection on which nothing comes back for twice this long is given up: a member that lost its network says nothing.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// What may be under way on a stream before the member takes it.
const WINDOW_BYTES: u32 = 4 << 20;

/// Opens connections, with the certificates that the operator gave.
#[derive(Clone)]
pub struct PeerConnector {
    tls: Option<Arc<PeerTlsClient>>,
}

impl PeerConnector {
    /// `tls` for URLs that begin with https.
    pub fn new(tls: Option<Arc<PeerTlsClient>>) -> Self {
        Self { tls }
    }

    /// A client over a new connection.
    ///
    /// # Errors
    /// In words for the log.
    pub async fn connect(&self, url: &str) -> Result<PeerClient<Channel>, String> {
        Ok(PeerClient::new(self.channel(url).await?))
    }

    /// A new connection, for whatever service.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn channel(&self, url: &str) -> Result<Channel, String> {
        let url = Url::parse(url)?;
        let UrlAddress::Tcp { host, port } = url.address() else {
            return Err("only TCP is spoken to members".to_owned());
        };
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let tls = if url.is_tls() {
            let tls = self
                .tls
                .clone()
                .ok_or("https needs certificates: --peer-cert-file and --peer-trusted-ca-file, or --cacert")?;
            Some((tls, host.clone()))
        } else {
            None
        };
        let target = format!("{bracketed}:{port}");
        let endpoint = Endpoint::from_shared(format!("http://{target}")).map_err(|error| error.to_string())?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT * 2)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_INTERVAL)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        endpoint.connect_with_connector(Dial { target, tls }).await.map_err(|error| words(&error))
    }
}

/// An error with its causes.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Opens one connection, whatever the URI says.
#[derive(Clone)]
struct Dial {
    target: String,
    tls: Option<(Arc<PeerTlsClient>, String)>,
}

/// A connection of either kind.
trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send {}
impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send> Stream for S {}

impl Service<Uri> for Dial {
    type Response = TokioIo<Pin<Box<dyn Stream>>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
            let tcp = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&dial.target)).await.map_err(late)??;
            tcp.set_nodelay(true)?;
            let Some((tls, host)) = dial.tls else { return Ok(TokioIo::new(Box::pin(tcp) as Pin<Box<dyn Stream>>)) };
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            let connector = TlsConnector::from(tls.client_config()?);
            let shaken = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(name, tcp)).await.map_err(late)??;
            Ok(TokioIo::new(Box::pin(shaken) as Pin<Box<dyn Stream>>))
        })
    }
}
