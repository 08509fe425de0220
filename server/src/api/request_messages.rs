//! The messages of a call as they come in: gRPC's frames of a body that HTTP cut anywhere.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::grpc::FRAME_HEAD_BYTES;
use super::status::{self, Code, Status};
use crate::listen::HeldRequest;
use crate::metrics::{GrpcMethod, Metrics};

/// How long the rest of a message may take that has begun. The largest come in at 40 KB/s; whoever is slower keeps what others
/// need.
pub const MESSAGE_WAIT_MAX: Duration = Duration::from_secs(60);

/// How somebody is told who was slower.
pub const MESSAGE_LATE: &str = "the rest of the message has not come in time";

/// A body that a connection cannot give: it is gone, or its client has given up the call.
impl From<Box<dyn Error + Send + Sync>> for Status {
    fn from(cause: Box<dyn Error + Send + Sync>) -> Self {
        Self::new(Code::Canceled, cause.to_string())
    }
}

impl From<Infallible> for Status {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The messages of a request's body.
pub struct RequestMessages<B> {
    body: B,
    buffer: BytesMut,
    /// The one data frame that held exactly a message is handed on without a copy.
    whole: Option<Bytes>,
    bytes_max: usize,
    /// Where messages are counted.
    received: Option<(Arc<Metrics>, GrpcMethod)>,
    /// The room for what is in the buffer, where that is bounded.
    held: Option<HeldRequest>,
    /// When the message that has begun must be whole.
    whole_until: Option<Instant>,
    wait_max: Duration,
}

impl<B> RequestMessages<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Status>,
{
    /// The messages of `body`, each of at most `bytes_max` bytes.
    pub fn new(body: B, bytes_max: usize) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            whole: None,
            bytes_max,
            received: None,
            held: None,
            whole_until: None,
            wait_max: MESSAGE_WAIT_MAX,
        }
    }

    /// Keeps only what there is room for, and counts messages of this method.
    pub fn count_in(&mut self, held: Option<HeldRequest>, received: Option<(Arc<Metrics>, GrpcMethod)>) {
        (self.held, self.received) = (held, received);
    }

    /// The next message; `None` when the client sends no more.
    ///
    /// # Errors
    /// In grpc-go's words.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let message = self.take_next().await;
        if matches!(&message, Err(status) if status.code != Code::Canceled) {
            self.failed();
        }
        message
    }

    /// Counts that what came on a stream makes no sense.
    pub fn failed(&self) {
        let Some((metrics, method)) = &self.received else { return };
        let api = match method {
            GrpcMethod::Watch => "watch",
            GrpcMethod::LeaseKeepAlive => "lease-keepalive",
            _ => return,
        };
        metrics.stream_failures_total.with_label_values(&["receive", api]).inc();
    }

    async fn take_next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.take_message()? {
                if let Some((metrics, method)) = &self.received {
                    metrics.grpc.received(*method);
                    metrics.client_received_bytes.inc_by(message.len() as u64);
                }
                self.whole_until = None;
                self.keep()?;
                return Ok(Some(message));
            }
            let Some(frame) = self.next_frame().await? else {
                let cut = !self.buffer.is_empty() || self.whole.as_ref().is_some_and(|whole| !whole.is_empty());
                return if cut { Err(Status::new(Code::Internal, "unexpected EOF")) } else { Ok(None) };
            };
            let frame = frame.map_err(Into::into)?;
            if let Ok(data) = frame.into_data() {
                if self.buffer.is_empty() && self.whole.is_none() {
                    self.whole = Some(data);
                } else {
                    self.spill();
                    self.buffer.put_slice(&data);
                }
            }
        }
    }

    /// Waits for more, and not for ever where a message has begun.
    async fn next_frame(&mut self) -> Result<Option<Result<Frame<Bytes>, B::Error>>, Status> {
        // A frame that is no whole message is copied: it would keep all that was read with it.
        self.spill();
        if self.buffer.is_empty() {
            return Ok(self.body.frame().await);
        }
        self.keep()?;
        let until = *self.whole_until.get_or_insert_with(|| Instant::now() + self.wait_max);
        let late = |_| Status::new(Code::DeadlineExceeded, MESSAGE_LATE);
        timeout_at(until, self.body.frame()).await.map_err(late)
    }

    /// Counts what the buffer keeps, where it is counted.
    fn keep(&mut self) -> Result<(), Status> {
        let kept = self.held.as_mut().is_none_or(|held| held.set(self.buffer.len()));
        if kept { Ok(()) } else { Err(status::too_many_requests()) }
    }

    fn spill(&mut self) {
        if let Some(whole) = self.whole.take() {
            self.buffer.put_slice(&whole);
        }
    }

    fn take_message(&mut self) -> Result<Option<Bytes>, Status> {
        let head = self.whole.as_deref().unwrap_or(&self.buffer);
        if head.len() < FRAME_HEAD_BYTES {
            return Ok(None);
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        match head[0] {
            0 => {}
            // Whoever names an encoding was refused by the head of the call.
            1 => {
                let text = "grpc: compressed flag set with identity or empty encoding";
                return Err(Status::new(Code::Internal, text));
            }
            flag => {
                let text = format!("grpc: received unexpected payload format {flag}");
                return Err(Status::new(Code::Internal, text));
            }
        }
        if length > self.bytes_max {
            let text = format!("grpc: received message larger than max ({length} vs. {})", self.bytes_max);
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        if head.len() < FRAME_HEAD_BYTES + length {
            return Ok(None);
        }
        if let Some(mut whole) = self.whole.take() {
            whole.advance(FRAME_HEAD_BYTES);
            let message = whole.split_to(length);
            self.buffer.put_slice(&whole);
            return Ok(Some(message));
        }
        self.buffer.advance(FRAME_HEAD_BYTES);
        let message = self.buffer.split_to(length).freeze();
        if self.buffer.is_empty() {
            // What is left of a buffer keeps the room of all that was in it.
            self.buffer = BytesMut::new();
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::sync::mpsc;

    use super::*;
    use crate::listen::RequestRooms;

    /// A body in parts that a test sends.
    struct Parts(mpsc::UnboundedReceiver<Vec<u8>>);

    impl Body for Parts {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.poll_recv(context).map(|part| part.map(|part| Ok(Frame::data(part.into()))))
        }
    }

    fn messages(parts: &[&[u8]], bytes_max: usize) -> (mpsc::UnboundedSender<Vec<u8>>, RequestMessages<Parts>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        parts.iter().for_each(|part| sender.send(part.to_vec()).expect("the other end is here"));
        (sender, RequestMessages::new(Parts(receiver), bytes_max))
    }

    #[tokio::test]
    async fn half_a_message_is_no_end() {
        let unfinished = http_body_util::Full::new(Bytes::from_static(&[0, 0, 0, 0, 9, 1]));
        let cut = RequestMessages::new(unfinished, 100).next().await;
        assert_eq!(cut, Err(Status::new(Code::Internal, "unexpected EOF")));
        let whole = http_body_util::Full::new(Bytes::from_static(&[0, 0, 0, 0, 1, 7]));
        let mut messages = RequestMessages::new(whole, 100);
        assert_eq!(messages.next().await, Ok(Some(Bytes::from_static(&[7]))));
        assert_eq!(messages.next().await, Ok(None));
    }

    #[tokio::test]
    async fn what_is_kept_of_a_message_has_room_or_is_refused() {
        let room = RequestRooms::new(2_000).of_connection();
        let message = [&[0, 0, 0, 3, 132], &*vec![7; 900]].concat();
        let (half, rest) = message.split_at(500);
        let parts = [half, rest, half, rest, &message, &[0, 0, 0, 39, 16], &[7; 600], &[7; 600]];
        let (_sender, mut messages) = messages(&parts, 10_000);
        messages.count_in(Some(room.nothing()), None);
        for _ in 0..3 {
            assert_eq!(messages.next().await.map(|message| message.map(|message| message.len())), Ok(Some(900)));
            assert!(room.nothing().set(1_000), "a message that is whole is still held");
        }
        // A connection has half of what all have.
        assert_eq!(messages.next().await, Err(status::too_many_requests()));
        assert!(!room.nothing().set(1_000));
        drop(messages);
        assert!(room.nothing().set(1_000));
    }

    #[tokio::test]
    async fn nobody_waits_for_ever_for_the_rest_of_a_message() {
        let (sender, mut messages) = messages(&[&[0, 0, 0, 0, 1], &[7]], 100);
        assert_eq!(messages.next().await, Ok(Some(Bytes::from_static(&[7]))));
        messages.wait_max = Duration::ZERO;
        // Between two messages a client may be silent for as long as it likes.
        assert!(tokio::time::timeout(Duration::from_millis(20), messages.next()).await.is_err());
        sender.send(vec![0]).expect("the other end is here");
        let late = messages.next().await.map_err(|status| status.code);
        assert_eq!(late, Err(Code::DeadlineExceeded));
    }
}
