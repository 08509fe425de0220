//! Questions that only the leader can answer, asked of whoever leads: a client whose leader is lost notices it by the time the
//! answer takes, and by nothing else (etcd `LeaseRenew`, `LeaseTimeToLive`).

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::service::Service;
use super::status::{self, Status};
use crate::peer::Peers;

/// How often a call that waits looks who leads.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Who leads.
pub(super) enum Leader<'a> {
    /// This member.
    Here,
    /// Another one, and the way to it.
    Elsewhere(&'a Arc<Peers>, u64),
}

/// One question, and whom it was put to: to one leader after another, until one answers or the time of a request is over.
pub(super) struct Question<'a> {
    service: &'a Service,
    deadline: Instant,
    /// Who was found to lead last.
    leader: Option<u64>,
}

impl Service {
    /// A question that is yet to be asked.
    pub(super) fn question(&self) -> Question<'_> {
        Question { service: self, deadline: Instant::now() + self.request_timeout, leader: None }
    }
}

impl<'a> Question<'a> {
    /// Who is to be asked next; waits a moment, if somebody was asked before, and until there is a leader.
    ///
    /// # Errors
    /// When the time is over: `no leader` if none is known then, else `request timed out`. The process stops.
    pub(super) async fn next_leader(&mut self) -> Result<Leader<'a>, Status> {
        let service = self.service;
        if self.leader.is_some() {
            self.pause().await?;
        }
        loop {
            self.leader = service.node.leader();
            if let Some(leader) = self.leader {
                return Ok(match &service.peers {
                    Some(peers) if leader != service.node.identity.member_id => Leader::Elsewhere(peers, leader),
                    _ => Leader::Here,
                });
            }
            self.pause().await?;
        }
    }

    /// Hears the leader out, unless another one leads before it answers: who is lost may never do. `None`, too, where it says
    /// nothing, since it does not lead after all.
    pub(super) async fn hear<T>(
        &self,
        answer: impl Future<Output = Result<Option<T>, Status>>,
    ) -> Option<Result<T, Status>> {
        let mut answer = pin!(answer);
        loop {
            let look = self.deadline.min(Instant::now() + LOOK_INTERVAL);
            match timeout_at(look, &mut answer).await {
                Ok(answer) => return answer.transpose(),
                Err(_) if look == self.deadline || self.service.node.leader() != self.leader => return None,
                Err(_) => {}
            }
        }
    }

    async fn pause(&self) -> Result<(), Status> {
        let now = Instant::now();
        if now >= self.deadline {
            let leader = self.service.node.leader();
            return Err(leader.map_or_else(status::no_leader, |_| status::timed_out()));
        }
        tokio::select! {
            () = self.service.stopped() => Err(status::stopped()),
            () = sleep_until(self.deadline.min(now + LOOK_INTERVAL)) => Ok(()),
        }
    }
}
