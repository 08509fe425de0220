//! What callers show of themselves: JSON Web Tokens, tokens of the simple kind, and the headers around them. The first byte says
//! which; claims may be signed as an attacker with the key would.
//!
//! Whoever is let in was let in by a signature of this key over what the token says, by its method and in its time; nothing else
//! makes anybody a user.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::hmac;
use basalt_server::apply::auth::state::{AuthRecord, AuthState};
use basalt_server::auth::jwt::{JwtOptions, Method};
use basalt_server::auth::{Auth, Caller, Credentials, Identified, RotatingKeys, TokenKind};
use basalt_storage::mvcc::system::Table;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

const KEY: &[u8] = b"a key of thirty-two bytes, no less";
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
/// 2^53: above it a number of JSON is not exact.
const REVISION_END: u64 = 1 << 53;

static KEYS: LazyLock<Arc<RotatingKeys>> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("basalt-fuzz-key-{}", std::process::id()));
    std::fs::write(&path, KEY).expect("a file of the temporary folder");
    let life = Duration::from_secs(300);
    let options = JwtOptions { method: Method::HS256, private_key: Some(path.clone()), public_key: None, life };
    let keys = RotatingKeys::read(options).expect("a key");
    std::fs::remove_file(&path).expect("just written");
    Arc::new(keys)
});

static SIGNED: LazyLock<Auth> = LazyLock::new(|| auth(TokenKind::Jwt(KEYS.clone())));
static SIMPLE: LazyLock<Auth> = LazyLock::new(|| auth(TokenKind::Simple { life: Duration::from_secs(300) }));
static NONE: LazyLock<Auth> = LazyLock::new(|| auth(TokenKind::None));

fn auth(kind: TokenKind) -> Auth {
    let mut state = AuthState::default();
    let record = AuthRecord { table: Table::Auth, key: "authEnabled".into(), value: Some(Bytes::from_static(&[1])) };
    state.install(&record);
    Auth::new(Arc::new(state), kind.into())
}

pub(super) fn run(data: &[u8]) {
    let Some((mode, data)) = data.split_first() else { return };
    match mode & 3 {
        0 => raw(data),
        1 => claims(data),
        _ => parts(data, mode & 4 == 4),
    }
    headers(data);
}

/// Any text is no token of ours: nobody can guess a signature.
fn raw(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    assert!(KEYS.verify(&text).is_err(), "{text}");
}

/// Claims with a right signature.
fn claims(claims: &[u8]) {
    let token = signed(HEADER.as_bytes(), claims);
    if let Ok(user) = KEYS.verify(&token) {
        assert!(user.revision < REVISION_END);
        let again = KEYS.sign(&user.name, user.revision).expect("a key that signs");
        let again = KEYS.verify(&again).expect("just signed");
        assert_eq!((again.name, again.revision), (user.name, user.revision));
    }
}

/// A header and claims, parted by a line break, with a right signature or one of other bytes.
fn parts(data: &[u8], spoils: bool) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (header, claims) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let token = signed(header, claims);
    let verified = KEYS.verify(&token);
    if spoils {
        let spoilt = format!("{}A{}", &token[..token.len() - 3], &token[token.len() - 2..]);
        assert!(spoilt == token || KEYS.verify(&spoilt).is_err());
        assert!(KEYS.verify(&format!("{token}.")).is_err());
    }
    if verified.is_ok() {
        let text = String::from_utf8_lossy(header);
        assert!(text.contains("HS256"), "{text}");
    }
}

fn signed(header: &[u8], claims: &[u8]) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The same bytes as the headers of a call.
fn headers(data: &[u8]) {
    let (first, second) = data.split_at(data.len() / 2);
    let mut headers = HeaderMap::new();
    for (name, value) in [("token", first), ("authorization", data), ("authorization", second)] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    for known in [false, true] {
        if known {
            headers.remove("token");
        }
        let credentials = Credentials::of(&headers, None);
        for auth in [&SIMPLE, &NONE, &SIGNED] {
            match auth.identify(&credentials, 5, Duration::from_secs(1)) {
                Identified::Caller(Caller::User { name, .. }) => panic!("{name} of nothing"),
                Identified::Caller(Caller::Nobody) => assert!(credentials.token.is_none()),
                Identified::Caller(Caller::Stranger) => assert!(credentials.token.is_some()),
                Identified::Later => {
                    let token = credentials.token.as_deref().expect("a token");
                    let index = token.split_once('.').and_then(|(_, index)| index.parse::<u64>().ok());
                    assert!(index.is_some_and(|index| index > 5), "{token} is waited for");
                }
            }
        }
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let with = |mode: u8, bytes: &[u8]| [&[mode], bytes].concat();
    let claims = br#"{"username":"ann","revision":7,"exp":9e9,"nbf":1.5}"#;
    let both = |header: &[u8], claims: &[u8]| [header, b"\n", claims].concat();
    vec![
        with(0, b"abcdefghijklmnop.68"),
        with(0, b"Bearer abc.99999999999999999999"),
        with(0, b"eyJhbGciOiJub25lIn0.e30."),
        with(1, claims),
        with(1, br#"{"username":"","revision":1e300,"exp":-1,"x":[{"y":null}]}"#),
        with(1, br#"{"username":"a","revision":0.5}"#),
        with(2, &both(HEADER.as_bytes(), claims)),
        with(6, &both(HEADER.as_bytes(), claims)),
        with(2, &both(br#"{"typ":"JWT","alg":"none"}"#, claims)),
        with(2, &both(br#"{"alg":"HS\u0032\u00356"}"#, claims)),
    ]
}
