//! The task that brings spans to the collector.

use std::sync::Arc;
use std::time::Duration;

use basalt_proto::otlp;
use basalt_proto::otlp::any_value::Value;
use basalt_proto::otlp::trace_service_client::TraceServiceClient;
use basalt_proto::otlp::{
    AnyValue, ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans,
};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tracing::{info, warn};

use super::tracer::Tracer;
use crate::config::TracesConfig;
use crate::metrics::Metrics;

/// Spans that may wait, beside a batch on its way; what OpenTelemetry's processors take by default, as the two below.
const SPANS_WAITING_MAX: usize = 2048;
const BATCH_SPANS_MAX: usize = 512;
const BATCH_WAIT: Duration = Duration::from_secs(5);
/// How long one attempt may take, and the pause before the next; after the last the batch is dropped.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);
const ATTEMPTS_MAX: u32 = 8;
/// How long the end of the process waits for what is left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The task, and the way to end it.
pub struct Exporter {
    tracer: Arc<Tracer>,
    close: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Begins to export. The collector need not be there.
    ///
    /// # Errors
    /// The address cannot be one.
    pub fn start(
        config: &TracesConfig,
        metrics: Arc<Metrics>,
        runtime: &Handle,
    ) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{}", config.address))?;
        let (queue, spans) = mpsc::channel(SPANS_WAITING_MAX);
        let tracer = Arc::new(Tracer::new(config.per_million, queue, metrics.clone()));
        let (close, closing) = oneshot::channel();
        let channel = {
            // The channel's own task lives in the runtime.
            let _guard = runtime.enter();
            endpoint.connect_timeout(ATTEMPT_TIMEOUT).connect_lazy()
        };
        let carrier =
            Carrier { client: TraceServiceClient::new(channel), resource: resource(config), metrics, fails: false };
        let task = runtime.spawn(carry(carrier, spans, closing));
        Ok(Self { tracer, close, task })
    }

    /// Where calls begin their spans.
    pub fn tracer(&self) -> Arc<Tracer> {
        self.tracer.clone()
    }

    /// Exports what waits, unless that takes long.
    pub async fn close(self) {
        // The task is gone only when the process is about to be.
        _ = self.close.send(());
        if timeout(CLOSE_TIMEOUT, self.task).await.is_err() {
            warn!("the collector of traces did not take the last ones in time");
        }
    }
}

/// What brings batches over.
struct Carrier {
    client: TraceServiceClient<Channel>,
    resource: Resource,
    metrics: Arc<Metrics>,
    /// Whether the last batch was not taken: said once, not with each.
    fails: bool,
}

async fn carry(mut carrier: Carrier, mut spans: mpsc::Receiver<otlp::Span>, mut closing: oneshot::Receiver<()>) {
    let mut batch = Vec::new();
    let mut is_open = true;
    while is_open {
        let due = Instant::now() + BATCH_WAIT;
        while is_open && batch.len() < BATCH_SPANS_MAX {
            let room = BATCH_SPANS_MAX - batch.len();
            tokio::select! {
                biased;
                _ = &mut closing => is_open = false,
                taken = spans.recv_many(&mut batch, room) => if taken == 0 { is_open = false },
                () = sleep_until(due) => break,
            }
        }
        if is_open && !batch.is_empty() {
            tokio::select! {
                biased;
                // The end does not wait for a collector that is away; what is left has one more attempt.
                _ = &mut closing => is_open = false,
                () = carrier.bring(&mut batch) => {}
            }
        }
    }
    spans.close();
    while !batch.is_empty() || spans.recv_many(&mut batch, BATCH_SPANS_MAX).await > 0 {
        if carrier.attempt(&batch).await.is_err() {
            carrier.dropped(batch.len());
        }
        batch.clear();
    }
}

impl Carrier {
    /// Brings a batch over, in several attempts if it must; it is empty afterwards.
    async fn bring(&mut self, batch: &mut Vec<otlp::Span>) {
        let mut pause = RETRY_FIRST;
        for attempt in 1..=ATTEMPTS_MAX {
            let Err(status) = self.attempt(batch).await else {
                if std::mem::take(&mut self.fails) {
                    info!("the collector takes traces again");
                }
                return batch.clear();
            };
            if !std::mem::replace(&mut self.fails, true) {
                warn!(error = status.message(), code = ?status.code(), "the collector does not take traces");
            }
            if attempt == ATTEMPTS_MAX || !may_pass(status.code()) {
                break;
            }
            sleep(pause).await;
            pause = (2 * pause).min(RETRY_MAX);
        }
        self.dropped(batch.len());
        batch.clear();
    }

    async fn attempt(&mut self, batch: &[otlp::Span]) -> Result<(), tonic::Status> {
        let count = batch.len() as u64;
        let exported = timeout(ATTEMPT_TIMEOUT, self.client.export(self.request(batch.to_vec()))).await;
        let answer = exported.map_err(|_| tonic::Status::deadline_exceeded("no answer in time"))??;
        let rejected = answer.into_inner().partial_success.map_or(0, |partial| partial.rejected_spans);
        let rejected = u64::try_from(rejected).unwrap_or(0).min(count);
        self.metrics.trace_spans_exported_total.inc_by(count - rejected);
        self.metrics.trace_spans_dropped_total.inc_by(rejected);
        Ok(())
    }

    fn request(&self, spans: Vec<otlp::Span>) -> ExportTraceServiceRequest {
        let scope = InstrumentationScope { name: "basalt".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
        let resource_spans = vec![ResourceSpans { resource: Some(self.resource.clone()), scope_spans }];
        ExportTraceServiceRequest { resource_spans }
    }

    fn dropped(&self, spans: usize) {
        self.metrics.trace_spans_dropped_total.inc_by(spans as u64);
    }
}

/// Whether trying again may help (the specification of OTLP, "Failures").
fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            // What tonic makes of a connection that does not come about.
            | Code::Unknown
    )
}

/// Who exports. An id must be of one process alone, so there is none by itself.
fn resource(config: &TracesConfig) -> Resource {
    let text = |key: &str, text: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) }),
    };
    let id = config.instance_id.as_ref().map(|id| text("service.instance.id", id));
    Resource { attributes: std::iter::once(text("service.name", &config.service_name)).chain(id).collect() }
}
