//! gRPC on HTTP/2: frames, trailers and errors. The one file that binds handlers to connections (DESIGN D7).
//!
//! A message is a flag byte, a 4-byte big-endian length and the protobuf bytes; a call ends with trailers that carry
//! `grpc-status`. Compression is never offered and, as gRPC says, refused when used.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::chunks::Chunks;
use super::client_deadline::{self, GRACE, Patience};
use super::method::{self, Method};
use super::own_client::NAME_TIMES;
use super::pieces::Pieces;
use super::request_messages::RequestMessages;
use super::service::{Reply, Service};
use super::status::{self, Code, Status};
use super::stream::{self, WatchMessages};
use super::tally::{Tally, client_version, spans_of};
use crate::auth::Credentials;
use crate::listen::{ClientConnection, OpenCall, Patient, RequestRoom, WaitingRequest};
use crate::node::gather::ANSWER_BYTES_MAX;

/// Bytes before a message: flag and length.
pub(super) const FRAME_HEAD_BYTES: usize = 5;

/// Pieces of one answer up to this size are joined: one write instead of several.
const JOINED_BYTES_MAX: usize = 8 << 10;

/// What a client may send above `--max-request-bytes` (etcd `grpcOverheadBytes`, etcd-contract 40).
pub const REQUEST_OVERHEAD_BYTES: usize = 512 << 10;

/// How a client says that it compresses its messages.
const ENCODING_HEADER: &str = "grpc-encoding";
/// Metadata of a client that wants no answer where there is no leader (etcd-contract 39).
const LEADER_HEADER: &str = "hasleader";

/// Messages of a stream that wait for the connection.
pub type Messages = mpsc::Receiver<Result<Chunks, Status>>;

/// An answer on its way, counted.
pub struct GrpcBody {
    flow: Flow,
    tally: Option<Tally>,
    /// The call's place, and what its request takes, until all is said.
    open: Option<OpenCall>,
    held: Option<WaitingRequest>,
}

enum Flow {
    /// A message, then the end of the call.
    Whole(Option<Pieces>, Option<Status>, bool),
    /// Messages as they come, then the end of the call.
    Stream(Messages),
    /// The same of a watch: whatever came together goes together.
    Watch(WatchMessages),
}

/// Whether a request is gRPC (etcd-contract 5).
pub fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Answers a call whose head already forbids it, in grpc-go's words; `None` for all others.
pub fn refuse_head<B>(request: &Request<B>) -> Option<Response<GrpcBody>> {
    if request.method() != http::Method::POST {
        let text = format!("Received a HEADERS frame with :method \"{}\" which should be POST", request.method());
        let mut response = refused(&Status::new(Code::Internal, text), None);
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        return Some(response);
    }
    let encoding = String::from_utf8_lossy(request.headers().get(ENCODING_HEADER)?.as_bytes());
    if matches!(&*encoding, "" | "identity") {
        return None;
    }
    let text = format!("grpc: Decompressor is not installed for grpc-encoding \"{encoding}\"");
    Some(refused(&Status::new(Code::Unimplemented, text), None))
}

/// Serves one call.
pub async fn serve<B>(service: Arc<Service>, request: Request<B>) -> Response<GrpcBody>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Status> + Send,
{
    let path = request.uri().path();
    let Some(method) = Method::of_path(path) else {
        return refused(&Status::new(Code::Unimplemented, method::unknown(path)), None);
    };
    let version = client_version(request.headers());
    let mut tally = Tally::start(&service, &request, &version);
    let is_for_voters = matches!(
        method,
        Method::Watch | Method::LeaseKeepAlive | Method::RangeStream | Method::Observe | Method::HealthWatch
    );
    if is_for_voters && service.is_learner() {
        return refused(&status::not_for_learners(), tally.as_mut());
    }
    if let Err(status) = &version {
        return refused(status, tally.as_mut());
    }
    let patience = match client_deadline::of(request.headers()) {
        Ok(Some(Duration::ZERO)) => return refused(&status::deadline_exceeded(), tally.as_mut()),
        Ok(patience) => patience.map(|patience| (patience, Instant::now())),
        Err(status) => {
            let mut response = refused(&status, tally.as_mut());
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return response;
        }
    };
    let needs_leader = request.headers().get(LEADER_HEADER).is_some_and(|value| value.as_bytes() == b"true");
    if needs_leader && service.node.leader().is_none() {
        return refused(&status::no_leader(), tally.as_mut());
    }
    let client = request.extensions().get::<ClientConnection>();
    if let Some(tally) = &mut tally {
        tally.remote = client.and_then(|client| client.remote_address);
    }
    let open = client.filter(|client| !client.has_place).map(|client| client.request_room.open_call());
    if matches!(open, Some(None)) {
        return refused(&status::too_many_requests(), tally.as_mut());
    }
    let credentials = Credentials::of(request.headers(), client.and_then(|client| client.common_name.as_ref()));
    let room = client.map(|client| client.request_room.clone());
    let limit = service.node.limits.request_bytes_max + REQUEST_OVERHEAD_BYTES;
    let mut requests = RequestMessages::new(request.into_body(), limit);
    requests.count_in(
        room.as_ref().map(|room| room.nothing()),
        tally.as_ref().map(|tally| (tally.metrics.clone(), tally.method)),
    );
    let above = tally.as_ref().and_then(|tally| tally.spans.as_ref()).map(|spans| spans.above());
    let mut held = None;
    let mut response = match method {
        Method::Watch => respond(Flow::Watch(stream::watch(&service, requests, credentials, needs_leader, above))),
        Method::LeaseKeepAlive => streaming(stream::keep_alive(service, requests, credentials, needs_leader, above)),
        _ => match requests.next().await {
            Ok(Some(message)) => {
                if let (Some(times), Some(room)) = (kept_times(method), &room) {
                    held = room.waiting(times * message.len());
                    if held.is_none() {
                        return refused(&status::too_many_requests(), tally.as_mut());
                    }
                }
                let (caller, request_bytes) = (service.identify(&credentials).await, message.len());
                if let Some(spans) = spans_of(&mut tally.as_mut()) {
                    spans.asked(&service, method, &message);
                }
                match method {
                    Method::RangeStream | Method::Snapshot | Method::Observe | Method::HealthWatch => {
                        streaming(stream::server_stream(service, method, message, caller, needs_leader))
                    }
                    _ => {
                        // Who waits for others is not slow.
                        let waits = matches!(method, Method::Lock | Method::Campaign);
                        let slow = if waits { Duration::MAX } else { service.slow_unary };
                        if let Some(tally) = &mut tally {
                            (tally.request_bytes, tally.slow) = (request_bytes, Some(slow));
                        }
                        if let (Some(tally), Some((patience, _))) = (&mut tally, patience) {
                            let code = if method.is_ordered() { Code::Unavailable } else { Code::DeadlineExceeded };
                            tally.patience = Some(Patience::new(patience, code));
                        }
                        let deadline = patience.map(|patience| Deadline::of(patience, &service, method));
                        let reply = service.call(method, message, caller);
                        let _kept = match room_of(&reply, room.as_ref()) {
                            Ok(kept) => kept,
                            Err(status) => return refused(&status, tally.as_mut()),
                        };
                        unary(reply, tally.as_mut(), deadline).await
                    }
                }
            }
            Ok(None) => refused(&Status::new(Code::Internal, "a call without a request"), tally.as_mut()),
            Err(status) => refused(&status, tally.as_mut()),
        },
    };
    // A snapshot has its own patience (`node/content.rs`); other streams hold next to nothing while they wait.
    if method != Method::RangeStream && !matches!(response.body().flow, Flow::Whole(..)) {
        response.extensions_mut().insert(Patient);
    }
    response.body_mut().tally = tally;
    response.body_mut().open = open.flatten();
    response.body_mut().held = held;
    response
}

/// How often what a client sent is kept by a call that waits for others or for its client; `None` for one whose request is on
/// to admission, or dropped, or whose handler says what it keeps ([`Reply::Keeping`]).
fn kept_times(method: Method) -> Option<usize> {
    match method {
        Method::RangeStream => Some(1),
        Method::Lock | Method::Campaign | Method::Observe => Some(NAME_TIMES),
        _ => None,
    }
}

/// Room for what a handler keeps of its request until it has the answer.
///
/// # Errors
/// There is none.
fn room_of(reply: &Reply, room: Option<&RequestRoom>) -> Result<Option<WaitingRequest>, Status> {
    match (reply, room) {
        (Reply::Keeping { bytes, .. }, Some(room)) => {
            room.waiting(*bytes).map(Some).ok_or_else(status::too_many_requests)
        }
        _ => Ok(None),
    }
}

/// When the client of a call waits no longer.
struct Deadline {
    service: Arc<Service>,
    is_ordered: bool,
    began: Instant,
    patience: Duration,
    /// Whether somebody led when the call came.
    was_led: bool,
}

impl Deadline {
    /// Of a client that waits so long since then.
    fn of((patience, began): (Duration, Instant), service: &Arc<Service>, method: Method) -> Self {
        let was_led = service.node.leader().is_some();
        Self { service: service.clone(), is_ordered: method.is_ordered(), began, patience, was_led }
    }

    /// How long the call may still take.
    fn left(&self) -> Duration {
        (self.patience + GRACE).saturating_sub(self.began.elapsed())
    }

    /// What is said of a call that was not answered in time.
    fn passed(self) -> Status {
        if self.is_ordered {
            self.service.proposal_timed_out(self.began, self.was_led)
        } else {
            status::deadline_exceeded()
        }
    }
}

async fn unary(reply: Reply, mut tally: Option<&mut Tally>, deadline: Option<Deadline>) -> Response<GrpcBody> {
    if let Some(spans) = spans_of(&mut tally) {
        spans.called(&reply);
    }
    let answer = match (reply, deadline) {
        (Reply::Ready(answer), _) => answer,
        (reply, None) => reply.settled().await,
        (reply, Some(deadline)) => {
            timeout(deadline.left(), reply.settled()).await.unwrap_or_else(|_| Err(deadline.passed()))
        }
    };
    let answer = answer.and_then(sendable);
    let (code, text) = answer.as_ref().map_or_else(|status| (status.code, &*status.message), |_| (Code::Ok, ""));
    if let Some(tally) = &mut tally {
        tally.end_unary(code, text, answer.as_ref().map_or(0, |message| message.0.len()));
    }
    match answer {
        Ok(message) => {
            if let Some(tally) = tally {
                tally.sent_bytes(message.0.len());
            }
            respond(Flow::Whole(Some(framed([message])), None, false))
        }
        Err(status) => refused(&status, tally),
    }
}

/// A unary answer that nobody counts.
pub fn answer(answer: Result<Chunks, Status>) -> Response<GrpcBody> {
    match answer.and_then(sendable) {
        Ok(message) => respond(Flow::Whole(Some(framed([message])), None, false)),
        Err(status) => refused(&status, None),
    }
}

/// A message that gRPC sends at once.
#[derive(Debug)]
struct Sendable(Chunks);

/// Refuses a larger one.
fn sendable(message: Chunks) -> Result<Sendable, Status> {
    if message.len() > ANSWER_BYTES_MAX { Err(status::answer_too_large(message.len())) } else { Ok(Sendable(message)) }
}

/// The messages of a stream up to the first that is refused, and why that one is.
fn sendable_part(messages: Vec<Chunks>) -> (Vec<Sendable>, Option<Status>) {
    let mut refusal = None;
    let sent =
        messages.into_iter().map_while(|message| sendable(message).map_err(|status| refusal = Some(status)).ok());
    (sent.collect(), refusal)
}

fn streaming(messages: Messages) -> Response<GrpcBody> {
    respond(Flow::Stream(messages))
}

fn respond(flow: Flow) -> Response<GrpcBody> {
    let mut response = Response::new(GrpcBody { flow, tally: None, open: None, held: None });
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// An error without a message: status and text stand in the headers.
fn refused(status: &Status, tally: Option<&mut Tally>) -> Response<GrpcBody> {
    if let Some(tally) = tally {
        tally.ended_with(status);
    }
    let mut response = respond(Flow::Whole(None, None, true));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().extend(trailers(status));
    response
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(status.code as u16));
    if !status.message.is_empty() {
        let text = HeaderValue::from_str(&percent_encoded(&status.message));
        trailers.insert("grpc-message", text.expect("percent-encoded text is visible ASCII"));
    }
    trailers
}

/// gRPC's form of a text in a header: bytes outside visible ASCII, and `%`, as `%XX`.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Messages with their heads. Short ones are copied into one slice, the values of long ones shared.
fn framed(messages: impl IntoIterator<Item = Sendable>) -> Pieces {
    let mut framed = Pieces::default();
    let mut joined = BytesMut::new();
    for Sendable(message) in messages {
        let length = message.len();
        let short = length <= JOINED_BYTES_MAX;
        joined.reserve(FRAME_HEAD_BYTES + if short { length } else { 0 });
        joined.put_u8(0);
        joined.put_u32(u32::try_from(length).expect("no larger one is sendable"));
        let pieces = message.into_pieces();
        if short {
            pieces.iter().for_each(|piece| joined.put_slice(piece));
        } else {
            framed.push(joined.split().freeze());
            framed.extend(pieces);
        }
    }
    framed.push(joined.freeze());
    framed
}

impl Body for GrpcBody {
    type Data = Pieces;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Pieces>, std::convert::Infallible>>> {
        let body = self.get_mut();
        loop {
            match &mut body.flow {
                Flow::Whole(message, status, ended) => {
                    if let Some(message) = message.take() {
                        return Poll::Ready(Some(Ok(Frame::data(message))));
                    }
                    if std::mem::replace(ended, true) {
                        return Poll::Ready(None);
                    }
                    let status = status.take().unwrap_or(Status { code: Code::Ok, message: String::new() });
                    if let Some(tally) = &mut body.tally {
                        tally.ended_with(&status);
                    }
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))));
                }
                Flow::Stream(messages) => {
                    match ready!(messages.poll_recv(context)).map(|message| message.and_then(sendable)) {
                        Some(Ok(message)) => {
                            if let Some(tally) = &body.tally {
                                tally.sent(message.0.len());
                            }
                            return Poll::Ready(Some(Ok(Frame::data(framed([message])))));
                        }
                        Some(Err(status)) => body.flow = Flow::Whole(None, Some(status), false),
                        None => body.flow = Flow::Whole(None, None, false),
                    }
                }
                Flow::Watch(messages) => match ready!(messages.poll_next(context)) {
                    Ok(messages) => {
                        let (messages, refusal) = sendable_part(messages);
                        if let Some(tally) = &body.tally {
                            messages.iter().for_each(|message| tally.sent(message.0.len()));
                        }
                        let framed = framed(messages);
                        if let Some(status) = refusal {
                            // etcd leaves such a stream open, and sends nothing on it any more.
                            let before = framed.has_remaining().then_some(framed);
                            body.flow = Flow::Whole(before, Some(status), false);
                            continue;
                        }
                        return Poll::Ready(Some(Ok(Frame::data(framed))));
                    }
                    Err(status) => body.flow = Flow::Whole(None, status, false),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.flow, Flow::Whole(None, _, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_texts_survive_a_header() {
        assert_eq!(percent_encoded("a: b%\n"), "a: b%25%0A");
        assert_eq!(trailers(&Status::new(Code::NotFound, "x")).get("grpc-status"), Some(&HeaderValue::from(5)));
    }

    #[tokio::test]
    async fn a_message_beyond_what_grpc_sends_is_refused_in_its_words() {
        let value = Bytes::from(vec![7; 1 << 20]);
        let mut chunks = Chunks::default();
        (0..4097).for_each(|_| chunks.shared(2, &value));
        assert!(chunks.len() > u32::MAX as usize);
        let text = format!("grpc: trying to send message larger than max ({} vs. 2147483647)", chunks.len());
        let refused = Status::new(Code::ResourceExhausted, text);
        assert_eq!(sendable(chunks).map(drop), Err(refused));
        let mut chunks = Chunks::default();
        (0..2048).for_each(|_| chunks.shared(2, &value));
        let response = unary(Reply::Ready(Ok(chunks)), None, None).await;
        assert_eq!(response.headers().get("grpc-status"), Some(&HeaderValue::from(8)));
    }

    #[test]
    fn a_stream_ends_before_a_message_beyond_what_grpc_sends() {
        let value = Bytes::from(vec![7; 1 << 20]);
        let message = |mebibytes| Chunks::from_pieces(vec![value.clone(); mebibytes]);
        let (sent, refusal) = sendable_part(vec![message(1), message(5_000), message(2)]);
        assert_eq!(sent.iter().map(|message| message.0.len()).collect::<Vec<_>>(), [1 << 20]);
        assert_eq!(refusal, Some(status::answer_too_large(5_000 << 20)));
        let (sent, refusal) = sendable_part(vec![message(1), message(2)]);
        assert_eq!((sent.len(), refusal), (2, None));
    }

    #[test]
    fn small_messages_are_one_piece() {
        let mut chunks = Chunks::default();
        chunks.shared(2, &vec![7; 2000].into());
        let pieces = framed([Sendable(chunks)]);
        assert_eq!(pieces.chunk().len(), FRAME_HEAD_BYTES + 3 + 2000);
        assert_eq!(pieces.remaining(), pieces.chunk().len());
    }
}
