//! Clients that hold leases: they renew them through any member for a while, then let them go, or give them back.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Ids of their leases begin here; what others do with leases stays below.
pub const FIRST_LEASE: i64 = 1000;

/// Leases that are held at a time.
const KEEPERS: usize = 5;
const TTL_SECONDS: std::ops::RangeInclusive<i64> = 2..=12;

/// Renewals on their way are forgotten after so long.
const GIVES_UP: Duration = Duration::from_secs(8);

/// One lease and its holder.
#[derive(Clone, Copy, Debug)]
pub struct Keeper {
    /// The lease.
    pub lease: i64,
    /// Its seconds.
    pub ttl: i64,
    /// How often it is still renewed.
    renewals: u32,
    /// Whether it is given back then.
    gives_back: bool,
}

/// What a keeper does next.
#[derive(Clone, Copy, Debug)]
pub enum Wish {
    /// It asks for its lease.
    Grant(Keeper),
    /// It renews it.
    Renew(Keeper),
    /// It gives it back.
    Revoke(Keeper),
    /// It waits.
    Nothing,
}

/// A renewal on its way.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Which lease.
    pub lease: i64,
    /// When the client asked.
    pub asked: Duration,
    /// The member that answers, and its life.
    pub leader: (u64, u64),
}

/// All of them.
pub struct Keepers {
    random: StdRng,
    keepers: Vec<Option<Keeper>>,
    next_lease: i64,
    calls: BTreeMap<u64, Call>,
    next_call: u64,
    /// Renewals that were answered.
    pub renewed: u64,
}

impl Keepers {
    /// Clients of a seed.
    pub fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed ^ 0x1ea5e);
        let (keepers, calls) = (vec![None; KEEPERS], BTreeMap::new());
        Self { random, keepers, next_lease: FIRST_LEASE, calls, next_call: 0, renewed: 0 }
    }

    /// How many clients there are.
    pub fn len(&self) -> usize {
        self.keepers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keepers.is_empty()
    }

    /// What one does, and how long it waits then. `lives` says whether a lease is there.
    pub fn next(&mut self, keeper: usize, lives: impl Fn(i64) -> bool) -> (Wish, Duration) {
        let random = &mut self.random;
        let Some(one) = &mut self.keepers[keeper] else {
            self.next_lease += 1;
            let ttl = random.random_range(TTL_SECONDS);
            let (renewals, gives_back) = (random.random_range(0..8), random.random_ratio(1, 4));
            let one = Keeper { lease: self.next_lease, ttl, renewals, gives_back };
            self.keepers[keeper] = Some(one);
            return (Wish::Grant(one), thirds(one.ttl, random));
        };
        let (keeper_now, pause) = (*one, thirds(one.ttl, random));
        if one.renewals > 0 {
            one.renewals -= 1;
            return (Wish::Renew(keeper_now), pause);
        }
        if one.gives_back && lives(one.lease) {
            self.keepers[keeper] = None;
            return (Wish::Revoke(keeper_now), pause);
        }
        // The next one begins when this one is gone, or never came.
        if !lives(one.lease) {
            self.keepers[keeper] = None;
        }
        (Wish::Nothing, pause)
    }

    /// A lease that somebody holds, to attach keys to.
    pub fn some_lease(&mut self) -> Option<i64> {
        let held = self.keepers[self.random.random_range(0..self.keepers.len())];
        held.map(|keeper| keeper.lease)
    }

    /// A renewal goes to a leader; gives its number.
    pub fn call(&mut self, call: Call) -> u64 {
        self.calls.retain(|_, other| call.asked < other.asked + GIVES_UP);
        self.next_call += 1;
        self.calls.insert(self.next_call, call);
        self.next_call
    }

    /// The renewal of this number, while somebody waits for it.
    pub fn calling(&self, number: u64) -> Option<Call> {
        self.calls.get(&number).copied()
    }

    /// A renewal was answered.
    pub fn answered(&mut self, number: u64) -> Option<Call> {
        self.calls.remove(&number)
    }
}

/// About a third of a life.
fn thirds(ttl: i64, random: &mut StdRng) -> Duration {
    let third = Duration::from_secs(ttl.unsigned_abs()) / 3;
    third.mul_f64(random.random_range(0.5..1.3))
}
