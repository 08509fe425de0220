//! What a run is made of.

use std::time::Duration;

/// Seeds with these rests by 16 have users, and those with these have watches that ask for a leader. Those that once found
/// something have others, and go as they went.
const USERS: [u64; 5] = [1, 3, 6, 10, 13];
const LEADER_WATCHES: [u64; 8] = [1, 3, 6, 7, 9, 10, 11, 13];

/// All that a seed decides beforehand.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// How many members.
    pub members: u64,
    /// Virtual time with faults.
    pub length: Duration,
    /// Requests a second, reads among them.
    pub per_second: u32,
    /// Longest pause between two faults; `None` for none.
    pub fault_pause: Option<Duration>,
    /// Whether members ask for votes before an election (`--pre-vote`); without, elections collide.
    pub pre_vote: bool,
    /// Entries kept for members that lag behind; who lags more gets the whole state.
    pub catchup_entries: u64,
    /// Pause between two changes of members, at most; `None` for none.
    pub change_pause: Option<Duration>,
    /// The most by which clocks are too fast or too slow, in parts of a million.
    pub drift_ppm: u32,
    /// Pause between records of how long a lease still lives.
    pub lease_checkpoint_interval: Duration,
    /// A cluster of so few voters only grows.
    pub voters_min: usize,
    /// Length of a segment of the log.
    pub segment_bytes: u64,
    /// Whether clients write and read registers, for a search of an order that explains what they saw.
    pub registers: bool,
    /// Whether clients are users, who may do this and not that, and change.
    pub users: bool,
    /// Whether some watches are to end where there is no leader.
    pub leader_watches: bool,
}

impl Plan {
    /// The plan of a seed: every kind of cluster and of trouble comes.
    pub fn of(seed: u64) -> Self {
        let seconds = Duration::from_secs;
        let pauses = [None, Some(4), Some(1), Some(2), Some(6), Some(3), Some(10), Some(2)];
        let changes = [Some(2), None, Some(8), None, None];
        Self {
            seed,
            members: if seed.is_multiple_of(3) { 5 } else { 3 },
            length: Duration::from_secs(60),
            per_second: [20, 50, 100][seed as usize % 3],
            fault_pause: pauses[seed as usize % 8].map(seconds),
            pre_vote: !seed.is_multiple_of(5),
            catchup_entries: [10, 100, 1000][seed as usize % 7 % 3],
            change_pause: changes[seed as usize % 5].map(seconds),
            drift_ppm: [0, 1000, 50_000][seed as usize % 13 % 3],
            lease_checkpoint_interval: seconds([1, 3, 300][seed as usize % 17 % 3]),
            voters_min: if seed.is_multiple_of(2) { 2 } else { 3 },
            registers: seed % 4 == 1,
            users: USERS.contains(&(seed % 16)),
            leader_watches: LEADER_WATCHES.contains(&(seed % 16)),
            segment_bytes: [24 << 10, 96 << 10, 256 << 10, 1 << 20][seed as usize % 11 % 4],
        }
    }

    /// The same with clients that ask so often in a second; 0 leaves it as it is.
    pub fn asking(self, per_second: u32) -> Self {
        Self { per_second: if per_second == 0 { self.per_second } else { per_second }, ..self }
    }

    /// How much too fast the clocks of a member are, in parts of a million.
    pub fn drift_of(&self, member_id: u64) -> i32 {
        let most = i32::try_from(self.drift_ppm).expect("clocks are not that wrong");
        match (self.seed + member_id) % 3 {
            0 => -most,
            1 => most,
            _ => 0,
        }
    }
}
