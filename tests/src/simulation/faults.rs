//! What goes wrong, and when.

use std::time::Duration;

use basalt_storage::disk::PowerCut;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::cluster::Cluster;
use super::network::Weather;

/// Turns of a member with a slow disk are so much longer.
const SLOW_TURN: Duration = Duration::from_millis(60);

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A member loses its power.
    Crash(u64, PowerCut),
    /// A member comes back.
    Restart(u64),
    /// A member stands still for so long, and does not know it.
    Pause(u64, Duration),
    /// A member becomes slow.
    Slow(u64, Duration),
    /// Two groups do not hear each other.
    Split(Vec<u64>),
    /// One hears the other, and not the other way.
    OneWay(u64, u64),
    /// Everybody hears the middle, and the ends do not hear each other.
    Bridge(u64),
    /// For so long, elections: whoever gives a vote may lose its power at once and comes back soon, and whoever is elected
    /// stands still.
    Storm(Duration),
    /// The network becomes so.
    Weather(Weather),
    /// The network becomes whole and fair.
    Heal,
    /// The leader hands over to this member.
    Transfer(u64),
}

/// The next fault, for a cluster as it is.
pub fn draw(cluster: &Cluster, random: &mut StdRng) -> Fault {
    let members = cluster.members();
    let member = members[random.random_range(0..members.len())];
    let others: Vec<u64> = members.iter().copied().filter(|other| *other != member).collect();
    let other = others[random.random_range(0..others.len())];
    let down = cluster.down();
    match random.random_range(0..100) {
        0..30 if !down.is_empty() => Fault::Restart(down[random.random_range(0..down.len())]),
        0..22 if !down.contains(&member) => Fault::Crash(member, power_cut(random)),
        22..32 => Fault::Pause(member, Duration::from_millis(random.random_range(50..4000))),
        32..40 => Fault::Slow(member, SLOW_TURN.mul_f64(random.random())),
        40..52 => {
            let mut shuffled = members.clone();
            shuffled.shuffle(random);
            shuffled.truncate(random.random_range(1..members.len()));
            Fault::Split(shuffled)
        }
        52..58 => Fault::OneWay(member, other),
        58..62 => Fault::Bridge(member),
        62..72 => Fault::Weather(weather(random)),
        72..80 => Fault::Transfer(member),
        80..86 => Fault::Storm(Duration::from_millis(random.random_range(1000..10_000))),
        _ => Fault::Heal,
    }
}

fn power_cut(random: &mut StdRng) -> PowerCut {
    match random.random_range(0..4) {
        0 => PowerCut::KeepNone,
        1 => PowerCut::KeepAll,
        _ => PowerCut::Seeded(random.random()),
    }
}

fn weather(random: &mut StdRng) -> Weather {
    Weather {
        latency: Duration::from_micros(random.random_range(100..20_000)),
        jitter: Duration::from_micros(random.random_range(100..200_000)),
        loss_percent: random.random_range(0..30),
        repeat_percent: random.random_range(0..50),
    }
}
