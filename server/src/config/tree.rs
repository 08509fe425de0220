//! The typed configuration: one field for each thing that can be set, validated before anything starts.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use basalt_storage::mvcc::shard_map::ShardMap;

use super::discovery::Discovery;
use super::feature_gates::FeatureGates;
use super::log_rotation::LogRotation;
use super::logging_values::{LogFormat, LogLevel, LogOutput};
use super::tls_values::{CipherSuite, TlsVersion};
use super::traces::TracesConfig;
use super::url::Url;

/// Everything that the operator decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of this member. Default `default`.
    pub name: String,
    /// Directory of the data. Default `<name>.etcd`.
    pub data_dir: PathBuf,
    /// Directory of the log if it lies elsewhere. Default: inside the data directory.
    pub wal_dir: Option<PathBuf>,
    /// How a new data directory splits its keys, if the operator chose; one with data knows. Default: DESIGN D1.
    pub initial_shards: Option<ShardMap>,
    /// Memory to plan with, bytes; `None` for what the system allows.
    pub memory_limit: Option<usize>,
    /// Whether memory is never swapped out. Default false.
    pub memory_lock: bool,
    /// Who the members are, and how they reach this one.
    pub peer: PeerConfig,
    /// Where and how clients are served.
    pub client: ClientConfig,
    /// What HTTP serves, and to whom.
    pub http: HttpConfig,
    /// Options of all listening sockets.
    pub socket: SocketConfig,
    /// Pings on client connections.
    pub keepalive: KeepaliveConfig,
    /// What a request or the data may grow to.
    pub limits: LimitsConfig,
    /// Clock and log of the consensus.
    pub raft: RaftConfig,
    /// What happens to old revisions.
    pub compaction: CompactionConfig,
    /// How often a quiet watch is told the revision. Default 10 min, at least 100 ms.
    pub watch_progress_notify_interval: Duration,
    /// Time between two comparisons of members' data. Default one minute.
    pub corrupt_check_time: Duration,
    /// How often the leader compares what compactions hashed, if that gate is open. Default 1 min.
    pub compact_hash_check_time: Duration,
    /// When a slow request is logged.
    pub slow_request: SlowRequestConfig,
    /// How users are known.
    pub auth: AuthConfig,
    /// What is logged, and where.
    pub logging: LoggingConfig,
    /// Which metrics are exported. Default basic.
    pub metrics: MetricsDetail,
    /// Where traces go, if anywhere.
    pub traces: Option<TracesConfig>,
    /// etcd's feature gates.
    pub feature_gates: FeatureGates,
    /// What took the place of `localhost` in advertised URLs, since the listener is on all addresses. Default nothing.
    pub default_host: Option<IpAddr>,
}

/// How users are known, once authentication is turned on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthConfig {
    /// What users get when they show their passwords. Default simple.
    pub token: AuthToken,
    /// How long a simple token lives after it was used last. Default 5 min.
    pub token_ttl: Duration,
    /// Cost of password hashes. Default 10.
    pub bcrypt_cost: u32,
}

/// A kind of token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthToken {
    /// A random one that members know.
    Simple,
    /// A signed one.
    Jwt {
        /// How it is signed, in etcd's words.
        method: String,
        /// The file of the key that signs.
        private_key: Option<PathBuf>,
        /// The file of the key that verifies.
        public_key: Option<PathBuf>,
        /// How long a token is good. Default 5 min.
        life: Duration,
    },
    /// None: users are known by their certificates alone.
    None,
}

/// Who the members are. The URLs give this member its identity.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerConfig {
    /// Where other members shall reach this one. Default `http://localhost:2380`.
    pub listen_urls: Vec<Url>,
    /// The same, as the others see it; part of the member id. Default `http://localhost:2380`.
    pub advertise_urls: Vec<Url>,
    /// Members of a new cluster with their URLs, sorted by name; empty with `discovery`. Default: this one.
    pub initial_cluster: Vec<(String, Vec<Url>)>,
    /// Who names those members instead. Default nobody.
    pub discovery: Option<Discovery>,
    /// Part of member and cluster ids; that of the discovery service, where there is one. Default `etcd-cluster`.
    pub initial_cluster_token: String,
    /// Whether a start without data joins a running cluster. Default false.
    pub join_existing: bool,
    /// Whether all other members are removed at the start, for they are lost. Default false.
    pub force_new_cluster: bool,
    /// Whether changes that lose the quorum are refused. Default true.
    pub strict_reconfig_check: bool,
    /// Most learners in the cluster. Default 1.
    pub max_learners: u32,
    /// What connections between members may wait for. Default and least 5 s each.
    pub timeouts: PeerTimeouts,
    /// Certificates between members, if any; read once and found in order.
    pub tls: Option<PeerTls>,
}

/// How long a connection between members may stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerTimeouts {
    /// Without a byte from the other side, which is asked for one in between.
    pub read: Duration,
    /// With bytes that the other side does not take.
    pub write: Duration,
}

impl PeerTimeouts {
    /// Default and least of both, as in etcd.
    pub const MIN: Duration = Duration::from_secs(5);
}

impl Default for PeerTimeouts {
    fn default() -> Self {
        Self { read: Self::MIN, write: Self::MIN }
    }
}

/// Files that secure connections between members.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerTls {
    /// Certificate chain, PEM.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// What signs other members' certificates.
    pub trusted_ca_file: Option<PathBuf>,
    /// Whether other members need a certificate.
    pub client_cert_auth: bool,
    /// Certificate and key towards other members, if not the same.
    pub client_files: Option<(PathBuf, PathBuf)>,
    /// Revoked serial numbers. Default none.
    pub crl_file: Option<PathBuf>,
    /// Which members are let in, and believed.
    pub allowed: AllowedNames,
    /// Whether a member's certificate may name addresses that are not its own. Default false.
    pub skip_address_check: bool,
    /// Set where certificate and key are made here; those of other members are then not verified. Default none.
    pub generated: Option<GeneratedCertificate>,
    /// As of [`TlsConfig`].
    pub version_min: TlsVersion,
    /// As of [`TlsConfig`].
    pub version_max: TlsVersion,
    /// As of [`TlsConfig`].
    pub cipher_suites: Vec<CipherSuite>,
}

/// A certificate that signs itself, made at a start without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedCertificate {
    /// Where it lies, with its key; made too if it is missing.
    pub directory: PathBuf,
    /// Names and addresses that it is good for.
    pub hosts: Vec<String>,
    /// How long.
    pub validity: Duration,
}

impl GeneratedCertificate {
    /// Name of the certificate's file.
    pub const CERT: &str = "cert.pem";
    /// Name of the key's file.
    pub const KEY: &str = "key.pem";

    /// The file of the certificate.
    pub fn cert_file(&self) -> PathBuf {
        self.directory.join(Self::CERT)
    }

    /// The file of its key.
    pub fn key_file(&self) -> PathBuf {
        self.directory.join(Self::KEY)
    }
}

/// Which certificates are let in, of those that verify.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedNames {
    /// All.
    #[default]
    All,
    /// Those with one of these common names.
    CommonNames(Vec<String>),
    /// Those that are good for one of these hosts.
    Hostnames(Vec<String>),
}

/// Where and how clients are served.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientConfig {
    /// gRPC, and HTTP if `listen_http_urls` is empty. Default `http://localhost:2379`.
    pub listen_urls: Vec<Url>,
    /// HTTP alone. Default none.
    pub listen_http_urls: Vec<Url>,
    /// Metrics and health checks alone; `https` uses `tls`. Default none.
    pub listen_metrics_urls: Vec<Url>,
    /// What the member list tells clients. Default `http://localhost:2379`.
    pub advertise_urls: Vec<Url>,
    /// For all `https` and `unixs` URLs above; present if any of them is.
    pub tls: Option<TlsConfig>,
}

/// TLS towards clients.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsConfig {
    /// Certificate chain, PEM; read again when it changes.
    pub cert_file: PathBuf,
    /// Its key: PKCS#1, SEC1 or PKCS#8.
    pub key_file: PathBuf,
    /// What signs clients' certificates. If present, every client needs one.
    pub trusted_ca_file: Option<PathBuf>,
    /// Whether the common name of the client's certificate is its user (etcd-contract 50). Default false.
    pub client_cert_auth: bool,
    /// Revoked serial numbers. Default none.
    pub client_crl_file: Option<PathBuf>,
    /// Oldest version. Default TLS 1.2.
    pub version_min: TlsVersion,
    /// Newest version. Default TLS 1.3.
    pub version_max: TlsVersion,
    /// Suites of TLS 1.2 in order of preference; empty for all. Default empty.
    pub cipher_suites: Vec<CipherSuite>,
    /// Which clients are let in. Default all.
    pub allowed: AllowedNames,
    /// Whether a client's certificate that names addresses must name the one it comes from. Default false.
    pub check_addresses: bool,
    /// Certificate and key that this side shows where it connects; here they only have to be in order. Default none.
    pub client_files: Option<(PathBuf, PathBuf)>,
    /// Set where certificate and key are made here. Default none.
    pub generated: Option<GeneratedCertificate>,
}

/// What HTTP serves, and to whom.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConfig {
    /// Whether the JSON gateway answers under `/v3/`. Default true.
    pub grpc_gateway: bool,
    /// Whether profiles of this process are served under `/debug/pprof/`. Default false.
    pub profiles: bool,
    /// Origins of web pages that may call. Default all.
    pub cors: AllowList,
    /// Host names, without port, that a request over plain HTTP may carry. Default all.
    pub host_whitelist: AllowList,
}

/// All, or some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowList {
    /// No limit.
    All,
    /// These only.
    Only(BTreeSet<String>),
}

impl AllowList {
    /// Whether `name` is allowed.
    pub fn allows(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

/// Options of all listening sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketConfig {
    /// SO_REUSEPORT. Default false.
    pub reuse_port: bool,
    /// SO_REUSEADDR. Go sets it on every TCP listener, and so do ours; kept to say what was asked. Default false.
    pub reuse_address: bool,
}

/// Pings on client connections (etcd-contract 55).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepaliveConfig {
    /// A client that pings more often is disconnected; `None` never. Default 5 s, and 5 minutes if the flag is 0.
    pub client_interval_min: Option<Duration>,
    /// How often the server pings; `None` never. Default 2 h.
    pub server_interval: Option<Duration>,
    /// How long the answer may take; `None` for ever. Default 20 s.
    pub server_timeout: Option<Duration>,
}

/// What a request or the data may grow to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Bytes of live data; less than none is no limit. Default 2 GiB.
    pub quota_bytes: i64,
    /// Bytes of one request. Default 1 572 864, at most 1 GiB.
    pub request_bytes_max: usize,
    /// Operations of one transaction. Default 128.
    pub txn_ops_max: usize,
    /// Calls at a time on one connection. Default and maximum 10 000.
    pub concurrent_streams_max: u32,
}

/// Clock and log of the consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftConfig {
    /// One tick, and the time between heartbeats. Default 100 ms.
    pub heartbeat_interval: Duration,
    /// Ticks of an election timeout. Default 10, at least 5.
    pub election_ticks: u32,
    /// Whether votes are asked for before an election. Default true.
    pub pre_vote: bool,
    /// Whether a start without a leader waits for one only as long as it must. Default true.
    pub initial_tick_advance: bool,
    /// Applied entries after which the log is shortened. Default 10 000.
    pub snapshot_count: u64,
    /// Entries that stay for slow members. Default 5 000.
    pub snapshot_catchup_entries: u64,
}

impl RaftConfig {
    /// The election timeout, in whole ticks as etcd counts it.
    pub fn election_timeout(&self) -> Duration {
        self.heartbeat_interval * self.election_ticks
    }

    /// The shortest life of a lease in seconds: one and a half election timeouts, rounded up (etcd-contract 33).
    pub fn lease_ttl_min(&self) -> i64 {
        let milliseconds = (self.heartbeat_interval * (3 * self.election_ticks / 2)).as_millis();
        i64::try_from(milliseconds.div_ceil(1000)).expect("an election timeout is at most 50 s")
    }

    /// How long a request may wait for the consensus (etcd-contract 38).
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout()
    }
}

/// What happens to old revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionConfig {
    /// Whether the server compacts by itself. Default off.
    pub auto: AutoCompaction,
    /// Revisions that one step drops. Default 1000.
    pub batch_limit: usize,
    /// Pause between steps. Default 10 ms.
    pub sleep_interval: Duration,
}

/// What automatic compaction keeps (etcd-contract 58).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Nothing is compacted by itself.
    Off,
    /// The revisions of this time.
    Periodic(Duration),
    /// This many revisions. With less than none every compaction is in the future, and refused.
    Revisions(i64),
}

/// When a slow request is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowRequestConfig {
    /// Applying an entry takes longer. Default 100 ms.
    pub apply: Duration,
    /// A unary call takes longer. Default 300 ms.
    pub unary: Duration,
}

/// What is logged, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggingConfig {
    /// The least level. Default info.
    pub level: LogLevel,
    /// The form of a line. Default JSON.
    pub format: LogFormat,
    /// Where lines go; each one goes to all. Default standard error.
    pub outputs: Vec<LogOutput>,
    /// When the one file among them is put aside. Default never.
    pub rotation: Option<LogRotation>,
}

/// Which metrics are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsDetail {
    /// All but histograms of gRPC calls.
    Basic,
    /// Histograms of gRPC calls too.
    Extensive,
}
