//! The spans of a call: its own, and that of what it does. Both end with the call.

use basalt_proto::nesting;
use bytes::Bytes;
use http::Request;

use super::checks;
use super::method::Method;
use super::service::{Reply, Service, decode};
use super::status::{Code, Status};
use crate::apply::query::is_read_only;
use crate::listen::ClientConnection;
use crate::traces::{Above, Operated, Span, Value};

/// What is traced of one call.
pub(super) struct CallSpans {
    call: Span,
    operation: Option<Span>,
    /// Whether the operation goes through the log.
    is_ordered: bool,
}

impl CallSpans {
    /// Begins the span of a call; `None` where calls are not traced, or this one is not kept.
    pub(super) fn begin<B>(service: &Service, request: &Request<B>) -> Option<Box<Self>> {
        let mut call = service.tracer.as_ref()?.call(request.uri().path(), request.headers())?;
        let client = request.extensions().get::<ClientConnection>();
        if let Some(address) = client.and_then(|client| client.local_address) {
            call.attribute("server.address", Value::Text(address.ip().to_string().into()));
            call.attribute("server.port", Value::Integer(address.port().into()));
        }
        Some(Box::new(Self { call, operation: None, is_ordered: false }))
    }

    /// For spans below that of the call.
    pub(super) fn above(&self) -> Above {
        self.call.above()
    }

    /// The request is known: begins the span of what it does, unless it is refused before anything is done.
    pub(super) fn asked(&mut self, service: &Service, method: Method, message: &Bytes) {
        self.operation = operation(service, &self.call.above(), method, message);
        self.is_ordered = match method {
            Method::Range | Method::RangeStream => false,
            Method::Txn => nesting::decode_txn(message.clone()).is_ok_and(|request| !is_read_only(&request)),
            _ => true,
        };
    }

    /// The handler was called: what is to be ordered has been proposed.
    pub(super) fn called(&mut self, reply: &Reply) {
        if !matches!(reply, Reply::Ready(_)) {
            self.event("Send raft proposal");
        }
    }

    /// The handler has its answer.
    pub(super) fn answered(&mut self, code: Code) {
        if !matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Canceled) {
            self.event("Receive raft result");
        }
    }

    fn event(&mut self, name: &'static str) {
        if let (Some(operation), true) = (&mut self.operation, self.is_ordered) {
            operation.event(name);
        }
    }

    /// The call ended.
    pub(super) fn ended(mut self, code: Code, message: &str) {
        drop(self.operation);
        self.call.attribute("rpc.response.status_code", Value::Text(canonical(code).into()));
        if is_servers_fault(code) {
            self.call.failed(message);
        }
    }
}

fn operation(service: &Service, call: &Above, method: Method, message: &Bytes) -> Option<Span> {
    fn of<M: prost::Message + Default>(message: &Bytes) -> Option<M> {
        decode(message.clone()).ok()
    }
    let allowed = |checked: Result<(), Status>| checked.ok();
    Some(match method {
        Method::Range => {
            let request = of(message)?;
            allowed(checks::check_range(&request))?;
            Operated::Range(&request).begin(call)
        }
        Method::RangeStream => {
            let request = of(message)?;
            allowed(checks::check_range_stream(&request))?;
            Operated::RangeStream(&request).begin(call)
        }
        Method::Put => {
            let request = of(message)?;
            allowed(checks::check_put(&request))?;
            Operated::Put(&request).begin(call)
        }
        Method::DeleteRange => {
            let request = of(message)?;
            allowed(checks::check_delete_range(&request))?;
            Operated::DeleteRange(&request).begin(call)
        }
        Method::Txn => {
            let request = nesting::decode_txn(message.clone()).ok()?;
            allowed(checks::check_txn(&request, service.node.limits.txn_operations_max))?;
            Operated::Txn(&request).begin(call)
        }
        Method::Compact => Operated::Compact(&of(message)?).begin(call),
        Method::LeaseGrant => Operated::LeaseGrant(&of(message)?).begin(call),
        Method::LeaseRevoke => Operated::LeaseRevoke(&of(message)?).begin(call),
        _ => return None,
    })
}

/// The codes that OpenTelemetry counts as failures of a server.
fn is_servers_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// A code as OpenTelemetry writes it.
fn canonical(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Canceled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
