//! From checked settings to the typed configuration: every rule that concerns more than the kind of one value.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use basalt_storage::mvcc::key_index::KEY_BYTES_MAX;
use basalt_storage::mvcc::shard_map::ShardMap;
use basalt_storage::pages::ENTRY_BYTES_MAX;
use basalt_storage::wal::BATCH_BYTES_MAX;

use super::advertised::{Advertised, FindHost, advertised};
use super::bootstrap::parse_initial_cluster;
use super::discovery::{self, Discovery};
use super::duration::parse_nanoseconds;
use super::error::ConfigError;
use super::feature_gates::FeatureGates;
use super::logging_settings::logging;
use super::settings::Settings;
use super::tls_settings::{Ports, ReadFile, client_tls, peer_tls};
use super::traces;
use super::tree::{
    AllowList, AuthConfig, AuthToken, AutoCompaction, ClientConfig, CompactionConfig, Config, HttpConfig,
    KeepaliveConfig, LimitsConfig, MetricsDetail, PeerConfig, PeerTimeouts, RaftConfig, SlowRequestConfig,
    SocketConfig,
};
use super::url::{Url, UrlAddress};

const DEFAULT_NAME: &str = "default";
const DEFAULT_QUOTA_BYTES: i64 = 2 << 30;
/// Where etcd compares nothing: here it costs one entry of the log.
const CORRUPT_CHECK_TIME: Duration = Duration::from_secs(60);
/// Above this etcd warns: recovery and defragmentation of bbolt take long there. Here it is what is designed for.
const QUOTA_BYTES_DESIGNED: i64 = 100 << 30;
/// Largest request that may be allowed: every layer below must hold what it writes.
pub(super) const REQUEST_BYTES_LIMIT: u64 = 16 << 20;
/// What a stored KeyValue and a log entry add to the request that they come from, and more.
const ENVELOPE_BYTES_MAX: usize = 4 << 10;
const _: () = assert!(REQUEST_BYTES_LIMIT as usize <= KEY_BYTES_MAX, "a request can be a key");
const _: () = assert!(REQUEST_BYTES_LIMIT as usize + ENVELOPE_BYTES_MAX <= ENTRY_BYTES_MAX, "a stored KeyValue");
const _: () = assert!(REQUEST_BYTES_LIMIT as usize + ENVELOPE_BYTES_MAX <= BATCH_BYTES_MAX / 2, "a log entry");
const TXN_OPS_LIMIT: u64 = 1 << 20;
/// Calls on one connection that we hold at most, whatever the flag says.
const CONCURRENT_STREAMS_LIMIT: u64 = 10_000;
/// What grpc-go takes where the flag is 0, which etcd does not hand on (`defaultKeepalivePolicyMinTime`).
const GRPC_PING_INTERVAL_MIN: Duration = Duration::from_secs(300);
const ELECTION_MILLISECONDS_MAX: u64 = 50_000;
const WATCH_PROGRESS_DEFAULT: Duration = Duration::from_secs(600);
const WATCH_PROGRESS_MIN: Duration = Duration::from_millis(100);
const DEFAULT_SNAPSHOT_COUNT: u64 = 10_000;
/// etcd `server/auth/simple_token.go`.
const AUTH_TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(300);
/// A century: no sum of times overflows.
const AUTH_TOKEN_TTL_SECONDS_MAX: u64 = 3_155_760_000;
/// What bcrypt takes, and what etcd takes instead of anything else.
const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 4..=31;
const BCRYPT_COST_DEFAULT: u32 = 10;
const NANOSECONDS_PER_HOUR: i64 = 3_600_000_000_000;

/// The configuration, and what the operator should know about it.
///
/// # Errors
/// The first rule that is broken.
pub(super) fn assemble(
    mut settings: Settings,
    read_file: ReadFile<'_>,
    find_host: FindHost<'_>,
) -> Result<(Config, Vec<String>), ConfigError> {
    let settings = &mut settings;
    let name = settings.text("name");
    let data_dir: PathBuf = settings.text_if_any("data-dir").unwrap_or_else(|| format!("{name}.etcd")).into();
    let Advertised { peer_urls, client_urls, default_host } = advertised(settings, find_host);
    let config = Config {
        logging: logging(settings)?,
        initial_shards: initial_shards(settings)?,
        memory_limit: memory_limit(settings)?,
        memory_lock: settings.bool("memory-mlock"),
        peer: peer(settings, &name, peer_urls, &data_dir, read_file)?,
        client: client(settings, client_urls, &data_dir, read_file)?,
        http: http(settings),
        socket: SocketConfig {
            reuse_port: settings.bool("socket-reuse-port"),
            reuse_address: settings.bool("socket-reuse-address"),
        },
        keepalive: KeepaliveConfig {
            client_interval_min: settings.duration("grpc-keepalive-min-time").or(Some(GRPC_PING_INTERVAL_MIN)),
            server_interval: settings.duration("grpc-keepalive-interval"),
            server_timeout: settings.duration("grpc-keepalive-timeout"),
        },
        limits: limits(settings)?,
        raft: raft(settings)?,
        compaction: compaction(settings)?,
        watch_progress_notify_interval: watch_progress(settings),
        compact_hash_check_time: compact_hash_check_time(settings)?,
        corrupt_check_time: settings.duration("corrupt-check-time").unwrap_or(CORRUPT_CHECK_TIME),
        slow_request: SlowRequestConfig {
            apply: settings.duration("warning-apply-duration").unwrap_or(Duration::ZERO),
            unary: settings.duration("warning-unary-request-duration").unwrap_or(Duration::from_millis(300)),
        },
        metrics: metrics(settings),
        traces: traces::traces(settings)?,
        feature_gates: feature_gates(settings)?,
        auth: auth(settings)?,
        wal_dir: settings.text_if_any("wal-dir").map(Into::into),
        default_host,
        data_dir,
        name,
    };
    settings.warnings.extend(config.feature_gates.warnings());
    Ok((config, std::mem::take(&mut settings.warnings)))
}

fn feature_gates(settings: &Settings) -> Result<FeatureGates, ConfigError> {
    let gates = settings.gates("feature-gates");
    match gates.missing() {
        None => Ok(gates),
        Some((gate, needed)) => Err(ConfigError::invalid(
            format!("enabling feature gate {gate} requires enabling feature gate {needed}"),
            format!("add {needed}=true to --feature-gates, or remove {gate}"),
        )),
    }
}

fn auth(settings: &mut Settings) -> Result<AuthConfig, ConfigError> {
    const NAME: &str = "auth-token";
    let text = settings.text(NAME);
    let (kind, options) = text.split_once(',').unwrap_or((&text, ""));
    let options = token_options(options).map_err(|why| {
        let cause = format!("{}: {why}", settings.origin(NAME));
        ConfigError::invalid(cause, "write it as jwt,sign-method=RS256,priv-key=FILE,pub-key=FILE,ttl=5m")
    })?;
    let token = match kind {
        "simple" => AuthToken::Simple,
        "" => AuthToken::None,
        "jwt" => jwt(settings, &options)?,
        other => {
            let cause = format!("{}: there are no tokens of kind {other:?}", settings.origin(NAME));
            return Err(ConfigError::invalid(cause, "use simple, or jwt with its options"));
        }
    };
    // As etcd does with what is none.
    let token_ttl = match settings.unsigned("auth-token-ttl") {
        0 => AUTH_TOKEN_TTL_DEFAULT,
        seconds => Duration::from_secs(seconds.min(AUTH_TOKEN_TTL_SECONDS_MAX)),
    };
    let mut bcrypt_cost = u32::try_from(settings.unsigned("bcrypt-cost")).unwrap_or(u32::MAX);
    if !BCRYPT_COSTS.contains(&bcrypt_cost) {
        settings.warnings.push(format!(
            "bcrypt-cost {bcrypt_cost} is not between 4 and 31: {BCRYPT_COST_DEFAULT} is used, as in etcd"
        ));
        bcrypt_cost = BCRYPT_COST_DEFAULT;
    }
    Ok(AuthConfig { token, token_ttl, bcrypt_cost })
}

/// Options of a kind of token: names with values, each once.
fn token_options(text: &str) -> Result<BTreeMap<&str, &str>, String> {
    let mut options = BTreeMap::new();
    for option in text.split(',').filter(|_| !text.is_empty()) {
        let pair = option.split_once('=').filter(|(_, value)| !value.contains('='));
        let (name, value) = pair.ok_or_else(|| format!("{option:?} is no option"))?;
        if options.insert(name, value).is_some() {
            return Err(format!("{name} stands there twice"));
        }
    }
    Ok(options)
}

fn jwt(settings: &mut Settings, options: &BTreeMap<&str, &str>) -> Result<AuthToken, ConfigError> {
    const NAME: &str = "auth-token";
    let invalid = |why: String, advice: &str| {
        Err(ConfigError::invalid(format!("{}: {why}", settings.origin(NAME)), advice.to_owned()))
    };
    let file = |name: &str| options.get(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let Some(method) = options.get("sign-method") else {
        return invalid("sign-method is missing".to_owned(), "give sign-method=RS256 or another one");
    };
    let life = match options.get("ttl").filter(|ttl| !ttl.is_empty()) {
        None => AUTH_TOKEN_TTL_DEFAULT,
        Some(ttl) => match parse_nanoseconds(ttl).and_then(|life| u64::try_from(life).ok()) {
            Some(life) => Duration::from_nanos(life),
            None => return invalid(format!("ttl {ttl:?} is no time"), "use a duration such as 5m"),
        },
    };
    let token = AuthToken::Jwt {
        method: (*method).to_owned(),
        private_key: file("priv-key"),
        public_key: file("pub-key"),
        life,
    };
    for name in options.keys().filter(|name| !["sign-method", "priv-key", "pub-key", "ttl"].contains(*name)) {
        settings.warnings.push(format!("unknown option {name} of auth-token is ignored"));
    }
    Ok(token)
}

fn compact_hash_check_time(settings: &Settings) -> Result<Duration, ConfigError> {
    const NAME: &str = "compact-hash-check-time";
    settings.duration(NAME).ok_or_else(|| {
        let cause = format!("--{NAME} must be >0 ({})", settings.origin(NAME));
        ConfigError::invalid(cause, "use a duration such as 1m")
    })
}

/// The least memory that the shares are made for.
const MEMORY_LIMIT_BYTES_MIN: u64 = 64 << 20;

fn memory_limit(settings: &Settings) -> Result<Option<usize>, ConfigError> {
    const NAME: &str = "basalt-memory-limit";
    match settings.unsigned(NAME) {
        0 => Ok(None),
        bytes if bytes < MEMORY_LIMIT_BYTES_MIN => {
            let cause = format!("{}: {bytes} bytes are too few", settings.origin(NAME));
            Err(ConfigError::invalid(cause, format!("use 0 or at least {MEMORY_LIMIT_BYTES_MIN}")))
        }
        bytes => Ok(Some(usize::try_from(bytes).unwrap_or(usize::MAX))),
    }
}

fn initial_shards(settings: &Settings) -> Result<Option<ShardMap>, ConfigError> {
    const NAME: &str = "basalt-initial-shards";
    if !settings.is_set(NAME) {
        return Ok(None);
    }
    let map = settings.text(NAME).parse().map_err(|why| {
        let cause = format!("{}: {why}", settings.origin(NAME));
        ConfigError::invalid(cause, "write it as main;events=/registry/events/")
    })?;
    Ok(Some(map))
}

fn peer(
    settings: &mut Settings,
    name: &str,
    advertise_urls: Vec<Url>,
    data_dir: &Path,
    read_file: ReadFile<'_>,
) -> Result<PeerConfig, ConfigError> {
    let listen_urls = settings.urls("listen-peer-urls");
    check_bind_urls(settings, "listen-peer-urls", &listen_urls)?;
    check_advertised_urls(settings, "initial-advertise-peer-urls", &advertise_urls)?;
    let discovery = discovery::discovery(settings)?;
    let default_cluster = super::flag::Flag::find("initial-cluster").map_or("", |flag| flag.default);
    let mut cluster = settings.text("initial-cluster");
    if discovery.is_some() || discovery::is_half_set(settings) {
        cluster.clear();
    // With a name alone, that member is its own cluster (etcd: UpdateDefaultClusterFromName).
    } else if name != DEFAULT_NAME && cluster == default_cluster {
        let pairs: Vec<_> = advertise_urls.iter().map(|url| format!("{name}={url}")).collect();
        cluster = pairs.join(",");
    }
    let secure = listen_urls.iter().find(|url| url.is_tls());
    let tls = peer_tls(settings, &Ports { secure, urls: listen_urls.iter().collect(), data_dir }, read_file)?;
    if let (None, Some(url)) = (&tls, secure) {
        return Err(ConfigError::invalid(
            format!("TLS key/cert (--peer-cert-file, --peer-key-file) must be provided for peer url {url}"),
            "set both, or use http",
        ));
    }
    for url in listen_urls.iter().filter(|url| !url.is_tls()) {
        if tls.is_some() {
            settings.warnings.push(served_without_tls(url));
        }
        if settings.bool("peer-client-cert-auth") {
            settings.warnings.push(format!("members' certificates are not asked for on {url}"));
        }
    }
    Ok(PeerConfig {
        listen_urls,
        advertise_urls,
        initial_cluster: parse_initial_cluster(&cluster).map_err(|why| {
            let cause = format!("{}: {why}", settings.origin("initial-cluster"));
            ConfigError::invalid(cause, "write it as name=http://host:port")
        })?,
        initial_cluster_token: match &discovery {
            Some(Discovery::Service(service)) => service.token.clone(),
            _ => settings.text("initial-cluster-token"),
        },
        discovery,
        force_new_cluster: settings.bool("force-new-cluster"),
        join_existing: settings.text("initial-cluster-state") == "existing",
        strict_reconfig_check: settings.bool("strict-reconfig-check"),
        max_learners: u32::try_from(settings.signed("max-learners")).unwrap_or(0),
        timeouts: PeerTimeouts {
            read: peer_timeout(settings, "raft-read-timeout"),
            write: peer_timeout(settings, "raft-write-timeout"),
        },
        tls,
    })
}

fn peer_timeout(settings: &mut Settings, name: &str) -> Duration {
    let asked = settings.duration(name).unwrap_or_default();
    if asked < PeerTimeouts::MIN {
        settings.warnings.push(format!("{name} increased to minimum value: {:?}", PeerTimeouts::MIN));
    }
    asked.max(PeerTimeouts::MIN)
}

fn client(
    settings: &mut Settings,
    advertise_urls: Vec<Url>,
    data_dir: &Path,
    read_file: ReadFile<'_>,
) -> Result<ClientConfig, ConfigError> {
    let listen_urls = settings.urls("listen-client-urls");
    let listen_http_urls = settings.urls("listen-client-http-urls");
    let listen_metrics_urls = settings.urls("listen-metrics-urls");
    check_bind_urls(settings, "listen-client-urls", &listen_urls)?;
    check_bind_urls(settings, "listen-client-http-urls", &listen_http_urls)?;
    check_bind_urls(settings, "listen-metrics-urls", &listen_metrics_urls)?;
    check_advertised_urls(settings, "advertise-client-urls", &advertise_urls)?;
    if let Some(url) =
        listen_urls.iter().find(|url| listen_http_urls.iter().any(|http| http.address() == url.address()))
    {
        return Err(ConfigError::invalid(
            format!("cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {url}"),
            "give them different ports",
        ));
    }
    let all_urls: Vec<&Url> = [&listen_urls, &listen_http_urls, &listen_metrics_urls].into_iter().flatten().collect();
    let secure = all_urls.iter().copied().find(|url| url.is_tls());
    let plain = all_urls.iter().copied().find(|url| !url.is_tls());
    let urls = [&listen_urls, &listen_http_urls].into_iter().flatten().collect();
    let tls = client_tls(settings, &Ports { secure, urls, data_dir }, read_file)?;
    if let (Some(url), Some(_)) = (plain.filter(|url| !listen_metrics_urls.contains(url)), &tls) {
        settings.warnings.push(served_without_tls(url));
        if settings.bool("client-cert-auth") {
            settings.warnings.push(format!("client certificates are not asked for on {url}"));
        }
    }
    let tls = tls.filter(|_| secure.is_some());
    Ok(ClientConfig { listen_urls, listen_http_urls, listen_metrics_urls, advertise_urls, tls })
}

fn served_without_tls(url: &Url) -> String {
    format!("{url} is served without TLS: certificates are for https and unixs URLs only")
}

fn http(settings: &Settings) -> HttpConfig {
    let hosts = settings.list("host-whitelist");
    let all_hosts = hosts.iter().all(String::is_empty) || hosts.iter().any(|host| host == "*");
    HttpConfig {
        grpc_gateway: settings.bool("enable-grpc-gateway"),
        profiles: settings.bool("enable-pprof"),
        cors: settings.origins("cors").map_or(AllowList::All, |origins| AllowList::Only(origins.into_iter().collect())),
        host_whitelist: if all_hosts { AllowList::All } else { AllowList::Only(hosts.into_iter().collect()) },
    }
}

fn limits(settings: &mut Settings) -> Result<LimitsConfig, ConfigError> {
    let quota_bytes = match settings.signed("quota-backend-bytes") {
        0 => DEFAULT_QUOTA_BYTES,
        bytes => bytes,
    };
    if quota_bytes > QUOTA_BYTES_DESIGNED {
        settings.warnings.push("quota-backend-bytes is above the 100 GiB that basalt is designed for".to_owned());
    }
    let streams = settings.unsigned("max-concurrent-streams");
    if streams > CONCURRENT_STREAMS_LIMIT && streams != u64::from(u32::MAX) {
        settings.warnings.push(format!("max-concurrent-streams is lowered to {CONCURRENT_STREAMS_LIMIT}"));
    }
    Ok(LimitsConfig {
        quota_bytes,
        request_bytes_max: bounded(settings, "max-request-bytes", REQUEST_BYTES_LIMIT)?,
        txn_ops_max: bounded(settings, "max-txn-ops", TXN_OPS_LIMIT)?,
        concurrent_streams_max: streams.clamp(1, CONCURRENT_STREAMS_LIMIT) as u32,
    })
}

/// A number from 1 to `limit`; where etcd takes more, it does not work there either.
fn bounded(settings: &Settings, name: &str, limit: u64) -> Result<usize, ConfigError> {
    let value = settings.unsigned(name);
    if !(1..=limit).contains(&value) {
        let cause = format!("{} is {value}", settings.origin(name));
        return Err(ConfigError::invalid(cause, format!("use 1 to {limit}")));
    }
    Ok(usize::try_from(value).expect("the limit fits"))
}

fn raft(settings: &mut Settings) -> Result<RaftConfig, ConfigError> {
    let heartbeat = settings.unsigned("heartbeat-interval");
    let election = settings.unsigned("election-timeout");
    for (name, value) in [("heartbeat-interval", heartbeat), ("election-timeout", election)] {
        if value == 0 {
            return Err(ConfigError::invalid(format!("--{name} must be >0 (set to 0ms)"), "set it in milliseconds"));
        }
    }
    if heartbeat.saturating_mul(5) > election {
        let cause = format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        );
        return Err(ConfigError::invalid(cause, "raise the first or lower the second"));
    }
    if election > ELECTION_MILLISECONDS_MAX {
        let cause = format!(
            "--election-timeout[{election}ms] is too long, and should be set less than {ELECTION_MILLISECONDS_MAX}ms"
        );
        return Err(ConfigError::invalid(cause, "lower it"));
    }
    let snapshot_count = match settings.unsigned("snapshot-count") {
        0 => DEFAULT_SNAPSHOT_COUNT,
        count => count,
    };
    Ok(RaftConfig {
        heartbeat_interval: Duration::from_millis(heartbeat),
        election_ticks: u32::try_from(election / heartbeat).expect("at most 50,000 ticks"),
        pre_vote: settings.bool("pre-vote"),
        initial_tick_advance: settings.bool("initial-election-tick-advance"),
        snapshot_count,
        snapshot_catchup_entries: settings.unsigned("snapshot-catchup-entries"),
    })
}

fn compaction(settings: &Settings) -> Result<CompactionConfig, ConfigError> {
    // Zero and less mean the defaults, as in etcd.
    let batch_limit = usize::try_from(settings.signed("compaction-batch-limit")).ok().filter(|limit| *limit > 0);
    Ok(CompactionConfig {
        auto: auto_compaction(settings)?,
        batch_limit: batch_limit.unwrap_or(1000),
        sleep_interval: settings.duration("compaction-sleep-interval").unwrap_or(Duration::from_millis(10)),
    })
}

fn auto_compaction(settings: &Settings) -> Result<AutoCompaction, ConfigError> {
    let mode = settings.text("auto-compaction-mode");
    let retention = settings.text("auto-compaction-retention");
    let bad = |advice: &str| {
        let cause = format!("{} is {retention:?}", settings.origin("auto-compaction-retention"));
        ConfigError::invalid(cause, advice.to_owned())
    };
    let number: Option<i64> = retention.parse().ok().filter(|number| *number >= 0);
    match (mode.as_str(), number) {
        ("periodic" | "revision", Some(0)) => Ok(AutoCompaction::Off),
        // A duration counts as its nanoseconds, as in etcd (`parseCompactionRetention`).
        ("revision", number) => match number.or_else(|| parse_nanoseconds(&retention)) {
            None => Err(bad("in mode revision, use a number of revisions")),
            Some(0) => Ok(AutoCompaction::Off),
            Some(revisions) => Ok(AutoCompaction::Revisions(revisions)),
        },
        ("periodic", number) => {
            let nanoseconds = number
                .map_or_else(|| parse_nanoseconds(&retention), |hours| hours.checked_mul(NANOSECONDS_PER_HOUR))
                .and_then(|nanoseconds| u64::try_from(nanoseconds).ok());
            match nanoseconds.ok_or_else(|| bad("in mode periodic, use a duration such as 30m, or whole hours"))? {
                0 => Ok(AutoCompaction::Off),
                nanoseconds => Ok(AutoCompaction::Periodic(Duration::from_nanos(nanoseconds))),
            }
        }
        _ => Err(ConfigError::invalid(
            format!("{} has the unknown mode {mode:?}", settings.origin("auto-compaction-mode")),
            "use periodic or revision",
        )),
    }
}

fn watch_progress(settings: &mut Settings) -> Duration {
    let asked = settings.duration("watch-progress-notify-interval").unwrap_or(WATCH_PROGRESS_DEFAULT);
    if asked < WATCH_PROGRESS_MIN {
        settings.warnings.push("watch-progress-notify-interval is raised to 100ms".to_owned());
    }
    asked.max(WATCH_PROGRESS_MIN)
}

fn metrics(settings: &mut Settings) -> MetricsDetail {
    match settings.text("metrics").as_str() {
        "extensive" => MetricsDetail::Extensive,
        "basic" | "" => MetricsDetail::Basic,
        other => {
            settings.warnings.push(format!("metrics is {other:?}, which is taken for basic"));
            MetricsDetail::Basic
        }
    }
}

/// A listener binds an address, not a name; `localhost` alone is known (etcd: `checkBindURLs`).
fn check_bind_urls(settings: &Settings, flag: &str, urls: &[Url]) -> Result<(), ConfigError> {
    for url in urls {
        if let UrlAddress::Tcp { host, .. } = url.address()
            && host != "localhost"
            && host.parse::<IpAddr>().is_err()
        {
            let cause = format!("{}: expected IP in URL for binding ({url})", settings.origin(flag));
            return Err(ConfigError::invalid(cause, "use an IP address, or 0.0.0.0 for all interfaces"));
        }
    }
    Ok(())
}

fn check_advertised_urls(settings: &Settings, flag: &str, urls: &[Url]) -> Result<(), ConfigError> {
    for url in urls {
        if matches!(url.address(), UrlAddress::Tcp { host, .. } if host.is_empty()) {
            let cause = format!("{}: unexpected empty host ({url})", settings.origin(flag));
            return Err(ConfigError::invalid(cause, "advertise \"host:port\""));
        }
    }
    Ok(())
}
