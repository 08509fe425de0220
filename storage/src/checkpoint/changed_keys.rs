//! The records of an index run: keys written since the last checkpoint, and keys that a compaction removed.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::ops::ControlFlow;
use std::vec::IntoIter;

use crate::job::{Completions, Step};
use crate::mvcc::key_index::{self, IndexRoot};
use crate::mvcc::key_range::{KeyRange, RangeEnd};
use crate::runs::{self, Record, RecordSource, RunError};

const _: () = assert!(key_index::KEY_BYTES_MAX <= runs::KEY_BYTES_MAX);

/// Yields changed and removed keys in one ascending order. A removed key that was written again is not removed.
pub(super) struct ChangedKeys {
    index: IndexRoot,
    /// Main revision of the last checkpoint: what is newer has changed.
    after: i64,
    /// Where the walk goes on; `None` at its end.
    next: Option<Vec<u8>>,
    found: VecDeque<Record>,
    removed: Peekable<IntoIter<Vec<u8>>>,
}

impl ChangedKeys {
    pub(super) fn new(index: IndexRoot, after: i64, mut removed: Vec<Vec<u8>>) -> Self {
        removed.sort_unstable();
        removed.dedup();
        removed.retain(|key| index.newest_stored(key).is_none());
        let removed = removed.into_iter().peekable();
        Self { index, after, next: Some(Vec::new()), found: VecDeque::new(), removed }
    }

    /// Walks on for up to `records` changed keys.
    fn walk(&mut self, records: usize) {
        let Some(start) = self.next.take() else { return };
        let range = KeyRange { start, end: RangeEnd::Unbounded };
        let found = &mut self.found;
        let flow = self.index.scan_records(&range, self.after, |key, record| {
            if found.len() >= records {
                return ControlFlow::Break(key.to_vec());
            }
            found.push_back(Record { key: key.to_vec().into(), value: Some(record.into()) });
            ControlFlow::Continue(())
        });
        if let ControlFlow::Break(next) = flow {
            self.next = Some(next);
        }
    }

    fn pop(&mut self) -> Option<Record> {
        let removed_first = match (self.removed.peek(), self.found.front()) {
            (Some(removed), Some(found)) => removed.as_slice() < &found.key[..],
            (Some(_), None) => true,
            (None, _) => false,
        };
        if removed_first {
            return self.removed.next().map(|key| Record { key: key.into(), value: None });
        }
        self.found.pop_front()
    }
}

impl RecordSource for ChangedKeys {
    fn next(&mut self, _: Completions, budget: usize) -> Result<Step<Option<Vec<Record>>>, RunError> {
        let wanted = budget.clamp(1, 256);
        let mut records = Vec::new();
        while records.len() < wanted {
            if self.found.is_empty() && self.next.is_some() {
                self.walk(wanted);
            }
            let Some(record) = self.pop() else { break };
            records.push(record);
        }
        Ok(Step::Done(Some(records).filter(|records| !records.is_empty())))
    }
}
