//! What etcd's Status does not tell of a member: for `basaltctl status`, and whoever waits for a state that travels.

use std::sync::Arc;

use basalt_proto::node::{Departure, DescribeResponse, Follower};

use super::chunks::Chunks;
use super::service::{Reply, Service};

impl Service {
    /// Asks nobody: a member that is cut off answers too.
    pub(super) fn describe(self: &Arc<Self>) -> Reply {
        let node = &self.node;
        let member_id = node.identity.member_id;
        let name = node.members.load().get(member_id).map(|member| member.name.clone());
        let p99 = self.metrics.log_syncs.p99().unwrap_or_default();
        let follower = |(member_id, lag_entries)| Follower { member_id, lag_entries };
        let departures = self.peers.as_ref().map(|peers| peers.departing()).unwrap_or_default();
        Reply::Ready(Ok(Chunks::of(&DescribeResponse {
            member_id,
            name: name.unwrap_or_default(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            log_sync_p99_ns: i64::try_from(p99.as_nanos()).unwrap_or(i64::MAX),
            followers: node.lags().into_iter().map(follower).collect(),
            departures: departures.into_iter().map(|(member_id, bytes)| Departure { member_id, bytes }).collect(),
        })))
    }
}
