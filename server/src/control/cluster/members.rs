//! `member`: list, add, remove, promote, replace.

use basalt_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberPromoteRequest, MemberRemoveRequest,
};
use serde_json::json;

use super::connection::{Connection, Connector};
use super::table::Table;
use super::waiting::{PAUSE, until_promoted};
use super::{ClusterError, ClusterOptions};

/// How long a change that a cluster takes for unhealthy is tried again: members count as reached after five seconds.
const UNHEALTHY_TRIES: u32 = 40;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) enum MemberCommand {
    List,
    Add {
        name: String,
        peer_urls: Vec<String>,
        learner: bool,
    },
    Remove {
        id: u64,
    },
    Promote {
        id: u64,
    },
    /// Another one in the place of one that is lost.
    Replace {
        id: u64,
        name: String,
        peer_urls: Vec<String>,
    },
}

/// Does it; gives what to print.
pub(in crate::control) async fn run(command: &MemberCommand, options: &ClusterOptions) -> Result<String, ClusterError> {
    let connector = Connector::new(options);
    let (connection, members) = connector.any(&options.endpoints).await?;
    match command {
        MemberCommand::List => Ok(list(&members, options)),
        MemberCommand::Add { name, peer_urls, learner } => {
            let added = add(&connector, &connection, peer_urls, *learner).await?;
            Ok(added_text(name, &added))
        }
        MemberCommand::Remove { id } => {
            remove(&connector, &connection, *id).await?;
            Ok(format!("Member {id:x} removed\n"))
        }
        MemberCommand::Promote { id } => {
            let mut cluster = connection.cluster();
            let promoted = connector.within(cluster.member_promote(MemberPromoteRequest { id: *id })).await;
            promoted.map_err(ClusterError::refused(format!("cannot promote {id:x}")))?;
            Ok(format!("Member {id:x} promoted\n"))
        }
        MemberCommand::Replace { id, name, peer_urls } => {
            if members.iter().any(|member| member.id == *id) {
                remove(&connector, &connection, *id).await?;
                eprintln!("member {id:x} removed");
            }
            let added = match unstarted_at(&members, peer_urls) {
                // The same command, a second time.
                Some(member) => {
                    MemberAddResponse { member: Some(member.clone()), members, ..MemberAddResponse::default() }
                }
                None => add(&connector, &connection, peer_urls, true).await?,
            };
            let new = added.member.as_ref().map_or(0, |member| member.id);
            eprintln!(
                "{}start it now, with an empty data directory; it is promoted when it has caught up",
                added_text(name, &added)
            );
            until_promoted(&connector, &connection, new, options.wait_timeout).await?;
            Ok(format!("Member {id:x} replaced by {new:x}\n"))
        }
    }
}

/// A member that was added with these URLs and has not started.
pub(super) fn unstarted_at<'a>(members: &'a [Member], peer_urls: &[String]) -> Option<&'a Member> {
    members.iter().find(|member| member.name.is_empty() && member.peer_urls == peer_urls)
}

/// Removes a member, as soon as the cluster takes it.
pub(super) async fn remove(connector: &Connector, connection: &Connection, id: u64) -> Result<(), ClusterError> {
    let doing = || format!("cannot remove {id:x}");
    unless_unhealthy(doing, async || {
        let mut cluster = connection.cluster();
        connector.within(cluster.member_remove(MemberRemoveRequest { id })).await.map(drop)
    })
    .await
}

/// Adds a member, as soon as the cluster takes it.
pub(super) async fn add(
    connector: &Connector,
    connection: &Connection,
    peer_urls: &[String],
    is_learner: bool,
) -> Result<MemberAddResponse, ClusterError> {
    let doing = || format!("cannot add a member at {}", peer_urls.join(","));
    unless_unhealthy(doing, async || {
        let request = MemberAddRequest { peer_urls: peer_urls.to_vec(), is_learner };
        let mut cluster = connection.cluster();
        connector.within(cluster.member_add(request)).await.map(tonic::Response::into_inner)
    })
    .await
}

async fn unless_unhealthy<T>(
    doing: impl Fn() -> String,
    mut change: impl AsyncFnMut() -> Result<T, tonic::Status>,
) -> Result<T, ClusterError> {
    let mut tries = 0;
    loop {
        match change().await {
            Ok(done) => return Ok(done),
            Err(status) if status.message() == "etcdserver: unhealthy cluster" && tries < UNHEALTHY_TRIES => {
                if tries == 0 {
                    eprintln!("the cluster counts a member as reached after five seconds; waiting");
                }
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) => return Err(ClusterError::refused(doing())(status)),
        }
    }
}

fn list(members: &[Member], options: &ClusterOptions) -> String {
    let mut table = Table::new(&["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"]);
    for member in members {
        let status = if member.name.is_empty() { "unstarted" } else { "started" };
        table.push(vec![
            json!(format!("{:x}", member.id)),
            json!(status),
            json!(member.name),
            json!(member.peer_urls.join(",")),
            json!(member.client_urls.join(",")),
            json!(member.is_learner),
        ]);
    }
    table.text(options.format)
}

/// As etcdctl prints it: the flags of the new member.
fn added_text(name: &str, added: &MemberAddResponse) -> String {
    let id = added.member.as_ref().map_or(0, |member| member.id);
    let cluster_id = added.header.as_ref().map(|header| format!(" to cluster {:x}", header.cluster_id));
    let peer_urls = added.member.as_ref().map(|member| member.peer_urls.join(",")).unwrap_or_default();
    format!(
        "Member {id:x} added{}\n\nETCD_NAME={name:?}\nETCD_INITIAL_CLUSTER={:?}\nETCD_INITIAL_ADVERTISE_PEER_URLS={peer_urls:?}\n\
         ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
        cluster_id.unwrap_or_default(),
        initial_cluster(&added.members, id, name),
    )
}

/// All members as `--initial-cluster` has them, of which one is called `name`.
pub(super) fn initial_cluster(members: &[Member], id: u64, name: &str) -> String {
    let name_of = |member: &Member| match member.name.as_str() {
        _ if member.id == id => name.to_owned(),
        "" => format!("unstarted-{:x}", member.id),
        known => known.to_owned(),
    };
    let pairs = members.iter().flat_map(|member| {
        let name = name_of(member);
        member.peer_urls.iter().map(move |url| format!("{name}={url}"))
    });
    pairs.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_member_has_its_name_and_all_have_one() {
        let member = |id: u64, name: &str| Member {
            id,
            name: name.to_owned(),
            peer_urls: vec![format!("http://m{id}:2380")],
            ..Member::default()
        };
        let members = [member(1, "a"), member(2, ""), member(3, "")];
        let text = initial_cluster(&members, 2, "new");
        assert_eq!(text, "a=http://m1:2380,new=http://m2:2380,unstarted-3=http://m3:2380");
        let at = |url: &str| unstarted_at(&members, &[url.to_owned()]).map(|member| member.id);
        assert_eq!((at("http://m2:2380"), at("http://m1:2380")), (Some(2), None));
    }
}
