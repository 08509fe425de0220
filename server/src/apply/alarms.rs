//! Alarms: which member raised which, replicated, until somebody disarms them (etcd-contract 42, 43).

use std::collections::BTreeSet;

use basalt_proto::etcdserverpb::{AlarmMember, AlarmType};
use prost::Message;

/// What an alarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// A member is out of quota or disk.
    NoSpace,
    /// A member's data differs from the others'.
    Corrupt,
}

impl AlarmKind {
    /// The number on the wire.
    pub fn number(self) -> i32 {
        match self {
            AlarmKind::NoSpace => AlarmType::Nospace as i32,
            AlarmKind::Corrupt => AlarmType::Corrupt as i32,
        }
    }

    /// The kind of a wire number; `None` for NONE and unknown ones.
    pub fn from_number(number: i32) -> Option<Self> {
        match AlarmType::try_from(number) {
            Ok(AlarmType::Nospace) => Some(AlarmKind::NoSpace),
            Ok(AlarmType::Corrupt) => Some(AlarmKind::Corrupt),
            _ => None,
        }
    }

    /// etcd's word for it.
    pub fn name(self) -> &'static str {
        match self {
            AlarmKind::NoSpace => "NOSPACE",
            AlarmKind::Corrupt => "CORRUPT",
        }
    }
}

/// One armed alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// Who raised it.
    pub member_id: u64,
    /// What it is about.
    pub kind: AlarmKind,
}

impl Alarm {
    /// The protobuf form; also the key under which it is stored, as in etcd.
    pub fn to_wire(self) -> AlarmMember {
        AlarmMember { member_id: self.member_id, alarm: self.kind.number() }
    }

    /// The stored key.
    pub fn to_key(self) -> Vec<u8> {
        self.to_wire().encode_to_vec()
    }

    /// Reads a stored key.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let member = AlarmMember::decode(key).ok()?;
        Some(Self { member_id: member.member_id, kind: AlarmKind::from_number(member.alarm)? })
    }
}

/// All armed alarms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms(BTreeSet<Alarm>);

impl Alarms {
    /// Arms or disarms; gives whether that changed anything.
    pub fn set(&mut self, alarm: Alarm, armed: bool) -> bool {
        if armed { self.0.insert(alarm) } else { self.0.remove(&alarm) }
    }

    /// Whether this one is armed.
    pub fn contains(&self, alarm: Alarm) -> bool {
        self.0.contains(&alarm)
    }

    /// Whether any member raised `kind`.
    pub fn any(&self, kind: AlarmKind) -> bool {
        self.0.iter().any(|alarm| alarm.kind == kind)
    }

    /// Those of `kind`, or all.
    pub fn list(&self, kind: Option<AlarmKind>) -> Vec<Alarm> {
        self.0.iter().filter(|alarm| kind.is_none_or(|kind| alarm.kind == kind)).copied().collect()
    }
}
