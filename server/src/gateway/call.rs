//! A request of the gateway, from HTTP to a call inside and back.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, Limited};
use prost_reflect::MessageDescriptor;
use tokio::time::timeout;

use super::failure::Failure;
use super::frames::{Inside, JsonValues};
use super::routes::{Kind, below, method_of};
use super::transcoder::{Signature, Transcoder, framed, from_json, take_message, to_json};
use crate::api::grpc::{self, GrpcBody, REQUEST_OVERHEAD_BYTES};
use crate::api::request_messages::MESSAGE_WAIT_MAX;
use crate::api::service::Service;
use crate::api::status;
use crate::listen::{ClientConnection, HeldRequest, RequestBody};

/// Headers of a client that are metadata of its call: a token, and whether it wants an answer without a leader. Others are said
/// with `Grpc-Metadata-` before them.
const METADATA: [&str; 3] = ["authorization", "token", "hasleader"];
const METADATA_PREFIX: &str = "grpc-metadata-";

/// Base64 takes four bytes for three, and names and quotes take some.
const JSON_FOR_BYTES: usize = 2;

/// The gateway of a node.
pub struct Gateway {
    service: Arc<Service>,
    transcoder: Transcoder,
}

/// An answer of the gateway.
pub enum GatewayBody {
    /// All of it.
    Whole(Full<Bytes>),
    /// A line for each message, as they come.
    Lines(Box<Lines>),
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

    /// Answers a request below `/v3/`.
    pub async fn respond(&self, head: &Parts, body: RequestBody) -> Response<GatewayBody> {
        let named = head.extensions.get::<ClientConnection>().is_some_and(|client| client.common_name.is_some());
        if named && self.service.node.auth.is_enabled() {
            return refuse_name();
        }
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

    async fn call(&self, head: &Parts, body: RequestBody) -> Result<Response<GatewayBody>, Failure> {
        let (service, method) = method_of(head.uri.path()).ok_or_else(|| Failure::new(5, "Not Found"))?;
        if head.method != Method::POST {
            return Err(Failure::new(12, "Method Not Allowed"));
        }
        let signature = self.transcoder.signature(service, method).ok_or_else(|| Failure::new(5, "Not Found"))?;
        let Signature { kind, request, response } = signature;
        let bytes_max = (self.service.node.limits.request_bytes_max + REQUEST_OVERHEAD_BYTES) * JSON_FOR_BYTES;
        let inside = match kind {
            Kind::Streams => Inside::Many(JsonValues::new(body, request, bytes_max)),
            Kind::Unary | Kind::ServerStream => {
                let room = head.extensions.get::<ClientConnection>().map(|client| client.request_room.nothing());
                Inside::One(Some(one_message(body, &request, bytes_max, room).await?))
            }
        };
        let call = inside_call(head, &format!("/{service}/{method}"), inside);
        let answer = grpc::serve(self.service.clone(), call).await;
        if let Some(failure) =
            Failure::of_trailers(answer.headers()).filter(|_| answer.headers().contains_key("grpc-status"))
        {
            return Err(failure);
        }
        let mut lines = Lines { inside: answer.into_body(), frames: BytesMut::new(), response, ended: false };
        if kind == Kind::Unary {
            let message = lines.only_message().await?;
            return Ok(with_metadata(json(StatusCode::OK, to_json(&lines.response, &message)?)));
        }
        // What fails before there is anything to show fails with HTTP's status.
        let first = std::future::poll_fn(|context| lines.poll_message(context)).await;
        match first {
            Some(Ok(message)) => {
                lines.put_back(&message);
                let mut response = Response::new(GatewayBody::Lines(Box::new(lines)));
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Ok(with_metadata(response))
            }
            Some(Err(failure)) => Err(failure),
            None => Ok(with_metadata(json(StatusCode::OK, String::new()))),
        }
    }
}

/// Whoever thinks to be known by a certificate here would be nobody: etcd says so instead of serving.
fn refuse_name() -> Response<GatewayBody> {
    let text = "CommonName of client sending a request against gateway will be ignored and not used as expected\n";
    let mut response = json(StatusCode::BAD_REQUEST, text);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn one_message(
    body: RequestBody,
    message: &MessageDescriptor,
    bytes_max: usize,
    mut held: Option<HeldRequest>,
) -> Result<Bytes, Failure> {
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
    Ok(framed(&from_json(message, &json)?))
}

fn inside_call(head: &Parts, path: &str, body: Inside) -> Request<Inside> {
    let mut call = Request::new(body);
    *call.method_mut() = Method::POST;
    *call.uri_mut() = path.parse().expect("names of services and methods make a path");
    let headers = call.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    for (name, value) in &head.headers {
        let name = name.as_str().strip_prefix(METADATA_PREFIX).unwrap_or(name.as_str());
        if let Some(name) = METADATA.into_iter().find(|known| *known == name) {
            headers.insert(name, value.clone());
        }
    }
    call
}

fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<GatewayBody> {
    let mut response = Response::new(GatewayBody::Whole(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn with_metadata(mut response: Response<GatewayBody>) -> Response<GatewayBody> {
    let name = header::HeaderName::from_static("grpc-metadata-content-type");
    response.headers_mut().insert(name, HeaderValue::from_static("application/grpc"));
    response
}

/// The messages of a call as lines of JSON.
pub struct Lines {
    inside: GrpcBody,
    frames: BytesMut,
    response: MessageDescriptor,
    ended: bool,
}

impl Lines {
    /// The next message, or how the call failed; `None` at its good end.
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        loop {
            if let Some(message) = take_message(&mut self.frames) {
                return Poll::Ready(Some(Ok(message)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let Some(Ok(frame)) = ready!(Pin::new(&mut self.inside).poll_frame(context)) else {
                self.ended = true;
                continue;
            };
            match frame.into_data() {
                Ok(mut data) => {
                    while data.has_remaining() {
                        let chunk = data.chunk();
                        self.frames.extend_from_slice(chunk);
                        let taken = chunk.len();
                        data.advance(taken);
                    }
                }
                Err(frame) => {
                    self.ended = true;
                    let trailers = frame.into_trailers().unwrap_or_default();
                    if let Some(failure) = Failure::of_trailers(&trailers) {
                        return Poll::Ready(Some(Err(failure)));
                    }
                }
            }
        }
    }

    /// The message of a unary call, once that has ended well.
    async fn only_message(&mut self) -> Result<Bytes, Failure> {
        let mut only = Bytes::new();
        while let Some(message) = std::future::poll_fn(|context| self.poll_message(context)).await {
            only = message?;
        }
        Ok(only)
    }

    fn put_back(&mut self, message: &[u8]) {
        let rest = std::mem::take(&mut self.frames);
        self.frames.extend_from_slice(&framed(message));
        self.frames.extend_from_slice(&rest);
    }

    /// The line of a message, or of the failure that is the last line.
    fn line(&mut self, message: Result<Bytes, Failure>) -> Bytes {
        let shown = message.and_then(|message| to_json(&self.response, &message));
        let (name, value) = match shown {
            Ok(result) => ("result", result),
            Err(failure) => {
                self.ended = true;
                self.frames.clear();
                ("error", failure.to_json().into_bytes())
            }
        };
        [b"{\"", name.as_bytes(), b"\":", &value, b"}\n"].concat().into()
    }
}

impl Body for GatewayBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            GatewayBody::Whole(body) => Pin::new(body).poll_frame(context),
            GatewayBody::Lines(lines) => {
                let message = ready!(lines.poll_message(context));
                Poll::Ready(message.map(|message| Ok(Frame::data(lines.line(message)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            GatewayBody::Whole(body) => body.is_end_stream(),
            GatewayBody::Lines(_) => false,
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            GatewayBody::Whole(body) => body.size_hint(),
            GatewayBody::Lines(_) => http_body::SizeHint::default(),
        }
    }
}
