//! Member and cluster ids, as etcd computes them (etcd-contract 53).

use sha1::{Digest, Sha1};

/// The id of a member: the first eight bytes of SHA-1 over its sorted peer URLs, the cluster token and, for a member
/// added to a running cluster, the Unix time in seconds.
pub fn member_id<'a>(peer_urls: impl IntoIterator<Item = &'a str>, token: &str, added_at: Option<i64>) -> u64 {
    let mut urls: Vec<&str> = peer_urls.into_iter().collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url);
    }
    hash.update(token);
    if let Some(seconds) = added_at {
        hash.update(seconds.to_string());
    }
    first_eight(hash)
}

/// The id of a cluster: the first eight bytes of SHA-1 over the sorted ids of its first members.
pub fn cluster_id(members: &[u64]) -> u64 {
    let mut members = members.to_vec();
    members.sort_unstable();
    let mut hash = Sha1::new();
    for member in members {
        hash.update(member.to_be_bytes());
    }
    first_eight(hash)
}

fn first_eight(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("SHA-1 has 20 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_member_has_etcds_ids() {
        let member = member_id(["http://localhost:2380"], "etcd-cluster", None);
        assert_eq!(member, 0x8e9e_05c5_2164_694d);
        assert_eq!(cluster_id(&[member]), 0xcdf8_1819_4e3a_8c32);
    }

    #[test]
    fn order_does_not_matter_but_time_does() {
        let urls = ["http://b:1", "http://a:1"];
        assert_eq!(member_id(urls, "t", None), member_id(["http://a:1", "http://b:1"], "t", None));
        assert_ne!(member_id(urls, "t", None), member_id(urls, "t", Some(1)));
        assert_eq!(cluster_id(&[2, 1]), cluster_id(&[1, 2]));
    }
}
