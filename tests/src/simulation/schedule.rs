//! When what goes wrong: all of it known before a run begins, so that a run can be repeated without some of it.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::faults::Fault;
use super::plan::Plan;

/// Of the seed's own, so that what goes wrong does not hang on what members and clients draw.
const FAULTS_SALT: u64 = 0x5eed_fa17;
const CHANGES_SALT: u64 = 0x5eed_c4a6;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Scheduled {
    /// Its place in the whole schedule of the seed, from 0.
    pub number: usize,
    /// When it begins.
    pub at: Duration,
    /// How long it lasts.
    pub length: Duration,
    /// What it is.
    pub fault: Fault,
}

impl fmt::Display for Scheduled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, at, length, fault } = self;
        write!(f, "{number:>4} {:>9.3}s +{:.3}s {fault:?}", at.as_secs_f64(), length.as_secs_f64())
    }
}

/// What goes wrong in a run, in its order.
#[derive(Clone, Debug)]
pub struct Schedule(Vec<Scheduled>);

impl Schedule {
    /// All that a plan has.
    pub fn of(plan: &Plan) -> Self {
        let mut all = Vec::new();
        if let Some(pause) = plan.fault_pause {
            all.extend(drawn(plan, pause, FAULTS_SALT, |random| Fault::draw(random, pause)));
        }
        if let Some(pause) = plan.change_pause {
            let change = |random: &mut StdRng| (Fault::Change(random.random()), Duration::ZERO);
            all.extend(drawn(plan, pause, CHANGES_SALT, change));
        }
        all.sort_by_key(|(at, ..)| *at);
        let scheduled = |(number, (at, length, fault))| Scheduled { number, at, length, fault };
        Self(all.into_iter().enumerate().map(scheduled).collect())
    }

    /// The same without those whose numbers are not among these.
    pub fn only(&self, numbers: &BTreeSet<usize>) -> Self {
        Self(self.0.iter().copied().filter(|scheduled| numbers.contains(&scheduled.number)).collect())
    }

    /// All of them.
    pub fn faults(&self) -> &[Scheduled] {
        &self.0
    }

    /// Their numbers.
    pub fn numbers(&self) -> BTreeSet<usize> {
        self.0.iter().map(|scheduled| scheduled.number).collect()
    }
}

fn drawn(
    plan: &Plan,
    pause: Duration,
    salt: u64,
    mut draw: impl FnMut(&mut StdRng) -> (Fault, Duration),
) -> Vec<(Duration, Duration, Fault)> {
    let mut random = StdRng::seed_from_u64(plan.seed ^ salt);
    let (mut at, mut all) = (pause.mul_f64(random.random()), Vec::new());
    while at < plan.length {
        let (fault, length) = draw(&mut random);
        all.push((at, length, fault));
        at += pause.mul_f64(random.random());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_schedule_keeps_numbers_and_times() {
        let schedule = Schedule::of(&Plan::of(1));
        assert!(schedule.faults().len() > 20 && schedule.faults().is_sorted_by_key(|scheduled| scheduled.at));
        let some: BTreeSet<usize> = schedule.numbers().into_iter().filter(|number| number % 3 == 0).collect();
        let part = schedule.only(&some);
        assert_eq!(part.numbers(), some);
        let texts = |schedule: &Schedule| schedule.faults().iter().map(Scheduled::to_string).collect::<Vec<_>>();
        let expected: Vec<String> = texts(&schedule).into_iter().step_by(3).collect();
        assert_eq!(texts(&part), expected);
    }
}
