//! The side that connects: a TCP or Unix socket, with or without TLS, for a gRPC client.

use std::error::Error;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, SupportedProtocolVersion};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use super::accept::limit_writes;
use super::tls::read;
use crate::config::{self, UrlAddress};

/// What is shown and whom is trusted, asked anew for every connection: a rotation of certificates needs no restart.
pub trait ClientTls: Send + Sync {
    /// For the next connection.
    ///
    /// # Errors
    /// A file cannot be used, or nobody is trusted.
    fn client_config(&self) -> io::Result<Arc<ClientConfig>>;
}

/// A configuration that speaks HTTP/2, believes `verifier` and shows `identity`: a certificate's file and its key's, read now.
///
/// # Errors
/// A file cannot be used, or no version is left.
pub(super) fn client_config(
    provider: Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<&(PathBuf, PathBuf)>,
) -> io::Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut client = match identity {
        Some((cert_file, key_file)) => {
            let chain = read(cert_file, config::certificates).map_err(io::Error::other)?;
            let key = read(key_file, config::private_key).map_err(io::Error::other)?;
            builder.with_client_auth_cert(chain, key).map_err(io::Error::other)?
        }
        None => builder.with_no_client_auth(),
    };
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(client))
}

/// Connects to one address, whatever the URI of a call says.
#[derive(Clone)]
pub struct Dial {
    address: UrlAddress,
    tls: Option<Arc<dyn ClientTls>>,
    timeout: Duration,
    write_timeout: Option<Duration>,
}

/// A connection of any kind.
pub trait DialedStream: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> DialedStream for S {}

/// An open connection.
pub type Dialed = TokioIo<Pin<Box<dyn DialedStream>>>;

impl Dial {
    /// The socket may take `timeout`, and the TLS handshake as long again. The certificate must be good for the host; that of
    /// a Unix socket for the last part of its path, as with etcd's clients.
    pub fn new(address: UrlAddress, tls: Option<Arc<dyn ClientTls>>, timeout: Duration) -> Self {
        Self { address, tls, timeout, write_timeout: None }
    }

    /// Ends the connection when what is sent over TCP is not taken for so long.
    pub fn with_write_timeout(self, limit: Duration) -> Self {
        Self { write_timeout: Some(limit), ..self }
    }

    /// A channel over one such connection, with the settings of `endpoint`.
    ///
    /// # Errors
    /// In words for the log, with all causes: that of a connection says little by itself.
    pub async fn channel(self, endpoint: Endpoint) -> Result<Channel, String> {
        endpoint.connect_with_connector(self).await.map_err(|error| {
            let causes = std::iter::successors(error.source(), |cause: &&(dyn Error + 'static)| (*cause).source());
            causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
        })
    }

    async fn connect(self) -> io::Result<Dialed> {
        match &self.address {
            UrlAddress::Tcp { host, port } => {
                let tcp = self.in_time(TcpStream::connect((&**host, *port))).await?;
                tcp.set_nodelay(true)?;
                if let Some(limit) = self.write_timeout {
                    limit_writes(&tcp, limit)?;
                }
                self.secure(host, tcp).await
            }
            UrlAddress::Unix { path } => {
                let socket = self.in_time(UnixStream::connect(path)).await?;
                self.secure(path.rsplit('/').next().unwrap_or(path), socket).await
            }
        }
    }

    async fn secure<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        &self,
        name: &str,
        socket: S,
    ) -> io::Result<Dialed> {
        let Some(tls) = &self.tls else { return Ok(TokioIo::new(Box::pin(socket))) };
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(tls.client_config()?);
        Ok(TokioIo::new(Box::pin(self.in_time(connector.connect(name, socket)).await?)))
    }

    async fn in_time<T>(&self, made: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        timeout(self.timeout, made).await.map_err(late)?
    }
}

impl Service<Uri> for Dial {
    type Response = Dialed;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}
