//! The hash over a whole store: all buckets, their keys and values.

use super::concat::concat;

/// Which entries a [`ContentHash`] leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashedContent {
    /// None: what `etcdutl snapshot status` prints.
    All,
    /// Those of bucket `meta` that members do not share: what RPC `Hash` answers (etcd's `schema.DefaultIgnores`).
    Shared,
}

/// CRC-32C over each bucket's name, then its keys and values, all in byte order.
#[derive(Debug)]
pub struct ContentHash {
    content: HashedContent,
    hash: u32,
    in_meta: bool,
}

impl ContentHash {
    /// The hash of nothing.
    pub fn new(content: HashedContent) -> Self {
        Self { content, hash: 0, in_meta: false }
    }

    /// Begins the next bucket; an empty one counts by its name.
    pub fn bucket(&mut self, name: &[u8]) {
        self.hash = crc32c::crc32c_append(self.hash, name);
        self.in_meta = name == b"meta";
    }

    /// The next entry of the bucket.
    pub fn entry(&mut self, key: &[u8], value: &[u8]) {
        let ignored = self.content == HashedContent::Shared
            && self.in_meta
            && matches!(key, b"consistent_index" | b"term" | b"storageVersion");
        if !ignored {
            self.hash = crc32c::crc32c_append(crc32c::crc32c_append(self.hash, key), value);
        }
    }

    /// The next entry of bucket `key`, by the CRC and the length of revision key and value together, as a slot has it.
    pub fn slot(&mut self, crc: u32, length: u32) {
        self.hash = concat(self.hash, crc, length);
    }

    /// The hash.
    pub fn finish(self) -> u32 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(content: HashedContent, storage_version: &[u8]) -> u32 {
        let mut hash = ContentHash::new(content);
        hash.bucket(b"key");
        hash.entry(b"revision", b"value");
        hash.bucket(b"lease");
        hash.bucket(b"meta");
        hash.entry(b"confState", b"{}");
        hash.entry(b"storageVersion", storage_version);
        hash.finish()
    }

    #[test]
    fn it_is_the_crc_of_all_bytes_in_order() {
        let bytes = b"keyrevisionvalueleasemetaconfState{}storageVersion3.7.0";
        assert_eq!(hash_of(HashedContent::All, b"3.7.0"), crc32c::crc32c(bytes));
    }

    #[test]
    fn what_members_do_not_share_can_be_left_out() {
        assert_eq!(hash_of(HashedContent::Shared, b"a"), crc32c::crc32c(b"keyrevisionvalueleasemetaconfState{}"));
    }

    #[test]
    fn a_slot_counts_as_its_entry() {
        let (mut by_slot, mut by_entry) = (ContentHash::new(HashedContent::All), ContentHash::new(HashedContent::All));
        by_slot.bucket(b"key");
        by_slot.slot(crc32c::crc32c(b"revisionvalue"), 13);
        by_entry.bucket(b"key");
        by_entry.entry(b"revision", b"value");
        assert_eq!(by_slot.finish(), by_entry.finish());
    }
}
