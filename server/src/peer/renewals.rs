//! Renewals of leases on their way to the leader: one call at a time, with all that came while the one before was under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use basalt_proto::peer::{RenewLeaseRequest, RenewLeasesRequest};
use tokio::sync::oneshot;
use tonic::Status;

use super::peers::Peers;

/// Leases of one call.
pub const RENEWALS_MAX: usize = 4096;

/// A leader that says nothing for so long says nothing to those who came meanwhile either.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Said of a lease whose renewal is not done at once; it is asked for alone.
pub const TAKES_LONGER: i64 = -1;

/// Seconds to live, or `None` for a lease that is to be asked for alone.
type Answer = Result<Option<i64>, Status>;

/// One that waits for its call.
struct Waiting {
    id: i64,
    answer: oneshot::Sender<Answer>,
}

/// Those that wait, by whom they take for the leader; one call to him is under way.
#[derive(Default)]
pub(super) struct Renewals(Mutex<HashMap<u64, Vec<Waiting>>>);

impl Renewals {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Vec<Waiting>>> {
        self.0.lock().expect("no one panics while holding renewals")
    }

    /// One waits; says whether nobody calls this leader yet.
    fn add(&self, leader: u64, waiting: Waiting) -> bool {
        let mut all = self.lock();
        let is_first = !all.contains_key(&leader);
        all.entry(leader).or_default().push(waiting);
        is_first
    }

    /// Those of the next call, without those who gave up; with none left nobody calls any more.
    fn take(&self, leader: u64) -> Vec<Waiting> {
        let mut all = self.lock();
        let Some(waiting) = all.get_mut(&leader) else { return Vec::new() };
        waiting.retain(|one| !one.answer.is_closed());
        let taken: Vec<Waiting> = waiting.drain(..waiting.len().min(RENEWALS_MAX)).collect();
        if taken.is_empty() {
            all.remove(&leader);
        }
        taken
    }
}

impl Peers {
    /// Has the leader renew a lease; gives its seconds, 0 when there is none. The caller bounds how long it waits.
    ///
    /// # Errors
    /// The leader's status, or why it was not reached.
    pub async fn renew_lease(self: &Arc<Self>, leader: u64, id: i64) -> Result<i64, Status> {
        let (answer, answered) = oneshot::channel();
        if self.renewals.add(leader, Waiting { id, answer }) {
            let peers = self.clone();
            self.runtime.spawn(async move { peers.call_for_renewals(leader).await });
        }
        match answered.await {
            Ok(Ok(Some(ttl))) => Ok(ttl),
            Ok(Ok(None)) => self.renew_alone(leader, id).await,
            Ok(Err(status)) => Err(status),
            Err(_) => Err(Status::unavailable("this member goes down")),
        }
    }

    async fn call_for_renewals(&self, leader: u64) {
        loop {
            let waiting = self.renewals.take(leader);
            if waiting.is_empty() {
                return;
            }
            let ids: Vec<i64> = waiting.iter().map(|one| one.id).collect();
            let late = |_| Err(Status::deadline_exceeded("no answer in time"));
            let answers =
                tokio::time::timeout(SILENCE_MAX, self.renew_together(leader, ids)).await.unwrap_or_else(late);
            for (position, Waiting { answer, .. }) in waiting.into_iter().enumerate() {
                let ttl = |ttls: &Vec<i64>| ttls.get(position).copied().filter(|ttl| *ttl != TAKES_LONGER);
                // Who does not wait any more needs none.
                drop(answer.send(answers.as_ref().map(ttl).map_err(Clone::clone)));
            }
        }
    }

    async fn renew_together(&self, leader: u64, ids: Vec<i64>) -> Result<Vec<i64>, Status> {
        let request = RenewLeasesRequest { cluster_id: self.identity.cluster_id, ids };
        let answer = self.client(leader).await?.renew_leases(request).await;
        Ok(self.checked(leader, answer).await?.ttls)
    }

    async fn renew_alone(&self, leader: u64, id: i64) -> Result<i64, Status> {
        let request = RenewLeaseRequest { cluster_id: self.identity.cluster_id, id };
        let answer = self.client(leader).await?.renew_lease(request).await;
        Ok(self.checked(leader, answer).await?.ttl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answered = oneshot::Receiver<Answer>;

    fn waiting(id: i64) -> (Waiting, Answered) {
        let (answer, answered) = oneshot::channel();
        (Waiting { id, answer }, answered)
    }

    fn ids(waiting: &[Waiting]) -> Vec<i64> {
        waiting.iter().map(|one| one.id).collect()
    }

    #[test]
    fn what_comes_while_a_call_is_under_way_goes_with_the_next() {
        let renewals = Renewals::default();
        let mut answers = Vec::new();
        let mut add = |leader, id| {
            let (waiting, answered) = waiting(id);
            answers.push(answered);
            renewals.add(leader, waiting)
        };
        assert!(add(7, 1), "the first one calls");
        assert_eq!(ids(&renewals.take(7)), [1]);
        assert!(!add(7, 2) && !add(7, 3));
        assert!(add(8, 9), "another leader is called by itself");
        assert_eq!(ids(&renewals.take(7)), [2, 3]);
        assert_eq!(ids(&renewals.take(7)), [0i64; 0]);
        assert!(add(7, 4), "nobody calls any more");
    }

    #[test]
    fn who_gave_up_is_not_asked_for() {
        let renewals = Renewals::default();
        let (stays, _answered) = waiting(1);
        let (leaves, gone) = waiting(2);
        renewals.add(7, stays);
        renewals.add(7, leaves);
        drop(gone);
        assert_eq!(ids(&renewals.take(7)), [1]);
    }

    #[test]
    fn a_call_is_bounded() {
        let renewals = Renewals::default();
        let (all, _answers): (Vec<_>, Vec<_>) = (0..RENEWALS_MAX as i64 + 5).map(waiting).unzip();
        all.into_iter().for_each(|one| _ = renewals.add(7, one));
        assert_eq!((renewals.take(7).len(), renewals.take(7).len(), renewals.take(7).len()), (RENEWALS_MAX, 5, 0));
    }
}
