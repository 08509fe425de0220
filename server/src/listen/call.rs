//! One call over HTTP/2: its answer computed, then sent as the client takes it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderValue, Response, header};
use http_body::Body;

/// A call under way. Ends when all is handed to HTTP/2, when the client resets it, or when the answer fails.
///
/// `F` gives the answer, with a body `B`. Bodies are read one piece ahead of what the client's window has room for, so
/// that a client that does not read holds one message and not all.
pub(super) struct Call<F, B: Body> {
    state: State<F, B>,
}

enum State<F, B: Body> {
    Answering { answer: F, respond: SendResponse<B::Data> },
    Sending { stream: SendStream<B::Data>, body: B, ahead: Option<B::Data> },
}

/// What one look at a call came to.
enum Turn<F, B: Body> {
    Goes(State<F, B>),
    Over,
}

impl<F, B: Body> Call<F, B> {
    pub(super) fn new(answer: F, respond: SendResponse<B::Data>) -> Self {
        Self { state: State::Answering { answer, respond } }
    }
}

impl<F, B, E> Future for Call<F, B>
where
    F: Future<Output = Result<Response<B>, E>> + Unpin,
    B: Body + Unpin,
    B::Data: Default + Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let call = self.get_mut();
        loop {
            let turn = match &mut call.state {
                State::Answering { answer, respond } => ready!(poll_answer(answer, respond, context)),
                State::Sending { stream, body, ahead } => return poll_send(stream, body, ahead, context),
            };
            match turn {
                Turn::Goes(state) => call.state = state,
                Turn::Over => return Poll::Ready(()),
            }
        }
    }
}

fn poll_answer<F, B, E>(
    answer: &mut F,
    respond: &mut SendResponse<B::Data>,
    context: &mut Context<'_>,
) -> Poll<Turn<F, B>>
where
    F: Future<Output = Result<Response<B>, E>> + Unpin,
    B: Body,
{
    let Poll::Ready(answered) = Pin::new(answer).poll(context) else {
        // The client gave up: so do we. An error says the same of its connection.
        return respond.poll_reset(context).map(|_| Turn::Over);
    };
    let Ok(response) = answered else {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return Poll::Ready(Turn::Over);
    };
    let (mut head, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        head.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    let ends = body.is_end_stream();
    Poll::Ready(match respond.send_response(Response::from_parts(head, ()), ends) {
        Ok(stream) if !ends => Turn::Goes(State::Sending { stream, body, ahead: None }),
        // All is said, or the stream is gone.
        Ok(_) | Err(_) => Turn::Over,
    })
}

fn poll_send<B>(
    stream: &mut SendStream<B::Data>,
    body: &mut B,
    ahead: &mut Option<B::Data>,
    context: &mut Context<'_>,
) -> Poll<()>
where
    B: Body + Unpin,
    B::Data: Default,
{
    loop {
        if ahead.is_some() {
            if !ready!(poll_room(stream, context)) {
                return Poll::Ready(());
            }
            let data = ahead.take().expect("looked at above");
            let ends = body.is_end_stream();
            if stream.send_data(data, ends).is_err() || ends {
                return Poll::Ready(());
            }
        }
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) else {
            return stream.poll_reset(context).map(drop);
        };
        let sent = match frame {
            None => stream.send_data(B::Data::default(), true),
            Some(Err(_)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Poll::Ready(());
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    *ahead = data.has_remaining().then_some(data);
                    continue;
                }
                Err(frame) => stream.send_trailers(frame.into_trailers().unwrap_or_default()),
            },
        };
        // A failure says that the stream is gone, and then so is the call.
        drop(sent);
        return Poll::Ready(());
    }
}

/// Waits until the client's window has room; `false` when the stream is gone.
fn poll_room<D: Buf>(stream: &mut SendStream<D>, context: &mut Context<'_>) -> Poll<bool> {
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        match stream.poll_capacity(context) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(false),
            Poll::Pending => return stream.poll_reset(context).map(|_| false),
        }
    }
    Poll::Ready(true)
}
