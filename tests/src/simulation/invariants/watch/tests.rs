use basalt_proto::mvccpb::KeyValue;

use super::*;
use crate::model::Version;

fn version(mod_revision: i64, create_revision: i64) -> Version {
    let version = mod_revision - create_revision + 1;
    Version { create_revision, mod_revision, version, lease: 0, value: Some(b"v".to_vec()) }
}

/// `a` is written in revisions 2, 3 and 4, `b` in 3 too.
fn history() -> Vec<Happened> {
    let happened = |key: &str, revision, create, previous: Option<(i64, i64)>| Happened {
        key: key.as_bytes().to_vec(),
        version: version(revision, create),
        previous: previous.map(|(revision, create)| version(revision, create)),
    };
    vec![
        happened("a", 2, 2, None),
        happened("a", 3, 2, Some((2, 2))),
        happened("b", 3, 3, None),
        happened("a", 4, 2, Some((3, 2))),
    ]
}

fn event(key: &'static str, mod_revision: i64, create_revision: i64) -> Event {
    let Version { version, .. } = version(mod_revision, create_revision);
    let (key, value) = (key.as_bytes().into(), b"v"[..].into());
    let kv = KeyValue { key, value, create_revision, mod_revision, version, lease: 0 };
    Event { kv: Some(kv), ..Event::default() }
}

fn watched() -> Watched {
    let wanted = Wanted { key: b"a".to_vec(), range_end: b"c".to_vec(), ..Wanted::default() };
    Watched::from(wanted, 2, &history())
}

fn tell(responses: &[&[Event]]) -> Watched {
    let mut watched = watched();
    responses.iter().for_each(|events| watched.told(events, false, &history(), 0));
    watched
}

#[test]
fn what_happened_may_be_told() {
    let mut watched = tell(&[&[event("a", 2, 2)], &[event("a", 3, 2), event("b", 3, 3)]]);
    watched.told_progress(3, &history());
    assert!(!watched.is_up_to_date(&history()));
    watched.resumed(&history());
    assert_eq!(watched.resume_at(), 4);
    watched.told(&[event("a", 4, 2)], false, &history(), 0);
    assert!(watched.is_up_to_date(&history()));
}

#[test]
#[should_panic(expected = "I9")]
fn an_older_event_is_seen() {
    tell(&[&[event("a", 2, 2)], &[event("a", 3, 2), event("b", 3, 3)], &[event("a", 2, 2)]]);
}

#[test]
#[should_panic(expected = "I10")]
fn an_event_that_comes_twice_is_seen() {
    tell(&[&[event("a", 2, 2)], &[event("a", 2, 2)]]);
}

#[test]
#[should_panic(expected = "I11")]
fn half_a_revision_is_seen() {
    tell(&[&[event("a", 2, 2), event("a", 3, 2)]]);
}

#[test]
#[should_panic(expected = "I12")]
fn an_event_that_is_left_out_is_seen() {
    tell(&[&[event("a", 3, 2), event("b", 3, 3)]]);
}

#[test]
#[should_panic(expected = "I14")]
fn early_progress_is_seen() {
    tell(&[&[event("a", 2, 2)]]).told_progress(3, &history());
}

#[test]
#[should_panic(expected = "the event of a at 2")]
fn another_value_is_seen() {
    let mut other = event("a", 2, 2);
    other.kv.as_mut().expect("there").value = b"w"[..].into();
    tell(&[&[other]]);
}

#[test]
#[should_panic(expected = "prevKV")]
fn a_missing_previous_value_is_seen() {
    let mut watched = watched();
    watched.wanted.prev_kv = true;
    watched.told(&[event("a", 2, 2)], false, &history(), 2);
    watched.told(&[event("a", 3, 2), event("b", 3, 3)], false, &history(), 2);
}
