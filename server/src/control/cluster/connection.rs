//! Connections to members, with etcdctl's flags.

use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::cluster_client::ClusterClient;
use basalt_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use basalt_proto::etcdserverpb::{Member, MemberListRequest};
use basalt_proto::node::node_client::NodeClient;
use tonic::transport::Channel;

use super::{ClusterError, ClusterOptions};
use crate::listen::PeerTlsClient;
use crate::peer::PeerConnector;

/// Reaches members.
pub(super) struct Connector {
    inner: PeerConnector,
    timeout: Duration,
}

/// One member, reached.
#[derive(Clone)]
pub(super) struct Connection {
    channel: Channel,
}

impl Connector {
    /// With these certificates; `http` needs none.
    pub(super) fn new(options: &ClusterOptions) -> Self {
        let identity = options.cert_file.clone().zip(options.key_file.clone());
        let tls =
            options.ca_file.clone().map(|trusted| Arc::new(PeerTlsClient::of(Some(trusted), identity, "--cacert")));
        Self { inner: PeerConnector::new(tls), timeout: options.command_timeout }
    }

    /// Reaches one endpoint: a URL, or host and port.
    ///
    /// # Errors
    /// In words.
    pub(super) async fn reach(&self, endpoint: &str) -> Result<Connection, String> {
        let url = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
        let late = |_| "no answer in time".to_owned();
        let channel = tokio::time::timeout(self.timeout, self.inner.channel(&url)).await.map_err(late)??;
        Ok(Connection { channel })
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
    pub(super) fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    pub(super) fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    pub(super) fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }

    /// All members, by a quorum.
    pub(super) async fn members(&self) -> Result<Vec<Member>, tonic::Status> {
        let answer = self.cluster().member_list(MemberListRequest { linearizable: true }).await?;
        Ok(answer.into_inner().members)
    }
}
