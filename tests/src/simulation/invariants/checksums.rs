//! I18: on the disk of a member that came to rest every checksum holds, and no page is lost or has two owners.

use basalt_storage::check::{Finding, Observer, Severity, check};
use basalt_storage::disk::{PowerCut, SimulatedDisk};

use crate::node_sim::SimulatedNode;

#[derive(Default)]
struct Damage(Vec<String>);

impl Observer for Damage {
    fn progress(&mut self, _: &str, _: u64, _: u64) {}

    fn found(&mut self, finding: Finding) {
        if finding.severity == Severity::Damage {
            self.0.push(finding.to_string());
        }
    }
}

/// Looks at everything that the last manifest of a member names, as it is and as a power cut would leave it.
///
/// # Panics
/// When something is not what was written.
pub fn whole(member: u64, node: &SimulatedNode) {
    whole_disk(member, &node.disk().restart());
    whole_disk(member, &node.disk().crash(PowerCut::KeepNone));
}

fn whole_disk(member: u64, disk: &SimulatedDisk) {
    let mut damage = Damage::default();
    let checked = check(disk, disk, &mut damage);
    let checked = checked.unwrap_or_else(|error| panic!("I18: the disk of member {member:x}: {error}"));
    assert!(damage.0.is_empty() && checked.damage == 0, "I18: the disk of member {member:x}: {:?}", damage.0);
}
