//! One budget of memory, and everybody's share of it (DESIGN 3.7).
//!
//! The limit is that of our control group, else of the machine. What is not here grows with the data and is not bounded
//! by it: the key index, about 50 bytes a key.

use std::fs;
use std::path::{Path, PathBuf};

/// Assumed where the system tells no limit.
const LIMIT_DEFAULT: usize = 2 << 30;

/// Largest share of revisions that are in no checkpoint: more would make starts slow, not reads fast.
const DELTA_BYTES_MAX: usize = 1 << 30;
/// Largest share of recent events (DESIGN 9).
const WATCH_RING_BYTES_MAX: usize = 32 << 20;
/// Largest share of what waits for all watch streams, each counted by itself.
const WATCH_QUEUE_BYTES_MAX: usize = 512 << 20;
/// Largest share of watchers: about a million with short keys.
const WATCHER_BYTES_MAX: usize = 512 << 20;
/// Largest share of requests that are on their way in.
const REQUEST_BYTES_MAX: usize = 1 << 30;
/// A checkpoint starts when so much of the deltas' share is used: two generations, and room for what comes meanwhile.
const CHECKPOINTS_IN_DELTA: usize = 4;

/// Who may take how much, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShares {
    /// Pages as read.
    pub page_cache: usize,
    /// Answers read from disk and not yet with their clients.
    pub answers: usize,
    /// Revisions in no checkpoint yet, of all shards.
    pub delta: usize,
    /// Recent events.
    pub watch_ring: usize,
    /// What waits for watch streams.
    pub watch_queues: usize,
    /// Watchers themselves.
    pub watchers: usize,
    /// Requests of which a part is still to come.
    pub requests: usize,
}

impl MemoryShares {
    /// The shares of this process.
    pub fn of_process() -> Self {
        Self::of(limit().unwrap_or(LIMIT_DEFAULT))
    }

    /// The shares of a limit: fifteen sixteenths of it at most.
    pub const fn of(limit: usize) -> Self {
        Self {
            page_cache: limit / 4,
            answers: limit / 4,
            delta: least(limit / 4, DELTA_BYTES_MAX),
            watch_ring: least(limit / 32, WATCH_RING_BYTES_MAX),
            watch_queues: least(limit / 16, WATCH_QUEUE_BYTES_MAX),
            watchers: least(limit / 16, WATCHER_BYTES_MAX),
            requests: least(limit / 32, REQUEST_BYTES_MAX),
        }
    }

    /// Bytes of revisions at which a checkpoint starts (DESIGN 3.5: 256 MiB, where there is memory for it).
    pub const fn checkpoint_bytes(&self) -> usize {
        self.delta / CHECKPOINTS_IN_DELTA
    }
}

const fn least(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}

/// The smallest memory limit of our control group and those above it, version 2 or 1; else what the machine has.
fn limit() -> Option<usize> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    limits.chain(machine_memory()).min()
}

/// Where limits may stand for a process in `groups`, the text of `/proc/self/cgroup` (cgroups(7)). Which of them exist
/// hangs on how the system mounts them; inside a container the own group is often the root of what is mounted.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let own = Path::new(path.trim_start_matches('/'));
        files.extend(own.ancestors().map(|group| Path::new(root).join(group).join(file)));
    }
    files
}

fn machine_memory() -> Option<usize> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_looked_for_in_our_group_and_all_above() {
        let groups = "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/system.slice/basalt.service\n";
        let files: Vec<String> = limit_files(groups).iter().map(|path| path.display().to_string()).collect();
        let expected = [
            "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/system.slice/basalt.service/memory.max",
            "/sys/fs/cgroup/system.slice/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(files, expected);
    }

    #[test]
    fn shares_stay_within_the_limit() {
        for limit in [64 << 20, 512 << 20, 1 << 30, 4 << 30, 1 << 40] {
            let shares = MemoryShares::of(limit);
            let MemoryShares { page_cache, answers, delta, watch_ring, watch_queues, watchers, requests } = shares;
            let sum = page_cache + answers + delta + watch_ring + watch_queues + watchers + requests;
            assert!(sum <= limit / 16 * 15, "{shares:?} of {limit}");
        }
    }

    #[test]
    fn with_memory_to_spare_the_shares_are_at_their_largest() {
        let shares = MemoryShares::of(64 << 30);
        assert_eq!((shares.checkpoint_bytes(), shares.watch_ring), (256 << 20, 32 << 20));
    }
}
