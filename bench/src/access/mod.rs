//! How clients come to a server: openly, as a user with a token, or over TLS.
//!
//! ```text
//!   Access ─► flags of the server, its URL ─► ServerProcess
//!      │  └─► AsUser: users and a role, then a token ─► Credentials on each call
//!      └────► Tls: a certificate of one's own, TlsConnector ─► Connections
//! ```
//!
//! One certificate authority for each run of this program: nothing of it outlives the run.

mod as_user;
mod certificates;
mod connector;

use std::sync::Arc;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

pub use certificates::Certificates;

/// How clients come to a server, as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccessKind {
    /// Neither encrypted nor asked who they are
    Open,
    /// As a user with a role and a token, while authentication is on
    User,
    /// Over TLS 1.3 with AES-128-GCM
    Tls,
}

impl AccessKind {
    /// Makes what it needs.
    ///
    /// # Errors
    /// Certificates cannot be made.
    pub fn open(self) -> Result<Access> {
        Ok(match self {
            Self::Open => Access::Open,
            Self::User => Access::AsUser,
            Self::Tls => Access::Tls(Arc::new(Certificates::new()?)),
        })
    }
}

/// How clients come to a server.
#[derive(Clone, Debug, Default)]
pub enum Access {
    /// Neither encrypted nor asked who they are.
    #[default]
    Open,
    /// As a user that may read and write all keys, while authentication is on.
    AsUser,
    /// Encrypted; the server shows a certificate, clients none.
    Tls(Arc<Certificates>),
}

impl Access {
    /// Whether it is over TLS.
    pub fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The scheme of the server's URL for clients.
    pub fn scheme(&self) -> &'static str {
        if self.is_encrypted() { "https" } else { "http" }
    }

    /// Flags that the server needs for it.
    pub fn flags(&self) -> Vec<String> {
        match self {
            Self::Open => Vec::new(),
            // A token that ends amid a round would end the round.
            Self::AsUser => vec!["--auth-token-ttl=86400".to_owned()],
            Self::Tls(certificates) => certificates.server_flags(),
        }
    }

    pub(crate) async fn connect(&self, endpoint: Endpoint) -> Result<Channel> {
        Ok(match self {
            Self::Open | Self::AsUser => endpoint.connect().await?,
            Self::Tls(certificates) => endpoint.connect_with_connector(certificates.connector()).await?,
        })
    }
}

/// All that a client of one server needs.
#[derive(Clone, Debug, Default)]
pub struct Entrance {
    access: Access,
    credentials: Credentials,
}

impl Entrance {
    /// Prepares a server that was just started: with users it has a token for one of them.
    ///
    /// # Errors
    /// It cannot be reached, or refuses a step.
    pub async fn prepare(access: Access, endpoint: &str) -> Result<Self> {
        let entrance = Self { access, credentials: Credentials::default() };
        let Access::AsUser = entrance.access else { return Ok(entrance) };
        let channel = entrance.connect(Endpoint::from_shared(endpoint.to_owned())?).await?;
        Ok(Self { credentials: as_user::secure(channel).await.context("turn authentication on")?, ..entrance })
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Nobody answers there, or not with the right certificate.
    pub async fn connect(&self, endpoint: Endpoint) -> Result<Channel> {
        self.access.connect(endpoint).await
    }

    /// What each call on it says.
    pub fn credentials(&self) -> Credentials {
        self.credentials.clone()
    }
}

/// Says on each call who asks; nothing if nobody was asked.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    token: Option<MetadataValue<Ascii>>,
}

impl Credentials {
    /// Those of a token that the server gave.
    ///
    /// # Errors
    /// It cannot stand in a header.
    pub fn of(token: &str) -> Result<Self> {
        Ok(Self { token: Some(token.parse()?) })
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            // As etcd's client sends it.
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}
