//! Connections to other members.

use std::sync::Arc;
use std::time::Duration;

use basalt_proto::peer::peer_client::PeerClient;
use tonic::transport::{Channel, Endpoint};

use crate::config::{PeerTimeouts, Url, UrlAddress};
use crate::listen::{ClientTls, Dial, PeerTlsClient};

/// For the TCP connection and, again, the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What may be under way on a stream before the member takes it.
const WINDOW_BYTES: u32 = 4 << 20;

/// How the other side is asked for a sign: a member that lost its network says nothing. Together they are the read timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerPings {
    /// Without a byte until it is asked.
    pub interval: Duration,
    /// How long it may take to answer.
    pub timeout: Duration,
}

impl PeerPings {
    /// Two fifths of the read timeout, and the rest.
    pub fn of(timeouts: PeerTimeouts) -> Self {
        let interval = timeouts.read / 5 * 2;
        Self { interval, timeout: timeouts.read - interval }
    }
}

/// Opens connections, with the certificates that the operator gave.
#[derive(Clone)]
pub struct PeerConnector {
    tls: Option<Arc<PeerTlsClient>>,
    timeouts: PeerTimeouts,
}

impl PeerConnector {
    /// `tls` for URLs that begin with https or unixs.
    pub fn new(tls: Option<Arc<PeerTlsClient>>, timeouts: PeerTimeouts) -> Self {
        Self { tls, timeouts }
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
        let tls: Option<Arc<dyn ClientTls>> = if url.is_tls() {
            let missing = "https needs certificates: --peer-cert-file and --peer-trusted-ca-file, or --cacert";
            Some(self.tls.clone().ok_or(missing)?)
        } else {
            None
        };
        let target = match url.address() {
            UrlAddress::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            UrlAddress::Tcp { host, port } => format!("{host}:{port}"),
            // A path is no authority; the call needs one, and the socket does not.
            UrlAddress::Unix { .. } => "localhost".to_owned(),
        };
        let endpoint = Endpoint::from_shared(format!("http://{target}")).map_err(|error| error.to_string())?;
        let pings = PeerPings::of(self.timeouts);
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT * 2)
            .http2_keep_alive_interval(pings.interval)
            .keep_alive_timeout(pings.timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let dial = Dial::new(url.address().clone(), tls, CONNECT_TIMEOUT).with_write_timeout(self.timeouts.write);
        dial.channel(endpoint).await
    }
}
