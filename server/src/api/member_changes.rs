//! The calls of the service Cluster that change who belongs to it (etcd-contract 46).

use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::{
    Member as WireMember, MemberAddRequest, MemberAddResponse, MemberPromoteRequest, MemberPromoteResponse,
    MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse, ResponseHeader,
};
use basalt_proto::log::member_change::Kind as Change;
use basalt_proto::log::request::Kind;
use basalt_proto::log::{MemberAddition, MemberChange, MemberPromotion, MemberUrls};
use basalt_proto::members::Member;

use super::chunks::Chunks;
use super::service::{Reply, Service};
use super::status::{self, Status};
use crate::apply::answer::Answer;
use crate::apply::member_bounds::{MemberBound, check_member};
use crate::apply::members::Members;
use crate::auth::Caller;
use crate::config::{Url, member_id};
use crate::node::handle::unix_time_ns;

/// A member counts as reached after so long without a break (etcd `HealthInterval`).
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// By which rules members change.
#[derive(Clone, Copy, Debug)]
pub struct MemberRules {
    /// Whether changes that would lose the quorum are refused (`--strict-reconfig-check`).
    pub strict: bool,
    /// Most learners (`--max-learners`).
    pub learners_max: u32,
}

impl Service {
    pub(super) fn member_add(self: &Arc<Self>, request: &MemberAddRequest, caller: &Caller) -> Reply {
        let Some(peer_urls) = peer_urls(&request.peer_urls) else {
            return Reply::Ready(Err(status::member_bad_urls()));
        };
        if let Err(bound) = check_urls(&peer_urls) {
            return Reply::Ready(Err(bound.into()));
        }
        if let Err(refused) = self.may_add(request.is_learner) {
            return Reply::Ready(Err(refused));
        }
        let seconds = unix_time_ns() / 1_000_000_000;
        let id = member_id(peer_urls.iter().map(String::as_str), "", Some(seconds));
        let member = Member { id, peer_urls: peer_urls.clone(), ..Member::default() };
        let learners_max = self.member_rules.learners_max;
        let addition = MemberAddition { member: Some(member), learner: request.is_learner, learners_max };
        let added = WireMember { id, peer_urls, is_learner: request.is_learner, ..WireMember::default() };
        self.change_members(caller, Change::Add(addition), move |header, members| {
            Chunks::of(&MemberAddResponse { header, member: Some(added.clone()), members })
        })
    }

    pub(super) fn member_remove(self: &Arc<Self>, request: &MemberRemoveRequest, caller: &Caller) -> Reply {
        if let Err(refused) = self.may_remove(request.id) {
            return Reply::Ready(Err(refused));
        }
        self.change_members(caller, Change::Remove(request.id), |header, members| {
            Chunks::of(&MemberRemoveResponse { header, members })
        })
    }

    /// As in etcd, URLs may be of a form that only the caller knows; how long they are is looked at.
    pub(super) fn member_update(self: &Arc<Self>, request: MemberUpdateRequest, caller: &Caller) -> Reply {
        if let Err(bound) = check_urls(&request.peer_urls) {
            return Reply::Ready(Err(bound.into()));
        }
        let urls = MemberUrls { id: request.id, peer_urls: request.peer_urls };
        self.change_members(caller, Change::Update(urls), |header, members| {
            Chunks::of(&MemberUpdateResponse { header, members })
        })
    }

    pub(super) fn member_promote(self: &Arc<Self>, request: &MemberPromoteRequest, caller: &Caller) -> Reply {
        let members = self.node.members.load();
        // One more member, and counted as started.
        if self.member_rules.strict && !is_ready(&members, |_| true, 1, 1) {
            return Reply::Ready(Err(status::member_not_enough_started()));
        }
        let promotion = MemberPromotion { id: request.id, behind: false };
        self.change_members(caller, Change::Promote(promotion), |header, members| {
            Chunks::of(&MemberPromoteResponse { header, members })
        })
    }

    /// Has a change ordered, and answers with all members after it.
    fn change_members(
        self: &Arc<Self>,
        caller: &Caller,
        change: Change,
        answer: impl Fn(Option<ResponseHeader>, Vec<WireMember>) -> Chunks + Send + 'static,
    ) -> Reply {
        let kind = Kind::MemberChange(MemberChange { kind: Some(change) });
        let ordered = match self.principal(caller).and_then(|principal| self.order(kind, principal)) {
            Ok(ordered) => ordered,
            Err(status) => return Reply::Ready(Err(status)),
        };
        let service = self.clone();
        Reply::later(async move {
            let completed = ordered.await?;
            let Answer::Members { members, .. } = completed.answer else {
                unreachable!("a change of members is answered by them")
            };
            Ok(answer(Some(service.header().at(0)), wire_members(&members)))
        })
    }

    fn may_add(&self, learner: bool) -> Result<(), Status> {
        if !self.member_rules.strict {
            return Ok(());
        }
        let members = self.node.members.load();
        let started = members.voting().filter(|member| is_started(member)).count();
        // One member of one may get a second, which does not run yet.
        let grows_from_one = members.voters().len() == 1 && started == 1;
        if !learner && !grows_from_one && !is_ready(&members, |_| true, 1, 0) {
            return Err(status::member_not_enough_started());
        }
        let voters = members.voters().len();
        if voters != 1 && self.reached(&members) < quorum(voters + 1) {
            return Err(status::unhealthy());
        }
        Ok(())
    }

    fn may_remove(&self, id: u64) -> Result<(), Status> {
        let members = self.node.members.load();
        if !self.member_rules.strict || members.is_learner(id) {
            return Ok(());
        }
        if !is_ready(&members, |member| member.id != id, 0, 0) {
            return Err(status::member_not_enough_started());
        }
        // One that is down is no part of the quorum that works.
        let is_down = self.peers.as_ref().is_none_or(|peers| peers.reached_for(id).is_none());
        if id != self.node.identity.member_id && is_down {
            return Ok(());
        }
        let (voters, reached) = (members.voters().len(), self.reached(&members));
        // etcd's arithmetic, which is no majority for one member: it cannot remove itself.
        if reached.saturating_sub(1) < 1 + voters.saturating_sub(1) / 2 {
            return Err(status::unhealthy());
        }
        Ok(())
    }

    /// Voters that this member has reached long enough, itself among them.
    fn reached(&self, members: &Members) -> usize {
        let own = self.node.identity.member_id;
        let reached_for = |id: u64| self.peers.as_ref().and_then(|peers| peers.reached_for(id));
        let is_reached = |id: &&u64| **id == own || reached_for(**id).is_some_and(|time| time >= HEALTH_INTERVAL);
        members.voters().iter().filter(is_reached).count()
    }
}

/// Members as clients see them, by id.
pub(super) fn wire_members(members: &Members) -> Vec<WireMember> {
    let member = |member: &Member| WireMember {
        id: member.id,
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        is_learner: members.is_learner(member.id),
    };
    members.iter().map(member).collect()
}

/// Whether the voters that are `kept`, with so many more, of which so many are started, have a started majority.
fn is_ready(members: &Members, kept: impl Fn(&Member) -> bool, more: usize, more_started: usize) -> bool {
    let (mut all, mut started) = (more, more_started);
    for member in members.voting().filter(|member| kept(member)) {
        all += 1;
        started += usize::from(is_started(member));
    }
    started >= quorum(all)
}

/// A member has a name from the time that it said it.
fn is_started(member: &Member) -> bool {
    !member.name.is_empty()
}

fn quorum(members: usize) -> usize {
    members / 2 + 1
}

/// Whether a member may have so many URLs, of that length: what is refused at apply need not stand in the log.
fn check_urls(peer_urls: &[String]) -> Result<(), MemberBound> {
    check_member(&Member { peer_urls: peer_urls.to_vec(), ..Member::default() })
}

/// Sorted URLs, if all of them are some (etcd `types.NewURLs`).
fn peer_urls(texts: &[String]) -> Option<Vec<String>> {
    let mut urls = texts.iter().map(|text| Url::parse(text.trim()).ok()).collect::<Option<Vec<Url>>>()?;
    urls.sort();
    let urls: Vec<String> = urls.iter().map(|url| url.as_str().to_owned()).collect();
    Some(urls).filter(|urls| !urls.is_empty())
}
