//! Apply, when the members of the cluster change.

use tracing::{info, warn};

use super::apply_thread::ApplyThread;
use super::core::conf_change_of;
use super::node_thread::NodeInput;
use crate::apply::effects::Effect;

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
            Effect::MemberPromoted { id } => info!(member_id = format_args!("{id:x}"), "a learner votes from now on"),
            _ => {}
        }
    }
}
