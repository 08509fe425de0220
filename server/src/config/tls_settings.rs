//! The settings of TLS, with a look into every file they name.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::ConfigError;
use super::settings::Settings;
use super::tls_files::{self, CertificateError};
use super::tls_values::{CipherSuite, NamedSuite, TlsVersion, named_suite};
use super::tree::{AllowedNames, GeneratedCertificate, PeerTls, TlsConfig};
use super::url::{Url, UrlAddress};

/// How files are read.
pub(super) type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// Where etcd puts generated certificates in its data directory; those of clients and of members each have a folder there.
pub const GENERATED_FOLDER: &str = "fixtures";
/// Above this many years Go's count of nanoseconds overflows, and its certificate ends before it begins.
const VALIDITY_YEARS_MAX: u64 = 292;
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What there is to know of a port's side of TLS.
pub(super) struct Ports<'a> {
    /// A URL that needs a certificate.
    pub(super) secure: Option<&'a Url>,
    /// All URLs that a generated certificate is good for.
    pub(super) urls: Vec<&'a Url>,
    /// Where the data lies.
    pub(super) data_dir: &'a Path,
}

/// TLS towards clients; `None` without certificate.
pub(super) fn client_tls(
    settings: &mut Settings,
    ports: &Ports<'_>,
    read_file: ReadFile<'_>,
) -> Result<Option<TlsConfig>, ConfigError> {
    let Protocols { version_min, version_max, cipher_suites } = protocols(settings)?;
    let given = key_pair(settings, "cert-file", "key-file", read_file)?;
    let generated = generated(settings, "auto-tls", given.is_some(), ports)?;
    let client_files = key_pair(settings, "client-cert-file", "client-key-file", read_file)?;
    let Some(Files { cert_file, key_file, generated }) = Files::of(given, generated) else {
        if let Some(url) = ports.secure {
            return Err(ConfigError::invalid(
                format!(
                    "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
                ),
                "set both, or use http",
            ));
        }
        let asks = ["trusted-ca-file", "client-cert-allowed-cn", "client-cert-allowed-hostname"];
        if settings.bool("client-cert-auth") || asks.iter().any(|name| settings.is_set(name)) {
            let warning = "client certificates are not asked for: no client URL has https";
            settings.warnings.push(warning.to_owned());
        }
        return Ok(None);
    };
    let trusted_ca_file = settings.text_if_any("trusted-ca-file");
    if let Some(path) = &trusted_ca_file {
        check_file(settings, "trusted-ca-file", path, read_file, |pem| tls_files::certificates(pem).map(drop))?;
    } else if settings.bool("client-cert-auth") {
        return Err(nobody_to_trust(settings, "client-cert-auth", "trusted-ca-file", "clients'"));
    }
    let allowed = allowed_names(settings, "client-cert-allowed-cn", "client-cert-allowed-hostname")?;
    if allowed != AllowedNames::All && trusted_ca_file.is_none() {
        // etcd asks no client for a certificate then, and lets all of them in.
        return Err(ConfigError::invalid(
            "names of client certificates are limited, and no certificate is asked for",
            "set --trusted-ca-file to those that sign clients' certificates",
        ));
    }
    let client_crl_file = settings.text_if_any("client-crl-file");
    if let Some(path) = &client_crl_file {
        check_file(settings, "client-crl-file", path, read_file, |list| tls_files::revoked_serials(list).map(drop))?;
    }
    Ok(Some(TlsConfig {
        cert_file,
        key_file,
        generated,
        client_files: client_files.map(|(cert_file, key_file)| (cert_file.into(), key_file.into())),
        trusted_ca_file: trusted_ca_file.map(Into::into),
        client_cert_auth: settings.bool("client-cert-auth"),
        client_crl_file: client_crl_file.map(Into::into),
        version_min,
        version_max,
        cipher_suites,
        allowed,
        // etcd looks at where members come from and who scrapes metrics, and not at where other clients do.
        check_addresses: false,
    }))
}

/// TLS towards other members; `None` without certificate.
pub(super) fn peer_tls(
    settings: &mut Settings,
    ports: &Ports<'_>,
    read_file: ReadFile<'_>,
) -> Result<Option<PeerTls>, ConfigError> {
    let given = key_pair(settings, "peer-cert-file", "peer-key-file", read_file)?;
    let generated = generated(settings, "peer-auto-tls", given.is_some(), ports)?;
    let Some(Files { cert_file, key_file, generated }) = Files::of(given, generated) else {
        return Ok(None);
    };
    if generated.is_some() {
        refuse_verification(settings)?;
    }
    let trusted_ca_file = settings.text_if_any("peer-trusted-ca-file");
    if let Some(path) = &trusted_ca_file {
        check_file(settings, "peer-trusted-ca-file", path, read_file, |pem| tls_files::certificates(pem).map(drop))?;
    } else if settings.bool("peer-client-cert-auth") {
        return Err(nobody_to_trust(settings, "peer-client-cert-auth", "peer-trusted-ca-file", "other members'"));
    }
    let Protocols { version_min, version_max, cipher_suites } = protocols(settings)?;
    let client_files = key_pair(settings, "peer-client-cert-file", "peer-client-key-file", read_file)?;
    let crl_file = settings.text_if_any("peer-crl-file");
    if let Some(path) = &crl_file {
        check_file(settings, "peer-crl-file", path, read_file, |list| tls_files::revoked_serials(list).map(drop))?;
    }
    Ok(Some(PeerTls {
        client_files: client_files.map(|(cert_file, key_file)| (cert_file.into(), key_file.into())),
        crl_file: crl_file.map(Into::into),
        allowed: allowed_names(settings, "peer-cert-allowed-cn", "peer-cert-allowed-hostname")?,
        skip_address_check: settings.bool("peer-skip-client-san-verification"),
        version_min,
        version_max,
        cipher_suites,
        cert_file,
        key_file,
        generated,
        trusted_ca_file: trusted_ca_file.map(Into::into),
        client_cert_auth: settings.bool("peer-client-cert-auth"),
    }))
}

/// etcd verifies by what the system trusts then, so that whoever has a certificate of any public authority is let in.
fn nobody_to_trust(settings: &Settings, asking: &str, trusted: &str, whose: &str) -> ConfigError {
    ConfigError::invalid(
        format!("{} needs certificates to trust", settings.origin(asking)),
        format!("set --{trusted} to those that sign {whose} certificates"),
    )
}

/// A certificate and its key, and how to make them.
struct Files {
    cert_file: PathBuf,
    key_file: PathBuf,
    generated: Option<GeneratedCertificate>,
}

impl Files {
    fn of(given: Option<(String, String)>, generated: Option<GeneratedCertificate>) -> Option<Self> {
        match (given, generated) {
            (Some((cert_file, key_file)), _) => {
                Some(Self { cert_file: cert_file.into(), key_file: key_file.into(), generated: None })
            }
            (None, Some(made)) => {
                Some(Self { cert_file: made.cert_file(), key_file: made.key_file(), generated: Some(made) })
            }
            (None, None) => None,
        }
    }
}

/// The certificate that `flag` asks for, unless one is given (etcd `embed.Config.ClientSelfCert`, `PeerSelfCert`).
fn generated(
    settings: &mut Settings,
    flag: &str,
    given: bool,
    ports: &Ports<'_>,
) -> Result<Option<GeneratedCertificate>, ConfigError> {
    const VALIDITY: &str = "self-signed-cert-validity";
    if !settings.bool(flag) {
        return Ok(None);
    }
    if given {
        settings.warnings.push(format!("{} is ignored since certificates are given", settings.origin(flag)));
        return Ok(None);
    }
    let years = settings.unsigned(VALIDITY);
    if !(1..=VALIDITY_YEARS_MAX).contains(&years) {
        let cause = format!("{} is {years} years", settings.origin(VALIDITY));
        return Err(ConfigError::invalid(
            cause,
            format!("it should be greater than 0, and at most {VALIDITY_YEARS_MAX}"),
        ));
    }
    let side = if flag == "auto-tls" { "client" } else { "peer" };
    let hosts = ports.urls.iter().filter_map(|url| match url.address() {
        UrlAddress::Tcp { host, .. } => Some(host.clone()).filter(|host| !host.is_empty()),
        UrlAddress::Unix { .. } => None,
    });
    Ok(Some(GeneratedCertificate {
        directory: ports.data_dir.join(GENERATED_FOLDER).join(side),
        hosts: hosts.collect(),
        validity: YEAR * u32::try_from(years).expect("at most 292"),
    }))
}

/// What would verify members, where their certificates are signed by nobody: etcd drops it without a word.
fn refuse_verification(settings: &Settings) -> Result<(), ConfigError> {
    const VERIFYING: [&str; 5] = [
        "peer-client-cert-auth",
        "peer-trusted-ca-file",
        "peer-crl-file",
        "peer-cert-allowed-cn",
        "peer-cert-allowed-hostname",
    ];
    let is_on = |name: &&str| match *name {
        "peer-client-cert-auth" => settings.bool(name),
        name if name.ends_with("-file") => settings.text_if_any(name).is_some(),
        name => !settings.list(name).is_empty(),
    };
    VERIFYING.into_iter().find(is_on).map_or(Ok(()), |name| {
        let cause = format!(
            "{} cannot be kept with {}: what members generate is signed by nobody",
            settings.origin(name),
            settings.origin("peer-auto-tls")
        );
        Err(ConfigError::invalid(cause, "remove one of them, or set --peer-cert-file and --peer-key-file"))
    })
}

/// What is spoken, with clients and with members.
struct Protocols {
    version_min: TlsVersion,
    version_max: TlsVersion,
    cipher_suites: Vec<CipherSuite>,
}

fn protocols(settings: &mut Settings) -> Result<Protocols, ConfigError> {
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
    Ok(Protocols { version_min, version_max, cipher_suites })
}

/// Who is let in.
fn allowed_names(settings: &Settings, names_flag: &str, hosts_flag: &str) -> Result<AllowedNames, ConfigError> {
    let (names, hosts) = (settings.list(names_flag), settings.list(hosts_flag));
    match (names.is_empty(), hosts.is_empty()) {
        (true, true) => Ok(AllowedNames::All),
        (false, true) => Ok(AllowedNames::CommonNames(names)),
        (true, false) => Ok(AllowedNames::Hostnames(hosts)),
        (false, false) => Err(ConfigError::invalid(
            format!(
                "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[{}], hostnames=[{}])",
                names.join(" "),
                hosts.join(" ")
            ),
            format!("set --{names_flag} or --{hosts_flag}"),
        )),
    }
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

fn cipher_suites(settings: &mut Settings, version_min: TlsVersion) -> Result<Vec<CipherSuite>, ConfigError> {
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
                let warning = format!("{origin}: {name} is never offered, for it is weak");
                // The same list is of clients and of members.
                if !settings.warnings.contains(&warning) {
                    settings.warnings.push(warning);
                }
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
