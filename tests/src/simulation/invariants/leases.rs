//! I15: a lease never ends before the time that its holder was promised, by the clock of whichever leader; and where a
//! majority is healthy it ends soon after.

use std::collections::BTreeMap;
use std::time::Duration;

/// How much later than its time a lease may end: an election, what a new leader adds, and two seconds.
const LATE: Duration = Duration::from_secs(4);

struct Lease {
    /// The request that made it.
    grant: u64,
    ttl: Duration,
    /// Its holder was told that it lives until then.
    promised: Duration,
    /// When it was made.
    made: Duration,
    /// When somebody last gave it its full time, at the latest.
    renewed: Duration,
}

/// All leases that there are.
pub struct Leases {
    by_id: BTreeMap<i64, Lease>,
    /// The most by which a clock of a member is too fast or too slow, in parts of a million.
    drift_ppm: u32,
    /// Leases that ended by themselves.
    pub expired: u64,
}

impl Leases {
    /// None yet, where no clock is further from the world's than this.
    pub fn new(drift_ppm: u32) -> Self {
        Self { by_id: BTreeMap::new(), drift_ppm, expired: 0 }
    }

    /// A lease was granted: the first member applied the request.
    pub fn granted(&mut self, id: i64, grant: u64, ttl_seconds: i64, now: Duration) {
        let ttl = Duration::from_secs(ttl_seconds.try_into().expect("no lease is shorter than nothing"));
        self.by_id.insert(id, Lease { grant, ttl, promised: Duration::ZERO, made: now, renewed: now });
    }

    /// Whoever asked for a lease at `asked` was told that it has it.
    pub fn acknowledged(&mut self, id: i64, grant: u64, asked: Duration) {
        if let Some(lease) = self.by_id.get_mut(&id).filter(|lease| lease.grant == grant) {
            lease.promised = lease.promised.max(asked + lease.ttl);
        }
    }

    /// Whoever asked at `asked` to renew a lease was told at `now` that it is.
    pub fn renewed(&mut self, id: i64, asked: Duration, now: Duration) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.promised = lease.promised.max(asked + lease.ttl);
            lease.renewed = lease.renewed.max(now);
        }
    }

    /// A member gave a lease its full time, whether or not anybody hears of it.
    pub fn touched(&mut self, id: i64, now: Duration) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.renewed = lease.renewed.max(now);
        }
    }

    /// Whoever asked at `asked` to renew a lease was told that there is none.
    ///
    /// # Panics
    /// When there was all the time.
    pub fn denied(&self, id: i64, asked: Duration) {
        let lives = self.by_id.get(&id).is_some_and(|lease| lease.made < asked);
        assert!(!lives, "I15: a holder was told that lease {id} is gone, which it is not");
    }

    /// A lease ended: the first member applied the request, which a leader made by itself or a client did.
    ///
    /// # Panics
    /// When a leader ended it too early.
    pub fn ended(&mut self, id: i64, by_leader: bool, now: Duration) {
        let Some(lease) = self.by_id.remove(&id).filter(|_| by_leader) else { return };
        self.expired += 1;
        // The leader's clock may be fast.
        let early = lease.ttl * self.drift_ppm / 1_000_000;
        let least = lease.promised.saturating_sub(early);
        assert!(
            now >= least,
            "I15: lease {id} of {:?} ended at {now:?}, promised until {:?}",
            lease.ttl,
            lease.promised
        );
    }

    /// Whether the lease is there.
    pub fn exists(&self, id: i64) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Everybody was healthy since then, under one leader.
    ///
    /// # Panics
    /// When a lease should have ended.
    pub fn check_late(&self, healthy_since: Duration, now: Duration) {
        for (id, lease) in &self.by_id {
            let late = lease.ttl + lease.ttl * self.drift_ppm / 1_000_000 + LATE;
            let least = lease.renewed.max(healthy_since) + late;
            assert!(
                now <= least,
                "I15: lease {id} of {:?}, renewed at {:?}, lives at {now:?}",
                lease.ttl,
                lease.renewed
            );
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn granted() -> Leases {
        let mut leases = Leases::new(50_000);
        leases.granted(7, 1, 10, 2 * S);
        leases.acknowledged(7, 1, S);
        leases
    }

    #[test]
    fn a_lease_ends_in_its_time() {
        granted().ended(7, true, 11 * S);
        granted().ended(7, true, 10 * S + S / 2);
        granted().ended(7, false, 3 * S);
        granted().check_late(S, 16 * S);
        let mut leases = granted();
        leases.renewed(7, 5 * S, 6 * S);
        leases.check_late(S, 20 * S);
    }

    #[test]
    #[should_panic(expected = "I15")]
    fn an_early_end_is_seen() {
        granted().ended(7, true, 10 * S);
    }

    #[test]
    #[should_panic(expected = "I15")]
    fn an_early_end_after_a_renewal_is_seen() {
        let mut leases = granted();
        leases.renewed(7, 5 * S, 6 * S);
        leases.ended(7, true, 14 * S);
    }

    #[test]
    #[should_panic(expected = "I15")]
    fn a_late_end_is_seen() {
        granted().check_late(S, 17 * S);
    }
}
