//! The texts of `--help` and `--version`.

use super::feature_gates;
use super::flag::{Flag, Group, Kind, Status};
use super::flag_table::FLAGS;

/// The release of etcd whose behaviour is promised; `Status.version` and `/version` report it.
pub const fn etcd_version() -> &'static str {
    "3.7.3"
}

const USAGE: &str = "Usage:

  basalt [flags]
    Start a server. Without flags it listens on localhost and keeps its data in 'default.etcd'.

  basalt --config-file <path>
    Start a server with the settings of a YAML file. All other flags and the environment are then ignored.
    Durations in the file are whole nanoseconds, or text such as \"10m\".

  basalt --version
    Print the versions.

  basalt -h | --help
    Print this text.

Every flag can be set by an environment variable: --data-dir is ETCD_DATA_DIR.
A flag marked 'refused' is accepted with its default only.
";

/// Sections in etcd's order, with their titles.
const GROUPS: [(Group, &str); 11] = [
    (Group::Member, "Member"),
    (Group::Clustering, "Clustering"),
    (Group::Security, "Security"),
    (Group::Auth, "Auth"),
    (Group::Monitoring, "Profiling and Monitoring"),
    (Group::Logging, "Logging"),
    (Group::Tracing, "Distributed tracing"),
    (Group::Features, "Features"),
    (Group::Unsafe, "Unsafe feature"),
    (Group::Basalt, "Not in etcd"),
    (Group::Earlier, "Earlier names, accepted with a warning"),
];

/// The help text.
pub(super) fn help_text() -> String {
    let mut text = USAGE.to_owned();
    for (group, title) in GROUPS {
        text += &format!("\n{title}:\n");
        for flag in FLAGS.iter().filter(|flag| flag.group == group) {
            text += &flag_text(flag);
        }
    }
    text
}

fn flag_text(flag: &Flag) -> String {
    let default = match (flag.name, flag.default) {
        ("data-dir", _) => "${name}.etcd",
        (_, default) => default,
    };
    let head = format!("  --{} '{default}'\n", flag.name);
    let meaning = match flag.status {
        Status::Works => format!("    {}\n", flag.help),
        Status::Refused(why) => format!("    {} Refused: {why}.\n", flag.help),
        Status::Ignored(why) => format!("    {} Ignored: {why}.\n", flag.help),
        Status::AliasOf(target) => format!("    Use --{target}.\n"),
        Status::GateAlias(gate) => format!("    Use --feature-gates={gate}=true.\n"),
    };
    let gates: String = match flag.kind {
        Kind::Gates => feature_gates::help_lines().map(|line| format!("    {line}\n")).collect(),
        _ => String::new(),
    };
    head + &meaning + &gates
}

/// The output of `--version`: etcd's four lines, then ours. `build.rs` says which commit.
pub fn version_text() -> String {
    let commit = option_env!("BASALT_COMMIT").unwrap_or("unknown");
    format!(
        "etcd Version: {}\nGit SHA: {commit}\nGo Version: rust\nGo OS/Arch: {}/{}\nbasalt Version: {} ({commit})\n",
        etcd_version(),
        std::env::consts::OS,
        go_architecture(),
        env!("CARGO_PKG_VERSION"),
    )
}

/// The architecture as Go names it.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
