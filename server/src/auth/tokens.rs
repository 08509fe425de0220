//! Tokens of the simple kind: 16 letters, a point, and an index of the log (etcd-contract 49).

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use basalt_proto::authpb::User;
use basalt_storage::planted::{Bug, is_planted};
use bytes::Bytes;
use rand::Rng;
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};

use crate::apply::auth::state::AuthState;

/// Letters of a token's secret part, and what they are drawn from (etcd `server/auth/simple_token.go`).
const SECRET_LETTERS: usize = 16;
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

type SecretDigest = [u8; 32];

/// The secret part of a new token. It leaves the process in the answer to its client and nowhere else.
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

impl Secret {
    /// A new one, from the operating system's randomness: 91 bits.
    pub fn draw() -> Self {
        let mut random = OsRng.unwrap_err();
        let letter = |_| char::from(LETTERS[random.random_range(0..LETTERS.len())]);
        Self((0..SECRET_LETTERS).map(letter).collect())
    }

    /// What the log says of it.
    pub fn digest(&self) -> Bytes {
        Bytes::copy_from_slice(&digest_of(&self.0))
    }

    /// The token: who knows it needs to wait for no more than this index of the log.
    pub fn token(&self, index: u64) -> String {
        format!("{}.{index}", self.0)
    }
}

fn digest_of(secret: &str) -> SecretDigest {
    Sha256::digest(secret.as_bytes()).into()
}

/// What a token says, if it has the form of one: its secret part, and the index behind which all members know it.
pub fn parts(token: &str) -> Option<(&str, u64)> {
    let (secret, index) = token.split_once('.')?;
    Some((secret, index.parse().ok()?))
}

/// One that was given out.
#[derive(Debug)]
pub struct Token {
    user: Arc<str>,
    /// The hash of the password that it was given for.
    password: Bytes,
    /// On the node's clock, ns.
    ends: AtomicU64,
    /// Whether its user left or has another password: calls that it began, and that wait, are to know.
    over: AtomicBool,
}

impl Token {
    /// Whose it is.
    pub fn user(&self) -> &Arc<str> {
        &self.user
    }

    /// Whether it was ended before its time.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// The tokens that this member knows.
pub struct Tokens {
    tokens: RwLock<HashMap<SecretDigest, Arc<Token>>>,
    life: Duration,
}

impl Tokens {
    /// None yet; each lives so long after it was used last (`--auth-token-ttl`).
    pub fn new(life: Duration) -> Self {
        Self { tokens: RwLock::default(), life }
    }

    /// A user showed its password, so long ago.
    pub fn assign(&self, digest: &[u8], user: &str, state: &AuthState, age: Duration, now: Duration) {
        let Ok(digest) = SecretDigest::try_from(digest) else { return };
        let Some(password) = state.user(user).map(|user| user.password.clone()) else { return };
        let Some(left) = self.life.checked_sub(age).filter(|left| !left.is_zero()) else { return };
        let mut tokens = self.write();
        // Those that ended go when new ones come: there are never many more than were given out in one life.
        if tokens.len() == tokens.capacity() {
            let now = nanoseconds(now);
            tokens.retain(|_, token| token.ends.load(Ordering::Relaxed) > now);
        }
        let ends = AtomicU64::new(nanoseconds(now + left));
        tokens.insert(digest, Arc::new(Token { user: user.into(), password, ends, over: AtomicBool::new(false) }));
    }

    /// The token of a secret part. Using it prolongs it.
    pub fn find(&self, secret: &str, now: Duration) -> Option<Arc<Token>> {
        let tokens = self.tokens.read().expect("no one panics while holding the tokens");
        let token = tokens.get(&digest_of(secret))?;
        if token.ends.load(Ordering::Relaxed) <= nanoseconds(now) {
            return None;
        }
        token.ends.fetch_max(nanoseconds(now + self.life), Ordering::Relaxed);
        Some(token.clone())
    }

    /// Users changed: tokens of those who left, or have another password, end; all of them when nobody is asked any more.
    pub fn follow(&self, state: &AuthState) {
        let stays = |token: &Token| {
            let user = state.user(&token.user);
            let has_it = |user: &User| user.password == token.password || is_planted(Bug::TokenOutlivesPassword);
            state.is_enabled() && user.is_some_and(has_it)
        };
        self.write().retain(|_, token| {
            let stays = stays(token);
            token.over.fetch_or(!stays, Ordering::Release);
            stays
        });
    }

    /// Users were replaced by later ones: what ended in between, nobody here saw.
    pub fn end_all(&self) {
        self.write().drain().for_each(|(_, token)| token.over.store(true, Ordering::Release));
    }

    /// How many there are, also those that ended and were not swept.
    pub fn len(&self) -> usize {
        self.tokens.read().expect("no one panics while holding the tokens").len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<SecretDigest, Arc<Token>>> {
        self.tokens.write().expect("no one panics while holding the tokens")
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::auth::state::AuthRecord;
    use basalt_storage::mvcc::system::Table;
    use prost::Message;

    const LIFE: Duration = Duration::from_secs(300);
    const SECOND: Duration = Duration::from_secs(1);

    fn set(state: &mut AuthState, table: Table, key: &str, value: Option<Vec<u8>>) {
        state.install(&AuthRecord {
            table,
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: value.map(Bytes::from),
        });
    }

    fn set_user(state: &mut AuthState, name: &str, password: &'static [u8]) {
        let user = User { name: Bytes::copy_from_slice(name.as_bytes()), password: password.into(), ..User::default() };
        set(state, Table::AuthUser, name, Some(user.encode_to_vec()));
    }

    fn state() -> AuthState {
        let mut state = AuthState::default();
        set(&mut state, Table::Auth, "authEnabled", Some(vec![1]));
        set_user(&mut state, "ann", b"1");
        set_user(&mut state, "bob", b"2");
        state
    }

    fn assign(tokens: &Tokens, user: &str, age: Duration, now: Duration) -> String {
        let secret = Secret::draw();
        tokens.assign(&secret.digest(), user, &state(), age, now);
        secret.0
    }

    #[test]
    fn a_token_has_etcds_form() {
        let secret = Secret::draw();
        let token = secret.token(68);
        assert_eq!(token.len(), 19, "{token}");
        assert!(token[..16].bytes().all(|byte| byte.is_ascii_alphabetic()), "{token}");
        assert_eq!(parts(&token), Some((&secret.0[..], 68)));
        assert_ne!(Secret::draw().0, secret.0);
        assert_eq!(format!("{secret:?}"), "Secret");
        for bad in ["", "abc", "abc.", "abc.x", "abc.1.2", "abc.-1", "abc.99999999999999999999"] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_token_lives_as_long_as_it_is_used() {
        let tokens = Tokens::new(LIFE);
        let secret = assign(&tokens, "ann", Duration::ZERO, SECOND);
        let user_of = |secret: &str, now| tokens.find(secret, now).map(|token| token.user().to_string());
        assert_eq!(user_of(&secret, LIFE).as_deref(), Some("ann"));
        assert_eq!(user_of(&secret, LIFE * 2 - SECOND).as_deref(), Some("ann"));
        assert_eq!(user_of(&secret, LIFE * 3 - SECOND), None);
        assert_eq!(user_of("nope", SECOND), None);
        // One of a former life of the process is as old as its entry, and none at all when that is too old.
        let secret = assign(&tokens, "ann", LIFE - SECOND, SECOND);
        assert_eq!(user_of(&secret, SECOND * 2), None);
        let secret = assign(&tokens, "ann", LIFE, SECOND);
        assert_eq!(user_of(&secret, SECOND), None);
    }

    #[test]
    fn a_token_ends_with_its_user_its_password_or_all_asking() {
        let tokens = Tokens::new(LIFE);
        let [ann, bob] = ["ann", "bob"].map(|user| assign(&tokens, user, Duration::ZERO, SECOND));
        let known = |secret: &str| tokens.find(secret, SECOND).is_some();
        tokens.follow(&state());
        assert!(known(&ann) && known(&bob));
        // Of a call that waits.
        let shown = tokens.find(&ann, SECOND).expect("hers");
        assert!(!shown.is_over());
        let mut changed = state();
        set_user(&mut changed, "ann", b"3");
        tokens.follow(&changed);
        assert!(!known(&ann) && known(&bob) && shown.is_over());
        let mut left = state();
        set(&mut left, Table::AuthUser, "bob", None);
        tokens.follow(&left);
        assert!(!known(&bob));
        let ann = assign(&tokens, "ann", Duration::ZERO, SECOND);
        let mut off = state();
        set(&mut off, Table::Auth, "authEnabled", Some(vec![0]));
        tokens.follow(&off);
        assert!(!known(&ann));
        assert!(tokens.is_empty());
    }

    /// Authentication may have been off between the two states (seed 22 of the simulator).
    #[test]
    fn no_token_outlives_a_state_that_is_replaced() {
        let tokens = Tokens::new(LIFE);
        let ann = assign(&tokens, "ann", Duration::ZERO, SECOND);
        let shown = tokens.find(&ann, SECOND).expect("hers");
        tokens.end_all();
        assert!(tokens.find(&ann, SECOND).is_none() && shown.is_over() && tokens.is_empty());
    }

    #[test]
    fn tokens_that_ended_take_no_room_for_ever() {
        let tokens = Tokens::new(SECOND);
        for round in 0..10_000u32 {
            assign(&tokens, "ann", Duration::ZERO, SECOND * round);
        }
        assert!(tokens.len() < 100, "{}", tokens.len());
    }
}
