//! Apply, when the members of the cluster change, and where they compare their states.

use std::sync::atomic::Ordering;
use std::time::Duration;

use basalt_proto::log::request::Kind;
use basalt_proto::log::{ApplyVersionSet, LogEntry, MemberDescription};
use tracing::{error, info, warn};

use super::apply_thread::ApplyThread;
use super::core::conf_change_of;
use super::hash_marks::Comparison;
use super::node_thread::NodeInput;
use crate::apply::alarms::AlarmKind;
use crate::apply::effects::Effect;

/// Pause before newer rules are proposed again, where that was lost.
const RAISE_PAUSE: Duration = Duration::from_secs(1);

impl ApplyThread {
    /// Lets all know who belongs to the cluster from now on; Raft before it hears that the entry is applied.
    pub(super) fn follow_member_change(&self, effect: &Effect) {
        self.links.members.store(self.machine.members().clone());
        if let Some(change) = conf_change_of(effect) {
            // The node thread is gone only when the process is about to be.
            drop(self.links.node.send(NodeInput::ConfChange(Box::new(change))));
        }
        let own = self.links.member_id;
        match effect {
            Effect::MemberAdded { member, learner } => {
                let peer_urls = member.peer_urls.join(",");
                // Also one that is gone again before anybody looks.
                let (local, remote) = (format!("{own:x}"), format!("{:x}", member.id));
                self.links.metrics.known_peers.with_label_values(&[&local, &remote]).set(1);
                info!(member_id = format_args!("{:x}", member.id), learner, peer_urls, "a member was added");
            }
            Effect::MemberRemoved { id } if *id == own => {
                warn!(member_id = format_args!("{id:x}"), "this member was removed from the cluster");
            }
            Effect::MemberRemoved { id } => info!(member_id = format_args!("{id:x}"), "a member was removed"),
            Effect::MemberUrlsSet { id, peer_urls } => {
                let peer_urls = peer_urls.join(",");
                info!(member_id = format_args!("{id:x}"), peer_urls, "a member is reached elsewhere");
            }
            Effect::MemberDescribed(MemberDescription { id, name, client_urls, apply_version, .. }) => {
                let client_urls = client_urls.join(",");
                info!(member_id = format_args!("{id:x}"), name, client_urls, apply_version, "a member said who it is");
            }
            Effect::ApplyVersionRaised { version } => {
                drop(self.links.node.send(NodeInput::ApplyVersion(*version)));
                self.links.metrics.apply_version.set((*version).into());
                info!(apply_version = version, "all members know newer rules: from now on they apply by them");
            }
            Effect::MemberPromoted { id } => info!(member_id = format_args!("{id:x}"), "a learner votes from now on"),
            _ => {}
        }
    }

    /// Compares with who proposed this mark. Whoever differs says so: if most do, it is the proposer.
    pub(super) fn compare(&mut self, index: u64, entry: &LogEntry) {
        let sums = self.machine.store().sums();
        match self.marks.applied(index, entry, &sums) {
            Comparison::None => {}
            Comparison::Equal => self.links.metrics.hash_marks_equal_total.inc(),
            Comparison::Different { index } => {
                self.links.metrics.hash_marks_different_total.inc();
                let proposer = format_args!("{:x}", entry.proposer);
                error!(
                    index,
                    proposer,
                    "the data of this member differs from that of another: what both applied up to this entry is not the same"
                );
                self.raise(AlarmKind::Corrupt);
            }
        }
    }

    /// The leader raises the rules as soon as all members know newer ones.
    pub(super) fn raise_apply_version_if_due(&mut self) {
        let (members, now) = (self.machine.members(), self.links.started.elapsed());
        let version = members.apply_version_of_all();
        let leads = self.links.gauges.leads.load(Ordering::Relaxed);
        if leads && version > members.apply_version() && now >= self.raise_again_at {
            self.raise_again_at = now + RAISE_PAUSE;
            self.propose(Kind::ApplyVersionSet(ApplyVersionSet { apply_version: version }));
        }
    }

    /// The leader of several members marks the log now and then.
    pub(super) fn mark_if_due(&mut self) {
        let leads = self.links.gauges.leads.load(Ordering::Relaxed);
        if !leads || self.replacing.under_way || self.machine.members().iter().count() < 2 {
            return;
        }
        let (now, applied) = (self.links.started.elapsed(), self.machine.store().applied.index);
        if let Some(mark) = self.marks.next(now, applied) {
            self.propose(Kind::HashMark(mark));
        }
    }
}
