//! What comes in and goes out.

use super::checks::LINEARIZABLE_READ;
use super::query::Query;

/// A request for a page.
#[derive(Clone, Copy, Debug, Default)]
pub struct PageRequest<'a> {
    /// `GET` and so on, in capitals.
    pub method: &'a str,
    /// The path, percent-decoded.
    pub path: &'a str,
    /// What stands behind the first `?`, as it came; empty if nothing.
    pub query: &'a str,
    /// The `Host` header or `:authority`, with its port.
    pub host: &'a str,
    /// The `Origin` header.
    pub origin: Option<&'a str>,
    /// Whether it came over TLS.
    pub encrypted: bool,
}

impl PageRequest<'_> {
    /// Whether the page needs a read with the consent of the cluster, which may take as long as any request.
    pub fn reads_linearizably(&self) -> bool {
        let query = Query::parse(self.query);
        self.method == "GET"
            && match self.path {
                "/health" => query.first("serializable") != Some("true"),
                "/readyz" => !query.all("exclude").any(|check| check == LINEARIZABLE_READ),
                path => path.strip_prefix("/readyz/") == Some(LINEARIZABLE_READ),
            }
    }
}

/// A page. Length and date are the edge's to add; for `HEAD` it leaves the body out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageResponse {
    /// HTTP's status.
    pub status: u16,
    /// The `Content-Type` header, if the page has one.
    pub content_type: Option<&'static str>,
    /// All other headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

pub(super) const TEXT: &str = "text/plain; charset=utf-8";

impl PageResponse {
    /// 200 with a body.
    pub(super) fn ok(content_type: &'static str, body: impl Into<String>) -> Self {
        Self { status: 200, content_type: Some(content_type), headers: Vec::new(), body: body.into() }
    }

    /// What Go's `http.Error` writes: the text and a line break.
    pub(super) fn error(status: u16, text: &str) -> Self {
        Self { status, content_type: Some(TEXT), headers: Vec::new(), body: format!("{text}\n") }.unsniffed()
    }

    /// 404 as Go's `http.NotFound` has it.
    pub(super) fn not_found() -> Self {
        Self::error(404, "404 page not found")
    }

    /// 405 for a page that can only be read.
    pub(super) fn get_only() -> Self {
        Self::error(405, "Method Not Allowed").with("Allow", "GET")
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Forbids browsers to guess another content type.
    pub(super) fn unsniffed(self) -> Self {
        self.with("X-Content-Type-Options", "nosniff")
    }
}
