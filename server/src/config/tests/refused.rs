//! What cannot start.

use super::*;

#[test]
fn what_cannot_start_says_why_and_what_to_do() {
    for (line, part) in [
        ("--listen-client-urls http://localhost:1", "--advertise-client-urls is required when --listen-client-urls"),
        (
            "--listen-client-urls https://127.0.0.1:1 --advertise-client-urls https://a:1 --auto-tls --self-signed-cert-validity 0",
            "it should be greater than 0",
        ),
        ("--peer-auto-tls --self-signed-cert-validity 293", "--self-signed-cert-validity is 293 years"),
        ("--peer-auto-tls --peer-client-cert-auth", "--peer-client-cert-auth cannot be kept with --peer-auto-tls"),
        ("--peer-auto-tls --peer-trusted-ca-file cert.pem", "--peer-trusted-ca-file cannot be kept"),
        ("--peer-auto-tls --peer-cert-allowed-cn a", "--peer-cert-allowed-cn cannot be kept"),
        ("--cert-file cert.pem --key-file key.pem --client-cert-allowed-hostname a", "no certificate is asked for"),
        ("--cert-file cert.pem --key-file key.pem --client-crl-file crl.der", "--client-crl-file revokes certificates"),
        ("--peer-cert-file cert.pem --peer-key-file key.pem --peer-client-cert-auth", "--peer-client-cert-auth needs"),
        (
            "--peer-cert-file cert.pem --peer-key-file key.pem --peer-cert-allowed-cn a",
            "names of peer certificates are limited",
        ),
        (
            "--peer-cert-file cert.pem --peer-key-file key.pem --peer-cert-allowed-hostname a",
            "set --peer-trusted-ca-file to those that sign peers' certificates",
        ),
        (
            "--peer-cert-file cert.pem --peer-key-file key.pem --peer-crl-file crl.der",
            "--peer-crl-file revokes certificates, and none is asked for",
        ),
        // Given certificates end what is generated, and what verifies counts.
        (
            "--peer-auto-tls --peer-cert-file cert.pem --peer-key-file key.pem --peer-client-cert-auth",
            "--peer-client-cert-auth needs",
        ),
        (
            "--cert-file cert.pem --key-file key.pem --trusted-ca-file cert.pem --client-cert-allowed-hostname a \
             --client-cert-allowed-cn b",
            "AllowedCNs and AllowedHostnames are mutually exclusive",
        ),
        ("--client-cert-file cert.pem", "--client-cert-file is set without --client-key-file"),
        ("--client-cert-file absent --client-key-file key.pem", "cannot read absent of --client-cert-file"),
        ("--enable-log-rotation", "--log-outputs requires a single file path"),
        ("--enable-log-rotation --log-outputs a,b", "--log-outputs requires a single file path"),
        ("--enable-log-rotation --log-outputs /dev/null", "--log-outputs requires a single file path"),
        (
            "--enable-log-rotation --log-outputs a --log-rotation-config-json {",
            "improperly formatted log rotation config",
        ),
        (
            "--enable-log-rotation --log-outputs a --log-rotation-config-json {\"maxsize\":\"a\"}",
            "invalid log rotation config",
        ),
        ("--unsafe-no-fsync", "--unsafe-no-fsync is refused: every acknowledged write is synced"),
        ("--enable-v2", "--enable-v2 is refused"),
        ("--config-file etcd-refused.yml", "config file key \"unsafe-no-fsync\" is refused"),
        ("--compact-hash-check-time=0s", "--compact-hash-check-time must be >0"),
        ("--auth-token jwt,pub-key=a", "--auth-token: sign-method is missing"),
        ("--auth-token jwt,pub-key", "\"pub-key\" is no option"),
        ("--auth-token jwt,ttl=1m,ttl=2m", "ttl stands there twice"),
        ("--auth-token jwt,sign-method=RS256,ttl=x", "ttl \"x\" is no time"),
        ("--auth-token fancy", "there are no tokens of kind \"fancy\""),
        ("--config-file absent.yml", "cannot read config file absent.yml"),
        ("--election-timeout 400", "--election-timeout[400ms] should be at least as 5 times"),
        ("--election-timeout 60000", "is too long"),
        ("--heartbeat-interval 0", "--heartbeat-interval must be >0"),
        ("--initial-cluster default", "--initial-cluster: URL scheme must be"),
        ("--auto-compaction-mode weekly", "unknown mode \"weekly\""),
        ("--auto-compaction-retention x", "use a duration such as 30m"),
        ("--auto-compaction-mode revision --auto-compaction-retention -5", "use a number of revisions"),
        ("--auto-compaction-mode revision --auto-compaction-retention x", "use a number of revisions"),
        ("--listen-peer-urls http://example.org:1", "expected IP in URL for binding"),
        ("--listen-metrics-urls https://localhost:1", "must be provided for client url https://localhost:1"),
        ("--listen-peer-urls https://127.0.0.1:1", "must be provided for peer url https://127.0.0.1:1"),
        ("--cert-file cert.pem", "--cert-file is set without --key-file"),
        ("--peer-key-file key.pem", "--peer-key-file is set without --peer-cert-file"),
        ("--cert-file absent --key-file key.pem", "cannot read absent of --cert-file"),
        ("--cert-file cert.pem --key-file garbage", "cannot use garbage of --key-file: it holds no private key"),
        ("--cert-file cert.pem --key-file key.pem --client-cert-auth", "--client-cert-auth needs certificates"),
        (
            "--peer-cert-file cert.pem --peer-key-file key.pem --peer-client-cert-auth",
            "--peer-client-cert-auth needs certificates to trust; set --peer-trusted-ca-file",
        ),
        (
            "--feature-gates LeaseCheckpointPersist=true",
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint; add",
        ),
        ("--log-outputs systemd/journal,stderr", "--log-outputs: \"systemd/journal\" cannot be combined"),
        ("--tls-min-version TLS1.0", "unexpected TLS version"),
        ("--tls-min-version TLS1.3 --tls-max-version TLS1.2", "is greater than max version"),
        ("--cipher-suites TLS_WHAT", "unexpected TLS cipher suite \"TLS_WHAT\""),
        ("--cipher-suites TLS_RSA_WITH_AES_128_CBC_SHA", "names weak cipher suites only"),
        (
            "--cipher-suites TLS_AES_128_GCM_SHA256 --tls-max-version TLS1.2",
            "--cipher-suites holds no cipher suite of TLS 1.2",
        ),
        ("--log-level loud", "unknown level \"loud\""),
        ("--log-format xml", "use json or console"),
        ("--basalt-initial-shards main;a", "--basalt-initial-shards: the shard \"a\" has no prefixes"),
        ("--basalt-initial-shards=", "--basalt-initial-shards: the name \"\" of a shard"),
        ("--basalt-memory-limit 1000", "use 0 or at least 67108864"),
        ("--max-request-bytes 0", "use 1 to"),
        ("--max-request-bytes 16777217", "use 1 to 16777216"),
        ("--discovery-token t", "both --discovery-token and --discovery-endpoints must be set"),
        ("--discovery-endpoints a:1", "both --discovery-token and --discovery-endpoints must be set"),
        ("--discovery-token t --discovery-endpoints a:1,", "--discovery-endpoints must not contain empty endpoints"),
        ("--discovery-token t --discovery-endpoints a", "--discovery-endpoints: URL address does not have the form"),
        ("--discovery-token t --discovery-endpoints a:1 --discovery-request-timeout 0s", "request-timeout must be >0"),
        (
            "--discovery-token t --discovery-endpoints a:1 --discovery-cert c",
            "--discovery-cert is set without --discovery-key",
        ),
        (
            "--discovery-token t --discovery-endpoints a:1 --discovery-key k",
            "--discovery-key is set without --discovery-cert",
        ),
        ("--discovery-fallback proxy", "--discovery-fallback can't be configured as \"proxy\""),
        (
            "--discovery-srv a --initial-cluster b=http://c:1",
            "multiple discovery or bootstrap flags are set. Choose one",
        ),
        (
            "--discovery-srv a --discovery-token t --discovery-endpoints a:1",
            "multiple discovery or bootstrap flags are set",
        ),
        (
            "--initial-cluster default=http://localhost:2380 --discovery-token t --discovery-endpoints a:1",
            "multiple discovery or bootstrap flags are set",
        ),
        (
            "--advertise-client-urls http://a:1 --listen-client-urls http://127.0.0.1:1 \
             --listen-client-http-urls http://127.0.0.1:1",
            "on the same url",
        ),
    ] {
        let error = parse_with(line, &[]).expect_err(line);
        assert_eq!(error.exit_code(), 1, "{line}");
        assert!(error.to_string().contains(part), "{line}: {error}");
        assert!(!error.to_string().contains('\n') && error.to_string().contains("; "), "{line}: {error}");
    }
}
