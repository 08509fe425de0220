//! What is counted of one call, and traced.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Request};
use time::OffsetDateTime;
use tracing::{debug, warn};

use super::client_deadline::Patience;
use super::service::Service;
use super::status::{self, Code, Status};
use super::traced::CallSpans;
use crate::logging::time_text;
use crate::metrics::{CallKind, GrpcMethod, Metrics};

/// Where etcd's clients say which version of the API they call.
const CLIENT_VERSION_HEADER: &str = "client-api-version";

/// Which version of the API a client says that it calls, if it says any.
///
/// # Errors
/// What it says is no text; etcd serves no such call.
pub(super) fn client_version(headers: &HeaderMap) -> Result<Option<&str>, Status> {
    let version = headers.get(CLIENT_VERSION_HEADER).map(|version| std::str::from_utf8(version.as_bytes()));
    version.transpose().map_err(|_| status::invalid_client_version())
}

/// Counts a call once, when it ends. One that is dropped before was cancelled, or its time was up.
pub(super) struct Tally {
    pub(super) metrics: Arc<Metrics>,
    pub(super) method: GrpcMethod,
    started: Instant,
    /// Who asks; nobody over a Unix socket.
    pub(super) remote: Option<SocketAddr>,
    pub(super) request_bytes: usize,
    /// A unary call that takes longer is logged.
    pub(super) slow: Option<Duration>,
    /// How long its client said that it waits.
    pub(super) patience: Option<Patience>,
    ended: bool,
    /// Of a call that is traced.
    pub(super) spans: Option<Box<CallSpans>>,
}

impl Tally {
    /// Begins to count a call of a client of that version; `None` for a method that is not counted.
    pub(super) fn start<B>(
        service: &Service,
        request: &Request<B>,
        version: &Result<Option<&str>, Status>,
    ) -> Option<Self> {
        let method = GrpcMethod::from_path(request.uri().path())?;
        let metrics = service.metrics.clone();
        if let Ok(version) = version {
            metrics.client_requests.count(method.kind(), *version);
        }
        metrics.grpc.started(method);
        let spans = CallSpans::begin(service, request);
        Some(Self {
            metrics,
            method,
            started: Instant::now(),
            remote: None,
            request_bytes: 0,
            slow: None,
            patience: None,
            ended: false,
            spans,
        })
    }

    /// Ends a unary call, which has an answer also where that is an error.
    pub(super) fn end_unary(&mut self, code: Code, message: &str, response_bytes: usize) {
        self.log_unary(code, response_bytes);
        self.metrics.grpc.sent(self.method);
        if let Some(spans) = &mut self.spans {
            spans.answered(code);
        }
        self.end(code, message);
    }

    /// Logs a slow unary call, at level debug any, in etcd's words (`logUnaryRequestStats`): its method, times and sizes, never
    /// what it carried.
    fn log_unary(&self, code: Code, response_bytes: usize) {
        let Some(slow) = self.slow else { return };
        let took = self.started.elapsed();
        macro_rules! request_stats {
            ($level:ident $(, $expected:literal = $value:expr)?) => {
                $level!(
                    "start time" = time_text(OffsetDateTime::now_utc() - took),
                    "time spent" = ?took,
                    $($expected = ?$value,)?
                    remote = self.remote.map_or_else(|| "@".to_owned(), |remote| remote.to_string()),
                    "response type" = format!("/{}/{}", self.method.service(), self.method.name()),
                    "request size" = self.request_bytes,
                    "response size" = response_bytes,
                    code = code.name(),
                    "request stats"
                )
            };
        }
        if took > slow {
            request_stats!(warn, "expected duration" = slow);
        } else {
            request_stats!(debug);
        }
    }

    fn end(&mut self, code: Code, message: &str) {
        if !std::mem::replace(&mut self.ended, true) {
            if self.method.kind() == CallKind::BidiStream {
                // go-grpc-middleware counts what it waited for at last, and what never came.
                self.metrics.grpc.received(self.method);
            }
            self.metrics.grpc.handled(self.method, code as u8, self.started.elapsed());
            if let Some(spans) = self.spans.take() {
                spans.ended(code, message);
            }
        }
    }

    /// Ends a call with what its client is told.
    pub(super) fn ended_with(&mut self, status: &Status) {
        if *status == status::damaged() {
            self.metrics.damaged_answers_total.inc();
        }
        self.end(status.code, &status.message);
    }

    /// A message of a stream went.
    pub(super) fn sent(&self, bytes: usize) {
        self.metrics.grpc.sent(self.method);
        self.sent_bytes(bytes);
    }

    /// So many bytes of messages went.
    pub(super) fn sent_bytes(&self, bytes: usize) {
        self.metrics.client_sent_bytes.inc_by(bytes as u64);
    }
}

/// What is traced of a call, if it is.
pub(super) fn spans_of<'a>(tally: &'a mut Option<&mut Tally>) -> Option<&'a mut CallSpans> {
    tally.as_mut()?.spans.as_deref_mut()
}

impl Drop for Tally {
    fn drop(&mut self) {
        if !self.ended {
            // Who gave up has waited for long, as a rule.
            let after = self.started.elapsed();
            let code = self.patience.map_or(Code::Canceled, |patience| patience.given_up_after(after));
            self.log_unary(code, 0);
            self.end(code, "");
        }
    }
}
