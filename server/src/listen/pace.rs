//! How fast a client has to take what it asked for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// What a client has to take of an answer within the time for it, unless that is all of it: 17 KB/s, where it has a minute. Whoever
/// is slower keeps what others need: a byte now and then would keep a list of 80 MiB for ever, and its room with it.
pub(super) const TAKEN_BYTES_MIN: usize = 1 << 20;

/// Among the extensions of an answer: whatever its client takes of it gives it all its time again. Of streams whose messages come
/// one by one, and are small.
#[derive(Clone, Copy, Debug)]
pub struct Unhurried;

/// Whether what goes over a connection of HTTP/1.1 now is [`Unhurried`]; known to whoever makes answers and to whoever writes them.
#[derive(Clone, Debug, Default)]
pub struct Hurry(Arc<AtomicBool>);

impl Hurry {
    /// An answer begins.
    pub fn begin<B>(&self, response: &http::Response<B>) {
        self.0.store(response.extensions().get::<Unhurried>().is_some(), Ordering::Relaxed);
    }

    pub(super) fn is_unhurried(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The time in which a client took too little, which stands still while nothing waits for it.
#[derive(Debug)]
pub(super) struct Pace {
    max: Duration,
    /// What is left of it, when nothing waits.
    left: Duration,
    /// While something waits: since when, and until when at most.
    waits: Option<(Instant, Pin<Box<Sleep>>)>,
    taken: usize,
}

impl Pace {
    pub(super) fn new(max: Duration) -> Self {
        Self { max, left: max, waits: None, taken: 0 }
    }

    /// So much was taken; `renews` if any gives all the time again.
    pub(super) fn took(&mut self, bytes: usize, renews: bool) {
        self.taken = self.taken.saturating_add(bytes);
        if let Some((since, _)) = self.waits.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        if renews || self.taken >= TAKEN_BYTES_MIN {
            self.rest();
        }
    }

    /// All that there was is taken.
    pub(super) fn rest(&mut self) {
        (self.left, self.waits, self.taken) = (self.max, None, 0);
    }

    /// Whether the client takes too little. Asked while something waits for it.
    pub(super) fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let left = self.left;
        let (_, until) = self.waits.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
        until.as_mut().poll(context).is_ready()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::time::advance;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    async fn is_over_after(pace: &mut Pace, seconds: u64) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let before = pace.is_over(&mut context);
        advance(Duration::from_secs(seconds)).await;
        before || pace.is_over(&mut context)
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_gives_no_time() {
        let mut pace = Pace::new(MINUTE);
        for _ in 0..5 {
            assert!(!is_over_after(&mut pace, 11).await);
            pace.took(1, false);
        }
        assert!(is_over_after(&mut pace, 6).await);
    }

    #[tokio::test(start_paused = true)]
    async fn enough_gives_all_of_it_and_so_does_an_end() {
        let mut pace = Pace::new(MINUTE);
        for _ in 0..9 {
            assert!(!is_over_after(&mut pace, 59).await);
            pace.took(TAKEN_BYTES_MIN / 2, false);
            assert!(!is_over_after(&mut pace, 0).await);
            pace.took(TAKEN_BYTES_MIN / 2, false);
        }
        for renews in [true, false] {
            assert!(!is_over_after(&mut pace, 59).await);
            pace.took(1, renews);
            if !renews {
                pace.rest();
            }
        }
        assert!(!is_over_after(&mut pace, 59).await);
        assert!(is_over_after(&mut pace, 2).await);
    }

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_while_nothing_waits() {
        let mut pace = Pace::new(MINUTE);
        for _ in 0..100 {
            pace.took(1, false);
            advance(MINUTE).await;
        }
        assert!(!is_over_after(&mut pace, 59).await);
    }
}
