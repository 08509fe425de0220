//! What of etcd's small buckets comes over, and what keeps a database out.

use basalt_proto::leasepb;
use basalt_storage::checkpoint::Filling;
use basalt_storage::import::Tables;
use basalt_storage::mvcc::system::Table;
use bytes::Bytes;
use prost::Message;

use super::error::ImportFailure;
use crate::apply::alarms::Alarm;
use crate::apply::auth::bounds::RECORD_BYTES_MAX;
use crate::apply::auth::state::AuthRecord;
use crate::apply::downgrade::Downgrade;
use crate::apply::machine::LEASE_TTL_MAX;

/// The newest etcd whose data is understood.
const NEWEST: (u64, u64) = (3, 7);

/// Records of the small buckets that come over, as they are stored.
#[derive(Debug, Default)]
pub(super) struct SystemRecords {
    records: Vec<(Table, Bytes, Bytes)>,
    pub leases: usize,
}

impl SystemRecords {
    /// Checks the buckets and takes what is kept.
    ///
    /// # Errors
    /// [`ImportFailure`]: a newer version, a downgrade, a malformed record.
    pub fn of(tables: &Tables) -> Result<Self, ImportFailure> {
        check_version(tables.get("meta", "storageVersion"))?;
        check_version(tables.get("cluster", "clusterVersion"))?;
        let mut records = Self::default();
        if let (key, Some(target)) = downgrade(tables)?.record() {
            records.keep(Table::Cluster, key, &target);
        }
        for (key, value) in tables.entries("lease") {
            check_lease(key, value).ok_or(ImportFailure::MalformedRecord { bucket: "lease" })?;
            records.keep(Table::Lease, key, value);
            records.leases += 1;
        }
        for (key, value) in tables.entries("alarm") {
            Alarm::from_key(key).ok_or(ImportFailure::MalformedRecord { bucket: "alarm" })?;
            records.keep(Table::Alarm, key, value);
        }
        for (bucket, table) in [("auth", Table::Auth), ("authUsers", Table::AuthUser), ("authRoles", Table::AuthRole)] {
            for (key, value) in tables.entries(bucket) {
                let record =
                    AuthRecord { table, key: Bytes::copy_from_slice(key), value: Some(Bytes::copy_from_slice(value)) };
                if record.bytes() > RECORD_BYTES_MAX {
                    return Err(ImportFailure::RecordTooLong { bucket, bytes: record.bytes() });
                }
                // Whoever cannot be told from others would have to be let in or shut out.
                if !record.is_well_formed() {
                    return Err(ImportFailure::MalformedRecord { bucket });
                }
                records.keep(table, key, value);
            }
        }
        Ok(records)
    }

    fn keep(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.records.push((table, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
    }

    pub fn set_in(self, filling: &mut Filling) {
        self.records.into_iter().for_each(|(table, key, value)| filling.set_record(table, &key, value));
    }
}

/// A lease that etcd grants: its id as the key, a time to live that a request may ask for.
fn check_lease(key: &[u8], value: &[u8]) -> Option<()> {
    let lease = leasepb::Lease::decode(value).ok()?;
    let sound = key == lease.id.to_be_bytes()
        && lease.id != 0
        && (1..=LEASE_TTL_MAX).contains(&lease.ttl)
        && (0..=LEASE_TTL_MAX).contains(&lease.remaining_ttl);
    sound.then_some(())
}

/// Releases before 3.6 write no storage version, so that none is fine.
fn check_version(version: Option<&[u8]>) -> Result<(), ImportFailure> {
    let Some(version) = version else { return Ok(()) };
    let text = String::from_utf8_lossy(version);
    let mut parts = text.split('.').map(|part| part.parse::<u64>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) <= NEWEST => Ok(()),
        _ => Err(ImportFailure::NewerEtcd { found: text.chars().take(40).collect() }),
    }
}

/// One under way goes on here, if it is one that could have begun here.
fn downgrade(tables: &Tables) -> Result<Downgrade, ImportFailure> {
    #[derive(serde::Deserialize)]
    struct Record {
        #[serde(default)]
        enabled: bool,
        #[serde(default, rename = "target-version")]
        target_version: String,
    }
    let Some(json) = tables.get("cluster", "downgrade") else { return Ok(Downgrade::default()) };
    let record: Record =
        serde_json::from_slice(json).map_err(|_| ImportFailure::MalformedRecord { bucket: "cluster" })?;
    Downgrade::to(record.enabled.then_some(&record.target_version)).map_err(|_| ImportFailure::Downgrade)
}
