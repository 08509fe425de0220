//! What goes wrong.

use std::time::Duration;

use basalt_storage::disk::PowerCut;
use rand::Rng;
use rand::rngs::StdRng;

use super::network::Weather;

/// Turns of a member with a slow disk are so much longer.
const SLOW_TURN: Duration = Duration::from_millis(60);

const HOUR_MS: i64 = 3_600_000;

/// A member, whoever belongs to the cluster when it comes to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick(u64);

impl Pick {
    /// Which of these it is.
    pub fn of(self, members: &[u64]) -> u64 {
        members[usize::try_from(self.0 % members.len() as u64).expect("members are few")]
    }

    /// The same of those other than `one`; `None` if there is no other.
    pub fn other_than(self, one: u64, members: &[u64]) -> Option<u64> {
        let others: Vec<u64> = members.iter().copied().filter(|other| *other != one).collect();
        (!others.is_empty()).then(|| self.of(&others))
    }
}

/// Something that goes wrong, for a while.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// A member loses its power, and comes back.
    PowerCut(Pick, PowerCut),
    /// All do.
    Blackout(PowerCut),
    /// A member stands still, and does not know it.
    Pause(Pick),
    /// A member is slow: its turns take so much longer.
    Slow(Pick, Duration),
    /// Two groups do not hear each other: who is in the one is drawn by this number.
    Split(u64),
    /// One does not hear the other.
    OneWay(Pick, Pick),
    /// What one says to the other is held up, and then comes all at once.
    Clog(Pick, Pick),
    /// Everybody hears the middle, and the others do not hear each other.
    Bridge(Pick),
    /// The network is so.
    Weather(Weather),
    /// Elections: whoever gives a vote may lose its power at once and comes back soon, and whoever is elected stands still.
    Storm,
    /// The leader hands over to this member.
    Transfer(Pick),
    /// The disk of a member does not answer.
    DiskStall(Pick),
    /// So many syncs from now one of a member fails, and what it should have made durable is dropped.
    SyncFails(Pick, u64),
    /// The disk of a member has no more room than this.
    DiskFull(Pick, u64),
    /// The wall clock of a member is so much ahead from then on, ms.
    WallJump(Pick, i64),
    /// A member loses its disk, and is started under its old name as if nothing had been.
    Wipe(Pick),
    /// Somebody changes who belongs to the cluster.
    Change(u64),
}

impl Fault {
    /// Its kind, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::PowerCut(..) => "power-cut",
            Fault::Blackout(_) => "blackout",
            Fault::Pause(_) => "pause",
            Fault::Slow(..) => "slow",
            Fault::Split(_) => "split",
            Fault::OneWay(..) => "one-way",
            Fault::Clog(..) => "clog",
            Fault::Bridge(_) => "bridge",
            Fault::Weather(_) => "weather",
            Fault::Storm => "storm",
            Fault::Transfer(_) => "transfer",
            Fault::DiskStall(_) => "disk-stall",
            Fault::SyncFails(..) => "sync-fails",
            Fault::DiskFull(..) => "disk-full",
            Fault::WallJump(..) => "wall-jump",
            Fault::Wipe(_) => "wipe",
            Fault::Change(_) => "change",
        }
    }

    /// One by chance, and how long it lasts where faults come after `pause`.
    pub fn draw(random: &mut StdRng, pause: Duration) -> (Self, Duration) {
        let (member, other) = (Pick(random.random()), Pick(random.random()));
        let millis = |from: u64, to: u64, random: &mut StdRng| Duration::from_millis(random.random_range(from..to));
        let a_while = pause.mul_f64(random.random_range(0.0..3.0)) + Duration::from_millis(10);
        match random.random_range(0..100) {
            0..24 => (Fault::PowerCut(member, power_cut(random)), pause.mul_f64(random.random_range(0.0..3.0))),
            24..26 => (Fault::Blackout(power_cut(random)), millis(1, 3000, random)),
            26..37 => (Fault::Pause(member), millis(50, 4000, random)),
            37..39 => (Fault::Pause(member), millis(4000, 20_000, random)),
            39..46 => (Fault::Slow(member, SLOW_TURN.mul_f64(random.random())), a_while * 2),
            46..57 => (Fault::Split(random.random()), a_while),
            57..61 => (Fault::OneWay(member, other), a_while),
            61..63 => (Fault::Clog(member, other), millis(100, 5000, random)),
            63..67 => (Fault::Bridge(member), a_while),
            67..75 => (Fault::Weather(weather(random)), a_while),
            75..81 => (Fault::Transfer(member), Duration::ZERO),
            81..86 => (Fault::Storm, millis(1000, 10_000, random)),
            86..88 => (Fault::DiskStall(member), millis(500, 15_000, random)),
            88..89 => (Fault::DiskStall(member), millis(5000, 60_000, random)),
            89..94 => (Fault::SyncFails(member, random.random_range(1..200)), Duration::ZERO),
            94..96 => (Fault::DiskFull(member, random.random_range(0..200 << 10)), a_while * 2),
            96..98 => (Fault::Wipe(member), millis(1, 3000, random)),
            _ => (Fault::WallJump(member, random.random_range(-HOUR_MS..HOUR_MS)), Duration::ZERO),
        }
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
        flips_permille: random.random_range(0..100),
    }
}
