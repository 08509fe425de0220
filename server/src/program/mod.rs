//! The program `basalt`: configuration, node, ports, signals, and one clear last line when something is wrong.

mod default_host;
mod first_election;
mod membership;
mod memory_lock;
mod node_setup;
mod ports;
mod signals;

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
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use self::default_host::default_host;
use self::first_election::advance_first_election;
use self::membership::{check_own, describe, description, end_of, expelled, first_start, hand_over};
use self::memory_lock::lock_memory;
use self::node_setup::node_config;
use self::ports::{PortLimits, open_member_ports, open_ports, serve_members, serve_ports};
use self::signals::{StopSignals, listen_for_level_signals, notify_systemd, unless_stopped};
use crate::api::member_changes::MemberRules;
use crate::api::service::Service;
use crate::apply::answer::Refusal;
use crate::apply::auth::check::cluster_principal;
use crate::auth::Passwords;
use crate::auto_compaction::{AutoCompactor, Outcome};
use crate::config::{self, AutoCompaction, Config, FeatureGate, Parsed, Url};
use crate::corruption::{CompactHashChecker, initial_check};
use crate::gateway::Gateway;
use crate::listen::PeerTlsClient;
use crate::logging::{self, LevelControl};
use crate::metrics::{self, Metrics};
use crate::node::fatal::{abort_on_panic, causes};
use crate::node::handle::Unavailable;
use crate::node::node_thread::Outgoing;
use crate::node::start::{Inbound, Running, StartError, start};
use crate::pages::Pages;
use crate::peer::{PeerConnector, Peers};
use crate::traces::Exporter;

/// How long a start may take to lead and to replay its log before it gives up.
const READY_TIMEOUT: Duration = Duration::from_secs(600);
/// How long one of many members looks for a leader before it serves what needs none (etcd: 5 s).
const LEADER_WAIT: Duration = Duration::from_secs(5);
/// How long a start waits until the cluster knows this member by name.
const DESCRIBE_WAIT: Duration = Duration::from_secs(2);
/// How long calls may go on after a stop was asked for.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Turns of connections between two looks at sockets, where turns do not end: with tokio's 61, a client had to wait for as
/// many turns of a busy one until it was heard (decision 0036). A look costs about a hundredth of a turn with calls.
const TURNS_BETWEEN_LOOKS: u32 = 4;
/// Least pause between two looks of the automatic compaction.
const COMPACTOR_TICK_MIN: Duration = Duration::from_millis(100);

/// Runs the program; gives its exit code.
pub fn main() -> ExitCode {
    abort_on_panic();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let env: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let read_file = |path: &Path| std::fs::read(path);
    match config::parse(&args, &env, &read_file, &default_host) {
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
    #[cfg(feature = "failpoints")]
    if let Err(error) = crate::failpoints::start() {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let log_level = match logging::install(&config.logging) {
        Ok(log_level) => log_level,
        Err(error) => {
            eprintln!("{}", causes(&error));
            return ExitCode::FAILURE;
        }
    };
    for warning in warnings {
        warn!("{warning}");
    }
    if let Some(host) = config.default_host {
        info!(%host, "detected default host for advertise");
    }
    match serve(config, log_level) {
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

fn serve(config: &Config, log_level: LevelControl) -> Result<(), ProgramError> {
    check_own(config)?;
    if config.memory_lock {
        lock_memory()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(connection_threads())
        .event_interval(TURNS_BETWEEN_LOOKS)
        .enable_all()
        .thread_name("basalt-rpc")
        .build()?;
    // Signals before anything that takes long: the first process of a container has no default handler, and would go on.
    let mut signals = runtime.block_on(async {
        listen_for_level_signals(log_level);
        StopSignals::install()
    });
    // Ports next: a taken one is known before the data is opened, and clients wait instead of being refused.
    let metrics = Arc::new(Metrics::new(config.metrics));
    let limits = PortLimits::new(config, connection_threads(), metrics.clone());
    let (ports, member_ports) = runtime.block_on(async {
        Ok::<_, ProgramError>((open_ports(config, &limits)?, open_member_ports(config, &limits)?))
    })?;
    let peer_tls = config.peer.tls.clone().map(|tls| Arc::new(PeerTlsClient::new(tls)));
    let connector = PeerConnector::new(peer_tls, config.peer.timeouts);
    let first = first_start(config, connector.clone(), runtime.handle().clone());
    let starting = {
        let config = node_config(config, first.first.clone())?;
        let (metrics, handle) = (metrics.clone(), runtime.handle().clone());
        runtime.spawn_blocking(move || {
            let peers = OnceLock::new();
            let connect = |inbound: Inbound| -> Arc<dyn Outgoing> {
                let made = || Arc::new(Peers::new(inbound, connector.clone(), handle.clone(), metrics.clone()));
                peers.get_or_init(made).clone()
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
    first.warn_of_ignored(config);
    let (stop, stopping) = watch::channel(false);
    let (stop_members, members_stopping) = watch::channel(false);
    let exporter = exporter(config, &metrics, &runtime)?;
    let service = Arc::new(Service {
        tracer: exporter.as_ref().map(Exporter::tracer),
        kept: Mutex::new(KeptViews::new(KEPT_ROOTS_BYTES_DEFAULT)),
        node: running.handle.clone(),
        sinks: running.sinks.clone(),
        peers: Some(peers.clone()),
        metrics: metrics.clone(),
        slow_unary: config.slow_request.unary,
        slow_apply: config.slow_request.apply,
        election_timeout: config.raft.election_timeout(),
        request_timeout: config.raft.request_timeout(),
        passwords: Passwords::new(config.auth.bcrypt_cost),
        member_rules: MemberRules { strict: config.peer.strict_reconfig_check, learners_max: config.peer.max_learners },
        stopping: stopping.clone(),
    });
    if config.feature_gates.enabled(FeatureGate::InitialCorruptCheck) {
        // Before anybody is served, other members included.
        let checked = initial_check(&running.handle, &peers, service.request_timeout);
        match runtime.block_on(unless_stopped(signals.received(), checked)) {
            Some(checked) => checked?,
            None => {
                stopped_early(runtime);
                return Ok(());
            }
        }
    }
    let (mut listeners, mut member_listeners) = (JoinSet::new(), JoinSet::new());
    // The other members have to reach this one before it can be ready; those that are to be removed must not before they are.
    let (leader_wait, early_ports, late_ports) = if config.peer.force_new_cluster {
        (READY_TIMEOUT, Vec::new(), member_ports)
    } else {
        (LEADER_WAIT, member_ports, Vec::new())
    };
    runtime.block_on(async { serve_members(early_ports, &peers, &service, &members_stopping, &mut member_listeners) });
    if !running.handle.gauges.single_voter.load(Ordering::Relaxed) {
        runtime.spawn(advance_first_election(service.clone(), peers.clone(), config.raft));
    }
    let ready = {
        let running = running.clone();
        runtime.spawn_blocking(move || running.wait_ready(READY_TIMEOUT, leader_wait))
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
    runtime.block_on(async { serve_members(late_ports, &peers, &service, &members_stopping, &mut member_listeners) });
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
    runtime.spawn(peers.clone().probe());
    if config.feature_gates.enabled(FeatureGate::CompactHashCheck) {
        let checker = CompactHashChecker::new(running.handle.clone(), peers.clone(), service.request_timeout);
        runtime.spawn(checker.run(config.compact_hash_check_time));
    }
    runtime.spawn(compact_by_itself(service.clone(), config.compaction.auto));
    let pages = Arc::new(Pages::new(service.clone(), metrics, config));
    let gateway = config.http.grpc_gateway.then(|| Arc::new(Gateway::new(service.clone())));
    let end = runtime.block_on(async {
        serve_ports(ports, &service, &pages, gateway.as_ref(), &stopping, &mut listeners);
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
        // Until here the others were heard: calls under way may have been waiting for them.
        _ = stop_members.send(true);
        member_listeners.join_all().await;
        end
    });
    if let Some(exporter) = exporter {
        runtime.block_on(exporter.close());
    }
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

/// Begins to export traces, where they are asked for.
fn exporter(config: &Config, metrics: &Arc<Metrics>, runtime: &Runtime) -> Result<Option<Exporter>, ProgramError> {
    let Some(traces) = &config.traces else { return Ok(None) };
    let exporter = Exporter::start(traces, metrics.clone(), runtime.handle())?;
    info!(address = traces.address, per_million = traces.per_million, "traces of calls are exported");
    Ok(Some(exporter))
}

/// Threads for connections: half of the cores, since the log, apply, consensus and reads need the others. Where there is one
/// for each core, they wake each other for what is done before the other is awake: with three members on two cores that took a
/// third of the CPU time of reads (decision 0026).
fn connection_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).max(1)
}

/// A stop that came before the node was ready.
fn stopped_early(runtime: Runtime) {
    info!("stopped before the node was ready: its data is as it was, the next start begins anew");
    // What is under way may be cut anywhere, as by a crash, which is safe.
    runtime.shutdown_background();
}

fn announce(config: &Config, running: &Running) {
    let identity = &running.handle.identity;
    info!(
        local_member_id = format_args!("{:x}", identity.member_id),
        cluster_id = format_args!("{:x}", identity.cluster_id),
        name = config.name,
        etcd_version = config::etcd_version(),
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
        etcd_version: config::etcd_version(),
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
        let outcome = match node.propose(Kind::Compaction(request), Some(cluster_principal())) {
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

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.as_str().to_owned()).collect()
}
