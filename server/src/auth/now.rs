//! The users and roles that are applied, and the tokens that go with them, as all threads see them.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use basalt_proto::log::{Authentication, Principal};

use super::caller::{Caller, Credentials, Proof};
use super::provider::{Known, TokenProvider};
use crate::apply::auth::check::Asking;
use crate::apply::auth::error::AuthError;
use crate::apply::auth::state::{AuthNow, AuthState};

/// What a node knows of its clients.
pub struct Auth {
    now: ArcSwap<AuthNow>,
    provider: TokenProvider,
}

/// Who shows some credentials.
pub enum Identified {
    /// This is known at once.
    Caller(Caller),
    /// It may be when more of the log is applied here: another member gave the token a moment ago.
    Later,
}

impl Auth {
    /// With the state of a start.
    pub fn new(state: Arc<AuthState>, provider: TokenProvider) -> Self {
        Self { now: ArcSwap::from_pointee(AuthNow { number: 0, state }), provider }
    }

    /// The newest state.
    pub fn now(&self) -> Guard<Arc<AuthNow>> {
        self.now.load()
    }

    /// Whether anybody asks who calls.
    pub fn is_enabled(&self) -> bool {
        self.now().state.is_enabled()
    }

    /// The kind of tokens.
    pub fn provider(&self) -> &TokenProvider {
        &self.provider
    }

    /// Shows a state that is applied, unless it is the one that is shown. Tokens that it ends are over before. Only one thread
    /// calls this.
    pub fn show(&self, state: &Arc<AuthState>) -> Option<Arc<AuthNow>> {
        let before = self.now.load();
        if Arc::ptr_eq(&before.state, state) {
            return None;
        }
        self.follow(state);
        let shown = Arc::new(AuthNow { number: before.number + 1, state: state.clone() });
        self.now.store(shown.clone());
        Some(shown)
    }

    /// Ends the tokens that a state ends; before it is shown, so that none outlives what comes and goes between two showings.
    pub fn follow(&self, state: &AuthState) {
        if let TokenProvider::Simple(tokens) = &self.provider {
            tokens.follow(state);
        }
    }

    /// Ends all tokens, before the state of another member is shown: which of them ended on the way to it, nobody here saw. Their
    /// clients log in again.
    pub fn replaced(&self) {
        if let TokenProvider::Simple(tokens) = &self.provider {
            tokens.end_all();
        }
    }

    /// A user showed its password to some member, so long ago.
    pub fn logged_in(&self, login: &Authentication, state: &AuthState, age: Duration, now: Duration) {
        if let TokenProvider::Simple(tokens) = &self.provider {
            tokens.assign(&login.secret_digest, &login.user, state, age, now);
        }
    }

    /// Who shows `credentials`, where `applied` is the last applied entry; nobody while nobody asks.
    pub fn identify(&self, credentials: &Credentials, applied: u64, now: Duration) -> Identified {
        let caller = match (&credentials.token, &credentials.common_name) {
            _ if !self.is_enabled() => Caller::Nobody,
            (Some(token), _) => match self.provider.look(token, applied, now) {
                Known::Caller(caller) => caller,
                Known::Later => return Identified::Later,
            },
            (None, Some(name)) => Caller::User { name: name.clone(), proof: Proof::Certificate },
            (None, None) => Caller::Nobody,
        };
        Identified::Caller(caller)
    }

    /// On whose behalf a caller's requests are ordered, by the newest users and roles; `None` for nobody's, and while nobody
    /// asks.
    ///
    /// # Errors
    /// [`AuthError::InvalidToken`].
    pub fn principal(&self, caller: &Caller) -> Result<Option<Principal>, AuthError> {
        let now = self.now();
        if now.state.is_enabled() { caller.principal(&now.state) } else { Ok(None) }
    }

    /// Puts a question to the newest users and roles on a caller's behalf: after a View was taken, for what is read.
    ///
    /// # Errors
    /// [`AuthError`]; none while nobody asks.
    pub fn ask(
        &self,
        caller: &Caller,
        asks: impl FnOnce(&Asking<'_>) -> Result<(), AuthError>,
    ) -> Result<(), AuthError> {
        let now = self.now();
        if !now.state.is_enabled() {
            return Ok(());
        }
        let principal = caller.principal(&now.state)?;
        asks(&now.state.asked_by(principal.as_ref()))
    }
}
