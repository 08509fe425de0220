//! A fixed number of HTTP/2 connections to one server or cluster, dealt out to callers in turn.

use std::time::Duration;

use anyhow::{Context, Result};
use basalt_proto::etcdserverpb::kv_client::KvClient;
use basalt_proto::etcdserverpb::lease_client::LeaseClient;
use basalt_proto::etcdserverpb::watch_client::WatchClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use crate::access::{Credentials, Entrance};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers of lists are large; etcd itself answers up to its own limits.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Wide enough that a page of a list is not cut by flow control, for either server.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// A connection, and who calls on it.
pub type Wire = InterceptedService<Channel, Credentials>;

/// Open connections to one server, or to the members of one cluster.
pub struct Connections {
    channels: Vec<Channel>,
    credentials: Credentials,
}

impl Connections {
    /// Opens `count` connections, to `endpoints` in turn, each a URL, as the `entrance` of all of them wants it.
    ///
    /// # Errors
    /// A URL is bad or a connection cannot be opened.
    pub async fn open(endpoints: &[String], count: usize, entrance: &Entrance) -> Result<Self> {
        let mut channels = Vec::with_capacity(count);
        for (number, endpoint) in (0..count).zip(endpoints.iter().cycle()) {
            let endpoint = Endpoint::from_shared(endpoint.clone())
                .with_context(|| format!("endpoint {endpoint}"))?
                .connect_timeout(CONNECT_TIMEOUT)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
            let channel = entrance.connect(endpoint).await.with_context(|| format!("open connection {number}"))?;
            channels.push(channel);
        }
        Ok(Self { channels, credentials: entrance.credentials() })
    }

    /// How many connections there are.
    pub fn count(&self) -> usize {
        self.channels.len()
    }

    /// A client of the service KV on the connection of caller `number`.
    pub fn kv(&self, number: usize) -> KvClient<Wire> {
        KvClient::new(self.wire(number)).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// A client of the service Lease on the connection of caller `number`.
    pub fn lease(&self, number: usize) -> LeaseClient<Wire> {
        LeaseClient::new(self.wire(number))
    }

    /// A client of the service Watch on the connection of caller `number`.
    pub fn watch(&self, number: usize) -> WatchClient<Wire> {
        WatchClient::new(self.wire(number)).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    fn wire(&self, number: usize) -> Wire {
        InterceptedService::new(self.channels[number % self.channels.len()].clone(), self.credentials.clone())
    }
}
