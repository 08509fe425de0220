//! Who belongs to the cluster: part of the replicated state, and of every manifest, so that what a checkpoint holds and who
//! voted for it are of the same log entry (docs/decisions/0019).

use basalt_proto::log::member_change::Kind as Change;
use basalt_proto::log::{MemberAddition, MemberDescription};
use basalt_proto::members::{Member, Membership};
use basalt_storage::planted::{Bug, is_planted};
use bytes::Bytes;
use prost::Message;
use raft::prelude::ConfState;
use thiserror::Error;

use super::answer::Refusal;
use super::effects::Effect;
use super::member_bounds::{MemberBound, check_first, check_growth, check_member};

/// The members after one log entry.
///
/// * Who left never comes back, and is known for good: two who never heard of their removal could else make a third believe that
///   one of them leads, as it was before. So the ids of those that left are never forgotten.
/// * All of it stands in every manifest, and so has a bound ([`super::member_bounds`]), which some 2,000 ids reach: then no
///   more members are added. Another cluster, as a restored snapshot is one, begins without those ids and hears none of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members(Membership);

/// Why the members of a data directory cannot be read.
#[derive(Debug, Error)]
#[error("the members of the cluster cannot be read from the manifest: restore a snapshot")]
pub struct MembersError(#[from] prost::DecodeError);

impl Members {
    /// Members of a new cluster; all vote.
    pub fn first(mut members: Vec<Member>) -> Self {
        members.sort_by_key(|member| member.id);
        let voters = members.iter().map(|member| member.id).collect();
        Self(Membership { voters, members, ..Membership::default() })
    }

    /// A cluster of one, of which no more is known yet.
    pub fn single_voter(id: u64) -> Self {
        Self::first(vec![Member { id, ..Member::default() }])
    }

    /// What a member knows that is to join a cluster: who is there, and nothing of who votes. That comes with the whole state.
    pub fn joining(membership: Membership) -> Self {
        Self(Membership { voters: Vec::new(), learners: Vec::new(), ..membership })
    }

    /// As it goes to others.
    pub fn membership(&self) -> &Membership {
        &self.0
    }

    /// Whether a change may be, and what it comes to. Everybody decides alike: it hangs on nothing but this.
    ///
    /// # Errors
    /// [`Refusal`], in the order of etcd's `ValidateConfigurationChange`.
    pub(super) fn evaluate(&self, change: &Change) -> Result<Effect, Refusal> {
        let known = |id: u64| {
            let is_known = !self.is_removed(id) && self.get(id).is_some();
            if is_known { Ok(()) } else { Err(Refusal::MemberNotFound) }
        };
        match change {
            Change::Add(addition) => self.evaluate_addition(addition),
            Change::Remove(id) => {
                known(*id)?;
                // Nobody would be left to order anything; the crate refuses it too late.
                if self.0.voters == [*id] { Err(Refusal::LastVoter) } else { Ok(Effect::MemberRemoved { id: *id }) }
            }
            Change::Update(urls) => {
                known(urls.id)?;
                self.check_unused(&urls.peer_urls, urls.id)?;
                self.check_room(urls.id, |after| after.set_urls(urls.id, &urls.peer_urls))?;
                Ok(Effect::MemberUrlsSet { id: urls.id, peer_urls: urls.peer_urls.clone() })
            }
            Change::Promote(promotion) => {
                known(promotion.id)?;
                if promotion.behind {
                    return Err(Refusal::LearnerNotReady);
                }
                let is_learner = self.is_learner(promotion.id);
                if is_learner { Ok(Effect::MemberPromoted { id: promotion.id }) } else { Err(Refusal::NotALearner) }
            }
        }
    }

    /// Makes a change, unless it is refused: what applying it would come to.
    pub fn follow(&mut self, change: &Change) {
        match self.evaluate(change) {
            Ok(Effect::MemberAdded { member, learner }) => self.add(member, learner),
            Ok(Effect::MemberRemoved { id }) => self.remove(id),
            Ok(Effect::MemberUrlsSet { id, peer_urls }) => self.set_urls(id, &peer_urls),
            Ok(Effect::MemberPromoted { id }) => self.promote(id),
            Ok(_) | Err(_) => {}
        }
    }

    fn evaluate_addition(&self, addition: &MemberAddition) -> Result<Effect, Refusal> {
        let member = addition.member.clone().unwrap_or_default();
        if self.is_removed(member.id) {
            return Err(Refusal::MemberNotFound);
        }
        if self.get(member.id).is_some() || member.id == 0 {
            return Err(Refusal::MemberExists);
        }
        self.check_unused(&member.peer_urls, member.id)?;
        if addition.learner && self.0.learners.len() >= addition.learners_max as usize {
            return Err(Refusal::TooManyLearners);
        }
        self.check_room(member.id, |after| after.add(member.clone(), addition.learner))?;
        Ok(Effect::MemberAdded { member, learner: addition.learner })
    }

    /// Whether there is room for what `change` makes of member `id`.
    fn check_room(&self, id: u64, change: impl FnOnce(&mut Self)) -> Result<(), MemberBound> {
        let mut after = self.clone();
        change(&mut after);
        after.get(id).map_or(Ok(()), check_member)?;
        check_growth(&self.0, &after.0)
    }

    /// Whether there is room for what a member says of itself.
    ///
    /// # Errors
    /// [`MemberBound`].
    pub(super) fn check_description(&self, description: &MemberDescription) -> Result<(), MemberBound> {
        // The one that is known stays, so that a second one would not be looked at.
        let said = Member { incarnation: description.incarnation.clone(), ..Member::default() };
        check_member(&said)?;
        self.check_room(description.id, |after| after.describe(description))
    }

    /// Whether there is room for these as the first members of a cluster.
    ///
    /// # Errors
    /// [`MemberBound`].
    pub fn check(&self) -> Result<(), MemberBound> {
        check_first(&self.0)
    }

    /// No other member has any of these URLs.
    fn check_unused(&self, urls: &[String], id: u64) -> Result<(), Refusal> {
        let mut taken = self.iter().filter(|member| member.id != id).flat_map(|member| &member.peer_urls);
        if taken.any(|url| urls.contains(url)) { Err(Refusal::PeerUrlExists) } else { Ok(()) }
    }

    pub(super) fn add(&mut self, member: Member, learner: bool) {
        let ids = if learner { &mut self.0.learners } else { &mut self.0.voters };
        ids.push(member.id);
        ids.sort_unstable();
        self.0.members.push(member);
        self.0.members.sort_by_key(|member| member.id);
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.0.voters.retain(|voter| *voter != id);
        self.0.learners.retain(|learner| *learner != id);
        self.0.members.retain(|member| member.id != id);
        self.0.removed.push(id);
    }

    pub(super) fn promote(&mut self, id: u64) {
        self.0.learners.retain(|learner| *learner != id);
        self.0.voters.push(id);
        self.0.voters.sort_unstable();
    }

    pub(super) fn set_urls(&mut self, id: u64, peer_urls: &[String]) {
        if let Some(member) = self.0.members.iter_mut().find(|member| member.id == id) {
            member.peer_urls = peer_urls.to_vec();
        }
    }

    /// Reads what [`Self::encode`] wrote. Older directories name the voters only.
    ///
    /// # Errors
    /// [`MembersError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MembersError> {
        let mut members = Self(Membership::decode(bytes)?);
        let ids: Vec<u64> = members.0.voters.iter().chain(&members.0.learners).copied().collect();
        let missing = ids.into_iter().filter(|id| members.get(*id).is_none()).collect::<Vec<_>>();
        members.0.members.extend(missing.into_iter().map(|id| Member { id, ..Member::default() }));
        members.0.members.sort_by_key(|member| member.id);
        Ok(members)
    }

    /// The form of manifests.
    pub fn encode(&self) -> Bytes {
        self.0.encode_to_vec().into()
    }

    /// All, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.0.members.iter()
    }

    /// One of them.
    pub fn get(&self, id: u64) -> Option<&Member> {
        self.iter().find(|member| member.id == id)
    }

    /// Whether it does not vote yet. One that joins and was not told who votes takes itself for one.
    pub fn is_learner(&self, id: u64) -> bool {
        self.get(id).is_some() && !self.0.voters.contains(&id)
    }

    /// Whether it left, for good.
    pub fn is_removed(&self, id: u64) -> bool {
        self.0.removed.contains(&id)
    }

    /// Who votes.
    pub fn voters(&self) -> &[u64] {
        &self.0.voters
    }

    /// Those who vote.
    pub fn voting(&self) -> impl Iterator<Item = &Member> {
        self.iter().filter(|member| self.0.voters.contains(&member.id))
    }

    /// As Raft wants it.
    pub fn conf_state(&self) -> ConfState {
        ConfState { voters: self.0.voters.clone(), learners: self.0.learners.clone(), ..ConfState::default() }
    }

    /// A member said who it is. From which data directory it speaks is fixed with the first word of it.
    pub(crate) fn describe(&mut self, description: &MemberDescription) {
        if let Some(member) = self.0.members.iter_mut().find(|member| member.id == description.id) {
            member.name.clone_from(&description.name);
            member.client_urls.clone_from(&description.client_urls);
            member.apply_version = description.apply_version;
            member.disk_full = description.disk_full;
            if member.incarnation.is_empty() {
                member.incarnation = description.incarnation.clone();
            }
        }
    }

    /// What member `id` says of itself when its disk is full, or is so no more; `None` if it is none.
    pub fn with_disk(&self, id: u64, disk_full: bool) -> Option<MemberDescription> {
        let Member { id, name, client_urls, incarnation, apply_version, .. } = self.get(id)?.clone();
        Some(MemberDescription { id, name, client_urls, incarnation, apply_version, disk_full })
    }

    /// Whether the disks of most voters are full once that of member `id` is: then nothing that grows the store can be
    /// ordered much longer. As long as most have room, one that has none stands back.
    pub(super) fn are_mostly_full_with(&self, id: u64) -> bool {
        let full = self.voting().filter(|member| member.disk_full || member.id == id).count();
        full * 2 > self.voters().len()
    }

    /// Whether a voter has room.
    pub fn has_room(&self) -> bool {
        self.voting().any(|member| !member.disk_full)
    }

    /// Whether another data directory than `incarnation` is known to be the one of member `id`: then that one was lost, with
    /// what it promised to keep.
    pub fn is_wiped(&self, id: u64, incarnation: u128) -> bool {
        let known = self.get(id).map(|member| &member.incarnation);
        known.is_some_and(|known| !known.is_empty() && **known != incarnation.to_le_bytes())
            && !is_planted(Bug::WipedMemberVotes)
    }

    /// The rules that all members apply by.
    pub fn apply_version(&self) -> u32 {
        self.0.apply_version.max(1)
    }

    /// The newest rules that all members know: what the cluster may be raised to.
    pub fn apply_version_of_all(&self) -> u32 {
        self.iter().map(|member| member.apply_version).min().unwrap_or(0)
    }

    /// Whether all may apply by these rules from now on, and do not yet.
    pub(super) fn may_apply_by(&self, version: u32) -> bool {
        version > self.apply_version() && version <= self.apply_version_of_all()
    }

    pub(super) fn raise_apply_version(&mut self, version: u32) {
        self.0.apply_version = version;
    }

    /// Says where the others reach member `id`, if that is not known: a directory of an older release.
    pub fn fill_peer_urls(&mut self, id: u64, peer_urls: &[String]) {
        if let Some(member) = self.0.members.iter_mut().find(|member| member.id == id && member.peer_urls.is_empty()) {
            member.peer_urls = peer_urls.to_vec();
        }
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::log::{MemberPromotion, MemberUrls};

    use super::*;

    fn addition(id: u64, url: &str, learner: bool) -> Change {
        let member = Member { id, peer_urls: vec![url.to_owned()], ..Member::default() };
        Change::Add(MemberAddition { member: Some(member), learner, learners_max: 1 })
    }

    #[test]
    fn changes_are_refused_in_etcds_order() {
        let member = |id: u64| Member { id, peer_urls: vec![format!("http://m{id}:2380")], ..Member::default() };
        let mut members = Members::first(vec![member(1), member(2), member(3)]);
        let refused = |members: &Members, change: Change| members.evaluate(&change).expect_err("refused");
        assert_eq!(refused(&members, addition(2, "http://new:1", false)), Refusal::MemberExists);
        assert_eq!(refused(&members, addition(4, "http://m2:2380", false)), Refusal::PeerUrlExists);
        let update = |id, url: &str| Change::Update(MemberUrls { id, peer_urls: vec![url.to_owned()] });
        assert_eq!(refused(&members, update(9, "http://new:1")), Refusal::MemberNotFound);
        assert_eq!(refused(&members, update(1, "http://m2:2380")), Refusal::PeerUrlExists);
        assert!(members.evaluate(&update(1, "http://m1:2380")).is_ok());
        let promote = |id, behind| Change::Promote(MemberPromotion { id, behind });
        assert_eq!(refused(&members, promote(9, true)), Refusal::MemberNotFound);
        assert_eq!(refused(&members, promote(1, false)), Refusal::NotALearner);

        members.add(member(4), true);
        assert_eq!((members.voters(), members.is_learner(4)), (&[1, 2, 3][..], true));
        assert_eq!(refused(&members, addition(5, "http://new:1", true)), Refusal::TooManyLearners);
        assert!(members.evaluate(&addition(5, "http://new:1", false)).is_ok());
        assert_eq!(refused(&members, promote(4, true)), Refusal::LearnerNotReady);
        members.promote(4);
        assert_eq!((members.voters(), members.is_learner(4)), (&[1, 2, 3, 4][..], false));
        members.remove(2);
        assert_eq!(refused(&Members::single_voter(1), Change::Remove(1)), Refusal::LastVoter);
        assert_eq!(members.voters(), [1, 3, 4]);
        assert_eq!(refused(&members, Change::Remove(2)), Refusal::MemberNotFound);
        assert_eq!(refused(&members, addition(2, "http://new:1", false)), Refusal::MemberNotFound);
        assert_eq!(Members::decode(&members.encode()).expect("written just now"), members);
    }

    #[test]
    fn rules_are_raised_when_all_members_know_them_and_never_lowered() {
        let mut members = Members::first([1, 2].map(|id| Member { id, ..Member::default() }).into());
        let knows = |id, apply_version| MemberDescription { id, apply_version, ..MemberDescription::default() };
        assert_eq!((members.apply_version(), members.apply_version_of_all()), (1, 0));
        members.describe(&knows(1, 3));
        assert!(!members.may_apply_by(2), "one did not say what it knows");
        members.describe(&knows(2, 2));
        assert!(members.may_apply_by(2) && !members.may_apply_by(3) && !members.may_apply_by(1));
        members.raise_apply_version(2);
        assert!(!members.may_apply_by(2));
        members.add(Member { id: 3, ..Member::default() }, true);
        members.describe(&knows(2, 3));
        assert!(!members.may_apply_by(3), "a new member did not say what it knows");
        assert_eq!(Members::decode(&members.encode()).expect("written just now").apply_version(), 2);
    }

    #[test]
    fn the_disks_of_most_voters_count() {
        let mut members = Members::first([1, 2, 3].map(|id| Member { id, ..Member::default() }).into());
        assert!(!members.are_mostly_full_with(1));
        members.describe(&members.with_disk(1, true).expect("a member"));
        assert!(!members.are_mostly_full_with(1) && members.are_mostly_full_with(2) && members.has_room());
        members.describe(&members.with_disk(1, false).expect("a member"));
        assert!(!members.are_mostly_full_with(2));
        members.add(Member { id: 4, disk_full: true, ..Member::default() }, true);
        assert!(!members.are_mostly_full_with(2), "a learner has no vote in it");
        assert!(Members::single_voter(7).are_mostly_full_with(7));
        assert_eq!(members.with_disk(9, true), None);
    }

    #[test]
    fn a_data_directory_is_fixed_with_the_first_word_of_it() {
        let mut members = Members::single_voter(7);
        let from =
            |byte: u8| MemberDescription { id: 7, incarnation: vec![byte; 16].into(), ..MemberDescription::default() };
        assert!(!members.is_wiped(7, 5), "it said nothing yet");
        members.describe(&from(1));
        members.describe(&from(2));
        assert!(!members.is_wiped(7, u128::from_le_bytes([1; 16])));
        assert!(members.is_wiped(7, u128::from_le_bytes([2; 16])));
        assert!(!members.is_wiped(8, 5), "nobody");
    }

    #[test]
    fn members_survive_a_manifest() {
        let peer_urls = vec!["http://a:2380".to_owned()];
        let named = |id| Member { id, name: format!("m{id}"), peer_urls: peer_urls.clone(), ..Member::default() };
        let mut members = Members::first(vec![named(9), named(3)]);
        assert_eq!(members.voters(), [3, 9]);
        let (name, client_urls) = ("nine".to_owned(), vec!["http://a:2379".to_owned()]);
        members.describe(&MemberDescription { id: 9, name, client_urls, ..MemberDescription::default() });
        let read = Members::decode(&members.encode()).expect("written just now");
        assert_eq!(read, members);
        assert_eq!(read.get(9).map(|member| &*member.name), Some("nine"));
        assert_eq!(read.conf_state().voters, [3, 9]);
    }

    #[test]
    fn a_directory_that_names_only_voters_has_members_without_a_name() {
        let voters = Membership { voters: vec![5], ..Membership::default() };
        let mut read = Members::decode(&voters.encode_to_vec()).expect("it is one");
        read.fill_peer_urls(5, &["http://a:1".to_owned()]);
        assert_eq!(read.get(5).map(|member| member.peer_urls.len()), Some(1));
        assert!(Members::decode(&[0xff]).is_err());
    }
}
