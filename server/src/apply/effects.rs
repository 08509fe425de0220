//! What apply changes: a closed set, equal on all members, and nothing else changes state (DESIGN D5).

use basalt_proto::effects as wire;
use basalt_proto::effects::effect::Kind as WireEffect;
use basalt_proto::log::MemberDescription;
use basalt_proto::members::Member;
use basalt_storage::mvcc::key_value::KeyValue;
use basalt_storage::mvcc::shard_map::ShardId;
use basalt_storage::mvcc::system::Table;
use basalt_storage::mvcc::transaction::{Change, ChangeKind};
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::revision::Revision;
use bytes::Bytes;
use thiserror::Error;

use super::alarms::{Alarm, AlarmKind};
use super::auth::state::AuthRecord;
use super::downgrade::Downgrade;

/// Version of the encoded form that this release writes.
pub const EFFECTS_FORMAT_VERSION: u32 = 1;

/// One change of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A key gets a value or is deleted.
    Key(Change),
    /// Revisions below this one become unreadable.
    Compaction {
        /// The compact revision.
        revision: i64,
    },
    /// A lease begins.
    LeaseGranted {
        /// Its id.
        id: i64,
        /// Granted seconds.
        ttl: i64,
    },
    /// A lease ends; the deletes of its keys stand before it.
    LeaseRevoked {
        /// Its id.
        id: i64,
    },
    /// A lease's remaining time is remembered for the next leader.
    LeaseCheckpointed {
        /// Its id.
        id: i64,
        /// Seconds left; 0 forgets the remainder.
        remaining_ttl: i64,
    },
    /// An alarm is armed.
    AlarmRaised(Alarm),
    /// An alarm is disarmed.
    AlarmCleared(Alarm),
    /// A member said who it is.
    MemberDescribed(MemberDescription),
    /// A member is added.
    MemberAdded {
        /// It, without a name.
        member: Member,
        /// Whether it does not vote yet.
        learner: bool,
    },
    /// A member left, for good.
    MemberRemoved {
        /// Its id.
        id: u64,
    },
    /// A member is reached elsewhere.
    MemberUrlsSet {
        /// Its id.
        id: u64,
        /// Where.
        peer_urls: Vec<String>,
    },
    /// A learner votes from now on.
    MemberPromoted {
        /// Its id.
        id: u64,
    },
    /// Users, roles, or whether anybody asks for them.
    AuthChanged(AuthRecord),
    /// A downgrade begins or ends.
    DowngradeSet(Downgrade),
    /// All members apply by these rules from now on.
    ApplyVersionRaised {
        /// The rules.
        version: u32,
    },
}

/// The effects of one log entry, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The entry.
    pub log: LogPosition,
    /// Its time, made non-decreasing: ns since 1970.
    pub time_unix_ns: i64,
    /// The store's revision after it.
    pub revision: i64,
    /// What changed.
    pub effects: Vec<Effect>,
}

/// Why encoded effects are refused. Nothing of them was installed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EffectsError {
    /// Written by a newer release.
    #[error("effects of format {found}, this release reads up to {EFFECTS_FORMAT_VERSION}")]
    Newer {
        /// The format found.
        found: u32,
    },
    /// A field that cannot be.
    #[error("malformed effect: {0}")]
    Malformed(&'static str),
}

impl Effects {
    /// The form for logs, backups and other sites. Equal effects give equal bytes.
    pub fn to_wire(&self) -> wire::EffectBatch {
        wire::EffectBatch {
            format_version: EFFECTS_FORMAT_VERSION,
            log_index: self.log.index,
            term: self.log.term,
            time_unix_ns: self.time_unix_ns,
            revision: self.revision,
            effects: self.effects.iter().map(|effect| effect_to_wire(effect, self.log.index)).collect(),
        }
    }

    /// Reads what [`Self::to_wire`] made, maybe in another release.
    ///
    /// # Errors
    /// [`EffectsError`]; an effect that this release does not know is refused, not skipped.
    pub fn from_wire(batch: wire::EffectBatch) -> Result<Self, EffectsError> {
        if batch.format_version > EFFECTS_FORMAT_VERSION {
            return Err(EffectsError::Newer { found: batch.format_version });
        }
        let effects = batch.effects.into_iter().map(effect_from_wire).collect::<Result<_, _>>()?;
        Ok(Self {
            log: LogPosition { index: batch.log_index, term: batch.term },
            time_unix_ns: batch.time_unix_ns,
            revision: batch.revision,
            effects,
        })
    }
}

fn effect_to_wire(effect: &Effect, log_index: u64) -> wire::Effect {
    let effect = match effect {
        Effect::Key(change) => change_to_wire(change),
        Effect::Compaction { revision } => WireEffect::Compaction(wire::Compaction { revision: *revision, log_index }),
        Effect::LeaseGranted { id, ttl } => WireEffect::LeaseGranted(wire::LeaseGranted { id: *id, ttl: *ttl }),
        Effect::LeaseRevoked { id } => WireEffect::LeaseRevoked(wire::LeaseRevoked { id: *id }),
        Effect::LeaseCheckpointed { id, remaining_ttl } => {
            WireEffect::LeaseCheckpointed(wire::LeaseCheckpointed { id: *id, remaining_ttl: *remaining_ttl })
        }
        Effect::AlarmRaised(alarm) => {
            WireEffect::AlarmRaised(wire::AlarmRaised { member_id: alarm.member_id, alarm: alarm.kind.number() })
        }
        Effect::AlarmCleared(alarm) => {
            WireEffect::AlarmCleared(wire::AlarmCleared { member_id: alarm.member_id, alarm: alarm.kind.number() })
        }
        Effect::MemberDescribed(described) => WireEffect::MemberDescribed(wire::MemberDescribed {
            member_id: described.id,
            name: described.name.clone(),
            client_urls: described.client_urls.clone(),
            incarnation: described.incarnation.clone(),
            apply_version: described.apply_version,
            disk_full: described.disk_full,
        }),
        Effect::MemberAdded { member, learner } => {
            WireEffect::MemberAdded(wire::MemberAdded { member: Some(member.clone()), learner: *learner })
        }
        Effect::MemberRemoved { id } => WireEffect::MemberRemoved(wire::MemberRemoved { member_id: *id }),
        Effect::MemberUrlsSet { id, peer_urls } => {
            WireEffect::MemberUrlsSet(wire::MemberUrlsSet { member_id: *id, peer_urls: peer_urls.clone() })
        }
        Effect::MemberPromoted { id } => WireEffect::MemberPromoted(wire::MemberPromoted { member_id: *id }),
        Effect::AuthChanged(record) => WireEffect::SystemRecord(wire::SystemRecord {
            table: table_name(record.table).to_owned(),
            key: record.key.clone(),
            value: record.value.clone(),
        }),
        Effect::DowngradeSet(downgrade) => {
            let (key, value) = downgrade.record();
            WireEffect::SystemRecord(wire::SystemRecord {
                table: CLUSTER_TABLE.to_owned(),
                key: Bytes::from_static(key),
                value,
            })
        }
        Effect::ApplyVersionRaised { version } => {
            WireEffect::ApplyVersionRaised(wire::ApplyVersionRaised { apply_version: *version })
        }
    };
    wire::Effect { kind: Some(effect) }
}

fn change_to_wire(change: &Change) -> WireEffect {
    let Revision { main, sub } = change.revision;
    let previous = change.previous.unwrap_or_default();
    match &change.kind {
        ChangeKind::Put { key_value, .. } => WireEffect::KvPut(wire::KvPut {
            shard: change.shard.0,
            main,
            sub,
            key_value: key_value.clone(),
            previous_main: previous.main,
            previous_sub: previous.sub,
        }),
        ChangeKind::Delete => WireEffect::KvDelete(wire::KvDelete {
            shard: change.shard.0,
            main,
            sub,
            key: change.key.clone(),
            previous_main: previous.main,
            previous_sub: previous.sub,
        }),
    }
}

fn effect_from_wire(effect: wire::Effect) -> Result<Effect, EffectsError> {
    let alarm = |member_id, number| {
        let kind = AlarmKind::from_number(number).ok_or(EffectsError::Malformed("unknown alarm"))?;
        Ok(Alarm { member_id, kind })
    };
    match effect.kind.ok_or(EffectsError::Malformed("unknown kind"))? {
        WireEffect::KvPut(put) => {
            let kv = KeyValue::parse(&put.key_value).map_err(|_| EffectsError::Malformed("KeyValue"))?;
            let kind = ChangeKind::Put {
                key_value: put.key_value.clone(),
                create_revision: kv.create_revision,
                lease: kv.lease,
            };
            Ok(Effect::Key(Change {
                shard: ShardId(put.shard),
                key: KeyValue::key_of(&put.key_value),
                revision: Revision::new(put.main, put.sub),
                previous: previous(put.previous_main, put.previous_sub),
                kind,
            }))
        }
        WireEffect::KvDelete(delete) => Ok(Effect::Key(Change {
            shard: ShardId(delete.shard),
            key: delete.key,
            revision: Revision::new(delete.main, delete.sub),
            previous: previous(delete.previous_main, delete.previous_sub),
            kind: ChangeKind::Delete,
        })),
        WireEffect::Compaction(compaction) => Ok(Effect::Compaction { revision: compaction.revision }),
        WireEffect::LeaseGranted(lease) => Ok(Effect::LeaseGranted { id: lease.id, ttl: lease.ttl }),
        WireEffect::LeaseRevoked(lease) => Ok(Effect::LeaseRevoked { id: lease.id }),
        WireEffect::LeaseCheckpointed(lease) => {
            Ok(Effect::LeaseCheckpointed { id: lease.id, remaining_ttl: lease.remaining_ttl })
        }
        WireEffect::AlarmRaised(raised) => alarm(raised.member_id, raised.alarm).map(Effect::AlarmRaised),
        WireEffect::AlarmCleared(cleared) => alarm(cleared.member_id, cleared.alarm).map(Effect::AlarmCleared),
        WireEffect::MemberDescribed(described) => Ok(Effect::MemberDescribed(MemberDescription {
            id: described.member_id,
            name: described.name,
            client_urls: described.client_urls,
            incarnation: described.incarnation,
            apply_version: described.apply_version,
            disk_full: described.disk_full,
        })),
        WireEffect::MemberAdded(added) => {
            let member = added.member.ok_or(EffectsError::Malformed("a member without any"))?;
            Ok(Effect::MemberAdded { member, learner: added.learner })
        }
        WireEffect::MemberRemoved(removed) => Ok(Effect::MemberRemoved { id: removed.member_id }),
        WireEffect::MemberUrlsSet(set) => Ok(Effect::MemberUrlsSet { id: set.member_id, peer_urls: set.peer_urls }),
        WireEffect::MemberPromoted(promoted) => Ok(Effect::MemberPromoted { id: promoted.member_id }),
        WireEffect::ApplyVersionRaised(raised) => Ok(Effect::ApplyVersionRaised { version: raised.apply_version }),
        WireEffect::SystemRecord(wire::SystemRecord { table, key, value })
            if table == CLUSTER_TABLE && Downgrade::is_key(&key) =>
        {
            let target = value.as_deref().map(String::from_utf8_lossy);
            let downgrade = Downgrade::to(target.as_deref()).map_err(|_| EffectsError::Malformed("downgrade"))?;
            Ok(Effect::DowngradeSet(downgrade))
        }
        WireEffect::SystemRecord(wire::SystemRecord { table, key, value }) => {
            let known = AUTH_TABLES.into_iter().find(|known| table_name(*known) == table);
            let table = known.ok_or(EffectsError::Malformed("unknown table"))?;
            let record = AuthRecord { table, key, value };
            if !record.is_well_formed() {
                return Err(EffectsError::Malformed("record of users or roles"));
            }
            Ok(Effect::AuthChanged(record))
        }
    }
}

/// The table of the cluster's settings, as effects name it.
const CLUSTER_TABLE: &str = "cluster";

/// Tables whose records are effects.
const AUTH_TABLES: [Table; 3] = [Table::Auth, Table::AuthUser, Table::AuthRole];

/// A table as effects name it: by etcd's bucket.
fn table_name(table: Table) -> &'static str {
    match table {
        Table::Auth => "auth",
        Table::AuthUser => "authUsers",
        Table::AuthRole => "authRoles",
        Table::Lease | Table::Alarm | Table::Member | Table::Cluster => {
            unreachable!("their effects have names of their own")
        }
    }
}

fn previous(main: i64, sub: i64) -> Option<Revision> {
    (main != 0).then_some(Revision::new(main, sub))
}
