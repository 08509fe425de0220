//! When a server wrote checkpoints, as its metrics tell afterwards.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::windows::Windows;
use crate::checkpoints::Checkpoints;
use crate::metrics_page::MetricsPage;

/// A span is found too long by this at each end at most.
const POLL: Duration = Duration::from_millis(50);

/// Looks for checkpoints until `duration` is over, and a little longer for one that is under way. `None` for a server that
/// knows none.
///
/// # Errors
/// The page cannot be read.
pub async fn checkpoint_windows(page: &MetricsPage, duration: Duration) -> Result<Option<Windows>> {
    let start = Instant::now();
    let (mut windows, mut previous_at) = (Windows::default(), start);
    let Some(mut previous) = Checkpoints::of(&page.read().await?) else { return Ok(None) };
    while previous_at < start + duration + POLL * 2 {
        sleep(POLL).await;
        let at = Instant::now();
        let Some(current) = Checkpoints::of(&page.read().await?) else { return Ok(None) };
        if current.ended > previous.ended {
            // It ended after the previous look, so it began no later than this.
            let begin = previous_at.checked_sub(current.took.saturating_sub(previous.took)).unwrap_or(start);
            windows.add(begin, Instant::now());
        }
        (previous, previous_at) = (current, at);
    }
    Ok(Some(windows))
}
