//! The memory of this process: as the system counts it, and, where jemalloc samples, who asked for it.

use std::fs;

use super::error::ProfileError;
#[cfg(feature = "heap-profiles")]
use super::{heap, jemalloc};

/// What of `/proc/self/status` is of memory.
const FIELDS: [&str; 3] = ["Vm", "Rss", "HugetlbPages"];

/// Begins to sample.
///
/// # Errors
/// [`ProfileError::NoHeap`] if this build cannot, or was not started so.
#[cfg(feature = "heap-profiles")]
pub(super) fn sample() -> Result<(), ProfileError> {
    jemalloc::activate()
}

/// Begins to sample.
#[cfg(not(feature = "heap-profiles"))]
pub(super) fn sample() -> Result<(), ProfileError> {
    Err(ProfileError::NoHeap("this build cannot; one with `--features heap-profiles` can"))
}

/// Who asked for the memory that is in use, in pprof's form.
pub(super) fn profile() -> Result<Vec<u8>, ProfileError> {
    // Begun at the start; where it could not, this says why.
    sample()?;
    #[cfg(feature = "heap-profiles")]
    return heap::profile();
    #[cfg(not(feature = "heap-profiles"))]
    unreachable!("nothing samples in this build")
}

/// How much memory there is, for people.
pub(super) fn table() -> Result<String, ProfileError> {
    let status = fs::read_to_string("/proc/self/status").map_err(ProfileError::system("/proc/self/status"))?;
    let lines = status.lines().filter(|line| FIELDS.iter().any(|field| line.starts_with(field)));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_resident_is_told() {
        let table = super::table().expect("/proc");
        assert!(table.contains("VmRSS:") && table.contains("RssAnon:") && !table.contains("Threads"), "{table}");
    }
}
