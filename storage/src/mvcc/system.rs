//! State that is no key: leases, alarms, members, authorization, settings. Small, in memory, checkpointed with the
//! shards at the same log index.
//!
//! Records are opaque here; who owns a table knows its form and bounds it. A key with its table's number is at most
//! [`KEY_BYTES_MAX`](crate::runs::KEY_BYTES_MAX) long: a longer one could not be checkpointed. Leases, alarms and settings have
//! some ten bytes each, users and roles a bound of their own. What a checkpoint must write is what was touched since the last one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// A table of [`System`]. Numbers are part of the disk format and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Lease id, 8 bytes big-endian, to `leasepb.Lease`.
    Lease = 1,
    /// Encoded `AlarmMember` to nothing, as in etcd.
    Alarm = 2,
    /// Member id, 8 bytes big-endian, to the member's attributes.
    Member = 3,
    /// Settings of the cluster by name.
    Cluster = 4,
    /// Settings of authentication by name, as etcd's bucket `auth` has them.
    Auth = 5,
    /// Name of a user to `authpb.User`.
    AuthUser = 6,
    /// Name of a role to `authpb.Role`.
    AuthRole = 7,
}

impl Table {
    const ALL: [Table; 7] =
        [Table::Lease, Table::Alarm, Table::Member, Table::Cluster, Table::Auth, Table::AuthUser, Table::AuthRole];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| *table as u8 == number)
    }
}

/// All tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct System {
    records: BTreeMap<(Table, Bytes), Bytes>,
    touched: BTreeSet<(Table, Bytes)>,
}

/// A record as a checkpoint writes it: table number and key, and the value unless it was removed.
pub type SystemRecord = (Vec<u8>, Option<Bytes>);

impl System {
    /// Sets a record, or removes it with `None`; [`Store::set_record`](super::store::Store::set_record) counts it too.
    pub(super) fn set(&mut self, table: Table, key: &[u8], value: Option<Bytes>) {
        let place = (table, Bytes::copy_from_slice(key));
        self.touched.insert(place.clone());
        match value {
            Some(value) => drop(self.records.insert(place, value)),
            None => drop(self.records.remove(&place)),
        }
    }

    /// One record.
    pub fn get(&self, table: Table, key: &[u8]) -> Option<&Bytes> {
        self.records.get(&(table, Bytes::copy_from_slice(key)))
    }

    /// The records of a table in key order.
    pub fn table(&self, table: Table) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        let records = self.records.range((table, Bytes::new())..);
        records.take_while(move |((of, _), _)| *of == table).map(|((_, key), value)| (key, value))
    }

    /// All records, by table and key, in the form of [`SystemRecord`].
    pub fn records(&self) -> impl Iterator<Item = (Vec<u8>, Bytes)> {
        self.records.iter().map(|((table, key), value)| ([&[*table as u8], &key[..]].concat(), value.clone()))
    }

    /// What changed since the last call, in order, for a checkpoint.
    pub fn take_touched(&mut self) -> Vec<SystemRecord> {
        let touched = std::mem::take(&mut self.touched);
        let record = |place: (Table, Bytes)| {
            let value = self.records.get(&place).cloned();
            ([&[place.0 as u8], &place.1[..]].concat(), value)
        };
        touched.into_iter().map(record).collect()
    }

    /// Gives back what [`Self::take_touched`] took, after a checkpoint failed.
    pub fn touch_again(&mut self, records: &[SystemRecord]) {
        self.touched.extend(records.iter().filter_map(|(key, _)| split_key(key)));
    }

    /// Puts a record back as a checkpoint wrote it; gives `false` for a key of no known table.
    pub fn restore(&mut self, key: &[u8], value: Bytes) -> bool {
        let place = split_key(key);
        place.map(|place| self.records.insert(place, value)).is_some()
    }
}

/// Whether a record of this key belongs to a table that this release knows.
pub fn is_system_key(key: &[u8]) -> bool {
    split_key(key).is_some()
}

/// Table and key of a [`SystemRecord`]'s key; `None` for a table that this release does not know.
pub fn split_key(key: &[u8]) -> Option<(Table, Bytes)> {
    let (number, key) = key.split_first()?;
    Some((Table::from_number(*number)?, Bytes::copy_from_slice(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_records_restore_the_tables() {
        let mut system = System::default();
        system.set(Table::Lease, b"1", Some(Bytes::from_static(b"x")));
        system.set(Table::Alarm, b"2", Some(Bytes::new()));
        system.set(Table::Alarm, b"2", None);
        let touched = system.take_touched();
        assert_eq!(touched.len(), 2);
        assert!(system.take_touched().is_empty());
        let mut restored = System::default();
        for (key, value) in &touched {
            if let Some(value) = value {
                assert!(restored.restore(key, value.clone()));
            }
        }
        assert_eq!(restored, system);
        assert_eq!(system.table(Table::Lease).count(), 1);
        system.touch_again(&touched);
        assert_eq!(system.take_touched(), touched);
        assert!(!restored.restore(&[99], Bytes::new()));
    }

    /// The tables of the format's document are those of the code.
    #[test]
    fn the_document_names_every_table() {
        let document = include_str!("../../../docs/disk-format-runs.md");
        for table in Table::ALL {
            let line = format!("| {} | `{table:?}` |", table as u8);
            assert!(document.contains(&line), "the document lacks: {line}");
        }
    }
}
