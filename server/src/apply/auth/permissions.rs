//! What one user may read and write: ranges of keys, joined over all of the user's roles (etcd
//! `server/auth/range_perm_cache.go`).

use basalt_proto::authpb::{Permission, Role, permission};

/// What is done with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Look at them.
    Read,
    /// Set or delete them.
    Write,
}

/// The ranges that a user may read and those that it may write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    read: Ranges,
    write: Ranges,
}

/// Disjoint ranges in order, none of which touches the next. An end of `None` is behind all keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges(Vec<(Vec<u8>, Option<Vec<u8>>)>);

/// A range as requests and permissions name it: no end is the one key, a zero byte is all that follow.
fn bounds(key: &[u8], range_end: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    match range_end {
        [] => (key.to_vec(), Some([key, &[0]].concat())),
        [0] => (key.to_vec(), None),
        end => (key.to_vec(), Some(end.to_vec())),
    }
}

/// Whether one end lies before another.
fn is_before(end: Option<&[u8]>, other: Option<&[u8]>) -> bool {
    match (end, other) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(end), Some(other)) => end < other,
    }
}

impl Ranges {
    /// Joins ranges that overlap or touch.
    fn join(mut ranges: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Self {
        ranges.retain(|(start, end)| is_before(Some(start), end.as_deref()));
        ranges.sort();
        let mut joined: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        for (start, end) in ranges {
            match joined.last_mut() {
                Some((_, last)) if !is_before(last.as_deref(), Some(&start)) => {
                    if is_before(last.as_deref(), end.as_deref()) {
                        *last = end;
                    }
                }
                _ => joined.push((start, end)),
            }
        }
        Self(joined)
    }

    /// Whether all of a range lies in these. A range without keys lies in those that its two ends lie in, as in etcd.
    fn cover(&self, start: &[u8], end: Option<&[u8]>) -> bool {
        let after = self.0.partition_point(|(first, _)| &first[..] <= start);
        let Some((first, last)) = after.checked_sub(1).map(|at| &self.0[at]) else { return false };
        let is_met = is_before(Some(first), end) && is_before(Some(start), last.as_deref());
        is_met && !is_before(last.as_deref(), end)
    }
}

impl Permissions {
    /// Those of a user with these roles.
    pub fn of<'a>(roles: impl Iterator<Item = &'a Role>) -> Self {
        #[cfg(test)]
        counts::JOINED.set(counts::JOINED.get() + 1);
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for Permission { perm_type, key, range_end } in roles.flat_map(|role| &role.key_permission) {
            let range = bounds(key, range_end);
            // A kind that nobody knows permits nothing.
            match permission::Type::try_from(*perm_type) {
                Ok(permission::Type::Read) => read.push(range),
                Ok(permission::Type::Write) => write.push(range),
                Ok(permission::Type::Readwrite) => {
                    read.push(range.clone());
                    write.push(range);
                }
                Err(_) => {}
            }
        }
        Self { read: Ranges::join(read), write: Ranges::join(write) }
    }

    /// Whether all keys of a range may be used so.
    pub fn allow(&self, access: Access, key: &[u8], range_end: &[u8]) -> bool {
        #[cfg(test)]
        counts::ASKED.set(counts::ASKED.get() + 1);
        let (start, end) = bounds(key, range_end);
        let ranges = match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        };
        ranges.cover(&start, end.as_deref())
    }
}

/// Whether a permission may name such a range (etcd `isValidPermissionRange`).
pub(super) fn is_range(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || key < range_end || range_end == [0])
}

/// How much work requests make, for tests of what they cost.
#[cfg(test)]
pub(crate) mod counts {
    use std::cell::Cell;

    thread_local! {
        /// Users whose ranges were joined.
        pub(crate) static JOINED: Cell<usize> = const { Cell::new(0) };
        /// Ranges that were looked for.
        pub(crate) static ASKED: Cell<usize> = const { Cell::new(0) };
    }
}
