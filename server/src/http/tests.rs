use std::sync::Arc;

use super::*;
use crate::config::{AllowList, HttpConfig};
use crate::metrics::{Figures, Metrics};

/// What a real etcd 3.7.3 answered, without date and length:
///
/// ```text
/// === <state of the node> <rules of access> <listener> <method> <target> [<header>:<value> ...]
/// <status>
/// <header>: <value> ...
///
/// <body>
/// ```
const ETCD: &str = include_str!("etcd-3.7.3-pages.txt");

#[derive(Default)]
struct Node {
    alarms: Vec<AlarmKind>,
    damaged: bool,
    leaderless: bool,
    learner: bool,
    serializable: Option<&'static str>,
    linearizable: Option<&'static str>,
    young: bool,
}

impl Probe for Node {
    fn alarms(&self) -> Vec<AlarmKind> {
        self.alarms.clone()
    }

    fn is_damaged(&self) -> bool {
        self.damaged
    }

    fn has_leader(&self) -> bool {
        !self.leaderless
    }

    fn is_learner(&self) -> bool {
        self.learner
    }

    fn serializable_read(&self) -> Result<(), String> {
        self.serializable.map_or(Ok(()), |error| Err(error.to_owned()))
    }

    fn linearizable_read(&self) -> Result<(), String> {
        self.linearizable.map_or(Ok(()), |error| Err(error.to_owned()))
    }

    fn versions(&self) -> Versions {
        let version = (!self.young).then(|| "3.7.0".to_owned());
        Versions { cluster: version.clone(), storage: version }
    }

    fn figures(&self) -> Figures {
        Figures { revision: 42, ..Figures::default() }
    }
}

fn site(strict: bool) -> (Site, Arc<Metrics>) {
    let only = |names: &[&str]| match strict {
        true => AllowList::Only(names.iter().map(|name| (*name).to_owned()).collect()),
        false => AllowList::All,
    };
    let config = HttpConfig {
        grpc_gateway: true,
        profiles: false,
        cors: only(&["http://a:80", "http://b:81"]),
        host_whitelist: only(&["good.example"]),
    };
    let metrics = Arc::new(Metrics::default());
    (Site::new(&config, metrics.clone()), metrics)
}

fn get<'a>(target: &'a str) -> PageRequest<'a> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    PageRequest { method: "GET", path, query, host: "127.0.0.1:2379", ..PageRequest::default() }
}

fn body(target: &str, node: &Node) -> (u16, String) {
    let page = site(false).0.respond(Listener::Clients, &get(target), node);
    (page.status, page.body)
}

/// The same with headers and check lines in the order of the alphabet: etcd's come in any.
fn sorted(page: &str) -> String {
    let mut lines: Vec<&str> = page.lines().collect();
    for group in [": ", "["] {
        let listed = |line: &str| if group == "[" { line.starts_with('[') } else { line.contains(group) };
        let mut found: Vec<&str> = lines.iter().copied().filter(|line| listed(line)).collect();
        found.sort_unstable();
        let mut found = found.into_iter();
        for line in lines.iter_mut().filter(|line| listed(line)) {
            *line = found.next().expect("as many as were found");
        }
    }
    lines.join("\n")
}

fn written(page: &PageResponse, target: &str) -> String {
    let content_type = page.content_type.map(|value| ("Content-Type", value.to_owned()));
    let headers: String =
        content_type.iter().chain(&page.headers).map(|(name, value)| format!("{name}: {value}\n")).collect();
    // What stands on it is another test's business.
    let body = if target == "/metrics" { "(the page)" } else { &page.body };
    sorted(&format!("{}\n{headers}\n{body}", page.status))
}

/// Asks what the first line of a block says.
fn asked(line: &str) -> PageResponse {
    let words: Vec<&str> = line.split(' ').collect();
    let [state, rules, listener, method, target, headers @ ..] = words.as_slice() else { panic!("{line}") };
    let alarms = match *state {
        "nospace" => vec![AlarmKind::NoSpace],
        "corrupt" => vec![AlarmKind::Corrupt],
        _ => Vec::new(),
    };
    let header = |name: &str| headers.iter().find_map(|header| header.strip_prefix(name)?.strip_prefix(':'));
    let request =
        PageRequest { method, host: header("Host").unwrap_or("127.0.0.1:1"), origin: header("Origin"), ..get(target) };
    let listener = if *listener == "metrics" { Listener::Metrics } else { Listener::Clients };
    site(*rules == "strict").0.respond(listener, &request, &Node { alarms, ..Node::default() })
}

#[test]
fn every_page_is_the_one_of_etcd() {
    let blocks: Vec<&str> =
        ETCD.trim_end_matches('\n').strip_prefix("=== ").expect("a block").split("\n=== ").collect();
    assert!(blocks.len() > 90, "{} blocks", blocks.len());
    for block in blocks {
        let (line, page) = block.split_once('\n').expect("a page follows");
        let target = line.split(' ').nth(4).expect("a target");
        assert_eq!(written(&asked(line), target), sorted(page), "{line}");
    }
}

#[test]
fn health_says_what_is_wrong_first() {
    let leaderless = Node { leaderless: true, linearizable: Some("etcdserver: request timed out"), ..Node::default() };
    assert_eq!(body("/health", &leaderless), (503, "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n".into()));
    assert_eq!(body("/health?serializable=true", &leaderless).0, 200);
    let slow = Node { leaderless: false, ..leaderless };
    let reason = "{\"health\":\"false\",\"reason\":\"RANGE ERROR:etcdserver: request timed out\"}\n";
    assert_eq!(body("/health", &slow), (503, reason.into()));
    let damaged = Node { serializable: Some("a \"<b>\" & c"), ..Node::default() };
    let reason = "{\"health\":\"false\",\"reason\":\"RANGE ERROR:a \\\"\\u003cb\\u003e\\\" \\u0026 c\"}\n";
    assert_eq!(body("/health?serializable=true", &damaged), (503, reason.into()));
}

#[test]
fn a_learner_lives_but_is_not_ready() {
    let learner =
        Node { learner: true, linearizable: Some("etcdserver: rpc not supported for learner"), ..Node::default() };
    assert_eq!(body("/livez", &learner), (200, "ok\n".into()));
    assert_eq!(
        body("/readyz", &learner),
        (
            503,
            "[+]data_corruption ok\n[+]serializable_read ok\n\
             [-]linearizable_read failed: etcdserver: rpc not supported for learner\n\
             [-]non_learner failed: not supported for learner\n\n"
                .into()
        )
    );
}

#[test]
fn checks_are_counted() {
    let (site, metrics) = site(false);
    let node = Node { linearizable: Some("no"), ..Node::default() };
    site.respond(Listener::Clients, &get("/health"), &node);
    site.respond(Listener::Clients, &get("/health?serializable=true"), &node);
    site.respond(Listener::Metrics, &get("/readyz/linearizable_read"), &node);
    assert_eq!((metrics.health_success.get(), metrics.health_failures.get()), (1, 1));
    let page = site.respond(Listener::Metrics, &get("/metrics"), &node).body;
    for line in [
        r#"etcd_server_healthcheck{name="linearizable_read",type="readyz"} 0"#,
        r#"etcd_server_healthchecks_total{name="linearizable_read",status="error",type="readyz"} 1"#,
        "etcd_debugging_mvcc_current_revision 42",
    ] {
        assert!(page.lines().any(|shown| shown == line), "{line}");
    }
}

#[test]
fn a_host_is_not_asked_for_over_tls() {
    let request = PageRequest { host: "evil", encrypted: true, ..get("/version") };
    assert_eq!(site(true).0.respond(Listener::Clients, &request, &Node::default()).status, 200);
}

#[test]
fn versions_may_not_be_known_yet() {
    let young = Node { young: true, ..Node::default() };
    let expected = r#"{"etcdserver":"3.7.3","etcdcluster":"not_decided","storage":"unknown"}"#;
    assert_eq!(body("/version", &young), (200, expected.into()));
}

#[test]
fn vars_hold_the_limit_of_descriptors() {
    let (status, body) = body("/debug/vars", &Node::default());
    let vars: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert!(status == 200 && vars["file_descriptor_limit"].as_u64().is_some_and(|limit| limit > 0), "{body}");
}

#[test]
fn a_page_says_whether_it_needs_the_cluster() {
    let needs = |target: &str| get(target).reads_linearizably();
    for target in ["/health", "/health?serializable=false", "/readyz", "/readyz?verbose", "/readyz/linearizable_read"] {
        assert!(needs(target), "{target}");
    }
    let others =
        ["/health?serializable=true", "/livez", "/readyz?exclude=linearizable_read", "/readyz/serializable_read"];
    for target in others.into_iter().chain(["/metrics", "/version", "/readyz/"]) {
        assert!(!needs(target), "{target}");
    }
    assert!(!PageRequest { method: "HEAD", ..get("/health") }.reads_linearizably());
}

#[test]
fn who_was_found_damaged_is_not_ready() {
    let node = Node { damaged: true, ..Node::default() };
    let (status, text) = body("/readyz", &node);
    assert_eq!(status, 503);
    assert!(text.contains("[-]data_corruption failed: stored data of this member is damaged"), "{text}");
    assert_eq!(body("/livez", &node).0, 200);
    assert_eq!(body("/health", &node).0, 200);
}

/// Of a node with many members that lag.
struct Lagging(usize);

impl Probe for Lagging {
    fn alarms(&self) -> Vec<AlarmKind> {
        Vec::new()
    }

    fn is_damaged(&self) -> bool {
        false
    }

    fn has_leader(&self) -> bool {
        true
    }

    fn is_learner(&self) -> bool {
        false
    }

    fn serializable_read(&self) -> Result<(), String> {
        Ok(())
    }

    fn linearizable_read(&self) -> Result<(), String> {
        Ok(())
    }

    fn versions(&self) -> Versions {
        Versions { cluster: None, storage: None }
    }

    fn figures(&self) -> Figures {
        Figures { lags: (0..self.0 as u64).map(|member| (member, 7)).collect(), ..Figures::default() }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn scrapes_at_once_each_have_all_series() {
    const MEMBERS: usize = 200;
    let site = Arc::new(site(false).0);
    let shared = Arc::new(SharedPage::default());
    let scrapers: Vec<_> = (0..8)
        .map(|_| {
            let (site, shared) = (site.clone(), shared.clone());
            tokio::spawn(async move {
                for _ in 0..20 {
                    let site = site.clone();
                    let page = shared.get(move || site.figures_page(&Lagging(MEMBERS))).await.expect("made");
                    let lags = page.body.lines().filter(|line| line.starts_with("basalt_member_lag_entries{"));
                    assert_eq!(lags.count(), MEMBERS);
                }
            })
        })
        .collect();
    for scraper in scrapers {
        scraper.await.expect("all series");
    }
}
