//! The leader's clock of all leases.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use basalt_storage::planted::{Bug, is_planted};

/// Revokes that may be under way at a time: a small part of what a node orders in a tenth of a second, so that others'
/// writes go on beside them.
pub const REVOKES_IN_FLIGHT_MAX: usize = 768;

/// Figures of a [`LeaseClock`].
#[derive(Clone, Copy, Debug)]
pub struct LeaseClockConfig {
    /// A lease that nobody renewed for so long has its remainder recorded in the log (etcd: 5 minutes).
    pub checkpoint_interval: Duration,
    /// A revoke that did not end its lease after so long is handed out again (etcd-contract 37).
    pub revoke_retry: Duration,
    /// Revokes that may be under way at a time, so that a mass expiry does not crowd out other proposals. At least 1.
    pub revokes_in_flight_max: usize,
}

impl Default for LeaseClockConfig {
    fn default() -> Self {
        Self {
            checkpoint_interval: Duration::from_secs(300),
            revoke_retry: Duration::from_secs(3),
            revokes_in_flight_max: REVOKES_IN_FLIGHT_MAX,
        }
    }
}

/// What a keepalive is to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// There is no such lease: answer with TTL 0 (etcd-contract 35).
    Unknown,
    /// Renewed: answer at once.
    Renewed {
        /// Full time to live, seconds.
        ttl: i64,
    },
    /// Renewed here, but the log holds a remainder by which the next leader would expire the lease too early. Commit
    /// a checkpoint with remainder 0 first, then answer.
    CommitFirst {
        /// Full time to live, seconds.
        ttl: i64,
    },
    /// Expired, and its revoke is not applied yet. Wait for it, then answer with TTL 0 (etcd-contract 35).
    Expiring,
}

struct Lease {
    /// Granted time to live, seconds.
    ttl: i64,
    expiry: Duration,
    /// When the remainder is to be recorded; `None` when the lease ends before a checkpoint would tell anything.
    checkpoint_due: Option<Duration>,
    /// Whether the log holds a remainder, or may soon: a checkpoint was handed out or applied since the last clearing.
    checkpointed: bool,
    /// When the revoke is to be handed out again, if it was handed out.
    revoke_retry_at: Option<Duration>,
}

/// Which leases end when, on a monotonic clock that the caller reads.
///
/// O(log leases) per call and result. Starts without leases and not leading: until [`Self::promote`] it ignores grants
/// and knows no lease.
///
/// * `by_expiry` holds exactly one entry per lease, `by_checkpoint` one per lease with `checkpoint_due`.
/// * `revokes_in_flight` counts the leases with `revoke_retry_at`.
pub struct LeaseClock {
    config: LeaseClockConfig,
    leading: bool,
    leases: HashMap<i64, Lease>,
    by_expiry: BTreeSet<(Duration, i64)>,
    by_checkpoint: BTreeSet<(Duration, i64)>,
    revokes_in_flight: usize,
}

impl LeaseClock {
    /// A clock of a member that does not lead.
    ///
    /// # Panics
    /// When no revoke may be in flight.
    pub fn new(config: LeaseClockConfig) -> Self {
        assert!(config.revokes_in_flight_max > 0, "a clock that may not revoke keeps expired leases for ever");
        Self {
            config,
            leading: false,
            leases: HashMap::new(),
            by_expiry: BTreeSet::new(),
            by_checkpoint: BTreeSet::new(),
            revokes_in_flight: 0,
        }
    }

    /// Starts the clock of a new leader with the replicated table: per lease its id, its time to live and its
    /// checkpointed remainder (0 for none), in seconds. Each lease gets its remainder, else its full time, and `extend`
    /// on top, in which its holder finds the new leader (etcd-contract 37).
    pub fn promote(&mut self, table: impl IntoIterator<Item = (i64, i64, i64)>, now: Duration, extend: Duration) {
        self.demote();
        self.leading = true;
        for (id, ttl, remaining) in table {
            let left = if remaining > 0 { remaining } else { ttl };
            self.insert(id, ttl, now + seconds(left) + extend, remaining > 0, now);
        }
    }

    /// Drops everything: this member does not lead any more. Callers that wait on [`Renewal::Expiring`] are told so by
    /// the node.
    pub fn demote(&mut self) {
        *self = Self::new(self.config);
    }

    /// A lease was granted. Without effect unless leading.
    pub fn grant(&mut self, id: i64, ttl_seconds: i64, now: Duration) {
        if self.leading {
            self.insert(id, ttl_seconds, now + seconds(ttl_seconds), false, now);
        }
    }

    /// A lease was revoked. Without effect if it is unknown.
    pub fn forget(&mut self, id: i64) {
        let Some(lease) = self.leases.remove(&id) else { return };
        self.by_expiry.remove(&(lease.expiry, id));
        if let Some(due) = lease.checkpoint_due {
            self.by_checkpoint.remove(&(due, id));
        }
        if lease.revoke_retry_at.is_some() {
            self.revokes_in_flight -= 1;
        }
    }

    /// Gives a lease its full time again, unless it has expired.
    ///
    /// [`Renewal::CommitFirst`] has renewed the lease as well: if the commit fails it lives longer than its holder
    /// knows, which breaks no promise.
    pub fn renew(&mut self, id: i64, now: Duration) -> Renewal {
        let Some(lease) = self.leases.get_mut(&id) else { return Renewal::Unknown };
        if now >= lease.expiry {
            return Renewal::Expiring;
        }
        self.by_expiry.remove(&(lease.expiry, id));
        lease.expiry = now + seconds(lease.ttl);
        self.by_expiry.insert((lease.expiry, id));
        let (ttl, checkpointed) = (lease.ttl, lease.checkpointed);
        self.schedule_checkpoint(id, now);
        if checkpointed && !is_planted(Bug::RenewalKeepsRemainder) {
            Renewal::CommitFirst { ttl }
        } else {
            Renewal::Renewed { ttl }
        }
    }

    /// Granted and remaining time of a lease in whole seconds, the latter rounded down as etcd does and 0 when expired.
    /// `None` if unknown.
    pub fn remaining(&self, id: i64, now: Duration) -> Option<(i64, i64)> {
        let lease = self.leases.get(&id)?;
        Some((lease.ttl, whole_seconds(lease.expiry.saturating_sub(now))))
    }

    /// All ids, the first to expire first (etcd-contract 37).
    pub fn list(&self) -> Vec<i64> {
        self.by_expiry.iter().map(|(_, id)| *id).collect()
    }

    /// Whether the clock runs. While it does not, [`Renewal::Unknown`] says nothing about the lease: the leader must be
    /// asked, which may be this member a moment later.
    pub fn is_running(&self) -> bool {
        self.leading
    }

    /// How many leases there are, expired and not yet revoked ones included.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there is no lease.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// Up to `limit` leases to revoke now, the longest expired first.
    ///
    /// A lease stays in flight from here until [`Self::forget`], is handed out again after `revoke_retry`, and no new
    /// one is handed out while `revokes_in_flight_max` are under way. O(revokes in flight + limit).
    pub fn expired(&mut self, now: Duration, limit: usize) -> Vec<i64> {
        let mut ids = Vec::new();
        for (_, id) in self.by_expiry.range(..=(now, i64::MAX)) {
            if ids.len() == limit {
                break;
            }
            let lease = self.leases.get_mut(id).expect("by_expiry holds leases only");
            match lease.revoke_retry_at {
                Some(retry_at) if now < retry_at => continue,
                Some(_) => {}
                // Whatever is in flight expired before this one, so nothing behind it is to be retried.
                None if self.revokes_in_flight == self.config.revokes_in_flight_max => break,
                None => self.revokes_in_flight += 1,
            }
            lease.revoke_retry_at = Some(now + self.config.revoke_retry);
            ids.push(*id);
        }
        ids
    }

    /// Up to `limit` leases that nobody renewed for a checkpoint interval, with the seconds that remain, rounded up.
    ///
    /// The caller commits them; a lease comes again after another interval. Leases with less than an interval to live
    /// are never handed out: a new leader may give them their full time again.
    pub fn checkpoints(&mut self, now: Duration, limit: usize) -> Vec<(i64, i64)> {
        let mut remainders = Vec::new();
        while remainders.len() < limit {
            let Some(&(due, id)) = self.by_checkpoint.first() else { break };
            if due > now {
                break;
            }
            self.schedule_checkpoint(id, now);
            let lease = self.leases.get_mut(&id).expect("by_checkpoint holds leases only");
            let remaining = lease.expiry.saturating_sub(now);
            let remaining_seconds = whole_seconds(remaining) + i64::from(remaining.subsec_nanos() > 0);
            // After an election the extension may exceed what has passed: nothing to record then.
            if remaining_seconds > 0 && remaining_seconds < lease.ttl {
                lease.checkpointed = true;
                remainders.push((id, remaining_seconds));
            }
        }
        remainders
    }

    /// A remainder of a lease was committed; 0 clears it.
    pub fn checkpointed(&mut self, id: i64, remaining_seconds: i64) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.checkpointed = remaining_seconds > 0;
        }
    }

    fn insert(&mut self, id: i64, ttl: i64, expiry: Duration, checkpointed: bool, now: Duration) {
        self.forget(id);
        self.leases.insert(id, Lease { ttl, expiry, checkpoint_due: None, checkpointed, revoke_retry_at: None });
        self.by_expiry.insert((expiry, id));
        self.schedule_checkpoint(id, now);
    }

    /// Files the lease for a checkpoint one interval after `now`, if it lives that long.
    fn schedule_checkpoint(&mut self, id: i64, now: Duration) {
        let lease = self.leases.get_mut(&id).expect("the caller holds the lease");
        if let Some(due) = lease.checkpoint_due.take() {
            self.by_checkpoint.remove(&(due, id));
        }
        let due = now + self.config.checkpoint_interval;
        if due < lease.expiry {
            lease.checkpoint_due = Some(due);
            self.by_checkpoint.insert((due, id));
        }
    }
}

/// A time to live as a span; the table refuses what etcd refuses, so nothing here is negative.
fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

fn whole_seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}
