use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::config::MetricsDetail;

/// Kind, name, labels and buckets of etcd 3.7.3's families, without those of Go's runtime: as scraped from a single
/// member with `--metrics=extensive`; those of peers, stream failures and learners, which such a member does not show,
/// from its source.
const ETCD: &str = include_str!("etcd-3.7.3-families.txt");

/// The same lines out of a page in Prometheus' text format.
fn families(page: &str) -> BTreeSet<String> {
    let mut kinds = BTreeMap::new();
    let (mut labels, mut buckets) = (BTreeMap::<&str, BTreeSet<&str>>::new(), BTreeMap::<&str, Vec<&str>>::new());
    for line in page.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kinds.insert(name, kind);
        }
        let (false, Some((series, _))) = (line.starts_with('#'), line.rsplit_once(' ')) else { continue };
        let (name, pairs) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let name = base.filter(|base| kinds.get(base) == Some(&"histogram")).unwrap_or(name);
        for (label, value) in pairs.split("\",").filter_map(|pair| pair.split_once("=\"")) {
            let value = value.trim_end_matches('"');
            match label {
                "le" if value == "+Inf" || buckets.get(name).is_some_and(|all| all.contains(&value)) => {}
                "le" => buckets.entry(name).or_default().push(value),
                _ => drop(labels.entry(name).or_default().insert(label)),
            }
        }
    }
    let line = |(name, kind): (&&str, &&str)| {
        let names = labels.get(name).map(|names| names.iter().copied().collect::<Vec<_>>().join(","));
        let names = names.map_or_else(String::new, |names| format!("{{{names}}}"));
        let buckets: String = buckets.get(name).into_iter().flatten().map(|bound| format!(" {bound}")).collect();
        format!("{kind} {name}{names}{buckets}")
    };
    kinds.iter().map(line).collect()
}

/// Gives a series to every family that begins without one.
fn touch_all(metrics: &Metrics) {
    let identity = Identity { member_id: 1, version: "0.1.0", etcd_version: "3.7.3", features: &[] };
    metrics.identify(&identity);
    metrics.refresh(&Figures { cluster_version: Some("3.7".into()), ..Figures::default() });
    metrics.client_requests.count(CallKind::Unary, None);
    metrics.apply_seconds.observe(Operation::Put, true, Duration::ZERO);
    metrics.request_seconds.observe(Operation::Put, false, Duration::ZERO);
    for family in [&metrics.known_peers, &metrics.active_peers, &metrics.alarms, &metrics.healthcheck] {
        family.with_label_values(&["a", "b"]);
    }
    let pairs = [&metrics.disconnected_peers_total, &metrics.stream_failures_total];
    for family in pairs {
        family.with_label_values(&["a", "b"]);
    }
    metrics.healthchecks_total.with_label_values(&["a", "b", "c"]);
    let counters = [
        &metrics.peer_sent_bytes,
        &metrics.peer_received_bytes,
        &metrics.peer_sent_failures_total,
        &metrics.peer_received_failures_total,
        &metrics.snapshot_send_success,
        &metrics.snapshot_send_failures,
        &metrics.snapshot_receive_success,
        &metrics.snapshot_receive_failures,
        &metrics.learner_promote_failures,
    ];
    for family in counters {
        family.with_label_values(&["a"]);
    }
    for family in [&metrics.snapshot_send_inflight, &metrics.snapshot_receive_inflight] {
        family.with_label_values(&["a"]);
    }
    let seconds = [&metrics.peer_round_trip_seconds, &metrics.snapshot_send_seconds, &metrics.snapshot_receive_seconds];
    for family in seconds {
        family.with_label_values(&["a"]);
    }
}

#[test]
fn families_are_those_of_etcd() {
    let metrics = Metrics::new(MetricsDetail::Extensive);
    touch_all(&metrics);
    let ours: BTreeSet<String> =
        families(&metrics.render()).into_iter().filter(|line| !line.contains(" basalt_")).collect();
    let theirs: BTreeSet<String> = ETCD.lines().map(str::to_owned).collect();
    assert_eq!(theirs.difference(&ours).collect::<Vec<_>>(), Vec::<&String>::new(), "missing");
    assert_eq!(ours.difference(&theirs).collect::<Vec<_>>(), Vec::<&String>::new(), "not etcd's");
}

#[test]
fn the_document_names_every_family_of_ours() {
    let document = include_str!("../../../docs/metrics.md");
    let (_, ours) = document.split_once("## basalt's own").expect("a section of ours");
    let names = |text: &'static str, quote| -> BTreeSet<&str> {
        text.split(quote).filter(|name| name.starts_with("basalt_")).collect()
    };
    assert_eq!(names(ours, '`'), names(include_str!("families.rs"), '"'));
}

#[test]
fn calls_are_shown_before_the_first_one() {
    let page = Metrics::default().render();
    let series = |name: &str| page.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
    assert_eq!(series("grpc_server_handled_total"), 765);
    for name in ["grpc_server_started_total", "grpc_server_msg_received_total", "grpc_server_msg_sent_total"] {
        assert_eq!(series(name), 45, "{name}");
    }
    assert!(!page.contains("grpc_server_handling_seconds"), "only with --metrics=extensive");
    assert!(!page.contains("\ngo_"), "there is no Go runtime to speak of");
}

#[test]
fn a_call_is_counted_under_its_labels() {
    let metrics = Metrics::default();
    let method = GrpcMethod::from_path("/etcdserverpb.Watch/Watch").expect("a method");
    metrics.grpc.started(method);
    metrics.grpc.received(method);
    metrics.grpc.sent(method);
    metrics.grpc.handled(method, 14, Duration::from_millis(3));
    metrics.grpc.handled(GrpcMethod::Lock, 99, Duration::ZERO);
    let page = metrics.render();
    for line in [
        r#"grpc_server_started_total{grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"} 1"#,
        concat!(
            r#"grpc_server_msg_sent_total{grpc_method="Watch","#,
            r#"grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"} 1"#
        ),
        concat!(
            r#"grpc_server_handled_total{grpc_code="Unavailable",grpc_method="Watch","#,
            r#"grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"} 1"#
        ),
        concat!(
            r#"grpc_server_handled_total{grpc_code="Unknown",grpc_method="Lock","#,
            r#"grpc_service="v3lockpb.Lock",grpc_type="unary"} 1"#
        ),
    ] {
        assert!(page.lines().any(|shown| shown == line), "{line}");
    }
}

#[test]
fn every_path_leads_to_its_method() {
    for method in GrpcMethod::ALL {
        let path = format!("/{}/{}", method.service(), method.name());
        assert_eq!(GrpcMethod::from_path(&path), Some(*method), "{path}");
    }
    assert_eq!(GrpcMethod::from_path("/etcdserverpb.KV/Nope"), None);
    assert_eq!(GrpcMethod::from_path("etcdserverpb.KV/Range"), None);
}

#[test]
fn a_scrape_shows_the_figures_given() {
    let metrics = Metrics::default();
    let shard = ShardFigures { name: "events".into(), delta_bytes: 77, ..ShardFigures::default() };
    let figures = Figures {
        revision: 12,
        has_leader: true,
        db_size_bytes: 100 << 30,
        cluster_version: Some("3.7".into()),
        shards: vec![shard],
        classes: vec![ClassFigures { name: "control".into(), waiting_requests: 3, ..ClassFigures::default() }],
        ..Figures::default()
    };
    metrics.refresh(&figures);
    metrics.refresh(&Figures { cluster_version: Some("3.8".into()), ..figures });
    metrics.identify(&Identity {
        member_id: 0x8e9e_05c5_2164_694d,
        version: "0.1.0",
        etcd_version: "3.7.3",
        features: &[("FastLeaseKeepAlive", true)],
    });
    metrics.render();
    let page = metrics.render();
    for line in [
        "etcd_debugging_mvcc_current_revision 12",
        "etcd_server_has_leader 1",
        "etcd_mvcc_db_total_size_in_bytes 107374182400",
        r#"etcd_cluster_version{cluster_version="3.7"} 0"#,
        r#"etcd_cluster_version{cluster_version="3.8"} 1"#,
        r#"basalt_shard_delta_bytes{shard="events"} 77"#,
        r#"basalt_admission_waiting_requests{class="control"} 3"#,
        r#"etcd_server_id{server_id="8e9e05c52164694d"} 1"#,
        r#"etcd_server_feature_enabled{name="FastLeaseKeepAlive",stage="BETA"} 1"#,
        r#"etcd_server_feature_enabled{name="AllAlpha",stage="ALPHA"} 0"#,
        r#"promhttp_metric_handler_requests_total{code="200"} 1"#,
        "promhttp_metric_handler_requests_in_flight 1",
    ] {
        assert!(page.lines().any(|shown| shown == line), "{line}");
    }
    let resident = page.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    assert!(resident.is_some_and(|bytes| bytes.parse::<u64>().is_ok_and(|bytes| bytes > 1 << 20)), "{resident:?}");
}
