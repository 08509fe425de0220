//! The request by which a connection becomes a websocket, as etcd's gateway reads it (`grpc-websocket-proxy`, and
//! `Upgrader` of gorilla's websockets below it).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use sha1::{Digest, Sha1};

use crate::listen::ClientConnection;

/// RFC 6455, 1.3.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY_BYTES: usize = 16;
/// The only version.
pub(super) const VERSION: &str = "13";
/// Before a token in `Sec-WebSocket-Protocol`, and in `Authorization`.
const BEARER: &str = "Bearer";
/// A cookie that is a token.
const TOKEN_COOKIE: &str = "token";

/// Whether a request wants to be a websocket.
pub(super) fn is_asked(head: &Parts) -> bool {
    names(&head.headers, &header::CONNECTION, "upgrade") && names(&head.headers, &header::UPGRADE, "websocket")
}

/// The headers of the answer that makes it one.
///
/// # Errors
/// HTTP's status for a request that cannot be one.
pub(super) fn accept(head: &Parts) -> Result<HeaderMap, StatusCode> {
    if head.method != Method::GET {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    if !names(&head.headers, &header::SEC_WEBSOCKET_VERSION, VERSION) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let key = head.headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if STANDARD.decode(key).map_or(0, |decoded| decoded.len()) != KEY_BYTES {
        return Err(StatusCode::BAD_REQUEST);
    }
    let digest = Sha1::new().chain_update(key).chain_update(KEY_SUFFIX).finalize();
    let mut headers = HeaderMap::new();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let accepted = HeaderValue::from_str(&STANDARD.encode(digest)).expect("base64 is visible ASCII");
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
    if protocols(&head.headers).is_some_and(|protocols| protocols.starts_with(BEARER)) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(BEARER));
    }
    Ok(headers)
}

/// The head of the call that a websocket makes: always a POST, whatever `method` in the query says, with the token as its only
/// header. `Authorization` does not count, and where there are both the cookie does.
pub(super) fn call_of(head: &Parts) -> Parts {
    let mut call = Request::new(()).into_parts().0;
    call.method = Method::POST;
    call.uri = head.uri.clone();
    if let Some(client) = head.extensions.get::<ClientConnection>() {
        call.extensions.insert(client.clone());
    }
    let by_protocol = protocols(&head.headers).map(|protocols| {
        let token = protocols.split_once("Bearer,").map(|(_, token)| token.trim_matches(' '));
        token.map_or(String::new(), |token| format!("{BEARER} {token}"))
    });
    let by_cookie = cookie(&head.headers).map(|token| format!("{BEARER} {token}"));
    if let Some(token) = by_cookie.or(by_protocol).and_then(|token| HeaderValue::try_from(token).ok()) {
        call.headers.insert(header::AUTHORIZATION, token);
    }
    call
}

fn protocols(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok().filter(|protocols| !protocols.is_empty())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut cookies = lines.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    let (_, value) = cookies.find(|(name, _)| *name == TOKEN_COOKIE)?;
    Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// Whether a list of tokens has this one.
fn names(headers: &HeaderMap, list: &HeaderName, token: &str) -> bool {
    let lines = headers.get_all(list).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|listed| listed.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri("/v3/watch?method=GET");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    const ASKED: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn the_example_of_the_standard_is_accepted() {
        let head = head("GET", &ASKED);
        assert!(is_asked(&head));
        let headers = accept(&head).expect("accepted");
        assert_eq!(headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!headers.contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn what_is_no_handshake_is_refused() {
        let without = |name: &str| -> Vec<_> { ASKED.into_iter().filter(|(known, _)| *known != name).collect() };
        assert!(!is_asked(&head("GET", &without("connection"))) && !is_asked(&head("GET", &without("upgrade"))));
        assert_eq!(accept(&head("POST", &ASKED)), Err(StatusCode::METHOD_NOT_ALLOWED));
        for name in ["sec-websocket-version", "sec-websocket-key"] {
            assert_eq!(accept(&head("GET", &without(name))), Err(StatusCode::BAD_REQUEST), "{name}");
        }
        for key in ["", "x", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25j"] {
            let asked = [&without("sec-websocket-key")[..], &[("sec-websocket-key", key)]].concat();
            assert_eq!(accept(&head("GET", &asked)), Err(StatusCode::BAD_REQUEST), "{key}");
        }
        let old = [&without("sec-websocket-version")[..], &[("sec-websocket-version", "8")]].concat();
        assert_eq!(accept(&head("GET", &old)), Err(StatusCode::BAD_REQUEST));
    }

    #[test]
    fn a_token_stands_in_the_protocol_or_in_a_cookie() {
        let token = |headers: &[(&str, &str)]| {
            let call = call_of(&head("GET", headers));
            assert_eq!((call.method, call.uri.path()), (Method::POST, "/v3/watch"));
            call.headers.get(header::AUTHORIZATION).map(|value| value.to_str().expect("text").to_owned())
        };
        assert_eq!(token(&[]), None);
        assert_eq!(token(&[("authorization", "t")]), None);
        assert_eq!(token(&[("sec-websocket-protocol", "Bearer, t")]).as_deref(), Some("Bearer t"));
        assert_eq!(token(&[("sec-websocket-protocol", "Bearer,t.1")]).as_deref(), Some("Bearer t.1"));
        assert_eq!(token(&[("sec-websocket-protocol", "chat")]).as_deref(), Some(""));
        assert_eq!(token(&[("cookie", "a=b; token=c")]).as_deref(), Some("Bearer c"));
        let both = [("sec-websocket-protocol", "Bearer, t"), ("cookie", "token=\"c\"")];
        assert_eq!(token(&both).as_deref(), Some("Bearer c"));
        let headers = accept(&head("GET", &[&ASKED[..], &[("sec-websocket-protocol", "Bearer, t")]].concat()));
        assert_eq!(headers.expect("accepted")["sec-websocket-protocol"], "Bearer");
    }
}
