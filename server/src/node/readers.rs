//! The threads that read pages, in pools by who waits for them: jobs come in, results go out through their own channels.
//!
//! Within a pool whoever comes first is served first; between pools nobody waits for another: a snapshot or a watcher
//! that catches up holds up no read of a client, and no client holds up apply.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use basalt_storage::disk::{Disk, Io, IoOutput};
use basalt_storage::hashes::HashJobError;
use basalt_storage::job::{BUDGET_UNLIMITED, Completions, Job, Step};
use basalt_storage::mvcc::range::Hit;
use basalt_storage::mvcc::view::View;
use basalt_storage::snapshot::SnapshotError;
use bytes::Bytes;
use tokio::sync::oneshot;
use tracing::error;

use super::fatal::causes;
use super::gather::{Gather, GatherError, Limit, Shown};
use super::handle::{Fetched, Unavailable};

/// Threads for clients' reads: enough to keep a disk busy, few enough to leave the cores to answers.
const CLIENT_THREADS: usize = 4;
/// Threads for history and previous values of watches.
const WATCH_THREADS: usize = 2;
/// Threads for walks over the whole store.
const WALK_THREADS: usize = 2;
/// The hashes of compactions go slowly, and in order.
const COMPACTION_THREADS: usize = 1;
/// Bytes of one answer that are read on the thread of its connection: some pages, about as long as a read thread takes to wake.
const CACHED_BYTES_MAX: usize = 32 << 10;
/// Apply waits for one read at a time.
const APPLY_THREADS: usize = 1;

/// Work for a read thread.
type Work = Box<dyn FnOnce(&dyn Disk) + Send>;

/// All pools.
#[derive(Clone)]
pub struct ReadPools {
    /// Values that clients' answers show.
    pub client: Readers,
    /// What watches read.
    pub watch: Readers,
    /// Snapshots, and hashes that are asked for.
    pub walk: Readers,
    /// Hashes that compactions leave.
    pub compaction: Readers,
    /// Values that apply decides by.
    pub apply: Readers,
}

/// One pool. Cheap to clone.
#[derive(Clone)]
pub struct Readers {
    work: Sender<Work>,
    disk: Arc<dyn Disk>,
}

impl ReadPools {
    /// Starts all threads. Those of a pool end when its last clone is dropped.
    ///
    /// # Errors
    /// The operating system's, when it gives no thread.
    pub fn start(disk: &Arc<dyn Disk>) -> std::io::Result<(Self, Vec<JoinHandle<()>>)> {
        let mut threads = Vec::new();
        let mut pool = |name, count| Readers::start(disk, name, count, &mut threads);
        let pools = Self {
            client: pool("client", CLIENT_THREADS)?,
            watch: pool("watch", WATCH_THREADS)?,
            walk: pool("walk", WALK_THREADS)?,
            compaction: pool("compaction", COMPACTION_THREADS)?,
            apply: pool("apply", APPLY_THREADS)?,
        };
        Ok((pools, threads))
    }
}

impl Readers {
    fn start(
        disk: &Arc<dyn Disk>,
        name: &str,
        count: usize,
        threads: &mut Vec<JoinHandle<()>>,
    ) -> std::io::Result<Self> {
        let (work, inbox) = channel::<Work>();
        let inbox = Arc::new(Mutex::new(inbox));
        for number in 0..count {
            let (inbox, disk) = (inbox.clone(), disk.clone());
            let name = format!("basalt-read-{name}-{number}");
            threads.push(std::thread::Builder::new().name(name).spawn(move || serve(&inbox, &*disk))?);
        }
        Ok(Self { work, disk: disk.clone() })
    }

    /// Values of a View, in the order of `hits`.
    pub fn fetch(&self, view: Arc<View>, hits: Vec<Hit>) -> Fetched {
        self.gather(Gather::new(view, hits, Shown::Whole, Limit::Refuse(usize::MAX)))
    }

    /// What a gathering finds.
    pub fn gather(&self, mut gather: Gather) -> Fetched {
        let (mut completions, mut left) = (Completions::new(), CACHED_BYTES_MAX);
        loop {
            match gather.step(completions, BUDGET_UNLIMITED) {
                Ok(Step::Done(values)) => return Fetched::Ready(values),
                Ok(Step::Again) => return Fetched::Pending(self.later(gather, Vec::new())),
                Ok(Step::Submit(requests)) => match self.read_cached(&requests, &mut left) {
                    Some(read) => completions = read,
                    None => return Fetched::Pending(self.later(gather, requests)),
                },
                Err(cause) => return Fetched::Failed(cause.into()),
            }
        }
    }

    /// What the operating system has in memory is read on the spot, which costs less than to wake a read thread; all of it within
    /// `left` bytes or nothing, lest a long answer holds up the calls beside it.
    fn read_cached(&self, requests: &[Io], left: &mut usize) -> Option<Completions> {
        let length = |io: &Io| if let Io::Read { length, .. } = io { *length } else { usize::MAX };
        *left = left.checked_sub(requests.iter().map(length).fold(0, usize::saturating_add))?;
        let read = |io: &Io| {
            let Io::Read { file, offset, length } = *io else { return None };
            Some(Ok(IoOutput::Read(self.disk.read_cached(file, offset, length)?)))
        };
        requests.iter().map(read).collect()
    }

    fn later(&self, gather: Gather, requests: Vec<Io>) -> Box<Gathering> {
        Box::new(Gathering { readers: self.clone(), gather, requests })
    }

    /// Runs a long job in slices of about `budget`, between which others have their turn. It ends with its caller.
    ///
    /// # Errors
    /// The job's, and going down.
    pub async fn run_sliced<J>(&self, mut job: J, budget: usize) -> Result<J::Output, Unavailable>
    where
        J: Job + Send + 'static,
        J::Output: Send,
        J::Error: Into<Unavailable>,
    {
        loop {
            let sliced = self.submit(move |disk| {
                let output = slice(&mut job, disk, budget)?;
                Ok((job, output))
            });
            let (rest, output) = sliced.await.map_err(|_| Unavailable::Stopped)??;
            if let Some(output) = output {
                return Ok(output);
            }
            job = rest;
        }
    }

    /// Runs anything that reads on a read thread and sends its result; not if nobody waits for it any more.
    pub fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Disk) -> Result<T, Unavailable> + Send + 'static,
    ) -> oneshot::Receiver<Result<T, Unavailable>> {
        let (sender, receiver) = oneshot::channel();
        // Without threads the sender is dropped with the work, and the receiver tells the caller.
        self.spawn(move |disk| {
            if !sender.is_closed() {
                drop(sender.send(work(disk)));
            }
        });
        receiver
    }

    /// Runs anything that reads on a read thread, whoever waits.
    pub fn spawn(&self, work: impl FnOnce(&dyn Disk) + Send + 'static) {
        // The threads are gone only when the process is about to be.
        drop(self.work.send(Box::new(work)));
    }
}

/// A gathering that goes on on a read thread, once it is started.
pub struct Gathering {
    readers: Readers,
    gather: Gather,
    /// The first reads, named already.
    requests: Vec<Io>,
}

impl Gathering {
    /// Has it done.
    pub fn start(self) -> oneshot::Receiver<Result<Vec<Bytes>, Unavailable>> {
        let Self { readers, gather, requests } = self;
        readers.submit(move |disk| {
            let completions = requests.into_iter().map(|io| disk.perform(io)).collect();
            finish(gather, completions, disk)
        })
    }
}

/// Steps a job with its reads until it has used up `budget` once, or is done.
pub(super) fn slice<J>(job: &mut J, disk: &dyn Disk, budget: usize) -> Result<Option<J::Output>, Unavailable>
where
    J: Job,
    J::Error: Into<Unavailable>,
{
    let mut completions = Completions::new();
    loop {
        match job.step(completions, budget).map_err(Into::into)? {
            Step::Again => return Ok(None),
            Step::Submit(requests) => completions = requests.into_iter().map(|io| disk.perform(io)).collect(),
            Step::Done(output) => return Ok(Some(output)),
        }
    }
}

/// Steps a job with its reads to its end.
///
/// # Errors
/// The job's.
pub fn run_through<J>(job: &mut J, disk: &dyn Disk, budget: usize) -> Result<J::Output, Unavailable>
where
    J: Job,
    J::Error: Into<Unavailable>,
{
    loop {
        if let Some(output) = slice(job, disk, budget)? {
            return Ok(output);
        }
    }
}

fn finish<J>(mut job: J, mut completions: Completions, disk: &dyn Disk) -> Result<J::Output, Unavailable>
where
    J: Job,
    J::Error: Into<Unavailable>,
{
    loop {
        match job.step(completions, BUDGET_UNLIMITED).map_err(Into::into)? {
            Step::Again => completions = Completions::new(),
            Step::Submit(requests) => completions = requests.into_iter().map(|io| disk.perform(io)).collect(),
            Step::Done(output) => return Ok(output),
        }
    }
}

impl From<GatherError> for Unavailable {
    fn from(cause: GatherError) -> Self {
        match cause {
            GatherError::TooLarge(bytes) => Unavailable::AnswerTooLarge { bytes },
            cause => damaged(&cause),
        }
    }
}

impl From<HashJobError> for Unavailable {
    fn from(cause: HashJobError) -> Self {
        damaged(&cause)
    }
}

impl From<SnapshotError> for Unavailable {
    /// A record that etcd's file cannot hold is as it was written; all else is not.
    fn from(cause: SnapshotError) -> Self {
        match cause {
            SnapshotError::KeyLength { .. } | SnapshotError::ValueLength { .. } => {
                error!(error = %cause, "no snapshot can be taken: a record is longer than a database of etcd can hold");
                Unavailable::NotInSnapshot
            }
            SnapshotError::OutOfOrder
            | SnapshotError::PlanMismatch { .. }
            | SnapshotError::NotBbolt { .. }
            | SnapshotError::Corrupt { .. }
            | SnapshotError::Digest
            | SnapshotError::Pages(_)
            | SnapshotError::Read(_) => damaged(&cause),
        }
    }
}

/// The line names the page, which may stand far down in the causes.
fn damaged(cause: &(dyn std::error::Error + 'static)) -> Unavailable {
    error!(error = %causes(cause), way_out = "one of several members: basaltctl reseed; else restore a snapshot", "stored data is damaged");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_snapshot_cannot_hold_is_no_damage() {
        for cause in [SnapshotError::KeyLength { length: 32_769 }, SnapshotError::ValueLength { length: 1 << 31 }] {
            assert!(matches!(Unavailable::from(cause), Unavailable::NotInSnapshot));
        }
        assert!(matches!(Unavailable::from(SnapshotError::OutOfOrder), Unavailable::Damaged));
        let corrupt = SnapshotError::Corrupt { page: 3, reason: "made up" };
        assert!(matches!(Unavailable::from(corrupt), Unavailable::Damaged));
    }
}
