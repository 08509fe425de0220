//! How much memory answers may take that were read from disk and are not yet with their clients.
//!
//! What an answer will hold is known only when it is gathered. So a few lists at a time are gathered, and each goes on
//! when there is room for what it came to: memory is bounded by the budget and those few, and the others wait with nothing
//! but their plan. Point reads pass by, so that no crowd of lists holds them up.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::handle::Unavailable;

/// Lists gathered at a time: as many as there are threads to gather them.
const LISTS_AT_ONCE: usize = 4;
/// An answer of at most so many values is no list.
const POINT_HITS_MAX: usize = 8;
/// What a point read may bring without asking for room.
const POINT_BYTES_MAX: usize = 16 << 10;
/// So many of those that brought more may wait for room; all others are told to come again where there is none.
const LARGE_POINTS_WAITING_MAX: usize = 16;
/// Room is counted in these.
const UNIT_BYTES: usize = 4096;

/// The budget.
pub struct AnswerBudget {
    lists: Semaphore,
    large_points: Semaphore,
    units: Arc<Semaphore>,
    units_max: u32,
    wait_max: Duration,
}

/// The room that an answer takes; given back when this is dropped.
#[derive(Debug)]
pub struct Held {
    _units: OwnedSemaphorePermit,
}

impl AnswerBudget {
    /// Room for `bytes`, for which nobody waits longer than `wait_max`: who has it may be slow.
    pub fn new(bytes: usize, wait_max: Duration) -> Self {
        let units_max = u32::try_from((bytes / UNIT_BYTES).clamp(1, 1 << 28)).expect("within 32 bits");
        let units = Arc::new(Semaphore::new(units_max as usize));
        let (lists, large_points) = (Semaphore::new(LISTS_AT_ONCE), Semaphore::new(LARGE_POINTS_WAITING_MAX));
        Self { lists, large_points, units, units_max, wait_max }
    }

    /// What `gathering` finds, with the room that it takes. One answer may take all there is, and more; it is alone then.
    ///
    /// # Errors
    /// The gathering's; [`Unavailable::TooManyRequests`] when others take the room for too long.
    pub async fn gather(
        &self,
        hits: usize,
        gathering: impl Future<Output = Result<Vec<Bytes>, Unavailable>>,
    ) -> Result<(Vec<Bytes>, Option<Held>), Unavailable> {
        let is_list = hits > POINT_HITS_MAX;
        let _turn = if is_list { Some(self.wait(self.lists.acquire()).await?) } else { None };
        let values = gathering.await?;
        let bytes: usize = values.iter().map(Bytes::len).sum();
        if !is_list && bytes <= POINT_BYTES_MAX {
            return Ok((values, None));
        }
        let units = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX).min(self.units_max);
        if let Ok(held) = self.units.clone().try_acquire_many_owned(units) {
            return Ok((values, Some(Held { _units: held })));
        }
        // No more than these wait with what they have read in hand.
        let place = if is_list { None } else { Some(self.large_points.try_acquire()) };
        let _place = place.transpose().map_err(|_| Unavailable::TooManyRequests)?;
        let held = self.wait(self.units.clone().acquire_many_owned(units)).await?;
        Ok((values, Some(Held { _units: held })))
    }

    async fn wait<T>(&self, room: impl Future<Output = Result<T, AcquireError>>) -> Result<T, Unavailable> {
        let waited = tokio::time::timeout(self.wait_max, room).await;
        waited.map_err(|_| Unavailable::TooManyRequests)?.map_err(|_| Unavailable::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(bytes: usize) -> Vec<Bytes> {
        vec![vec![7; bytes].into()]
    }

    async fn list(budget: &AnswerBudget, bytes: usize) -> Result<Option<Held>, Unavailable> {
        budget.gather(100, async { Ok(values(bytes)) }).await.map(|(_, held)| held)
    }

    #[tokio::test]
    async fn who_finds_no_room_waits_until_another_is_done() {
        let budget = Arc::new(AnswerBudget::new(1 << 20, Duration::from_secs(600)));
        let first = list(&budget, 700 << 10).await.expect("there is room");
        let second = tokio::spawn({
            let budget = budget.clone();
            async move { list(&budget, 700 << 10).await.map(|_| ()) }
        });
        // Gathered, and in its turn; a point read needs none.
        while budget.lists.available_permits() == LISTS_AT_ONCE {
            tokio::task::yield_now().await;
        }
        let point = budget.gather(1, async { Ok(values(10)) }).await.expect("it passes by");
        assert!(point.1.is_none() && !second.is_finished());
        drop(first);
        assert_eq!(second.await.expect("no panic"), Ok(()));
    }

    #[tokio::test]
    async fn a_point_read_of_a_large_value_needs_room() {
        let budget = AnswerBudget::new(1 << 20, Duration::ZERO);
        let point = async |bytes| budget.gather(1, async { Ok(values(bytes)) }).await.map(|(_, held)| held);
        let _first = point(600 << 10).await.expect("there is room");
        assert_eq!(point(600 << 10).await.map(|_| ()), Err(Unavailable::TooManyRequests));
        assert!(point(16 << 10).await.expect("it needs none").is_none());
    }

    #[tokio::test]
    async fn an_answer_above_the_whole_budget_goes_alone() {
        let budget = AnswerBudget::new(1 << 20, Duration::from_secs(600));
        let held = list(&budget, 5 << 20).await.expect("it takes all");
        assert_eq!(budget.units.available_permits(), 0);
        drop(held);
        assert_eq!(budget.units.available_permits(), (1 << 20) / UNIT_BYTES);
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let budget = AnswerBudget::new(1 << 20, Duration::ZERO);
        let _all = budget.units.clone().acquire_many_owned(budget.units_max).await.expect("open");
        assert_eq!(list(&budget, 1 << 20).await.map(|_| ()), Err(Unavailable::TooManyRequests));
        assert_eq!(budget.lists.available_permits(), LISTS_AT_ONCE);
    }
}
