//! Comparing URLs, with their hosts looked up where that is needed.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::hosts::Hosts;
use super::origin::Origin;
use crate::config::Url;

/// How long all lookups of one question may take, as in etcd (`advertiseMatchesCluster`, `ValidateClusterAndAssignIDs`).
const LOOKUPS_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause before a name is looked up again: that of a member which starts may come to be known only then.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// One question, and until when it is to be answered.
pub struct Lookups<'a, H> {
    hosts: &'a H,
    deadline: Instant,
}

impl<'a, H: Hosts> Lookups<'a, H> {
    /// Asks from now on. Takes a tokio runtime with timers.
    pub fn of(hosts: &'a H) -> Self {
        Self { hosts, deadline: Instant::now() + LOOKUPS_TIMEOUT }
    }

    /// Whether URLs lead to the same addresses, in whatever order (etcd `netutil.URLStringsEqual`).
    ///
    /// # Errors
    /// They do not, or nobody says so in time; in etcd's words.
    pub async fn expect_same(&self, one: &[Url], other: &[Url]) -> Result<(), String> {
        if one.len() != other.len() {
            return Err(format!("len({}) != len({})", quoted(one), quoted(other)));
        }
        if as_written(one) == as_written(other) {
            return Ok(());
        }
        let (one, other) = (self.looked_up(one).await?, self.looked_up(other).await?);
        match one.iter().zip(&other).find(|(one, other)| one != other) {
            None => Ok(()),
            Some((one, other)) => Err(format!("resolved urls: \"{one}\" != \"{other}\"")),
        }
    }

    async fn looked_up(&self, urls: &[Url]) -> Result<Vec<Origin>, String> {
        let mut origins = Vec::new();
        for (url, origin) in urls.iter().zip(urls.iter().map(Origin::of)) {
            let found = match origin.name() {
                Some(name) => Some(self.address(name).await),
                None => None,
            };
            origins.push(match found {
                Some(Ok(address)) => origin.at(address),
                Some(Err(why)) => return Err(format!("failed to resolve \"{url}\" ({why})")),
                None => origin,
            });
        }
        origins.sort_unstable();
        Ok(origins)
    }

    async fn address(&self, name: &str) -> Result<IpAddr, String> {
        loop {
            let why = match timeout_at(self.deadline, self.hosts.address(name)).await {
                Ok(Ok(address)) => {
                    info!(host = name, %address, "resolved URL Host");
                    return Ok(address);
                }
                Ok(Err(why)) => why,
                Err(_) => return Err(format!("lookup {name}: no answer in time")),
            };
            warn!(host = name, error = why, "failed to resolve URL Host");
            if timeout_at(self.deadline, sleep(RETRY_PAUSE)).await.is_err() {
                return Err(why);
            }
        }
    }
}

fn as_written(urls: &[Url]) -> Vec<Origin> {
    let mut origins: Vec<Origin> = urls.iter().map(Origin::of).collect();
    origins.sort_unstable();
    origins
}

/// As Go quotes a list.
fn quoted(urls: &[Url]) -> String {
    let quoted: Vec<String> = urls.iter().map(|url| format!("\"{url}\"")).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Knows `m1` at 10.0.0.1 and `m6` at fd00::6, `late` at 10.0.0.9 from the third time on, and says nothing of `silent`.
    #[derive(Default)]
    struct Known {
        asked: AtomicU32,
    }

    impl Hosts for Known {
        async fn address(&self, host: &str) -> Result<IpAddr, String> {
            let times = self.asked.fetch_add(1, Ordering::Relaxed);
            match host {
                "m1" => Ok(IpAddr::from([10, 0, 0, 1])),
                "m6" => Ok("fd00::6".parse().expect("an address")),
                "late" if times >= 2 => Ok(IpAddr::from([10, 0, 0, 9])),
                "silent" => std::future::pending().await,
                _ => Err(format!("lookup {host}: no such host")),
            }
        }
    }

    fn urls(text: &str) -> Vec<Url> {
        Url::parse_list(text).expect("URLs")
    }

    async fn same(hosts: &Known, one: &str, other: &str) -> Result<(), String> {
        Lookups::of(hosts).expect_same(&urls(one), &urls(other)).await
    }

    #[tokio::test]
    async fn what_is_written_alike_is_not_looked_up() {
        let hosts = Known::default();
        for (one, other) in [
            ("http://gone:1,https://b:2", "https://b:2,http://gone:1"),
            ("http://[::1]:1,http://[::2]:1", "http://[0:0:0:0:0:0:0:2]:1,http://[0::1]:1"),
            ("http://[::ffff:10.0.0.1]:1", "http://10.0.0.1:1"),
            ("unix:///run/m", "unix:///run/m"),
        ] {
            assert_eq!(same(&hosts, one, other).await, Ok(()), "{one} {other}");
        }
        assert_eq!(hosts.asked.into_inner(), 0);
    }

    #[tokio::test]
    async fn names_lead_where_addresses_do() {
        let hosts = Known::default();
        assert_eq!(same(&hosts, "http://m1:1", "http://10.0.0.1:1").await, Ok(()));
        assert_eq!(same(&hosts, "https://m6:1,http://m1:1", "http://10.0.0.1:1,https://[fd00::6]:1").await, Ok(()));
        for (one, other, why) in [
            ("http://m1:1", "http://10.0.0.2:1", "resolved urls: \"http://10.0.0.1:1\" != \"http://10.0.0.2:1\""),
            ("http://m6:1", "http://m6:2", "resolved urls: \"http://[fd00::6]:1\" != \"http://[fd00::6]:2\""),
            ("http://m1:1", "https://m1:1", "resolved urls: \"http://10.0.0.1:1\" != \"https://10.0.0.1:1\""),
            ("http://m1:1", "unix://a", "resolved urls: \"http://10.0.0.1:1\" != \"unix://a\""),
            (
                "http://m1:1",
                "http://m1:1,http://m6:1",
                "len([\"http://m1:1\"]) != len([\"http://m1:1\" \"http://m6:1\"])",
            ),
        ] {
            assert_eq!(same(&hosts, one, other).await, Err(why.to_owned()), "{one} {other}");
        }
    }

    #[tokio::test]
    async fn localhost_is_no_other_host() {
        let hosts = Known::default();
        let why = same(&hosts, "http://localhost:1", "http://127.0.0.1:1").await.expect_err("as in etcd");
        assert_eq!(why, "resolved urls: \"http://localhost:1\" != \"http://127.0.0.1:1\"");
        assert_eq!(hosts.asked.into_inner(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_asked_for_until_it_is_known_or_the_time_is_up() {
        let hosts = Known::default();
        let began = Instant::now();
        assert_eq!(same(&hosts, "http://late:1", "http://10.0.0.9:1").await, Ok(()));
        assert_eq!(began.elapsed(), 2 * RETRY_PAUSE);
        for (name, why) in [("gone", "no such host"), ("silent", "no answer in time")] {
            let began = Instant::now();
            let told = same(&hosts, &format!("http://{name}:1"), "http://10.0.0.1:1").await;
            assert_eq!(told, Err(format!("failed to resolve \"http://{name}:1\" (lookup {name}: {why})")));
            assert_eq!(began.elapsed(), LOOKUPS_TIMEOUT);
        }
        let (lookups, began) = (Lookups::of(&hosts), Instant::now());
        for name in ["silent", "gone", "silent"] {
            assert!(lookups.expect_same(&urls(&format!("http://{name}:1")), &urls("http://10.0.0.1:1")).await.is_err());
        }
        assert_eq!(began.elapsed(), LOOKUPS_TIMEOUT, "one question");
    }
}
