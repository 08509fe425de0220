//! Connections to members, with etcdctl's flags.

use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::auth_client::AuthClient;
use basalt_proto::etcdserverpb::cluster_client::ClusterClient;
use basalt_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use basalt_proto::etcdserverpb::{AuthenticateRequest, Member, MemberListRequest};
use basalt_proto::node::node_client::NodeClient;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use super::{ClusterError, ClusterOptions, User};
use crate::config::PeerTimeouts;
use crate::listen::PeerTlsClient;
use crate::peer::PeerConnector;

/// Reaches members.
pub(super) struct Connector {
    inner: PeerConnector,
    user: Option<User>,
    timeout: Duration,
}

/// One member, reached.
#[derive(Clone)]
pub(super) struct Connection {
    channel: ShownChannel,
}

/// Shows a token with each call, if there is one.
#[derive(Clone)]
pub(super) struct Shown(Option<AsciiMetadataValue>);

impl Interceptor for Shown {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

/// A channel that shows a token.
pub(super) type ShownChannel = InterceptedService<Channel, Shown>;

/// What a cluster says where nobody is asked who calls.
const AUTH_NOT_ENABLED: &str = "etcdserver: authentication is not enabled";

impl Connector {
    /// With these certificates; `http` needs none.
    pub(super) fn new(options: &ClusterOptions) -> Self {
        let identity = options.cert_file.clone().zip(options.key_file.clone());
        let tls =
            options.ca_file.clone().map(|trusted| Arc::new(PeerTlsClient::of(Some(trusted), identity, "--cacert")));
        Self {
            inner: PeerConnector::new(tls, PeerTimeouts::default()),
            user: options.user.clone(),
            timeout: options.command_timeout,
        }
    }

    /// Reaches one endpoint: a URL, or host and port.
    ///
    /// # Errors
    /// In words.
    pub(super) async fn reach(&self, endpoint: &str) -> Result<Connection, String> {
        let url = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
        let late = |_| "no answer in time".to_owned();
        let channel = tokio::time::timeout(self.timeout, self.inner.channel(&url)).await.map_err(late)??;
        let token = match &self.user {
            Some(user) => self.log_in(channel.clone(), user).await.map_err(|status| status.message().to_owned())?,
            None => None,
        };
        Ok(Connection { channel: InterceptedService::new(channel, Shown(token)) })
    }

    /// A user's token; none where nobody is asked who calls.
    async fn log_in(&self, channel: Channel, user: &User) -> Result<Option<AsciiMetadataValue>, tonic::Status> {
        let request = AuthenticateRequest { name: user.name.clone(), password: user.password.clone() };
        let mut client = AuthClient::new(channel);
        match self.within(client.authenticate(request)).await {
            Ok(answer) => {
                let token = answer.into_inner().token.parse();
                token.map(Some).map_err(|_| tonic::Status::internal("a token that is none"))
            }
            Err(status) if status.message() == AUTH_NOT_ENABLED => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Reaches the first endpoint that answers, with the members as a quorum knows them.
    ///
    /// # Errors
    /// [`ClusterError::Unreachable`] with what each one said.
    pub(super) async fn any(&self, endpoints: &[String]) -> Result<(Connection, Vec<Member>), ClusterError> {
        let mut said = Vec::new();
        for endpoint in endpoints {
            match self.reach(endpoint).await {
                Ok(connection) => match self.within(connection.members()).await {
                    Ok(members) => return Ok((connection, members)),
                    Err(status) => said.push(format!("{endpoint}: {}", status.message())),
                },
                Err(error) => said.push(format!("{endpoint}: {error}")),
            }
        }
        Err(ClusterError::Unreachable(said.join("; ")))
    }

    /// An answer, or that none came in time.
    pub(super) async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, tonic::Status>>,
    ) -> Result<T, tonic::Status> {
        let late = || tonic::Status::deadline_exceeded("no answer in time");
        tokio::time::timeout(self.timeout, answer).await.unwrap_or_else(|_| Err(late()))
    }
}

impl Connection {
    pub(super) fn cluster(&self) -> ClusterClient<ShownChannel> {
        ClusterClient::new(self.channel.clone())
    }

    pub(super) fn maintenance(&self) -> MaintenanceClient<ShownChannel> {
        MaintenanceClient::new(self.channel.clone())
    }

    pub(super) fn node(&self) -> NodeClient<ShownChannel> {
        NodeClient::new(self.channel.clone())
    }

    /// All members, by a quorum.
    pub(super) async fn members(&self) -> Result<Vec<Member>, tonic::Status> {
        let answer = self.cluster().member_list(MemberListRequest { linearizable: true }).await?;
        Ok(answer.into_inner().members)
    }
}
