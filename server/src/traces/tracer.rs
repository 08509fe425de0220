//! Where spans begin and where they go.

use std::sync::{Arc, Mutex};

use basalt_proto::otlp;
use basalt_proto::otlp::span::SpanKind;
use http::HeaderMap;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc::Sender;

use super::context::RemoteParent;
use super::sampler::Sampler;
use super::span::{Span, Value};
use crate::metrics::Metrics;

const PARENT_HEADER: &str = "traceparent";

/// Begins the spans of calls, and hands over those that ended.
pub struct Tracer {
    sampler: Sampler,
    ids: Mutex<StdRng>,
    queue: Sender<otlp::Span>,
    metrics: Arc<Metrics>,
}

impl Tracer {
    /// Keeps `per_million` of the traces that begin here. What ended goes to `queue`, or is dropped.
    pub(super) fn new(per_million: u32, queue: Sender<otlp::Span>, metrics: Arc<Metrics>) -> Self {
        Self { sampler: Sampler::new(per_million), ids: Mutex::new(StdRng::from_os_rng()), queue, metrics }
    }

    /// Begins the span of a call of `/service/method`; `None` if it is not kept.
    pub fn call(self: &Arc<Self>, path: &str, headers: &HeaderMap) -> Option<Span> {
        let parent = headers.get(PARENT_HEADER).and_then(|header| RemoteParent::parse(header.as_bytes()));
        if parent.is_none() && !self.sampler.keeps_any() {
            return None;
        }
        let trace_id = parent.map_or_else(|| self.new_id(), |parent| parent.trace_id);
        if !self.sampler.keeps(parent.as_ref(), &trace_id) {
            return None;
        }
        let name = path.trim_start_matches('/').to_owned();
        let above = parent.as_ref().map(|parent| (&parent.span_id[..], true));
        let mut span = Span::begin(self, name.clone(), SpanKind::Server, trace_id, above);
        span.attribute("rpc.method", Value::Text(name.into()));
        span.attribute("rpc.system.name", Value::Text("grpc".into()));
        Some(span)
    }

    pub(super) fn new_span_id(&self) -> [u8; 8] {
        self.new_id()
    }

    /// A random id, which is not all zeros.
    fn new_id<const N: usize>(&self) -> [u8; N] {
        let mut ids = self.ids.lock().expect("no one panics while holding it");
        loop {
            let mut id = [0; N];
            ids.fill(&mut id[..]);
            if id != [0; N] {
                return id;
            }
        }
    }

    /// Hands over a span; it is dropped if too many wait.
    pub(super) fn ended(&self, span: otlp::Span) {
        if self.queue.try_send(span).is_err() {
            self.metrics.trace_spans_dropped_total.inc();
        }
    }
}
