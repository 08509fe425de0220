//! The feature gates of etcd 3.7 (`server/features/etcd_features.go`).

use std::collections::BTreeMap;

use self::Here::{Instead, Kept, Works};

/// A feature gate that etcd 3.7 knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FeatureGate {
    /// The leader compares compaction hashes of the followers.
    CompactHashCheck,
    /// Keepalives do not wait for the applied index.
    FastLeaseKeepAlive,
    /// The data of members is compared before the first request is served.
    InitialCorruptCheck,
    /// The leader replicates what remains of each lease.
    LeaseCheckpoint,
    /// What remains of a lease is kept on disk.
    LeaseCheckpointPersist,
    /// Some requests are applied first under overload.
    PriorityRequest,
    /// Members are dialled from the address of the first peer URL that this one advertises.
    SetMemberLocalAddr,
    /// No requests are served while a defragmentation runs. Here it never pauses the service.
    StopGRPCServiceOnDefrag,
    /// Write transactions read through a shared buffer.
    TxnModeWriteWithSharedBuffer,
}

/// What is known of a gate.
struct GateRow {
    gate: FeatureGate,
    name: &'static str,
    default: bool,
    alpha: bool,
    here: Here,
}

/// What holds here.
#[derive(Clone, Copy)]
enum Here {
    /// What it is set to.
    Works(&'static str),
    /// Whatever it is set to, what it promises: whoever asks for it has it.
    Kept(&'static str),
    /// Whatever it is set to, something else: whoever asks for it is warned.
    Instead(&'static str),
}

const fn row(gate: FeatureGate, name: &'static str, default: bool, alpha: bool, here: Here) -> GateRow {
    GateRow { gate, name, default, alpha, here }
}

/// All gates, alpha features and beta features, in the order of the help text.
#[rustfmt::skip]
const GATES: [GateRow; 9] = [
    row(FeatureGate::CompactHashCheck, "CompactHashCheck", false, true, Works("The leader compares the hashes that compactions left, and raises CORRUPT.")),
    row(FeatureGate::FastLeaseKeepAlive, "FastLeaseKeepAlive", true, false, Instead("keepalives are always fast")),
    row(FeatureGate::InitialCorruptCheck, "InitialCorruptCheck", false, true,
        Works("A start compares HashKV with the other members, and stops if it differs. Manifest, index and log are checked always.")),
    row(FeatureGate::LeaseCheckpoint, "LeaseCheckpoint", false, true, Kept("what remains of a lease is always kept")),
    row(FeatureGate::LeaseCheckpointPersist, "LeaseCheckpointPersist", false, true, Kept("what remains of a lease is always kept")),
    row(FeatureGate::PriorityRequest, "PriorityRequest", false, true, Instead("requests are applied in their order")),
    row(FeatureGate::SetMemberLocalAddr, "SetMemberLocalAddr", false, true,
        Instead("connections to other members leave by the address that the system chooses")),
    row(FeatureGate::StopGRPCServiceOnDefrag, "StopGRPCServiceOnDefrag", false, true, Instead("a defragmentation never pauses the service")),
    row(FeatureGate::TxnModeWriteWithSharedBuffer, "TxnModeWriteWithSharedBuffer", true, false, Instead("it tunes bbolt, which is not used here")),
];

/// Which gates were set, and to what; all others have etcd's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates {
    set: BTreeMap<FeatureGate, bool>,
}

impl FeatureGates {
    /// Whether `gate` is on.
    pub fn enabled(&self, gate: FeatureGate) -> bool {
        let default = GATES.iter().any(|row| row.gate == gate && row.default);
        self.set.get(&gate).copied().unwrap_or(default)
    }

    /// Names of all gates that etcd 3.7 knows, with their state; for `etcd_server_feature_enabled`.
    pub fn states(&self) -> impl Iterator<Item = (&'static str, bool)> + '_ {
        GATES.iter().map(|row| (row.name, self.enabled(row.gate)))
    }

    /// The first gate that is on without the one that it needs, and that one; etcd starts with no such pair.
    pub(super) fn missing(&self) -> Option<(&'static str, &'static str)> {
        let persists_alone =
            self.enabled(FeatureGate::LeaseCheckpointPersist) && !self.enabled(FeatureGate::LeaseCheckpoint);
        persists_alone.then_some(("LeaseCheckpointPersist", "LeaseCheckpoint"))
    }

    /// One warning for each gate that was set to another value than its default and does not do what that promises.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> + '_ {
        GATES.iter().filter_map(|row| match row.here {
            Here::Instead(here) if self.enabled(row.gate) != row.default => {
                Some(format!("feature gate {}={} has no effect: {here}", row.name, self.enabled(row.gate)))
            }
            _ => None,
        })
    }

    /// Adds `Name=bool` pairs separated by commas to what is already set. `AllAlpha` and `AllBeta` set the gates of
    /// their stage that nothing else names.
    ///
    /// # Errors
    /// What is wrong, in etcd's words.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        let mut stages = Vec::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(format!("missing bool value for {}", pair.trim()))?;
            let (name, value) = (name.trim(), value.trim());
            let Some(on) = super::value::parse_bool(value) else {
                return Err(format!("invalid value of {name}={value}"));
            };
            match (name, GATES.iter().find(|row| row.name == name)) {
                (_, Some(row)) => drop(self.set.insert(row.gate, on)),
                ("AllAlpha", None) => stages.push((true, on)),
                ("AllBeta", None) => stages.push((false, on)),
                _ => return Err(format!("unrecognized feature gate: {name}")),
            }
        }
        for (alpha, on) in stages {
            for row in GATES.iter().filter(|row| row.alpha == alpha) {
                self.set.entry(row.gate).or_insert(on);
            }
        }
        Ok(())
    }
}

/// The help lines of all gates.
pub(super) fn help_lines() -> impl Iterator<Item = String> {
    GATES.iter().map(|GateRow { name, default, alpha, here, .. }| {
        let stage = if *alpha { "ALPHA" } else { "BETA" };
        let head = format!("{name}=true|false ({stage} - default={default}).");
        match here {
            Works(here) => format!("{head} {here}"),
            Kept(here) | Instead(here) => format!("{head} No effect: {here}."),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_overrides() {
        let mut gates = FeatureGates::default();
        assert!(!gates.enabled(FeatureGate::InitialCorruptCheck));
        assert!(gates.enabled(FeatureGate::FastLeaseKeepAlive));
        gates.add("InitialCorruptCheck=true, FastLeaseKeepAlive = f,").expect("known");
        assert!(gates.enabled(FeatureGate::InitialCorruptCheck));
        assert!(!gates.enabled(FeatureGate::FastLeaseKeepAlive));
    }

    #[test]
    fn a_gate_that_does_not_keep_its_promise_is_warned_of() {
        let mut gates = FeatureGates::default();
        gates.add("InitialCorruptCheck=true,FastLeaseKeepAlive=true").expect("known");
        assert_eq!(gates.warnings().count(), 0);
        gates.add("FastLeaseKeepAlive=false").expect("known");
        let warnings: Vec<String> = gates.warnings().collect();
        assert_eq!(warnings, ["feature gate FastLeaseKeepAlive=false has no effect: keepalives are always fast"]);
    }

    #[test]
    fn whoever_asks_for_an_address_of_its_own_towards_members_is_told() {
        let mut gates = FeatureGates::default();
        gates.add("SetMemberLocalAddr=true").expect("known");
        let warnings: Vec<String> = gates.warnings().collect();
        assert_eq!(
            warnings,
            ["feature gate SetMemberLocalAddr=true has no effect: \
              connections to other members leave by the address that the system chooses"]
        );
        gates.add("SetMemberLocalAddr=false,LeaseCheckpoint=true").expect("known");
        assert_eq!(gates.warnings().count(), 0);
    }

    #[test]
    fn a_gate_that_needs_another_is_not_alone() {
        let missing = |text: &str| {
            let mut gates = FeatureGates::default();
            gates.add(text).expect("known");
            gates.missing()
        };
        assert_eq!(missing("LeaseCheckpointPersist=true"), Some(("LeaseCheckpointPersist", "LeaseCheckpoint")));
        assert_eq!(missing("AllAlpha=true,LeaseCheckpoint=false"), Some(("LeaseCheckpointPersist", "LeaseCheckpoint")));
        for text in ["", "LeaseCheckpoint=true", "AllAlpha=true", "LeaseCheckpointPersist=true,LeaseCheckpoint=true"] {
            assert_eq!(missing(text), None, "{text}");
        }
    }

    #[test]
    fn stages_leave_named_gates_alone() {
        let mut gates = FeatureGates::default();
        gates.add("AllAlpha=true,LeaseCheckpoint=false,AllBeta=false").expect("known");
        assert!(gates.enabled(FeatureGate::CompactHashCheck));
        assert!(!gates.enabled(FeatureGate::LeaseCheckpoint));
        assert!(!gates.enabled(FeatureGate::TxnModeWriteWithSharedBuffer));
    }

    #[test]
    fn bad_values() {
        for (text, error) in [
            ("Nope=true", "unrecognized feature gate: Nope"),
            ("InitialCorruptCheck", "missing bool value for InitialCorruptCheck"),
            ("InitialCorruptCheck=yes", "invalid value of InitialCorruptCheck=yes"),
        ] {
            assert_eq!(FeatureGates::default().add(text), Err(error.to_owned()));
        }
    }
}
