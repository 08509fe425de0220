//! The ports: opened before the data is, served when the node is up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use super::node_setup::memory_shares;
use super::{ProgramError, SHUTDOWN_GRACE};
use crate::api::grpc::REQUEST_OVERHEAD_BYTES;
use crate::api::service::Service;
use crate::config::{Config, KeepaliveConfig, TlsConfig, Url};
use crate::edge::Edge;
use crate::gateway::Gateway;
use crate::listen::{
    ConnectionLimit, Deadlines, Endpoint, Handshakes, ListenError, ListenOptions, Listener, RequestRooms, Tls,
    ensure_certificate,
};
use crate::metrics::Metrics;
use crate::pages::{Pages, Serves};
use crate::peer::{PeerPings, Peers};
use crate::peer_edge::PeerEdge;

/// So many of the largest requests may come at once whatever memory there is.
const LARGEST_REQUESTS_MIN: usize = 8;

/// What the ports of the process share.
#[derive(Clone)]
pub(super) struct PortLimits {
    connections: ConnectionLimit,
    member_connections: ConnectionLimit,
    probe_connections: ConnectionLimit,
    handshakes: Handshakes,
    request_rooms: RequestRooms,
    metrics: Arc<Metrics>,
}

impl PortLimits {
    /// For `threads` that serve connections.
    pub(super) fn new(config: &Config, threads: usize, metrics: Arc<Metrics>) -> Self {
        let largest = config.limits.request_bytes_max + REQUEST_OVERHEAD_BYTES;
        Self {
            connections: ConnectionLimit::from_file_limit(),
            member_connections: ConnectionLimit::of_reserve(),
            probe_connections: ConnectionLimit::for_probes(),
            handshakes: Handshakes::for_threads(threads),
            request_rooms: RequestRooms::new(memory_shares(config).requests.max(LARGEST_REQUESTS_MIN * largest)),
            metrics,
        }
    }

    fn options(&self, config: &Config, client_pings: Option<Duration>) -> ListenOptions {
        ListenOptions {
            endpoint: Endpoint::Client,
            socket: config.socket,
            keepalive: KeepaliveConfig { client_interval_min: client_pings, ..config.keepalive },
            concurrent_streams_max: config.limits.concurrent_streams_max,
            connections: self.connections.clone(),
            handshakes: self.handshakes.clone(),
            request_rooms: self.request_rooms.clone(),
            deadlines: Deadlines::default(),
            write_timeout: None,
            shutdown_grace: SHUTDOWN_GRACE,
            cut_total: self.metrics.listen_cut_total.clone(),
        }
    }
}

/// How far apart the pings of clients of a port are to be; `None` where etcd does not look at them: where its gRPC shares
/// a port over TLS with its pages, Go's own HTTP/2 has the connection (decision 0029).
fn client_pings(config: &Config, url: &Url, serves: Serves) -> Option<Duration> {
    let by_grpc = match serves {
        Serves::GrpcOnly => true,
        Serves::Everything => !url.is_tls(),
        Serves::PagesOnly | Serves::Probes => false,
    };
    config.keepalive.client_interval_min.filter(|_| by_grpc)
}

fn load(tls: TlsConfig) -> Result<Arc<Tls>, ListenError> {
    if let Some(generated) = &tls.generated {
        ensure_certificate(generated)?;
    }
    Tls::load(tls)
}

pub(super) fn open_ports(config: &Config, limits: &PortLimits) -> Result<Vec<(Listener, Serves)>, ProgramError> {
    let client = &config.client;
    let tls = client.tls.clone().map(load).transpose()?;
    // As in etcd: those who scrape are asked where they come from, other clients are not.
    let located = client.tls.clone().filter(|_| client.listen_metrics_urls.iter().any(Url::is_tls));
    let located = located.map(|tls| load(TlsConfig { check_addresses: true, ..tls })).transpose()?;
    let split = !client.listen_http_urls.is_empty();
    let main = if split { Serves::GrpcOnly } else { Serves::Everything };
    let with = |serves: Serves| move |url: &Url| (url.clone(), serves);
    let wanted = client.listen_urls.iter().map(with(main));
    let wanted = wanted.chain(client.listen_http_urls.iter().map(with(Serves::PagesOnly)));
    let wanted = wanted.chain(client.listen_metrics_urls.iter().map(with(Serves::Probes)));
    let open = |(url, serves): (Url, Serves)| {
        let mut options = limits.options(config, client_pings(config, &url, serves));
        if serves == Serves::Probes {
            options.connections = limits.probe_connections.clone();
        }
        let tls = if serves == Serves::Probes { &located } else { &tls };
        Ok((Listener::bind(&url, tls.as_ref(), options)?, serves))
    };
    wanted.map(open).collect()
}

/// The ports for other members. A cluster of one has nobody to open them for, but they say whose they are.
pub(super) fn open_member_ports(config: &Config, limits: &PortLimits) -> Result<Vec<Listener>, ProgramError> {
    let peer = &config.peer;
    let tls = peer.tls.clone().map(|tls| {
        load(TlsConfig {
            cert_file: tls.cert_file,
            key_file: tls.key_file,
            trusted_ca_file: tls.trusted_ca_file,
            client_cert_auth: tls.client_cert_auth,
            client_crl_file: tls.crl_file,
            version_min: tls.version_min,
            version_max: tls.version_max,
            cipher_suites: tls.cipher_suites,
            allowed: tls.allowed,
            check_addresses: !tls.skip_address_check,
            client_files: tls.client_files,
            generated: tls.generated,
        })
    });
    let tls = tls.transpose()?;
    let pings = PeerPings::of(peer.timeouts);
    let options = ListenOptions {
        endpoint: Endpoint::Peer,
        keepalive: KeepaliveConfig {
            // Members ask each other for a sign more often than clients may.
            client_interval_min: None,
            server_interval: Some(pings.interval),
            server_timeout: Some(pings.timeout),
        },
        write_timeout: Some(peer.timeouts.write),
        connections: limits.member_connections.clone(),
        ..limits.options(config, None)
    };
    peer.listen_urls.iter().map(|url| Ok(Listener::bind(url, tls.as_ref(), options.clone())?)).collect()
}

pub(super) fn serve_members(
    ports: Vec<Listener>,
    peers: &Arc<Peers>,
    service: &Arc<Service>,
    stopping: &watch::Receiver<bool>,
    listeners: &mut JoinSet<()>,
) {
    for listener in ports {
        info!(address = listener.url().as_str(), "serving peer traffic");
        let edge = PeerEdge { peers: peers.clone(), service: service.clone(), stopping: stopping.clone() };
        listeners.spawn(listener.serve(edge, stopping.clone()));
    }
}

pub(super) fn serve_ports(
    ports: Vec<(Listener, Serves)>,
    service: &Arc<Service>,
    pages: &Arc<Pages>,
    gateway: Option<&Arc<Gateway>>,
    stopping: &watch::Receiver<bool>,
    listeners: &mut JoinSet<()>,
) {
    for (listener, serves) in ports {
        let edge = Edge { service: service.clone(), pages: pages.clone(), gateway: gateway.cloned(), serves };
        let (url, secure) = (listener.url().as_str().to_owned(), listener.url().is_tls());
        listeners.spawn(listener.serve(edge, stopping.clone()));
        info!(
            traffic = if secure { "grpc+http" } else { "grpc+http (insecure)" },
            address = url,
            "serving client traffic"
        );
    }
}
