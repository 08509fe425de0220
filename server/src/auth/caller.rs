//! Somebody at the other end of a connection.

use std::sync::Arc;
use std::time::SystemTime;

use basalt_proto::log::Principal;
use http::HeaderMap;

use super::tokens::Token;
use crate::apply::auth::error::AuthError;
use crate::apply::auth::state::AuthState;

/// Where clients put their token (etcd-contract 49); the first that is there counts.
const TOKEN_HEADERS: [&str; 2] = ["token", "authorization"];

/// What a caller shows of itself.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// A token, without the word `Bearer` before it.
    pub token: Option<Arc<str>>,
    /// The common name of a verified client certificate, where such are demanded.
    pub common_name: Option<Arc<str>>,
}

impl Credentials {
    /// Those of a request.
    pub fn of(headers: &HeaderMap, common_name: Option<&Arc<str>>) -> Self {
        let token = TOKEN_HEADERS.iter().find_map(|name| headers.get(*name)).map(|value| {
            let value = String::from_utf8_lossy(value.as_bytes());
            Arc::from(value.strip_prefix("Bearer ").unwrap_or(&value))
        });
        Self { token, common_name: common_name.cloned() }
    }
}

/// By what a user is known. A call may wait long after it showed it.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A certificate's name, which stands for the newest users and roles.
    Certificate,
    /// A token that this member keeps; it may end meanwhile.
    Token(Arc<Token>),
    /// A token that says whose it is.
    Signed {
        /// The users and roles that it was made by.
        revision: u64,
        /// When it ends, if it does.
        ends: Option<SystemTime>,
    },
}

impl Proof {
    /// The users and roles that it stands for, of which `newest` are the newest; `None` if it proves nothing any more.
    fn revision(&self, newest: u64) -> Option<u64> {
        match self {
            Proof::Certificate => Some(newest),
            Proof::Token(token) => (!token.is_over()).then_some(newest),
            Proof::Signed { revision, ends } => {
                let is_over = ends.is_some_and(|ends| ends <= SystemTime::now());
                (!is_over).then_some(*revision)
            }
        }
    }
}

/// What is known of a caller.
#[derive(Clone, Debug)]
pub enum Caller {
    /// It says nothing of itself, or nobody asks.
    Nobody,
    /// It shows a token that is none, or none any more.
    Stranger,
    /// A user.
    User {
        /// Its name.
        name: Arc<str>,
        /// By what.
        proof: Proof,
    },
}

impl Caller {
    /// On whose behalf its requests are ordered; `None` for nobody's. Asked again whenever a call has waited.
    ///
    /// # Errors
    /// [`AuthError::InvalidToken`].
    pub fn principal(&self, state: &AuthState) -> Result<Option<Principal>, AuthError> {
        match self {
            Caller::Nobody => Ok(None),
            Caller::Stranger => Err(AuthError::InvalidToken),
            Caller::User { name, proof } => {
                let auth_revision = proof.revision(state.revision()).ok_or(AuthError::InvalidToken)?;
                Ok(Some(Principal { user: name.to_string(), auth_revision }))
            }
        }
    }

    /// Its name, if it is a user.
    pub fn name(&self) -> Option<&Arc<str>> {
        match self {
            Caller::User { name, .. } => Some(name),
            Caller::Nobody | Caller::Stranger => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_stands_in_either_header_with_or_without_its_kind() {
        let of = |headers: &[(&'static str, &str)]| {
            let pair = |(name, value): &(&'static str, &str)| {
                (http::HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
            };
            Credentials::of(&headers.iter().map(pair).collect(), None).token
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("token", "abc.7")]).as_deref(), Some("abc.7"));
        assert_eq!(of(&[("authorization", "Bearer abc.7")]).as_deref(), Some("abc.7"));
        assert_eq!(of(&[("authorization", "abc.7"), ("token", "def.8")]).as_deref(), Some("def.8"));
        assert_eq!(of(&[("authorization", "Basic abc")]).as_deref(), Some("Basic abc"));
    }

    #[test]
    fn a_user_stands_for_the_newest_users_and_roles_unless_its_token_says_otherwise() {
        let state = AuthState::default();
        let user = |proof| Caller::User { name: "ann".into(), proof };
        let signed = |revision, ends| user(Proof::Signed { revision, ends });
        let principal = |caller: Caller| caller.principal(&state);
        let of = |auth_revision| Ok(Some(Principal { user: "ann".to_owned(), auth_revision }));
        assert_eq!(principal(user(Proof::Certificate)), of(1));
        assert_eq!(principal(signed(7, None)), of(7));
        assert_eq!(principal(signed(7, Some(SystemTime::now() + Duration::from_secs(3600)))), of(7));
        assert_eq!(principal(signed(7, Some(SystemTime::UNIX_EPOCH))), Err(AuthError::InvalidToken));
        assert_eq!(principal(Caller::Nobody), Ok(None));
        assert_eq!(principal(Caller::Stranger), Err(AuthError::InvalidToken));
    }
}
