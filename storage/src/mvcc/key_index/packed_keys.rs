//! Sorted keys in one allocation, their common prefix stored once, each with a payload.
//!
//! ```text
//!   bytes:   prefix │ suffix length │ suffix │ payload │ suffix length │ suffix │ payload │ …
//!   starts:           ▲                                  ▲
//! ```
//! Copying a node is copying two flat vectors, and a key costs its suffix, a length byte and a start.

use std::cmp::Ordering;
use std::ops::Range;

use super::varint::{put_u64, take_u64};

/// A sorted list of (key, payload).
///
/// Invariants:
/// * keys ascend strictly;
/// * `prefix` is a prefix of every key, and the longest one right after [`Self::slice`] and [`Self::concat`].
#[derive(Clone, Debug, Default)]
pub(super) struct PackedKeys {
    bytes: Vec<u8>,
    starts: Vec<u32>,
    prefix_len: usize,
}

impl PackedKeys {
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Bytes of suffixes and payloads: what a split halves. The prefix is not among them.
    pub(super) fn item_bytes(&self) -> usize {
        self.bytes.len() - self.prefix_len
    }

    /// Bytes allocated behind this struct.
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.starts.capacity() * size_of::<u32>()
    }

    pub(super) fn shrink_to_fit(&mut self) {
        self.bytes.shrink_to_fit();
        self.starts.shrink_to_fit();
    }

    pub(super) fn prefix(&self) -> &[u8] {
        &self.bytes[..self.prefix_len]
    }

    /// The part of key `at` after the prefix.
    pub(super) fn suffix(&self, at: usize) -> &[u8] {
        self.item(at).0
    }

    pub(super) fn payload(&self, at: usize) -> &[u8] {
        self.item(at).1
    }

    /// Key `at`, whole.
    pub(super) fn key(&self, at: usize) -> Vec<u8> {
        [self.prefix(), self.suffix(at)].concat()
    }

    /// Where `key` stands, or where it would be inserted.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let Some(suffix) = key.strip_prefix(self.prefix()) else {
            return Err(if key < self.prefix() { 0 } else { self.len() });
        };
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.suffix(middle).cmp(suffix) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// How many keys are below `key`.
    pub(super) fn lower_bound(&self, key: &[u8]) -> usize {
        self.find(key).unwrap_or_else(|at| at)
    }

    /// Inserts at the position that [`Self::find`] gave; shortens the prefix if `key` does not share it.
    pub(super) fn insert(&mut self, at: usize, key: &[u8], payload: &[u8]) {
        if self.starts.is_empty() {
            self.bytes.clear();
            self.bytes.extend_from_slice(key);
            self.prefix_len = key.len();
        }
        let shared = common_prefix(self.prefix(), key);
        if shared < self.prefix_len {
            *self = Self::copied(shared, &key[..shared], &[(self, 0..self.len())]);
        }
        let suffix = &key[self.prefix_len..];
        let mut item = Vec::with_capacity(suffix.len() + payload.len() + 3);
        put_u64(&mut item, suffix.len() as u64);
        item.extend_from_slice(suffix);
        item.extend_from_slice(payload);
        let start = self.starts.get(at).map_or(self.bytes.len(), |&start| start as usize);
        if self.starts.len() == self.starts.capacity() {
            self.starts.reserve_exact(8);
        }
        self.starts.insert(at, offset(start));
        self.splice(start..start, &item, at + 1);
    }

    pub(super) fn set_payload(&mut self, at: usize, payload: &[u8]) {
        let end = self.end(at);
        self.splice(end - self.payload(at).len()..end, payload, at + 1);
    }

    pub(super) fn remove(&mut self, at: usize) {
        let range = self.starts[at] as usize..self.end(at);
        self.starts.remove(at);
        self.splice(range, &[], at);
    }

    /// The items of `range`, under the longest prefix that they share.
    pub(super) fn slice(&self, range: Range<usize>) -> Self {
        Self::joined(&[(self, range)])
    }

    /// These items and then those of `right`, whose keys are all greater.
    pub(super) fn concat(&self, right: &Self) -> Self {
        Self::joined(&[(self, 0..self.len()), (right, 0..right.len())])
    }

    /// About [`Self::item_bytes`] of a [`Self::concat`], whose common prefix may be shorter.
    pub(super) fn concat_bytes(&self, right: &Self) -> usize {
        let shared = common_prefix(self.prefix(), right.prefix());
        let grown = |keys: &Self| keys.item_bytes() + keys.len() * (keys.prefix_len - shared);
        grown(self) + grown(right)
    }

    /// Where the halves hold about equally many bytes; both get at least one item.
    pub(super) fn balanced_split(&self) -> usize {
        let middle = usize::midpoint(self.prefix_len, self.bytes.len());
        self.starts.partition_point(|&start| (start as usize) < middle).clamp(1, self.len() - 1)
    }

    fn joined(sources: &[(&Self, Range<usize>)]) -> Self {
        let mut items = sources.iter().filter(|(_, range)| !range.is_empty());
        let Some((first, first_range)) = items.next() else { return Self::default() };
        let (last, last_range) = items.next_back().unwrap_or(&sources[0]);
        let (low, high) = match last_range.is_empty() {
            true => (first.key(first_range.start), first.key(first_range.end - 1)),
            false => (first.key(first_range.start), last.key(last_range.end - 1)),
        };
        Self::copied(common_prefix(&low, &high), &low, sources)
    }

    /// Copies items under the prefix `low[..prefix_len]`, which all their keys must share.
    fn copied(prefix_len: usize, low: &[u8], sources: &[(&Self, Range<usize>)]) -> Self {
        let count = sources.iter().map(|(_, range)| range.len()).sum();
        let mut copy = Self { bytes: low[..prefix_len].to_vec(), starts: Vec::with_capacity(count), prefix_len };
        for (source, range) in sources {
            for at in range.clone() {
                let (suffix, payload) = source.item(at);
                let shown = source.prefix().get(prefix_len..).unwrap_or_default();
                let suffix = &suffix[prefix_len.saturating_sub(source.prefix_len)..];
                copy.starts.push(offset(copy.bytes.len()));
                put_u64(&mut copy.bytes, (shown.len() + suffix.len()) as u64);
                copy.bytes.extend_from_slice(shown);
                copy.bytes.extend_from_slice(suffix);
                copy.bytes.extend_from_slice(payload);
            }
        }
        copy.bytes.shrink_to_fit();
        copy
    }

    fn end(&self, at: usize) -> usize {
        self.starts.get(at + 1).map_or(self.bytes.len(), |&start| start as usize)
    }

    fn item(&self, at: usize) -> (&[u8], &[u8]) {
        let mut item = &self.bytes[self.starts[at] as usize..self.end(at)];
        let suffix_len = take_u64(&mut item).expect("an item starts with the length that insert wrote");
        item.split_at(suffix_len as usize)
    }

    /// Replaces `range` of the bytes and moves the starts of the items from `first_moved` on.
    fn splice(&mut self, range: Range<usize>, with: &[u8], first_moved: usize) {
        let (old_len, tail) = (self.bytes.len(), range.end);
        let new_tail = range.start + with.len();
        if with.len() > range.len() {
            let grown = with.len() - range.len();
            if self.bytes.capacity() - old_len < grown {
                // A sixteenth of slack: doubling would spend on capacity what the packing saves.
                self.bytes.reserve_exact(grown + old_len / 16);
            }
            self.bytes.resize(old_len + grown, 0);
        }
        self.bytes.copy_within(tail..old_len, new_tail);
        self.bytes[range.start..new_tail].copy_from_slice(with);
        self.bytes.truncate(new_tail + (old_len - tail));
        if new_tail != tail {
            for start in &mut self.starts[first_moved..] {
                *start = offset(*start as usize + new_tail - tail);
            }
        }
    }
}

/// Length of the longest common prefix.
pub(super) fn common_prefix(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a node splits long before 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(keys: &[&[u8]]) -> PackedKeys {
        let mut packed = PackedKeys::default();
        for key in keys {
            let at = packed.find(key).expect_err("keys are distinct");
            packed.insert(at, key, &key[..key.len().min(3)]);
        }
        packed
    }

    fn check(packed: &PackedKeys, keys: &[&[u8]]) {
        assert_eq!(packed.len(), keys.len());
        for (at, key) in keys.iter().enumerate() {
            assert_eq!(packed.key(at), *key);
            assert_eq!(packed.find(key), Ok(at));
            assert_eq!(packed.payload(at), &key[..key.len().min(3)]);
        }
    }

    #[test]
    fn the_prefix_shrinks_with_strangers_and_grows_in_a_slice() {
        let keys: [&[u8]; 6] = [b"", b"/pods/a", b"/pods/a\0", b"/pods/ab", b"/pods/b", b"/q"];
        let packed = packed(&[keys[3], keys[1], keys[2], keys[4], keys[5], keys[0]]);
        check(&packed, &keys);
        let pods = packed.slice(1..5);
        assert_eq!(pods.prefix(), b"/pods/");
        check(&pods, &keys[1..5]);
        check(&packed.slice(0..1).concat(&packed.slice(1..6)), &keys);
        check(&packed.slice(0..0).concat(&pods), &keys[1..5]);
        check(&pods.concat(&packed.slice(0..0)), &keys[1..5]);
    }

    #[test]
    fn payloads_change_length_in_place() {
        let mut packed = packed(&[b"k1", b"k2", b"k3"]);
        packed.set_payload(1, b"a longer payload");
        packed.set_payload(0, b"");
        assert_eq!(packed.payload(0), b"");
        assert_eq!(packed.payload(1), b"a longer payload");
        assert_eq!(packed.payload(2), b"k3");
        packed.remove(1);
        assert_eq!((packed.key(0), packed.key(1)), (b"k1".to_vec(), b"k3".to_vec()));
        assert_eq!(packed.find(b"k2"), Err(1));
        assert_eq!((packed.lower_bound(b"a"), packed.lower_bound(b"z")), (0, 2));
    }
}
