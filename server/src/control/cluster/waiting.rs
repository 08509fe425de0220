//! Waiting for a learner: until it has started, was brought the state, and votes.

use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::{MemberPromoteRequest, StatusRequest};
use basalt_proto::node::{DescribeRequest, DescribeResponse};

use super::ClusterError;
use super::connection::{Connection, Connector};

/// Between two looks.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// Promotes a learner as soon as that can be, and tells on standard error how far it is.
///
/// # Errors
/// It is none, the cluster refuses for another reason than that it is too early, or time is up: the same command goes on.
pub(super) async fn until_promoted(
    connector: &Connector,
    connection: &Connection,
    id: u64,
    timeout: Duration,
) -> Result<(), ClusterError> {
    let (began, mut told) = (Instant::now(), String::new());
    loop {
        let mut cluster = connection.cluster();
        let refused = match connector.within(cluster.member_promote(MemberPromoteRequest { id })).await {
            Ok(_) => return Ok(()),
            Err(status) => status,
        };
        match refused.message() {
            // The answer to the first try was lost.
            "etcdserver: can only promote a learner member" => return Ok(()),
            "etcdserver: can only promote a learner member which is in sync with leader"
            | "etcdserver: re-configuration failed due to not enough started members" => {}
            // A leader that is lost meanwhile is replaced.
            _ if refused.code() == tonic::Code::Unavailable || refused.code() == tonic::Code::DeadlineExceeded => {}
            _ => return Err(ClusterError::refused(format!("cannot promote {id:x}"))(refused)),
        }
        if began.elapsed() > timeout {
            return Err(ClusterError::Other(format!(
                "member {id:x} does not vote yet after {} s; run the same command again to wait on, or `basaltctl member \
                 promote {id:x}` later",
                timeout.as_secs()
            )));
        }
        let progress = progress(connector, connection, id).await;
        if progress != told {
            eprintln!("{progress}");
            told = progress;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// How far a learner is, in words.
async fn progress(connector: &Connector, connection: &Connection, id: u64) -> String {
    let members = connector.within(connection.members()).await.unwrap_or_default();
    let Some(member) = members.iter().find(|member| member.id == id) else {
        return format!("member {id:x} is not known here");
    };
    let leader = leader(connector, connection, &members).await;
    if let Some(said) = &leader
        && let Some(departure) = said.departures.iter().find(|departure| departure.member_id == id)
    {
        return format!("member {id:x} is brought the whole state: {} MiB so far", departure.bytes >> 20);
    }
    let lag = leader.and_then(|said| said.followers.into_iter().find(|follower| follower.member_id == id));
    match (member.name.is_empty(), lag) {
        (true, _) => format!("waiting for member {id:x} to start"),
        (false, Some(follower)) => format!("member {id:x} lacks {} entries", follower.lag_entries),
        (false, None) => format!("member {id:x} catches up"),
    }
}

/// What the leader says of the others.
async fn leader(
    connector: &Connector,
    connection: &Connection,
    members: &[basalt_proto::etcdserverpb::Member],
) -> Option<DescribeResponse> {
    let mut maintenance = connection.maintenance();
    let status = connector.within(maintenance.status(StatusRequest {})).await.ok()?.into_inner();
    let leader = members.iter().find(|member| member.id == status.leader)?;
    let reached = connector.reach(leader.client_urls.first()?).await.ok()?;
    let mut node = reached.node();
    Some(connector.within(node.describe(DescribeRequest {})).await.ok()?.into_inner())
}
