//! Values for one answer, gathered in groups: an answer that grows beyond what may be sent is given up while it grows,
//! and one that shows no values never holds them.

use std::sync::Arc;

use basalt_storage::job::{Completions, Job, Step};
use basalt_storage::mvcc::fetch::{Fetch, FetchError};
use basalt_storage::mvcc::key_value::MalformedKeyValue;
use basalt_storage::mvcc::range::{Hit, without_value};
use basalt_storage::mvcc::view::View;
use bytes::Bytes;
use thiserror::Error;

/// Longest message that gRPC sends (grpc-go `MaxSendMsgSize`, etcd-contract 40).
pub const ANSWER_BYTES_MAX: usize = i32::MAX as usize;

/// Hits of the first group, and of any. Small values may be followed by large ones: what a group can hold at worst is
/// what one answer may hold above its limit.
const GROUP_HITS_FIRST: usize = 64;
const GROUP_HITS_MAX: usize = 256;
/// What a group holds, if its values are no longer than the longest before.
const GROUP_BYTES: usize = 8 << 20;

/// What of a stored KeyValue an answer shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// All of it.
    Whole,
    /// Neither value nor lease (`keys_only`).
    KeysOnly,
}

/// How many bytes to gather.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// All or nothing: more than these is an error.
    Refuse(usize),
    /// Enough is enough: with these, or somewhat more, the gathering ends before the last hit.
    Stop(usize),
}

/// Why an answer could not be gathered.
#[derive(Debug, Error)]
pub enum GatherError {
    /// The values are not there.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A stored value is none.
    #[error(transparent)]
    Malformed(#[from] MalformedKeyValue),
    /// More bytes than may be sent; so many were gathered until then.
    #[error("an answer of {0} bytes or more")]
    TooLarge(usize),
}

/// Gathers the KeyValues of hits, in their order, as far as its limit lets it. When nothing needs a disk the first step is
/// [`Step::Done`]; budget units are not counted.
pub struct Gather {
    view: Arc<View>,
    hits: Vec<Hit>,
    shown: Shown,
    limit: Limit,
    /// The group under way, and where the next begins.
    group: Option<Fetch>,
    next: usize,
    bytes: usize,
    /// The longest as stored, to foresee the next group.
    longest: usize,
    values: Vec<Bytes>,
}

impl Gather {
    /// A gathering of `hits`, all of `view`; the limit is on what is shown.
    pub fn new(view: Arc<View>, hits: Vec<Hit>, shown: Shown, limit: Limit) -> Self {
        let values = Vec::with_capacity(hits.len());
        Self { view, hits, shown, limit, group: None, next: 0, bytes: 0, longest: 0, values }
    }

    fn next_group(&mut self) -> Fetch {
        let foreseen = GROUP_BYTES / self.longest.max(1);
        let hits = if self.next == 0 { GROUP_HITS_FIRST } else { foreseen.clamp(1, GROUP_HITS_MAX) };
        let end = self.hits.len().min(self.next + hits);
        let group = self.hits[self.next..end].to_vec();
        self.next = end;
        Fetch::new(self.view.clone(), group)
    }

    fn keep(&mut self, values: Vec<Bytes>) -> Result<(), GatherError> {
        for value in values {
            self.longest = self.longest.max(value.len());
            let value = match self.shown {
                Shown::Whole => value,
                Shown::KeysOnly => without_value(&value, false)?,
            };
            self.bytes += value.len();
            self.values.push(value);
        }
        match self.limit {
            Limit::Refuse(bytes_max) if self.bytes > bytes_max => Err(GatherError::TooLarge(self.bytes)),
            _ => Ok(()),
        }
    }

    fn is_done(&self) -> bool {
        self.next == self.hits.len() || matches!(self.limit, Limit::Stop(enough) if self.bytes >= enough)
    }
}

impl Job for Gather {
    type Output = Vec<Bytes>;
    type Error = GatherError;

    fn step(&mut self, mut completions: Completions, budget: usize) -> Result<Step<Vec<Bytes>>, GatherError> {
        loop {
            let mut group = match self.group.take() {
                Some(group) => group,
                None if self.is_done() => return Ok(Step::Done(std::mem::take(&mut self.values))),
                None => self.next_group(),
            };
            let step = group.step(std::mem::take(&mut completions), budget)?;
            match step {
                Step::Done(values) => self.keep(values)?,
                Step::Again => {
                    self.group = Some(group);
                    return Ok(Step::Again);
                }
                Step::Submit(requests) => {
                    self.group = Some(group);
                    return Ok(Step::Submit(requests));
                }
            }
        }
    }
}
