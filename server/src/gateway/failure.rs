//! Errors as the gateway shows them: a code of gRPC and its text, under the status that HTTP has for it
//! (`runtime.HTTPStatusFromCode` of grpc-gateway).

use http::{HeaderMap, StatusCode};
use serde::Serialize;

/// An error of a call, or of the way to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Failure {
    /// A gRPC code.
    pub code: u16,
    /// Its text; left out where there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Failure {
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A request that cannot be read.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(3, message)
    }

    /// How a call ended, by its trailers; `None` if well.
    pub fn of_trailers(trailers: &HeaderMap) -> Option<Self> {
        let text = |name| trailers.get(name).and_then(|value| value.to_str().ok());
        let code = text("grpc-status").and_then(|code| code.parse().ok()).unwrap_or(2);
        (code != 0).then(|| Self::new(code, percent_decoded(text("grpc-message").unwrap_or_default())))
    }

    /// HTTP's status.
    pub fn status(&self) -> StatusCode {
        match self.code {
            1 => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            3 | 9 | 11 => StatusCode::BAD_REQUEST,
            4 => StatusCode::GATEWAY_TIMEOUT,
            5 => StatusCode::NOT_FOUND,
            6 | 10 => StatusCode::CONFLICT,
            7 => StatusCode::FORBIDDEN,
            8 => StatusCode::TOO_MANY_REQUESTS,
            12 => StatusCode::NOT_IMPLEMENTED,
            14 => StatusCode::SERVICE_UNAVAILABLE,
            16 => StatusCode::UNAUTHORIZED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// As a line of a stream, without its end.
    pub fn to_line(&self) -> String {
        format!("{{\"error\":{}}}", self.to_json())
    }

    /// As the whole answer.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a number and a text encode")
    }
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
