//! Numbered keys below a prefix, and filling them with values.

use anyhow::{Context, Result};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::task::JoinSet;

use crate::connections::Connections;

/// Below etcd's limit of 128 operations, and with 4 KiB values below its 1.5 MiB of request.
const PUTS_PER_TXN: usize = 100;
/// Transactions under way while filling.
const FILLERS: usize = 8;

/// The keys `/registry/<name>/00000000` and on.
#[derive(Clone, Debug)]
pub struct KeySpace {
    prefix: String,
    /// How many keys there are.
    pub(super) keys: usize,
}

impl KeySpace {
    pub(super) fn new(name: &str, keys: usize) -> Self {
        Self { prefix: format!("/registry/{name}/"), keys }
    }

    /// The keys of the loads on lists.
    pub fn listed(keys: usize) -> Self {
        Self::new("listed", keys)
    }

    /// The key of a number.
    pub fn key(&self, number: usize) -> Bytes {
        format!("{}{number:08}", self.prefix).into()
    }

    /// Any of the keys.
    pub(super) fn random_key(&self, random: &mut StdRng) -> Bytes {
        self.key(random.random_range(0..self.keys))
    }

    /// Key and range end that together name all keys.
    pub fn range(&self) -> (Bytes, Bytes) {
        // The prefix ends in '/', and '0' is the next byte.
        let end = format!("{}0", self.prefix.trim_end_matches('/'));
        (self.prefix.clone().into(), end.into())
    }

    /// Writes every key once with random values of `value_bytes`.
    ///
    /// # Errors
    /// A transaction failed.
    pub(super) async fn fill(&self, connections: &Connections, value_bytes: usize) -> Result<()> {
        let mut fillers = JoinSet::new();
        for filler in 0..FILLERS {
            let (mut client, keys) = (connections.kv(filler), self.clone());
            fillers.spawn(async move {
                let mut random = StdRng::seed_from_u64(filler as u64);
                for first in (0..keys.keys).step_by(PUTS_PER_TXN).skip(filler).step_by(FILLERS) {
                    let numbers = first..keys.keys.min(first + PUTS_PER_TXN);
                    let puts = numbers.map(|number| put_op(keys.key(number), random_value(&mut random, value_bytes)));
                    client.txn(TxnRequest { success: puts.collect(), ..Default::default() }).await?;
                }
                Ok::<_, tonic::Status>(())
            });
        }
        while let Some(joined) = fillers.join_next().await {
            joined.context("filling panicked")?.with_context(|| format!("fill {}", self.prefix))?;
        }
        Ok(())
    }
}

/// A put as a part of a transaction.
pub(super) fn put_op(key: Bytes, value: Bytes) -> RequestOp {
    RequestOp { request: Some(Request::RequestPut(PutRequest { key, value, ..Default::default() })) }
}

/// Bytes that no server can compress.
pub fn random_value(random: &mut StdRng, bytes: usize) -> Bytes {
    let mut value = vec![0; bytes];
    random.fill_bytes(&mut value);
    value.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_holds_the_keys_and_no_others() {
        let (start, end) = KeySpace::new("pods", 10).range();
        for number in [0, 9, 99_999_999] {
            let key = KeySpace::new("pods", 10).key(number);
            assert!(start <= key && key < end);
        }
        for other in ["pod", "pods2", "podt"] {
            let key = KeySpace::new(other, 10).key(0);
            assert!(key < start || key >= end, "{key:?}");
        }
    }
}
