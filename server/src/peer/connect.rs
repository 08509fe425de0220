//! Connections to other members.

use std::sync::Arc;
use std::time::Duration;

use basalt_proto::peer::peer_client::PeerClient;
use tonic::transport::{Channel, Endpoint};

use crate::config::{Url, UrlAddress};
use crate::listen::{ClientTls, Dial, PeerTlsClient};

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
        let tls: Option<Arc<dyn ClientTls>> = if url.is_tls() {
            let missing = "https needs certificates: --peer-cert-file and --peer-trusted-ca-file, or --cacert";
            Some(self.tls.clone().ok_or(missing)?)
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
        let dial = Dial::new(url.address().clone(), tls, CONNECT_TIMEOUT);
        dial.channel(endpoint).await
    }
}
