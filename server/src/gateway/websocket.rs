//! A websocket as one call of the gateway: each message of the client is a piece of the request's body, each line of the answer is
//! a message to the client (`grpc-websocket-proxy`, which etcd has before its gateway).
//!
//! Nothing waits here but one message in each direction: a call that takes no more requests stops the reading of them, a client
//! that takes no more answers stops the making of them, and is left when it takes none for too long. When either side ends, the
//! other does; there is no half of a websocket. As etcd's, an end of the call is an end of the connection without a farewell.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Response;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame, Utf8Bytes};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::frames::HasAsked;
use super::metered::Metered;
use crate::config::KeepaliveConfig;
use crate::listen::{HeldRequest, Hurry, RequestBody};

/// What is read at a time, and kept of an idle websocket.
const READ_BYTES: usize = 4 << 10;
/// Longer messages to the client go in frames of so much: the library copies each of them.
const FRAME_BYTES: usize = 32 << 10;
/// What may wait to be written: a frame, and answers to pings of a client that does not read them.
const WAITING_BYTES_MAX: usize = FRAME_BYTES + (8 << 10);
/// The head of a client's frame without content: two bytes and its mask.
const FRAME_HEAD_BYTES: usize = 6;
/// For the farewell to a client that says what it may not.
const FAREWELL_WAIT_MAX: Duration = Duration::from_secs(1);

/// What bounds a websocket.
pub(super) struct Bounds {
    /// Of one message of the client.
    pub message_bytes_max: usize,
    /// How long a message that has begun may take.
    pub message_wait_max: Duration,
    /// Room for it.
    pub held: Option<HeldRequest>,
    /// When a silent client is asked whether it is there, and how long it may be silent then.
    pub keepalive: KeepaliveConfig,
    /// Told how fast the answer has to be taken.
    pub hurry: Hurry,
}

/// Why a websocket ends.
enum End {
    /// The client closed it or is gone, or the call is over: nothing more is said.
    Over,
    /// The client said what it may not.
    Refused(CloseCode, &'static str),
}

/// Has `answer` answer what comes over `stream`, until one of both ends, or `stop` does while the client owes a request: until
/// `answer` says in `has_asked` that it has one.
pub(super) async fn serve<S, F, B>(
    stream: S,
    bounds: Bounds,
    answer: impl FnOnce(RequestBody) -> F,
    has_asked: HasAsked,
    stop: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + Unpin,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(WAITING_BYTES_MAX)
        .max_message_size(Some(bounds.message_bytes_max))
        .max_frame_size(Some(bounds.message_bytes_max));
    let metered = Metered::new(stream, bounds.held, bounds.message_wait_max);
    let socket = WebSocketStream::from_raw_socket(metered, Role::Server, Some(config)).await;
    let (requests, body) = mpsc::channel(1);
    let mut websocket = Websocket {
        socket,
        has_asked,
        requests: Some(requests),
        heard: None,
        keepalive: bounds.keepalive,
        hurry: bounds.hurry,
        silent_since: Instant::now(),
        asked: false,
        line_is_open: false,
    };
    let end = websocket.run(answer(RequestBody::Messages(body)), stop).await;
    if let End::Refused(code, reason) = end {
        let farewell = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
        // Whoever does not hear it is closed all the same.
        _ = timeout(FAREWELL_WAIT_MAX, websocket.socket.close(Some(farewell))).await;
    }
    // Of TLS this says that it ends here; a failure says that it has already.
    _ = timeout(FAREWELL_WAIT_MAX, websocket.socket.get_mut().shutdown()).await;
}

struct Websocket<S> {
    socket: WebSocketStream<Metered<S>>,
    has_asked: HasAsked,
    /// Gone once the call takes no more.
    requests: Option<mpsc::Sender<Bytes>>,
    /// What the client said and the call has not yet taken. Nothing is read meanwhile.
    heard: Option<Bytes>,
    keepalive: KeepaliveConfig,
    hurry: Hurry,
    silent_since: Instant,
    /// Whether the client was asked if it is there.
    asked: bool,
    /// Whether a message to the client has begun.
    line_is_open: bool,
}

/// What happens to a websocket.
enum Event<B> {
    Answered(B),
    /// The next piece of the answer; `None` behind the last.
    Says(Option<Bytes>),
    Heard(Option<Result<Message, Error>>),
    /// What was heard was taken; `false` if nobody takes any more.
    Taken(bool),
    Silent,
    Stopped,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Websocket<S> {
    async fn run<F, B>(&mut self, answering: F, stop: impl Future<Output = ()>) -> End
    where
        F: Future<Output = Response<B>>,
        B: Body<Data = Bytes> + Unpin,
    {
        let (mut answering, mut stop) = (pin!(answering), pin!(stop));
        let mut body = None;
        loop {
            let silent_until = self.silent_until();
            let event = tokio::select! {
                biased;
                response = answering.as_mut(), if body.is_none() => {
                    self.hurry.begin(&response);
                    Event::Answered(response.into_body())
                }
                data = next_piece(body.as_mut()) => Event::Says(data),
                taken = hand_on(self.requests.as_ref(), &mut self.heard), if self.heard.is_some() => Event::Taken(taken),
                message = self.socket.next(), if self.heard.is_none() => Event::Heard(message),
                () = until(silent_until) => Event::Silent,
                // A call under way ends by itself, and says how.
                () = stop.as_mut(), if !self.has_asked.get() => Event::Stopped,
            };
            let goes_on = match event {
                Event::Answered(answer) => {
                    body = Some(answer);
                    Ok(())
                }
                Event::Says(Some(data)) => self.say(data).await,
                Event::Says(None) => self.end_line().await.and(Err(End::Over)),
                Event::Taken(true) => Ok(()),
                Event::Taken(false) => {
                    (self.requests, self.heard) = (None, None);
                    Ok(())
                }
                Event::Heard(message) => self.hear(message),
                Event::Silent => self.ask().await,
                // Asked since this turn began.
                Event::Stopped if self.has_asked.get() => Ok(()),
                Event::Stopped => Err(End::Over),
            };
            if let Err(end) = goes_on {
                return end;
            }
        }
    }

    fn hear(&mut self, message: Option<Result<Message, Error>>) -> Result<(), End> {
        let message = message.ok_or(End::Over)?.map_err(|error| refusal(&error))?;
        (self.silent_since, self.asked) = (Instant::now(), false);
        let content = match message {
            Message::Text(text) => Bytes::from(text),
            Message::Binary(bytes) => bytes,
            // Both are answered by the library: what it says to a close goes out with the next look, which is the last.
            Message::Ping(content) | Message::Pong(content) => {
                self.socket.get_mut().release(FRAME_HEAD_BYTES + content.len());
                return Ok(());
            }
            Message::Close(_) | Message::Frame(_) => return Ok(()),
        };
        self.socket.get_mut().handed_on();
        // Nobody wants to hear more: it is read all the same, for so the client's end is seen.
        self.heard = self.requests.is_some().then_some(content);
        Ok(())
    }

    /// Sends a piece of the answer; a line's last byte ends the message.
    async fn say(&mut self, mut data: Bytes) -> Result<(), End> {
        while !data.is_empty() {
            let line_end = data.iter().position(|byte| *byte == b'\n');
            let mut piece = data.split_to(line_end.map_or(data.len(), |end| end + 1));
            piece.truncate(line_end.unwrap_or(piece.len()));
            // An empty line is no message.
            let ends = line_end.is_some() && (self.line_is_open || !piece.is_empty());
            while piece.len() > FRAME_BYTES {
                self.send(piece.split_to(FRAME_BYTES), false).await?;
            }
            if ends || !piece.is_empty() {
                self.send(piece, ends).await?;
            }
        }
        Ok(())
    }

    /// Ends the message that has no end of line.
    async fn end_line(&mut self) -> Result<(), End> {
        if self.line_is_open { self.send(Bytes::new(), true).await } else { Ok(()) }
    }

    async fn send(&mut self, content: Bytes, is_last: bool) -> Result<(), End> {
        let kind = if self.line_is_open { Data::Continue } else { Data::Text };
        self.line_is_open = !is_last;
        self.write(Message::Frame(Frame::message(content, OpCode::Data(kind), is_last))).await
    }

    /// Asks a silent client whether it is there, or gives it up.
    async fn ask(&mut self) -> Result<(), End> {
        if self.asked {
            return Err(End::Over);
        }
        (self.silent_since, self.asked) = (Instant::now(), true);
        self.write(Message::Ping(Bytes::new())).await
    }

    /// Writes a frame when nothing waits before it any more: the room for what waits is that of one.
    async fn write(&mut self, message: Message) -> Result<(), End> {
        let written = async {
            self.socket.flush().await?;
            self.socket.send(message).await
        };
        written.await.map_err(|_| End::Over)
    }

    /// When the client has been silent for too long.
    fn silent_until(&self) -> Option<Instant> {
        let wait = if self.asked { self.keepalive.server_timeout } else { self.keepalive.server_interval };
        self.silent_since.checked_add(wait?)
    }
}

async fn next_piece<B: Body<Data = Bytes> + Unpin>(body: Option<&mut B>) -> Option<Bytes> {
    let Some(body) = body else { return std::future::pending().await };
    loop {
        match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => return Some(data),
                Err(_) => continue,
            },
            Some(Err(_)) | None => return None,
        }
    }
}

/// Gives what was heard to the call; `false` if that takes no more.
async fn hand_on(requests: Option<&mpsc::Sender<Bytes>>, heard: &mut Option<Bytes>) -> bool {
    let Some(requests) = requests else { return false };
    let Ok(place) = requests.reserve().await else { return false };
    if let Some(message) = heard.take() {
        place.send(message);
    }
    true
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// How a client is told that it went too far.
fn refusal(error: &Error) -> End {
    match error {
        Error::Capacity(_) => End::Refused(CloseCode::Size, "a message that is too long"),
        Error::Utf8(_) => End::Refused(CloseCode::Invalid, "a text that is no UTF-8"),
        // It is gone, and nobody hears why.
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Over,
        Error::Protocol(_) => End::Refused(CloseCode::Protocol, "frames that are none"),
        Error::Io(error) if error.kind() == ErrorKind::OutOfMemory => {
            End::Refused(CloseCode::Again, "etcdserver: too many requests")
        }
        Error::Io(error) if error.kind() == ErrorKind::TimedOut => {
            End::Refused(CloseCode::Policy, "the rest of the request has not come in time")
        }
        _ => End::Over,
    }
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
