//! The identity with which a member without data starts, under etcd's rules for a new cluster.
//!
//! As in etcd these rules hold for a first start only: once there is data, it says who the member is, and the flags of
//! the initial cluster are not looked at.

use std::borrow::Cow;

use basalt_proto::members::Member;

use super::error::ConfigError;
use super::identity::{cluster_id, member_id};
use super::tree::Config;
use super::url::Url;

/// Who a new member is.
#[derive(Clone, Debug, PartialEq)]
pub struct Bootstrap {
    /// Id of this member.
    pub member_id: u64,
    /// Id of its cluster.
    pub cluster_id: u64,
    /// All first members, this one too.
    pub members: Vec<Member>,
}

/// What the identity of a new member follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstMember<'a> {
    name: &'a str,
    initial_cluster: Cow<'a, [(String, Vec<Url>)]>,
    token: &'a str,
    advertise_urls: Cow<'a, [Url]>,
}

impl Config {
    /// The identity of this member in the new cluster that the flags list; one that joins a running cluster is told who it
    /// is there. To be asked when the data directory is empty, before anything is written to it.
    ///
    /// # Errors
    /// Those of [`FirstMember::bootstrap`].
    pub fn bootstrap(&self) -> Result<Bootstrap, ConfigError> {
        self.bootstrap_among(&self.peer.initial_cluster, &self.peer.advertise_urls)
    }

    /// The same among members that were found otherwise, with the URLs by which they know this one.
    ///
    /// # Errors
    /// Those of [`FirstMember::bootstrap`].
    pub fn bootstrap_among(&self, members: &[(String, Vec<Url>)], own_urls: &[Url]) -> Result<Bootstrap, ConfigError> {
        let member = FirstMember {
            name: &self.name,
            initial_cluster: Cow::Borrowed(members),
            token: &self.peer.initial_cluster_token,
            advertise_urls: Cow::Borrowed(own_urls),
        };
        member.bootstrap()
    }
}

impl<'a> FirstMember<'a> {
    /// Reads the flags of that name.
    ///
    /// # Errors
    /// A URL that is none.
    pub fn parse(
        name: &'a str,
        initial_cluster: &str,
        token: &'a str,
        advertise_urls: &str,
    ) -> Result<Self, ConfigError> {
        let invalid = |flag: &str, why: String| ConfigError::invalid(format!("--{flag}: {why}"), "correct it");
        let cluster = parse_initial_cluster(initial_cluster).map_err(|why| invalid("initial-cluster", why))?;
        let urls = Url::parse_list(advertise_urls).map_err(|why| invalid("initial-advertise-peer-urls", why))?;
        Ok(Self { name, initial_cluster: Cow::Owned(cluster), token, advertise_urls: Cow::Owned(urls) })
    }

    /// The identity.
    ///
    /// # Errors
    /// The initial cluster does not hold this member with its advertised peer URLs, or holds a URL twice.
    pub fn bootstrap(&self) -> Result<Bootstrap, ConfigError> {
        let own = self.initial_cluster.iter().find(|(name, _)| name == self.name).map(|(_, urls)| urls);
        let own = own.ok_or_else(|| {
            ConfigError::invalid(
                format!("couldn't find local name {:?} in the initial cluster configuration", self.name),
                "add it to --initial-cluster, or set --name to a name that stands there",
            )
        })?;
        if has_duplicates(self.initial_cluster.iter().flat_map(|(_, urls)| urls)) {
            return Err(ConfigError::invalid(
                format!("initial cluster {} has duplicate url", cluster_text(&self.initial_cluster)),
                "give each member URLs of its own in --initial-cluster",
            ));
        }
        same_urls(self.name, own, &self.advertise_urls)?;
        let id = |urls: &[Url]| member_id(urls.iter().map(Url::as_str), self.token, None);
        let members = self.initial_cluster.iter().map(|(name, urls)| Member {
            id: id(urls),
            name: name.clone(),
            peer_urls: urls.iter().map(|url| url.as_str().to_owned()).collect(),
            ..Member::default()
        });
        let members: Vec<_> = members.collect();
        let ids: Vec<_> = members.iter().map(|member| member.id).collect();
        Ok(Bootstrap { member_id: id(own), cluster_id: cluster_id(&ids), members })
    }
}

/// etcd also resolves host names before it gives up; here the texts must be equal.
fn same_urls(name: &str, initial: &[Url], advertised: &[Url]) -> Result<(), ConfigError> {
    let missing =
        |from: &[Url], other: &[Url]| -> Vec<Url> { from.iter().filter(|url| !other.contains(url)).cloned().collect() };
    let advice = "give both flags the same URLs";
    let unadvertised = missing(initial, advertised);
    if !unadvertised.is_empty() {
        return Err(ConfigError::invalid(
            format!(
                "--initial-cluster has {} but missing from --initial-advertise-peer-urls={}",
                member_text(name, &unadvertised),
                url_text(advertised)
            ),
            advice,
        ));
    }
    let unlisted = missing(advertised, initial);
    if !unlisted.is_empty() {
        return Err(ConfigError::invalid(
            format!(
                "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
                url_text(&unlisted),
                member_text(name, initial)
            ),
            advice,
        ));
    }
    Ok(())
}

/// Whether a URL comes twice.
pub fn has_duplicates<'a>(urls: impl Iterator<Item = &'a Url>) -> bool {
    let mut urls: Vec<&Url> = urls.collect();
    urls.sort_unstable();
    urls.windows(2).any(|pair| pair[0] == pair[1])
}

/// Reads `name=URL,name=URL`; a name that comes twice has both URLs. Sorted by name, URLs sorted within.
///
/// # Errors
/// What is wrong with the first bad URL.
pub fn parse_initial_cluster(text: &str) -> Result<Vec<(String, Vec<Url>)>, String> {
    let mut members: Vec<(String, Vec<Url>)> = Vec::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
        let url = Url::parse(url)?;
        match members.iter_mut().find(|(known, _)| known == name) {
            Some((_, urls)) => urls.push(url),
            None => members.push((name.to_owned(), vec![url])),
        }
    }
    members.sort();
    members.iter_mut().for_each(|(_, urls)| urls.sort());
    Ok(members)
}

/// `name=URL,name=URL`, as `--initial-cluster` has it.
pub fn cluster_text(members: &[(String, Vec<Url>)]) -> String {
    members.iter().map(|(name, urls)| member_text(name, urls)).collect::<Vec<_>>().join(",")
}

fn member_text(name: &str, urls: &[Url]) -> String {
    urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
}

fn url_text(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}
