//! Calls and messages of the gRPC API, counted as `go-grpc-middleware` counts them for etcd.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Registry};

use super::family::family;
use super::grpc_method::GrpcMethod;

/// Labels of a method.
const METHOD: &[&str] = &["grpc_type", "grpc_service", "grpc_method"];

/// Labels of how calls of a method ended.
const METHOD_AND_CODE: &[&str] = &["grpc_type", "grpc_service", "grpc_method", "grpc_code"];

/// gRPC's codes by number, as the label `grpc_code` has them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// What a code outside of gRPC's counts as.
const CODE_UNKNOWN: usize = 2;

/// The buckets that Prometheus' Go client takes by default, as etcd does for this histogram.
const HANDLING_SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Counters of every method, found by its number.
///
/// A call is [`started`](Self::started) once and [`handled`](Self::handled) once. Every message counts, those of unary
/// calls too: their answer also where it is an error, as go-grpc-middleware counts.
pub struct GrpcCalls {
    families: Families,
    /// Filled from the start for what etcd shows from the start, at the first call for the rest.
    methods: Vec<OnceLock<MethodCounters>>,
}

struct Families {
    started: IntCounterVec,
    received: IntCounterVec,
    sent: IntCounterVec,
    handled: IntCounterVec,
    seconds: Option<HistogramVec>,
}

struct MethodCounters {
    started: IntCounter,
    received: IntCounter,
    sent: IntCounter,
    handled: [IntCounter; CODES.len()],
    seconds: Option<Histogram>,
}

impl GrpcCalls {
    /// Registers the families; with `extensive` also the one of handling times.
    ///
    /// # Errors
    /// A name is registered already.
    pub(super) fn register(registry: &Registry, extensive: bool) -> Result<Self, prometheus::Error> {
        let families = Families::register(registry, extensive)?;
        let calls = Self { families, methods: GrpcMethod::ALL.iter().map(|_| OnceLock::new()).collect() };
        for method in GrpcMethod::ALL.iter().filter(|method| method.shown_from_the_start()) {
            calls.counters(*method);
        }
        Ok(calls)
    }

    /// A call has come.
    pub fn started(&self, method: GrpcMethod) {
        self.counters(method).started.inc();
    }

    /// A message of the client has come, the only one of a unary call included.
    pub fn received(&self, method: GrpcMethod) {
        self.counters(method).received.inc();
    }

    /// A message has gone to the client.
    pub fn sent(&self, method: GrpcMethod) {
        self.counters(method).sent.inc();
    }

    /// A call has ended with gRPC status `code`. A number that is none of gRPC's counts as `Unknown`.
    pub fn handled(&self, method: GrpcMethod, code: u8, elapsed: Duration) {
        let counters = self.counters(method);
        counters.handled.get(usize::from(code)).unwrap_or(&counters.handled[CODE_UNKNOWN]).inc();
        if let Some(seconds) = &counters.seconds {
            seconds.observe(elapsed.as_secs_f64());
        }
    }

    fn counters(&self, method: GrpcMethod) -> &MethodCounters {
        self.methods[method as usize].get_or_init(|| self.families.counters(method))
    }
}

impl Families {
    fn register(registry: &Registry, extensive: bool) -> Result<Self, prometheus::Error> {
        let seconds_help =
            "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.";
        let buckets = HistogramOpts::new("grpc_server_handling_seconds", seconds_help).buckets(HANDLING_SECONDS.into());
        let seconds = if extensive { Some(HistogramVec::new(buckets, METHOD)?) } else { None };
        if let Some(family) = &seconds {
            registry.register(Box::new(family.clone()))?;
        }
        let counter = |name, help| family::<IntCounterVec>(registry, name, help, METHOD);
        let handled_help = "Total number of RPCs completed on the server, regardless of success or failure.";
        Ok(Self {
            started: counter("grpc_server_started_total", "Total number of RPCs started on the server.")?,
            received: counter(
                "grpc_server_msg_received_total",
                "Total number of RPC stream messages received on the server.",
            )?,
            sent: counter("grpc_server_msg_sent_total", "Total number of gRPC stream messages sent by the server.")?,
            handled: family(registry, "grpc_server_handled_total", handled_help, METHOD_AND_CODE)?,
            seconds,
        })
    }

    fn counters(&self, method: GrpcMethod) -> MethodCounters {
        let labels = [method.kind().label(), method.service(), method.name()];
        let handled = |code: &str| self.handled.with_label_values(&[labels[0], labels[1], labels[2], code]);
        MethodCounters {
            started: self.started.with_label_values(&labels),
            received: self.received.with_label_values(&labels),
            sent: self.sent.with_label_values(&labels),
            handled: CODES.map(handled),
            seconds: self.seconds.as_ref().map(|family| family.with_label_values(&labels)),
        }
    }
}
