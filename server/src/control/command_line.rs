//! The command line: words, then flags in any order, in the syntax of etcdutl.

use std::path::PathBuf;

use basalt_storage::mvcc::shard_map::ShardMap;
use thiserror::Error;

use super::cluster::{ClusterOptions, MemberCommand, ReseedOptions};
use super::cluster_line;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// The help of everything, or of one command.
    Help(Topic),
    /// The versions.
    Version,
    /// `snapshot restore FILE`
    Restore(Box<RestoreOptions>),
    /// `snapshot status FILE`
    Status(PathBuf),
    /// `check DIR`
    Check(CheckOptions),
    /// `status`
    ClusterStatus(ClusterOptions),
    /// `member ...`
    Member(MemberCommand, ClusterOptions),
    /// `reseed`
    Reseed(ReseedOptions, ClusterOptions),
    /// `openapi`
    OpenApi,
}

/// What is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CheckOptions {
    pub data_dir: PathBuf,
    pub wal_dir: Option<PathBuf>,
}

/// What help is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    All,
    Restore,
    Status,
    Check,
    ClusterStatus,
    Member,
    Reseed,
    OpenApi,
}

/// The flags of `snapshot restore`, with etcdutl's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RestoreOptions {
    pub file: PathBuf,
    pub data_dir: Option<PathBuf>,
    pub wal_dir: Option<PathBuf>,
    pub name: String,
    pub initial_cluster: String,
    pub initial_cluster_token: String,
    pub initial_advertise_peer_urls: String,
    pub skip_hash_check: bool,
    pub bump_revision: u64,
    pub mark_compacted: bool,
    pub initial_shards: ShardMap,
}

/// A command line that cannot be parsed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}; see 'basaltctl --help'")]
pub(super) struct UsageError(pub(super) String);

/// Whether a flag has a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Value,
    Nothing,
}

/// A flag as it stands on the command line.
pub(super) struct Given {
    pub(super) name: String,
    pub(super) value: Option<String>,
}

/// Reads the arguments behind the program's name.
pub(super) fn read(args: &[String]) -> Result<Command, UsageError> {
    let (words, flags) = split(args)?;
    let help = flags.iter().any(|flag| matches!(flag.name.as_str(), "help" | "h"));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match (words.as_slice(), help) {
        (["snapshot", "restore", ..], true) | (["help", "snapshot", "restore"], _) => Ok(Command::Help(Topic::Restore)),
        (["snapshot", "status", ..], true) | (["help", "snapshot", "status"], _) => Ok(Command::Help(Topic::Status)),
        (["check", ..], true) | (["help", "check"], _) => Ok(Command::Help(Topic::Check)),
        (["status", ..], true) | (["help", "status"], _) => Ok(Command::Help(Topic::ClusterStatus)),
        (["member", ..], true) | (["help", "member", ..], _) => Ok(Command::Help(Topic::Member)),
        (["reseed", ..], true) | (["help", "reseed"], _) => Ok(Command::Help(Topic::Reseed)),
        (["openapi", ..], true) | (["help", "openapi"], _) => Ok(Command::Help(Topic::OpenApi)),
        (_, true) | (["help", ..], _) => Ok(Command::Help(Topic::All)),
        (["version"], _) => Ok(Command::Version),
        ([], _) if flags.iter().any(|flag| flag.name == "version") => Ok(Command::Version),
        (["snapshot", "restore", file], false) => {
            restore(file, flags).map(|options| Command::Restore(Box::new(options)))
        }
        (["snapshot", "restore", ..], false) => {
            Err(UsageError("snapshot restore requires exactly one argument".into()))
        }
        (["snapshot", "status", file], false) => {
            none(flags, "snapshot status").map(|()| Command::Status(PathBuf::from(file)))
        }
        (["snapshot", "status", ..], false) => Err(UsageError("snapshot status requires exactly one argument".into())),
        (["check", directory], false) => check(directory, flags).map(Command::Check),
        (["check", ..], false) => Err(UsageError("check requires exactly one argument".into())),
        (["status"], false) => cluster_line::status(flags),
        (["member", words @ ..], false) => cluster_line::member(words, flags),
        (["reseed"], false) => cluster_line::reseed(flags),
        (["openapi"], false) => none(flags, "openapi").map(|()| Command::OpenApi),
        (["openapi", ..], false) => Err(UsageError("openapi takes no argument".into())),
        ([], false) => Err(UsageError("no command was given".into())),
        (words, false) => Err(UsageError(format!("unknown command {:?}", words.join(" ")))),
    }
}

/// What a flag takes; `None` for an unknown one.
fn takes(name: &str) -> Option<Takes> {
    match name {
        "data-dir"
        | "wal-dir"
        | "name"
        | "initial-cluster"
        | "initial-cluster-token"
        | "initial-advertise-peer-urls"
        | "bump-revision"
        | "initial-memory-map-size"
        | "basalt-initial-shards"
        | "endpoints"
        | "cacert"
        | "cert"
        | "key"
        | "user"
        | "password"
        | "w"
        | "write-out"
        | "command-timeout"
        | "wait-timeout"
        | "member"
        | "peer-urls" => Some(Takes::Value),
        "learner" | "no-wait" => Some(Takes::Nothing),
        "skip-hash-check" | "mark-compacted" | "help" | "h" | "version" => Some(Takes::Nothing),
        _ => None,
    }
}

/// Words and flags; behind `--` all are words.
fn split(args: &[String]) -> Result<(Vec<String>, Vec<Given>), UsageError> {
    let (mut words, mut flags) = (Vec::new(), Vec::new());
    let mut rest = args.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            words.extend(rest.by_ref().cloned());
            break;
        }
        let body = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-').filter(|body| !body.is_empty()));
        let Some(body) = body else {
            words.push(argument.clone());
            continue;
        };
        let (name, value) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value.to_owned())));
        let value = match (takes(name), value) {
            (None, _) => return Err(UsageError(format!("unknown flag: {argument}"))),
            (Some(Takes::Value), None) => {
                let next = rest.next().ok_or_else(|| UsageError(format!("flag needs an argument: --{name}")))?;
                Some(next.clone())
            }
            (Some(_), value) => value,
        };
        flags.push(Given { name: name.to_owned(), value });
    }
    Ok((words, flags))
}

fn none(flags: Vec<Given>, command: &str) -> Result<(), UsageError> {
    match flags.first() {
        None => Ok(()),
        Some(flag) => Err(UsageError(format!("{command} has no flag --{}", flag.name))),
    }
}

fn check(directory: &str, flags: Vec<Given>) -> Result<CheckOptions, UsageError> {
    let mut options = CheckOptions { data_dir: PathBuf::from(directory), wal_dir: None };
    for Given { name, value } in flags {
        match name.as_str() {
            "wal-dir" => options.wal_dir = value.filter(|path| !path.is_empty()).map(PathBuf::from),
            _ => return Err(UsageError(format!("check has no flag --{name}"))),
        }
    }
    Ok(options)
}

fn restore(file: &str, flags: Vec<Given>) -> Result<RestoreOptions, UsageError> {
    let mut options = RestoreOptions {
        file: PathBuf::from(file),
        data_dir: None,
        wal_dir: None,
        name: "default".to_owned(),
        initial_cluster: "default=http://localhost:2380".to_owned(),
        initial_cluster_token: "etcd-cluster".to_owned(),
        initial_advertise_peer_urls: "http://localhost:2380".to_owned(),
        skip_hash_check: false,
        bump_revision: 0,
        mark_compacted: false,
        initial_shards: ShardMap::default(),
    };
    for Given { name, value } in flags {
        let text = || value.clone().unwrap_or_default();
        let path = || Some(text()).filter(|path| !path.is_empty()).map(PathBuf::from);
        match name.as_str() {
            "data-dir" => options.data_dir = path(),
            "wal-dir" => options.wal_dir = path(),
            "name" => options.name = text(),
            "initial-cluster" => options.initial_cluster = text(),
            "initial-cluster-token" => options.initial_cluster_token = text(),
            "initial-advertise-peer-urls" => options.initial_advertise_peer_urls = text(),
            "skip-hash-check" => options.skip_hash_check = switch(&name, value.as_deref())?,
            "mark-compacted" => options.mark_compacted = switch(&name, value.as_deref())?,
            "bump-revision" => options.bump_revision = number(&name, &text())?,
            "basalt-initial-shards" => options.initial_shards = shards(&text())?,
            // Of bbolt's memory map, which does not exist here.
            "initial-memory-map-size" => drop(number(&name, &text())?),
            _ => return Err(UsageError(format!("snapshot restore has no flag --{name}"))),
        }
    }
    if (options.bump_revision > 0) != options.mark_compacted {
        return Err(UsageError("--mark-compacted required if --bump-revision > 0, and the other way round".into()));
    }
    Ok(options)
}

pub(super) fn switch(name: &str, value: Option<&str>) -> Result<bool, UsageError> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(UsageError(format!("invalid value {other:?} for --{name}: use true or false"))),
    }
}

fn shards(value: &str) -> Result<ShardMap, UsageError> {
    let invalid =
        |why| UsageError(format!("--basalt-initial-shards: {why}; write it as main;events=/registry/events/"));
    value.parse().map_err(invalid)
}

fn number(name: &str, value: &str) -> Result<u64, UsageError> {
    value.parse().map_err(|_| UsageError(format!("invalid value {value:?} for --{name}: use a number, 0 or above")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Command, UsageError> {
        read(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn options(line: &str) -> RestoreOptions {
        match words(line) {
            Ok(Command::Restore(options)) => *options,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn flags_stand_anywhere_and_have_etcdutls_defaults() {
        let plain = options("snapshot restore s.db");
        assert_eq!(plain.file, PathBuf::from("s.db"));
        assert_eq!((plain.data_dir, plain.name.as_str(), plain.skip_hash_check), (None, "default", false));
        assert_eq!(plain.initial_cluster, "default=http://localhost:2380");
        for line in [
            "snapshot restore s.db --data-dir d --bump-revision 7 --mark-compacted --skip-hash-check=true",
            "--data-dir=d snapshot restore --mark-compacted=true --bump-revision=7 --skip-hash-check s.db",
            "snapshot --data-dir d restore --bump-revision=7 --mark-compacted --skip-hash-check -- s.db",
        ] {
            let options = options(line);
            assert_eq!((options.data_dir, options.bump_revision), (Some(PathBuf::from("d")), 7), "{line}");
            assert!(options.mark_compacted && options.skip_hash_check, "{line}");
        }
        let shards = options("snapshot restore s.db --basalt-initial-shards main;a=/a/").initial_shards;
        assert_eq!(shards.to_string(), "main;a=/a/");
        assert_eq!(options("snapshot restore s.db --initial-memory-map-size 10").bump_revision, 0);
    }

    #[test]
    fn help_and_version() {
        for (line, topic) in [
            ("--help", Topic::All),
            ("help", Topic::All),
            ("snapshot -h", Topic::All),
            ("snapshot restore --help", Topic::Restore),
            ("help snapshot status", Topic::Status),
            ("check --help", Topic::Check),
            ("openapi --help", Topic::OpenApi),
            ("help openapi", Topic::OpenApi),
        ] {
            assert_eq!(words(line), Ok(Command::Help(topic)), "{line}");
        }
        assert_eq!(words("version"), Ok(Command::Version));
        assert_eq!(words("--version"), Ok(Command::Version));
        assert_eq!(words("openapi"), Ok(Command::OpenApi));
    }

    #[test]
    fn a_check_names_its_directories() {
        let check = |wal_dir: Option<&str>| {
            Ok(Command::Check(CheckOptions { data_dir: "d".into(), wal_dir: wal_dir.map(PathBuf::from) }))
        };
        assert_eq!(words("check d"), check(None));
        assert_eq!(words("check --wal-dir=w d"), check(Some("w")));
    }

    #[test]
    fn refusals() {
        for (line, part) in [
            ("", "no command"),
            ("snapshot", "unknown command \"snapshot\""),
            ("snapshot restore", "exactly one argument"),
            ("snapshot restore a b", "exactly one argument"),
            ("snapshot restore a --nope", "unknown flag: --nope"),
            ("snapshot restore a --data-dir", "flag needs an argument: --data-dir"),
            ("snapshot restore a --mark-compacted", "--mark-compacted required if --bump-revision > 0"),
            ("snapshot restore a --bump-revision 5", "--mark-compacted required if --bump-revision > 0"),
            ("snapshot restore a --bump-revision -5 --mark-compacted", "invalid value \"-5\""),
            ("snapshot restore a --basalt-initial-shards main;a", "the shard \"a\" has no prefixes"),
            ("snapshot restore a --skip-hash-check=maybe", "use true or false"),
            ("check", "check requires exactly one argument"),
            ("check d --data-dir d", "check has no flag --data-dir"),
            ("openapi x", "openapi takes no argument"),
            ("openapi --name b", "openapi has no flag --name"),
            ("snapshot status a --name b", "snapshot status has no flag --name"),
        ] {
            let error = words(line).expect_err(line).to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
