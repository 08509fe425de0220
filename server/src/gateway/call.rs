//! A request of the gateway, from HTTP to a call inside and back.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use prost_reflect::MessageDescriptor;
use tokio::time::timeout;

use super::answer::{GatewayBody, Lines, Messages};
use super::failure::Failure;
use super::frames::{HasAsked, Inside, JsonBounds, JsonValues};
use super::handshake;
use super::json_writer::JsonWriter;
use super::routes::{Kind, below, method_of};
use super::transcoder::{Signature, Transcoder, framed, from_json, values_max};
use super::websocket::{self, Bounds};
use crate::api::client_deadline;
use crate::api::grpc::{self, REQUEST_OVERHEAD_BYTES};
use crate::api::request_messages::MESSAGE_WAIT_MAX;
use crate::api::service::Service;
use crate::api::status;
use crate::listen::{ClientConnection, HeldRequest, RequestBody, Takeover, Unhurried, Upgraded};

/// What of a client's metadata counts: a token, whether it wants an answer without a leader, and to which trace it belongs. A
/// client says it with `Grpc-Metadata-` before the name, a token also with the header that HTTP has for it (grpc-gateway
/// `DefaultHeaderMatcher`).
const METADATA: [&str; 5] = ["authorization", "token", "hasleader", "traceparent", "tracestate"];
const METADATA_PREFIX: &str = "grpc-metadata-";

/// Base64 takes four bytes for three, and names and quotes take some.
const JSON_FOR_BYTES: usize = 2;

/// The gateway of a node.
pub struct Gateway {
    service: Arc<Service>,
    transcoder: Transcoder,
}

impl Gateway {
    /// In front of a node's API.
    pub fn new(service: Arc<Service>) -> Self {
        Self { service, transcoder: Transcoder::new() }
    }

    /// Whether a path is the gateway's.
    pub fn serves(path: &str) -> bool {
        below(path).is_some()
    }

    /// Whether a request wants to be a websocket.
    pub fn is_websocket(head: &Parts) -> bool {
        handshake::is_asked(head)
    }

    /// What is answered where there is no place for another call.
    pub fn refuse_place() -> Response<GatewayBody> {
        let failure = Failure::new(8, status::too_many_requests().message);
        json(failure.status(), failure.to_json())
    }

    /// Answers a request below `/v3/`.
    pub async fn respond(self: &Arc<Self>, head: &Parts, body: RequestBody) -> Response<GatewayBody> {
        let named = head.extensions.get::<ClientConnection>().is_some_and(|client| client.common_name.is_some());
        if named && self.service.node.auth.is_enabled() {
            return refuse_name();
        }
        if Self::is_websocket(head) {
            return self.upgrade(head);
        }
        self.answer(head, body).await
    }

    /// Makes a websocket of a connection, on which a call is answered.
    fn upgrade(self: &Arc<Self>, head: &Parts) -> Response<GatewayBody> {
        let headers = match handshake::accept(head) {
            Ok(headers) => headers,
            Err(status) => return refuse_websocket(status),
        };
        let (gateway, mut call, has_asked) = (self.clone(), handshake::call_of(head), HasAsked::default());
        call.extensions.insert(has_asked.clone());
        let takeover = Takeover::new(move |upgraded: Upgraded| async move {
            let bounds = Bounds {
                message_bytes_max: gateway.json_bounds().bytes,
                message_wait_max: MESSAGE_WAIT_MAX,
                held: call.extensions.get::<ClientConnection>().map(|client| client.request_room.nothing()),
                keepalive: upgraded.keepalive,
                hurry: upgraded.hurry.clone(),
            };
            let answer = async |body| gateway.answer(&call, body).await;
            websocket::serve(upgraded, bounds, answer, has_asked, gateway.service.stopped()).await;
        });
        let mut response = Response::new(GatewayBody::Whole(Full::default()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = headers;
        response.extensions_mut().insert(takeover);
        response
    }

    async fn answer(&self, head: &Parts, body: RequestBody) -> Response<GatewayBody> {
        match self.call(head, body).await {
            Ok(response) => response,
            Err(failure) => {
                let mut response = json(failure.status(), failure.to_json());
                if failure.code == 16 {
                    // As HTTP wants it of 401, and grpc-gateway does.
                    let challenge = HeaderValue::from_str(&failure.message);
                    response.headers_mut().extend(challenge.ok().map(|text| (header::WWW_AUTHENTICATE, text)));
                }
                response
            }
        }
    }

    /// What the JSON of a request may be at most.
    fn json_bounds(&self) -> JsonBounds {
        let limits = &self.service.node.limits;
        let bytes = (limits.request_bytes_max + REQUEST_OVERHEAD_BYTES) * JSON_FOR_BYTES;
        JsonBounds { bytes, values: values_max(limits.txn_operations_max) }
    }

    async fn call(&self, head: &Parts, body: RequestBody) -> Result<Response<GatewayBody>, Failure> {
        let (service, method) = method_of(head.uri.path()).ok_or_else(|| Failure::new(5, "Not Found"))?;
        if head.method != Method::POST {
            return Err(Failure::new(12, "Method Not Allowed"));
        }
        if let (Some(text), Err(_)) = (head.headers.get(client_deadline::HEADER), client_deadline::of(&head.headers)) {
            let text = String::from_utf8_lossy(text.as_bytes());
            return Err(Failure::new(3, format!("invalid grpc-timeout: {text}")));
        }
        let signature = self.transcoder.signature(service, method).ok_or_else(|| Failure::new(5, "Not Found"))?;
        let Signature { kind, request, response } = signature;
        let bounds = self.json_bounds();
        let held = head.extensions.get::<ClientConnection>().map(|client| client.request_room.nothing());
        let has_asked = head.extensions.get::<HasAsked>().cloned();
        let inside = match (kind, body) {
            (Kind::Streams, body) => Inside::Many(JsonValues::new(body, request, bounds, held).telling(has_asked)),
            (Kind::Unary | Kind::ServerStream, RequestBody::Messages(messages)) => {
                // A websocket has no end but that of its client, who waits for an answer.
                let values = JsonValues::new(RequestBody::Messages(messages), request, bounds, held);
                let mut values = values.telling(has_asked);
                Inside::One(Some(values.next().await.transpose()?.unwrap_or_else(|| framed(&[]))))
            }
            (Kind::Unary | Kind::ServerStream, body) => {
                Inside::One(Some(one_message(body, &request, bounds, held).await?))
            }
        };
        let call = inside_call(head, &format!("/{service}/{method}"), inside);
        // Boxed: else whoever is still waited for keeps the room that the call will need.
        let answer = Box::pin(grpc::serve(self.service.clone(), call)).await;
        let head_failure = answer.headers().contains_key("grpc-status").then(|| Failure::of_trailers(answer.headers()));
        let mut messages = match head_failure.flatten() {
            Some(failure) if kind == Kind::Unary => return Err(failure),
            Some(failure) => return Ok(refused_stream(&failure)),
            None => Messages::new(answer.into_body()),
        };
        if kind == Kind::Unary {
            let message = JsonWriter::new(response, messages.only().await?);
            return Ok(with_metadata(as_json(StatusCode::OK, GatewayBody::message(message)?)));
        }
        // What fails before there is anything to show fails with HTTP's status.
        match std::future::poll_fn(|context| messages.poll_next(context)).await {
            Some(Ok(first)) => {
                let lines = Lines::new(messages, response, first);
                let mut response = with_metadata(as_json(StatusCode::OK, GatewayBody::Lines(Box::new(lines))));
                response.extensions_mut().insert(Unhurried);
                Ok(response)
            }
            Some(Err(failure)) => Ok(refused_stream(&failure)),
            None => Ok(Response::new(GatewayBody::Whole(Full::default()))),
        }
    }
}

/// A stream that ends before its first message: its only line stands under HTTP's status.
fn refused_stream(failure: &Failure) -> Response<GatewayBody> {
    json(failure.status(), failure.to_line())
}

fn refuse_websocket(status: StatusCode) -> Response<GatewayBody> {
    let text = format!("{}\n", status.canonical_reason().unwrap_or_default());
    let mut response = plain(status, text);
    response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(handshake::VERSION));
    response
}

/// Whoever thinks to be known by a certificate here would be nobody: etcd says so instead of serving.
fn refuse_name() -> Response<GatewayBody> {
    let text = "CommonName of client sending a request against gateway will be ignored and not used as expected\n";
    plain(StatusCode::BAD_REQUEST, text)
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<GatewayBody> {
    let mut response = json(status, text);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn one_message(
    body: RequestBody,
    message: &MessageDescriptor,
    bounds: JsonBounds,
    mut held: Option<HeldRequest>,
) -> Result<Bytes, Failure> {
    let JsonBounds { bytes: bytes_max, values } = bounds;
    let (mut body, mut json) = (Limited::new(body, bytes_max), BytesMut::new());
    let whole = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    let text = format!("grpc: received message larger than max ({bytes_max} bytes of JSON)");
                    return Failure::new(8, text);
                }
                Failure::new(1, error.to_string())
            })?;
            json.extend_from_slice(&frame.into_data().unwrap_or_default());
            if held.as_mut().is_some_and(|held| !held.set(json.len())) {
                return Err(Failure::new(2, status::too_many_requests().message));
            }
        }
        Ok(())
    };
    let late = |_| Failure::new(4, "the rest of the request has not come in time");
    timeout(MESSAGE_WAIT_MAX, whole).await.map_err(late)??;
    Ok(framed(&from_json(message, &json, values)?))
}

fn inside_call(head: &Parts, path: &str, body: Inside) -> Request<Inside> {
    let mut call = Request::new(body);
    *call.method_mut() = Method::POST;
    *call.uri_mut() = path.parse().expect("names of services and methods make a path");
    let headers = call.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    for (name, value) in &head.headers {
        let known = match name.as_str() {
            own @ ("authorization" | client_deadline::HEADER) => Some(own),
            other => other.strip_prefix(METADATA_PREFIX).filter(|name| METADATA.contains(name)),
        };
        if let Some(name) = known.and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok()) {
            headers.insert(name, value.clone());
        }
    }
    if let Some(client) = head.extensions.get::<ClientConnection>() {
        // The name of a certificate is nobody's here.
        call.extensions_mut().insert(ClientConnection { common_name: None, ..client.clone() });
    }
    call
}

fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<GatewayBody> {
    as_json(status, GatewayBody::Whole(Full::new(body.into())))
}

fn as_json(status: StatusCode, body: GatewayBody) -> Response<GatewayBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn with_metadata(mut response: Response<GatewayBody>) -> Response<GatewayBody> {
    let name = header::HeaderName::from_static("grpc-metadata-content-type");
    response.headers_mut().insert(name, HeaderValue::from_static("application/grpc"));
    response
}
