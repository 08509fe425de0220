//! What the operator asked for: command line, environment and file, read as etcd 3.7 reads them.
//!
//! ```text
//!   command line ─┐
//!   environment  ─┼─► Settings (text checked by kind) ─► assemble ─► Config (typed, validated once)
//!   config file  ─┘          ▲                              │
//!                      flag_table                     warnings, or one ConfigError
//! ```
//!
//! Owns the one table of all flags, etcd's rules of precedence, every default, the help text and the ids that follow
//! from the configuration. It never opens a socket, starts a logger or touches the data directory: [`parse()`] takes
//! the arguments, the environment, a function that reads files and one that finds the machine's address, so that tests need
//! none of them.
//!
//! Invariants:
//! * A flag works or stops the start. Only what tunes machinery that does not exist here is accepted with a warning,
//!   never what limits, secures or makes durable ([`Status`]).
//! * With a config file nothing else counts, as in etcd; without one, a flag that is set both on the command line and
//!   in the environment stops the start.
//! * Every [`ConfigError`] is one line: the cause, then what to do next. Exit code 2 for a command line that cannot be
//!   parsed, 1 for everything else (etcd-contract, section 4).

mod advertised;
mod assemble;
mod bootstrap;
mod command_line;
mod config_file;
mod discovery;
mod duration;
mod environment;
mod error;
mod feature_gates;
mod flag;
mod flag_table;
mod help;
mod identity;
mod join_file;
mod log_rotation;
mod logging_settings;
mod logging_values;
mod parse;
mod settings;
#[cfg(test)]
mod tests;
mod tls_files;
mod tls_settings;
mod tls_values;
mod traces;
mod tree;
mod url;
mod value;

pub use bootstrap::{Bootstrap, FirstMember, cluster_text, has_duplicates, parse_initial_cluster, url_text};
pub use discovery::{Discovery, DiscoveryService, DiscoveryTls, DiscoveryUser, SrvDiscovery};
#[cfg(feature = "failpoints")]
pub(crate) use duration::parse_nanoseconds;
pub use error::ConfigError;
pub use feature_gates::{FeatureGate, FeatureGates};
pub use flag::{Flag, Group, Kind, Status};
pub use flag_table::FLAGS;
pub use help::{etcd_version, version_text};
pub use identity::{cluster_id, member_id};
pub use join_file::JoinFile;
pub use log_rotation::LogRotation;
pub use logging_values::{LogFormat, LogLevel, LogOutput};
pub use parse::{Parsed, parse};
pub use tls_files::{CertificateError, RevokedSerials, certificates, private_key, revoked_serials};
pub use tls_settings::GENERATED_FOLDER;
pub use tls_values::{CipherSuite, TlsVersion};
pub use traces::TracesConfig;
pub use tree::{
    AllowList, AllowedNames, AuthConfig, AuthToken, AutoCompaction, ClientConfig, CompactionConfig, Config,
    GeneratedCertificate, HttpConfig, KeepaliveConfig, LimitsConfig, LoggingConfig, MetricsDetail, PeerConfig,
    PeerTimeouts, PeerTls, RaftConfig, SlowRequestConfig, SocketConfig, TlsConfig,
};
pub use url::{Url, UrlAddress};
