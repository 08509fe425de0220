//! JSON of the gateway. The first line names the path below `/v3/`; the rest is the body.
//!
//! What is read is a message that can be shown as JSON, and that JSON is read as the same message. A body that comes in pieces
//! ends where it does in one, and what the end leaves off changes nothing. What cannot be shown says so in JSON.

use std::sync::LazyLock;

use basalt_server::gateway::foreign::{Method, end_of_value};

const PATHS: [&str; 24] = [
    "kv/range",
    "kv/put",
    "kv/deleterange",
    "kv/txn",
    "kv/compaction",
    "watch",
    "lease/grant",
    "lease/revoke",
    "lease/keepalive",
    "lease/timetolive",
    "cluster/member/add",
    "cluster/member/update",
    "maintenance/alarm",
    "maintenance/downgrade",
    "maintenance/hashkv",
    "auth/authenticate",
    "auth/user/add",
    "auth/user/changepw",
    "auth/role/grant",
    "lock/lock",
    "election/campaign",
    "election/proclaim",
    "election/observe",
    "election/resign",
];

static METHODS: LazyLock<Vec<(String, Method)>> = LazyLock::new(|| {
    let method = |path: &&str| {
        let path = format!("/v3/{path}");
        let method = Method::of_path(&path).expect("a path of the table");
        (path, method)
    };
    PATHS.iter().map(method).collect()
});

pub(super) fn run(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (path, body) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    // Strangers' paths lead to the last method, so that a body is read in any case.
    let path = String::from_utf8_lossy(path);
    let (_, method) = METHODS.iter().find(|(known, _)| *known == path).unwrap_or(&METHODS[METHODS.len() - 1]);
    pieces(method, body);
    match method.request(body) {
        Ok(message) => shown(method, &message),
        Err((status, told)) => {
            assert_eq!(status, 400, "{told}");
            assert!(told.starts_with("{\"code\":3"), "{told}");
        }
    }
    // The same bytes as the answer of a member that lies.
    for answer in [method.response_json(body), method.request_json(body)] {
        match answer {
            Ok(json) => assert!(json.starts_with(b"{"), "{json:?}"),
            Err((status, told)) => assert!(status == 500 && told.starts_with("{\"code\":13"), "{told}"),
        }
    }
}

fn shown(method: &Method, message: &[u8]) {
    let json = method.request_json(message).expect("what was read can be shown");
    let again = method.request(&json).expect("what is shown can be read");
    assert_eq!(again, message, "{}", String::from_utf8_lossy(&json));
}

fn pieces(method: &Method, body: &[u8]) {
    let whole = end_of_value(std::iter::once(body));
    assert_eq!(end_of_value(body.chunks(1)), whole);
    assert_eq!(end_of_value(body.chunks(7)), whole);
    if let Some(end) = whole {
        assert!(end > 0 && end <= body.len());
        if let Ok(message) = method.request(body) {
            assert_eq!(method.request(&body[..end]), Ok(message), "what stands behind the value is passed over");
        }
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let bodies = [
        (
            "kv/range",
            r#"{"key":"Zm9v","range_end":"AA==","sort_order":"ASCEND","sort_target":1,"limit":"3","keys_only":true}"#,
        ),
        ("kv/put", r#" {"key":"Zm9v","value":"YmFy","lease":"-7","prevKv":true,"unknown":[{}]} {"key":""} "#),
        (
            "kv/txn",
            r#"{"compare":[{"target":"MOD","modRevision":"4","key":"Zg=="}],"success":[{"requestPut":{"key":"Zg=="}},
            {"request_txn":{"failure":[{"requestRange":{"key":"Zg"}}]}}]}"#,
        ),
        (
            "watch",
            r#"{"create_request":{"key":"Zm9v","filters":["NOPUT",1],"start_revision":1e2}}{"cancel_request":{}}"#,
        ),
        ("lease/grant", r#"{"TTL":60,"ID":"9223372036854775807"}"#),
        ("cluster/member/add", r#"{"peerURLs":["http://a:1","\u00e9\ud83d\ude00"],"isLearner":false}"#),
        ("maintenance/alarm", r#"{"action":"ACTIVATE","memberID":"18446744073709551615","alarm":null}"#),
        ("auth/role/grant", r#"{"name":"r","perm":{"permType":"READWRITE","key":"Zg==","range_end":"Zw=="}}"#),
        ("auth/user/add", r#"{"name":"a","password":"b","options":{"no_password":true}}"#),
        ("election/proclaim", r#"{"leader":{"name":"Zg==","key":"Zg==","rev":1,"lease":2},"value":"Zg=="}"#),
        ("lock/lock", "\t"),
        ("kv/compaction", "[1]"),
    ];
    bodies.iter().map(|(path, body)| format!("/v3/{path}\n{body}").into_bytes()).collect()
}
