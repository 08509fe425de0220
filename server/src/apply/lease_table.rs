//! Leases as all members agree on them: which exist, for how long they were granted, which keys hang on them. When one
//! ends is the leader's to say ([`crate::lease`]).

use std::collections::{BTreeMap, BTreeSet};

use basalt_proto::leasepb;
use bytes::Bytes;
use prost::Message;

/// One lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseRecord {
    /// Granted seconds.
    pub ttl: i64,
    /// Seconds left when it was last checkpointed; 0 for none.
    pub remaining_ttl: i64,
    /// Attached keys.
    pub keys: BTreeSet<Bytes>,
}

impl LeaseRecord {
    /// The stored form.
    pub fn encode(&self, id: i64) -> Bytes {
        leasepb::Lease { id, ttl: self.ttl, remaining_ttl: self.remaining_ttl }.encode_to_vec().into()
    }

    /// Reads a stored form; without keys, these are found in the index.
    pub fn decode(bytes: &[u8]) -> Option<(i64, Self)> {
        let lease = leasepb::Lease::decode(bytes).ok()?;
        Some((lease.id, Self { ttl: lease.ttl, remaining_ttl: lease.remaining_ttl, keys: BTreeSet::new() }))
    }
}

/// All leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseTable(BTreeMap<i64, LeaseRecord>);

impl LeaseTable {
    /// Adds a lease, replacing one of the same id.
    pub fn insert(&mut self, id: i64, record: LeaseRecord) {
        self.0.insert(id, record);
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty)] // nobody asks
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// One lease.
    pub fn get(&self, id: i64) -> Option<&LeaseRecord> {
        self.0.get(&id)
    }

    /// One lease, to change it.
    pub fn get_mut(&mut self, id: i64) -> Option<&mut LeaseRecord> {
        self.0.get_mut(&id)
    }

    /// Removes a lease.
    pub fn remove(&mut self, id: i64) -> Option<LeaseRecord> {
        self.0.remove(&id)
    }

    /// All leases by id.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &LeaseRecord)> {
        self.0.iter().map(|(id, record)| (*id, record))
    }

    /// Moves a key from one lease to another; 0 is none. A lease that is gone is passed over: a key may outlive it only
    /// within the entry that revokes it.
    pub fn reattach(&mut self, key: &Bytes, from: i64, to: i64) {
        if from == to {
            return;
        }
        if let Some(record) = self.0.get_mut(&from) {
            record.keys.remove(key);
        }
        if let Some(record) = self.0.get_mut(&to) {
            record.keys.insert(Bytes::copy_from_slice(key));
        }
    }
}
