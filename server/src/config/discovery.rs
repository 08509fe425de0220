//! Bootstrap by discovery: how a member without data learns who the first members are, if `--initial-cluster` does not say.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::error::ConfigError;
use super::settings::Settings;
use super::url::Url;

const DOMAIN: &str = "discovery-srv";
const SERVICE_NAME: &str = "discovery-srv-name";
const TOKEN: &str = "discovery-token";
const ENDPOINTS: &str = "discovery-endpoints";
const REQUEST_TIMEOUT: &str = "discovery-request-timeout";
const FALLBACK: &str = "discovery-fallback";

/// Who names the first members of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// SRV records of a DNS domain.
    Srv(SrvDiscovery),
    /// A cluster that runs, in which the members register.
    Service(Box<DiscoveryService>),
}

/// Where SRV records list the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvDiscovery {
    /// The domain, as in `_etcd-server._tcp.<domain>`.
    pub domain: String,
    /// Behind a dash at the end of the service's name; empty for none. Default empty.
    pub service_name: String,
}

/// A discovery service: any cluster with etcd's v3 API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryService {
    /// Under which key the cluster's size stands and its members register; takes the place of the cluster token.
    pub token: String,
    /// Where the service is reached, sorted; at least one.
    pub endpoints: Vec<Url>,
    /// How long one connection may take; `None` for as long as a request may. Default 2 s.
    pub dial_timeout: Option<Duration>,
    /// How long one request may take, without the connection. Default 5 s.
    pub request_timeout: Duration,
    /// Time between pings on a connection; `None` never. Default 2 s.
    pub keepalive_time: Option<Duration>,
    /// How long a ping may stay unanswered; `None` as long as a request may take. Default 6 s.
    pub keepalive_timeout: Option<Duration>,
    /// Certificates towards `https` endpoints.
    pub tls: DiscoveryTls,
    /// Who registers, where the service asks for it. Default nobody.
    pub user: Option<DiscoveryUser>,
}

/// Certificates towards a discovery service. The files are read when it is called, not before: with data nobody needs them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiscoveryTls {
    /// Whom to trust, PEM; `None` for whom the system trusts.
    pub trusted_ca_file: Option<PathBuf>,
    /// The certificate that is shown, if any, and its key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether any certificate of the service will do. Default false.
    pub skip_verify: bool,
}

/// A user of the discovery service.
#[derive(Clone, PartialEq, Eq)]
pub struct DiscoveryUser {
    /// The name.
    pub name: String,
    /// The password; never shown.
    pub password: String,
}

impl fmt::Debug for DiscoveryUser {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DiscoveryUser").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Who names the first members; `None` if `--initial-cluster` does.
///
/// # Errors
/// More than one of the three ways, or half of one (etcd: `embed.Config.Validate`).
pub(super) fn discovery(settings: &mut Settings) -> Result<Option<Discovery>, ConfigError> {
    check_fallback(settings)?;
    let domain = settings.text_if_any(DOMAIN);
    let (token, endpoints) = (settings.text_if_any(TOKEN), settings.list(ENDPOINTS));
    let lists_members = settings.is_set("initial-cluster") && settings.text_if_any("initial-cluster").is_some();
    let ways = [lists_members, domain.is_some(), !endpoints.is_empty()];
    if ways.into_iter().filter(|is_taken| *is_taken).count() > 1 {
        return Err(ConfigError::invalid(
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
             \"discovery-endpoints\" or \"discovery-srv\"",
            "remove all but one",
        ));
    }
    if token.is_some() == endpoints.is_empty() {
        let cause = "both --discovery-token and --discovery-endpoints must be set";
        return Err(ConfigError::invalid(cause, "set the other one too, or name the members with --initial-cluster"));
    }
    if let Some(domain) = domain {
        let service_name = settings.text(SERVICE_NAME);
        return Ok(Some(Discovery::Srv(SrvDiscovery { domain, service_name })));
    }
    let Some(token) = token else { return Ok(None) };
    Ok(Some(Discovery::Service(Box::new(service(settings, token, &endpoints)?))))
}

/// Whether the members are named by nobody: a part of discovery by DNS is set, and no list (etcd: `configFromCmdLine`).
pub(super) fn is_half_set(settings: &Settings) -> bool {
    settings.text_if_any(SERVICE_NAME).is_some() && !settings.is_set("initial-cluster")
}

fn check_fallback(settings: &Settings) -> Result<(), ConfigError> {
    if settings.text(FALLBACK) != "proxy" {
        return Ok(());
    }
    let cause = format!("v2 proxy is deprecated, and --{FALLBACK} can't be configured as \"proxy\"");
    Err(ConfigError::invalid(cause, "set it to exit, or remove it"))
}

fn service(settings: &mut Settings, token: String, endpoints: &[String]) -> Result<DiscoveryService, ConfigError> {
    if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        let cause = "--discovery-endpoints must not contain empty endpoints";
        return Err(ConfigError::invalid(cause, "separate them with single commas"));
    }
    let request_timeout = settings.duration(REQUEST_TIMEOUT).ok_or_else(|| {
        let cause = format!("{} must be >0", settings.origin(REQUEST_TIMEOUT));
        ConfigError::invalid(cause, "use a duration such as 5s")
    })?;
    let tls = tls(settings)?;
    let is_secure = !settings.bool("discovery-insecure-transport") || tls != DiscoveryTls::default();
    let endpoints = endpoints.iter().map(|endpoint| endpoint_url(endpoint, is_secure)).collect::<Result<Vec<_>, _>>();
    let mut endpoints = endpoints.map_err(|why| {
        let cause = format!("{}: {why}", settings.origin(ENDPOINTS));
        ConfigError::invalid(cause, "write each as host:port, http://host:port or https://host:port")
    })?;
    endpoints.sort();
    endpoints.dedup();
    Ok(DiscoveryService {
        token,
        endpoints,
        dial_timeout: settings.duration("discovery-dial-timeout"),
        request_timeout,
        keepalive_time: settings.duration("discovery-keepalive-time"),
        keepalive_timeout: settings.duration("discovery-keepalive-timeout"),
        tls,
        user: user(settings),
    })
}

fn tls(settings: &Settings) -> Result<DiscoveryTls, ConfigError> {
    let path = |name: &str| settings.text_if_any(name).map(PathBuf::from);
    let identity = match (path("discovery-cert"), path("discovery-key")) {
        (None, None) => None,
        (Some(cert_file), Some(key_file)) => Some((cert_file, key_file)),
        (cert_file, _) => {
            let (present, absent) = if cert_file.is_some() {
                ("discovery-cert", "discovery-key")
            } else {
                ("discovery-key", "discovery-cert")
            };
            let cause = format!("{} is set without --{absent}", settings.origin(present));
            return Err(ConfigError::invalid(cause, format!("set --{absent} too")));
        }
    };
    let skip_verify = settings.bool("discovery-insecure-skip-tls-verify");
    Ok(DiscoveryTls { trusted_ca_file: path("discovery-cacert"), identity, skip_verify })
}

/// The form of clients: without a scheme, an endpoint is secure if anything asks for TLS; `http` never is, `https` always
/// (etcd: `client/v3/internal/endpoint`). What stands behind the port is not looked at.
fn endpoint_url(endpoint: &str, is_secure: bool) -> Result<Url, String> {
    let endpoint = endpoint.trim();
    if let Some(path) = endpoint.strip_prefix("unix:") {
        return Url::parse(&format!("{}:{path}", if is_secure { "unixs" } else { "unix" }));
    }
    if endpoint.starts_with("unixs:") {
        return Url::parse(endpoint);
    }
    match endpoint.split_once("://") {
        None => Url::parse(&format!("{}://{endpoint}", if is_secure { "https" } else { "http" })),
        Some((scheme, rest)) => {
            let address = rest.split(['/', '?', '#']).next().unwrap_or_default();
            Url::parse(&format!("{scheme}://{address}"))
        }
    }
}

/// `name:password`, or each in its own flag. As in etcd nobody is named to the service without a password.
fn user(settings: &mut Settings) -> Option<DiscoveryUser> {
    let (name, password) = (settings.text_if_any("discovery-user"), settings.text_if_any("discovery-password"));
    let both = match (name, password) {
        (None, None) => return None,
        (Some(name), Some(password)) => Some((name, password)),
        (Some(both), None) => both.split_once(':').map(|(name, password)| (name.to_owned(), password.to_owned())),
        (None, Some(_)) => None,
    };
    let both = both.filter(|(name, password)| !name.is_empty() && !password.is_empty());
    if both.is_none() {
        let warning = "the discovery service is told no user: it takes both discovery-user and discovery-password";
        settings.warnings.push(warning.to_owned());
    }
    both.map(|(name, password)| DiscoveryUser { name, password })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_secure_as_for_etcds_clients() {
        for (endpoint, plain, secure) in [
            ("10.0.0.1:2379", "http://10.0.0.1:2379", "https://10.0.0.1:2379"),
            (" d.example.org:1 ", "http://d.example.org:1", "https://d.example.org:1"),
            ("http://a:1", "http://a:1", "http://a:1"),
            ("https://a:1/", "https://a:1", "https://a:1"),
            ("[::1]:7", "http://[::1]:7", "https://[::1]:7"),
            ("unix:///run/a", "unix:///run/a", "unixs:///run/a"),
            ("unixs:a", "unixs:a", "unixs:a"),
        ] {
            let url = |is_secure| endpoint_url(endpoint, is_secure).map(|url| url.as_str().to_owned());
            assert_eq!((url(false).as_deref(), url(true).as_deref()), (Ok(plain), Ok(secure)), "{endpoint}");
        }
        for endpoint in ["a", "ftp://a:1", "http://a", "http://u@a:1", "a:b"] {
            assert!(endpoint_url(endpoint, false).is_err(), "{endpoint}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let user = DiscoveryUser { name: "root".to_owned(), password: "hunter2".to_owned() };
        assert_eq!(format!("{user:?}"), "DiscoveryUser { name: \"root\", .. }");
    }
}
