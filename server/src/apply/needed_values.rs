//! Which stored values an entry needs, so that they are read before it is applied.

use std::cell::LazyCell;
use std::ops::ControlFlow;

use basalt_proto::log::LogEntry;
use basalt_storage::mvcc::key_range::{KeyRange, RangeEnd};
use basalt_storage::mvcc::range::Hit;

use super::machine::Machine;
use super::values::{VALUES_AHEAD_MAX, visit_value_ranges};

impl Machine {
    /// Stored values that applying `entry` may look at and that are in no memory: [`VALUES_AHEAD_MAX`] of them at most. Who
    /// may not ask for them has none read.
    pub fn needed_values(&self, entry: &LogEntry) -> Vec<Hit> {
        let mut needed = Vec::new();
        for request in &entry.requests {
            let Some(kind) = &request.kind else { continue };
            // Users and roles as they are now: one that an earlier request of this entry lets in has its values read later.
            let may = LazyCell::new(|| self.auth().check(request.principal.as_ref(), kind, self.leases()).is_ok());
            _ = visit_value_ranges(kind, &mut |range| {
                if *may { self.collect_needed(&range, &mut needed) } else { ControlFlow::Break(()) }
            });
        }
        needed
    }

    fn collect_needed(&self, range: &KeyRange, needed: &mut Vec<Hit>) -> ControlFlow<()> {
        let mut collect = |key: &[u8], revision| {
            if needed.len() >= VALUES_AHEAD_MAX {
                return ControlFlow::Break(());
            }
            let hit = Hit { shard: self.store().shard_map().shard_of(key), revision };
            if self.store().resident(hit).is_none() {
                needed.push(hit);
            }
            ControlFlow::Continue(())
        };
        match range.end {
            RangeEnd::Single => match self.store().get(&range.start) {
                Some(state) => collect(&range.start, state.mod_revision),
                None => ControlFlow::Continue(()),
            },
            _ => {
                self.store().for_each_live(range, |key, state| collect(key, state.mod_revision));
                if needed.len() >= VALUES_AHEAD_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
        }
    }
}
