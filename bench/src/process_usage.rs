//! What the kernel says a process has used: CPU time of all its threads, and memory.

use std::time::Duration;
use std::{fs, io};

use anyhow::{Context, Result};

/// `USER_HZ`, the unit of the times in `/proc/PID/stat`: 100 on every architecture that the servers run on (proc(5)).
const TICKS_PER_SECOND: u64 = 100;
/// The finest difference of two CPU times.
pub const TICK: Duration = Duration::from_millis(1000 / TICKS_PER_SECOND);

/// A process by its id, looked at from outside.
#[derive(Clone, Copy, Debug)]
pub struct ProcessId(pub u32);

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Resident now (`VmRSS`).
    pub resident_bytes: u64,
    /// Most that was resident since the start or the last [`ProcessId::reset_peak`] (`VmHWM`).
    pub peak_bytes: u64,
}

impl ProcessId {
    /// The process that calls this.
    pub fn own() -> Self {
        Self(std::process::id())
    }

    /// User and system time of all threads so far, those that have ended included; exact to a [`TICK`].
    ///
    /// # Errors
    /// The process is gone, or `/proc` is not that of Linux.
    pub fn cpu(self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.0);
        let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        parse_cpu(&stat).with_context(|| format!("{path} has an unknown form"))
    }

    /// Memory now and at its peak.
    ///
    /// # Errors
    /// The process is gone, or `/proc` is not that of Linux.
    pub fn memory(self) -> Result<Memory> {
        let path = format!("/proc/{}/status", self.0);
        let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        parse_memory(&status).with_context(|| format!("{path} has an unknown form"))
    }

    /// Lets the peak of memory start anew from what is resident now.
    ///
    /// # Errors
    /// The process is gone or belongs to someone else; the peak then counts from its start.
    pub fn reset_peak(self) -> io::Result<()> {
        fs::write(format!("/proc/{}/clear_refs", self.0), "5")
    }
}

/// The processes of one server: one, or one for each member of its cluster.
#[derive(Clone, Debug)]
pub struct Processes(pub Vec<ProcessId>);

impl Processes {
    /// CPU time of all of them, as [`ProcessId::cpu`].
    ///
    /// # Errors
    /// That one of them is gone.
    pub fn cpu(&self) -> Result<Duration> {
        self.0.iter().map(|process| process.cpu()).sum()
    }

    /// Memory of all of them; the peak is the sum of their peaks.
    ///
    /// # Errors
    /// As [`Self::cpu`].
    pub fn memory(&self) -> Result<Memory> {
        let mut sum = Memory { resident_bytes: 0, peak_bytes: 0 };
        for process in &self.0 {
            let Memory { resident_bytes, peak_bytes } = process.memory()?;
            sum.resident_bytes += resident_bytes;
            sum.peak_bytes += peak_bytes;
        }
        Ok(sum)
    }

    /// As [`ProcessId::reset_peak`].
    ///
    /// # Errors
    /// The same.
    pub fn reset_peak(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|process| process.reset_peak())
    }
}

/// `utime` and `stime` are fields 14 and 15. The name, field 2, stands in parentheses and may hold anything, also `)`.
fn parse_cpu(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = user.checked_add(system)?;
    Some(Duration::from_millis(ticks.checked_mul(1000 / TICKS_PER_SECOND)?))
}

fn parse_memory(status: &str) -> Option<Memory> {
    let bytes = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kibibytes.checked_mul(1024)
    };
    Some(Memory { resident_bytes: bytes("VmRSS")?, peak_bytes: bytes("VmHWM")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_user_and_system_time_whatever_the_name() {
        let stat = "4242 (a ) 7 (x) S 1 4242 4242 0 -1 4194560 1802 0 3 0 250 75 9 9 20 0 11 0 5126 1269 2 18446744";
        assert_eq!(parse_cpu(stat), Some(Duration::from_millis(3250)));
    }

    #[test]
    fn memory_is_found_by_name() {
        let status = "Name:\tetcd\nVmPeak:\t 1268396 kB\nVmHWM:\t   31200 kB\nVmRSS:\t   30104 kB\nThreads:\t11\n";
        let memory = Memory { resident_bytes: 30_104 * 1024, peak_bytes: 31_200 * 1024 };
        assert_eq!(parse_memory(status), Some(memory));
    }

    #[test]
    fn other_forms_are_refused() {
        for stat in ["", "1 (x", "1 (x) S 1 2 3", "1 (x) S 1 1 1 0 -1 1 1 0 0 0 -5 1 0"] {
            assert_eq!(parse_cpu(stat), None, "{stat}");
        }
        for status in ["", "VmHWM: 1 kB\n", "VmHWM: 1 kB\nVmRSS: x kB\n", "VmHWM: 1 kB\nVmRSS: 1 MB\n"] {
            assert_eq!(parse_memory(status), None, "{status}");
        }
    }

    #[test]
    fn this_process_can_be_read() {
        let own = ProcessId::own();
        let memory = own.memory().expect("own memory");
        assert!(memory.resident_bytes > 0 && memory.peak_bytes >= memory.resident_bytes);
        own.cpu().expect("own CPU time");
    }
}
