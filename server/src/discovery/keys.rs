//! The keys of etcd's v3 discovery: under which the size of a cluster stands, and its members register.

const PREFIX: &str = "/_etcd/registry";

/// Where the operator writes how many members there are to be.
pub(super) fn size_key(token: &str) -> String {
    joined(token, "_config/size")
}

/// What the keys of all members begin with.
pub(super) fn members_prefix(token: &str) -> String {
    joined(token, "members")
}

/// Where member `id` registers.
pub(super) fn member_key(token: &str, id: u64) -> String {
    format!("{}/{id:x}", members_prefix(token))
}

/// As Go's `path.Join` has it, for members of both kinds must agree on a token with slashes or dots.
fn joined(token: &str, rest: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in [PREFIX, token, rest].iter().flat_map(|text| text.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_etcds() {
        assert_eq!(size_key("t"), "/_etcd/registry/t/_config/size");
        assert_eq!(members_prefix("t"), "/_etcd/registry/t/members");
        assert_eq!(member_key("t", 0x0abc), "/_etcd/registry/t/members/abc");
        for (token, key) in [
            ("a/b", "/_etcd/registry/a/b/members"),
            ("/a//b/", "/_etcd/registry/a/b/members"),
            ("./a", "/_etcd/registry/a/members"),
            ("../a", "/_etcd/a/members"),
            ("../../../a", "/a/members"),
            ("..a", "/_etcd/registry/..a/members"),
        ] {
            assert_eq!(members_prefix(token), key, "{token}");
        }
    }
}
