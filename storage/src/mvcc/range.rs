//! Range: which revisions a query names, and what becomes of their values.
//!
//! A range is answered in two halves, so that no one who plans waits for a disk. [`RangeQuery::plan`] needs the index
//! only and names the stored revisions; [`RangePlan::assemble`] gets their KeyValues, filters, sorts and cuts
//! (etcd-contract 11 to 17; etcd `server/etcdserver/txn/range.go`).

use std::cmp::Ordering;

use bytes::Bytes;
use thiserror::Error;

use super::key_range::KeyRange;
use super::key_value::{KeyValue, MalformedKeyValue};
use super::shard_map::ShardId;
use crate::revision::Revision;

/// Why a revision cannot be read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RevisionError {
    /// It lies below the compact revision.
    #[error("required revision has been compacted")]
    Compacted,
    /// It was not written yet.
    #[error("required revision is a future revision")]
    Future,
}

/// What to sort by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortTarget {
    /// The key; ascending is the natural order.
    #[default]
    Key,
    /// Puts since creation.
    Version,
    /// Revision of creation.
    Create,
    /// Revision of the last put.
    Mod,
    /// The value's bytes.
    Value,
}

/// In which direction to sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// As found, for keys; ascending over what the limit lets through, for other targets (etcd-contract 15).
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// Inclusive bounds; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevisionFilter {
    /// Lowest modification revision.
    pub min_mod: i64,
    /// Highest modification revision.
    pub max_mod: i64,
    /// Lowest creation revision.
    pub min_create: i64,
    /// Highest creation revision.
    pub max_create: i64,
}

impl RevisionFilter {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    fn admits(&self, kv: &KeyValue<'_>) -> bool {
        let within = |n: i64, min: i64, max: i64| (min == 0 || n >= min) && (max == 0 || n <= max);
        within(kv.mod_revision, self.min_mod, self.max_mod)
            && within(kv.create_revision, self.min_create, self.max_create)
    }
}

/// All options of etcd's Range but consistency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    /// The keys.
    pub range: KeyRange,
    /// At which revision; 0 or less means the latest.
    pub revision: i64,
    /// At most so many; 0 or less means all.
    pub limit: i64,
    /// What to sort by.
    pub sort_target: SortTarget,
    /// In which direction.
    pub sort_order: SortOrder,
    /// Values are left out.
    pub keys_only: bool,
    /// Only the count is wanted.
    pub count_only: bool,
    /// Which to let through.
    pub filter: RevisionFilter,
}

impl RangeQuery {
    /// All of `range` at the latest revision.
    pub fn all(range: KeyRange) -> Self {
        Self {
            range,
            revision: 0,
            limit: 0,
            sort_target: SortTarget::Key,
            sort_order: SortOrder::None,
            keys_only: false,
            count_only: false,
            filter: RevisionFilter::default(),
        }
    }

    /// Whether keys come out in the order of the index, so that a limit can stop the walk.
    pub fn has_natural_order(&self) -> bool {
        self.sort_order == SortOrder::None
            || (self.sort_target == SortTarget::Key && self.sort_order == SortOrder::Ascend)
    }

    /// How many hits the plan needs: one above the limit, which tells whether there are more.
    pub(super) fn hits_max(&self) -> usize {
        if self.limit <= 0 || !self.has_natural_order() || !self.filter.is_none() {
            return usize::MAX;
        }
        usize::try_from(self.limit).unwrap_or(usize::MAX).saturating_add(1)
    }

    /// The rest of the work, for [`RangePlan::assemble`].
    pub(super) fn planned(&self, revision: i64, count: u64, hits: Vec<Hit>) -> RangePlan {
        RangePlan { revision, count: count.try_into().unwrap_or(i64::MAX), hits, query: self.clone() }
    }
}

/// One stored revision that a plan names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Where it is stored.
    pub shard: ShardId,
    /// Which it is.
    pub revision: Revision,
}

/// A range whose keys are known and whose values are not.
#[derive(Clone, Debug)]
pub struct RangePlan {
    /// The store's revision when it was planned, for the header.
    pub revision: i64,
    /// Keys in the range at the queried revision, whatever limit and filters say (etcd-contract 14).
    pub count: i64,
    /// The values to fetch, in this order.
    pub hits: Vec<Hit>,
    query: RangeQuery,
}

/// The answer to a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// Encoded KeyValues in the order asked for.
    pub key_values: Vec<Bytes>,
    /// Whether the limit cut some off.
    pub more: bool,
}

impl RangePlan {
    /// Filters, sorts and cuts the values of [`Self::hits`], given in the same order.
    ///
    /// # Errors
    /// [`MalformedKeyValue`] when a stored value that must be looked into is none.
    pub fn assemble(&self, mut values: Vec<Bytes>) -> Result<RangeResult, MalformedKeyValue> {
        assert_eq!(values.len(), self.hits.len(), "one value for each hit");
        let query = &self.query;
        if !query.filter.is_none() {
            let admitted = values.iter().map(|bytes| KeyValue::parse(bytes).map(|kv| query.filter.admits(&kv)));
            let admitted = admitted.collect::<Result<Vec<_>, _>>()?;
            let mut admitted = admitted.into_iter();
            values.retain(|_| admitted.next().unwrap_or(false));
        }
        if query.sort_target != SortTarget::Key || query.sort_order == SortOrder::Descend {
            values = sorted(values, query.sort_target, query.sort_order)?;
        }
        let limit = usize::try_from(query.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let more = values.len() > limit;
        values.truncate(limit);
        if query.keys_only {
            let keeps_lease = query.sort_target == SortTarget::Value;
            values = values.iter().map(|bytes| without_value(bytes, keeps_lease)).collect::<Result<_, _>>()?;
        }
        Ok(RangeResult { key_values: values, more })
    }
}

/// Sorts by one field; ties keep key order.
fn sorted(values: Vec<Bytes>, target: SortTarget, order: SortOrder) -> Result<Vec<Bytes>, MalformedKeyValue> {
    let parsed = values.iter().map(|bytes| KeyValue::parse(bytes)).collect::<Result<Vec<_>, _>>()?;
    let mut positions: Vec<usize> = (0..values.len()).collect();
    let compare = |a: &KeyValue<'_>, b: &KeyValue<'_>| -> Ordering {
        match target {
            SortTarget::Key => a.key.cmp(b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(b.value),
        }
    };
    positions.sort_by(|a, b| {
        let ordering = compare(&parsed[*a], &parsed[*b]);
        if order == SortOrder::Descend { ordering.reverse() } else { ordering }
    });
    Ok(positions.into_iter().map(|position| values[position].clone()).collect())
}

/// What `keys_only` shows: since etcd 3.7 neither value nor lease, but the lease where it had to read the value to
/// sort by it (etcd-contract 16).
///
/// # Errors
/// [`MalformedKeyValue`].
pub fn without_value(bytes: &[u8], keeps_lease: bool) -> Result<Bytes, MalformedKeyValue> {
    let mut kv = KeyValue::parse(bytes)?;
    kv.value = &[];
    if !keeps_lease {
        kv.lease = 0;
    }
    Ok(kv.encode())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &'static str, mod_revision: i64, value: &'static str) -> Bytes {
        let (key, value) = (key.as_bytes(), value.as_bytes());
        KeyValue { key, create_revision: 1, mod_revision, version: 1, value, lease: 7 }.encode()
    }

    fn assemble(query: RangeQuery, values: Vec<Bytes>) -> Vec<String> {
        let hit = Hit { shard: ShardId(0), revision: Revision::new(1, 0) };
        let plan = query.planned(9, values.len() as u64, vec![hit; values.len()]);
        let result = plan.assemble(values).expect("values are well-formed");
        let key =
            |bytes: &Bytes| String::from_utf8_lossy(KeyValue::parse(bytes).expect("well-formed").key).into_owned();
        result.key_values.iter().map(key).chain(result.more.then(|| "more".to_owned())).collect()
    }

    #[test]
    fn a_target_without_an_order_sorts_what_the_limit_lets_through() {
        // etcd-contract 15: c@2 b@3 a@4 d@5, MOD, NONE, limit 1 gives b; with ASCEND c.
        let query = RangeQuery { sort_target: SortTarget::Mod, limit: 1, ..RangeQuery::all(KeyRange::ALL) };
        assert_eq!(query.hits_max(), 2);
        assert_eq!(assemble(query.clone(), vec![kv("a", 4, ""), kv("b", 3, "")]), ["b", "more"]);
        let ascending = RangeQuery { sort_order: SortOrder::Ascend, ..query };
        assert_eq!(ascending.hits_max(), usize::MAX);
        let all = vec![kv("a", 4, ""), kv("b", 3, ""), kv("c", 2, ""), kv("d", 5, "")];
        assert_eq!(assemble(ascending, all), ["c", "more"]);
    }

    #[test]
    fn filters_come_before_the_limit() {
        let filter = RevisionFilter { min_mod: 3, ..RevisionFilter::default() };
        let query = RangeQuery { filter, limit: 1, ..RangeQuery::all(KeyRange::ALL) };
        assert_eq!(assemble(query.clone(), vec![kv("a", 2, ""), kv("b", 3, "")]), ["b"]);
        assert_eq!(assemble(query, vec![kv("a", 3, ""), kv("b", 3, "")]), ["a", "more"]);
    }

    #[test]
    fn keys_only_drops_value_and_lease() {
        let bytes = without_value(&kv("a", 2, "v"), false).expect("well-formed");
        let parsed = KeyValue::parse(&bytes).expect("well-formed");
        assert_eq!((parsed.value, parsed.lease, parsed.mod_revision), (&b""[..], 0, 2));
        let sorted_by_value = without_value(&kv("a", 2, "v"), true).expect("well-formed");
        assert_eq!(KeyValue::parse(&sorted_by_value).expect("well-formed").lease, 7);
    }
}
