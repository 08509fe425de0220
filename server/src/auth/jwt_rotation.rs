//! Keys of signed tokens that are read again when their files change, so that they can be replaced without a restart (etcd
//! reads its own once).
//!
//! Invariants:
//! * Tokens that the former keys signed are good until they end: for the life of a token both are tried.
//! * Files that cannot be read, or hold no keys, change nothing: the keys that are known stay, and a line says so.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tracing::{info, warn};

use super::jwt::{JwtError, JwtKeyError, JwtKeys, JwtOptions, JwtUser};

/// Least time between two looks at the files: a member that replaces its keys waits no longer than this.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What tells one content of a file from another without reading it: time of change, bytes, number on its disk.
type Mark = Vec<Option<(SystemTime, u64, u64)>>;

/// The keys of now, and those before while tokens of theirs may be about.
#[derive(Debug)]
struct Known {
    mark: Mark,
    keys: Arc<JwtKeys>,
    former: Option<(Arc<JwtKeys>, Instant)>,
}

/// Keys by their files.
#[derive(Debug)]
pub struct RotatingKeys {
    options: JwtOptions,
    known: ArcSwap<Known>,
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
        // Before they are read: what is written amid that is seen as a change.
        let mark = mark(&options);
        let keys = Arc::new(JwtKeys::read(&options)?);
        let known = ArcSwap::from_pointee(Known { mark, keys, former: None });
        Ok(Self { options, known, looked_at: AtomicU64::new(0), started: Instant::now() })
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
        known.keys.verify(token).or_else(|error| match &known.former {
            Some((keys, until)) if error == JwtError::Signature && Instant::now() < *until => keys.verify(token),
            _ => Err(error),
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
        let (known, mark) = (self.known.load_full(), mark(&self.options));
        if mark == known.mark {
            return;
        }
        match JwtKeys::read(&self.options) {
            Ok(keys) => {
                let former = Some((known.keys.clone(), Instant::now() + self.options.life));
                self.known.store(Arc::new(Known { mark, keys: Arc::new(keys), former }));
                info!("read the keys of signed tokens again: tokens of those before are good until they end");
            }
            Err(error) => {
                warn!(%error, "the keys of signed tokens changed and cannot be used: those before stay");
                // Once for each change.
                let Known { keys, former, .. } = &*known;
                self.known.store(Arc::new(Known { mark, keys: keys.clone(), former: former.clone() }));
            }
        }
    }
}

fn mark(options: &JwtOptions) -> Mark {
    use std::os::unix::fs::MetadataExt;
    let of = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.modified().ok()?, found.len(), found.ino()))
    };
    options.private_key.iter().chain(&options.public_key).map(of).collect()
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
        // Two changes: the first key is over.
        rig.write("the third secret");
        keys.look();
        assert_eq!(keys.verify(&old), Err(JwtError::Signature));
        assert!(keys.verify(&new).is_ok());
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
