//! Linearizable reads on their way to the node thread and back.
//!
//! The node thread is woken for the first read alone. While its question to the leader is under way it needs no waking: those
//! who come meanwhile wait here, and it takes them together when it may ask again (decision 0026).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::oneshot;

use super::handle::Unavailable;

/// Who waits for a read.
pub type ReadWaiter = oneshot::Sender<Result<(), Unavailable>>;

/// Reads that the node thread has not taken yet.
#[derive(Default)]
pub struct ReadQueue(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    waiting: Vec<ReadWaiter>,
    /// Whether the node thread will look here without being told.
    is_awaited: bool,
    /// The node thread is gone.
    is_closed: bool,
}

impl ReadQueue {
    /// Adds one; says whether the node thread is to be told of it. After [`Self::close`] the waiter is dropped, which tells
    /// its other end.
    pub fn add(&self, waiter: ReadWaiter) -> bool {
        let mut queue = self.lock();
        if queue.is_closed {
            return false;
        }
        queue.waiting.push(waiter);
        !std::mem::replace(&mut queue.is_awaited, true)
    }

    /// Takes all that wait. If there are none, the next one is to tell the node thread.
    pub fn take(&self) -> Vec<ReadWaiter> {
        let mut queue = self.lock();
        queue.is_awaited = !queue.waiting.is_empty();
        std::mem::take(&mut queue.waiting)
    }

    /// Forgets those who gave up: a question may stay open for long where its answers are lost.
    pub fn forget_gone(&self) {
        self.lock().waiting.retain(|waiter| !waiter.is_closed());
    }

    /// Nobody takes any more.
    pub fn close(&self) {
        let mut queue = self.lock();
        (queue.is_closed, queue.waiting) = (true, Vec::new());
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().expect("no one panics while holding the reads: a panic stops the process")
    }
}

/// Reads that the core knows, by their numbers there.
#[derive(Default)]
pub(super) struct ReadWaiters {
    next: u64,
    waiting: HashMap<u64, ReadWaiter>,
}

impl ReadWaiters {
    /// Gives a read its number.
    pub(super) fn add(&mut self, waiter: ReadWaiter) -> u64 {
        self.next += 1;
        self.waiting.insert(self.next, waiter);
        self.next
    }

    /// Answers these.
    pub(super) fn answer(&mut self, reads: &[u64], answer: Result<(), Unavailable>) {
        for waiter in reads.iter().filter_map(|read| self.waiting.remove(read)) {
            // Whoever gave up needs no answer.
            _ = waiter.send(answer);
        }
    }

    /// Forgets who waits for `read` if he gave up; says whether he did.
    pub(super) fn forget_gone(&mut self, read: u64) -> bool {
        let gone = self.waiting.get(&read).is_none_or(oneshot::Sender::is_closed);
        if gone {
            self.waiting.remove(&read);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_thread_is_told_of_the_first_and_comes_by_itself_for_the_others() {
        let queue = ReadQueue::default();
        let add = || queue.add(oneshot::channel().0);
        assert_eq!((add(), add()), (true, false));
        assert_eq!(queue.take().len(), 2);
        assert!(!add(), "it comes again when it may ask");
        assert_eq!((queue.take().len(), queue.take().len()), (1, 0));
        assert!(add(), "it found none, and waits to be told");
    }

    #[test]
    fn who_gave_up_takes_no_room() {
        let queue = ReadQueue::default();
        let (stays, _hears) = oneshot::channel();
        queue.add(stays);
        (0..9).for_each(|_| _ = queue.add(oneshot::channel().0));
        queue.forget_gone();
        assert_eq!(queue.take().len(), 1);
    }

    #[test]
    fn who_waits_hears_that_nobody_takes_any_more() {
        let queue = ReadQueue::default();
        let (before, mut hears_before) = oneshot::channel();
        let (after, mut hears_after) = oneshot::channel();
        queue.add(before);
        queue.close();
        assert!(!queue.add(after));
        for hears in [&mut hears_before, &mut hears_after] {
            assert_eq!(hears.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        }
    }
}
