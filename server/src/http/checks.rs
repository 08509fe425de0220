//! `/livez` and `/readyz`: named checks, together or each under its own path (etcd-contract 2.4, 43).

use std::fmt::Write as _;

use super::message::{PageRequest, PageResponse, TEXT};
use super::probe::{AlarmKind, Probe};
use super::query::Query;
use crate::metrics::Metrics;

/// The check that asks the cluster.
pub(super) const LINEARIZABLE_READ: &str = "linearizable_read";

/// What is not etcd's: there a damaged page ends the process, or is not noticed.
const DAMAGED: &str = "stored data of this member is damaged; see its log, and basaltctl reseed";

/// A set of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// Whether a restart might help.
    Livez,
    /// Whether requests should be sent here.
    Readyz,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => LINEARIZABLE_READ,
            Check::NonLearner => "non_learner",
        }
    }

    fn run(self, node: &dyn Probe) -> Result<(), String> {
        match self {
            Check::DataCorruption if node.alarms().contains(&AlarmKind::Corrupt) => {
                Err(format!("alarm activated: {}", AlarmKind::Corrupt.name()))
            }
            Check::DataCorruption if node.is_damaged() => Err(DAMAGED.to_owned()),
            Check::NonLearner if node.is_learner() => Err("not supported for learner".to_owned()),
            Check::DataCorruption | Check::NonLearner => Ok(()),
            Check::SerializableRead => node.serializable_read(),
            Check::LinearizableRead => node.linearizable_read(),
        }
    }
}

impl Endpoint {
    /// Each check's path is the endpoint's and its name.
    pub(super) fn from_path(path: &str) -> Option<(Self, Option<&str>)> {
        let (root, check) = match path.strip_prefix('/')?.split_once('/') {
            Some((root, check)) => (root, Some(check)),
            None => (path.strip_prefix('/')?, None),
        };
        let endpoint = [Endpoint::Livez, Endpoint::Readyz].into_iter().find(|endpoint| endpoint.name() == root)?;
        Some((endpoint, check))
    }

    fn name(self) -> &'static str {
        match self {
            Endpoint::Livez => "livez",
            Endpoint::Readyz => "readyz",
        }
    }

    fn checks(self) -> &'static [Check] {
        match self {
            Endpoint::Livez => &[Check::SerializableRead],
            Endpoint::Readyz => {
                &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner]
            }
        }
    }

    /// The page, or that of the one check `only`. `?exclude=` leaves checks out, but not under their own path;
    /// `?verbose` lists them also when all is well.
    pub(super) fn page(
        self,
        only: Option<&str>,
        request: &PageRequest<'_>,
        node: &dyn Probe,
        metrics: &Metrics,
    ) -> PageResponse {
        let query = Query::parse(request.query);
        let wanted = |check: &&Check| match only {
            Some(name) => check.name() == name,
            None => !query.all("exclude").any(|excluded| excluded == check.name()),
        };
        if only.is_some() && !self.checks().iter().any(|check| wanted(&check)) {
            return PageResponse::not_found();
        }
        if request.method != "GET" {
            return PageResponse::get_only();
        }
        match self.run(self.checks().iter().filter(wanted), node, metrics) {
            Ok(list) => {
                let list = if query.has("verbose") { list } else { String::new() };
                PageResponse::ok(TEXT, list + "ok\n").unsniffed()
            }
            Err(list) => {
                tracing::warn!(path = request.path, reason = list, status_code = 503, "Health check error");
                PageResponse::error(503, &list)
            }
        }
    }

    /// Runs every check, also after one has failed; a line for each.
    fn run<'a>(
        self,
        checks: impl Iterator<Item = &'a Check>,
        node: &dyn Probe,
        metrics: &Metrics,
    ) -> Result<String, String> {
        let (mut list, mut healthy) = (String::new(), true);
        for check in checks {
            let (name, result) = (check.name(), check.run(node));
            match &result {
                Ok(()) => writeln!(list, "[+]{name} ok"),
                Err(reason) => writeln!(list, "[-]{name} failed: {reason}"),
            }
            .expect("a String takes all that is written");
            healthy &= result.is_ok();
            let status = if result.is_ok() { "success" } else { "error" };
            metrics.healthcheck.with_label_values(&[self.name(), name]).set(i64::from(result.is_ok()));
            metrics.healthchecks_total.with_label_values(&[self.name(), name, status]).inc();
        }
        if healthy { Ok(list) } else { Err(list) }
    }
}
