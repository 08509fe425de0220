//! Arguments, environment and config file, as a process gets them; and the file `join`. Parts of an input are set apart by 0xff,
//! arguments and variables by 0x1e.
//!
//! What is refused is told in one line, with etcd's exit code, and without a password; what is taken is taken the same again, and its
//! identity can be made or is refused.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::LazyLock;

use basalt_server::config::{Config, Discovery, JoinFile, Parsed, Url, UrlAddress, parse, parse_initial_cluster};
use rcgen::{CertificateParams, KeyPair};

/// What a fuzzer cannot guess, and what no line may show.
const PASSWORD: &str = "hunter2-hunter2";
const PART: u8 = 0xff;
const SEPARATOR: char = '\u{1e}';

static PEMS: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
});

pub(super) fn run(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == PART);
    let mut part = || parts.next().unwrap_or_default();
    let (arguments, variables, file) = (texts(part()), texts(part()), part());
    let variable = |text: String| {
        let (name, value) = text.split_once('=').unwrap_or((&text, ""));
        (name.to_owned(), value.to_owned())
    };
    let variables: Vec<(String, String)> = variables.into_iter().map(variable).collect();
    let read_file = |path: &Path| match path.to_str() {
        Some("c.yml") => Ok(file.to_vec()),
        Some("cert.pem") => Ok(PEMS.0.clone()),
        Some("key.pem") => Ok(PEMS.1.clone()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let find_host = || -> io::Result<IpAddr> { Ok(Ipv4Addr::new(10, 9, 8, 7).into()) };
    let parsed = parse(&arguments, &variables, &read_file, &find_host);
    match &parsed {
        Ok(Parsed::Run(config, warnings)) => {
            taken(config);
            assert!(warnings.iter().all(|warning| !warning.is_empty()));
        }
        Ok(Parsed::Help(text) | Parsed::Version(text)) => assert!(!text.is_empty()),
        Err(error) => {
            assert!(matches!(error.exit_code(), 1 | 2));
            let told = error.to_string();
            assert!(!told.is_empty() && !told.contains(['\n', '\r']), "{told:?}");
        }
    }
    let config = |parsed: Parsed| match parsed {
        Parsed::Run(config, warnings) => Some((config, warnings)),
        _ => None,
    };
    assert_eq!(parse(&arguments, &variables, &read_file, &find_host).map(config), parsed.map(config), "the same twice");
    join_file(file);
    url(&String::from_utf8_lossy(file));
}

fn texts(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    text.split(SEPARATOR).filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

fn taken(config: &Config) {
    if let Err(refused) = config.bootstrap() {
        assert_eq!(refused.exit_code(), 1);
    }
    let raft = &config.raft;
    assert!(raft.election_timeout() > std::time::Duration::ZERO);
    assert!(raft.request_timeout() > raft.election_timeout());
    if let Some(Discovery::Service(service)) = &config.peer.discovery
        && let Some(user) = service.user.as_ref().filter(|user| !user.name.contains(PASSWORD))
    {
        assert!(!format!("{user:?}").contains(PASSWORD), "a password shows");
    }
}

fn join_file(bytes: &[u8]) {
    match JoinFile::decode(bytes) {
        Ok(file) => assert_eq!(JoinFile::decode(&file.encode()).as_ref(), Ok(&file)),
        Err(told) => assert!(told.contains("basaltctl reseed"), "{told}"),
    }
}

fn url(text: &str) {
    if let Ok(url) = Url::parse(text) {
        assert_eq!(Url::parse(url.as_str()).as_ref(), Ok(&url));
        match url.address() {
            UrlAddress::Tcp { host, .. } => assert!(!host.contains(['/', '@'])),
            UrlAddress::Unix { path } => assert!(!path.is_empty() && !path.contains('\0')),
        }
    }
    if let Ok(cluster) = parse_initial_cluster(text) {
        assert!(cluster.is_sorted_by(|one, other| one.0 < other.0), "each name once");
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let seed = |arguments: &[&str], variables: &[&str], file: &str| {
        let text = |texts: &[&str]| texts.join(&SEPARATOR.to_string()).into_bytes();
        [text(arguments), vec![PART], text(variables), vec![PART], file.as_bytes().to_vec()].concat()
    };
    let cluster = "--initial-cluster=a=http://10.0.0.1:2380,b=https://[::1]:2380,a=http://10.0.0.1:2381";
    vec![
        seed(
            &["--name", "a", "--listen-client-urls=http://0.0.0.0:1", "--advertise-client-urls", "http://b:1"],
            &[],
            "",
        ),
        seed(
            &["--name=a", cluster, "--initial-advertise-peer-urls=http://10.0.0.1:2380,http://10.0.0.1:2381"],
            &[],
            "",
        ),
        seed(
            &["--cert-file=cert.pem", "--key-file", "key.pem", "--trusted-ca-file=cert.pem", "--client-cert-auth"],
            &["ETCD_CLIENT_CRL_FILE=nowhere", "ETCD_NAME=é", "ETCD_WHAT=1", "PATH=/bin"],
            "",
        ),
        seed(
            &["--auth-token=jwt,sign-method=RS256,priv-key=key.pem,ttl=5m", "--bcrypt-cost=99", "--auth-token-ttl=0"],
            &["ETCD_AUTO_COMPACTION_MODE=periodic", "ETCD_AUTO_COMPACTION_RETENTION=1h30m"],
            "",
        ),
        seed(
            &["--discovery-token=t", "--discovery-endpoints=http://a:1", "--discovery-user=ann:hunter2-hunter2"],
            &["ETCD_DISCOVERY_DIAL_TIMEOUT=1.5s"],
            "",
        ),
        seed(&["--discovery-srv=example.org", "--discovery-srv-name=x", "--name=m"], &[], ""),
        seed(
            &["--quota-backend-bytes=-1", "--snapshot-count=0x1F", "--max-request-bytes=017", "--pre-vote=F", "--", ""],
            &["ETCD_FEATURE_GATES=StopGRPCServiceOnDefrag=true", "ETCD_CORS=*", "ETCD_HOST_WHITELIST=a,b"],
            "",
        ),
        seed(
            &[
                "--log-outputs=stderr,/tmp/x",
                "--log-level=WARN",
                "--basalt-initial-shards=main;events=/registry/events/",
            ],
            &["ETCD_BASALT_MEMORY_LIMIT=1073741824", "ETCD_METRICS=extensive", "ETCD_ENABLE_LOG_ROTATION=true"],
            "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}",
        ),
        seed(
            &["--config-file=c.yml", "--name=ignored"],
            &[],
            "name: f\nsnapshot-count: 7\npre-vote: false\nwatch-progress-notify-interval: 5000000000\n\
             log-outputs: [stderr, /tmp/x]\nclient-transport-security:\n  cert-file: cert.pem\n  key-file: key.pem\n\
             discovery-config: {client: {dial-timeout: 3s, auth: {password: hunter2-hunter2}}}\nwhat: {1: 2}\n",
        ),
        seed(
            &["--config-file=c.yml"],
            &[],
            "a: &a [x]\nb: *a\nname: !!str 7\nlisten-client-urls: http://a:1,unix://s:1\n",
        ),
        seed(&["--version"], &["ETCD_CONFIG_FILE=c.yml"], "{}"),
        seed(&[], &[], "{\"member_id\":\"a\",\"initial_cluster\":\"a=http://a:1\",\"peer_urls\":[\"http://a:1\"]}"),
        seed(&[], &[], "unixs:///run/basalt.sock"),
    ]
}
