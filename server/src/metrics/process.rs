//! What the operating system says of this process. Names and meanings are those of Prometheus' Go client, which etcd
//! carries; the two `os_fd_*` are etcd's own.

use std::fs;
use std::time::Duration;

use prometheus::{Counter, Gauge, IntCounter, IntGauge, Registry};
use rustix::process::{Resource, getrlimit};

use super::family::family;

/// Ticks of a second in `/proc`: Linux' USER_HZ, which is 100 wherever Rust runs.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) struct ProcessMetrics {
    cpu_seconds: Counter,
    max_fds: IntGauge,
    open_fds: IntGauge,
    resident_bytes: IntGauge,
    virtual_bytes: IntGauge,
    virtual_max_bytes: Gauge,
    start_seconds: Gauge,
    received_bytes: IntCounter,
    sent_bytes: IntCounter,
    os_fd_limit: IntGauge,
    os_fd_used: IntGauge,
}

impl ProcessMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name, help| family::<IntGauge>(registry, name, help, ());
        let counter = |name, help| family::<IntCounter>(registry, name, help, ());
        let cpu_help = "Total user and system CPU time spent in seconds.";
        let virtual_max_help = "Maximum amount of virtual memory available in bytes.";
        let start_help = "Start time of the process since unix epoch in seconds.";
        Ok(Self {
            cpu_seconds: family(registry, "process_cpu_seconds_total", cpu_help, ())?,
            max_fds: gauge("process_max_fds", "Maximum number of open file descriptors.")?,
            open_fds: gauge("process_open_fds", "Number of open file descriptors.")?,
            resident_bytes: gauge("process_resident_memory_bytes", "Resident memory size in bytes.")?,
            virtual_bytes: gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.")?,
            virtual_max_bytes: family(registry, "process_virtual_memory_max_bytes", virtual_max_help, ())?,
            start_seconds: family(registry, "process_start_time_seconds", start_help, ())?,
            received_bytes: counter(
                "process_network_receive_bytes_total",
                "Number of bytes received by the process over the network.",
            )?,
            sent_bytes: counter(
                "process_network_transmit_bytes_total",
                "Number of bytes sent by the process over the network.",
            )?,
            os_fd_limit: gauge("os_fd_limit", "The file descriptor limit.")?,
            os_fd_used: gauge("os_fd_used", "The number of used file descriptors.")?,
        })
    }

    /// Reads everything anew. What cannot be read keeps its last value.
    pub(super) fn refresh(&self) {
        self.refresh_descriptors();
        self.refresh_network();
        // `inc_by` of the difference: a counter has no other way to be set.
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
            self.cpu_seconds.inc_by((stat.cpu.as_secs_f64() - self.cpu_seconds.get()).max(0.0));
            self.virtual_bytes.set(stat.virtual_bytes);
            if let Some(boot) = boot_seconds() {
                self.start_seconds.set(boot + stat.since_boot.as_secs_f64());
            }
        }
        if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes) {
            self.resident_bytes.set(bytes);
        }
        // Without a limit Go's client shows the largest u64.
        let limit = getrlimit(Resource::As).current.unwrap_or(u64::MAX);
        self.virtual_max_bytes.set(limit as f64);
    }

    fn refresh_descriptors(&self) {
        let limit = i64::try_from(descriptor_limit()).unwrap_or(i64::MAX);
        self.max_fds.set(limit);
        self.os_fd_limit.set(limit);
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // One of them is the listing itself.
            let used = i64::try_from(entries.count().saturating_sub(1)).unwrap_or(i64::MAX);
            self.open_fds.set(used);
            self.os_fd_used.set(used);
        }
    }

    fn refresh_network(&self) {
        let Ok(netstat) = fs::read_to_string("/proc/self/net/netstat") else { return };
        for (counter, name) in [(&self.received_bytes, "InOctets"), (&self.sent_bytes, "OutOctets")] {
            if let Some(octets) = ip_extension(&netstat, name) {
                counter.inc_by(octets.saturating_sub(counter.get()));
            }
        }
    }
}

/// How many descriptors may be open; without a limit the largest u64.
pub(super) fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// What is wanted of `/proc/self/stat` (proc_pid_stat(5)).
struct Stat {
    cpu: Duration,
    since_boot: Duration,
    virtual_bytes: i64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the name in brackets, which may hold blanks and brackets itself.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3);
        let ticks = |number: usize| Some(field(number)?.parse::<u32>().ok().map(f64::from)? / TICKS_PER_SECOND);
        let since_boot = field(22)?.parse::<u64>().ok()? as f64 / TICKS_PER_SECOND;
        Some(Self {
            cpu: Duration::try_from_secs_f64(ticks(14)? + ticks(15)?).ok()?,
            since_boot: Duration::try_from_secs_f64(since_boot).ok()?,
            virtual_bytes: field(23)?.parse().ok()?,
        })
    }
}

fn resident_bytes(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<i64>().ok()?.checked_mul(1024)
}

fn boot_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// A figure of the two `IpExt:` lines, one of names and one of values.
fn ip_extension(netstat: &str, name: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let place = lines.next()?.split_whitespace().position(|word| word == name)?;
    lines.next()?.split_whitespace().nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let text = "7 (a) b) S 1 1 1 0 -1 4 5 0 0 0 150 50 0 0 20 0 8 0 12345 4096 9 18446744073709551615";
        let stat = Stat::parse(text).expect("a full line");
        assert_eq!(stat.cpu, Duration::from_secs(2));
        assert_eq!(stat.since_boot, Duration::from_millis(123_450));
        assert_eq!(stat.virtual_bytes, 4096);
        assert!(Stat::parse("7 (short) S 1").is_none());
    }

    #[test]
    fn figures_of_proc_are_found_by_name() {
        let netstat = "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 11 12\n";
        assert_eq!(ip_extension(netstat, "OutOctets"), Some(12));
        assert_eq!(ip_extension("IpExt: InOctets\n", "InOctets"), None);
        assert_eq!(resident_bytes("VmPeak:\t 9 kB\nVmRSS:\t   34288 kB\n"), Some(34_288 * 1024));
    }
}
