//! Messages on their way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raft::prelude::Message;
use rand::Rng;
use rand::rngs::StdRng;

use super::frames;

/// Of so many messages one is put into its frame and taken out of it.
const FRAMES_LOOKED_AT: u32 = 64;

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Shortest time on the way.
    pub latency: Duration,
    /// What chance adds to it, at most; it also changes the order.
    pub jitter: Duration,
    /// Messages of a hundred that get lost.
    pub loss_percent: u32,
    /// Messages of a hundred that come twice.
    pub repeat_percent: u32,
    /// Messages of a thousand in which a bit flips.
    pub flips_permille: u32,
}

impl Weather {
    /// A network that does what it should.
    pub const FAIR: Weather = Weather {
        latency: Duration::from_micros(200),
        jitter: Duration::from_micros(300),
        loss_percent: 0,
        repeat_percent: 0,
        flips_permille: 0,
    };

    /// A network in which the votes of one election arrive after those of the next.
    pub const STORM: Weather = Weather {
        latency: Duration::from_millis(1),
        jitter: Duration::from_millis(300),
        loss_percent: 0,
        repeat_percent: 20,
        flips_permille: 0,
    };
}

/// A message, and the data directory of the member from which it speaks.
#[derive(Clone, Debug)]
pub struct Spoken {
    /// What is said.
    pub message: Message,
    /// By whom.
    pub incarnation: u128,
}

/// Messages by the time of their arrival, and ways that are cut.
pub struct Network {
    on_the_way: BTreeMap<(Duration, u64), Spoken>,
    sent: u64,
    /// From, to.
    cuts: BTreeSet<(u64, u64)>,
    /// From, to, and until when what goes there is held up.
    clogs: BTreeMap<(u64, u64), Duration>,
    /// Now.
    pub weather: Weather,
    /// Messages that arrived.
    pub arrived: u64,
    /// Bits that flipped on the way, and were seen.
    pub flips: u64,
}

impl Default for Network {
    fn default() -> Self {
        let (on_the_way, cuts, clogs) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { on_the_way, sent: 0, cuts, clogs, weather: Weather::FAIR, arrived: 0, flips: 0 }
    }
}

impl Network {
    /// Takes a message at `now`.
    pub fn send(&mut self, spoken: Spoken, now: Duration, random: &mut StdRng) {
        let message = &spoken.message;
        if self.cuts.contains(&(message.from, message.to)) || chance(random, self.weather.loss_percent) {
            return;
        }
        if self.weather.flips_permille > 0 && random.random_ratio(self.weather.flips_permille.min(1000), 1000) {
            frames::flip(&spoken, random);
            self.flips += 1;
            return;
        }
        if random.random_ratio(1, FRAMES_LOOKED_AT) {
            frames::carries(&spoken);
        }
        let leaves = self.clogs.get(&(message.from, message.to)).map_or(now, |until| now.max(*until));
        let repeats = chance(random, self.weather.repeat_percent);
        for _ in 0..=u32::from(repeats) {
            let delay = self.weather.latency + self.weather.jitter.mul_f64(random.random());
            self.sent += 1;
            self.on_the_way.insert((leaves + delay, self.sent), spoken.clone());
        }
    }

    /// How long a call from one member to the other takes, unless it is lost.
    pub fn call(&self, from: u64, to: u64, random: &mut StdRng) -> Option<Duration> {
        let lost = self.cuts.contains(&(from, to)) || self.cuts.contains(&(to, from));
        let Weather { latency, jitter, loss_percent, .. } = self.weather;
        (!lost && !chance(random, loss_percent)).then(|| latency + jitter.mul_f64(random.random()))
    }

    /// When the next message arrives.
    pub fn next_arrival(&self) -> Option<Duration> {
        self.on_the_way.first_key_value().map(|((time, _), _)| *time)
    }

    /// A message that arrived by `now`. One whose way was cut meanwhile is lost.
    pub fn arrive(&mut self, now: Duration) -> Option<Spoken> {
        while self.next_arrival().is_some_and(|time| time <= now) {
            let (_, spoken) = self.on_the_way.pop_first()?;
            if !self.cuts.contains(&(spoken.message.from, spoken.message.to)) {
                self.arrived += 1;
                return Some(spoken);
            }
        }
        None
    }

    /// Whether nothing comes from one to the other.
    pub fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: u64, to: u64) {
        self.cuts.insert((from, to));
    }

    /// What goes one way from now on arrives after `until`, all of it.
    pub fn clog(&mut self, from: u64, to: u64, until: Duration) {
        self.clogs.insert((from, to), until);
    }

    /// All ways are open again, and the weather is fair.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.clogs.clear();
        self.weather = Weather::FAIR;
    }
}

fn chance(random: &mut StdRng, percent: u32) -> bool {
    percent > 0 && random.random_ratio(percent.min(100), 100)
}
