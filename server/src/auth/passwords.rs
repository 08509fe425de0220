//! Hashes of passwords: bcrypt, as etcd stores them. Each takes tens of milliseconds of a core on purpose.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::sync::Semaphore;

/// What etcd takes where `--bcrypt-cost` is none, and the bounds of it (Go's `bcrypt.MinCost`, `MaxCost`).
const COST_DEFAULT: u32 = 10;
const COSTS: std::ops::RangeInclusive<u32> = 4..=31;

/// Go's bcrypt takes no more.
const PASSWORD_BYTES_MAX: usize = 72;

/// Calls that may wait for a core to hash on.
const WAITING_MAX: usize = 256;

/// Why there is no hash.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum HashingError {
    /// As Go words it.
    #[error("bcrypt: password length exceeds 72 bytes")]
    TooLong,
    /// Too many wait already.
    #[error("too many passwords to be checked")]
    TooMany,
    /// The operating system gave no randomness.
    #[error("no randomness for a hash")]
    NoRandomness,
    /// The process goes down, or the library failed.
    #[error("not hashed")]
    GivenUp,
}

/// What somebody shows as his password: as much of it as is compared, however much he sent. Go's bcrypt compares no more bytes
/// than it hashes, and says nothing of the rest. Cheap to clone.
#[derive(Clone)]
pub struct ShownPassword(Bytes);

impl ShownPassword {
    /// Of what was sent.
    pub fn of(password: &str) -> Self {
        let bytes = password.as_bytes();
        Self(Bytes::copy_from_slice(&bytes[..bytes.len().min(PASSWORD_BYTES_MAX)]))
    }
}

/// Hashes and checks, not more at once than half of the cores.
pub struct Passwords {
    cost: u32,
    cores: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Of no password: checked in place of a user's who is not there, so that the time it takes tells nobody who is.
    decoy: Bytes,
}

impl Passwords {
    /// With `--bcrypt-cost`; another than from 4 to 31 is etcd's default.
    pub fn new(cost: u32) -> Self {
        let cost = if COSTS.contains(&cost) { cost } else { COST_DEFAULT };
        let cores = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1));
        let decoy = format!("$2a${cost:02}$abcdefghijklmnopqrstuuvGsTDGwFlBWQ8RzdTmFiyFAYcTNuhDa");
        Self {
            cost,
            cores: Arc::new(Semaphore::new(cores)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            decoy: decoy.into(),
        }
    }

    /// The hash of a password in base64, as requests carry it in the log.
    ///
    /// # Errors
    /// [`HashingError`].
    pub async fn hash(&self, password: String) -> Result<String, HashingError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(HashingError::TooLong);
        }
        let cost = self.cost;
        self.on_a_core(move || {
            let hash = bcrypt::hash_with_result(password, cost).map_err(|_| HashingError::NoRandomness)?;
            Ok(STANDARD.encode(hash.format_for_version(bcrypt::Version::TwoA)))
        })
        .await?
    }

    /// Whether a password is the one of a hash; `None` for a user who is not there or has none, of which the answer is no.
    ///
    /// # Errors
    /// [`HashingError`].
    pub async fn is_right(&self, password: ShownPassword, hash: Option<Bytes>) -> Result<bool, HashingError> {
        let may_be = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.decoy.clone());
        let verified = self.on_a_core(move || {
            let hash = std::str::from_utf8(&hash).ok()?;
            bcrypt::verify(&password.0, hash).ok()
        });
        Ok(verified.await?.unwrap_or(false) && may_be)
    }

    async fn on_a_core<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, HashingError> {
        let _waits = self.waiting.try_acquire().map_err(|_| HashingError::TooMany)?;
        // It goes with the work, also when the caller gives up: who goes away early makes no room for more.
        let core = self.cores.clone().acquire_owned().await.expect("it is never closed");
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(core);
            done
        });
        done.await.map_err(|_| HashingError::GivenUp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_right_by_its_hash_alone() {
        let passwords = Passwords::new(4);
        let hash = STANDARD.decode(passwords.hash("open sesame".to_owned()).await.expect("a hash")).expect("base64");
        assert!(hash.starts_with(b"$2a$04$"), "{hash:?}");
        let hash = Bytes::from(hash);
        let is_right = |password: &str, hash: Option<Bytes>| passwords.is_right(ShownPassword::of(password), hash);
        assert_eq!(is_right("open sesame", Some(hash.clone())).await, Ok(true));
        assert_eq!(is_right("open sesamE", Some(hash.clone())).await, Ok(false));
        assert_eq!(is_right("", Some(hash)).await, Ok(false));
        assert_eq!(is_right("open sesame", None).await, Ok(false));
        assert_eq!(is_right("x", Some(Bytes::from_static(b"no hash"))).await, Ok(false));
        assert_eq!(is_right("x", Some(Bytes::from_static(b"\xff"))).await, Ok(false));
        // A client may give a hash in place of a password (RUSTSEC-2026-0199).
        assert_eq!(is_right("x", Some(Bytes::from("é".repeat(30)))).await, Ok(false));
    }

    #[tokio::test]
    async fn a_password_beyond_what_bcrypt_takes_is_refused() {
        let passwords = Passwords::new(4);
        assert_eq!(passwords.hash("x".repeat(73)).await, Err(HashingError::TooLong));
        assert!(passwords.hash("x".repeat(72)).await.is_ok());
    }

    /// As Go's `CompareHashAndPassword` in etcd's `CheckPassword`.
    #[tokio::test]
    async fn of_a_long_password_nothing_is_kept_that_is_not_compared() {
        let passwords = Passwords::new(4);
        // Its 72nd byte stands amid a character.
        let password = format!("x{}", "é".repeat(1 << 20));
        let shown = ShownPassword::of(&password);
        assert_eq!(shown.0, password.as_bytes()[..PASSWORD_BYTES_MAX]);
        assert!(shown.0.is_unique(), "it is a slice of what was sent");
        let hash = STANDARD.decode(passwords.hash("y".repeat(PASSWORD_BYTES_MAX)).await.expect("a hash"));
        let hash = Some(Bytes::from(hash.expect("base64")));
        let longer = "y".repeat(PASSWORD_BYTES_MAX + 9);
        assert_eq!(passwords.is_right(ShownPassword::of(&longer), hash.clone()).await, Ok(true));
        assert_eq!(passwords.is_right(ShownPassword::of(&longer[..71]), hash.clone()).await, Ok(false));
        assert_eq!(passwords.is_right(shown, hash).await, Ok(false));
    }

    #[tokio::test]
    async fn who_is_not_there_costs_as_much_as_who_is() {
        // The decoy is a hash, so that it is computed like any other.
        for cost in [4, 10] {
            let passwords = Passwords::new(cost);
            let decoy = std::str::from_utf8(&passwords.decoy).expect("text");
            assert_eq!(bcrypt::verify("x", decoy).ok(), Some(false), "{decoy}");
        }
        assert_eq!(Passwords::new(3).cost, COST_DEFAULT);
        assert_eq!(Passwords::new(32).cost, COST_DEFAULT);
    }
}
