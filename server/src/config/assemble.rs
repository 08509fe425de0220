//! From checked settings to the typed configuration: every rule that concerns more than the kind of one value.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::bootstrap::parse_initial_cluster;
use super::duration::parse_nanoseconds;
use super::error::ConfigError;
use super::logging_values::{LogFormat, LogLevel, LogOutput};
use super::settings::Settings;
use super::tls_files::{self, CertificateError};
use super::tls_values::{NamedSuite, TlsVersion, named_suite};
use super::tree::{
    AllowList, AutoCompaction, ClientConfig, CompactionConfig, Config, HttpConfig, KeepaliveConfig, LimitsConfig,
    LoggingConfig, MetricsDetail, PeerConfig, PeerTls, RaftConfig, SlowRequestConfig, SocketConfig, TlsConfig,
};
use super::url::{Url, UrlAddress};

type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

const DEFAULT_NAME: &str = "default";
const DEFAULT_QUOTA_BYTES: u64 = 2 << 30;
/// Above this etcd warns: recovery and defragmentation of bbolt take long there. Here it is what is designed for.
const QUOTA_BYTES_DESIGNED: u64 = 100 << 30;
const REQUEST_BYTES_LIMIT: u64 = 1 << 30;
const TXN_OPS_LIMIT: u64 = 1 << 20;
/// Calls on one connection that we hold at most, whatever the flag says.
const CONCURRENT_STREAMS_LIMIT: u64 = 10_000;
const ELECTION_MILLISECONDS_MAX: u64 = 50_000;
const WATCH_PROGRESS_DEFAULT: Duration = Duration::from_secs(600);
const WATCH_PROGRESS_MIN: Duration = Duration::from_millis(100);
const DEFAULT_SNAPSHOT_COUNT: u64 = 10_000;
const NANOSECONDS_PER_HOUR: i64 = 3_600_000_000_000;

/// The configuration, and what the operator should know about it.
///
/// # Errors
/// The first rule that is broken.
pub(super) fn assemble(mut settings: Settings, read_file: ReadFile<'_>) -> Result<(Config, Vec<String>), ConfigError> {
    let settings = &mut settings;
    let name = settings.text("name");
    let data_dir = settings.text_if_any("data-dir").unwrap_or_else(|| format!("{name}.etcd"));
    let config = Config {
        logging: logging(settings)?,
        peer: peer(settings, &name, read_file)?,
        client: client(settings, read_file)?,
        http: http(settings),
        socket: SocketConfig {
            reuse_port: settings.bool("socket-reuse-port"),
            reuse_address: settings.bool("socket-reuse-address"),
        },
        keepalive: KeepaliveConfig {
            client_interval_min: settings.duration("grpc-keepalive-min-time"),
            server_interval: settings.duration("grpc-keepalive-interval"),
            server_timeout: settings.duration("grpc-keepalive-timeout"),
        },
        limits: limits(settings)?,
        raft: raft(settings)?,
        compaction: compaction(settings)?,
        watch_progress_notify_interval: watch_progress(settings),
        slow_request: SlowRequestConfig {
            apply: settings.duration("warning-apply-duration").unwrap_or(Duration::ZERO),
            unary: settings.duration("warning-unary-request-duration").unwrap_or(Duration::from_millis(300)),
        },
        metrics: metrics(settings),
        feature_gates: settings.gates("feature-gates"),
        wal_dir: settings.text_if_any("wal-dir").map(Into::into),
        data_dir: data_dir.into(),
        name,
    };
    Ok((config, std::mem::take(&mut settings.warnings)))
}

fn logging(settings: &Settings) -> Result<LoggingConfig, ConfigError> {
    let level = settings.text("log-level");
    let format = settings.text("log-format");
    Ok(LoggingConfig {
        level: LogLevel::parse(&level).ok_or_else(|| {
            let cause = format!("{} has the unknown level {level:?}", settings.origin("log-level"));
            ConfigError::invalid(cause, "use debug, info, warn, error, panic or fatal")
        })?,
        format: match format.as_str() {
            "json" | "" => LogFormat::Json,
            "console" => LogFormat::Console,
            _ => {
                let cause = format!("{} has the unknown format {format:?}", settings.origin("log-format"));
                return Err(ConfigError::invalid(cause, "use json or console"));
            }
        },
        outputs: LogOutput::parse_list(&settings.list("log-outputs")).map_err(|why| {
            let cause = format!("{}: {why}", settings.origin("log-outputs"));
            ConfigError::invalid(cause, "use stderr, stdout or paths of files")
        })?,
    })
}

fn peer(settings: &mut Settings, name: &str, read_file: ReadFile<'_>) -> Result<PeerConfig, ConfigError> {
    let listen_urls = settings.urls("listen-peer-urls");
    check_bind_urls(settings, "listen-peer-urls", &listen_urls)?;
    let advertise_urls = settings.urls("initial-advertise-peer-urls");
    check_advertised_urls(settings, "initial-advertise-peer-urls", &advertise_urls)?;
    let default_cluster = super::flag::Flag::find("initial-cluster").map_or("", |flag| flag.default);
    let mut cluster = settings.text("initial-cluster");
    // With a name alone, that member is its own cluster (etcd: UpdateDefaultClusterFromName).
    if name != DEFAULT_NAME && cluster == default_cluster {
        let pairs: Vec<_> = advertise_urls.iter().map(|url| format!("{name}={url}")).collect();
        cluster = pairs.join(",");
    }
    let state = settings.text("initial-cluster-state");
    let tls = peer_tls(settings, read_file)?;
    if tls.is_none() && listen_urls.iter().any(Url::is_tls) {
        settings.warnings.push("listen-peer-urls has https without peer certificates; peers are not served yet".into());
    }
    Ok(PeerConfig {
        listen_urls,
        advertise_urls,
        initial_cluster: parse_initial_cluster(&cluster).map_err(|why| {
            let cause = format!("{}: {why}", settings.origin("initial-cluster"));
            ConfigError::invalid(cause, "write it as name=http://host:port")
        })?,
        initial_cluster_token: settings.text("initial-cluster-token"),
        join_existing: match state.as_str() {
            "new" | "" => false,
            "existing" => true,
            _ => {
                let cause = format!("{} has the unexpected state {state:?}", settings.origin("initial-cluster-state"));
                return Err(ConfigError::invalid(cause, "use new or existing"));
            }
        },
        strict_reconfig_check: settings.bool("strict-reconfig-check"),
        tls,
    })
}

fn client(settings: &mut Settings, read_file: ReadFile<'_>) -> Result<ClientConfig, ConfigError> {
    let listen_urls = settings.urls("listen-client-urls");
    let listen_http_urls = settings.urls("listen-client-http-urls");
    let listen_metrics_urls = settings.urls("listen-metrics-urls");
    let advertise_urls = settings.urls("advertise-client-urls");
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
    let tls = client_tls(settings, secure, read_file)?;
    if let (Some(url), Some(_)) = (plain.filter(|url| !listen_metrics_urls.contains(url)), &tls) {
        settings.warnings.push(format!("{url} is served without TLS: certificates are for https and unixs URLs only"));
        if settings.bool("client-cert-auth") {
            settings.warnings.push(format!("client certificates are not asked for on {url}"));
        }
    }
    let tls = tls.filter(|_| secure.is_some());
    Ok(ClientConfig { listen_urls, listen_http_urls, listen_metrics_urls, advertise_urls, tls })
}

fn client_tls(
    settings: &mut Settings,
    secure: Option<&Url>,
    read_file: ReadFile<'_>,
) -> Result<Option<TlsConfig>, ConfigError> {
    let (mut version_min, version_max) = tls_versions(settings)?;
    let cipher_suites = cipher_suites(settings, version_min)?;
    // A list of suites of TLS 1.3 alone leaves none for TLS 1.2.
    if cipher_suites.is_empty() && !settings.list("cipher-suites").is_empty() {
        version_min = TlsVersion::Tls13;
        if version_max < version_min {
            let cause = format!("{} holds no cipher suite of TLS 1.2", settings.origin("cipher-suites"));
            return Err(ConfigError::invalid(cause, "add one, or remove --tls-max-version"));
        }
    }
    let Some((cert_file, key_file)) = key_pair(settings, "cert-file", "key-file", read_file)? else {
        if let Some(url) = secure {
            return Err(ConfigError::invalid(
                format!(
                    "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
                ),
                "set both, or use http",
            ));
        }
        if settings.bool("client-cert-auth") || settings.is_set("trusted-ca-file") {
            let warning = "client certificates are not asked for: no client URL has https";
            settings.warnings.push(warning.to_owned());
        }
        return Ok(None);
    };
    let trusted_ca_file = settings.text_if_any("trusted-ca-file");
    if let Some(path) = &trusted_ca_file {
        check_file(settings, "trusted-ca-file", path, read_file, |pem| tls_files::certificates(pem).map(drop))?;
    } else if settings.bool("client-cert-auth") {
        return Err(ConfigError::invalid(
            format!("{} needs certificates to trust", settings.origin("client-cert-auth")),
            "set --trusted-ca-file to those that sign clients' certificates",
        ));
    }
    let client_crl_file = settings.text_if_any("client-crl-file");
    if let Some(path) = &client_crl_file {
        check_file(settings, "client-crl-file", path, read_file, |list| tls_files::revoked_serials(list).map(drop))?;
    }
    Ok(Some(TlsConfig {
        cert_file: cert_file.into(),
        key_file: key_file.into(),
        trusted_ca_file: trusted_ca_file.map(Into::into),
        client_cert_auth: settings.bool("client-cert-auth"),
        client_crl_file: client_crl_file.map(Into::into),
        version_min,
        version_max,
        cipher_suites,
    }))
}

fn peer_tls(settings: &Settings, read_file: ReadFile<'_>) -> Result<Option<PeerTls>, ConfigError> {
    let Some((cert_file, key_file)) = key_pair(settings, "peer-cert-file", "peer-key-file", read_file)? else {
        return Ok(None);
    };
    let trusted_ca_file = settings.text_if_any("peer-trusted-ca-file");
    if let Some(path) = &trusted_ca_file {
        check_file(settings, "peer-trusted-ca-file", path, read_file, |pem| tls_files::certificates(pem).map(drop))?;
    }
    Ok(Some(PeerTls {
        cert_file: cert_file.into(),
        key_file: key_file.into(),
        trusted_ca_file: trusted_ca_file.map(Into::into),
        client_cert_auth: settings.bool("peer-client-cert-auth"),
    }))
}

/// A certificate and its key, both readable; `None` if neither is set.
fn key_pair(
    settings: &Settings,
    cert: &str,
    key: &str,
    read_file: ReadFile<'_>,
) -> Result<Option<(String, String)>, ConfigError> {
    match (settings.text_if_any(cert), settings.text_if_any(key)) {
        (None, None) => Ok(None),
        (Some(cert_file), Some(key_file)) => {
            check_file(settings, cert, &cert_file, read_file, |pem| tls_files::certificates(pem).map(drop))?;
            check_file(settings, key, &key_file, read_file, |pem| tls_files::private_key(pem).map(drop))?;
            Ok(Some((cert_file, key_file)))
        }
        (cert_file, _) => {
            let (present, absent) = if cert_file.is_some() { (cert, key) } else { (key, cert) };
            let cause = format!("{} is set without --{absent}", settings.origin(present));
            Err(ConfigError::invalid(cause, format!("set --{absent} too")))
        }
    }
}

fn check_file(
    settings: &Settings,
    flag: &str,
    path: &str,
    read_file: ReadFile<'_>,
    check: impl Fn(&[u8]) -> Result<(), CertificateError>,
) -> Result<(), ConfigError> {
    let origin = settings.origin(flag);
    let content = read_file(Path::new(path)).map_err(|error| {
        ConfigError::invalid(format!("cannot read {path} of {origin}: {error}"), "check the path and its permissions")
    })?;
    check(&content)
        .map_err(|why| ConfigError::invalid(format!("cannot use {path} of {origin}: {why}"), "replace the file"))
}

fn tls_versions(settings: &Settings) -> Result<(TlsVersion, TlsVersion), ConfigError> {
    let version = |name: &str| {
        TlsVersion::parse(&settings.text(name))
            .map_err(|why| ConfigError::invalid(format!("{}: {why}", settings.origin(name)), "use one of these names"))
    };
    let min = version("tls-min-version")?.unwrap_or(TlsVersion::Tls12);
    let max = version("tls-max-version")?.unwrap_or(TlsVersion::Tls13);
    if min > max {
        return Err(ConfigError::invalid(
            "min version (TLS1.3) is greater than max version (TLS1.2)",
            "correct --tls-min-version or --tls-max-version",
        ));
    }
    Ok((min, max))
}

fn cipher_suites(
    settings: &mut Settings,
    version_min: TlsVersion,
) -> Result<Vec<super::tls_values::CipherSuite>, ConfigError> {
    let names = settings.list("cipher-suites");
    let origin = settings.origin("cipher-suites");
    if version_min == TlsVersion::Tls13 && !names.is_empty() {
        return Err(ConfigError::invalid(
            "cipher suites cannot be configured when only TLS1.3 is enabled",
            "remove --cipher-suites",
        ));
    }
    let mut suites = Vec::new();
    for name in &names {
        match named_suite(name) {
            Some(NamedSuite::Offered(suite)) if !suites.contains(&suite) => suites.push(suite),
            Some(NamedSuite::Offered(_) | NamedSuite::Tls13) => {}
            Some(NamedSuite::Weak) => {
                settings.warnings.push(format!("{origin}: {name} is never offered, for it is weak"));
            }
            None => {
                let cause = format!("{origin}: unexpected TLS cipher suite {name:?}");
                return Err(ConfigError::invalid(
                    cause,
                    "use Go's names, such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                ));
            }
        }
    }
    if suites.is_empty() && names.iter().any(|name| named_suite(name) == Some(NamedSuite::Weak)) {
        return Err(ConfigError::invalid(
            format!("{origin} names weak cipher suites only, none of which is offered"),
            "add TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 or TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        ));
    }
    Ok(suites)
}

fn http(settings: &Settings) -> HttpConfig {
    let hosts = settings.list("host-whitelist");
    let all_hosts = hosts.iter().all(String::is_empty) || hosts.iter().any(|host| host == "*");
    HttpConfig {
        grpc_gateway: settings.bool("enable-grpc-gateway"),
        cors: settings.origins("cors").map_or(AllowList::All, |origins| AllowList::Only(origins.into_iter().collect())),
        host_whitelist: if all_hosts { AllowList::All } else { AllowList::Only(hosts.into_iter().collect()) },
    }
}

fn limits(settings: &mut Settings) -> Result<LimitsConfig, ConfigError> {
    let quota_bytes = match settings.signed("quota-backend-bytes") {
        0 => Some(DEFAULT_QUOTA_BYTES),
        bytes => u64::try_from(bytes).ok(),
    };
    if quota_bytes.is_some_and(|bytes| bytes > QUOTA_BYTES_DESIGNED) {
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
        ("revision", Some(revisions)) => Ok(AutoCompaction::Revisions(revisions.unsigned_abs())),
        ("revision", None) => Err(bad("in mode revision, use a number of revisions")),
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
