//! One call over HTTP/2: its answer computed, then sent as the client takes it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderValue, Response, header};
use http_body::Body;

use super::pace::{Pace, Unhurried};
use super::turn;

/// Bytes of an answer, of which a part can go first.
pub trait Part: Buf + Default {
    /// Takes the first `count` bytes.
    fn split_to(&mut self, count: usize) -> Self;
}

impl Part for Bytes {
    fn split_to(&mut self, count: usize) -> Self {
        Self::split_to(self, count)
    }
}

/// Among the extensions of an answer: it may wait for its client for as long as that likes. Of streams that hold next to
/// nothing meanwhile, as watches.
#[derive(Clone, Copy, Debug)]
pub struct Patient;

/// A call under way. Ends when all is handed to HTTP/2, when the client resets it, or when the answer fails.
///
/// `F` gives the answer, with a body `B`. Bodies are read one piece ahead of what the client's window has room for, so
/// that a client that does not read holds one message and not all. One that takes too little of it for a while loses the
/// call, and with it what it held.
pub(super) struct Call<F, B: Body> {
    state: State<F, B>,
    unread_max: Duration,
}

enum State<F, B: Body> {
    Answering { answer: F, respond: SendResponse<B::Data> },
    Sending(Sending<B>),
}

struct Sending<B: Body> {
    stream: SendStream<B::Data>,
    body: B,
    ahead: Option<B::Data>,
    /// How fast the client has to take it; for ever as it likes if `None`.
    pace: Option<Pace>,
    is_unhurried: bool,
}

/// What one look at a call came to.
enum Look<F, B: Body> {
    Goes(State<F, B>),
    Over,
}

impl<F, B: Body> Call<F, B> {
    pub(super) fn new(answer: F, respond: SendResponse<B::Data>, unread_max: Duration) -> Self {
        Self { state: State::Answering { answer, respond }, unread_max }
    }
}

impl<F, B, E> Future for Call<F, B>
where
    F: Future<Output = Result<Response<B>, E>> + Unpin,
    B: Body + Unpin,
    B::Data: Part + Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if turn::is_over() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        turn::step();
        let call = self.get_mut();
        loop {
            let look = match &mut call.state {
                State::Answering { answer, respond } => {
                    ready!(poll_answer(answer, respond, call.unread_max, context))
                }
                State::Sending(sending) => return sending.poll(context),
            };
            match look {
                Look::Goes(state) => call.state = state,
                Look::Over => return Poll::Ready(()),
            }
        }
    }
}

fn poll_answer<F, B, E>(
    answer: &mut F,
    respond: &mut SendResponse<B::Data>,
    unread_max: Duration,
    context: &mut Context<'_>,
) -> Poll<Look<F, B>>
where
    F: Future<Output = Result<Response<B>, E>> + Unpin,
    B: Body,
{
    let Poll::Ready(answered) = Pin::new(answer).poll(context) else {
        // The client gave up: so do we. An error says the same of its connection.
        return respond.poll_reset(context).map(|_| Look::Over);
    };
    let Ok(response) = answered else {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return Poll::Ready(Look::Over);
    };
    let (mut head, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        head.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    let ends = body.is_end_stream();
    let pace = head.extensions.get::<Patient>().is_none().then(|| Pace::new(unread_max));
    let is_unhurried = head.extensions.get::<Unhurried>().is_some();
    Poll::Ready(match respond.send_response(Response::from_parts(head, ()), ends) {
        Ok(stream) if !ends => Look::Goes(State::Sending(Sending { stream, body, ahead: None, pace, is_unhurried })),
        // All is said, or the stream is gone.
        Ok(_) | Err(_) => Look::Over,
    })
}

impl<B> Sending<B>
where
    B: Body + Unpin,
    B::Data: Part,
{
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.ahead.is_some() {
                if !ready!(self.poll_ahead(context)) {
                    return Poll::Ready(());
                }
                continue;
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                if let Some(pace) = &mut self.pace {
                    pace.rest();
                }
                return self.stream.poll_reset(context).map(drop);
            };
            let sent = match frame {
                None => self.stream.send_data(B::Data::default(), true),
                Some(Err(_)) => {
                    self.stream.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(());
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.ahead = data.has_remaining().then_some(data);
                        continue;
                    }
                    Err(frame) => self.stream.send_trailers(frame.into_trailers().unwrap_or_default()),
                },
            };
            // A failure says that the stream is gone, and then so is the call.
            drop(sent);
            return Poll::Ready(());
        }
    }

    /// Hands to HTTP/2 what the client has room for, of what is ahead; `false` when the call is over.
    fn poll_ahead(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        let Some(room) = ready!(self.poll_room(context)) else { return Poll::Ready(false) };
        let mut data = self.ahead.take().expect("looked at by the caller");
        if let Some(pace) = &mut self.pace {
            pace.took(room.min(data.remaining()), self.is_unhurried);
        }
        if room < data.remaining() {
            let part = data.split_to(room);
            self.ahead = Some(data);
            return Poll::Ready(self.stream.send_data(part, false).is_ok());
        }
        let ends = self.body.is_end_stream();
        Poll::Ready(self.stream.send_data(data, ends).is_ok() && !ends)
    }

    /// Waits until the client's window has room, and gives how much; `None` when the stream is gone, or was given up.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Option<usize>> {
        let wanted = self.ahead.as_ref().map_or(0, Buf::remaining);
        self.stream.reserve_capacity(wanted);
        loop {
            match self.stream.capacity() {
                0 => {}
                room => return Poll::Ready(Some(room)),
            }
            match self.stream.poll_capacity(context) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(None),
                Poll::Pending if self.is_left_unread(context) => {
                    self.stream.send_reset(Reason::ENHANCE_YOUR_CALM);
                    return Poll::Ready(None);
                }
                Poll::Pending => return self.stream.poll_reset(context).map(|_| None),
            }
        }
    }

    /// Whether the client has taken too little for too long. Asked only where it has no room.
    fn is_left_unread(&mut self, context: &mut Context<'_>) -> bool {
        self.pace.as_mut().is_some_and(|pace| pace.is_over(context))
    }
}
