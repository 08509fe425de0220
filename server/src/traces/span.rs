//! A piece of work in a trace. It ends, and is exported, when it is dropped.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use basalt_proto::otlp::any_value::Value as WireValue;
use basalt_proto::otlp::span::{Event, SpanKind};
use basalt_proto::otlp::status::StatusCode;
use basalt_proto::otlp::{self, AnyValue, KeyValue, Status};
use bytes::Bytes;

use super::tracer::Tracer;

/// Bytes of a text that are shown at most: a key may have more than a million.
const TEXT_BYTES_MAX: usize = 1024;

/// Events of one span at most.
const EVENTS_MAX: usize = 16;

/// W3C's flag of a trace that is kept, and OTLP's: whether the parent is another process is known, and that it is one.
const FLAGS_KEPT: u32 = 0x101;
const FLAG_PARENT_REMOTE: u32 = 0x200;

/// An attribute's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text; what is no UTF-8 of it is shown by a sign for that.
    Text(Cow<'static, str>),
    /// A number.
    Integer(i64),
    /// Yes or no.
    Flag(bool),
}

impl Value {
    /// The beginning of a key.
    pub fn key(key: &[u8]) -> Self {
        Self::Text(String::from_utf8_lossy(&key[..key.len().min(TEXT_BYTES_MAX)]).into_owned().into())
    }
}

/// A span that has begun.
pub struct Span {
    tracer: Arc<Tracer>,
    record: otlp::Span,
}

impl Span {
    /// Begins one of the trace `trace_id`, below `parent`.
    pub(super) fn begin(
        tracer: &Arc<Tracer>,
        name: String,
        kind: SpanKind,
        trace_id: [u8; 16],
        parent: Option<(&[u8], bool)>,
    ) -> Self {
        let (parent_span_id, is_remote) =
            parent.map_or((Bytes::new(), false), |(id, remote)| (id.to_vec().into(), remote));
        let record = otlp::Span {
            trace_id: trace_id.to_vec().into(),
            span_id: tracer.new_span_id().to_vec().into(),
            parent_span_id,
            name,
            kind: kind.into(),
            start_time_unix_nano: now(),
            flags: FLAGS_KEPT | if is_remote { FLAG_PARENT_REMOTE } else { 0 },
            ..otlp::Span::default()
        };
        Self { tracer: tracer.clone(), record }
    }

    /// What spans below this one need to know of it.
    pub fn above(&self) -> Above {
        let whole = "every span has whole ids";
        Above {
            tracer: self.tracer.clone(),
            trace_id: self.record.trace_id[..].try_into().expect(whole),
            span_id: self.record.span_id[..].try_into().expect(whole),
        }
    }

    /// Says something of it.
    pub fn attribute(&mut self, key: &'static str, value: Value) {
        let value = match value {
            Value::Text(text) => WireValue::StringValue(text.into_owned()),
            Value::Integer(number) => WireValue::IntValue(number),
            Value::Flag(flag) => WireValue::BoolValue(flag),
        };
        self.record.attributes.push(KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) });
    }

    /// Something happened, now.
    pub fn event(&mut self, name: &'static str) {
        if self.record.events.len() < EVENTS_MAX {
            self.record.events.push(Event { time_unix_nano: now(), name: name.to_owned() });
        }
    }

    /// It failed, by the server's doing.
    pub fn failed(&mut self, message: &str) {
        self.record.status = Some(Status { message: message.to_owned(), code: StatusCode::Error.into() });
    }
}

/// A span, for those below it; it may have ended.
#[derive(Clone)]
pub struct Above {
    tracer: Arc<Tracer>,
    trace_id: [u8; 16],
    span_id: [u8; 8],
}

impl Above {
    /// Begins one below it.
    pub fn child(&self, name: &'static str) -> Span {
        let parent = Some((&self.span_id[..], false));
        Span::begin(&self.tracer, name.to_owned(), SpanKind::Internal, self.trace_id, parent)
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let mut record = std::mem::take(&mut self.record);
        // A clock that was set back in between makes no negative time.
        record.end_time_unix_nano = now().max(record.start_time_unix_nano);
        self.tracer.ended(record);
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::metrics::Metrics;

    fn tracer(room: usize) -> (Arc<Tracer>, mpsc::Receiver<otlp::Span>, Arc<Metrics>) {
        let (queue, spans) = mpsc::channel(room);
        let metrics = Arc::<Metrics>::default();
        (Arc::new(Tracer::new(1_000_000, queue, metrics.clone())), spans, metrics)
    }

    #[test]
    fn a_span_is_exported_when_it_is_dropped_and_its_children_name_it() {
        let (tracer, mut spans, _) = tracer(2);
        let mut call = tracer.call("/etcdserverpb.KV/Put", &http::HeaderMap::new()).expect("all are kept");
        call.failed("damaged");
        let mut child = call.above().child("put");
        child.attribute("key", Value::key(&[b'k'; 3 * TEXT_BYTES_MAX]));
        (0..2 * EVENTS_MAX).for_each(|_| child.event("again"));
        drop(call);
        drop(child);
        let (call, child) = (spans.try_recv().expect("the first"), spans.try_recv().expect("the second"));
        assert_eq!(
            (&*call.name, call.kind, call.parent_span_id.len()),
            ("etcdserverpb.KV/Put", SpanKind::Server as i32, 0)
        );
        assert_eq!(call.status.map(|status| status.code), Some(StatusCode::Error as i32));
        assert_eq!((&child.trace_id, &child.parent_span_id), (&call.trace_id, &call.span_id));
        assert_ne!(child.span_id, call.span_id);
        assert!(child.end_time_unix_nano >= child.start_time_unix_nano);
        // Whatever a client sends, a span is small.
        let Some(WireValue::StringValue(key)) = child.attributes[0].value.clone().and_then(|value| value.value) else {
            panic!("no text");
        };
        assert_eq!((key.len(), child.events.len()), (TEXT_BYTES_MAX, EVENTS_MAX));
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (tracer, spans, metrics) = tracer(1);
        for _ in 0..3 {
            drop(tracer.call("/etcdserverpb.KV/Put", &http::HeaderMap::new()));
        }
        assert_eq!((spans.len(), metrics.trace_spans_dropped_total.get()), (1, 2));
    }
}
