//! The table of paths against the wire, and JSON both ways.

use std::collections::BTreeSet;

use bytes::{Buf, Bytes};

use super::failure::Failure;
use super::frames::Scanner;
use super::routes::{Kind, all, method_of};
use super::transcoder::{Transcoder, framed, from_json, take_message, to_json, values_max};
use crate::api::pieces::Pieces;

#[test]
fn every_method_of_etcd_but_one_has_a_path() {
    let transcoder = Transcoder::new();
    let (mut paths, mut methods) = (BTreeSet::new(), BTreeSet::new());
    for (path, service, method) in all() {
        assert!(transcoder.signature(service, method).is_some(), "{service}/{method}");
        assert!(paths.insert(path), "{path} twice");
        methods.insert((service, method));
    }
    // 42 of etcd without RangeStream, 2 of the lock, 5 of the election; three have two paths.
    assert_eq!((methods.len(), paths.len()), (48, 51));
    assert_eq!(method_of("/v3/kv/range"), Some(("etcdserverpb.KV", "Range")));
    assert_eq!(method_of("/v3beta/kv/range"), Some(("etcdserverpb.KV", "Range")));
    for other in ["/v3/kv/range/", "/v3/", "/v3/kv/rangestream", "/v2/keys", "/kv/range"] {
        assert_eq!(method_of(other), None, "{other}");
    }
}

#[test]
fn kinds_come_from_the_wire() {
    let transcoder = Transcoder::new();
    let kind = |service, method| transcoder.signature(service, method).expect("a method").kind;
    assert_eq!(kind("etcdserverpb.KV", "Put"), Kind::Unary);
    assert_eq!(kind("etcdserverpb.Maintenance", "Snapshot"), Kind::ServerStream);
    assert_eq!(kind("v3electionpb.Election", "Observe"), Kind::ServerStream);
    assert_eq!(kind("etcdserverpb.Watch", "Watch"), Kind::Streams);
    assert_eq!(kind("etcdserverpb.Lease", "LeaseKeepAlive"), Kind::Streams);
}

#[test]
fn json_is_read_as_etcds_gateway_reads_it() {
    let range = Transcoder::new().signature("etcdserverpb.KV", "Range").expect("a method").request;
    let read = |json: &str| {
        let message = from_json(&range, json.as_bytes(), usize::MAX)?;
        Ok(String::from_utf8(to_json(&range, &message)?).expect("text"))
    };
    let same = |json: &str, expected: &str| assert_eq!(read(json), Ok(expected.to_owned()), "{json}");
    same("", "{}");
    same(" \n", "{}");
    same("{}", "{}");
    same(r#"{"key":"Zm9v","limit":5}"#, r#"{"key":"Zm9v","limit":"5"}"#);
    same(r#"{"limit":"5","keysOnly":true}"#, r#"{"limit":"5","keys_only":true}"#);
    same(r#"{"sort_order":"DESCEND","sort_target":1}"#, r#"{"sort_order":"DESCEND","sort_target":"VERSION"}"#);
    same(r#"{"key":"Zm9v","nope":{"a":[1]}}"#, r#"{"key":"Zm9v"}"#);
    // As names of fields, so names of values.
    same(r#"{"sort_order":"UP"}"#, "{}");
    same(r#"{"key":"Zm8"}"#, r#"{"key":"Zm8="}"#);
    same(r#"{"key":"_-8="}"#, r#"{"key":"/+8="}"#);
    same(r#"{"key":"Zm9v"} and more"#, r#"{"key":"Zm9v"}"#);
    assert_eq!(read(r#"{"key":"#), Err(Failure::invalid("unexpected EOF")));
    for bad in [r#"{"key":"!!"}"#, r#"{"key":1}"#, r#"{"limit":"x"}"#, r#"{"limit":1.5}"#, "[]", "7", "x"] {
        assert_eq!(read(bad).expect_err(bad).code, 3, "{bad}");
    }
    // Nested as deep as nobody means it: passed over where nobody knows it, refused where somebody would have to.
    let deep = format!("{}1{}", r#"{"nope":["#.repeat(10_000), "]}".repeat(10_000));
    assert_eq!(read(&deep), Ok("{}".to_owned()));
    let txn = Transcoder::new().signature("etcdserverpb.KV", "Txn").expect("a method").request;
    let deep = format!("{}{}", r#"{"success":[{"request_txn":"#.repeat(10_000), "}]}".repeat(10_000));
    assert_eq!(from_json(&txn, deep.as_bytes(), usize::MAX).expect_err("too deep").code, 3);
}

#[test]
fn json_of_more_values_than_any_message_needs_is_refused_before_anything_is_made_of_it() {
    let txn = Transcoder::new().signature("etcdserverpb.KV", "Txn").expect("a method").request;
    let compares = |count: usize| {
        let compare = r#"{"key":"YSx7Ww==","target":"VALUE","value":"YQ=="}"#;
        format!("{{\"compare\":[{}]}}", vec![compare; count].join(","))
    };
    // Three values of each and one between two of them; and two around them all.
    assert!(from_json(&txn, compares(100).as_bytes(), 401).is_ok());
    assert_eq!(from_json(&txn, compares(100).as_bytes(), 400).expect_err("too many").code, 3);
    // What stands in texts is none.
    let text = format!("{{\"key\":\"{}\"}}", "[{,\\\"".repeat(1_000));
    assert!(from_json(&txn, text.as_bytes(), 2).is_ok());
    assert_eq!((values_max(128), values_max(100_000)), (32 << 10, 3_200_000));
}

#[test]
fn values_end_where_they_end_however_they_come() {
    let json = br#" {"a":"}\"{","b":[{}]} {} x"#;
    let mut scanner = Scanner::default();
    let first = (0..=json.len()).find_map(|end| scanner.end_of_value(&json[..end])).expect("a value");
    assert_eq!(&json[..first], br#" {"a":"}\"{","b":[{}]}"#);
    assert_eq!(Scanner::default().end_of_value(&json[first..]), Some(3));
    assert_eq!(Scanner::default().end_of_value(b" x"), Some(2));
    assert_eq!(Scanner::default().end_of_value(b" \n"), None);
    assert_eq!(Scanner::default().end_of_value(br#"{"a":"}"#), None);
}

#[test]
fn frames_are_cut_where_they_end() {
    let mut frames = Pieces::default();
    let take = |frames: &mut Pieces| take_message(frames).map(|mut message| message.copy_to_bytes(message.remaining()));
    for piece in [&framed(b"ab")[..], &framed(b"")[..3], &framed(b"")[3..], &framed(b"c")[..5]] {
        frames.push(Bytes::copy_from_slice(piece));
    }
    assert_eq!(take(&mut frames).as_deref(), Some(&b"ab"[..]));
    assert_eq!(take(&mut frames).as_deref(), Some(&b""[..]));
    assert_eq!(take(&mut frames), None);
    frames.push(Bytes::from_static(b"c"));
    assert_eq!(take(&mut frames).as_deref(), Some(&b"c"[..]));
    assert_eq!(take(&mut frames), None);
}

#[test]
fn failures_have_the_status_of_http() {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    assert_eq!(Failure::of_trailers(&trailers), None);
    trailers.insert("grpc-status", "7".parse().expect("a value"));
    trailers.insert("grpc-message", "50%25 of %C3%A4 %zz".parse().expect("a value"));
    let failure = Failure::of_trailers(&trailers).expect("it failed");
    assert_eq!((failure.status().as_u16(), &failure.message[..]), (403, "50% of ä %zz"));
    assert_eq!(failure.to_json(), r#"{"code":7,"message":"50% of ä %zz"}"#);
    let status = |code| Failure::new(code, "").status().as_u16();
    assert_eq!(
        [1, 2, 3, 4, 5, 8, 9, 11, 12, 13, 14, 15, 16].map(status),
        [499, 500, 400, 504, 404, 429, 400, 400, 501, 500, 503, 500, 401]
    );
}
