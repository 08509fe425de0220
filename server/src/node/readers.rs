//! The bounded pool of threads that read pages for everybody: jobs come in, results go out through their own channels.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use basalt_storage::disk::Disk;
use basalt_storage::job::{BUDGET_UNLIMITED, Job, Step, run};
use basalt_storage::mvcc::fetch::Fetch;
use basalt_storage::mvcc::range::Hit;
use basalt_storage::mvcc::view::View;
use tokio::sync::oneshot;
use tracing::error;

use super::handle::{Fetched, Unavailable};

/// Read threads: enough to keep a disk busy, few enough to leave the cores to answers.
pub const READ_THREADS: usize = 4;

/// Work for a read thread.
type Work = Box<dyn FnOnce(&dyn Disk) + Send>;

/// The pool. Cheap to clone.
#[derive(Clone)]
pub struct Readers {
    work: Sender<Work>,
}

impl Readers {
    /// Starts the threads. They end when the last clone is dropped.
    ///
    /// # Errors
    /// The operating system's, when it gives no thread.
    pub fn start(disk: &Arc<dyn Disk>) -> std::io::Result<(Self, Vec<JoinHandle<()>>)> {
        let (work, inbox) = channel::<Work>();
        let inbox = Arc::new(Mutex::new(inbox));
        let threads = (0..READ_THREADS).map(|number| {
            let (inbox, disk) = (inbox.clone(), disk.clone());
            std::thread::Builder::new().name(format!("basalt-read-{number}")).spawn(move || serve(&inbox, &*disk))
        });
        let threads = threads.collect::<std::io::Result<_>>()?;
        Ok((Self { work }, threads))
    }

    /// Values of a View, in the order of `hits`.
    pub fn fetch(&self, view: Arc<View>, hits: Vec<Hit>) -> Fetched {
        let mut fetch = Fetch::new(view, hits);
        match fetch.step(Vec::new(), BUDGET_UNLIMITED) {
            Ok(Step::Done(values)) => Fetched::Ready(values),
            Ok(Step::Again) => Fetched::Pending(self.run(fetch)),
            Ok(Step::Submit(requests)) => {
                // The first reads are named already: the thread performs them and goes on from there.
                Fetched::Pending(self.submit(move |disk| {
                    let completions = requests.into_iter().map(|io| disk.perform(io)).collect();
                    finish(fetch, completions, disk)
                }))
            }
            Err(cause) => {
                error!(error = %cause, "stored data is damaged");
                let (sender, receiver) = oneshot::channel();
                drop(sender.send(Err(Unavailable::Damaged)));
                Fetched::Pending(receiver)
            }
        }
    }

    /// Runs a job on a read thread.
    pub fn run<J>(&self, mut job: J) -> oneshot::Receiver<Result<J::Output, Unavailable>>
    where
        J: Job + Send + 'static,
        J::Output: Send,
        J::Error: std::fmt::Display,
    {
        self.submit(move |disk| run(&mut job, disk, BUDGET_UNLIMITED).map_err(|cause| damaged(&cause)))
    }

    /// Runs anything that reads on a read thread.
    pub fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Disk) -> Result<T, Unavailable> + Send + 'static,
    ) -> oneshot::Receiver<Result<T, Unavailable>> {
        let (sender, receiver) = oneshot::channel();
        // Without threads the sender is dropped with the work, and the receiver tells the caller.
        drop(self.work.send(Box::new(move |disk| drop(sender.send(work(disk))))));
        receiver
    }
}

fn finish<J>(
    mut job: J,
    completions: basalt_storage::job::Completions,
    disk: &dyn Disk,
) -> Result<J::Output, Unavailable>
where
    J: Job,
    J::Error: std::fmt::Display,
{
    let mut completions = completions;
    loop {
        match job.step(completions, BUDGET_UNLIMITED).map_err(|cause| damaged(&cause))? {
            Step::Again => completions = Vec::new(),
            Step::Submit(requests) => completions = requests.into_iter().map(|io| disk.perform(io)).collect(),
            Step::Done(output) => return Ok(output),
        }
    }
}

fn damaged(cause: &dyn std::fmt::Display) -> Unavailable {
    error!(error = %cause, "stored data is damaged");
    Unavailable::Damaged
}

fn serve(inbox: &Mutex<Receiver<Work>>, disk: &dyn Disk) {
    loop {
        let work = inbox.lock().expect("a read thread that panics stops the process").recv();
        match work {
            Ok(work) => work(disk),
            Err(_) => return,
        }
    }
}
