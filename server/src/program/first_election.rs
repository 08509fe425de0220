//! `--initial-election-tick-advance`: a start that reaches the other members and hears of no leader need not wait for a whole
//! election timeout (etcd `EtcdServer.adjustTicks`).

use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use crate::api::service::Service;
use crate::config::RaftConfig;
use crate::peer::Peers;

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// As long as etcd looks; most timeouts have passed by themselves then.
const LOOKS_END: Duration = Duration::from_secs(5);
/// A single other member is no sign that all are there (etcd: `peerN > 1`).
const REACHED_MIN: usize = 2;

/// Looks until enough members are reached, a leader is known, or there was time enough.
pub(super) async fn advance_first_election(service: Arc<Service>, peers: Arc<Peers>, raft: RaftConfig) {
    let election_ticks = raft.election_ticks;
    if !raft.initial_tick_advance {
        info!(election_ticks, "skipping initial election tick advance");
        return;
    }
    info!(election_ticks, "starting initial election tick advance");
    let node = &service.node;
    let Ok(Some(reached)) = tokio::time::timeout(LOOKS_END, enough_reached(&service, &peers)).await else { return };
    info!(
        local_member_id = format_args!("{:x}", node.identity.member_id),
        forward_ticks = election_ticks.saturating_sub(2),
        election_ticks,
        active_remote_members = reached,
        "initialized peer connections; fast-forwarding election ticks"
    );
    node.advance_election();
}

/// How many are reached, once they are enough; nothing when a leader is known.
async fn enough_reached(service: &Service, peers: &Peers) -> Option<usize> {
    let node = &service.node;
    loop {
        let members = node.members.load_full();
        let mut reached = 0;
        for member in members.iter().filter(|member| member.id != node.identity.member_id) {
            if node.leader().is_some() {
                return None;
            }
            reached += usize::from(peers.is_there(member.id).await);
        }
        if reached >= REACHED_MIN {
            return Some(reached);
        }
        tokio::time::sleep(LOOK).await;
    }
}
