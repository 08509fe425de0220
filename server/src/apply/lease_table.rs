//! Leases as all members agree on them: which exist, for how long they were granted, which keys hang on them. When one
//! ends is the leader's to say ([`crate::lease`]).

use std::collections::btree_map::Entry;
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
pub struct LeaseTable {
    leases: BTreeMap<i64, LeaseRecord>,
    /// Keys that name a lease that does not exist, as a snapshot of etcd may bring them: they hang on it once it is granted.
    /// etcd has them hang on it only from its next restart on, at each member its own.
    waiting: BTreeMap<i64, BTreeSet<Bytes>>,
}

impl LeaseTable {
    /// Adds a lease; keys that named it before hang on it. One of the same id is replaced, and what hung on it with it: a grant
    /// refuses that.
    pub fn insert(&mut self, id: i64, mut record: LeaseRecord) {
        record.keys.extend(self.waiting.remove(&id).into_iter().flatten());
        self.leases.insert(id, record);
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty)] // nobody asks
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// One lease.
    pub fn get(&self, id: i64) -> Option<&LeaseRecord> {
        self.leases.get(&id)
    }

    /// One lease, to change it.
    pub fn get_mut(&mut self, id: i64) -> Option<&mut LeaseRecord> {
        self.leases.get_mut(&id)
    }

    /// Removes a lease.
    pub fn remove(&mut self, id: i64) -> Option<LeaseRecord> {
        self.leases.remove(&id)
    }

    /// All leases by id.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &LeaseRecord)> {
        self.leases.iter().map(|(id, record)| (*id, record))
    }

    /// Keys that will hang on a lease as soon as it is granted; none where it is.
    pub fn waiting_for(&self, id: i64) -> impl Iterator<Item = &Bytes> {
        self.waiting.get(&id).into_iter().flatten()
    }

    /// Moves a key from one lease to another; 0 is none.
    pub fn reattach(&mut self, key: &[u8], from: i64, to: i64) {
        if from == to {
            return;
        }
        if let Some(record) = self.leases.get_mut(&from) {
            record.keys.remove(key);
        } else if let Entry::Occupied(mut waiting) = self.waiting.entry(from) {
            waiting.get_mut().remove(key);
            if waiting.get().is_empty() {
                waiting.remove();
            }
        }
        if to != 0 {
            let key = Bytes::copy_from_slice(key);
            match self.leases.get_mut(&to) {
                Some(record) => record.keys.insert(key),
                None => self.waiting.entry(to).or_default().insert(key),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys_of(table: &LeaseTable, id: i64) -> Vec<&[u8]> {
        table.get(id).expect("it exists").keys.iter().map(|key| &**key).collect()
    }

    /// A member that was started after the grant and one that was not must agree on who goes with the lease.
    #[test]
    fn keys_that_came_before_their_lease_hang_on_it_whenever_it_is_seen() {
        let lease = || LeaseRecord { ttl: 7, ..LeaseRecord::default() };
        let (mut running, mut restarted) = (LeaseTable::default(), LeaseTable::default());
        for key in [b"a", b"b", b"c"] {
            running.reattach(key, 0, 5);
        }
        running.reattach(b"b", 5, 0);
        running.reattach(b"c", 5, 6);
        running.insert(5, lease());
        restarted.insert(5, lease());
        restarted.reattach(b"a", 0, 5);
        restarted.reattach(b"c", 0, 6);
        assert_eq!(running, restarted);
        assert_eq!(keys_of(&running, 5), [b"a"]);
        running.reattach(b"c", 6, 5);
        assert_eq!(keys_of(&running, 5), [b"a", b"c"]);
        // Nothing is kept of a lease that nobody names any more.
        running.insert(6, lease());
        assert!(keys_of(&running, 6).is_empty() && running.waiting.is_empty());
    }
}
