//! The loads by name.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tokio::time::timeout;

use super::leases::{Grant, KeepAlive};
use super::load::{Callers, Load};
use super::reads::{Count, Get, ListPages, ListStream};
use super::sizes::Sizes;
use super::watches::Watches;
use super::writes::{Put, Update};
use crate::connections::Connections;

/// Filling, granting or creating watches at the largest sizes takes seconds.
const PREPARE_MAX: Duration = Duration::from_secs(300);

/// A load that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Put 256 B to one of 10,000 keys
    Put,
    /// Get, then replace 1 KiB in a transaction if unchanged
    Update,
    /// Linearizable get of 1 KiB
    GetLinearizable,
    /// Serializable get of 1 KiB
    GetSerializable,
    /// A whole list of 4 KiB values in pages of 500
    ListPages,
    /// A whole list of 4 KiB values by RangeStream
    ListStream,
    /// Count of all keys of a prefix
    Count,
    /// Grant of a lease
    LeaseGrant,
    /// Keepalive of a lease, each on its own stream
    LeaseKeepalive,
    /// Event to one of many watchers of a prefix
    WatchPrefix,
    /// Put and its event, with many watchers of a key each
    WatchKeys,
}

impl Workload {
    /// The name on the command line and in tables.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The loads of a name: itself, or all whose name starts with it and a dash, as in `list`.
    ///
    /// # Errors
    /// No load has that name.
    pub fn named(name: &str) -> Result<Vec<Self>> {
        let mut found = Self::value_variants().to_vec();
        found.retain(|workload| {
            let rest = workload.name();
            rest.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        });
        let all = || Self::value_variants().iter().map(|workload| workload.name()).collect::<Vec<_>>().join(", ");
        if found.is_empty() {
            anyhow::bail!("no load is named {name:?}; there are {}", all());
        }
        Ok(found)
    }

    /// Brings a server into the state that the load needs.
    ///
    /// # Errors
    /// The server refused, or took more than five minutes.
    pub async fn prepare(self, connections: &Connections, sizes: &Sizes) -> Result<Box<dyn Load>> {
        let prepared = timeout(PREPARE_MAX, self.prepare_unbounded(connections, sizes)).await;
        prepared.with_context(|| format!("not prepared in {PREPARE_MAX:?}"))?
    }

    async fn prepare_unbounded(self, connections: &Connections, sizes: &Sizes) -> Result<Box<dyn Load>> {
        Ok(match self {
            Self::Put => boxed(Callers(Put::callers(connections, sizes.callers()))),
            Self::Update => boxed(Update::callers(connections, sizes).await?),
            Self::GetLinearizable => boxed(Get::callers(connections, sizes, false).await?),
            Self::GetSerializable => boxed(Get::callers(connections, sizes, true).await?),
            Self::ListPages => boxed(ListPages::callers(connections, sizes).await?),
            Self::ListStream => boxed(ListStream::callers(connections, sizes).await?),
            Self::Count => boxed(Count::callers(connections, sizes).await?),
            Self::LeaseGrant => boxed(Grant::callers(connections, sizes)),
            Self::LeaseKeepalive => boxed(KeepAlive::callers(connections, sizes).await?),
            Self::WatchPrefix => Box::new(Watches::on_prefix(connections, sizes).await?),
            Self::WatchKeys => Box::new(Watches::on_keys(connections, sizes).await?),
        })
    }
}

fn boxed<C: crate::closed_loop::Caller>(callers: Callers<C>) -> Box<dyn Load> {
    Box::new(callers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_load_or_a_family() {
        assert_eq!(Workload::named("put").expect("a load"), [Workload::Put]);
        assert_eq!(Workload::named("list").expect("a family"), [Workload::ListPages, Workload::ListStream]);
        assert_eq!(Workload::named("list-pages").expect("a load"), [Workload::ListPages]);
        for name in ["", "li", "list-", "puts"] {
            Workload::named(name).expect_err(name);
        }
    }
}
