//! The YAML file of `--config-file`. Keys are the names of flags, but for four blocks.

use serde_yaml_ng::Value as Yaml;

use super::error::ConfigError;
use super::flag::{Flag, Kind};
use super::settings::{Origin, Settings};

/// Keys inside blocks, which may stand in each other, and the flags that they set.
#[rustfmt::skip]
const BLOCK_KEYS: &[(&str, &str, &str)] = &[
    ("client-transport-security", "cert-file", "cert-file"),
    ("client-transport-security", "key-file", "key-file"),
    ("client-transport-security", "client-cert-file", "client-cert-file"),
    ("client-transport-security", "client-key-file", "client-key-file"),
    ("client-transport-security", "client-cert-auth", "client-cert-auth"),
    ("client-transport-security", "trusted-ca-file", "trusted-ca-file"),
    ("client-transport-security", "auto-tls", "auto-tls"),
    ("client-transport-security", "allowed-cn", "client-cert-allowed-cn"),
    ("client-transport-security", "allowed-hostname", "client-cert-allowed-hostname"),
    ("peer-transport-security", "cert-file", "peer-cert-file"),
    ("peer-transport-security", "key-file", "peer-key-file"),
    ("peer-transport-security", "client-cert-file", "peer-client-cert-file"),
    ("peer-transport-security", "client-key-file", "peer-client-key-file"),
    ("peer-transport-security", "client-cert-auth", "peer-client-cert-auth"),
    ("peer-transport-security", "trusted-ca-file", "peer-trusted-ca-file"),
    ("peer-transport-security", "auto-tls", "peer-auto-tls"),
    ("peer-transport-security", "allowed-cn", "peer-cert-allowed-cn"),
    ("peer-transport-security", "allowed-hostname", "peer-cert-allowed-hostname"),
    ("peer-transport-security", "skip-client-san-verification", "peer-skip-client-san-verification"),
    ("discovery-config", "token", "discovery-token"),
    ("discovery-config.client", "endpoints", "discovery-endpoints"),
    ("discovery-config.client", "dial-timeout", "discovery-dial-timeout"),
    ("discovery-config.client", "request-timeout", "discovery-request-timeout"),
    ("discovery-config.client", "keepalive-time", "discovery-keepalive-time"),
    ("discovery-config.client", "keepalive-timeout", "discovery-keepalive-timeout"),
    ("discovery-config.client.secure", "insecure-transport", "discovery-insecure-transport"),
    ("discovery-config.client.secure", "insecure-skip-tls-verify", "discovery-insecure-skip-tls-verify"),
    ("discovery-config.client.secure", "cert", "discovery-cert"),
    ("discovery-config.client.secure", "key", "discovery-key"),
    ("discovery-config.client.secure", "cacert", "discovery-cacert"),
    ("discovery-config.client.auth", "username", "discovery-user"),
    ("discovery-config.client.auth", "password", "discovery-password"),
    ("socket-options", "reuse-port", "socket-reuse-port"),
    ("socket-options", "reuse-address", "socket-reuse-address"),
];

/// Flags that the top level of etcd's file does not know: they stand in a block, or nowhere.
const FLAGS_NOWHERE: [&str; 6] = [
    "config-file",
    "client-crl-file",
    "discovery-fallback",
    "peer-crl-file",
    "raft-read-timeout",
    "raft-write-timeout",
];

/// Reads a config file. Unknown keys pass, as in etcd, but each is named in a warning.
///
/// # Errors
/// Not YAML, or a value that does not fit its key.
pub(super) fn read(path: &str, content: &[u8]) -> Result<Settings, ConfigError> {
    let correct = || format!("correct {path}");
    let root: Yaml = serde_yaml_ng::from_slice(content)
        .map_err(|error| ConfigError::invalid(format!("config file {path} is not YAML: {error}"), correct()))?;
    let mut settings = Settings::default();
    let entries = match root {
        Yaml::Mapping(entries) => entries,
        Yaml::Null => return Ok(settings),
        _ => return Err(ConfigError::invalid(format!("config file {path} holds no keys"), correct())),
    };
    for (key, value) in &entries {
        let key = key
            .as_str()
            .ok_or_else(|| ConfigError::invalid(format!("config file {path} has a key that is not text"), correct()))?;
        set_top_level(&mut settings, key, value)
            .map_err(|why| ConfigError::invalid(format!("config file {path}: {why}"), correct()))?;
    }
    Ok(settings)
}

fn set_top_level(settings: &mut Settings, key: &str, value: &Yaml) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    if is_block(key) {
        return set_block(settings, key, value);
    }
    if let Some((block, inner, _)) = BLOCK_KEYS.iter().find(|(_, _, flag)| *flag == key) {
        settings.warnings.push(format!("config file key {key:?} is ignored here: write it as {inner} under {block}"));
        return Ok(());
    }
    match Flag::find(key) {
        Some(flag) if !FLAGS_NOWHERE.contains(&key) && flag.kind != Kind::Unread => {
            set(settings, flag, key.to_owned(), value)
        }
        _ => {
            settings.warnings.push(format!("unknown config file key {key:?} is ignored"));
            Ok(())
        }
    }
}

fn is_block(path: &str) -> bool {
    BLOCK_KEYS.iter().any(|(block, _, _)| *block == path)
}

fn set_block(settings: &mut Settings, block: &str, value: &Yaml) -> Result<(), String> {
    let entries = value.as_mapping().ok_or_else(|| format!("key {block:?} must hold keys of its own"))?;
    entries.iter().try_for_each(|(inner, value)| set_in_block(settings, block, inner, value))
}

fn set_in_block(settings: &mut Settings, block: &str, key: &Yaml, value: &Yaml) -> Result<(), String> {
    let key = key.as_str().ok_or_else(|| format!("{block} has a key that is not text"))?;
    let path = format!("{block}.{key}");
    if value.is_null() {
        return Ok(());
    }
    // Blocks of the table nest three deep, so does this.
    if is_block(&path) {
        return set_block(settings, &path, value);
    }
    match BLOCK_KEYS.iter().find(|(known, inner, _)| *known == block && *inner == key) {
        Some((_, _, name)) => {
            let flag = Flag::find(name).expect("blocks name flags of the table");
            set(settings, flag, path, value)
        }
        None => {
            settings.warnings.push(format!("unknown config file key {path:?} is ignored"));
            Ok(())
        }
    }
}

fn set(settings: &mut Settings, flag: &'static Flag, key: String, value: &Yaml) -> Result<(), String> {
    let text = text_of(flag.kind, value).ok_or_else(|| format!("key {key:?} holds a value of the wrong kind"))?;
    // In the file, an empty text of these leaves the default.
    if text.is_empty() && matches!(flag.kind, Kind::Urls | Kind::Gates | Kind::OneOf(_)) {
        return Ok(());
    }
    // And zero that of this one.
    if flag.name == "self-signed-cert-validity" && text == "0" {
        return Ok(());
    }
    settings.set(flag, &text, Origin::Key(key.clone())).map_err(|why| format!("key {key:?} is invalid: {why}"))
}

/// The value in the syntax of the command line: nanoseconds get their unit, lists become comma-separated.
fn text_of(kind: Kind, value: &Yaml) -> Option<String> {
    match value {
        Yaml::Number(number) if kind == Kind::Duration => number.as_i64().map(|nanoseconds| format!("{nanoseconds}ns")),
        Yaml::Bool(on) => Some(on.to_string()),
        Yaml::Number(number) => Some(number.to_string()),
        Yaml::String(text) => Some(text.clone()),
        Yaml::Sequence(items) if matches!(kind, Kind::List | Kind::Urls | Kind::Origins) => {
            let items: Option<Vec<_>> = items.iter().map(|item| text_of(Kind::Text, item)).collect();
            items.map(|items| items.join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read_text(text: &str) -> Result<Settings, ConfigError> {
        read("a.yml", text.as_bytes())
    }

    #[test]
    fn keys_blocks_lists_and_nanoseconds() {
        let settings = read_text(
            "name: m1\nwal-dir:\nsnapshot-count: 7\npre-vote: false\nauto-compaction-retention: 1\n\
             watch-progress-notify-interval: 5000000000\ngrpc-keepalive-interval: 10m\n\
             log-outputs: [stderr, /tmp/x]\nlisten-client-urls: http://localhost:1,http://localhost:2\n\
             client-transport-security:\n  cert-file: c.pem\n  client-cert-auth: true\n\
             peer-transport-security:\n  key-file: k.pem\nsocket-options:\n  reuse-port: true\n",
        )
        .expect("valid");
        assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
        assert_eq!(settings.text("name"), "m1");
        assert!(!settings.is_set("wal-dir"));
        assert_eq!(settings.unsigned("snapshot-count"), 7);
        assert!(!settings.bool("pre-vote"));
        assert_eq!(settings.text("auto-compaction-retention"), "1");
        assert_eq!(settings.duration("watch-progress-notify-interval"), Some(Duration::from_secs(5)));
        assert_eq!(settings.duration("grpc-keepalive-interval"), Some(Duration::from_secs(600)));
        assert_eq!(settings.list("log-outputs"), ["stderr", "/tmp/x"]);
        assert_eq!(settings.urls("listen-client-urls").len(), 2);
        assert_eq!(settings.text("cert-file"), "c.pem");
        assert!(settings.bool("client-cert-auth"));
        assert_eq!(settings.text("peer-key-file"), "k.pem");
        assert!(settings.bool("socket-reuse-port"));
    }

    #[test]
    fn blocks_stand_in_blocks() {
        let settings = read_text(
            "discovery-config:\n  token: t\n  client:\n    endpoints: [a:1, b:1]\n    dial-timeout: 1000000000\n\
             \x20   secure: {cert: c, insecure-transport: false, server-name: d}\n    auth: {username: u, password: p}\n\
             discovery-token: elsewhere\ndiscovery-fallback: exit\n",
        )
        .expect("valid");
        assert_eq!(settings.text("discovery-token"), "t");
        assert_eq!(settings.list("discovery-endpoints"), ["a:1", "b:1"]);
        assert_eq!(settings.duration("discovery-dial-timeout"), Some(Duration::from_secs(1)));
        assert_eq!(settings.text("discovery-cert"), "c");
        assert!(!settings.bool("discovery-insecure-transport"));
        assert_eq!((&*settings.text("discovery-user"), &*settings.text("discovery-password")), ("u", "p"));
        assert_eq!(
            settings.warnings,
            [
                "unknown config file key \"discovery-config.client.secure.server-name\" is ignored",
                "config file key \"discovery-token\" is ignored here: write it as token under discovery-config",
                "unknown config file key \"discovery-fallback\" is ignored",
            ]
        );
    }

    #[test]
    fn unknown_and_misplaced_keys_are_named() {
        let settings = read_text("nope: 1\nforce: {a: b}\ncert-file: c.pem\npeer-transport-security:\n  what: 1\n")
            .expect("valid");
        assert!(!settings.is_set("cert-file"));
        assert_eq!(
            settings.warnings,
            [
                "unknown config file key \"nope\" is ignored",
                "unknown config file key \"force\" is ignored",
                "config file key \"cert-file\" is ignored here: write it as cert-file under client-transport-security",
                "unknown config file key \"peer-transport-security.what\" is ignored",
            ]
        );
    }

    #[test]
    fn refusals_name_file_and_key() {
        for (text, part) in [
            ("name: [", "a.yml is not YAML"),
            ("- a\n", "holds no keys"),
            ("1: a\n", "a key that is not text"),
            ("snapshot-count: many\n", "key \"snapshot-count\" is invalid"),
            ("name: {a: b}\n", "key \"name\" holds a value of the wrong kind"),
            ("client-transport-security: 1\n", "\"client-transport-security\" must hold keys"),
            ("feature-gates: Nope=true\n", "unrecognized feature gate: Nope"),
            ("discovery-config: {client: 1}\n", "\"discovery-config.client\" must hold keys"),
            (
                "discovery-config: {client: {dial-timeout: x}}\n",
                "key \"discovery-config.client.dial-timeout\" is invalid",
            ),
        ] {
            let error = read_text(text).expect_err(text);
            assert_eq!(error.exit_code(), 1);
            assert!(error.to_string().contains(part), "{text}: {error}");
            assert!(error.to_string().ends_with("; correct a.yml"), "{error}");
        }
        assert!(read_text("").is_ok());
    }
}
