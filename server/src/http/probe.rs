//! What the pages ask the node.

use crate::metrics::Figures;

/// An alarm that is armed for some member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmKind {
    /// The quota is used up.
    NoSpace,
    /// Data was found damaged.
    Corrupt,
}

impl AlarmKind {
    /// etcd's word for it.
    pub fn name(self) -> &'static str {
        match self {
            AlarmKind::NoSpace => "NOSPACE",
            AlarmKind::Corrupt => "CORRUPT",
        }
    }
}

/// Versions of the data; our own is `etcd_version`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// The cluster version such as `3.7.0`, once there is one.
    pub cluster: Option<String>,
    /// The version of the stored data, if known.
    pub storage: Option<String>,
}

/// The node as the pages see it. Nothing here waits: a linearizable read was
/// made before, if [`PageRequest::reads_linearizably`](super::PageRequest::reads_linearizably).
pub trait Probe {
    /// Alarms armed in the cluster, of whatever member.
    fn alarms(&self) -> Vec<AlarmKind>;

    /// Whether stored data of this member was found damaged in this life of it.
    fn is_damaged(&self) -> bool;

    /// Whether this member knows a leader.
    fn has_leader(&self) -> bool;

    /// Whether this member has no vote.
    fn is_learner(&self) -> bool;

    /// Reads one key, if there is one, from this member's own data, with the rights of root.
    ///
    /// # Errors
    /// Why it failed, in etcd's words.
    fn serializable_read(&self) -> Result<(), String>;

    /// The same with the consent of the cluster.
    ///
    /// # Errors
    /// Why it failed, in etcd's words.
    fn linearizable_read(&self) -> Result<(), String>;

    /// Versions of cluster and data.
    fn versions(&self) -> Versions;

    /// What a scrape shows of the node.
    fn figures(&self) -> Figures;
}
