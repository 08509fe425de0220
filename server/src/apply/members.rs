//! Who belongs to the cluster: part of the replicated state, and of every manifest, so that what a checkpoint holds and who
//! voted for it are of the same log entry (docs/decisions/0019).

use basalt_proto::members::{Member, Membership};
use bytes::Bytes;
use prost::Message;
use raft::prelude::ConfState;
use thiserror::Error;

/// The members after one log entry.
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

    /// Whether it does not vote yet.
    pub fn is_learner(&self, id: u64) -> bool {
        self.0.learners.contains(&id)
    }

    /// Whether it left, for good.
    pub fn is_removed(&self, id: u64) -> bool {
        self.0.removed.contains(&id)
    }

    /// Who votes.
    pub fn voters(&self) -> &[u64] {
        &self.0.voters
    }

    /// As Raft wants it.
    pub fn conf_state(&self) -> ConfState {
        ConfState { voters: self.0.voters.clone(), learners: self.0.learners.clone(), ..ConfState::default() }
    }

    /// A member said who it is.
    pub(super) fn describe(&mut self, id: u64, name: &str, client_urls: &[String]) {
        if let Some(member) = self.0.members.iter_mut().find(|member| member.id == id) {
            member.name = name.to_owned();
            member.client_urls = client_urls.to_vec();
        }
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
    use super::*;

    #[test]
    fn members_survive_a_manifest() {
        let peer_urls = vec!["http://a:2380".to_owned()];
        let named = |id| Member { id, name: format!("m{id}"), peer_urls: peer_urls.clone(), ..Member::default() };
        let mut members = Members::first(vec![named(9), named(3)]);
        assert_eq!(members.voters(), [3, 9]);
        members.describe(9, "nine", &["http://a:2379".to_owned()]);
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
