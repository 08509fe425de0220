//! Whether a first member is where the others will look for it.

use super::hosts::Hosts;
use super::lookups::Lookups;
use crate::config::{ConfigError, Url, cluster_text, url_text};

/// Checks that a member of a new cluster is listed there by URLs that lead where those lead that it advertises (etcd
/// `advertiseMatchesCluster`).
///
/// # Errors
/// They do not, or nobody says so within 30 s.
pub async fn expect_advertised(
    hosts: &impl Hosts,
    name: &str,
    listed: &[Url],
    advertised: &[Url],
) -> Result<(), ConfigError> {
    let Err(why) = Lookups::of(hosts).expect_same(advertised, listed).await else { return Ok(()) };
    let missing =
        |from: &[Url], other: &[Url]| -> Vec<Url> { from.iter().filter(|url| !other.contains(url)).cloned().collect() };
    let own = |urls: Vec<Url>| cluster_text(&[(name.to_owned(), urls)]);
    let unadvertised = missing(listed, advertised);
    let cause = if unadvertised.is_empty() {
        let unlisted = url_text(&missing(advertised, listed));
        format!(
            "--initial-advertise-peer-urls has {unlisted} but missing from --initial-cluster={}",
            own(listed.to_vec())
        )
    } else {
        let (unadvertised, advertised) = (own(unadvertised), url_text(advertised));
        format!(
            "--initial-cluster has {unadvertised} but missing from --initial-advertise-peer-urls={advertised} ({why})"
        )
    };
    Err(ConfigError::invalid(cause, "give both flags the same URLs, or names that lead there"))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    /// All names lead to 10.0.0.1.
    struct One;

    impl Hosts for One {
        async fn address(&self, _: &str) -> Result<IpAddr, String> {
            Ok(IpAddr::from([10, 0, 0, 1]))
        }
    }

    async fn told(listed: &str, advertised: &str) -> Result<(), String> {
        let urls = |text| Url::parse_list(text).expect("URLs");
        expect_advertised(&One, "m", &urls(listed), &urls(advertised)).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_list_may_name_what_is_advertised_as_an_address() {
        assert_eq!(told("http://10.0.0.7:1", "http://10.0.0.7:1").await, Ok(()));
        assert_eq!(told("http://m.example.org:1", "http://10.0.0.1:1").await, Ok(()));
        let other = told("http://m.example.org:1", "http://10.0.0.2:1").await.expect_err("another host");
        assert_eq!(
            other,
            "--initial-cluster has m=http://m.example.org:1 but missing from --initial-advertise-peer-urls=http://10.0.0.2:1 \
             (resolved urls: \"http://10.0.0.2:1\" != \"http://10.0.0.1:1\"); give both flags the same URLs, or names that lead there"
        );
        let more = told("http://a:1", "http://a:1,http://10.0.0.2:1").await.expect_err("one more");
        assert!(
            more.starts_with(
                "--initial-advertise-peer-urls has http://10.0.0.2:1 but missing from --initial-cluster=m=http://a:1;"
            ),
            "{more}"
        );
    }
}
