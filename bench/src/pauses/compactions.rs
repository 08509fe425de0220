//! A client that compacts again and again.

use std::time::Duration;

use anyhow::{Context, Result};
use basalt_proto::etcdserverpb::kv_client::KvClient;
use basalt_proto::etcdserverpb::{CompactionRequest, RangeRequest};
use tokio::time::{Instant, sleep_until, timeout};

use super::windows::Windows;
use crate::connections::Wire;

/// Longer than dropping all that a run can write.
const COMPACTION_MAX: Duration = Duration::from_secs(120);

/// Drops history, again and again.
pub struct Compactor {
    kv: KvClient<Wire>,
}

impl Compactor {
    /// Drops all history that there is.
    ///
    /// # Errors
    /// The server refuses, or takes more than two minutes.
    pub async fn new(kv: KvClient<Wire>) -> Result<Self> {
        let mut compactor = Self { kv };
        let revision = compactor.revision().await?;
        compactor.compact(revision).await?;
        Ok(compactor)
    }

    /// Compacts every `interval` until `duration` is over, always up to where the store was half an interval before. Returns
    /// when the server was at it: from the call to the answer that all was dropped.
    ///
    /// # Errors
    /// As [`Self::new`], and if nothing is put meanwhile.
    pub async fn run(&mut self, interval: Duration, duration: Duration) -> Result<Windows> {
        let (mut due, mut windows, start) = (interval * 3 / 4, Windows::default(), Instant::now());
        while due < duration {
            sleep_until(start + due - interval / 2).await;
            let revision = self.revision().await?;
            sleep_until(start + due).await;
            let begin = Instant::now();
            self.compact(revision).await?;
            windows.add(begin, Instant::now());
            due += interval;
        }
        Ok(windows)
    }

    async fn compact(&mut self, revision: i64) -> Result<()> {
        // Physical: answered when all was dropped, not when it was decided.
        let compacted = timeout(COMPACTION_MAX, self.kv.compact(CompactionRequest { revision, physical: true })).await;
        compacted.with_context(|| format!("no compaction in {COMPACTION_MAX:?}"))?.context("compact")?;
        Ok(())
    }

    async fn revision(&mut self) -> Result<i64> {
        let any = RangeRequest { key: "/".into(), ..Default::default() };
        let answer = self.kv.range(any).await.context("ask for the revision")?;
        Ok(answer.into_inner().header.context("an answer without header")?.revision)
    }
}
