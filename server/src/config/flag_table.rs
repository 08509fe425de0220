//! The one table of all flags: name, kind, default, what becomes of it, what it means.
//!
//! A row of status `Works` must be read by `assemble.rs`; a test below holds defaults and aliases to their kinds.

use super::flag::Group::{
    Auth, Basalt, Clustering, Earlier, Features, Logging, Member, Monitoring, Security, Tracing, Unsafe,
};
use super::flag::Kind::{
    Bool, Duration, Gates, List, OneOf, Origins, Signed, Text, Unread, Unsigned, Unsigned32, Urls,
};
use super::flag::Status::{AliasOf, GateAlias, Ignored, Refused, Works};
use super::flag::{Flag, Group, Kind, Status};

const BBOLT: &str = "it tunes bbolt, which is not used here";
const NO_DEFRAG: &str = "storage never needs defragmentation here";
const CHECKPOINTS: &str = "a checkpoint after 5 s, 256 MiB or 200000 revisions shortens the log";
const UNREAD: &str = "etcd 3.7 takes no notice of it either";
const V2: &str = "etcd's v2 store and API do not exist here";

/// One row; a function only to keep the table narrow.
const fn row(
    group: Group,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    status: Status,
    help: &'static str,
) -> Flag {
    Flag { group, name, kind, default, status, help }
}

/// All flags, in the order of the help text.
#[rustfmt::skip]
pub const FLAGS: &[Flag] = &[
    row(Member, "name", Text, "default", Works, "Name of this member; the name under which --initial-cluster lists it."),
    row(Member, "data-dir", Text, "", Works, "Directory of the data. Empty means '<name>.etcd' in the working directory."),
    row(Member, "wal-dir", Text, "", Works, "Directory of the write-ahead log, if it shall lie on another disk than the data."),
    row(Member, "snapshot-count", Unsigned, "10000", Ignored(CHECKPOINTS), "Applied entries after which the raft log is shortened."),
    row(Member, "heartbeat-interval", Unsigned, "100", Works, "Milliseconds between two heartbeats of the leader."),
    row(Member, "election-timeout", Unsigned, "1000", Works,
        "Milliseconds without a leader after which an election starts; at least 5 heartbeats, at most 50000. \
         A lease lives at least one and a half times as long."),
    row(Member, "initial-election-tick-advance", Bool, "true", Works,
        "Shorten the first election timeout of a start that finds members and no leader."),
    row(Member, "listen-peer-urls", Urls, "http://localhost:2380", Works, "URLs on which other members reach this one."),
    row(Member, "listen-client-urls", Urls, "http://localhost:2379", Works,
        "URLs on which clients are served: gRPC, and HTTP too unless --listen-client-http-urls is given."),
    row(Member, "listen-client-http-urls", Urls, "", Works, "URLs for HTTP alone; --listen-client-urls then serves gRPC alone."),
    row(Member, "max-wals", Unsigned, "5", Ignored("segments of the log are recycled as soon as they are not needed"), "Log files to keep."),
    row(Member, "memory-mlock", Bool, "false", Works,
        "Keep all memory from being swapped out. Needs CAP_IPC_LOCK, or RLIMIT_MEMLOCK without limit."),
    row(Member, "quota-backend-bytes", Signed, "0", Works,
        "Bytes of live data above which writes are refused. 0 means 2 GiB, a negative number no quota."),
    row(Member, "backend-bbolt-freelist-type", Text, "", Ignored(BBOLT), "Free list of bbolt."),
    row(Member, "backend-batch-interval", Duration, "0s", Ignored(BBOLT), "Longest time between two commits of bbolt."),
    row(Member, "backend-batch-limit", Signed, "0", Ignored(BBOLT), "Most operations between two commits of bbolt."),
    row(Member, "max-txn-ops", Unsigned, "128", Works, "Most operations of one transaction."),
    row(Member, "max-request-bytes", Unsigned, "1572864", Works, "Largest request in bytes; at most 16777216."),
    row(Member, "max-concurrent-streams", Unsigned32, "4294967295", Works, "Most calls at a time on one connection; never more than 10000."),
    row(Member, "grpc-keepalive-min-time", Duration, "5s", Works,
        "A client that pings more often than this is disconnected, without a call more often than every 2h; 0 means 5m."),
    row(Member, "grpc-keepalive-interval", Duration, "2h", Works, "How often the server pings a quiet client; 0 never."),
    row(Member, "grpc-keepalive-timeout", Duration, "20s", Works, "How long a ping may stay unanswered; 0 for ever."),
    row(Member, "socket-reuse-port", Bool, "false", Works, "Set SO_REUSEPORT on listeners."),
    row(Member, "socket-reuse-address", Bool, "false", Works, "Set SO_REUSEADDR on listeners."),
    row(Member, "enable-grpc-gateway", Bool, "true", Works,
        "Serve the JSON gateway under /v3/."),
    row(Member, "raft-read-timeout", Duration, "5s", Works,
        "How long a connection between members may bring nothing, at least 5s; it is asked for something in between."),
    row(Member, "raft-write-timeout", Duration, "5s", Works,
        "How long what is written to another member may be taken by nobody, at least 5s."),
    row(Member, "feature-gates", Gates, "", Works,
        "Gates to open or close, as Name=true,Name=false. All show in the metrics; two do what they say, what the others would change is fixed:"),
    row(Member, "config-file", Text, "", Works, "YAML file with all settings. Flags and environment are then ignored."),

    row(Clustering, "initial-advertise-peer-urls", Urls, "http://localhost:2380", Works, "Peer URLs of this member that the others shall use."),
    row(Clustering, "initial-cluster", Text, "default=http://localhost:2380", Works,
        "Members of a new cluster, as name=URL,name=URL."),
    row(Clustering, "initial-cluster-state", OneOf(&["new", "existing"]), "new", Works, "'new' for a new cluster, 'existing' to join one. Ignored once there is data."),
    row(Clustering, "initial-cluster-token", Text, "etcd-cluster", Works, "A name that goes into cluster and member ids, to keep clusters apart."),
    row(Clustering, "advertise-client-urls", Urls, "http://localhost:2379", Works,
        "Client URLs that clients learn from the member list. Required with --listen-client-urls. If the first of those is on 0.0.0.0, \
         the default becomes the address of the machine's default route; so does that of --initial-advertise-peer-urls."),
    row(Clustering, "discovery-token", Text, "", Works,
        "Token of the cluster at a discovery service; takes the place of --initial-cluster-token. Needs --discovery-endpoints. \
         Ignored once there is data, as all of discovery."),
    row(Clustering, "discovery-endpoints", List, "", Works,
        "Endpoints of the discovery service, a cluster with etcd's v3 API, as host:port, http://host:port or https://host:port."),
    row(Clustering, "discovery-dial-timeout", Duration, "2s", Works, "How long a connection to the discovery service may take."),
    row(Clustering, "discovery-request-timeout", Duration, "5s", Works, "How long a request at the discovery service may take, without the connection."),
    row(Clustering, "discovery-keepalive-time", Duration, "2s", Works, "Time between pings to the discovery service; 0 never."),
    row(Clustering, "discovery-keepalive-timeout", Duration, "6s", Works, "How long such a ping may stay unanswered."),
    row(Clustering, "discovery-insecure-transport", Bool, "true", Works,
        "Reach endpoints without a scheme without TLS, unless another flag of discovery asks for it."),
    row(Clustering, "discovery-insecure-skip-tls-verify", Bool, "false", Works, "Take any certificate of the discovery service. For tests only."),
    row(Clustering, "discovery-cert", Text, "", Works, "Certificate chain shown to the discovery service, PEM."),
    row(Clustering, "discovery-key", Text, "", Works, "Private key of --discovery-cert, PEM."),
    row(Clustering, "discovery-cacert", Text, "", Works, "Certificates that sign the discovery service's, PEM; empty means those that the system trusts."),
    row(Clustering, "discovery-user", Text, "", Works, "User at the discovery service, as name, or as name:password."),
    row(Clustering, "discovery-password", Text, "", Works, "Password of --discovery-user."),
    row(Clustering, "discovery-fallback", OneOf(&["exit", "proxy"]), "exit", Works, "What to do when discovery fails: 'exit'. 'proxy' is refused, as in etcd."),
    row(Clustering, "discovery-srv", Text, "", Works,
        "DNS domain whose SRV records _etcd-server-ssl._tcp and _etcd-server._tcp list the members' peer URLs."),
    row(Clustering, "discovery-srv-name", Text, "", Works, "Suffix of the services' names: 'a' asks for _etcd-server-ssl-a and _etcd-server-a."),
    row(Clustering, "strict-reconfig-check", Bool, "true", Works, "Refuse member changes that would lose the quorum."),
    row(Clustering, "pre-vote", Bool, "true", Works, "Ask for votes before an election, so that a returning member does not disturb."),
    row(Clustering, "auto-compaction-retention", Text, "0", Works, "History that automatic compaction keeps; 0 turns it off."),
    row(Clustering, "auto-compaction-mode", Text, "periodic", Works,
        "Unit of --auto-compaction-retention: 'periodic' is a duration (a bare number means hours), 'revision' a count."),

    row(Security, "cert-file", Text, "", Works, "Certificate chain of this server towards clients, PEM."),
    row(Security, "key-file", Text, "", Works, "Private key of --cert-file, PEM: PKCS#1, SEC1 or PKCS#8."),
    row(Security, "client-cert-auth", Bool, "false", Works, "Require client certificates; their common name is the user."),
    row(Security, "client-cert-file", Text, "", Works,
        "Certificate with which etcd's gateway calls its own server. The one here calls it without a connection: the file has to be in order, no more."),
    row(Security, "client-key-file", Text, "", Works, "Key of --client-cert-file."),
    row(Security, "client-crl-file", Text, "", Works, "Revoked client certificates: a list in DER or PEM, read again when it changes."),
    row(Security, "client-cert-allowed-hostname", List, "", Works,
        "Host names and addresses; a client's certificate must be good for one of them. Needs --trusted-ca-file."),
    row(Security, "client-cert-allowed-cn", List, "", Works,
        "Common names that clients may have. In etcd only the config file has it: allowed-cn under client-transport-security."),
    row(Security, "trusted-ca-file", Text, "", Works, "Certificates that sign clients', PEM. If given, clients need a certificate."),
    row(Security, "auto-tls", Bool, "false", Works,
        "Serve clients with a certificate made at the first start and kept in the data directory, under fixtures/client."),
    row(Security, "peer-cert-file", Text, "", Works, "Certificate chain towards other members, PEM."),
    row(Security, "peer-key-file", Text, "", Works, "Private key of --peer-cert-file."),
    row(Security, "peer-client-cert-auth", Bool, "false", Works, "Require certificates of other members."),
    row(Security, "peer-client-cert-file", Text, "", Works, "Certificate for calls to other members, if not --peer-cert-file."),
    row(Security, "peer-client-key-file", Text, "", Works, "Key of --peer-client-cert-file."),
    row(Security, "peer-trusted-ca-file", Text, "", Works, "Certificates that sign other members', PEM."),
    row(Security, "peer-cert-allowed-cn", List, "", Works, "Common names that other members may have."),
    row(Security, "peer-cert-allowed-hostname", List, "", Works, "Host names that other members may have."),
    row(Security, "peer-auto-tls", Bool, "false", Works,
        "Talk to other members with a certificate made here, kept under fixtures/peer. Nobody's is verified then."),
    row(Security, "self-signed-cert-validity", Unsigned, "1", Works, "Years that a generated certificate is valid, 1 to 292."),
    row(Security, "peer-crl-file", Text, "", Works, "Revoked certificates of members."),
    row(Security, "peer-skip-client-san-verification", Bool, "false", Works,
        "Let in members whose certificates name other addresses than the one they come from."),
    row(Security, "cipher-suites", List, "", Works, "Cipher suites of TLS 1.2, in Go's names; empty means all that are safe."),
    row(Security, "cors", Origins, "*", Works, "Origins whose web pages may call the HTTP API; '*' or empty means all."),
    row(Security, "host-whitelist", List, "*", Works, "Host names that plain HTTP requests may ask for; '*' or empty means all."),
    row(Security, "tls-min-version", Text, "TLS1.2", Works, "Oldest TLS version: TLS1.2 or TLS1.3."),
    row(Security, "tls-max-version", Text, "", Works, "Newest TLS version: TLS1.2 or TLS1.3; empty means the newest there is."),

    row(Auth, "auth-token", Text, "simple", Works, "Kind of token that users get: 'simple', or 'jwt,sign-method=RS256,priv-key=FILE,pub-key=FILE,ttl=5m'."),
    row(Auth, "bcrypt-cost", Unsigned, "10", Works, "Cost of password hashes, 4 to 31: each step doubles the work."),
    row(Auth, "auth-token-ttl", Unsigned, "300", Works, "Seconds that a simple token lives after it was used last."),

    row(Monitoring, "enable-pprof", Bool, "false", Works,
        "Serve profiles of this process under /debug/pprof/ of the client URLs, to whoever reaches them; for `go tool pprof`."),
    row(Monitoring, "metrics", Text, "basic", Works, "'basic', or 'extensive' with histograms of gRPC calls."),
    row(Monitoring, "listen-metrics-urls", Urls, "", Works, "URLs for metrics and health checks alone; https uses --cert-file."),

    row(Logging, "logger", Text, "zap", Ignored("there is one logger, which writes zap's format"), "Always 'zap'."),
    row(Logging, "log-outputs", List, "default", Works, "'default' and 'stderr', 'stdout', or paths of files to append to; or 'systemd/journal' alone."),
    row(Logging, "log-level", Text, "info", Works, "Least level that is logged: debug, info, warn, error, panic or fatal."),
    row(Logging, "log-format", Text, "json", Works, "'json' or 'console'."),
    row(Logging, "enable-log-rotation", Bool, "false", Works, "Rotate the one file of --log-outputs."),
    row(Logging, "log-rotation-config-json", Text,
        r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#,
        Works, "When, with --enable-log-rotation: maxsize in MiB, maxage in days (0 for ever), maxbackups (0 all), names in local time, gzip."),
    row(Logging, "warning-unary-request-duration", Duration, "300ms", Works, "A call that takes longer is logged."),

    row(Tracing, "enable-distributed-tracing", Bool, "false", Works, "Export traces of calls to a collector of OpenTelemetry, by gRPC."),
    row(Tracing, "distributed-tracing-address", Text, "localhost:4317", Works, "Host and port of the collector; not encrypted."),
    row(Tracing, "distributed-tracing-service-name", Text, "etcd", Works, "Name of the service in traces, the same for all members."),
    row(Tracing, "distributed-tracing-instance-id", Text, "", Works, "Id of this member in traces; empty for none."),
    row(Tracing, "distributed-tracing-sampling-rate", Signed, "0", Works,
        "Traces to keep of a million that begin here; of others the caller decides."),

    row(Features, "corrupt-check-time", Duration, "0s", Works, "How often data of members is compared; 0 is every minute."),
    row(Features, "compact-hash-check-time", Duration, "1m", Works, "How often the leader compares the hashes that compactions left, with the gate CompactHashCheck."),
    row(Features, "compaction-batch-limit", Signed, "1000", Works, "Revisions that one step of a compaction drops, about."),
    row(Features, "compaction-sleep-interval", Duration, "10ms", Works, "Pause between two steps of a compaction."),
    row(Features, "watch-progress-notify-interval", Duration, "10m", Works, "How often a quiet watch is told the revision; at least 100ms."),
    row(Features, "warning-apply-duration", Duration, "100ms", Works, "Applying an entry for longer is logged."),
    row(Features, "bootstrap-defrag-threshold-megabytes", Unsigned, "0", Ignored(NO_DEFRAG), "Free space above which a start defragments."),
    row(Features, "max-learners", Signed, "1", Works, "Most learners in the cluster."),
    row(Features, "downgrade-check-time", Duration, "5s", Ignored("members of basalt stay of their version; the way down is a snapshot"), "How often it is checked whether all members are of a downgrade's version."),
    row(Features, "snapshot-catchup-entries", Unsigned, "5000", Works, "Entries that stay in memory for members that lag behind, up to 64 MiB."),

    row(Unsafe, "force-new-cluster", Bool, "false", Works,
        "Remove all other members, which are lost for good, and go on alone with the data of this one. Take it away afterwards."),
    row(Unsafe, "unsafe-no-fsync", Bool, "false", Refused("every acknowledged write is synced"), "Do not sync. Loses data."),

    row(Basalt, "basalt-memory-limit", Unsigned, "0", Works,
        "Bytes of memory to plan with: caches, answers, recent revisions and watches take shares of it. The index of keys comes \
         on top. 0 means the limit of the control group, else all of the machine; at least 67108864."),
    row(Basalt, "basalt-initial-shards", Text, "main;events=/registry/events/;leases=/registry/leases/,/registry/masterleases/", Works,
        "How a new data directory splits its keys: a name, which takes the rest, then name=/prefix/,/prefix/ separated by ';'. \
         At most 16 shards. Ignored once there is data."),

    row(Earlier, "max-snapshots", Unsigned, "5", Ignored("there are no snapshot files to keep"), "Snapshot files to keep."),
    row(Earlier, "v2-deprecation", Text, "", Ignored(V2), "Stage of the removal of v2."),
    row(Earlier, "enable-v2", Bool, "false", Refused(V2), "Serve the v2 API."),
    row(Earlier, "proxy", Text, "off", Refused(V2), "Proxy of the v2 API."),
    row(Earlier, "cluster-active-size", Unread, "", Ignored(UNREAD), "Members that vote."),
    row(Earlier, "cluster-remove-delay", Unread, "", Ignored(UNREAD), "How long a silent member stays."),
    row(Earlier, "cluster-sync-interval", Unread, "", Ignored(UNREAD), "How often a standby looks for the members."),
    row(Earlier, "config", Unread, "", Ignored(UNREAD), "Config file; see --config-file."),
    row(Earlier, "force", Unread, "", Ignored(UNREAD), "Overwrite the data directory."),
    row(Earlier, "max-result-buffer", Unread, "", Ignored(UNREAD), "Answers to keep."),
    row(Earlier, "max-retry-attempts", Unread, "", Ignored(UNREAD), "How often to try to join."),
    row(Earlier, "peer-heartbeat-interval", Unread, "", Ignored(UNREAD), "See --heartbeat-interval."),
    row(Earlier, "peer-election-timeout", Unread, "", Ignored(UNREAD), "See --election-timeout."),
    row(Earlier, "retry-interval", Unread, "", Ignored(UNREAD), "Time between two tries to join."),
    row(Earlier, "snapshot", Unread, "", Ignored(UNREAD), "Whether to write snapshots."),
    row(Earlier, "v", Unread, "", Ignored(UNREAD), "Say more."),
    row(Earlier, "vv", Unread, "", Ignored(UNREAD), "Say much more."),
    row(Earlier, "test.coverprofile", Unread, "", Ignored(UNREAD), "A file of Go's tests."),
    row(Earlier, "test.outputdir", Unread, "", Ignored(UNREAD), "A directory of Go's tests."),
    row(Earlier, "experimental-initial-corrupt-check", Bool, "false", GateAlias("InitialCorruptCheck"), ""),
    row(Earlier, "experimental-compact-hash-check-enabled", Bool, "false", GateAlias("CompactHashCheck"), ""),
    row(Earlier, "experimental-enable-lease-checkpoint", Bool, "false", GateAlias("LeaseCheckpoint"), ""),
    row(Earlier, "experimental-enable-lease-checkpoint-persist", Bool, "false", GateAlias("LeaseCheckpointPersist"), ""),
    row(Earlier, "experimental-set-member-localaddr", Bool, "false", GateAlias("SetMemberLocalAddr"), ""),
    row(Earlier, "experimental-stop-grpc-service-on-defrag", Bool, "false", GateAlias("StopGRPCServiceOnDefrag"), ""),
    row(Earlier, "experimental-txn-mode-write-with-shared-buffer", Bool, "true", GateAlias("TxnModeWriteWithSharedBuffer"), ""),
    row(Earlier, "experimental-bootstrap-defrag-threshold-megabytes", Unsigned, "0", AliasOf("bootstrap-defrag-threshold-megabytes"), ""),
    row(Earlier, "experimental-compact-hash-check-time", Duration, "1m", AliasOf("compact-hash-check-time"), ""),
    row(Earlier, "experimental-compaction-batch-limit", Signed, "1000", AliasOf("compaction-batch-limit"), ""),
    row(Earlier, "experimental-compaction-sleep-interval", Duration, "10ms", AliasOf("compaction-sleep-interval"), ""),
    row(Earlier, "experimental-corrupt-check-time", Duration, "0s", AliasOf("corrupt-check-time"), ""),
    row(Earlier, "experimental-distributed-tracing-address", Text, "localhost:4317", AliasOf("distributed-tracing-address"), ""),
    row(Earlier, "experimental-distributed-tracing-instance-id", Text, "", AliasOf("distributed-tracing-instance-id"), ""),
    row(Earlier, "experimental-distributed-tracing-sampling-rate", Signed, "0", AliasOf("distributed-tracing-sampling-rate"), ""),
    row(Earlier, "experimental-distributed-tracing-service-name", Text, "etcd", AliasOf("distributed-tracing-service-name"), ""),
    row(Earlier, "experimental-downgrade-check-time", Duration, "5s", AliasOf("downgrade-check-time"), ""),
    row(Earlier, "experimental-enable-distributed-tracing", Bool, "false", AliasOf("enable-distributed-tracing"), ""),
    row(Earlier, "experimental-max-learners", Signed, "1", AliasOf("max-learners"), ""),
    row(Earlier, "experimental-memory-mlock", Bool, "false", AliasOf("memory-mlock"), ""),
    row(Earlier, "experimental-peer-skip-client-san-verification", Bool, "false", AliasOf("peer-skip-client-san-verification"), ""),
    row(Earlier, "experimental-snapshot-catchup-entries", Unsigned, "5000", AliasOf("snapshot-catchup-entries"), ""),
    row(Earlier, "experimental-warning-apply-duration", Duration, "100ms", AliasOf("warning-apply-duration"), ""),
    row(Earlier, "experimental-warning-unary-request-duration", Duration, "300ms", AliasOf("warning-unary-request-duration"), ""),
    row(Earlier, "experimental-watch-progress-notify-interval", Duration, "10m", AliasOf("watch-progress-notify-interval"), ""),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::feature_gates::FeatureGates;
    use super::super::value::Value;
    use super::*;

    #[test]
    fn names_are_unique_and_defaults_fit_their_kind() {
        let names: BTreeSet<_> = FLAGS.iter().map(|flag| flag.name).collect();
        assert_eq!(names.len(), FLAGS.len());
        for flag in FLAGS {
            assert!(Value::parse(flag.kind, flag.default).is_ok(), "{}", flag.name);
        }
    }

    #[test]
    fn aliases_lead_to_a_flag_or_gate_of_the_same_kind_and_default() {
        for flag in FLAGS {
            match flag.status {
                AliasOf(target) => {
                    let target = Flag::find(target).expect("an alias names a flag");
                    assert_eq!((flag.kind, flag.default), (target.kind, target.default), "{}", flag.name);
                }
                GateAlias(gate) => FeatureGates::default().add(&format!("{gate}=true")).expect("a gate of etcd's"),
                Works | Refused(_) | Ignored(_) => assert!(!flag.help.is_empty(), "{}", flag.name),
            }
        }
    }
}
