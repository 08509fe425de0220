//! `/health`: one answer for everything (etcd-contract 2.4, 42).

use serde::Serialize;

use super::message::{PageRequest, PageResponse, TEXT};
use super::probe::Probe;
use super::query::Query;
use crate::metrics::Metrics;

#[derive(Serialize)]
struct Health<'a> {
    health: &'a str,
    reason: &'a str,
}

/// The page. `?exclude=` names alarms that are no reason, `?serializable=true` asks for this member alone.
pub(super) fn page(request: &PageRequest<'_>, node: &dyn Probe, metrics: &Metrics) -> PageResponse {
    if request.method != "GET" {
        return PageResponse::get_only();
    }
    match check(&Query::parse(request.query), node) {
        Ok(()) => {
            metrics.health_success.inc();
            PageResponse::ok(TEXT, json("true", ""))
        }
        Err(reason) => {
            metrics.health_failures.inc();
            tracing::warn!(reason, status_code = 503, "/health error");
            PageResponse::error(503, &json("false", &reason))
        }
    }
}

fn check(query: &Query, node: &dyn Probe) -> Result<(), String> {
    let excluded: Vec<&str> = query.all("exclude").collect();
    let serializable = query.first("serializable") == Some("true");
    if let Some(alarm) = node.alarms().iter().find(|alarm| !excluded.contains(&alarm.name())) {
        return Err(format!("ALARM {}", alarm.name()));
    }
    if !serializable && !node.has_leader() {
        return Err("RAFT NO LEADER".to_owned());
    }
    let read = if serializable { node.serializable_read() } else { node.linearizable_read() };
    read.map_err(|error| format!("RANGE ERROR:{error}"))
}

/// Go's encoder also escapes what HTML would take for its own.
fn json(health: &str, reason: &str) -> String {
    let text = serde_json::to_string(&Health { health, reason }).expect("two strings always encode");
    text.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
}
