//! `etcd_server_client_requests_total`: requests by what the client says its version is.

use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::{IntCounter, IntCounterVec};

use super::grpc_method::CallKind;

/// How many versions are told apart. The label is whatever a client sends; what comes later counts as unknown.
const VERSIONS_MAX: usize = 32;

/// The longest version that gets a series of its own.
const VERSION_BYTES_MAX: usize = 32;

/// What a client without a version counts as.
const UNKNOWN: &str = "unknown";

/// Counters by client version and kind of call.
pub struct ClientRequests {
    family: IntCounterVec,
    /// A handful, searched from the front; replaced as a whole when a new version comes.
    known: ArcSwap<Vec<Arc<ClientVersion>>>,
}

struct ClientVersion {
    version: String,
    unary: IntCounter,
    stream: IntCounter,
}

impl ClientRequests {
    pub(super) fn new(family: IntCounterVec) -> Self {
        Self { family, known: ArcSwap::default() }
    }

    /// A request of `kind` has come from a client that calls its API version `version`.
    pub fn count(&self, kind: CallKind, version: Option<&str>) {
        let version = version.filter(|version| version.len() <= VERSION_BYTES_MAX).unwrap_or(UNKNOWN);
        let client = {
            let known = self.known.load();
            let find = |version| known.iter().find(|known| known.version == version).cloned();
            // Once there is no room, a version never heard of must not cost more than a known one.
            let full = known.len() + 1 >= VERSIONS_MAX;
            find(version).or_else(|| if full { find(UNKNOWN) } else { None })
        };
        let client = client.unwrap_or_else(|| self.meet(version));
        match kind {
            CallKind::Unary => client.unary.inc(),
            CallKind::ServerStream | CallKind::BidiStream => client.stream.inc(),
        }
    }

    /// Takes in a version that is not known yet, if there is room; the place of the last one is for unknown ones.
    fn meet(&self, version: &str) -> Arc<ClientVersion> {
        let mut found = None;
        self.known.rcu(|known| {
            let room = known.len() + 1 < VERSIONS_MAX;
            let version = if room { version } else { UNKNOWN };
            let mut known = Vec::clone(known);
            let client = known.iter().find(|known| known.version == version).cloned();
            let client = client.unwrap_or_else(|| {
                known.push(self.client(version));
                known[known.len() - 1].clone()
            });
            found = Some(client);
            known
        });
        found.expect("rcu runs its closure at least once")
    }

    fn client(&self, version: &str) -> Arc<ClientVersion> {
        let counter = |kind| self.family.with_label_values(&[kind, version]);
        Arc::new(ClientVersion { version: version.to_owned(), unary: counter("unary"), stream: counter("stream") })
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;
    use prometheus::core::Collector;

    use super::*;

    #[test]
    fn clients_cannot_make_series_without_end() {
        let family = IntCounterVec::new(Opts::new("requests", "help"), &["type", "client_api_version"]).expect("valid");
        let requests = ClientRequests::new(family.clone());
        requests.count(CallKind::Unary, Some("3.7"));
        requests.count(CallKind::BidiStream, Some("3.7"));
        requests.count(CallKind::Unary, None);
        requests.count(CallKind::Unary, Some(&"9".repeat(1000)));
        for version in 0..1000 {
            requests.count(CallKind::Unary, Some(&version.to_string()));
        }
        let count = |kind, version| family.with_label_values(&[kind, version]).get();
        assert_eq!((count("unary", "3.7"), count("stream", "3.7"), count("unary", "0")), (1, 1, 1));
        let told_apart = u64::try_from(VERSIONS_MAX).expect("small") - 3;
        assert_eq!(count("unary", "unknown"), 2 + 1000 - told_apart);
        assert!(family.collect()[0].get_metric().len() <= 2 * VERSIONS_MAX);
    }
}
