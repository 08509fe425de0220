use std::collections::VecDeque;

use super::*;

/// A service that answers from a script: what a call finds is what is next.
#[derive(Default)]
struct Scripted {
    sizes: VecDeque<Result<Option<Vec<u8>>, Trouble>>,
    lists: VecDeque<Result<(Vec<Entry>, i64), Trouble>>,
    puts: VecDeque<Result<(), Trouble>>,
    watches: VecDeque<Result<ScriptedChanges, Trouble>>,
    trace: Vec<String>,
}

struct ScriptedChanges(VecDeque<Result<Vec<Entry>, String>>);

impl Changes for ScriptedChanges {
    async fn next(&mut self) -> Result<Vec<Entry>, String> {
        self.0.pop_front().expect("the script goes on")
    }
}

impl Service for Scripted {
    type Changes = ScriptedChanges;

    async fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, Trouble> {
        self.trace.push(format!("get {key}"));
        self.sizes.pop_front().expect("the script goes on")
    }

    async fn list(&mut self, prefix: &str) -> Result<(Vec<Entry>, i64), Trouble> {
        self.trace.push(format!("list {prefix}"));
        self.lists.pop_front().expect("the script goes on")
    }

    async fn put(&mut self, key: &str, value: &str) -> Result<(), Trouble> {
        self.trace.push(format!("put {key} {value}"));
        self.puts.pop_front().expect("the script goes on")
    }

    async fn watch(&mut self, prefix: &str, revision: i64) -> Result<ScriptedChanges, Trouble> {
        self.trace.push(format!("watch {prefix} {revision}"));
        self.watches.pop_front().expect("the script goes on")
    }

    async fn pause(&mut self, pause: Duration) {
        self.trace.push(format!("pause {}", pause.as_secs()));
    }
}

fn entry(id: &str, value: &str, create_revision: i64) -> Entry {
    let key = format!("/_etcd/registry/t/members/{id}").into_bytes();
    Entry { key, value: value.into(), create_revision }
}

fn a() -> Entry {
    entry("a", "a=http://a:1", 5)
}

fn b() -> Entry {
    entry("b", "b=http://b:1", 7)
}

fn size(text: &str) -> Result<Option<Vec<u8>>, Trouble> {
    Ok(Some(text.into()))
}

fn passing() -> Trouble {
    Trouble::Passing("nobody is there".to_owned())
}

fn joined(service: &mut Scripted) -> Result<String, DiscoveryError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let urls = [Url::parse("http://a:1").expect("a URL")];
    runtime.block_on(join(service, "t", 0xa, "a", &urls)).map(|cluster| cluster_text(&cluster))
}

const GET: &str = "get /_etcd/registry/t/_config/size";
const LIST: &str = "list /_etcd/registry/t/members";
const PUT: &str = "put /_etcd/registry/t/members/a a=http://a:1";

#[test]
fn a_member_registers_and_waits_for_the_others() {
    let mut service = Scripted {
        sizes: [size("2"), size("2")].into(),
        lists: [Ok((vec![], 4)), Ok((vec![a()], 5))].into(),
        puts: [Ok(())].into(),
        // Something else is written in between, and the member itself again.
        watches: [Ok(ScriptedChanges([Ok(vec![entry("c", "junk", 6)]), Ok(vec![a(), b()])].into()))].into(),
        ..Scripted::default()
    };
    assert_eq!(joined(&mut service).as_deref(), Ok("a=http://a:1,b=http://b:1"));
    assert_eq!(service.trace, [GET, LIST, PUT, GET, LIST, "watch /_etcd/registry/t/members 6"]);
}

#[test]
fn the_last_one_waits_for_nobody() {
    let mut service = Scripted {
        sizes: [size("2"), size("2")].into(),
        lists: [Ok((vec![b()], 7)), Ok((vec![entry("a", "a=http://a:1", 8), b()], 8))].into(),
        puts: [Ok(())].into(),
        ..Scripted::default()
    };
    assert_eq!(joined(&mut service).as_deref(), Ok("a=http://a:1,b=http://b:1"));
}

#[test]
fn what_passes_is_tried_again_with_longer_pauses() {
    let fails = |count: usize| std::iter::repeat_with(|| Err(passing())).take(count);
    let mut service = Scripted {
        sizes: fails(9).chain([size("1"), size("1"), size("1"), size("1")]).collect(),
        lists: [Err(passing()), Ok((vec![], 4)), Ok((vec![a()], 5))].into(),
        puts: [Err(passing()), Ok(())].into(),
        ..Scripted::default()
    };
    assert_eq!(joined(&mut service).as_deref(), Ok("a=http://a:1"));
    let pauses: Vec<&str> = service.trace.iter().filter_map(|line| line.strip_prefix("pause ")).collect();
    // The count begins anew once something came of it.
    assert_eq!(pauses, ["2", "4", "8", "16", "32", "64", "128", "256", "256", "256", "2"]);
}

#[test]
fn a_watch_that_ends_is_begun_anew_from_what_is_there() {
    let mut service = Scripted {
        sizes: [size("2"), size("2"), size("2"), size("2")].into(),
        lists: [Ok((vec![], 4)), Ok((vec![a()], 5)), Ok((vec![a()], 6)), Ok((vec![a(), b()], 9))].into(),
        puts: [Ok(())].into(),
        watches: [Ok(ScriptedChanges([Err("compacted".to_owned())].into())), Err(passing())].into(),
        ..Scripted::default()
    };
    assert_eq!(joined(&mut service).as_deref(), Ok("a=http://a:1,b=http://b:1"));
    let watches: Vec<&String> = service.trace.iter().filter(|line| line.starts_with("watch")).collect();
    assert_eq!(watches, ["watch /_etcd/registry/t/members 6", "watch /_etcd/registry/t/members 7"]);
}

#[test]
fn a_full_cluster_is_not_registered_at() {
    let c = entry("c", "c=http://c:1", 6);
    let mut service =
        Scripted { sizes: [size("2")].into(), lists: [Ok((vec![b(), c.clone()], 7))].into(), ..Scripted::default() };
    assert_eq!(joined(&mut service), Err(DiscoveryError::FullCluster { size: 2 }));
    assert_eq!(service.trace, [GET, LIST]);

    // Another one was faster.
    let mut service = Scripted {
        sizes: [size("2"), size("2")].into(),
        lists: [Ok((vec![b()], 7)), Ok((vec![b(), c, entry("a", "a=http://a:1", 9)], 9))].into(),
        puts: [Ok(())].into(),
        ..Scripted::default()
    };
    assert_eq!(joined(&mut service), Err(DiscoveryError::FullCluster { size: 2 }));
}

#[test]
fn a_member_that_registered_before_has_its_place() {
    let mut service = Scripted {
        sizes: [size("2"), size("2")].into(),
        lists: [Ok((vec![a(), b()], 7)), Ok((vec![a(), b()], 8))].into(),
        puts: [Ok(())].into(),
        ..Scripted::default()
    };
    assert_eq!(joined(&mut service).as_deref(), Ok("a=http://a:1,b=http://b:1"));
}

#[test]
fn what_lasts_ends_the_start() {
    let mut absent = Scripted { sizes: [Ok(None)].into(), ..Scripted::default() };
    let refused = joined(&mut absent).expect_err("no size").to_string();
    assert!(
        refused
            .contains("(discovery: size key not found); write the number of members to /_etcd/registry/t/_config/size")
    );
    let mut bad = Scripted { sizes: [size("many")].into(), ..Scripted::default() };
    assert!(matches!(joined(&mut bad), Err(DiscoveryError::BadSizeKey { .. })));
    let stranger = DiscoveryError::Unauthenticated("etcdserver: authentication failed".to_owned());
    let mut closed = Scripted { sizes: [Err(Trouble::Lasting(stranger.clone()))].into(), ..Scripted::default() };
    assert_eq!(joined(&mut closed), Err(stranger));
}

#[test]
fn a_registration_that_nobody_would_take_is_not_made() {
    let urls: Vec<Url> = (0..2000).map(|port| Url::parse(&format!("http://a:{port}")).expect("a URL")).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut service = Scripted::default();
    let refused = runtime.block_on(join(&mut service, "t", 0xa, "a", &urls));
    assert_eq!((refused, service.trace.len()), (Err(DiscoveryError::RegistrationTooLong), 0));
}

#[test]
fn a_name_is_of_one_member() {
    let mut service = Scripted {
        sizes: [size("2"), size("2")].into(),
        lists: [Ok((vec![entry("b", "a=http://b:1", 4)], 4)), Ok((vec![a(), entry("b", "a=http://b:1", 4)], 5))].into(),
        puts: [Ok(())].into(),
        ..Scripted::default()
    };
    let taken = DiscoveryError::NameTaken { name: "a".to_owned(), cluster: "a=http://a:1,a=http://b:1".to_owned() };
    assert_eq!(joined(&mut service), Err(taken));
}
