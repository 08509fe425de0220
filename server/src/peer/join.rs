//! Joining a running cluster: who belongs to it, and as whom, is asked of the members that are named.

use std::time::Duration;

use basalt_proto::members::Membership;
use basalt_proto::peer::{MembersRequest, MembersResponse};
use tokio::time::timeout;
use tracing::{info, warn};

use super::connect::PeerConnector;
use crate::config::Url;

/// How long one member may take to be reached and to answer; its own quorum read is in it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a member without data is told about the cluster that it is to join.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The cluster.
    pub cluster_id: u64,
    /// This member, which was added before.
    pub member_id: u64,
    /// All members.
    pub membership: Membership,
    /// How keys are split, as `--basalt-initial-shards` has it.
    pub shards: String,
}

/// Asks the members named in `initial_cluster`, all but this one, until one answers; its members must be those named there,
/// by their peer URLs, and this one among them (etcd `ValidateClusterAndAssignIDs`).
///
/// # Errors
/// In words for whoever starts the member.
pub async fn join(
    connector: &PeerConnector,
    initial_cluster: &[(String, Vec<Url>)],
    own_urls: &[Url],
) -> Result<Joined, String> {
    let others = initial_cluster.iter().filter(|(_, urls)| !same(urls, own_urls)).flat_map(|(_, urls)| urls);
    let mut tried = Vec::new();
    for url in others {
        match timeout(ANSWER_TIMEOUT, ask(connector, url.as_str())).await {
            Ok(Ok(answer)) => {
                info!(url = url.as_str(), "asked a member who belongs to the cluster");
                return assign(answer, initial_cluster, own_urls);
            }
            Ok(Err(error)) => tried.push((url.as_str(), error)),
            Err(_) => tried.push((url.as_str(), "no answer in time".to_owned())),
        }
        if let Some((url, error)) = tried.last() {
            warn!(url, error, "a member does not say who belongs to the cluster");
        }
    }
    let tried: Vec<String> = tried.into_iter().map(|(url, error)| format!("{url}: {error}")).collect();
    Err(format!(
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs ({}); start \
         the other members, or correct --initial-cluster",
        tried.join("; ")
    ))
}

async fn ask(connector: &PeerConnector, url: &str) -> Result<MembersResponse, String> {
    let mut client = connector.connect(url).await?;
    let answer = client.members(MembersRequest {}).await.map_err(|status| status.message().to_owned())?;
    Ok(answer.into_inner())
}

fn assign(answer: MembersResponse, initial_cluster: &[(String, Vec<Url>)], own_urls: &[Url]) -> Result<Joined, String> {
    let membership = answer.membership.ok_or("the member's answer holds no members")?;
    let failed = |why: String| {
        format!(
            "error validating peerURLs: {why}; add this member with `etcdctl member add` first, and give the \
             --initial-cluster that it prints"
        )
    };
    if membership.members.len() != initial_cluster.len() {
        let (found, given) = (membership.members.len(), initial_cluster.len());
        return Err(failed(format!(
            "member count is unequal: the cluster has {found} members, --initial-cluster {given}"
        )));
    }
    for member in &membership.members {
        if !initial_cluster.iter().any(|(_, urls)| same_texts(urls, &member.peer_urls)) {
            let (id, urls) = (member.id, member.peer_urls.join(","));
            return Err(failed(format!("PeerURLs: no match found for existing member ({id:x}, [{urls}])")));
        }
    }
    let own = membership.members.iter().find(|member| same_texts(own_urls, &member.peer_urls));
    let own = own.ok_or_else(|| failed("this member is not among those of the cluster".to_owned()))?;
    Ok(Joined { cluster_id: answer.cluster_id, member_id: own.id, membership, shards: answer.shards })
}

fn same(one: &[Url], other: &[Url]) -> bool {
    let other: Vec<String> = other.iter().map(|url| url.as_str().to_owned()).collect();
    same_texts(one, &other)
}

fn same_texts(urls: &[Url], texts: &[String]) -> bool {
    let mut urls: Vec<&str> = urls.iter().map(Url::as_str).collect();
    let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    urls.sort_unstable();
    texts.sort_unstable();
    urls == texts
}

#[cfg(test)]
mod tests {
    use basalt_proto::members::Member;

    use super::*;

    fn url(text: &str) -> Vec<Url> {
        vec![Url::parse(text).expect("a URL")]
    }

    fn answer(members: &[(u64, &str)]) -> MembersResponse {
        let member =
            |(id, url): &(u64, &str)| Member { id: *id, peer_urls: vec![(*url).to_owned()], ..Member::default() };
        let membership = Membership { members: members.iter().map(member).collect(), ..Membership::default() };
        MembersResponse { cluster_id: 9, membership: Some(membership), ..MembersResponse::default() }
    }

    #[test]
    fn a_member_is_who_was_added_under_its_urls() {
        let cluster = [("a".to_owned(), url("http://a:1")), ("b".to_owned(), url("http://b:1"))];
        let own = url("http://b:1");
        let joined = assign(answer(&[(1, "http://a:1"), (2, "http://b:1")]), &cluster, &own).expect("added before");
        assert_eq!((joined.cluster_id, joined.member_id), (9, 2));
        let refused = |members: &[(u64, &str)]| assign(answer(members), &cluster, &own).expect_err("refused");
        assert!(refused(&[(1, "http://a:1")]).contains("member count is unequal"));
        assert!(refused(&[(1, "http://a:1"), (2, "http://c:1")]).contains("no match found for existing member (2,"));
        assert!(assign(MembersResponse::default(), &cluster, &own).is_err());
    }
}
