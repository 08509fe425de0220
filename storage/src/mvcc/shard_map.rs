//! Which shard a key lives in. The map is replicated data; shards are numbers, and only the default map knows a name.

use super::key_range::{KeyRange, RangeEnd};

/// A shard's number, its position in every per-shard list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u32);

impl ShardId {
    /// Where the shard stands in a per-shard list.
    pub fn position(self) -> usize {
        self.0 as usize
    }
}

/// One shard: its name in metrics and files, and the key prefixes that belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSpec {
    /// Name for people.
    pub name: String,
    /// Prefixes, each ending in `/`; the slash-less key of a prefix goes with it (DESIGN D1). Empty for the shard
    /// that takes all the rest, which is shard 0.
    pub prefixes: Vec<Vec<u8>>,
}

/// Splits the key space. Shard 0 takes every key that no prefix claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMap {
    shards: Vec<ShardSpec>,
    /// Prefix and shard, longest prefix first, so that the first match is the most specific.
    routes: Vec<(Vec<u8>, ShardId)>,
}

impl Default for ShardMap {
    /// `main`, `events` and `leases` as DESIGN D1 names them.
    fn default() -> Self {
        let spec = |name: &str, prefixes: &[&str]| ShardSpec {
            name: name.to_owned(),
            prefixes: prefixes.iter().map(|p| p.as_bytes().to_vec()).collect(),
        };
        Self::new(vec![
            spec("main", &[]),
            spec("events", &["/registry/events/"]),
            spec("leases", &["/registry/leases/", "/registry/masterleases/"]),
        ])
    }
}

impl ShardMap {
    /// A map over `shards`; the first takes the rest.
    ///
    /// # Panics
    /// When there is no shard or a prefix does not end in `/`.
    pub fn new(shards: Vec<ShardSpec>) -> Self {
        Self::checked(shards).unwrap_or_else(|flaw| panic!("{flaw}"))
    }

    /// The same over shards that were read somewhere.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn checked(shards: Vec<ShardSpec>) -> Result<Self, &'static str> {
        if shards.is_empty() {
            return Err("a store has at least one shard");
        }
        let mut routes: Vec<_> = (0u32..)
            .zip(&shards)
            .flat_map(|(id, spec)| spec.prefixes.iter().map(move |prefix| (prefix.clone(), ShardId(id))))
            .collect();
        if !routes.iter().all(|(prefix, _)| prefix.ends_with(b"/")) {
            return Err("a shard prefix ends in a slash");
        }
        routes.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        Ok(Self { shards, routes })
    }

    /// The shards in the order of their numbers.
    pub fn shards(&self) -> &[ShardSpec] {
        &self.shards
    }

    /// The shard of one key.
    pub fn shard_of(&self, key: &[u8]) -> ShardId {
        let claims = |prefix: &[u8]| key.starts_with(prefix) || key == &prefix[..prefix.len() - 1];
        self.routes.iter().find(|(prefix, _)| claims(prefix)).map_or(ShardId(0), |(_, shard)| *shard)
    }

    /// The shards that may hold a key of `range`, ascending. Never misses one; a range inside one prefix gives
    /// exactly its shard.
    pub fn shards_of(&self, range: &KeyRange) -> Vec<ShardId> {
        if range.is_empty() {
            return Vec::new();
        }
        if range.end == RangeEnd::Single {
            return vec![self.shard_of(&range.start)];
        }
        if let Some(owner) = self.routes.iter().find(|(prefix, _)| lies_within(range, prefix)) {
            let nested = self.routes.iter().any(|(p, shard)| *shard != owner.1 && p.starts_with(&owner.0));
            if !nested {
                return vec![owner.1];
            }
        }
        let mut shards = vec![ShardId(0)];
        shards.extend(self.routes.iter().filter(|(prefix, _)| touches(range, prefix)).map(|(_, shard)| *shard));
        shards.sort_unstable();
        shards.dedup();
        shards
    }
}

/// Whether every key of `range` starts with `prefix`.
fn lies_within(range: &KeyRange, prefix: &[u8]) -> bool {
    let RangeEnd::Before(end) = &range.end else { return false };
    range.start.starts_with(prefix) && end.as_slice() <= prefix_end(prefix).as_slice()
}

/// Whether some key that `prefix` claims lies in `range`.
fn touches(range: &KeyRange, prefix: &[u8]) -> bool {
    let bare = &prefix[..prefix.len() - 1];
    let starts_below_end = range.start < prefix_end(prefix);
    let ends_above_start = match &range.end {
        RangeEnd::Single => return range.start == bare || range.start.starts_with(prefix),
        RangeEnd::Before(end) => end.as_slice() > prefix,
        RangeEnd::Unbounded => true,
    };
    range.contains(bare) || (starts_below_end && ends_above_start)
}

/// The first key above every key with `prefix`; the prefix ends in `/`, so its last byte can be raised.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn default_map_routes_as_the_design_says() {
        let map = ShardMap::default();
        for (key, shard) in [
            ("/registry/events/ns/a", 1),
            ("/registry/events", 1),
            ("/registry/eventsX", 0),
            ("/registry/leases/x", 2),
            ("/registry/masterleases/x", 2),
            ("/registry/pods/x", 0),
            ("", 0),
        ] {
            assert_eq!(map.shard_of(key.as_bytes()), ShardId(shard), "{key}");
        }
        assert_eq!(map.shards_of(&KeyRange::from_wire(b"/registry/events/", b"/registry/events0")), [ShardId(1)]);
        assert_eq!(map.shards_of(&KeyRange::ALL), [ShardId(0), ShardId(1), ShardId(2)]);
    }

    proptest! {
        #[test]
        fn a_range_names_every_shard_of_its_keys(
            start in "(/registry(/(events|leases|pods)(/[ab])?)?)?[/0a]?",
            end in "(/registry(/(events|leases|pods)(/[ab])?)?)?[/0a]?",
            key in "(/registry(/(events|leases|pods)(/[ab])?)?)?[/0a]?",
        ) {
            let nested = "main;e=/registry/events/;r=/registry/;l=/registry/leases/a/,/registry/pods/;s=/";
            let range = KeyRange::from_wire(start.as_bytes(), end.as_bytes());
            if range.contains(key.as_bytes()) {
                for map in [ShardMap::default(), nested.parse().expect("a map")] {
                    prop_assert!(map.shards_of(&range).contains(&map.shard_of(key.as_bytes())));
                }
            }
        }
    }
}
