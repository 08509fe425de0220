//! The whole way from arguments to the typed tree.

mod advertised;
mod hostile;
mod refused;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use super::*;

const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";
/// Of the default route.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 8, 7));

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let generated = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    match path.to_str().expect("text") {
        CERTIFICATE => Ok(generated.cert.pem().into_bytes()),
        KEY => Ok(generated.signing_key.serialize_pem().into_bytes()),
        "garbage" => Ok(b"garbage".to_vec()),
        "etcd.yml" => Ok(b"name: filed\nwhat: 1\nlisten-client-urls: http://0.0.0.0:7\n".to_vec()),
        "etcd-refused.yml" => Ok(b"unsafe-no-fsync: true\n".to_vec()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn parse_with(line: &str, env: &[(&str, &str)]) -> Result<Parsed, ConfigError> {
    let args: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
    let env: Vec<_> = env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    parse(&args, &env, &read_file, &|| Ok(HOST))
}

fn run(line: &str) -> (Config, Vec<String>) {
    match parse_with(line, &[]) {
        Ok(Parsed::Run(config, warnings)) => (*config, warnings),
        other => panic!("{line}: {other:?}"),
    }
}

fn texts(urls: &[Url]) -> Vec<&str> {
    urls.iter().map(Url::as_str).collect()
}

#[test]
fn bare_start_has_etcds_defaults() {
    let (config, warnings) = run("");
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, Path::new("default.etcd"));
    assert_eq!(texts(&config.client.listen_urls), ["http://localhost:2379"]);
    assert_eq!(texts(&config.client.advertise_urls), ["http://localhost:2379"]);
    assert_eq!(texts(&config.peer.advertise_urls), ["http://localhost:2380"]);
    assert!(config.client.listen_metrics_urls.is_empty() && config.client.tls.is_none());
    assert_eq!((config.limits.quota_bytes, config.default_host), (2 << 30, None));
    assert_eq!(config.limits.request_bytes_max, 1_572_864);
    assert_eq!((config.limits.txn_ops_max, config.limits.concurrent_streams_max), (128, 10_000));
    assert_eq!(config.raft.election_timeout(), Duration::from_secs(1));
    assert_eq!(config.raft.lease_ttl_min(), 2);
    // etcd-contract 38.
    assert_eq!(config.raft.request_timeout(), Duration::from_secs(7));
    assert_eq!(config.compaction.auto, AutoCompaction::Off);
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(600));
    assert_eq!(config.slow_request.unary, Duration::from_millis(300));
    assert_eq!(config.logging.outputs, [LogOutput::Stderr]);
    assert_eq!(config.http.cors, AllowList::All);
    // etcd-contract 53.
    let bootstrap = config.bootstrap().expect("a cluster of one");
    assert_eq!((bootstrap.member_id, bootstrap.cluster_id), (0x8e9e_05c5_2164_694d, 0xcdf8_1819_4e3a_8c32));
}

#[test]
fn members_of_a_new_cluster_have_etcds_ids() {
    let urls = "a=http://127.0.0.1:31380,b=http://127.0.0.1:32380,c=http://127.0.0.1:33380";
    let own = "--initial-advertise-peer-urls http://127.0.0.1:31380";
    let config = run(&format!("--name a {own} --initial-cluster {urls}")).0;
    let bootstrap = config.bootstrap().expect("a cluster of three");
    // As etcd 3.7.3 logs them with the same flags.
    assert_eq!((bootstrap.member_id, bootstrap.cluster_id), (0x8dda_b735_34be_950c, 0x5ac8_1cf4_6ae3_1c61));
    let ids: Vec<u64> = bootstrap.members.iter().map(|member| member.id).collect();
    assert_eq!(ids, [0x8dda_b735_34be_950c, 0x0628_170c_800d_bcee, 0x5c76_a90a_e78b_cee7]);
}

#[test]
fn kubeadms_static_pod_is_accepted_as_it_is() {
    let (config, warnings) = run("--advertise-client-urls=https://10.0.0.5:2379 --cert-file=cert.pem \
        --client-cert-auth=true --data-dir=/var/lib/etcd --feature-gates=InitialCorruptCheck=true \
        --initial-advertise-peer-urls=https://10.0.0.5:2380 --initial-cluster=cp-1=https://10.0.0.5:2380 \
        --key-file=key.pem --listen-client-urls=https://127.0.0.1:2379,https://10.0.0.5:2379 \
        --listen-metrics-urls=http://127.0.0.1:2381 --listen-peer-urls=https://10.0.0.5:2380 --name=cp-1 \
        --peer-cert-file=cert.pem --peer-client-cert-auth=true --peer-key-file=key.pem \
        --peer-trusted-ca-file=cert.pem --snapshot-count=10000 --trusted-ca-file=cert.pem \
        --watch-progress-notify-interval=5s");
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(texts(&config.client.listen_urls), ["https://10.0.0.5:2379", "https://127.0.0.1:2379"]);
    let tls = config.client.tls.as_ref().expect("https");
    assert!(tls.client_cert_auth && tls.trusted_ca_file.is_some());
    assert!(config.peer.tls.as_ref().expect("peer files").client_cert_auth);
    assert!(config.feature_gates.enabled(FeatureGate::InitialCorruptCheck));
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(5));
    assert!(config.bootstrap().is_ok());
}

#[test]
fn certificates_are_generated_where_etcd_puts_them() {
    let listen = "--listen-client-urls https://10.0.0.5:1,http://127.0.0.1:2,unixs://s --advertise-client-urls https://a:1 \
        --listen-client-http-urls https://localhost:3 --listen-peer-urls https://10.0.0.5:4";
    let (config, warnings) =
        run(&format!("{listen} --auto-tls --peer-auto-tls --name a --self-signed-cert-validity 2"));
    let client = config.client.tls.as_ref().expect("TLS");
    assert_eq!(client.cert_file, Path::new("a.etcd/fixtures/client/cert.pem"));
    assert_eq!(client.key_file, Path::new("a.etcd/fixtures/client/key.pem"));
    let made = client.generated.as_ref().expect("generated");
    assert_eq!(made.hosts, ["127.0.0.1", "10.0.0.5", "localhost"]);
    assert_eq!(made.validity, Duration::from_secs(2 * 365 * 24 * 60 * 60));
    let peer = config.peer.tls.as_ref().expect("TLS");
    assert_eq!(peer.cert_file, Path::new("a.etcd/fixtures/peer/cert.pem"));
    assert_eq!(peer.generated.as_ref().expect("generated").hosts, ["10.0.0.5"]);
    assert!(!warnings.iter().any(|warning| warning.contains("auto-tls")), "{warnings:?}");

    let (config, warnings) =
        run(&format!("{listen} --peer-auto-tls --auto-tls --cert-file cert.pem --key-file key.pem"));
    assert_eq!(config.client.tls.expect("TLS").generated, None);
    assert!(warnings.contains(&"--auto-tls is ignored since certificates are given".to_owned()), "{warnings:?}");
}

#[test]
fn who_asks_generated_certificates_for_clients_keeps_what_verifies_them() {
    let listen = "--listen-client-urls https://127.0.0.1:1 --advertise-client-urls https://a:1 --auto-tls";
    let (config, _) =
        run(&format!("{listen} --client-cert-auth --trusted-ca-file cert.pem --client-cert-allowed-cn a,b"));
    let tls = config.client.tls.expect("TLS");
    assert!(tls.client_cert_auth && tls.trusted_ca_file.is_some());
    assert_eq!(tls.allowed, AllowedNames::CommonNames(vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn timeouts_between_members_are_not_below_etcds() {
    let (config, warnings) = run("--raft-read-timeout 1s --raft-write-timeout 7s");
    let timeouts = PeerTimeouts { read: Duration::from_secs(5), write: Duration::from_secs(7) };
    assert_eq!(config.peer.timeouts, timeouts);
    assert_eq!(warnings, ["raft-read-timeout increased to minimum value: 5s"]);
}

#[test]
fn earlier_names_count_with_a_warning() {
    let (config, warnings) =
        run("--experimental-initial-corrupt-check=true --experimental-watch-progress-notify-interval=5s");
    assert!(config.feature_gates.enabled(FeatureGate::InitialCorruptCheck));
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(5));
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

#[test]
fn a_listener_without_tls_beside_certificates_is_told() {
    let (_, warnings) =
        run("--listen-client-urls https://10.0.0.1:1,http://10.0.0.1:2 --advertise-client-urls https://a:1 \
        --cert-file cert.pem --key-file key.pem --client-cert-auth --trusted-ca-file cert.pem");
    let plain = "http://10.0.0.1:2 is served without TLS: certificates are for https and unixs URLs only";
    assert_eq!(warnings, [plain, "client certificates are not asked for on http://10.0.0.1:2"]);
    let (_, warnings) = run(
        "--listen-peer-urls https://10.0.0.1:3,http://10.0.0.1:4 --peer-cert-file cert.pem --peer-key-file key.pem \
        --peer-client-cert-auth --peer-trusted-ca-file cert.pem",
    );
    let plain = "http://10.0.0.1:4 is served without TLS: certificates are for https and unixs URLs only";
    assert_eq!(warnings, [plain, "members' certificates are not asked for on http://10.0.0.1:4"]);
    let (_, warnings) = run("--listen-peer-urls http://10.0.0.1:4 --peer-client-cert-auth");
    assert_eq!(warnings, ["members' certificates are not asked for on http://10.0.0.1:4"]);
}

#[test]
fn what_tunes_bbolt_is_ignored_with_a_warning() {
    let (_, warnings) = run("--backend-batch-limit 5 --max-snapshots 3 --max-wals=5 --logger=zap");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("--backend-batch-limit is ignored: it tunes bbolt"), "{warnings:?}");
}

#[test]
fn what_etcd_takes_no_notice_of_is_taken_bare_and_with_anything() {
    let (_, warnings) = run("-v --vv=3 --snapshot=maybe --test.outputdir --config=a");
    assert_eq!(warnings.len(), 5, "{warnings:?}");
    assert!(warnings.iter().all(|warning| warning.ends_with(" is ignored: etcd 3.7 takes no notice of it either")));
    let Ok(Parsed::Run(_, warnings)) = parse_with("", &[("ETCD_PEER_HEARTBEAT_INTERVAL", "soon")]) else {
        panic!("valid")
    };
    assert_eq!(warnings, ["ETCD_PEER_HEARTBEAT_INTERVAL is ignored: etcd 3.7 takes no notice of it either"]);
}

#[test]
fn the_journal_is_no_file_to_rotate_and_no_reason_not_to_start() {
    let config = run("--log-outputs systemd/journal --enable-log-rotation").0;
    assert_eq!(config.logging.outputs, [LogOutput::Journal]);
}

#[test]
fn memory_is_what_the_system_allows_or_less() {
    let memory = |line: &str| run(line).0.memory_limit;
    assert_eq!((memory(""), memory("--basalt-memory-limit 1073741824")), (None, Some(1 << 30)));
}

#[test]
fn shards_are_chosen_or_left_to_the_data() {
    assert_eq!(run("").0.initial_shards, None);
    let shards = run("--basalt-initial-shards main;a=/a/").0.initial_shards.expect("chosen");
    assert_eq!(shards.shards()[1].name, "a");
    let default = Flag::find("basalt-initial-shards").expect("a flag").default;
    assert_eq!(default.parse(), Ok(basalt_storage::mvcc::shard_map::ShardMap::default()));
}

#[test]
fn a_name_alone_makes_a_cluster_of_that_name() {
    let (config, _) = run("--name a --initial-advertise-peer-urls http://10.0.0.1:1");
    assert_eq!(config.data_dir, Path::new("a.etcd"));
    assert_eq!(config.peer.initial_cluster[0].0, "a");
    assert!(config.bootstrap().is_ok());
}

#[test]
fn bootstrap_follows_etcds_rules() {
    for (line, part) in [
        ("--name a --initial-cluster b=http://localhost:2380", "couldn't find local name \"a\""),
        ("--initial-cluster default=http://a:1,default=http://a:1", "has duplicate url"),
    ] {
        let error = run(line).0.bootstrap().expect_err(line);
        assert!(error.to_string().contains(part), "{line}: {error}");
    }
}

#[test]
fn discovery_takes_the_place_of_the_initial_cluster() {
    let (config, warnings) =
        run("--name a --discovery-srv example.org --discovery-srv-name x --initial-cluster-token t");
    let srv = SrvDiscovery { domain: "example.org".to_owned(), service_name: "x".to_owned() };
    assert_eq!((config.peer.discovery, config.peer.initial_cluster), (Some(Discovery::Srv(srv)), Vec::new()));
    assert_eq!((&*config.peer.initial_cluster_token, warnings), ("t", Vec::<String>::new()));

    let service = |line: &str| {
        let (config, warnings) =
            run(&format!("--name a --discovery-token t --discovery-endpoints b:1,http://a:1 {line}"));
        assert_eq!((config.peer.initial_cluster_token, config.peer.initial_cluster), ("t".to_owned(), Vec::new()));
        let Some(Discovery::Service(service)) = config.peer.discovery else { panic!("{line}") };
        (*service, warnings)
    };
    let (plain, warnings) = service("");
    assert_eq!((texts(&plain.endpoints), warnings.len()), (vec!["http://a:1", "http://b:1"], 0));
    assert_eq!((plain.dial_timeout, plain.request_timeout), (Some(Duration::from_secs(2)), Duration::from_secs(5)));
    assert_eq!(
        (plain.keepalive_time, plain.keepalive_timeout),
        (Some(Duration::from_secs(2)), Some(Duration::from_secs(6)))
    );
    assert_eq!((plain.tls, plain.user), (DiscoveryTls::default(), None));
    let (secure, _) = service("--discovery-cert c --discovery-key k");
    assert_eq!(texts(&secure.endpoints), ["http://a:1", "https://b:1"]);
    assert_eq!(secure.tls.identity, Some(("c".into(), "k".into())));
    assert_eq!(texts(&service("--discovery-insecure-transport=false").0.endpoints), ["http://a:1", "https://b:1"]);
    assert!(service("--discovery-insecure-skip-tls-verify").0.tls.skip_verify);
    for line in ["--discovery-user u:p", "--discovery-user u --discovery-password p"] {
        let user = service(line).0.user.expect("both are given");
        assert_eq!((&*user.name, &*user.password), ("u", "p"));
    }
    let (nobody, warnings) = service("--discovery-user u");
    assert_eq!((nobody.user, warnings.len()), (None, 1));
    let half = run("--discovery-srv-name x").0;
    assert!(half.bootstrap().expect_err("nobody is named").to_string().contains("couldn't find local name"));
}

#[test]
fn auto_compaction_modes() {
    for (line, expected) in [
        ("--auto-compaction-retention 5", AutoCompaction::Periodic(Duration::from_secs(5 * 3600))),
        ("--auto-compaction-retention 30m", AutoCompaction::Periodic(Duration::from_secs(1800))),
        ("--auto-compaction-retention 0s", AutoCompaction::Off),
        ("--auto-compaction-mode revision --auto-compaction-retention 1000", AutoCompaction::Revisions(1000)),
        ("--auto-compaction-mode revision --auto-compaction-retention 0", AutoCompaction::Off),
        // Nanoseconds, as in etcd 3.7.3.
        (
            "--auto-compaction-mode revision --auto-compaction-retention 1h",
            AutoCompaction::Revisions(3_600_000_000_000),
        ),
        ("--auto-compaction-mode revision --auto-compaction-retention -2us", AutoCompaction::Revisions(-2000)),
        ("--auto-compaction-mode revision --auto-compaction-retention 0s", AutoCompaction::Off),
    ] {
        assert_eq!(run(line).0.compaction.auto, expected, "{line}");
    }
}

#[test]
fn values_that_mean_off_or_default() {
    let (config, _) = run("--quota-backend-bytes -1 --grpc-keepalive-interval 0s --compaction-batch-limit 0");
    assert_eq!(config.limits.quota_bytes, -1);
    assert_eq!(run("--quota-backend-bytes 0").0.limits.quota_bytes, 2 << 30);
    assert_eq!(config.keepalive.server_interval, None);
    assert_eq!(config.keepalive.client_interval_min, Some(Duration::from_secs(5)));
    let (config, _) = run("--grpc-keepalive-min-time 0s");
    assert_eq!(config.keepalive.client_interval_min, Some(Duration::from_secs(300)));
    assert_eq!(config.compaction.batch_limit, 1000);
    let (config, warnings) = run("--watch-progress-notify-interval 1ms --max-concurrent-streams 20000");
    assert_eq!(config.watch_progress_notify_interval, Duration::from_millis(100));
    assert_eq!(config.limits.concurrent_streams_max, 10_000);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

#[test]
fn a_config_file_silences_flags_and_environment() {
    let env = [("ETCD_NAME", "ignored"), ("ETCD_DATA_DIR", "ignored")];
    let Ok(Parsed::Run(config, warnings)) = parse_with("--config-file etcd.yml --name a --data-dir b", &env) else {
        panic!("the file is valid");
    };
    assert_eq!(config.name, "filed");
    assert_eq!(config.data_dir, Path::new("filed.etcd"));
    // In the file, etcd does not ask for the advertised URLs.
    assert_eq!(texts(&config.client.advertise_urls), ["http://10.9.8.7:7"]);
    assert_eq!(
        warnings,
        [
            "ignored because config file etcd.yml is given: --data-dir --name",
            "unknown config file key \"what\" is ignored",
        ]
    );
    let Ok(Parsed::Run(config, _)) = parse_with("", &[("ETCD_CONFIG_FILE", "etcd.yml")]) else { panic!("valid") };
    assert_eq!(config.name, "filed");
}

#[test]
fn help_lists_every_flag_and_version_begins_as_etcds() {
    let Ok(Parsed::Help(help)) = parse_with("--help", &[]) else { panic!("help") };
    for flag in FLAGS {
        assert!(help.contains(&format!("\n  --{} ", flag.name)), "{}", flag.name);
    }
    let Ok(Parsed::Version(version)) = parse_with("--version", &[]) else { panic!("version") };
    let starts: Vec<_> = version.lines().map(|line| line.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(starts, ["etcd Version", "Git SHA", "Go Version", "Go OS/Arch", "basalt Version"]);
    assert!(version.starts_with("etcd Version: 3.7.3\n"));
}
