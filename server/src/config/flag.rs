//! What one flag is.

use super::flag_table::FLAGS;

/// The section of the help text; etcd's grouping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// This member: its directories, listeners and limits.
    Member,
    /// How members find each other.
    Clustering,
    /// TLS and who may connect.
    Security,
    /// Users and tokens.
    Auth,
    /// Metrics and profiles.
    Monitoring,
    /// What is logged, and where.
    Logging,
    /// OpenTelemetry.
    Tracing,
    /// Tuning.
    Features,
    /// What can lose data.
    Unsafe,
    /// What etcd does not have.
    Basalt,
    /// Names from earlier releases of etcd.
    Earlier,
}

/// What values a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// `true` or `false`; the bare flag is `true`.
    Bool,
    /// 64 bits, no sign.
    Unsigned,
    /// 32 bits, no sign.
    Unsigned32,
    /// 64 bits with sign.
    Signed,
    /// Go's syntax on the command line, nanoseconds in the file.
    Duration,
    /// Comma-separated URLs.
    Urls,
    /// Comma-separated text.
    List,
    /// Comma-separated URLs, or `*`.
    Origins,
    /// Comma-separated `Name=bool`.
    Gates,
    /// Any text, and the bare flag takes none: nobody reads it.
    Unread,
}

/// What becomes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It does what etcd's does.
    Works,
    /// Its default is accepted, any other value stops the start, now and later, for this reason.
    Refused(&'static str),
    /// It tunes machinery that does not exist here: any value is accepted, with a warning that says this.
    Ignored(&'static str),
    /// An earlier name of this flag.
    AliasOf(&'static str),
    /// An earlier name of this feature gate.
    GateAlias(&'static str),
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Section of the help text.
    pub group: Group,
    /// Its name, without dashes.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// The default, in the syntax of the command line.
    pub default: &'static str,
    /// What becomes of it.
    pub status: Status,
    /// What it means, in a sentence or two.
    pub help: &'static str,
}

impl Flag {
    /// The flag of that name.
    pub fn find(name: &str) -> Option<&'static Flag> {
        FLAGS.iter().find(|flag| flag.name == name)
    }

    /// The environment variable that sets it: `ETCD_`, upper case, `_` for `-`.
    pub fn environment_variable(&self) -> String {
        format!("ETCD_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }
}
