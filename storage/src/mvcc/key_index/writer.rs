//! The one writer of the index.

use crate::revision::Revision;

use super::inner::{Child, Inner};
use super::leaf::{Change, LEAF_KEYS_MAX};
use super::node::{Node, Split};
use super::packed_keys::PackedKeys;
use super::record::KeyState;
use super::root::IndexRoot;

/// Longest key. Far above what a request may carry; it keeps every offset within a node far below 32 bits.
pub const KEY_BYTES_MAX: usize = 16 << 20;

/// The head of the index, and the only one who changes it.
#[derive(Debug, Default)]
pub struct KeyIndex {
    root: IndexRoot,
}

/// What a put changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutOutcome {
    /// The key before, if it was live.
    pub previous: Option<KeyState>,
    /// Newest stored revision before, also a tombstone's.
    pub previous_revision: Option<Revision>,
    /// The key now.
    pub state: KeyState,
}

/// What a delete changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteOutcome {
    /// The key before.
    pub previous: KeyState,
}

/// What a step of a compaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactStep {
    /// Revisions that no read at or above the compact revision can see, ascending per key; all of a key at once.
    pub dropped: Vec<Revision>,
    /// Keys that left the index with the last of their revisions, ascending.
    pub removed_keys: Vec<Vec<u8>>,
    /// Where the next step starts; `None` if this was the last.
    pub next: Option<Vec<u8>>,
}

impl KeyIndex {
    /// An index without keys.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn from_node(node: Node) -> Self {
        Self { root: IndexRoot { node } }
    }

    /// The index as it stands now. O(1); the first later write to each node that it holds copies the node.
    pub fn root(&self) -> IndexRoot {
        self.root.clone()
    }

    /// The head, to be read in place: what [`Self::root`] gives, without making later writes copy.
    pub fn head(&self) -> &IndexRoot {
        &self.root
    }

    /// `key`, if live.
    pub fn get(&self, key: &[u8]) -> Option<KeyState> {
        self.root.get(key)
    }

    /// The whole state of `key`, see [`IndexRoot::encode_record`].
    pub fn encode_record(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.root.encode_record(key)
    }

    /// Puts `key` at `revision`, attached to `lease` or to none (0).
    ///
    /// # Panics
    /// Unless `revision` is above every earlier one of the key, with `main >= 1` and `sub >= 0`, and the key at most
    /// [`KEY_BYTES_MAX`] long: apply numbers its revisions itself and has checked the request.
    pub fn put(&mut self, key: &[u8], revision: Revision, lease: i64) -> PutOutcome {
        assert!(key.len() <= KEY_BYTES_MAX, "key of {} bytes", key.len());
        assert!(revision.main >= 1 && revision.sub >= 0, "{revision:?} is no stored revision");
        let (written, split) = self.root.node.write(key, revision, Change::Put { lease });
        self.grow(split);
        PutOutcome {
            previous: written.before.and_then(|head| head.live()),
            previous_revision: written.before.map(|head| head.revision()),
            state: written.after.live().expect("a put leaves the key live"),
        }
    }

    /// Deletes `key` at `revision`: a tombstone stays until a compaction above it. `None`, and no change, if the key
    /// is not live.
    ///
    /// # Panics
    /// Unless `revision` is above every earlier one of the key.
    pub fn delete(&mut self, key: &[u8], revision: Revision) -> Option<DeleteOutcome> {
        let previous = self.get(key)?;
        let (_, split) = self.root.node.write(key, revision, Change::Delete);
        self.grow(split);
        Some(DeleteOutcome { previous })
    }

    /// Takes over a revision that another store wrote, whose earlier ones may be compacted away: a put with the create
    /// revision and version that it had there, or with `None` a tombstone, also of a key that is not live. Gives the
    /// live revision before it.
    ///
    /// # Panics
    /// Unless `state` has the revision as its own and a creation at or before it, the revision is above every earlier one
    /// of the key, and the key at most [`KEY_BYTES_MAX`] long.
    pub fn restore(&mut self, key: &[u8], revision: Revision, state: Option<KeyState>) -> Option<Revision> {
        assert!(key.len() <= KEY_BYTES_MAX, "key of {} bytes", key.len());
        assert!(revision.main >= 1 && revision.sub >= 0, "{revision:?} is no stored revision");
        let change = match state {
            None => Change::Delete,
            Some(KeyState { create_revision, mod_revision, version, lease }) => {
                assert!(mod_revision == revision, "the state of {revision:?} is of {mod_revision:?}");
                assert!((1..=revision.main).contains(&create_revision), "created at {create_revision}");
                assert!(version >= 1, "version {version}");
                Change::Restore { create_revision, version, lease }
            }
        };
        let (written, split) = self.root.node.write(key, revision, change);
        self.grow(split);
        written.before.and_then(|head| head.live()).map(|state| state.mod_revision)
    }

    /// Compacts at main revision `at`, from `cursor` on (`None`: from the first key), at least one leaf and until `budget`
    /// is used up: a leaf costs what it drops, or what it may hold of keys if that is more.
    ///
    /// Of each key the newest revision at or below `at` stays, unless it is a tombstone below `at`, and all newer
    /// ones; a key with none left goes (etcd-contract 13). A leaf with nothing to drop is neither copied nor read.
    pub fn compact_step(&mut self, at: i64, cursor: Option<Vec<u8>>, budget: usize) -> CompactStep {
        let mut step = CompactStep { next: Some(cursor.unwrap_or_default()), ..CompactStep::default() };
        let mut spent = 0;
        while let Some(cursor) = &step.next {
            let dropped_before = step.dropped.len();
            let droppable = self.root.node.next_droppable(cursor, at);
            step.next = droppable.and_then(|(target, next)| {
                self.root.node.compact(&target, at, &mut step);
                next
            });
            spent += (step.dropped.len() - dropped_before).max(LEAF_KEYS_MAX);
            if spent >= budget {
                break;
            }
        }
        self.shrink();
        step
    }

    fn grow(&mut self, split: Option<Split>) {
        let Some(Split { separator, right }) = split else { return };
        let mut separators = PackedKeys::default();
        separators.insert(0, &separator, &[]);
        let left = std::mem::take(&mut self.root.node);
        let children = vec![Child::from(left), Child::from(right)];
        self.root.node = Node::Inner(Inner::new(separators, children).into());
    }

    /// Takes levels off the tree that have become needless.
    fn shrink(&mut self) {
        while let Node::Inner(inner) = &self.root.node {
            match inner.children() {
                [] => self.root.node = Node::default(),
                [only] => self.root.node = only.node.clone(),
                _ => break,
            }
        }
    }
}
