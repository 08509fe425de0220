//! Calls that could wait for ever, or answer what nobody asked.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::{AlarmRequest, AlarmResponse, AlarmType, PutRequest, PutResponse};
use basalt_storage::mvcc::kept_views::KeptViews;

use super::super::method::Method;
use super::super::service::Service;
use super::super::status;
use super::rig::Rig;
use crate::api::member_changes::MemberRules;
use crate::auth::{Caller, Passwords};
use crate::node::handle::UNAPPLIED_MAX;

/// The service of `rig` with little patience.
fn impatient(rig: &Rig) -> Arc<Service> {
    let Service { node, sinks, metrics, slow_unary, slow_apply, stopping, .. } = &*rig.service;
    Arc::new(Service {
        kept: Mutex::new(KeptViews::new(0)),
        node: node.clone(),
        sinks: sinks.clone(),
        peers: None,
        metrics: metrics.clone(),
        tracer: None,
        slow_unary: *slow_unary,
        slow_apply: *slow_apply,
        election_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_millis(10),
        passwords: Passwords::new(4),
        member_rules: MemberRules { strict: true, learners_max: 1 },
        stopping: stopping.clone(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keepalive_of_a_lease_that_cannot_be_revoked_ends() {
    let rig = Rig::start();
    // It ended long ago, and nobody else knows of it: no revoke takes it away.
    rig.service.node.leases.lock().expect("nobody panicked").grant(7, 0, Duration::ZERO);
    assert_eq!(impatient(&rig).keep_alive(7, &Caller::Nobody).await.map(|_| ()), Err(status::timed_out()));
    assert!(impatient(&rig).keep_alive(8, &Caller::Nobody).await.is_ok(), "an unknown one is answered at once");
}

/// So many entries may be committed and not applied, no more (etcd-contract 41).
#[tokio::test(flavor = "multi_thread")]
async fn writes_are_refused_while_apply_lags() {
    let rig = Rig::start();
    let gauges = &rig.service.node.gauges;
    let request = PutRequest { key: "a".into(), ..PutRequest::default() };
    let applied = gauges.applied_index.load(Ordering::Relaxed);
    gauges.committed_index.store(applied + UNAPPLIED_MAX + 1, Ordering::Relaxed);
    let refused = rig.call::<PutResponse>(Method::Put, &request).await.map(drop);
    assert_eq!(refused, Err(status::too_many_requests()));
    gauges.committed_index.store(applied + UNAPPLIED_MAX, Ordering::Relaxed);
    assert_eq!(rig.call::<PutResponse>(Method::Put, &request).await.map(drop), Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_unknown_alarm_none_is_armed() {
    let rig = Rig::start();
    let request = |action: AlarmAction, alarm| AlarmRequest { action: action as i32, member_id: 2, alarm };
    let armed = request(AlarmAction::Activate, AlarmType::Nospace as i32);
    let _: AlarmResponse = rig.call(Method::Alarm, &armed).await.expect("an alarm");
    for (alarm, found) in
        [(AlarmType::None as i32, 1), (AlarmType::Nospace as i32, 1), (AlarmType::Corrupt as i32, 0), (9, 0)]
    {
        let listed: AlarmResponse = rig.call(Method::Alarm, &request(AlarmAction::Get, alarm)).await.expect("a list");
        assert_eq!(listed.alarms.len(), found, "{alarm}");
    }
}
