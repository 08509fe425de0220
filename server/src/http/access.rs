//! Who may ask: the host list against DNS rebinding, and the origins whose web pages may read answers
//! (`accessController` in etcd's `server/embed/serve.go`).

use super::message::{PageRequest, PageResponse};
use crate::config::AllowList;
use crate::logging::{ForeignText, Reminder};

/// Whoever reaches a port may name hosts, many in one connection.
static REJECTED_HOSTS: Reminder = Reminder::new(10);

/// The rules of the listeners for clients.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) origins: AllowList,
    pub(super) hosts: AllowList,
}

impl Access {
    /// The answer, if the request does not reach a page: a stranger's host name, or a browser's question of what is
    /// allowed.
    pub(super) fn answer(&self, request: &PageRequest<'_>) -> Option<PageResponse> {
        let host = host_name(request.host);
        if !request.encrypted && !self.hosts.allows(host) {
            if let Some(times) = REJECTED_HOSTS.due() {
                let host = ForeignText(host);
                tracing::warn!(%host, times, "rejecting HTTP request to prevent DNS rebinding attacks");
            }
            return Some(PageResponse::error(421, &unknown_host(host)));
        }
        let options = PageResponse { status: 200, content_type: None, headers: Vec::new(), body: String::new() };
        (request.method == "OPTIONS").then(|| self.allow_origin(request, options))
    }

    /// Adds the CORS headers.
    pub(super) fn allow_origin(&self, request: &PageRequest<'_>, response: PageResponse) -> PageResponse {
        let origin = match (&self.origins, request.origin) {
            (AllowList::All, _) => "*",
            (AllowList::Only(_), Some(origin)) if self.origins.allows(origin) => origin,
            (AllowList::Only(_), _) => return response,
        };
        response
            .with("Access-Control-Allow-Headers", "accept, content-type, authorization")
            .with("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE")
            .with("Access-Control-Allow-Origin", origin)
    }

    /// Whether a web page may have a websocket. Browsers let any page open one, so whoever names origins means them here too; a
    /// page of this very host is no stranger. Where all origins are let in, and for who is no browser, there is no rule.
    pub(super) fn lets_page_in(&self, request: &PageRequest<'_>) -> bool {
        let (AllowList::Only(_), Some(origin)) = (&self.origins, request.origin) else { return true };
        let is_own = origin.split_once("://").is_some_and(|(_, host)| host.eq_ignore_ascii_case(request.host));
        is_own || self.origins.allows(origin)
    }
}

/// The name without its port; all of it if it is not of the form `host:port` or `[address]:port`.
fn host_name(host: &str) -> &str {
    let Some((name, _)) = host.rsplit_once(':') else { return host };
    match name.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').filter(|address| !address.contains(['[', ']'])).unwrap_or(host),
        None if name.contains([':', '[', ']']) => host,
        None => name,
    }
}

fn unknown_host(host: &str) -> String {
    format!(
        r#"
etcd received your request, but the Host header was unrecognized.

To fix this, choose one of the following options:
- Enable TLS, then any HTTPS request will be allowed.
- Add the hostname you want to use to the whitelist in settings.
  - e.g. etcd --host-whitelist {host:?}

This requirement has been added to help prevent "DNS Rebinding" attacks (CVE-2018-5702).
"#
    )
}

#[cfg(test)]
mod tests {
    use super::host_name;

    #[test]
    fn a_port_is_cut_off_as_go_does() {
        for (host, name) in [
            ("a:1", "a"),
            ("a", "a"),
            ("", ""),
            (":1", ""),
            ("[::1]:99", "::1"),
            ("[::1]", "[::1]"),
            ("::1", "::1"),
            ("a:b:1", "a:b:1"),
        ] {
            assert_eq!(host_name(host), name, "{host}");
        }
    }
}
