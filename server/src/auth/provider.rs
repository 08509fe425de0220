//! What kind of tokens users get (`--auth-token`).

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use super::caller::{Caller, Proof};
use super::jwt::JwtUser;
use super::jwt_rotation::RotatingKeys;
use super::tokens::{Tokens, parts};

/// A kind of token, as flags choose it.
#[derive(Clone, Debug)]
pub enum TokenKind {
    /// Each member's own memory; one lives so long after it was used last.
    Simple {
        /// `--auth-token-ttl`.
        life: Duration,
    },
    /// Signed ones that say whose they are.
    Jwt(Arc<RotatingKeys>),
    /// No tokens: users are known by their certificates alone.
    None,
}

impl From<TokenKind> for TokenProvider {
    fn from(kind: TokenKind) -> Self {
        match kind {
            TokenKind::Simple { life } => TokenProvider::Simple(Tokens::new(life)),
            TokenKind::Jwt(keys) => TokenProvider::Jwt(keys),
            TokenKind::None => TokenProvider::None,
        }
    }
}

/// Gives tokens to users and knows users by them.
pub enum TokenProvider {
    /// Each member's own memory.
    Simple(Tokens),
    /// Signed ones that say whose they are.
    Jwt(Arc<RotatingKeys>),
    /// No tokens: users are known by their certificates alone.
    None,
}

/// What a token says at once.
pub(super) enum Known {
    /// This.
    Caller(Caller),
    /// It may have been given by another member a moment ago, and its entry is not applied here.
    Later,
}

impl TokenProvider {
    /// Who shows a token.
    pub(super) fn look(&self, token: &str, applied: u64, now: Duration) -> Known {
        let tokens = match self {
            TokenProvider::Simple(tokens) => tokens,
            TokenProvider::Jwt(keys) => return Known::Caller(of_jwt(keys, token)),
            TokenProvider::None => return Known::Caller(Caller::Stranger),
        };
        let Some((secret, index)) = parts(token) else { return Known::Caller(Caller::Stranger) };
        match tokens.find(secret, now) {
            Some(token) => Known::Caller(Caller::User { name: token.user().clone(), proof: Proof::Token(token) }),
            None if index > applied => Known::Later,
            None => Known::Caller(Caller::Stranger),
        }
    }
}

fn of_jwt(keys: &RotatingKeys, token: &str) -> Caller {
    match keys.verify(token) {
        Ok(JwtUser { name, revision, ends }) => {
            Caller::User { name: name.into(), proof: Proof::Signed { revision, ends } }
        }
        Err(error) => {
            debug!(%error, "a token is refused");
            Caller::Stranger
        }
    }
}
