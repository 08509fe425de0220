//! A member of a cluster, from its first start to its last: who it is, that the others know it, and that it is one no more.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use basalt_proto::log::MemberDescription;
use basalt_proto::log::request::Kind;
use basalt_proto::members::Member;
use basalt_storage::checkpoint::manifest::MEMBERSHIP_BYTES_MAX;
use basalt_storage::mvcc::view::LogPosition;
use bytes::Bytes;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{ProgramError, texts};
use crate::api::service::Service;
use crate::apply::answer::Refusal;
use crate::apply::auth::check::cluster_principal;
use crate::apply::machine::APPLY_VERSION;
use crate::apply::member_bounds::check_member;
use crate::apply::members::Members;
use crate::config::{Bootstrap, Config, Discovery, JoinFile};
use crate::discovery::{DiscoveryError, find_members};
use crate::failpoints::{self, Point};
use crate::node::handle::{Expelled, Identity, Unavailable};
use crate::node::start::{First, FirstStart};
use crate::peer::{Joined, PeerConnector, join, refuse_known};
use crate::resolution::{SystemHosts, expect_advertised};

/// Pause before a member describes itself again.
const DESCRIBE_PAUSE: Duration = Duration::from_secs(1);

/// This member belongs to the cluster no more: it stops, as etcd's do, once the others had time to hear of it. One that left is
/// done; one whose data was lost has to come back in another way.
pub(super) async fn expelled(mut expelled: watch::Receiver<Option<Expelled>>, grace: Duration) -> Expelled {
    let cause = match expelled.wait_for(Option::is_some).await {
        Ok(cause) => *cause,
        Err(_) => None,
    };
    // The apply thread is gone only when the process is about to be.
    let Some(cause) = cause else { return std::future::pending().await };
    tokio::time::sleep(grace).await;
    if cause == Expelled::Removed {
        error!(
            "this member was removed from the cluster and stops; its data is of no use to it: add it as a new member, with an empty data directory"
        );
    }
    cause
}

/// How the program ends where this member is expelled.
///
/// # Errors
/// Where its data was lost.
pub(super) fn end_of(cause: Expelled, member_id: u64) -> Result<(), ProgramError> {
    match cause {
        Expelled::Removed => Ok(()),
        Expelled::Wiped => Err(format!(
            "member {member_id:x} ran before with another data directory, which is lost, and with it what it promised to keep: \
             it has no vote any more. Remove it (etcdctl member remove {member_id:x}), add it again (etcdctl member add), and \
             start it with an empty data directory and --initial-cluster-state existing"
        )
        .into()),
    }
}

/// A leader that stops lets another lead first, so that writes go on; not longer than an election would take.
pub(super) async fn hand_over(service: &Service, election_timeout: Duration) {
    let node = &service.node;
    let leads = || node.gauges.leads.load(Ordering::Relaxed);
    if !leads() || node.gauges.single_voter.load(Ordering::Relaxed) {
        return;
    }
    node.hand_over();
    let handed_over = async {
        while leads() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    match tokio::time::timeout(election_timeout, handed_over).await {
        Ok(()) => info!("another member leads"),
        Err(_) => warn!("no other member took over the lead in time: the others elect one"),
    }
}

/// Whether the cluster takes what this member is to say of itself: else it would never know who this is.
///
/// # Errors
/// Which flags say too much.
pub(super) fn check_own(config: &Config) -> Result<(), ProgramError> {
    let said = Member {
        name: config.name.clone(),
        peer_urls: texts(&config.peer.advertise_urls),
        client_urls: texts(&config.client.advertise_urls),
        ..Member::default()
    };
    let flags = "--name, --initial-advertise-peer-urls and --advertise-client-urls";
    check_member(&said).map_err(|bound| format!("{flags}: {bound}; give fewer or shorter ones").into())
}

/// What this member says of itself.
pub(super) fn description(service: &Service, name: &str, client_urls: &[String]) -> MemberDescription {
    let node = &service.node;
    MemberDescription {
        id: node.identity.member_id,
        name: name.to_owned(),
        client_urls: client_urls.to_vec(),
        incarnation: Bytes::copy_from_slice(&node.incarnation.to_le_bytes()),
        apply_version: APPLY_VERSION,
        disk_full: false,
    }
}

/// Tells the cluster who this member is, unless it knows; again until it does.
pub(super) async fn describe(service: Arc<Service>, description: MemberDescription) {
    failpoints::hit_in_task(Point::BeforePublishing).await;
    let node = &service.node;
    loop {
        let members = node.members.load();
        // A member that left describes nobody.
        let Some(member) = members.get(description.id) else { return };
        let is_known = member.name == description.name
            && member.client_urls == description.client_urls
            && member.incarnation == description.incarnation
            && member.apply_version == description.apply_version
            // What a former life said of its disk may be over; the next checkpoint says it again if it is not.
            && member.disk_full == description.disk_full;
        if is_known {
            return;
        }
        drop(members);
        let described = match node.propose(Kind::MemberDescription(description.clone()), Some(cluster_principal())) {
            Ok(proposed) => match tokio::time::timeout(service.request_timeout, proposed).await {
                Ok(described) => described.map(drop),
                Err(_) => Err(Unavailable::TimedOut),
            },
            Err(unavailable) => Err(unavailable),
        };
        if let Err(Unavailable::Refused(Refusal::MemberWiped)) = described {
            return node.expel(Expelled::Wiped);
        }
        if let Err(error) = described {
            warn!(%error, "the cluster does not know who this member is yet; trying again");
            tokio::time::sleep(DESCRIBE_PAUSE).await;
        }
    }
}

/// What is asked of a first start, and whether it was.
pub(super) struct FirstStarting {
    pub(super) first: First,
    asked: Arc<AtomicBool>,
}

impl FirstStarting {
    /// Says that a discovery service was not asked, for there is data (etcd `bootstrapClusterWithWAL`).
    pub(super) fn warn_of_ignored(&self, config: &Config) {
        if matches!(config.peer.discovery, Some(Discovery::Service(_))) && !self.asked.load(Ordering::Relaxed) {
            let data_dir = config.data_dir.display();
            warn!(%data_dir, "discovery token is ignored since cluster already initialized; valid logs are found");
        }
    }
}

/// Who this member is if it has no data: one of the first of a new cluster, or one that was added to a running one.
pub(super) fn first_start(config: &Config, connector: PeerConnector, runtime: tokio::runtime::Handle) -> FirstStarting {
    let (config, asked) = (config.clone(), Arc::new(AtomicBool::new(false)));
    let told = asked.clone();
    let first = First(Arc::new(move || {
        told.store(true, Ordering::Relaxed);
        runtime.block_on(first_of(&config, &connector))
    }));
    FirstStarting { first, asked }
}

async fn first_of(config: &Config, connector: &PeerConnector) -> Result<FirstStart, String> {
    if let Some(file) = read_join_file(&config.data_dir.join(JoinFile::NAME))? {
        warn!(member_id = file.member_id, "the data of this member was moved aside: it joins anew");
        return joining(join(connector, &file.cluster()?, &file.urls()?).await?);
    }
    let members = find_members(config).await.map_err(|error| {
        if matches!(error, DiscoveryError::FullCluster { .. }) {
            warn!("failed to bootstrap; discovery token was already used");
            warn!("do not reuse discovery token; generate a new one to bootstrap a cluster");
        }
        error.to_string()
    })?;
    let Bootstrap { member_id, cluster_id, members: first_members, own_urls } =
        config.bootstrap_among(&members).map_err(|error| error.to_string())?;
    if config.peer.join_existing {
        // What it advertises is not looked at: whoever added it said where it is reached (etcd `VerifyJoinExisting`).
        return joining(join(connector, &members, &own_urls).await?);
    }
    let advertised = &config.peer.advertise_urls;
    expect_advertised(&SystemHosts, &config.name, &own_urls, advertised).await.map_err(|error| error.to_string())?;
    let identity = Identity { cluster_id, member_id };
    refuse_known(connector, &members, &own_urls, &identity).await?;
    let members = Members::first(first_members);
    members.check().map_err(|bound| format!("the members that --initial-cluster names: {bound}"))?;
    Ok(FirstStart::new_cluster(identity, members))
}

/// One that was added to a running cluster.
fn joining(joined: Joined) -> Result<FirstStart, String> {
    let Joined { cluster_id, member_id, membership, shards } = joined;
    let shard_map = shards.parse().map_err(|error| format!("the cluster's shards {shards:?}: {error}"))?;
    let members = Members::joining(membership);
    if members.encode().len() > MEMBERSHIP_BYTES_MAX {
        return Err("the members of the cluster take more room than there is: another member lies".to_owned());
    }
    Ok(FirstStart {
        identity: Identity { cluster_id, member_id },
        members,
        shard_map: Some(shard_map),
        begins_after: LogPosition::default(),
    })
}

/// What `basaltctl reseed` left in a directory without data.
fn read_join_file(path: &Path) -> Result<Option<JoinFile>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    match std::fs::read(path) {
        Ok(bytes) => JoinFile::decode(&bytes).map(Some).map_err(|error| failed(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Parsed, parse};

    fn refused(flag: &str, value: &str) -> Option<String> {
        let no_file = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
        let client_urls = "--listen-client-urls=http://127.0.0.1:2379".to_owned();
        let advertised = "--advertise-client-urls=http://127.0.0.1:2379".to_owned();
        let mut args = vec![client_urls];
        args.extend((flag != "advertise-client-urls").then_some(advertised));
        args.push(format!("--{flag}={value}"));
        match parse(&args, &[], &no_file, &|| Err(std::io::ErrorKind::NotFound.into())) {
            Ok(Parsed::Run(config, _)) => check_own(&config).err().map(|error| error.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_the_cluster_would_not_take_of_this_member_stops_the_start() {
        assert_eq!(refused("name", &"n".repeat(256)), None);
        let text = refused("name", &"n".repeat(257)).expect("too long");
        assert!(text.starts_with("--name, ") && text.contains("at most 16 peer URLs"), "{text}");
        let urls = |count: u16| (1..=count).map(|port| format!("http://h:{port}")).collect::<Vec<_>>().join(",");
        let long = format!("http://{}:2379", "h".repeat(512));
        for flag in ["advertise-client-urls", "initial-advertise-peer-urls"] {
            assert!(refused(flag, &long).is_some(), "{flag}");
            assert!(refused(flag, &urls(17)).is_some(), "{flag}");
            assert_eq!(refused(flag, &urls(16)), None, "{flag}");
        }
    }
}
