//! What strangers wrote: SRV records and host names in DNS, registrations in a discovery service. Parts of an input are set apart by
//! line breaks.
//!
//! Whoever is found is a member with URLs, this one among them in DNS; nobody is there twice, and never more than a cluster has
//! places; what is not found says why in words.

use std::collections::BTreeSet;

use basalt_server::config::{SrvDiscovery, Url};
use basalt_server::discovery::foreign::{Zone, listed, member_key, registered};
use futures_util::FutureExt;

/// Most members that a cluster is founded with.
const MEMBERS_MAX: usize = 256;

pub(super) fn run(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    if mode & 1 == 0 { dns(&lines) } else { service(&lines) }
}

/// The first line: name, domain, service and advertised URLs, parted by spaces. Others: `srv priority weight port target [ssl]` or
/// `host name address`.
fn dns(lines: &[&[u8]]) {
    let texts: Vec<String> = lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    let mut head = texts[0].splitn(4, ' ');
    let mut word = || head.next().unwrap_or_default().to_owned();
    let (name, domain, service_name, urls) = (word(), word(), word(), word());
    let Ok(advertised) = Url::parse_list(&urls) else { return };
    let mut zone = Zone::default();
    for line in &texts[1..] {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["srv", priority, weight, port, target, ..] => {
                let numbers = [priority, weight, port].map(|number| number.parse().unwrap_or(0));
                let service = if words.len() > 5 { "etcd-server-ssl" } else { "etcd-server" };
                let dash = if service_name.is_empty() { "" } else { "-" };
                zone.record(&format!("_{service}{dash}{service_name}._tcp.{domain}"), numbers, target);
            }
            ["host", host, address] => {
                if let Ok(address) = address.parse() {
                    zone.host(host, address);
                }
            }
            _ => {}
        }
    }
    let srv = SrvDiscovery { domain, service_name };
    let found = listed(&zone, &name, &srv, &advertised).now_or_never().expect("a zone in memory answers at once");
    match found {
        Ok(found) => {
            assert!(found.iter().any(|(known, _)| *known == name));
            assert!(found.iter().all(|(_, urls)| !urls.is_empty()));
            let names: BTreeSet<_> = found.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), found.len(), "each name once: {found:?}");
            assert!(found.len() <= 2 * MEMBERS_MAX);
        }
        Err(why) => assert!(!why.is_empty()),
    }
}

/// The first line: a token. The second: the size. Others: revision, key and value, parted by spaces; a key of `#` and digits is
/// that of a member.
fn service(lines: &[&[u8]]) {
    let token = String::from_utf8_lossy(lines[0]).into_owned();
    let size = lines.get(1).copied().unwrap_or_default();
    let mut registrations: Vec<(Vec<u8>, &[u8], i64)> = Vec::new();
    for line in lines.iter().skip(2) {
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let mut word = || words.next().unwrap_or_default();
        let (revision, key, value) = (String::from_utf8_lossy(word()).parse().unwrap_or(0), word(), word());
        let id = key.strip_prefix(b"#").map(|digits| String::from_utf8_lossy(digits).parse().unwrap_or(1));
        registrations.push((id.map_or(key.to_vec(), |id| member_key(&token, id).into_bytes()), value, revision));
    }
    let borrowed: Vec<(&[u8], &[u8], i64)> =
        registrations.iter().map(|(key, value, at)| (&key[..], *value, *at)).collect();
    match registered(&token, size, &borrowed) {
        Ok(members) => {
            let urls: Vec<&Url> = members.iter().flat_map(|(_, urls)| urls).collect();
            let distinct: BTreeSet<_> = urls.iter().collect();
            assert_eq!(distinct.len(), urls.len(), "each URL once");
            assert!(members.is_sorted_by(|one, other| one.0 < other.0), "each name once");
        }
        Err(why) => assert!(!why.is_empty()),
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let with = |mode: u8, text: &str| [&[mode], text.as_bytes()].concat();
    let hosts = "host a 10.0.0.1\nhost b 10.0.0.2\nhost c ::1";
    vec![
        with(0, &format!("m example.org  http://b:2380\nsrv 0 0 2380 a.\nsrv 1 9 2380 b.\nsrv 0 5 2380 c.\n{hosts}")),
        with(
            0,
            &format!("m example.org x https://b:2380\nsrv 0 0 2380 a. ssl\nsrv 0 0 2380 b. ssl\nsrv 0 0 1 b.\n{hosts}"),
        ),
        with(0, &format!("0 d  http://b:1,http://a:1\nsrv 0 0 1 a.\nsrv 0 0 1 b.\nsrv 0 0 1 nowhere.\n{hosts}")),
        with(1, "t\n3\n5 #1 a=http://a:1\n7 #2 b=http://b:1,b=http://b:2\n6 #3 c=http://c:1"),
        with(1, "a/../b\n+2\n5 #1 a=http://a:1\n4 #1 a=http://a:2\n3 /elsewhere x=http://x:1\n2 #9 =http://z:1"),
    ]
}
