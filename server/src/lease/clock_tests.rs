//! The clock against a model that keeps a list and looks at all of it.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const S: Duration = Duration::from_secs(1);

fn config() -> LeaseClockConfig {
    LeaseClockConfig { checkpoint_interval: 10 * S, revoke_retry: 3 * S, revokes_in_flight_max: 2 }
}

fn leader() -> LeaseClock {
    let mut clock = LeaseClock::new(config());
    clock.promote([], Duration::ZERO, Duration::ZERO);
    clock
}

#[test]
fn a_renewed_lease_lives_its_full_time_again() {
    let mut clock = leader();
    clock.grant(7, 5, S);
    assert_eq!(clock.remaining(7, 2 * S), Some((5, 4)));
    assert_eq!(clock.renew(7, 5 * S), Renewal::Renewed { ttl: 5 });
    assert!(clock.expired(9 * S, 10).is_empty());
    assert_eq!(clock.expired(10 * S, 10), [7]);
}

#[test]
fn an_expired_lease_waits_for_its_revoke() {
    let mut clock = leader();
    clock.grant(7, 5, S);
    assert_eq!(clock.renew(7, 6 * S), Renewal::Expiring);
    assert_eq!(clock.remaining(7, 9 * S), Some((5, 0)));
    clock.forget(7);
    assert_eq!(clock.renew(7, 6 * S), Renewal::Unknown);
    assert_eq!(clock.remaining(7, 6 * S), None);
}

#[test]
fn a_follower_has_no_clock() {
    let mut clock = LeaseClock::new(config());
    clock.grant(7, 5, S);
    assert!(clock.is_empty());
    clock.promote([(7, 5, 0)], S, S);
    assert_eq!(clock.list(), [7]);
    assert!(clock.is_running());
    clock.demote();
    assert!(!clock.is_running());
    assert_eq!(clock.renew(7, S), Renewal::Unknown);
    assert!(clock.expired(100 * S, 10).is_empty());
}

/// etcd-contract 37.
#[test]
fn a_new_leader_gives_the_remainder_or_the_full_time_and_the_extension() {
    let mut clock = leader();
    clock.promote([(1, 100, 0), (2, 100, 30), (-3, 20, 0)], 1000 * S, 2 * S);
    assert_eq!(clock.list(), [-3, 2, 1]);
    assert_eq!(clock.remaining(1, 1000 * S), Some((100, 102)));
    assert_eq!(clock.remaining(2, 1000 * S), Some((100, 32)));
    assert_eq!(clock.renew(2, 1001 * S), Renewal::CommitFirst { ttl: 100 });
    clock.checkpointed(2, 0);
    assert_eq!(clock.renew(2, 1001 * S), Renewal::Renewed { ttl: 100 });
}

#[test]
fn only_leases_idle_for_an_interval_are_checkpointed() {
    let mut clock = leader();
    clock.grant(1, 100, Duration::ZERO);
    clock.grant(2, 100, Duration::ZERO);
    clock.grant(3, 10, Duration::ZERO);
    clock.renew(2, 5 * S);
    assert_eq!(clock.checkpoints(10 * S, 10), [(1, 90)]);
    assert_eq!(clock.checkpoints(10 * S, 10), []);
    assert_eq!(clock.checkpoints(15 * S, 10), [(2, 90)]);
    assert_eq!(clock.checkpoints(20 * S, 10), [(1, 80)]);
    // The checkpoint may already be in the log, so a renewal before it is applied clears it too.
    assert_eq!(clock.renew(1, 20 * S), Renewal::CommitFirst { ttl: 100 });
}

#[test]
fn revokes_are_bounded_in_flight_and_retried() {
    let mut clock = leader();
    for id in 1..=4 {
        clock.grant(id, id, Duration::ZERO);
    }
    assert_eq!(clock.expired(10 * S, 1), [1]);
    assert_eq!(clock.expired(10 * S, 10), [2]);
    assert_eq!(clock.expired(11 * S, 10), Vec::<i64>::new());
    clock.forget(1);
    assert_eq!(clock.expired(11 * S, 10), [3]);
    assert_eq!(clock.expired(13 * S, 10), [2]);
}

/// Row 32 of the acceptance table: with the ticks of the default heartbeat, all are gone 20 s after their time.
#[test]
fn a_mass_expiry_is_paced_and_ends_in_time() {
    let mut clock = LeaseClock::new(LeaseClockConfig::default());
    clock.promote((0..100_000).map(|id| (id, 60, 0)), Duration::ZERO, S);
    let (mut revoked, mut now) = (0, 61 * S);
    while !clock.is_empty() {
        let ids = clock.expired(now, 1000);
        assert!(!ids.is_empty() && ids.len() <= REVOKES_IN_FLIGHT_MAX);
        ids.iter().for_each(|id| clock.forget(*id));
        revoked += ids.len();
        now += Duration::from_millis(100);
    }
    assert_eq!(revoked, 100_000);
    assert!(now <= 81 * S, "the last one is gone {:?} after its time", now - 61 * S);
}

#[derive(Clone, Debug)]
enum Step {
    Grant(i64, i64),
    Forget(i64),
    Renew(i64),
    Wait(u64),
    Expired(usize),
    Checkpoints(usize),
    Checkpointed(i64, i64),
    Promote,
}

fn step() -> impl Strategy<Value = Step> {
    let id = -2..4i64;
    prop_oneof![
        (id.clone(), 1..40i64).prop_map(|(id, ttl)| Step::Grant(id, ttl)),
        id.clone().prop_map(Step::Forget),
        id.clone().prop_map(Step::Renew),
        id.clone().prop_map(Step::Renew),
        (1..9000u64).prop_map(Step::Wait),
        (1..9000u64).prop_map(Step::Wait),
        (1..4usize).prop_map(Step::Expired),
        (1..4usize).prop_map(Step::Checkpoints),
        (id, 0..2i64).prop_map(|(id, remaining)| Step::Checkpointed(id, remaining * 5)),
        Just(Step::Promote),
    ]
}

/// What is known of one lease without any order kept.
#[derive(Clone, Debug)]
struct Known {
    ttl: i64,
    expiry: Duration,
    idle_since: Duration,
    /// What the replicated table holds; an unapplied checkpoint counts.
    remainder: i64,
    retry_at: Option<Duration>,
}

#[derive(Default)]
struct Model {
    leases: BTreeMap<i64, Known>,
}

impl Model {
    fn renew(&mut self, id: i64, now: Duration) -> Renewal {
        let Some(lease) = self.leases.get_mut(&id) else { return Renewal::Unknown };
        if lease.expiry <= now {
            return Renewal::Expiring;
        }
        lease.expiry = now + S * lease.ttl as u32;
        lease.idle_since = now;
        let ttl = lease.ttl;
        if lease.remainder > 0 { Renewal::CommitFirst { ttl } } else { Renewal::Renewed { ttl } }
    }

    fn expired(&mut self, now: Duration, limit: usize) -> Vec<i64> {
        let mut sorted: Vec<_> = self.leases.iter().map(|(id, l)| (l.expiry, *id)).filter(|(e, _)| *e <= now).collect();
        sorted.sort_unstable();
        let mut ids = Vec::new();
        for (_, id) in sorted {
            let in_flight = self.leases.values().filter(|l| l.retry_at.is_some()).count();
            let lease = self.leases.get_mut(&id).expect("the model holds it");
            let due = lease.retry_at.map_or(in_flight < 2, |at| at <= now);
            if due && ids.len() < limit {
                lease.retry_at = Some(now + 3 * S);
                ids.push(id);
            }
        }
        ids
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn the_clock_does_what_the_model_does(steps in prop::collection::vec(step(), 1..80)) {
        let (mut clock, mut model, mut now) = (leader(), Model::default(), Duration::ZERO);
        for step in steps {
            match step {
                Step::Grant(id, ttl) => {
                    clock.grant(id, ttl, now);
                    let expiry = now + S * ttl as u32;
                    model.leases.insert(id, Known { ttl, expiry, idle_since: now, remainder: 0, retry_at: None });
                }
                Step::Forget(id) => {
                    clock.forget(id);
                    model.leases.remove(&id);
                }
                Step::Renew(id) => prop_assert_eq!(clock.renew(id, now), model.renew(id, now)),
                Step::Wait(millis) => now += Duration::from_millis(millis),
                Step::Expired(limit) => prop_assert_eq!(clock.expired(now, limit), model.expired(now, limit)),
                Step::Checkpoints(limit) => {
                    for (id, remaining) in clock.checkpoints(now, limit) {
                        let lease = model.leases.get_mut(&id).expect("the model holds it");
                        prop_assert!(now >= lease.idle_since + 10 * S, "not idle for an interval");
                        prop_assert_eq!(remaining, (lease.expiry - now).as_secs_f64().ceil() as i64);
                        lease.idle_since = now;
                        lease.remainder = remaining;
                    }
                }
                Step::Checkpointed(id, remaining) => {
                    clock.checkpointed(id, remaining);
                    if let Some(lease) = model.leases.get_mut(&id) {
                        lease.remainder = remaining;
                    }
                }
                Step::Promote => {
                    clock.promote(model.leases.iter().map(|(id, l)| (*id, l.ttl, l.remainder)), now, 2 * S);
                    for lease in model.leases.values_mut() {
                        let left = if lease.remainder > 0 { lease.remainder } else { lease.ttl };
                        *lease = Known {
                            expiry: now + S * (left as u32 + 2), idle_since: now, retry_at: None, ..*lease
                        };
                    }
                }
            }
            let mut sorted: Vec<_> = model.leases.iter().map(|(id, l)| (l.expiry, *id)).collect();
            sorted.sort_unstable();
            prop_assert_eq!(clock.list(), sorted.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
            prop_assert_eq!(clock.len(), model.leases.len());
        }
    }
}
