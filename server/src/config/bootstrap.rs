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
    /// The peer URLs by which they know this one.
    pub own_urls: Vec<Url>,
}

/// What the identity of a new member follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstMember<'a> {
    name: &'a str,
    initial_cluster: Cow<'a, [(String, Vec<Url>)]>,
    token: &'a str,
}

impl Config {
    /// The identity of this member in the new cluster that the flags list; one that joins a running cluster is told who it
    /// is there. To be asked when the data directory is empty, before anything is written to it.
    ///
    /// # Errors
    /// Those of [`FirstMember::bootstrap`].
    pub fn bootstrap(&self) -> Result<Bootstrap, ConfigError> {
        self.bootstrap_among(&self.peer.initial_cluster)
    }

    /// The same among members that were found otherwise.
    ///
    /// # Errors
    /// Those of [`FirstMember::bootstrap`].
    pub fn bootstrap_among(&self, members: &[(String, Vec<Url>)]) -> Result<Bootstrap, ConfigError> {
        let member = FirstMember {
            name: &self.name,
            initial_cluster: Cow::Borrowed(members),
            token: &self.peer.initial_cluster_token,
        };
        member.bootstrap()
    }
}

impl<'a> FirstMember<'a> {
    /// Reads the flags of that name.
    ///
    /// # Errors
    /// A URL that is none.
    pub fn parse(name: &'a str, initial_cluster: &str, token: &'a str) -> Result<Self, ConfigError> {
        let cluster = parse_initial_cluster(initial_cluster)
            .map_err(|why| ConfigError::invalid(format!("--initial-cluster: {why}"), "correct it"))?;
        Ok(Self { name, initial_cluster: Cow::Owned(cluster), token })
    }

    /// The identity. What the member advertises is looked at elsewhere: names in it may have to be looked up, and one that joins
    /// a running cluster was made known there before.
    ///
    /// # Errors
    /// The initial cluster does not hold this member, or holds a URL twice.
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
        let id = |urls: &[Url]| member_id(urls.iter().map(Url::as_str), self.token, None);
        let members = self.initial_cluster.iter().map(|(name, urls)| Member {
            id: id(urls),
            name: name.clone(),
            peer_urls: urls.iter().map(|url| url.as_str().to_owned()).collect(),
            ..Member::default()
        });
        let members: Vec<_> = members.collect();
        let ids: Vec<_> = members.iter().map(|member| member.id).collect();
        Ok(Bootstrap { member_id: id(own), cluster_id: cluster_id(&ids), members, own_urls: own.clone() })
    }
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

/// `URL,URL`, as `--initial-advertise-peer-urls` has it.
pub fn url_text(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}
