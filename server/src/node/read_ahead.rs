//! Values that apply looks at to decide, read before it needs them: compared ones, and those that a put keeps. Apply never
//! reads a disk itself (DESIGN 2).
//!
//! 1. When a request is proposed, [`warm`] has the pages with such values read into the cache, while the log is synced.
//! 2. When its entry comes to apply and a value is in no memory yet, [`ReadAhead`] has it read, and apply holds this entry
//!    and those behind it until [`ApplyInput::ValuesRead`] comes; everything else that reaches apply goes on.
//! 3. What is left is read where it is asked for, and apply waits: values beyond [`VALUES_AHEAD_MAX`] of one entry, which
//!    only a compare of values over a long range can name, and one that left a delta while its entry was held.
//!
//! `basalt_apply_disk_waits_total` counts 2 and 3.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use basalt_proto::log::request::Kind;
use basalt_storage::job::{BUDGET_UNLIMITED, Job, Step, run};
use basalt_storage::mvcc::fetch::{Fetch, FetchError};
use basalt_storage::mvcc::range::{Hit, RangeQuery};
use basalt_storage::mvcc::view::View;
use bytes::Bytes;

use super::apply_thread::ApplyInput;
use super::fatal;
use super::handle::{Fetched, Unavailable};
use super::readers::Readers;
use crate::apply::values::{Prefetched, VALUES_AHEAD_MAX, Values, visit_value_ranges};
use crate::metrics::Metrics;

const READING: &str = "reading a value that apply needs";

/// Has pages read that apply will look at for `kind`. Waits for nothing; costs next to nothing where there are none, and
/// looks at no more than [`VALUES_AHEAD_MAX`] ranges and keys of a request that was not judged yet.
/// Nothing is read for who `may` not ask for it, by users and roles that may be older by then.
pub fn warm(kind: &Kind, view: &Arc<View>, readers: &Readers, may: impl FnOnce() -> bool) {
    let hits = worth_reading(kind, view);
    if hits.is_empty() || !may() {
        return;
    }
    let known = Fetch::new(view.clone(), hits.clone()).step(Vec::new(), BUDGET_UNLIMITED);
    if !matches!(known, Ok(Step::Done(_))) {
        // Nobody waits for the values: what counts is that their pages are in the cache. Damage shows to who needs them.
        let view = view.clone();
        readers.spawn(move |disk| drop(run(&mut Fetch::new(view, hits), disk, BUDGET_UNLIMITED)));
    }
}

fn worth_reading(kind: &Kind, view: &View) -> Vec<Hit> {
    let (mut hits, mut left) = (Vec::new(), VALUES_AHEAD_MAX);
    _ = visit_value_ranges(kind, &mut |range| {
        let query = RangeQuery { limit: left as i64, ..RangeQuery::all(range) };
        let found = view.plan(&query).map(|plan| plan.hits).unwrap_or_default();
        let looked_at = found.len().clamp(1, left);
        hits.extend(found.into_iter().take(left).filter(|hit| view.resident(*hit).is_none()));
        left -= looked_at;
        // A limit of 0 would be none.
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    hits
}

/// What was read for the entry that is to be applied next.
#[derive(Debug, Default)]
pub enum ReadAhead {
    /// Nothing was asked for.
    #[default]
    None,
    /// A read thread is at it: the entry waits.
    Running,
    /// All that is read ahead for it.
    Done(Prefetched),
}

impl ReadAhead {
    /// Starts to read `hits`, unless all are in memory.
    pub fn start(
        hits: Vec<Hit>,
        view: Arc<View>,
        (readers, apply): (&Readers, &Sender<ApplyInput>),
        metrics: &Metrics,
    ) -> Self {
        match Fetch::new(view.clone(), hits.clone()).step(Vec::new(), BUDGET_UNLIMITED) {
            Ok(Step::Done(values)) => return ReadAhead::Done(Prefetched::of(&hits, values)),
            Ok(Step::Again | Step::Submit(_)) => {}
            Err(cause) => fatal::stop(READING, &cause),
        }
        metrics.apply_disk_waits_total.inc();
        let apply = apply.clone();
        readers.spawn(move |disk| {
            let values = run(&mut Fetch::new(view, hits.clone()), disk, BUDGET_UNLIMITED);
            // Damage under apply stops the node: a guess here would make members differ.
            let values = values.unwrap_or_else(|cause: FetchError| fatal::stop(READING, &cause));
            // Apply is gone only when the process is about to be.
            drop(apply.send(ApplyInput::ValuesRead(Prefetched::of(&hits, values))));
        });
        ReadAhead::Running
    }
}

/// Apply's source of values: read ahead, else read now and counted.
pub struct StoredValues {
    /// What the store has in pages.
    pub view: Arc<View>,
    /// What was read ahead.
    pub prefetched: Prefetched,
    /// For the rest.
    pub readers: Readers,
    /// Counts it.
    pub metrics: Arc<Metrics>,
}

impl Values for StoredValues {
    fn value(&mut self, hit: Hit) -> Bytes {
        if let Some(value) = self.prefetched.get(hit) {
            return value.clone();
        }
        let fetched = match self.readers.fetch(self.view.clone(), vec![hit]) {
            Fetched::Ready(values) => Ok(values),
            Fetched::Pending(gathering) => {
                self.metrics.apply_disk_waits_total.inc();
                gathering.start().blocking_recv().unwrap_or(Err(Unavailable::Stopped))
            }
            Fetched::Failed(cause) => Err(cause),
        };
        let values = fetched.unwrap_or_else(|cause| fatal::stop(READING, &cause));
        values.into_iter().next().expect("one value for one hit")
    }
}
