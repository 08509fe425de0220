//! Who registered at a discovery service, in the order that counts. Pure.

use super::error::DiscoveryError;
use super::keys::{member_key, members_prefix};
use crate::config::{Url, cluster_text, has_duplicates, parse_initial_cluster};

/// Most members that a cluster may be founded with; etcd sets no limit, and recommends seven.
pub(super) const CLUSTER_SIZE_MAX: usize = 256;
/// Longest registration that counts, bytes: all URLs of a member.
pub(super) const REGISTRATION_BYTES_MAX: usize = 16 << 10;

/// A key of the service with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registration {
    /// `<prefix>/<member id>`.
    pub(super) key: String,
    /// `name=URL,name=URL`.
    pub(super) value: String,
    /// The revision at which the key was made: who came first.
    pub(super) create_revision: i64,
}

/// The registrations of one token.
///
/// * Sorted by the revision at which they were made, each key once.
/// * No more than the cluster has places: whoever comes later counts nowhere.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    token: String,
    size: usize,
    members: Vec<Registration>,
}

/// Reads the size of a cluster.
///
/// # Errors
/// [`DiscoveryError::BadSizeKey`].
pub(super) fn parse_size(key: &str, value: &[u8]) -> Result<usize, DiscoveryError> {
    // Go's ParseInt takes a sign too.
    let size = std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok());
    let size = size.and_then(|size| usize::try_from(size).ok()).filter(|size| (1..=CLUSTER_SIZE_MAX).contains(size));
    size.ok_or_else(|| DiscoveryError::BadSizeKey { key: key.to_owned() })
}

impl Registry {
    /// Nobody yet, of a cluster with so many places.
    pub(super) fn new(token: &str, size: usize) -> Self {
        Self { token: token.to_owned(), size, members: Vec::new() }
    }

    /// Takes a registration in.
    ///
    /// # Errors
    /// Why it does not count, in etcd's words: not a reason to end.
    pub(super) fn add(
        &mut self,
        key: &[u8],
        value: &[u8],
        create_revision: i64,
    ) -> Result<&Registration, &'static str> {
        let key = std::str::from_utf8(key).map(str::trim).unwrap_or_default();
        if !key.starts_with(&members_prefix(&self.token)) {
            return Err("invalid peer registry key");
        }
        let value = std::str::from_utf8(value).map(str::trim).unwrap_or_default();
        if !value.contains('=') || value.len() > REGISTRATION_BYTES_MAX {
            return Err("invalid peer info returned from discovery service");
        }
        if self.members.iter().any(|member| member.key == key) {
            return Err("found duplicate peer from discovery service");
        }
        let place = self.members.partition_point(|member| member.create_revision <= create_revision);
        if place >= self.size {
            return Err("found a peer at the discovery service for which there is no place");
        }
        self.members.insert(place, Registration { key: key.to_owned(), value: value.to_owned(), create_revision });
        self.members.truncate(self.size);
        Ok(&self.members[place])
    }

    /// How many have a place.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether all places are taken.
    pub(super) fn is_complete(&self) -> bool {
        self.members.len() == self.size
    }

    /// Whether member `id` has a place, or there is one left for it.
    ///
    /// # Errors
    /// [`DiscoveryError::FullCluster`].
    pub(super) fn check_place(&self, id: u64) -> Result<(), DiscoveryError> {
        let own = member_key(&self.token, id);
        if self.is_complete() && !self.members.iter().any(|member| member.key == own) {
            return Err(DiscoveryError::FullCluster { size: self.size });
        }
        Ok(())
    }

    /// All with a place, as `--initial-cluster` would list them.
    ///
    /// # Errors
    /// A registration that holds no members, or two with one URL.
    pub(super) fn cluster(&self) -> Result<Vec<(String, Vec<Url>)>, DiscoveryError> {
        for member in &self.members {
            parse_initial_cluster(&member.value).map_err(|why| {
                let (key, value) = (member.key.clone(), member.value.clone());
                DiscoveryError::InvalidUrl { key, value, why }
            })?;
        }
        let values: Vec<&str> = self.members.iter().map(|member| &*member.value).collect();
        let cluster = parse_initial_cluster(&values.join(",")).expect("each of them was parsed");
        if has_duplicates(cluster.iter().flat_map(|(_, urls)| urls)) {
            return Err(DiscoveryError::DuplicateUrl { cluster: cluster_text(&cluster) });
        }
        Ok(cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &[u8] = b"/_etcd/registry/t/members/a";
    const B: &[u8] = b"/_etcd/registry/t/members/b";
    const C: &[u8] = b"/_etcd/registry/t/members/c";

    fn registry(size: usize, registered: &[(&[u8], &[u8], i64)]) -> Registry {
        let mut registry = Registry::new("t", size);
        for (key, value, revision) in registered {
            registry.add(key, value, *revision).expect("it counts");
        }
        registry
    }

    #[test]
    fn sizes_are_those_of_clusters() {
        for (text, size) in [("3", Some(3)), ("+3", Some(3)), ("1", Some(1)), ("256", Some(256))] {
            assert_eq!(parse_size("k", text.as_bytes()).ok(), size, "{text}");
        }
        for text in ["", "0", "-1", "257", "3 ", "x", "9223372036854775808", "\u{663}"] {
            let refused = parse_size("k", text.as_bytes()).expect_err(text).to_string();
            assert!(refused.contains("(discovery: size key is bad); k must hold"), "{text}: {refused}");
        }
        assert!(parse_size("k", &[0xff]).is_err());
    }

    #[test]
    fn who_came_first_has_a_place() {
        let mut registry = registry(2, &[(B, b"b=http://b:1", 9), (A, b"a=http://a:1", 12)]);
        assert!(registry.is_complete() && registry.check_place(0xa).is_ok());
        // It registered between the two: A has none any more.
        registry.add(C, b" c=http://c:1\n", 11).expect("it counts");
        assert_eq!(registry.len(), 2);
        let full = registry.check_place(0xa).expect_err("full").to_string();
        assert!(
            full.starts_with("failed to join discovery cluster (discovery: cluster is full); all 2 members"),
            "{full}"
        );
        assert_eq!((registry.check_place(0xb), registry.check_place(0xc)), (Ok(()), Ok(())));
        assert!(registry.add(A, b"a=http://a:1", 12).expect_err("late").contains("no place"));
        assert_eq!(cluster_text(&registry.cluster().expect("two members")), "b=http://b:1,c=http://c:1");
    }

    #[test]
    fn a_place_is_left_while_some_are_missing() {
        let registry = registry(3, &[(A, b"a=http://a:1", 1), (B, b"b=http://b:1", 2)]);
        assert!(!registry.is_complete() && registry.check_place(0xff).is_ok());
    }

    #[test]
    fn what_strangers_wrote_counts_only_as_a_registration() {
        let mut registry = registry(3, &[(A, b"a=http://a:1", 5)]);
        let mut refused = |key: &[u8], value: &[u8]| registry.add(key, value, 7).map(drop).expect_err("refused");
        assert_eq!(refused(b"/elsewhere/members/b", b"b=http://b:1"), "invalid peer registry key");
        assert_eq!(refused(&[0xff, 0xfe], b"b=http://b:1"), "invalid peer registry key");
        for value in [&b"http://b:1"[..], b"", &[b'=', 0xff], &[b'='; REGISTRATION_BYTES_MAX + 1]] {
            assert_eq!(refused(B, value), "invalid peer info returned from discovery service");
        }
        assert_eq!(refused(A, b"a=http://other:1"), "found duplicate peer from discovery service");
        assert_eq!(registry.len(), 1);
    }

    #[test]
    fn registrations_that_count_must_be_members() {
        let bad = registry(1, &[(A, b"a=nowhere", 1)]).cluster().expect_err("no URL").to_string();
        assert!(
            bad.contains("(discovery: invalid peer URL)") && bad.contains("members/a holds \"a=nowhere\""),
            "{bad}"
        );
        let twice = registry(2, &[(A, b"a=http://a:1", 1), (B, b"b=http://a:1", 2)]);
        let twice = twice.cluster().expect_err("one URL of two").to_string();
        assert!(twice.starts_with("discovery cluster a=http://a:1,b=http://a:1 has duplicate url"), "{twice}");
    }
}
