//! The program `basalt`: configuration, node, ports, signals, and one clear last line when something is wrong.

mod membership;

use std::future::Future;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use basalt_proto::etcdserverpb::CompactionRequest;
use basalt_proto::log::request::Kind;
use basalt_storage::mvcc::kept_views::KeptViews;
use basalt_storage::mvcc::key_index::KEPT_ROOTS_BYTES_DEFAULT;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use self::membership::{describe, description, end_of, expelled, first_start, hand_over};
use crate::api::maintenance::ETCD_VERSION;
use crate::api::member_changes::MemberRules;
use crate::api::service::Service;
use crate::apply::answer::Refusal;
use crate::auto_compaction::{AutoCompactor, Outcome};
use crate::config::{self, AutoCompaction, Config, Parsed, TlsConfig, TlsVersion, Url};
use crate::edge::Edge;
use crate::listen::{ConnectionLimit, Deadlines, ListenOptions, Listener, PeerTlsClient, Tls};
use crate::logging;
use crate::memory::MemoryShares;
use crate::metrics::{self, Metrics};
use crate::node::content::SNAPSHOT_UNREAD_MAX;
use crate::node::fatal::causes;
use crate::node::handle::{Limits, Unavailable};
use crate::node::node_thread::Outgoing;
use crate::node::start::{First, Inbound, NodeConfig, Running, StartError, start};
use crate::pages::{Pages, Serves};
use crate::peer::{PeerConnector, Peers};
use crate::peer_edge::PeerEdge;

/// How long a start may take to lead and to replay its log before it gives up.
const READY_TIMEOUT: Duration = Duration::from_secs(600);
/// How long one of many members looks for a leader before it serves what needs none (etcd: 5 s).
const LEADER_WAIT: Duration = Duration::from_secs(5);
/// How long a start waits until the cluster knows this member by name.
const DESCRIBE_WAIT: Duration = Duration::from_secs(2);
/// How long calls may go on after a stop was asked for.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Least pause between two looks of the automatic compaction.
const COMPACTOR_TICK_MIN: Duration = Duration::from_millis(100);

/// Runs the program; gives its exit code.
pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let env: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let read_file = |path: &Path| std::fs::read(path);
    match config::parse(&args, &env, &read_file) {
        Ok(Parsed::Help(text) | Parsed::Version(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Parsed::Run(config, warnings)) => run(&config, &warnings),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(config: &Config, warnings: &[String]) -> ExitCode {
    if let Err(error) = logging::install(&config.logging) {
        eprintln!("{}", causes(&error));
        return ExitCode::FAILURE;
    }
    for warning in warnings {
        warn!("{warning}");
    }
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = causes(&*error);
            error!(cause, "basalt stops");
            // The last line, in plain words, for whoever looks at a terminal.
            eprintln!("basalt: {cause}");
            ExitCode::FAILURE
        }
    }
}

type ProgramError = Box<dyn std::error::Error>;

fn serve(config: &Config) -> Result<(), ProgramError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("basalt-rpc").build()?;
    // Signals before anything that takes long: the first process of a container has no default handler, and would go on.
    let mut signals = runtime.block_on(async { StopSignals::install() });
    // Ports next: a taken one is known before the data is opened, and clients wait instead of being refused.
    let (ports, member_ports) =
        runtime.block_on(async { Ok::<_, ProgramError>((open_ports(config)?, open_member_ports(config)?)) })?;
    let metrics = Arc::new(Metrics::new(config.metrics));
    let connector = PeerConnector::new(config.peer.tls.clone().map(|tls| Arc::new(PeerTlsClient::new(tls))));
    let starting = {
        let first = first_start(config, connector.clone(), runtime.handle().clone());
        let (config, metrics, handle) = (node_config(config, first), metrics.clone(), runtime.handle().clone());
        runtime.spawn_blocking(move || {
            let peers = OnceLock::new();
            let connect = |inbound: Inbound| -> Arc<dyn Outgoing> {
                peers.get_or_init(|| Arc::new(Peers::new(inbound, connector.clone(), handle.clone()))).clone()
            };
            let running = start(&config, &metrics, &connect)?;
            Ok::<_, StartError>((Arc::new(running), peers.into_inner().expect("a node that runs was connected")))
        })
    };
    let Some(started) = runtime.block_on(unless_stopped(signals.received(), starting)) else {
        stopped_early(runtime);
        return Ok(());
    };
    let (running, peers) = started??;
    let (stop, stopping) = watch::channel(false);
    let service = Arc::new(Service {
        kept: Mutex::new(KeptViews::new(KEPT_ROOTS_BYTES_DEFAULT)),
        node: running.handle.clone(),
        sinks: running.sinks.clone(),
        peers: Some(peers.clone()),
        metrics: metrics.clone(),
        slow_unary: config.slow_request.unary,
        election_timeout: config.raft.election_timeout(),
        request_timeout: config.raft.request_timeout(),
        member_rules: MemberRules { strict: config.peer.strict_reconfig_check, learners_max: config.peer.max_learners },
        stopping: stopping.clone(),
    });
    // The other members have to reach this one before it can be ready.
    let mut listeners = JoinSet::new();
    runtime.block_on(async { serve_members(member_ports, &peers, &service, &stopping, &mut listeners) });
    let ready = {
        let running = running.clone();
        runtime.spawn_blocking(move || running.wait_ready(READY_TIMEOUT, LEADER_WAIT))
    };
    let member_id = service.node.identity.member_id;
    let ready = runtime.block_on(async {
        tokio::select! {
            cause = expelled(service.node.expelled.clone(), Duration::ZERO) => Err(Some(cause)),
            ready = unless_stopped(signals.received(), ready) => ready.ok_or(None),
        }
    });
    match ready {
        Ok(ready) => ready??,
        Err(expelled) => {
            stopped_early(runtime);
            return expelled.map_or(Ok(()), |cause| end_of(cause, member_id));
        }
    }
    // As with etcd a ready member is one that the cluster knows by name; where nothing can be ordered, it serves without.
    let description = description(&service, &config.name, &texts(&config.client.advertise_urls));
    let mut described = runtime.spawn(describe(service.clone(), description));
    if running.handle.leader().is_some() {
        let known = runtime.block_on(async { tokio::time::timeout(DESCRIBE_WAIT, &mut described).await });
        if known.is_err() {
            warn!("the cluster does not know this member by name yet");
        }
    }
    identify(&metrics, config, &running);
    runtime.spawn(compact_by_itself(service.clone(), config.compaction.auto));
    let pages = Arc::new(Pages::new(service.clone(), metrics, config));
    let end = runtime.block_on(async {
        serve_ports(ports, &service, &pages, &stopping, &mut listeners);
        announce(config, &running);
        let end = tokio::select! {
            () = signals.received() => Ok(()),
            cause = expelled(service.node.expelled.clone(), service.election_timeout) => end_of(cause, member_id),
        };
        hand_over(&service, config.raft.election_timeout()).await;
        info!("stopping: no new connections");
        // Receivers exist as long as listeners do.
        _ = stop.send(true);
        listeners.join_all().await;
        end
    });
    drop((service, pages, peers));
    // Connections are closed; what a client's task still holds goes with the runtime.
    runtime.shutdown_timeout(SHUTDOWN_GRACE);
    // A task that was cut may still hold it, and lets go as the runtime takes it down.
    if let Some(running) = Arc::into_inner(running) {
        running.stop();
    }
    info!("stopped");
    end
}

/// A stop that came before the node was ready.
fn stopped_early(runtime: Runtime) {
    info!("stopped before the node was ready: its data is as it was, the next start begins anew");
    // What is under way may be cut anywhere, as by a crash, which is safe.
    runtime.shutdown_background();
}

/// What `work` comes to, or nothing if the stop comes first.
async fn unless_stopped<T>(stop: impl Future<Output = ()>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop => None,
        done = work => Some(done),
    }
}

fn listen_options(config: &Config) -> ListenOptions {
    ListenOptions {
        socket: config.socket,
        keepalive: config.keepalive,
        concurrent_streams_max: config.limits.concurrent_streams_max,
        connections: ConnectionLimit::from_file_limit(),
        deadlines: Deadlines::default(),
        shutdown_grace: SHUTDOWN_GRACE,
    }
}

fn open_ports(config: &Config) -> Result<Vec<(Listener, Serves)>, ProgramError> {
    let tls = config.client.tls.clone().map(Tls::load).transpose()?;
    let options = listen_options(config);
    let client = &config.client;
    let split = !client.listen_http_urls.is_empty();
    let main = if split { Serves::GrpcOnly } else { Serves::Everything };
    let with = |serves: Serves| move |url: &Url| (url.clone(), serves);
    let wanted = client.listen_urls.iter().map(with(main));
    let wanted = wanted.chain(client.listen_http_urls.iter().map(with(Serves::PagesOnly)));
    let wanted = wanted.chain(client.listen_metrics_urls.iter().map(with(Serves::Probes)));
    let open = |(url, serves): (Url, Serves)| Ok((Listener::bind(&url, tls.as_ref(), options.clone())?, serves));
    wanted.map(open).collect()
}

/// The ports for other members. A cluster of one has nobody to open them for, but they say whose they are.
fn open_member_ports(config: &Config) -> Result<Vec<Listener>, ProgramError> {
    let peer = &config.peer;
    let tls = peer.tls.clone().map(|tls| {
        Tls::load(TlsConfig {
            cert_file: tls.cert_file,
            key_file: tls.key_file,
            trusted_ca_file: tls.trusted_ca_file,
            client_cert_auth: tls.client_cert_auth,
            client_crl_file: None,
            version_min: TlsVersion::Tls12,
            version_max: TlsVersion::Tls13,
            cipher_suites: Vec::new(),
        })
    });
    let tls = tls.transpose()?;
    let options = listen_options(config);
    peer.listen_urls.iter().map(|url| Ok(Listener::bind(url, tls.as_ref(), options.clone())?)).collect()
}

fn serve_members(
    ports: Vec<Listener>,
    peers: &Arc<Peers>,
    service: &Arc<Service>,
    stopping: &watch::Receiver<bool>,
    listeners: &mut JoinSet<()>,
) {
    for listener in ports {
        info!(address = listener.url().as_str(), "serving peer traffic");
        let edge = PeerEdge { peers: peers.clone(), service: service.clone() };
        listeners.spawn(listener.serve(edge, stopping.clone()));
    }
}

fn serve_ports(
    ports: Vec<(Listener, Serves)>,
    service: &Arc<Service>,
    pages: &Arc<Pages>,
    stopping: &watch::Receiver<bool>,
    listeners: &mut JoinSet<()>,
) {
    for (listener, serves) in ports {
        let edge = Edge { service: service.clone(), pages: pages.clone(), serves };
        let (url, secure) = (listener.url().as_str().to_owned(), listener.url().is_tls());
        listeners.spawn(listener.serve(edge, stopping.clone()));
        info!(
            traffic = if secure { "grpc+http" } else { "grpc+http (insecure)" },
            address = url,
            "serving client traffic"
        );
    }
}

fn announce(config: &Config, running: &Running) {
    let identity = &running.handle.identity;
    info!(
        local_member_id = format_args!("{:x}", identity.member_id),
        cluster_id = format_args!("{:x}", identity.cluster_id),
        name = config.name,
        etcd_version = ETCD_VERSION,
        basalt_version = env!("CARGO_PKG_VERSION"),
        "ready to serve client requests"
    );
    notify_systemd();
}

fn identify(metrics: &Metrics, config: &Config, running: &Running) {
    let features: Vec<_> = config.feature_gates.states().collect();
    metrics.identify(&metrics::Identity {
        member_id: running.handle.identity.member_id,
        version: env!("CARGO_PKG_VERSION"),
        etcd_version: ETCD_VERSION,
        features: &features,
    });
}

/// Compacts as `--auto-compaction-mode` and `--auto-compaction-retention` say (etcd-contract 58).
async fn compact_by_itself(service: Arc<Service>, mode: AutoCompaction) {
    let node = &service.node;
    let mut compactor = AutoCompactor::new(mode, node.now(), node.view().revision);
    while let Some(next) = compactor.next_tick() {
        tokio::time::sleep(next.saturating_sub(node.now()).max(COMPACTOR_TICK_MIN)).await;
        let leads = node.gauges.leads.load(Ordering::Relaxed);
        let Some(revision) = compactor.tick(node.now(), node.view().revision, leads) else { continue };
        let request = CompactionRequest { revision, physical: false };
        let outcome = match node.propose(Kind::Compaction(request)) {
            Ok(proposed) => proposed.await.map(drop),
            Err(unavailable) => Err(unavailable),
        };
        let done = matches!(outcome, Ok(()) | Err(Unavailable::Refused(Refusal::Compacted)));
        if done {
            info!(revision, "completed auto compaction");
        } else {
            warn!(revision, "auto compaction failed; it is tried again");
        }
        compactor.finished(node.now(), if done { Outcome::Done } else { Outcome::Failed });
    }
}

/// SIGTERM and SIGINT, caught from the moment of installation on.
struct StopSignals(Option<[Signal; 2]>);

impl StopSignals {
    /// To be called inside a runtime.
    fn install() -> Self {
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => Self(Some([terminate, interrupt])),
            _ => {
                warn!("signals cannot be caught: kill -9 is the way to stop, and is safe");
                Self(None)
            }
        }
    }

    /// Waits for either.
    async fn received(&mut self) {
        let Some([terminate, interrupt]) = &mut self.0 else { return std::future::pending().await };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// Tells systemd that the service is up (sd_notify), if it asked for it.
fn notify_systemd() {
    let Ok(socket) = std::env::var("NOTIFY_SOCKET") else { return };
    let told = std::os::unix::net::UnixDatagram::unbound().and_then(|sender| {
        if let Some(name) = socket.strip_prefix('@') {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            return sender.send_to_addr(b"READY=1", &address);
        }
        sender.send_to(b"READY=1", &socket)
    });
    if let Err(error) = told {
        warn!(%error, "systemd could not be told that the service is ready");
    }
}

fn node_config(config: &Config, first: First) -> NodeConfig {
    NodeConfig {
        data_dir: config.data_dir.clone(),
        wal_dir: config.wal_dir.clone(),
        first,
        shard_map: config.initial_shards.clone(),
        heartbeat_interval: config.raft.heartbeat_interval,
        election_timeout: config.raft.election_timeout(),
        sweep_pause: config.compaction.sleep_interval,
        sweep_batch: config.compaction.batch_limit,
        hash_mark_interval: config.corrupt_check_time,
        slow_apply: config.slow_request.apply,
        memory: config.memory_limit.map_or_else(MemoryShares::of_process, MemoryShares::of),
        limits: Limits {
            request_bytes_max: config.limits.request_bytes_max,
            txn_operations_max: config.limits.txn_ops_max,
            quota_bytes: config.limits.quota_bytes,
            lease_ttl_min: config.raft.lease_ttl_min(),
            snapshot_unread: SNAPSHOT_UNREAD_MAX,
        },
        progress_notify_interval: config.watch_progress_notify_interval,
        pre_vote: config.raft.pre_vote,
        peer_urls: texts(&config.peer.advertise_urls),
        catchup_entries: config.raft.snapshot_catchup_entries,
    }
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.as_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_is_heard_while_the_node_starts() {
        let mut signals = StopSignals::install();
        assert_eq!(unless_stopped(std::future::pending(), std::future::ready(1)).await, Some(1));
        let this = rustix::process::getpid();
        rustix::process::kill_process(this, rustix::process::Signal::TERM).expect("we may");
        let start_without_end = std::future::pending::<()>();
        assert_eq!(unless_stopped(signals.received(), start_without_end).await, None);
    }
}
