//! I17: a start on what a crash left goes on, or stops with a reason that it names; it never serves what is wrong, which the
//! other invariants would see.

use basalt_storage::disk::InjectedFault;

use crate::over::Over;

/// What a start came to. Nothing but a fault that was injected into this very start may stop it.
///
/// # Panics
/// When something else did.
pub fn started<N>(member: u64, opened: Result<N, Over>, armed: bool) -> Result<N, InjectedFault> {
    opened.map_err(|Over(fault)| {
        assert!(armed, "I17: a start of member {member:x} met {fault}, which nobody asked for");
        fault
    })
}
