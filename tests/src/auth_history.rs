//! Users, roles and tokens as they were after each entry of the log: what a member that applied so much must hold, and whom it
//! may let in.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};

use basalt_proto::log::Request;
use basalt_proto::log::request::Kind;
use basalt_server::apply::auth::state::AuthState;
use sha2::{Digest, Sha256};

use crate::model::{Model, ModelAuth, Refused};

/// A token that was given out.
#[derive(Clone, Debug)]
struct ModelToken {
    user: String,
    /// Of which it is proof.
    password: Vec<u8>,
    /// The entry that gave it.
    given: u64,
    /// The entry that ended it.
    ended: Option<u64>,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct AuthHistory {
    /// By the entry that made them.
    states: BTreeMap<u64, ModelAuth>,
    /// By the digest of their secrets.
    tokens: BTreeMap<Vec<u8>, ModelToken>,
    /// By the store's revision after it, the first entry behind which it is that.
    entries: BTreeMap<i64, u64>,
    /// The last entry.
    last: u64,
}

impl Default for AuthHistory {
    fn default() -> Self {
        Self { states: [(0, ModelAuth::default())].into(), tokens: BTreeMap::new(), entries: BTreeMap::new(), last: 0 }
    }
}

impl AuthHistory {
    /// An entry of these requests and answers led to `model`.
    pub fn appended<'a>(
        &mut self,
        index: u64,
        requests: impl Iterator<Item = &'a Request>,
        answers: &[(u64, Result<i64, Refused>)],
        model: &Model,
    ) {
        self.last = index;
        self.entries.entry(model.revision).or_insert(index);
        let auth = &model.auth;
        if self.newest() != auth {
            self.states.insert(index, auth.clone());
            for token in self.tokens.values_mut().filter(|token| token.ended.is_none()) {
                let stays = auth.users.get(&token.user).is_some_and(|user| user.password == token.password);
                token.ended = (!stays || !auth.enabled).then_some(index);
            }
        }
        for (request, (_, answer)) in requests.zip(answers) {
            // One after which users changed in the same entry is good for nothing.
            if let (Some(Kind::Authentication(login)), Ok(_)) = (&request.kind, answer)
                && login.auth_revision == auth.revision
                && let Some(user) = auth.users.get(&login.user)
            {
                let (user, password) = (login.user.clone(), user.password.clone());
                let token = ModelToken { user, password, given: index, ended: None };
                self.tokens.insert(login.secret_digest.to_vec(), token);
            }
        }
    }

    fn newest(&self) -> &ModelAuth {
        self.states.last_key_value().expect("there is a first one").1
    }

    /// Users and roles after an entry.
    pub fn after(&self, index: u64) -> &ModelAuth {
        self.states.range(..=index).next_back().expect("there is a first one").1
    }

    /// The first entry behind which the store had this revision, or a later one.
    pub fn entry_of(&self, revision: i64) -> u64 {
        self.entries.range(revision..).next().map_or(0, |(_, index)| *index)
    }

    /// Whether users and roles were so after any entry from one to another.
    pub fn any(&self, from: u64, to: u64, mut is_so: impl FnMut(&ModelAuth) -> bool) -> bool {
        is_so(self.after(from))
            || self.states.range((Excluded(from), Included(to.max(from)))).any(|(_, state)| is_so(state))
    }

    /// Whose token this is at a member that applied so much; `None` if it is nobody's, or nobody's any more.
    pub fn user_of(&self, token: &str, applied: u64) -> Option<&str> {
        let (secret, _) = token.split_once('.')?;
        let token = self.tokens.get(&Sha256::digest(secret)[..])?;
        let is_good = token.given <= applied && token.ended.is_none_or(|ended| applied < ended);
        is_good.then_some(&token.user)
    }

    /// I22: a member that applied up to an entry holds the users and roles that the log had led to.
    ///
    /// # Panics
    /// When it holds others.
    pub fn check(&self, member: u64, state: &AuthState, applied: u64) {
        let (held, expected) = (ModelAuth::of(state), self.after(applied));
        assert!(held == *expected, "I22: after entry {applied} member {member:x} holds {held:?}, not {expected:?}");
    }
}

#[cfg(test)]
#[path = "auth_history_tests.rs"]
mod tests;
