//! Keys of signed tokens that are read again when their files change, so that they can be replaced without a restart (etcd
//! reads its own once).
//!
//! Invariants:
//! * Tokens that former keys signed are good until they end: for the life of a token those keys are tried too, the last
//!   [`FORMERS_MAX`] of them.
//! * Files with the same content are no change, whatever became of the files.
//! * Files that cannot be read, or hold no keys, change nothing: the keys that are known stay, a line says so, and the files are
//!   tried again.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tracing::{info, warn};

use super::jwt::{JwtError, JwtKeyError, JwtKeys, JwtOptions, JwtUser};
use crate::read_again::{Look, ReadAgain};

/// Least time between two looks at the files: a member that replaces its keys waits no longer than this.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Former keys that are tried, which whoever comes with a forged token has this member do.
const FORMERS_MAX: usize = 4;

/// The keys of now, and those before while tokens of theirs may be about, the newest last.
#[derive(Debug)]
struct Known {
    keys: Arc<JwtKeys>,
    formers: Vec<Former>,
}

/// Keys that sign no more.
#[derive(Clone, Debug)]
struct Former {
    keys: Arc<JwtKeys>,
    until: Instant,
}

impl Known {
    /// What is known once `keys` were read at `now`, whose tokens live for `life`; `None` if nothing is new.
    fn after(&self, keys: JwtKeys, now: Instant, life: Duration) -> Option<Self> {
        if keys.is_same_as(&self.keys) {
            return None;
        }
        let mut formers = self.formers.clone();
        formers.push(Former { keys: self.keys.clone(), until: now + life });
        // Those of now are former ones no more.
        formers.retain(|former| now < former.until && !keys.is_same_as(&former.keys));
        formers.drain(..formers.len().saturating_sub(FORMERS_MAX));
        Some(Self { keys: Arc::new(keys), formers })
    }
}

/// Keys by their files.
#[derive(Debug)]
pub struct RotatingKeys {
    options: JwtOptions,
    known: ArcSwap<Known>,
    files: Mutex<ReadAgain>,
    /// Milliseconds after `started` at which the files were looked at last.
    looked_at: AtomicU64,
    started: Instant,
}

impl RotatingKeys {
    /// Reads the files.
    ///
    /// # Errors
    /// [`JwtKeyError`].
    pub fn read(options: JwtOptions) -> Result<Self, JwtKeyError> {
        let files = Mutex::new(ReadAgain::before_reading(paths(&options)));
        let keys = Arc::new(JwtKeys::read(&options)?);
        let known = ArcSwap::from_pointee(Known { keys, formers: Vec::new() });
        Ok(Self { options, known, files, looked_at: AtomicU64::new(0), started: Instant::now() })
    }

    /// A token of a user, by the newest keys.
    ///
    /// # Errors
    /// As [`JwtKeys::sign`].
    pub fn sign(&self, user: &str, revision: u64) -> Result<String, JwtError> {
        self.look_if_due();
        self.known.load().keys.sign(user, revision)
    }

    /// Whose token it is, by the newest keys or by those before.
    ///
    /// # Errors
    /// As [`JwtKeys::verify`] of the newest.
    pub fn verify(&self, token: &str) -> Result<JwtUser, JwtError> {
        self.look_if_due();
        let known = self.known.load();
        known.keys.verify(token).or_else(|error| {
            let now = Instant::now();
            let formers =
                known.formers.iter().rev().filter(|former| error == JwtError::Signature && now < former.until);
            // The first whose signature it is knows what else is wrong with it.
            let mut verified = formers.map(|former| former.keys.verify(token));
            verified.find(|verified| *verified != Err(JwtError::Signature)).unwrap_or(Err(error))
        })
    }

    /// One of those who ask looks, a few system calls a second.
    fn look_if_due(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.looked_at.load(Ordering::Relaxed);
        let is_due = now.saturating_sub(last) >= LOOK_INTERVAL.as_millis() as u64;
        if is_due && self.looked_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.look();
        }
    }

    fn look(&self) {
        let mut files = match self.files.try_lock() {
            Ok(files) => files,
            // Whole all the same.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Somebody else looks.
            Err(TryLockError::WouldBlock) => return,
        };
        match files.look(paths(&self.options), || JwtKeys::read(&self.options)) {
            Look::Read(keys) => {
                let known = self.known.load().after(keys, Instant::now(), self.options.life);
                if let Some(known) = known {
                    self.known.store(Arc::new(known));
                    info!("read the keys of signed tokens again: tokens of those before are good until they end");
                }
            }
            Look::Failed(error) => {
                warn!(%error, "the keys of signed tokens changed and cannot be used: those before stay until they can");
            }
            Look::Same | Look::FailedStill => {}
        }
    }
}

fn paths(options: &JwtOptions) -> impl Iterator<Item = &Path> {
    options.private_key.iter().chain(&options.public_key).map(|path| &**path)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::jwt::Method;
    use super::*;

    struct Rig {
        directory: TempDir,
        options: JwtOptions,
    }

    impl Rig {
        fn new(secret: &str, life: Duration) -> Self {
            let directory = TempDir::new().expect("a directory");
            let private_key = Some(directory.path().join("key"));
            let rig =
                Self { options: JwtOptions { method: Method::HS256, private_key, public_key: None, life }, directory };
            rig.write(secret);
            rig
        }

        /// By a name of its own, as whoever replaces keys safely does.
        fn write(&self, secret: &str) {
            let new = self.directory.path().join("new");
            std::fs::write(&new, secret).expect("writes");
            std::fs::rename(new, self.directory.path().join("key")).expect("renames");
        }

        fn keys(&self) -> RotatingKeys {
            RotatingKeys::read(self.options.clone()).expect("a key")
        }
    }

    #[test]
    fn both_keys_are_good_after_a_change_and_the_new_one_signs() {
        let rig = Rig::new("the first secret", Duration::from_secs(3600));
        let keys = rig.keys();
        let old = keys.sign("ann", 7).expect("signs");
        rig.write("the second secret");
        keys.look();
        let new = keys.sign("ann", 7).expect("signs");
        assert!(rig.keys().verify(&new).is_ok(), "another member has the second alone");
        assert_eq!(rig.keys().verify(&old), Err(JwtError::Signature));
        assert!(keys.verify(&new).is_ok() && keys.verify(&old).is_ok());
        // Another change: those of the first are good still.
        rig.write("the third secret");
        keys.look();
        assert!(keys.verify(&new).is_ok() && keys.verify(&old).is_ok());
        assert_eq!(keys.verify("e30.e30.AA"), Err(JwtError::Malformed));
    }

    #[test]
    fn the_same_keys_written_again_end_no_token() {
        let rig = Rig::new("the first secret", Duration::from_secs(3600));
        let keys = rig.keys();
        let first = keys.sign("ann", 7).expect("signs");
        rig.write("the second secret");
        keys.look();
        for _ in 0..2 * FORMERS_MAX {
            rig.write("the second secret");
            keys.look();
        }
        assert!(keys.verify(&first).is_ok());
        assert_eq!(keys.known.load().formers.len(), 1);
    }

    #[test]
    fn former_keys_are_no_more_than_their_number_and_may_come_back() {
        let rig = Rig::new("secret 0", Duration::from_secs(3600));
        let keys = rig.keys();
        let mut tokens = vec![keys.sign("ann", 0).expect("signs")];
        for n in 1..=FORMERS_MAX + 1 {
            rig.write(&format!("secret {n}"));
            keys.look();
            tokens.push(keys.sign("ann", n as u64).expect("signs"));
        }
        let good = |from: usize| tokens.iter().skip(from).all(|token| keys.verify(token).is_ok());
        assert_eq!(keys.verify(&tokens[0]), Err(JwtError::Signature));
        assert!(good(1));
        rig.write("secret 1");
        keys.look();
        assert_eq!(keys.known.load().formers.len(), FORMERS_MAX);
        assert!(good(1) && rig.keys().verify(&keys.sign("ann", 8).expect("signs")).is_ok());
        let others = former_over(&keys);
        assert_eq!(others.formers.len(), 1, "those whose tokens have ended are forgotten");
    }

    fn former_over(keys: &RotatingKeys) -> Known {
        let (later, life) = (Instant::now() + Duration::from_secs(3601), keys.options.life);
        let rig = Rig::new("one more secret", life);
        let new = JwtKeys::read(&rig.options).expect("a key");
        keys.known.load().after(new, later, life).expect("they are new")
    }

    #[test]
    fn former_keys_are_good_no_longer_than_their_tokens() {
        let rig = Rig::new("the first secret", Duration::ZERO);
        let longer = JwtOptions { life: Duration::from_secs(3600), ..rig.options.clone() };
        let old = JwtKeys::read(&longer).expect("a key").sign("ann", 7).expect("signs");
        let keys = rig.keys();
        assert!(keys.verify(&old).is_ok());
        rig.write("the second secret");
        keys.look();
        assert_eq!(keys.verify(&old), Err(JwtError::Signature));
    }

    #[test]
    fn a_read_that_failed_for_a_while_is_tried_again() {
        let rig = Rig::new("the first secret", Duration::from_secs(3600));
        let keys = rig.keys();
        let old = keys.sign("ann", 7).expect("signs");
        rig.write("the second secret");
        // As if there had been no descriptor for it at the first look.
        let failed =
            keys.files.lock().expect("whole").look(paths(&keys.options), || Err::<(), _>("too many open files"));
        assert_eq!(failed, Look::Failed("too many open files"));
        keys.look();
        let new = keys.sign("ann", 7).expect("signs");
        assert!(rig.keys().verify(&new).is_ok(), "it signs by the second");
        assert!(keys.verify(&old).is_ok());
    }

    #[test]
    fn files_that_hold_no_key_change_nothing() {
        let rig = Rig::new("the first secret", Duration::from_secs(3600));
        let keys = rig.keys();
        let token = keys.sign("ann", 7).expect("signs");
        std::fs::remove_file(rig.directory.path().join("key")).expect("removes");
        keys.look();
        assert!(keys.verify(&token).is_ok() && keys.sign("ann", 8).is_ok());
        rig.write("the second secret");
        keys.look();
        let new = keys.sign("ann", 7).expect("signs");
        assert!(rig.keys().verify(&new).is_ok() && keys.verify(&token).is_ok());
    }
}
