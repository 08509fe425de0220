//! How many lines the places of the code have had: the bound of whatever has no narrower one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;

use super::allowance::{Allowance, Rule};

/// As etcd's logger: what is left out of more is 99 of 100.
const OWN: Rule = Rule { span: Duration::from_secs(1), first: 100, then_each: Some(100) };
/// Libraries warn of what a client did wrong, before it has logged in and each time: `h2` of every answer to a ping that nobody
/// sent.
const LIBRARY: Rule = Rule { span: Duration::from_secs(10), first: 10, then_each: None };

/// No more of them than the program has.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<HashMap<Identifier, Allowance>>);

impl Places {
    /// How many lines of that place were left out before this one, if this one is to be written.
    pub(super) fn left_out_before(&self, place: Identifier, is_own: bool, now: Instant) -> Option<u64> {
        // Whole after a panic too.
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rule = if is_own { OWN } else { LIBRARY };
        places.entry(place).or_default().due(rule, now).map(|times| times - 1)
    }
}
