use std::collections::BTreeMap;
use std::net::IpAddr;

use super::*;
use crate::config::cluster_text;

/// A resolver of the test's own.
#[derive(Default)]
struct Zone {
    services: BTreeMap<String, Vec<SrvRecord>>,
    addresses: BTreeMap<String, IpAddr>,
}

impl Zone {
    fn host(mut self, host: &str, address: &str) -> Self {
        let address: IpAddr = address.parse().expect("an address");
        self.addresses.insert(host.to_owned(), address);
        self
    }

    fn record(mut self, service: &str, target: &str, port: u16) -> Self {
        let record = SrvRecord { priority: 0, weight: 0, target: format!("{target}."), port };
        self.services.entry(format!("_{service}._tcp.example.org")).or_default().push(record);
        self
    }
}

impl Names for Zone {
    async fn services(&self, name: &str) -> Result<Vec<SrvRecord>, String> {
        self.services.get(name).cloned().ok_or_else(|| format!("lookup {name}: no such host"))
    }

    async fn address(&self, host: &str) -> Result<IpAddr, String> {
        let host = host.strip_suffix('.').unwrap_or(host);
        let found = self.addresses.get(host).copied().or_else(|| host.parse().ok());
        found.ok_or_else(|| format!("lookup {host}: no such host"))
    }
}

/// Three hosts, without records.
fn hosts() -> Zone {
    Zone::default().host("a", "10.0.0.1").host("b", "10.0.0.2").host("c", "10.0.0.3")
}

fn found_as(zone: &Zone, name: &str, service_name: &str, advertised: &str) -> Result<String, String> {
    let srv = SrvDiscovery { domain: "example.org".to_owned(), service_name: service_name.to_owned() };
    let advertised = Url::parse_list(advertised).expect("URLs");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let found = runtime.block_on(find(zone, name, &srv, &advertised));
    found.map(|members| cluster_text(&members)).map_err(|error| error.to_string())
}

fn found(zone: &Zone, advertised: &str) -> Result<String, String> {
    found_as(zone, "m", "", advertised)
}

#[test]
fn the_own_member_has_its_name_and_the_others_are_numbered() {
    let zone =
        hosts().record("etcd-server", "c", 2380).record("etcd-server", "a", 2380).record("etcd-server", "b", 2380);
    let expected = "0=http://a:2380,1=http://c:2380,m=http://b:2380";
    assert_eq!(found(&zone, "http://b:2380").as_deref(), Ok(expected));
    // By its address too; the others know it as DNS does.
    assert_eq!(found(&zone, "http://10.0.0.2:2380").as_deref(), Ok(expected));
}

#[test]
fn both_services_count_and_a_suffix_asks_for_others() {
    let zone =
        hosts().record("etcd-server-ssl", "a", 2380).record("etcd-server", "b", 2380).record("etcd-server-x", "c", 7);
    assert_eq!(found(&zone, "https://a:2380").as_deref(), Ok("0=http://b:2380,m=https://a:2380"));
    assert_eq!(found_as(&zone, "m", "x", "http://c:7").as_deref(), Ok("m=http://c:7"));
}

#[test]
fn priority_then_weight_then_name_numbers_the_others() {
    let mut zone = hosts().host("d", "10.0.0.4");
    let record = |priority, weight, target: &str| SrvRecord { priority, weight, target: target.to_owned(), port: 1 };
    let records = vec![record(2, 9, "a."), record(1, 1, "b."), record(1, 5, "c."), record(1, 0, "d.")];
    zone.services.insert("_etcd-server._tcp.example.org".to_owned(), records);
    assert_eq!(found(&zone, "http://d:1").as_deref(), Ok("0=http://c:1,1=http://b:1,2=http://a:1,m=http://d:1"));
}

#[test]
fn a_host_without_address_is_passed_over() {
    let zone = hosts().record("etcd-server", "a", 1).record("etcd-server", "gone", 1);
    assert_eq!(found(&zone, "http://a:1").as_deref(), Ok("m=http://a:1"));
    let none = found(&hosts().record("etcd-server", "gone", 1), "http://a:1").expect_err("nobody is left");
    assert!(none.contains("error querying DNS SRV records for _etcd-server lookup gone: no such host"), "{none}");
}

#[test]
fn what_is_missing_is_said() {
    let nobody = found(&hosts(), "http://a:1").expect_err("no records");
    for service in ["_etcd-server-ssl", "_etcd-server"] {
        let part =
            format!("error querying DNS SRV records for {service} lookup {service}._tcp.example.org: no such host");
        assert!(nobody.starts_with("error setting up initial cluster: ") && nobody.contains(&part), "{nobody}");
    }
    let zone = hosts().record("etcd-server", "b", 1);
    let stranger = found(&zone, "http://a:1").expect_err("not listed");
    assert!(stranger.contains("cannot find local etcd member \"m\" in SRV records"), "{stranger}");
    let unknown = found(&zone, "http://elsewhere:1").expect_err("no address");
    assert!(unknown.contains("lookup elsewhere: no such host"), "{unknown}");
    let socket = found(&zone, "unix:///run/a").expect_err("no host");
    assert!(socket.contains("unix:///run/a has no host to look for in DNS"), "{socket}");
    let mismatch = found(&zone, "https://b:1").expect_err("it advertises https");
    assert!(
        mismatch.contains(
            "bootstrap at http://b:1 from DNS for etcd-server has scheme mismatch with expected peer https://b:1"
        ),
        "{mismatch}"
    );
}

#[test]
fn answers_of_strangers_are_bounded_and_checked() {
    for target in ["a,b=http://c", "a b", "a/x", "[::1]", "\u{e4}"] {
        let zone = hosts().record("etcd-server", target, 1);
        let refused = found(&zone, "http://a:1").expect_err(target);
        assert!(refused.contains("is no host name"), "{target}: {refused}");
    }
    let many = (0..=CLUSTER_SIZE_MAX).fold(hosts(), |zone, port| zone.record("etcd-server", "a", port as u16 + 1));
    assert!(found(&many, "http://a:1").expect_err("too many").contains("has 257 records, more than the 256"));
    // RFC 2782: the service is decidedly not there.
    assert!(found(&hosts().record("etcd-server", "", 1), "http://a:1").is_err());
}
