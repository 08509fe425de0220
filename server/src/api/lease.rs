//! The service Lease.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use basalt_proto::etcdserverpb::{
    LeaseCheckpoint, LeaseCheckpointRequest, LeaseGrantRequest, LeaseKeepAliveResponse, LeaseLeasesResponse,
    LeaseRevokeRequest, LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use basalt_proto::log::request::Kind;
use rand::TryRngCore;

use super::chunks::Chunks;
use super::leader::Leader;
use super::service::{Reply, Service};
use super::status::{self, Status};
use crate::apply::auth::check::cluster_principal;
use crate::apply::auth::permissions::Access;
use crate::auth::Caller;
use crate::failpoints::{self, Point};
use crate::lease::Renewal;

/// How often a keepalive of an expired lease looks whether the revoke has come (etcd-contract 35).
const REVOKE_POLL: Duration = Duration::from_millis(50);

/// The answer of this member; `None` if it does not lead, or has ceased to before it was confirmed.
fn unless_lost<T>(answer: Result<T, Status>) -> Result<Option<T>, Status> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(status) if [status::no_leader(), status::leader_changed()].contains(&status) => Ok(None),
        Err(status) => Err(status),
    }
}

impl Service {
    pub(super) fn lease_grant(self: &Arc<Self>, mut request: LeaseGrantRequest, caller: &Caller) -> Reply {
        // Whether it is too long is seen at apply, after what an alarm forbids (etcd-contract 33, 43). Raised here, before the log: apply hangs on no flag of a member (etcd-contract 33).
        request.ttl = request.ttl.max(self.node.limits.lease_ttl_min);
        // A random id is drawn here, before the log, so that all members grant the same (etcd-contract 33).
        while request.id == 0 {
            request.id = rand::rngs::OsRng.try_next_u64().map_or(0, |id| (id >> 1).cast_signed());
        }
        self.propose_within_quota(Self::lease_cost(), Ok(()), Kind::LeaseGrant(request), caller)
    }

    pub(super) fn lease_revoke(self: &Arc<Self>, request: LeaseRevokeRequest, caller: &Caller) -> Reply {
        self.propose(Kind::LeaseRevoke(request), caller)
    }

    pub(super) fn lease_leases(self: &Arc<Self>, caller: Caller) -> Reply {
        let answer = |service: &Self, ids: Vec<i64>| {
            let leases = ids.into_iter().map(|id| LeaseStatus { id }).collect();
            let header = service.header().at(service.node.view().revision);
            Chunks::of(&LeaseLeasesResponse { header: Some(header), leases })
        };
        let service = self.clone();
        Reply::later(async move {
            service.may_list_leases(&caller).await?;
            let listed = {
                let clock = service.node.leases.lock().expect("no one panics while holding the lease clock");
                clock.is_running().then(|| clock.list())
            };
            if let Some(listed) = listed {
                return Ok(answer(&service, listed));
            }
            // Who does not lead knows which leases there are, and not when they end.
            // By id.
            let ids = service.node.ask(|machine| machine.leases().iter().map(|(id, _)| id).collect());
            let ids = service.within(ids).await?;
            Ok(answer(&service, ids))
        })
    }

    /// An unknown lease has TTL -1 and no error (etcd-contract 36).
    pub(super) fn lease_time_to_live(self: &Arc<Self>, request: LeaseTimeToLiveRequest, caller: Caller) -> Reply {
        let service = self.clone();
        Reply::later(async move {
            if request.keys {
                service.may_use_lease(&caller, Access::Read, request.id).await?;
            }
            let mut question = service.question();
            let told = loop {
                let leader = question.next_leader().await?;
                let told = question.hear(async {
                    match leader {
                        Leader::Here => unless_lost(service.time_to_live_here(request).await),
                        // Whatever error another one gives, it could not say.
                        Leader::Elsewhere(peers, leader) => Ok(peers.time_to_live(leader, request).await.ok()),
                    }
                });
                if let Some(told) = told.await {
                    break told?;
                }
            };
            let header = service.header().at(service.node.view().revision);
            let response = LeaseTimeToLiveResponse { header: Some(header), ..told };
            // A key that was attached meanwhile is shown to nobody who may not read it.
            service
                .ask(&caller, |asking| response.keys.iter().try_for_each(|key| asking.may(Access::Read, key, &[])))?;
            Ok(Chunks::of(&response))
        })
    }

    /// The same by this member's clock.
    ///
    /// # Errors
    /// It does not lead, or goes down.
    pub async fn time_to_live_here(&self, request: LeaseTimeToLiveRequest) -> Result<LeaseTimeToLiveResponse, Status> {
        failpoints::hit_in_task(Point::BeforeLookupWhenLeaseTimeToLive).await;
        let term = self.led_term()?;
        let look = || {
            let clock = self.node.leases.lock().expect("no one panics while holding the lease clock");
            clock.is_running().then(|| clock.remaining(request.id, self.node.now())).ok_or_else(status::no_leader)
        };
        let mut remaining = look()?;
        // Another member may have granted it just now.
        if remaining.is_none() && self.still_leads(term).await? {
            remaining = look()?;
        }
        if !self.still_leads(term).await? {
            return Err(status::no_leader());
        }
        let header = self.header().at(self.node.view().revision);
        let mut response =
            LeaseTimeToLiveResponse { header: Some(header), id: request.id, ttl: -1, ..Default::default() };
        let Some((granted, remaining)) = remaining else { return Ok(response) };
        response.granted_ttl = granted;
        response.ttl = remaining;
        if request.keys {
            let keys = self.node.ask(move |machine| {
                let record = machine.leases().get(request.id);
                record.map(|record| record.keys.iter().cloned().collect()).unwrap_or_default()
            });
            response.keys = self.within(keys).await?;
        }
        Ok(response)
    }

    /// The term in which this member leads, as far as it knows.
    fn led_term(&self) -> Result<u64, Status> {
        let gauges = &self.node.gauges;
        let term = gauges.term.load(Ordering::Relaxed);
        if gauges.leads.load(Ordering::Relaxed) { Ok(term) } else { Err(status::no_leader()) }
    }

    /// Whether this member has led since it read `term`. A quorum is asked: one that stood still or was cut off may have been
    /// replaced without hearing of it, and its clock says nothing then. Afterwards all is applied here that was acknowledged by
    /// anybody before.
    async fn still_leads(&self, term: u64) -> Result<bool, Status> {
        self.linearizable_view().await?;
        Ok(self.led_term().is_ok_and(|now| now == term))
    }

    /// Answers one keepalive. TTL 0 says that the lease is gone (etcd-contract 35).
    pub(super) async fn keep_alive(self: &Arc<Self>, id: i64, caller: &Caller) -> Result<Chunks, Status> {
        let mut question = self.question();
        let ttl = loop {
            let leader = question.next_leader().await?;
            self.may_use_lease(caller, Access::Write, id).await?;
            // The revoke of an expired lease may not come as long as nothing can be written: that too has its time.
            let renewed = question.hear(async {
                match leader {
                    Leader::Here => unless_lost(self.renew_here(id).await),
                    // Whatever error another one gives, it could not renew.
                    Leader::Elsewhere(peers, leader) => Ok(peers.renew_lease(leader, id).await.ok()),
                }
            });
            if let Some(renewed) = renewed.await {
                break renewed?;
            }
        };
        let header = self.header().at(self.node.view().revision);
        Ok(Chunks::of(&LeaseKeepAliveResponse { header: Some(header), id, ttl }))
    }

    /// Renews leases by this member's clock; gives the seconds of each, `None` for one that [`Self::renew_here`] must look
    /// after: it is not known, or its renewal waits for the log.
    ///
    /// # Errors
    /// It does not lead.
    pub async fn renew_at_once(&self, ids: &[i64]) -> Result<Vec<Option<i64>>, Status> {
        let term = self.led_term()?;
        let renewed = {
            let mut clock = self.node.leases.lock().expect("no one panics while holding the lease clock");
            if !clock.is_running() {
                return Err(status::no_leader());
            }
            let now = self.node.now();
            let renew = |id: &i64| match clock.renew(*id, now) {
                Renewal::Renewed { ttl } => Some(ttl),
                Renewal::Unknown | Renewal::CommitFirst { .. } | Renewal::Expiring => None,
            };
            ids.iter().map(renew).collect::<Vec<_>>()
        };
        if !self.still_leads(term).await? {
            return Err(status::no_leader());
        }
        self.metrics.lease_renewed_total.inc_by(renewed.iter().flatten().count() as u64);
        Ok(renewed)
    }

    /// Renews a lease by this member's clock; gives its seconds, 0 when there is none.
    ///
    /// # Errors
    /// It does not lead, or cannot write.
    pub async fn renew_here(&self, id: i64) -> Result<i64, Status> {
        let mut is_caught_up = false;
        loop {
            let term = self.led_term()?;
            let renewal = {
                let mut clock = self.node.leases.lock().expect("no one panics while holding the lease clock");
                if !clock.is_running() {
                    return Err(status::no_leader());
                }
                clock.renew(id, self.node.now())
            };
            match renewal {
                Renewal::Unknown if is_caught_up => return Ok(0),
                // Another member may have granted it just now, also as the leader before this one, which does not know what
                // that one had committed before it has committed something itself.
                Renewal::Unknown => is_caught_up = self.still_leads(term).await?,
                // A next leader counts from its own beginning, which then is later than this renewal.
                Renewal::Renewed { ttl } => {
                    if self.still_leads(term).await? {
                        self.metrics.lease_renewed_total.inc();
                        return Ok(ttl);
                    }
                }
                Renewal::CommitFirst { ttl } => {
                    failpoints::hit_in_task(Point::BeforeCheckpointInLeaseRenew).await;
                    // The remainder is forgotten by all before the client relies on a full life (DESIGN 7).
                    let checkpoints = vec![LeaseCheckpoint { id, remaining_ttl: 0 }];
                    let request = LeaseCheckpointRequest { checkpoints };
                    let cleared = self
                        .node
                        .propose(Kind::LeaseCheckpoint(request), Some(cluster_principal()))
                        .map_err(Status::from)?;
                    self.within(cleared).await?;
                    // It may have been another leader that had it ordered.
                    if self.still_leads(term).await? {
                        self.metrics.lease_renewed_total.inc();
                        return Ok(ttl);
                    }
                }
                Renewal::Expiring => tokio::time::sleep(REVOKE_POLL).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_lost_the_lead_says_nothing_and_other_errors_are_told() {
        assert_eq!(unless_lost(Ok(7)), Ok(Some(7)));
        for lost in [status::no_leader(), status::leader_changed()] {
            assert_eq!(unless_lost::<i64>(Err(lost)), Ok(None));
        }
        for told in [status::timed_out(), status::stopped()] {
            assert_eq!(unless_lost::<i64>(Err(told.clone())), Err(told));
        }
    }
}
