//! A page that is made for all who ask meanwhile, one at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;
use tokio::task::JoinError;

/// A page that takes time to make, on a thread that may wait.
///
/// Invariants:
/// * One is made at a time in the process, whether somebody still waits for it or not.
/// * Nobody is shown a page that was begun before he asked.
#[derive(Debug)]
pub struct SharedPage<T> {
    /// The number of the last page that was begun.
    begun: Arc<AtomicU64>,
    last: Arc<Mutex<Last<T>>>,
}

#[derive(Debug)]
struct Last<T> {
    number: u64,
    /// None before the first, and where the making failed.
    page: Option<T>,
}

impl<T> Default for SharedPage<T> {
    fn default() -> Self {
        Self { begun: Arc::default(), last: Arc::new(Mutex::new(Last { number: 0, page: None })) }
    }
}

impl<T: Clone + Send + 'static> SharedPage<T> {
    /// A page that is begun from here on: that of somebody else who had to wait too, or of `make`, which may wait.
    ///
    /// # Errors
    /// [`JoinError`] if `make` panicked, or the runtime ends.
    pub async fn get(&self, make: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        let begun_before = self.begun.load(Ordering::SeqCst);
        let mut last = self.last.clone().lock_owned().await;
        if let Some(page) = last.page.as_ref().filter(|_| last.number > begun_before) {
            return Ok(page.clone());
        }
        let begun = self.begun.clone();
        let made = tokio::task::spawn_blocking(move || {
            // The turn ends when the page is made, also if nobody waits for it any more.
            last.number = begun.fetch_add(1, Ordering::SeqCst) + 1;
            last.page = None;
            let page = make();
            last.page = Some(page.clone());
            page
        });
        made.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn one_is_made_at_a_time_and_who_asks_meanwhile_shares_the_next() {
        let page = Arc::new(SharedPage::<usize>::default());
        let (made, at_once) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let ask = |gate: Option<mpsc::Receiver<()>>| {
            let (page, made, at_once) = (page.clone(), made.clone(), at_once.clone());
            tokio::spawn(async move {
                let make = move || {
                    assert_eq!(at_once.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                    let number = made.fetch_add(1, Ordering::SeqCst) + 1;
                    gate.into_iter().for_each(|gate| gate.recv().expect("it is opened"));
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    number
                };
                page.get(make).await.expect("made")
            })
        };
        let (open, gate) = mpsc::channel();
        let first = ask(Some(gate));
        while made.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..100).map(|_| ask(None)).collect();
        // One goes away amid the making, and its turn does not end with it.
        first.abort();
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        assert_eq!(made.load(Ordering::SeqCst), 1);
        open.send(()).expect("it waits");
        for other in others {
            assert_eq!(other.await.expect("answered"), 2);
        }
        assert_eq!(ask(None).await.expect("answered"), 3);
    }

    #[tokio::test]
    async fn a_page_that_fails_is_nobody_elses() {
        let page = SharedPage::<usize>::default();
        assert!(page.get(|| panic!("on purpose")).await.expect_err("it panics").is_panic());
        assert_eq!(page.get(|| 7).await.expect("made"), 7);
    }
}
