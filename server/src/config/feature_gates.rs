//! The feature gates of etcd 3.7 (`server/features/etcd_features.go`).

use std::collections::BTreeMap;

/// A feature gate that etcd 3.7 knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FeatureGate {
    /// The leader compares compaction hashes of the followers. Here members are always compared.
    CompactHashCheck,
    /// Keepalives do not wait for the applied index.
    FastLeaseKeepAlive,
    /// Data is checked before the first request is served.
    InitialCorruptCheck,
    /// The leader replicates what remains of each lease.
    LeaseCheckpoint,
    /// What remains of a lease is kept on disk.
    LeaseCheckpointPersist,
    /// Some requests are applied first under overload.
    PriorityRequest,
    /// Peers are dialled from the advertised peer address.
    SetMemberLocalAddr,
    /// No requests are served while a defragmentation runs. Here it never pauses the service.
    StopGRPCServiceOnDefrag,
    /// Write transactions read through a shared buffer.
    TxnModeWriteWithSharedBuffer,
}

/// Name, default and whether it is an alpha feature (else beta), in the order of the help text.
const GATES: [(FeatureGate, &str, bool, bool); 9] = [
    (FeatureGate::CompactHashCheck, "CompactHashCheck", false, true),
    (FeatureGate::FastLeaseKeepAlive, "FastLeaseKeepAlive", true, false),
    (FeatureGate::InitialCorruptCheck, "InitialCorruptCheck", false, true),
    (FeatureGate::LeaseCheckpoint, "LeaseCheckpoint", false, true),
    (FeatureGate::LeaseCheckpointPersist, "LeaseCheckpointPersist", false, true),
    (FeatureGate::PriorityRequest, "PriorityRequest", false, true),
    (FeatureGate::SetMemberLocalAddr, "SetMemberLocalAddr", false, true),
    (FeatureGate::StopGRPCServiceOnDefrag, "StopGRPCServiceOnDefrag", false, true),
    (FeatureGate::TxnModeWriteWithSharedBuffer, "TxnModeWriteWithSharedBuffer", true, false),
];

/// Which gates were set, and to what; all others have etcd's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates {
    set: BTreeMap<FeatureGate, bool>,
}

impl FeatureGates {
    /// Whether `gate` is on.
    pub fn enabled(&self, gate: FeatureGate) -> bool {
        let default = GATES.iter().any(|(known, _, default, _)| *known == gate && *default);
        self.set.get(&gate).copied().unwrap_or(default)
    }

    /// Names of all gates that etcd 3.7 knows, with their state; for `etcd_server_feature_enabled`.
    pub fn states(&self) -> impl Iterator<Item = (&'static str, bool)> + '_ {
        GATES.iter().map(|(gate, name, _, _)| (*name, self.enabled(*gate)))
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
            match (name, GATES.iter().find(|(_, known, _, _)| *known == name)) {
                (_, Some((gate, _, _, _))) => drop(self.set.insert(*gate, on)),
                ("AllAlpha", None) => stages.push((true, on)),
                ("AllBeta", None) => stages.push((false, on)),
                _ => return Err(format!("unrecognized feature gate: {name}")),
            }
        }
        for (alpha, on) in stages {
            for (gate, _, _, gate_alpha) in GATES {
                if gate_alpha == alpha {
                    self.set.entry(gate).or_insert(on);
                }
            }
        }
        Ok(())
    }
}

/// The help lines of all gates.
pub(super) fn help_lines() -> impl Iterator<Item = String> {
    GATES.iter().map(|(_, name, default, alpha)| {
        format!("{name}=true|false ({} - default={default})", if *alpha { "ALPHA" } else { "BETA" })
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
