//! TLS handshakes take turns, so that a crowd that connects does not take the cores from those who are connected.
//!
//! A handshake signs, and may verify a chain: a millisecond of work, while a call takes a hundredth. Half of the threads
//! for connections, and one at least, may work on handshakes at a time; the others wait in the order in which their clients
//! spoke, and behind them in the queue of the threads stand the calls. Who waits for its client
//! holds no turn, so silent clients keep nobody from anything.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::Semaphore;

/// The turns that all listeners of the process share.
#[derive(Clone, Debug)]
pub struct Handshakes {
    turns: Arc<Semaphore>,
}

impl Handshakes {
    /// One for each two threads for connections, and one at least.
    pub fn for_threads(threads: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new((threads / 2).max(1))) }
    }

    /// Runs a handshake to its end, in turns.
    pub(super) async fn run<T>(&self, handshake: impl Future<Output = T>) -> T {
        let mut handshake = pin!(handshake);
        loop {
            {
                let _turn = self.turns.acquire().await.expect("nobody closes it");
                let step = poll_fn(|context| Poll::Ready(handshake.as_mut().poll(context)));
                if let Poll::Ready(done) = step.await {
                    return done;
                }
            }
            // The handshake has our waker: who comes back was woken by it.
            let mut waited = false;
            poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_its_client_holds_no_turn() {
        let handshakes = Handshakes::for_threads(1);
        let mut silent = Vec::new();
        for number in 0..100 {
            let (client, said) = oneshot::channel();
            let handshakes = handshakes.clone();
            silent.push((client, tokio::spawn(async move { handshakes.run(said).await.map(|()| number) })));
        }
        assert_eq!(handshakes.run(async { 7 }).await, 7);
        for (number, (client, handshake)) in silent.into_iter().enumerate().rev() {
            client.send(()).expect("it waits");
            assert_eq!(handshake.await.expect("joined"), Ok(number));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_more_than_half_of_the_threads_work_at_once() {
        let (handshakes, now, most) =
            (Handshakes::for_threads(4), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all = (0..200).map(|_| {
            let (handshakes, now, most) = (handshakes.clone(), now.clone(), most.clone());
            tokio::spawn(async move {
                let mut steps = 0;
                let work = poll_fn(|context| {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(1, Ordering::SeqCst);
                    steps += 1;
                    context.waker().wake_by_ref();
                    if steps == 20 { Poll::Ready(()) } else { Poll::Pending }
                });
                handshakes.run(work).await;
            })
        });
        for handshake in all.collect::<Vec<_>>() {
            handshake.await.expect("joined");
        }
        assert!(most.load(Ordering::SeqCst) <= 2);
    }
}
