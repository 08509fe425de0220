//! Listeners on loopback, with real clients.

use std::convert::Infallible;
use std::fs;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, RevokedCertParams, RsaKeySize, SerialNumber, SignatureAlgorithm,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::config::{
    AllowedNames, CipherSuite, KeepaliveConfig, MetricsDetail, SocketConfig, TlsConfig, TlsVersion, Url,
};
use crate::metrics::Metrics;

pub(super) type Ca = CertifiedIssuer<'static, KeyPair>;

/// Answers each request with what it knows of the client.
#[derive(Clone)]
struct Echo;

impl tower_service::Service<Request<RequestBody>> for Echo {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let client = request.extensions().get::<ClientConnection>().expect("the listener adds it");
        let text = format!("{:?} tls={} cn={:?}", request.version(), client.tls, client.common_name.as_deref());
        std::future::ready(Ok(Response::new(Full::new(text.into()))))
    }
}

pub(super) fn options(connections: usize) -> ListenOptions {
    ListenOptions {
        endpoint: Endpoint::Client,
        socket: SocketConfig::default(),
        keepalive: KeepaliveConfig { client_interval_min: None, server_interval: None, server_timeout: None },
        concurrent_streams_max: 100,
        connections: ConnectionLimit::new(connections),
        handshakes: Handshakes::for_threads(2),
        request_rooms: RequestRooms::new(1 << 20),
        deadlines: Deadlines::default(),
        write_timeout: None,
        shutdown_grace: Duration::from_secs(5),
        cut_total: Metrics::new(MetricsDetail::Basic).listen_cut_total,
    }
}

/// A served port, and the handle that stops it.
pub(super) struct Served {
    pub(super) address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

pub(super) fn serve(url: &str, tls: Option<&Arc<Tls>>, connections: usize) -> Served {
    serve_with(url, tls, options(connections))
}

pub(super) fn serve_with(url: &str, tls: Option<&Arc<Tls>>, options: ListenOptions) -> Served {
    let url = Url::parse(url).expect("a URL");
    let listener = Listener::bind(&url, tls, options).expect("bound");
    let address = listener.local_address().unwrap_or_else(|| ([0, 0, 0, 0], 0).into());
    let (stop, stopped) = watch::channel(false);
    Served { address, stop, task: tokio::spawn(listener.serve(Echo, stopped)) }
}

async fn get_http1<T: AsyncRead + AsyncWrite + Unpin>(mut stream: T) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer.rsplit("\r\n").next().unwrap_or_default().to_owned()
}

async fn get_http2<T: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: T) -> String {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    let driver = tokio::spawn(connection);
    let request = Request::get("http://a/").body(Empty::<Bytes>::new()).expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    drop(sender);
    let _ = driver.await;
    String::from_utf8(body.to_vec()).expect("text")
}

fn new_ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA")
}

/// A certificate for `localhost` signed by `ca`, and its key, in PEM.
pub(super) fn signed(ca: &Ca, common_name: &str, serial: u64, key: &KeyPair) -> String {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(SerialNumber::from(serial));
    let issuer: &Issuer<'static, KeyPair> = ca;
    params.signed_by(key, issuer).expect("signed").pem()
}

/// Server files in a folder of their own.
pub(super) struct Files {
    folder: TempDir,
    pub(super) ca: Ca,
}

impl Files {
    pub(super) fn new(key: &KeyPair) -> Self {
        let files = Self { folder: tempfile::tempdir().expect("a folder"), ca: new_ca() };
        files.write("cert.pem", signed(&files.ca, "server", 1, key).as_bytes());
        files.write("key.pem", key.serialize_pem().as_bytes());
        files.write("ca.pem", files.ca.pem().as_bytes());
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).expect("written");
    }

    pub(super) fn tls(&self, trusted_ca_file: Option<&str>) -> TlsConfig {
        TlsConfig {
            cert_file: self.path("cert.pem"),
            key_file: self.path("key.pem"),
            trusted_ca_file: trusted_ca_file.map(|name| self.path(name)),
            client_cert_auth: trusted_ca_file.is_some(),
            client_crl_file: None,
            version_min: TlsVersion::Tls12,
            version_max: TlsVersion::Tls13,
            cipher_suites: Vec::new(),
            allowed: AllowedNames::All,
            check_addresses: false,
            client_files: None,
            generated: None,
        }
    }

    /// Connects as a client that trusts the CA, with a certificate and key in PEM or without.
    pub(super) async fn connect(
        &self,
        address: SocketAddr,
        alpn: &[&str],
        identity: Option<(&str, &str)>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.pem().as_bytes()).expect("PEM")).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match identity {
            Some((cert, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).expect("PEM")];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
                builder.with_client_auth_cert(chain, key).expect("an identity")
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Whether the server answers this client; with TLS 1.3 a refusal shows only when it should answer.
    pub(super) async fn answers(&self, address: SocketAddr, identity: Option<(&str, &str)>) -> Option<String> {
        let mut stream = self.connect(address, &[], identity).await.ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.rsplit("\r\n").next().map(str::to_owned)
    }
}

pub(super) fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

#[tokio::test]
async fn plain_http_of_both_versions() {
    let served = serve("http://127.0.0.1:0", None, 10);
    let connect = || async { TcpStream::connect(served.address).await.expect("connected") };
    assert_eq!(get_http1(connect().await).await, "HTTP/1.1 tls=false cn=None");
    assert_eq!(get_http2(connect().await).await, "HTTP/2.0 tls=false cn=None");
}

#[tokio::test]
async fn a_request_in_single_bytes_is_understood() {
    let served = serve("http://localhost:0", None, 10);
    let mut stream = TcpStream::connect(served.address).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    for byte in b"PROPFIND / HTTP/1.1\r\nhost: a\r\n\r\n" {
        stream.write_all(&[*byte]).await.expect("sent");
        tokio::task::yield_now().await;
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn unix_sockets_replace_leftovers_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a leftover"));
    let url = format!("unix://{}", path.display());
    let served = serve(&url, None, 10);
    let stream = tokio::net::UnixStream::connect(&path).await.expect("connected");
    assert_eq!(get_http1(stream).await, "HTTP/1.1 tls=false cn=None");
    served.stop.send_replace(true);
    served.task.await.expect("no panic");
    assert!(!path.exists());

    fs::write(&path, "precious").expect("written");
    let url = Url::parse(&url).expect("a URL");
    assert!(matches!(Listener::bind(&url, None, options(1)), Err(ListenError::InUse { .. })));
    assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
}

#[tokio::test]
async fn tls_with_and_without_alpn() {
    let files = Files::new(&new_key());
    let tls = Tls::load(files.tls(None)).expect("loaded");
    let served = serve("https://127.0.0.1:0", Some(&tls), 10);
    let stream = files.connect(served.address, &["h2", "http/1.1"], None).await.expect("connected");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    assert_eq!(get_http2(stream).await, "HTTP/2.0 tls=true cn=None");
    let stream = files.connect(served.address, &[], None).await.expect("connected");
    assert_eq!(get_http2(stream).await, "HTTP/2.0 tls=true cn=None");
    let stream = files.connect(served.address, &["http/1.1"], None).await.expect("connected");
    assert_eq!(get_http1(stream).await, "HTTP/1.1 tls=true cn=None");
}

#[tokio::test]
async fn keys_of_all_kinds_serve() {
    let p521: &'static SignatureAlgorithm = &rcgen::PKCS_ECDSA_P521_SHA512;
    let keys = [
        KeyPair::generate_for(p521).expect("P-521"),
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("P-384"),
        KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).expect("RSA"),
    ];
    for key in keys {
        let files = Files::new(&key);
        let tls = Tls::load(files.tls(None)).expect("loaded");
        let served = serve("https://127.0.0.1:0", Some(&tls), 10);
        assert_eq!(files.answers(served.address, None).await.as_deref(), Some("HTTP/1.1 tls=true cn=None"));
    }
}

#[tokio::test]
async fn client_certificates_are_required_and_name_the_user() {
    let files = Files::new(&new_key());
    let tls = Tls::load(files.tls(Some("ca.pem"))).expect("loaded");
    let served = serve("https://127.0.0.1:0", Some(&tls), 10);
    let key = new_key();
    let alice = (signed(&files.ca, "alice", 2, &key), key.serialize_pem());
    let stranger = (signed(&new_ca(), "mallory", 3, &key), key.serialize_pem());
    assert_eq!(
        files.answers(served.address, Some((&alice.0, &alice.1))).await.as_deref(),
        Some("HTTP/1.1 tls=true cn=Some(\"alice\")")
    );
    assert_eq!(files.answers(served.address, None).await, None);
    assert_eq!(files.answers(served.address, Some((&stranger.0, &stranger.1))).await, None);
}

#[tokio::test]
async fn a_trusted_file_alone_requires_certificates_but_names_nobody() {
    let files = Files::new(&new_key());
    let tls = Tls::load(TlsConfig { client_cert_auth: false, ..files.tls(Some("ca.pem")) }).expect("loaded");
    let served = serve("https://127.0.0.1:0", Some(&tls), 10);
    let key = new_key();
    let alice = (signed(&files.ca, "alice", 2, &key), key.serialize_pem());
    let answer = files.answers(served.address, Some((&alice.0, &alice.1))).await;
    assert_eq!(answer.as_deref(), Some("HTTP/1.1 tls=true cn=None"));
    assert_eq!(files.answers(served.address, None).await, None);
}

#[tokio::test]
async fn a_self_signed_ca_certificate_is_trusted_as_itself() {
    let files = Files::new(&new_key());
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "self");
    let own = params.clone().self_signed(&key).expect("signed").pem();
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    let expired = params.self_signed(&key).expect("signed").pem();
    files.write("trusted.pem", format!("{own}{expired}").as_bytes());
    let tls = Tls::load(files.tls(Some("trusted.pem"))).expect("loaded");
    let served = serve("https://127.0.0.1:0", Some(&tls), 10);
    let key = key.serialize_pem();
    let answer = files.answers(served.address, Some((&own, &key))).await;
    assert_eq!(answer.as_deref(), Some("HTTP/1.1 tls=true cn=Some(\"self\")"));
    assert_eq!(files.answers(served.address, Some((&expired, &key))).await, None);
}

#[tokio::test]
async fn revoked_certificates_are_refused() {
    let files = Files::new(&new_key());
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from(200_u64),
        revocation_time: rcgen::date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(2040, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let issuer: &Issuer<'static, KeyPair> = &files.ca;
    let list = params.signed_by(issuer).expect("a list");
    files.write("crl", list.der());
    let config = TlsConfig { client_crl_file: Some(files.path("crl")), ..files.tls(Some("ca.pem")) };
    let tls = Tls::load(config).expect("loaded");
    let served = serve("https://127.0.0.1:0", Some(&tls), 10);
    let key = new_key();
    let (good, bad) = (signed(&files.ca, "good", 201, &key), signed(&files.ca, "bad", 200, &key));
    assert!(files.answers(served.address, Some((&good, &key.serialize_pem()))).await.is_some());
    assert_eq!(files.answers(served.address, Some((&bad, &key.serialize_pem()))).await, None);
    // In PEM the same list says the same.
    let pem = list.pem().expect("PEM");
    assert_eq!(crate::config::revoked_serials(pem.as_bytes()), crate::config::revoked_serials(list.der()));
}

#[test]
fn changed_files_are_read_again_and_bad_ones_are_not_used() {
    let files = Files::new(&new_key());
    let tls = Tls::load(files.tls(None)).expect("loaded");
    let start = Instant::now();
    let at = |seconds| tls.server_config(start + Duration::from_secs(seconds));
    let first = at(2);
    assert!(Arc::ptr_eq(&first, &at(4)));
    files.write("key.pem", b"damaged");
    assert!(Arc::ptr_eq(&first, &at(6)));
    let key = new_key();
    files.write("key.pem", key.serialize_pem().as_bytes());
    files.write("cert.pem", signed(&files.ca, "server", 99, &key).as_bytes());
    assert!(!Arc::ptr_eq(&first, &at(8)));
}

#[test]
fn a_key_that_only_root_may_read_yet_is_used_as_soon_as_others_may() {
    let files = Files::new(&new_key());
    let mode = |path: PathBuf, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    mode(files.folder.path().to_owned(), 0o755);
    let tls = Tls::load(files.tls(None)).expect("loaded");
    let start = Instant::now();
    let at = |seconds| as_nobody(|| tls.server_config(start + Duration::from_secs(seconds)));
    let first = at(2);
    let key = new_key();
    files.write("cert.pem", signed(&files.ca, "server", 99, &key).as_bytes());
    files.write("key.pem", key.serialize_pem().as_bytes());
    mode(files.path("key.pem"), 0o000);
    assert!(Arc::ptr_eq(&first, &at(4)), "nobody can read it");
    assert!(Arc::ptr_eq(&first, &at(6)), "nor at the next look");
    mode(files.path("key.pem"), 0o444);
    let second = at(8);
    assert!(!Arc::ptr_eq(&first, &second), "its content is the same, but it can be read");
    assert!(Arc::ptr_eq(&second, &at(10)));
}

/// On a thread that may not read what it has no right to, as root may.
fn as_nobody<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    let run = || {
        if rustix::process::geteuid().is_root() {
            let nobody = rustix::process::Uid::from_raw(65_534);
            // Of this thread alone: the C library would ask all others to follow.
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("root may");
        }
        what()
    };
    std::thread::scope(|scope| scope.spawn(run).join().expect("it ends"))
}

#[test]
fn unusable_files_are_named() {
    let files = Files::new(&new_key());
    let fails = |config: TlsConfig| Tls::load(config).map(drop).expect_err("unusable").to_string();
    let absent = TlsConfig { key_file: files.path("absent"), ..files.tls(None) };
    assert!(fails(absent).contains("absent: No such file"));
    files.write("other.pem", new_key().serialize_pem().as_bytes());
    let mismatched = TlsConfig { key_file: files.path("other.pem"), ..files.tls(None) };
    assert!(fails(mismatched).contains("certificate and key belong together"));
    assert!(fails(files.tls(Some("key.pem"))).contains("key.pem: it holds no certificate"));
}

#[tokio::test]
async fn suites_and_versions_are_limited() {
    let files = Files::new(&new_key());
    let suite = CipherSuite::EcdheEcdsaAes256GcmSha384;
    let config = TlsConfig { version_max: TlsVersion::Tls12, cipher_suites: vec![suite], ..files.tls(None) };
    let tls = Tls::load(config).expect("loaded");
    let served = serve("https://127.0.0.1:0", Some(&tls), 10);
    let stream = files.connect(served.address, &[], None).await.expect("connected");
    let session = stream.get_ref().1;
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    let chosen = session.negotiated_cipher_suite().expect("chosen").suite();
    assert_eq!(chosen, rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384);
}

#[tokio::test]
async fn a_taken_port_and_https_without_certificate_are_told() {
    let served = serve("http://127.0.0.1:0", None, 10);
    let url = Url::parse(&format!("http://127.0.0.1:{}", served.address.port())).expect("a URL");
    let error = Listener::bind(&url, None, options(1)).expect_err("taken");
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    let url = Url::parse("https://127.0.0.1:0").expect("a URL");
    let error = Listener::bind(&url, None, options(1)).expect_err("no certificate");
    assert!(error.to_string().contains("--cert-file"), "{error}");
}

#[tokio::test]
async fn a_stop_closes_idle_connections_and_the_port() {
    let served = serve("http://127.0.0.1:0", None, 10);
    let mut silent = TcpStream::connect(served.address).await.expect("connected");
    let mut idle = TcpStream::connect(served.address).await.expect("connected");
    idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.expect("an answer");
    served.stop.send_replace(true);
    served.task.await.expect("no panic");
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest).await;
    let _ = silent.read_to_end(&mut rest).await;
    assert!(TcpStream::connect(served.address).await.is_err());
}
