//! Joining a running cluster: who belongs to it, and as whom, is asked of the members that are named.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_proto::members::{Member, Membership};
use basalt_proto::peer::{MembersRequest, MembersResponse};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use super::connect::PeerConnector;
use crate::apply::machine::APPLY_VERSION;
use crate::config::Url;
use crate::node::handle::Identity;
use crate::resolution::{Hosts, Lookups, SystemHosts};

/// How long one member may take to be reached and to answer; its own quorum read is in it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the others may take to say whom they know; a new cluster waits for those that start at the same time.
const KNOWN_TIMEOUT: Duration = Duration::from_secs(1);

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

/// Asks the members named in `initial_cluster`, all but the one at `own_urls`, until one answers; its members must be those named
/// there, by where their peer URLs lead (etcd `ValidateClusterAndAssignIDs`).
///
/// Where no quorum confirms an answer, what one of them knows counts, as in etcd: of two voters the second may be who joins.
///
/// # Errors
/// In words for whoever starts the member.
pub async fn join(
    connector: &PeerConnector,
    initial_cluster: &[(String, Vec<Url>)],
    own_urls: &[Url],
) -> Result<Joined, String> {
    let others = initial_cluster.iter().filter(|(_, urls)| !same(urls, own_urls)).flat_map(|(_, urls)| urls);
    let mut tried = BTreeMap::new();
    for (as_known, url) in others.clone().map(|url| (false, url)).chain(others.map(|url| (true, url))) {
        let url = url.as_str();
        let error = match timeout(ANSWER_TIMEOUT, ask(connector, url, as_known)).await {
            Ok(Ok(answer)) => {
                info!(url, "asked a member who belongs to the cluster");
                return assign(&SystemHosts, answer, initial_cluster, own_urls).await;
            }
            Ok(Err(error)) => error,
            Err(_) => "no answer in time".to_owned(),
        };
        warn!(url, error, as_known, "a member does not say who belongs to the cluster");
        tried.insert(url, error);
    }
    let tried: Vec<String> = tried.into_iter().map(|(url, error)| format!("{url}: {error}")).collect();
    Err(format!(
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs ({}); start \
         the other members, or correct --initial-cluster",
        tried.join("; ")
    ))
}

/// Refuses to begin anew as a member that the others know already (etcd `isMemberBootstrapped`): asks all that are reached.
/// One that none of them reaches yet is refused when they meet.
///
/// # Errors
/// In words for whoever starts the member.
pub async fn refuse_known(
    connector: &PeerConnector,
    initial_cluster: &[(String, Vec<Url>)],
    own_urls: &[Url],
    identity: &Identity,
) -> Result<(), String> {
    let others = initial_cluster.iter().filter(|(_, urls)| !same(urls, own_urls)).flat_map(|(_, urls)| urls);
    let mut asked: JoinSet<_> = others
        .map(|url| {
            let (connector, url) = (connector.clone(), url.as_str().to_owned());
            async move { timeout(KNOWN_TIMEOUT, ask(&connector, &url, true)).await }
        })
        .collect();
    while let Some(answer) = asked.join_next().await {
        // Who is not there, or not yet, knows nothing.
        let Ok(Ok(Ok(answer))) = answer else { continue };
        if answer.cluster_id == identity.cluster_id {
            check_unknown(&answer.membership.unwrap_or_default(), identity.member_id)?;
        }
    }
    Ok(())
}

fn check_unknown(membership: &Membership, id: u64) -> Result<(), String> {
    let known = membership.members.iter().find(|member| member.id == id);
    let is_known = known.is_some_and(|member| !member.incarnation.is_empty() || !member.client_urls.is_empty());
    if is_known || membership.removed.contains(&id) {
        return Err(format!(
            "member {id:x} has already been bootstrapped, and this data directory is empty: if its data is lost, remove it \
             (etcdctl member remove {id:x}), add it again (etcdctl member add), and start it with --initial-cluster-state existing"
        ));
    }
    Ok(())
}

async fn ask(connector: &PeerConnector, url: &str, as_known: bool) -> Result<MembersResponse, String> {
    let mut client = connector.connect(url).await?;
    let answer = client.members(MembersRequest { as_known }).await.map_err(|status| status.message().to_owned())?;
    Ok(answer.into_inner())
}

async fn assign(
    hosts: &impl Hosts,
    answer: MembersResponse,
    initial_cluster: &[(String, Vec<Url>)],
    own_urls: &[Url],
) -> Result<Joined, String> {
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
    let own = listed_as(hosts, &membership.members, initial_cluster, own_urls).await.map_err(failed)?;
    // One that was added and never ran is known by its URLs alone.
    check_unknown(&membership, own)?;
    if membership.apply_version > APPLY_VERSION {
        let found = membership.apply_version;
        return Err(format!(
            "all members of the cluster apply by rules {found}, this release knows up to {APPLY_VERSION}: start the release \
             that the others run"
        ));
    }
    Ok(Joined { cluster_id: answer.cluster_id, member_id: own, membership, shards: answer.shards })
}

/// The id of the member that is listed at `own_urls`; every other one has to be listed too. As many are listed as there are, and
/// neither side has a URL twice.
async fn listed_as(
    hosts: &impl Hosts,
    members: &[Member],
    listed: &[(String, Vec<Url>)],
    own_urls: &[Url],
) -> Result<u64, String> {
    let mut left: Vec<&[Url]> = listed.iter().map(|(_, urls)| &urls[..]).collect();
    let mut written_otherwise = Vec::new();
    let mut own = None;
    for member in members {
        let Some(at) = left.iter().position(|urls| same_texts(urls, &member.peer_urls)) else {
            written_otherwise.push(member);
            continue;
        };
        if same(left.swap_remove(at), own_urls) {
            own = Some(member.id);
        }
    }
    // Only what is written otherwise is looked up: the names of members that are down may be unknown meanwhile.
    let lookups = Lookups::of(hosts);
    for member in written_otherwise {
        let at = position_of(&lookups, member, &left).await?;
        if same(left.swap_remove(at), own_urls) {
            own = Some(member.id);
        }
    }
    own.ok_or_else(|| "this member is not among those of the cluster".to_owned())
}

/// Which of the listed URLs lead where a member is reached.
async fn position_of(lookups: &Lookups<'_, impl Hosts>, member: &Member, listed: &[&[Url]]) -> Result<usize, String> {
    let mut last_error = "none".to_owned();
    // A cluster takes URLs of any form in an update, and lists have none but those of the known forms.
    if let Ok(urls) = member.peer_urls.iter().map(|url| Url::parse(url)).collect::<Result<Vec<_>, _>>() {
        for (at, listed) in listed.iter().enumerate() {
            match lookups.expect_same(&urls, listed).await {
                Ok(()) => return Ok(at),
                Err(error) => last_error = error,
            }
        }
    }
    let (id, urls) = (member.id, member.peer_urls.join(","));
    Err(format!("PeerURLs: no match found for existing member ({id:x}, [{urls}]), last resolver error ({last_error})"))
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
    use std::net::IpAddr;

    use super::*;

    /// Knows `m1.example.org` alone.
    struct Known;

    impl Hosts for Known {
        async fn address(&self, host: &str) -> Result<IpAddr, String> {
            let known = (host == "m1.example.org").then(|| IpAddr::from([10, 0, 0, 1]));
            known.ok_or_else(|| format!("lookup {host}: no such host"))
        }
    }

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
    fn who_is_known_does_not_begin_anew() {
        let member = Member { id: 2, name: "b".to_owned(), ..Member::default() };
        let mut membership = Membership { members: vec![member], ..Membership::default() };
        assert_eq!(check_unknown(&membership, 2), Ok(()));
        assert_eq!(check_unknown(&membership, 9), Ok(()));
        membership.members[0].incarnation = vec![7; 16].into();
        assert!(
            check_unknown(&membership, 2).expect_err("known").starts_with("member 2 has already been bootstrapped")
        );
        let left = Membership { removed: vec![2], ..Membership::default() };
        assert!(check_unknown(&left, 2).is_err());
    }

    #[tokio::test]
    async fn who_ran_before_does_not_join_again() {
        let cluster = [("a".to_owned(), url("http://a:1")), ("b".to_owned(), url("http://b:1"))];
        let mut answer = answer(&[(1, "http://a:1"), (2, "http://b:1")]);
        answer.membership.as_mut().expect("members").members[1].incarnation = vec![7; 16].into();
        let refused = assign(&Known, answer, &cluster, &url("http://b:1")).await.expect_err("it ran before");
        assert!(refused.starts_with("member 2 has already been bootstrapped"), "{refused}");
    }

    #[tokio::test]
    async fn a_newer_cluster_is_not_joined() {
        let cluster = [("a".to_owned(), url("http://a:1")), ("b".to_owned(), url("http://b:1"))];
        let mut answer = answer(&[(1, "http://a:1"), (2, "http://b:1")]);
        answer.membership.as_mut().expect("members").apply_version = APPLY_VERSION + 1;
        let refused = assign(&Known, answer, &cluster, &url("http://b:1")).await.expect_err("newer");
        assert!(refused.contains("apply by rules"), "{refused}");
    }

    #[tokio::test]
    async fn a_member_is_who_was_added_under_its_urls() {
        let cluster = [("a".to_owned(), url("http://a:1")), ("b".to_owned(), url("http://b:1"))];
        let own = url("http://b:1");
        let assigned = async |members: &[(u64, &str)]| assign(&Known, answer(members), &cluster, &own).await;
        let joined = assigned(&[(1, "http://a:1"), (2, "http://b:1")]).await.expect("added before");
        assert_eq!((joined.cluster_id, joined.member_id), (9, 2));
        assert!(assigned(&[(1, "http://a:1")]).await.expect_err("one less").contains("member count is unequal"));
        assert!(assign(&Known, MembersResponse::default(), &cluster, &own).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn members_are_known_by_where_their_urls_lead() {
        let cluster = [
            ("down".to_owned(), url("http://down.example.org:1")),
            ("m1".to_owned(), url("http://m1.example.org:1")),
            ("m2".to_owned(), url("http://10.0.0.2:1")),
        ];
        let assigned = async |members: &[(u64, &str)], own: &str| {
            assign(&Known, answer(members), &cluster, &url(own)).await.map(|joined| joined.member_id)
        };
        let began = tokio::time::Instant::now();
        let members = [(1, "http://10.0.0.1:1"), (2, "http://10.0.0.2:1"), (3, "http://down.example.org:1")];
        assert_eq!(assigned(&members, "http://m1.example.org:1").await, Ok(1));
        assert_eq!(assigned(&members, "http://10.0.0.2:1").await, Ok(2));
        assert!(began.elapsed().is_zero(), "names that are written alike are waited for");
        let stranger = [(1, "http://10.0.0.1:1"), (2, "http://10.0.0.9:1"), (3, "http://down.example.org:1")];
        let refused = assigned(&stranger, "http://m1.example.org:1").await.expect_err("who is 10.0.0.9?");
        assert!(
            refused.contains(
                "error validating peerURLs: PeerURLs: no match found for existing member (2, [http://10.0.0.9:1]), last \
                 resolver error (resolved urls: \"http://10.0.0.9:1\" != \"http://10.0.0.2:1\")"
            ),
            "{refused}"
        );
        let formless = [(1, "http://10.0.0.1:1"), (2, "m2"), (3, "http://down.example.org:1")];
        let refused = assigned(&formless, "http://m1.example.org:1").await.expect_err("who is m2?");
        assert!(refused.contains("no match found for existing member (2, [m2])"), "{refused}");
    }
}
