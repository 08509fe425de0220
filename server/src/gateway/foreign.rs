//! The way of JSON into this room and out of it, for whoever tries it with bytes of all kinds (`tests/fuzz`).

use bytes::Bytes;
use prost_reflect::MessageDescriptor;

use super::failure::Failure;
use super::frames::Scanner;
use super::routes::method_of;
use super::transcoder::{Transcoder, from_json, to_json, values_max};

/// Request and response of one method.
pub struct Method {
    request: MessageDescriptor,
    response: MessageDescriptor,
}

impl Method {
    /// The method of a path; `None` if there is none.
    pub fn of_path(path: &str) -> Option<Self> {
        let (service, method) = method_of(path)?;
        let signature = Transcoder::new().signature(service, method)?;
        Some(Self { request: signature.request, response: signature.response })
    }

    /// The request that JSON is.
    ///
    /// # Errors
    /// How the client is told that it is none: HTTP's status, and the body.
    pub fn request(&self, json: &[u8]) -> Result<Bytes, (u16, String)> {
        from_json(&self.request, json, values_max(0)).map_err(told)
    }

    /// The JSON of a request, as if it were an answer.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn request_json(&self, message: &[u8]) -> Result<Vec<u8>, (u16, String)> {
        to_json(&self.request, message).map_err(told)
    }

    /// The JSON of an answer.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn response_json(&self, message: &[u8]) -> Result<Vec<u8>, (u16, String)> {
        to_json(&self.response, message).map_err(told)
    }
}

/// Where the first value of a body ends that comes in pieces; `None` while it does not.
pub fn end_of_value<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<usize> {
    let (mut scanner, mut waiting) = (Scanner::default(), Vec::new());
    for piece in pieces {
        waiting.extend_from_slice(piece);
        if let Some(end) = scanner.end_of_value(&waiting) {
            return Some(end);
        }
    }
    None
}

fn told(failure: Failure) -> (u16, String) {
    (failure.status().as_u16(), failure.to_json())
}
