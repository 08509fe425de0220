//! HTTP/2 connections against a client that is driven frame by frame.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Patient;
use super::accept::{Deadlines, Endpoint, ListenOptions, Listener};
use super::connection::BoxError;
use super::handshakes::Handshakes;
use super::limit::ConnectionLimit;
use super::request_body::RequestBody;
use super::request_room::RequestRooms;
use crate::config::{KeepaliveConfig, MetricsDetail, SocketConfig, Url};
use crate::metrics::Metrics;

/// Bytes of one piece of an endless body.
const PIECE_BYTES: usize = 1 << 10;

/// What the service saw.
#[derive(Default)]
struct Seen {
    /// Pieces that were taken of endless bodies.
    pieces: AtomicUsize,
    /// Answers that were given up before they came.
    given_up: AtomicUsize,
    /// Answers that took a while.
    slow: AtomicUsize,
}

/// `/echo` sends back what it got, with a trailer; `/slow` keeps its thread for a while; `/never` does not answer; `/endless`
/// never stops, and `/patient` neither, and waits.
#[derive(Clone)]
struct Script(Arc<Seen>);

enum Answer {
    Echo(Option<Bytes>, bool),
    Endless(Arc<Seen>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(match self.get_mut() {
            Self::Echo(body, trailed) => match body.take() {
                Some(body) => Some(Ok(Frame::data(body))),
                None if std::mem::replace(trailed, true) => None,
                None => {
                    let trailers = HeaderMap::from_iter([(http::header::ETAG, "end".parse().expect("a value"))]);
                    Some(Ok(Frame::trailers(trailers)))
                }
            },
            Self::Endless(seen) => {
                seen.pieces.fetch_add(1, Ordering::SeqCst);
                Some(Ok(Frame::data(Bytes::from_static(&[7; PIECE_BYTES]))))
            }
        })
    }
}

struct GivenUp(Arc<Seen>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.given_up.fetch_add(1, Ordering::SeqCst);
    }
}

impl tower_service::Service<Request<RequestBody>> for Script {
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let seen = self.0.clone();
        Box::pin(async move {
            match request.uri().path() {
                "/echo" => {
                    let body = request.into_body().collect().await?.to_bytes();
                    Ok(Response::new(Answer::Echo(Some(body), false)))
                }
                "/slow" => {
                    std::thread::sleep(Duration::from_micros(50));
                    seen.slow.fetch_add(1, Ordering::SeqCst);
                    Ok(Response::new(Answer::Echo(None, true)))
                }
                "/endless" => Ok(Response::new(Answer::Endless(seen))),
                "/patient" => {
                    let mut response = Response::new(Answer::Endless(seen));
                    response.extensions_mut().insert(Patient);
                    Ok(response)
                }
                "/fails" => Err("it fails".into()),
                _ => {
                    let _given_up = GivenUp(seen);
                    std::future::pending().await
                }
            }
        })
    }
}

struct Served {
    seen: Arc<Seen>,
    client: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
    stop: watch::Sender<bool>,
    listener: JoinHandle<()>,
}

async fn serve(
    keepalive: KeepaliveConfig,
    deadlines: Deadlines,
) -> (Arc<Seen>, std::net::SocketAddr, watch::Sender<bool>, JoinHandle<()>) {
    let options = ListenOptions {
        endpoint: Endpoint::Client,
        socket: SocketConfig::default(),
        keepalive,
        concurrent_streams_max: 1000,
        connections: ConnectionLimit::new(10),
        handshakes: Handshakes::for_threads(2),
        request_rooms: RequestRooms::new(1 << 20),
        deadlines,
        write_timeout: None,
        shutdown_grace: Duration::from_secs(5),
        cut_total: Metrics::new(MetricsDetail::Basic).listen_cut_total,
    };
    let url = Url::parse("http://127.0.0.1:0").expect("a URL");
    let listener = Listener::bind(&url, None, options).expect("bound");
    let address = listener.local_address().expect("a TCP address");
    let seen = Arc::new(Seen::default());
    let (stop, stopped) = watch::channel(false);
    let listener = tokio::spawn(listener.serve(Script(seen.clone()), stopped));
    (seen, address, stop, listener)
}

const NO_KEEPALIVE: KeepaliveConfig =
    KeepaliveConfig { client_interval_min: None, server_interval: None, server_timeout: None };

async fn connected() -> Served {
    connected_within(Deadlines::default()).await
}

async fn connected_within(deadlines: Deadlines) -> Served {
    let (seen, address, stop, listener) = serve(NO_KEEPALIVE, deadlines).await;
    let (client, connection) = connect(address).await;
    Served { seen, client, connection, stop, listener }
}

async fn connect(address: std::net::SocketAddr) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(address).await.expect("connected");
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    (client, tokio::spawn(connection))
}

fn request(path: &str) -> Request<()> {
    Request::get(format!("http://a{path}")).body(()).expect("a request")
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn calls_of_one_connection_are_answered_each_with_its_own() {
    let mut served = connected().await;
    let mut calls = Vec::new();
    for number in 0..200_usize {
        let (answer, mut body) = served.client.send_request(request("/echo"), false).expect("sent");
        // Some bodies are larger than a window, and arrive in parts.
        let sent = Bytes::from(vec![number as u8; if number % 50 == 0 { 3 << 20 } else { number }]);
        body.send_data(sent.clone(), true).expect("queued");
        // Each is read by itself: one that waited for another would hold the window that the other needs.
        calls.push(tokio::spawn(async move {
            let mut body = answer.await.expect("an answer").into_body();
            let mut received = Vec::new();
            while let Some(data) = body.data().await {
                let data = data.expect("data");
                body.flow_control().release_capacity(data.len()).expect("released");
                received.extend_from_slice(&data);
            }
            assert!(received == sent, "{} of {} bytes, or others", received.len(), sent.len());
            let trailers = body.trailers().await.expect("the end").expect("trailers");
            assert_eq!(trailers[http::header::ETAG], "end");
        }));
    }
    for call in calls {
        call.await.expect("answered");
    }
}

#[test]
fn one_connection_with_much_to_do_lets_others_have_their_turn() {
    const CALLS: usize = 400;
    // Sockets are looked at after every turn, as they nearly are in the program.
    let runtime = tokio::runtime::Builder::new_current_thread().event_interval(1).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let (seen, address, _stop, _listener) = serve(NO_KEEPALIVE, Deadlines::default()).await;
        let ((mut busy, _), (mut calm, _)) = (connect(address).await, connect(address).await);
        let send = |client: &mut SendRequest<Bytes>, path| client.send_request(request(path), true).expect("sent").0;
        // Settings have arrived when this is answered: so many calls at once are allowed.
        send(&mut busy, "/echo").await.expect("an answer");
        let slow: Vec<_> = (0..CALLS).map(|_| send(&mut busy, "/slow")).collect();
        while seen.slow.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        send(&mut calm, "/echo").await.expect("an answer");
        let done = seen.slow.load(Ordering::SeqCst);
        assert!(done < CALLS / 2, "{done} calls were before it");
        for answer in slow {
            answer.await.expect("an answer");
        }
        assert_eq!(seen.slow.load(Ordering::SeqCst), CALLS);
    });
}

#[tokio::test]
async fn a_call_that_is_reset_is_given_up() {
    let mut served = connected().await;
    let (answer, mut body) = served.client.send_request(request("/never"), true).expect("sent");
    // The server has seen it when it answered a later one.
    let (echo, _) = served.client.send_request(request("/echo"), true).expect("sent");
    echo.await.expect("an answer");
    assert_eq!(served.seen.given_up.load(Ordering::SeqCst), 0);
    body.send_reset(h2::Reason::CANCEL);
    drop(answer);
    until(|| served.seen.given_up.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn an_answer_that_fails_resets_its_call_only() {
    let mut served = connected().await;
    let (failing, _) = served.client.send_request(request("/fails"), true).expect("sent");
    assert_eq!(failing.await.expect_err("reset").reason(), Some(h2::Reason::INTERNAL_ERROR));
    let (echo, _) = served.client.send_request(request("/echo"), true).expect("sent");
    echo.await.expect("an answer");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_a_window_and_one_piece() {
    let mut served = connected().await;
    let (answer, _) = served.client.send_request(request("/endless"), true).expect("sent");
    let mut body = answer.await.expect("an answer").into_body();
    // The stream's first window, which nobody gives back.
    let mut received = 0;
    while received < 65_535 {
        received += body.data().await.expect("data").expect("data").len();
    }
    let (echo, _) = served.client.send_request(request("/echo"), true).expect("sent");
    echo.await.expect("other calls go on");
    let taken = served.seen.pieces.load(Ordering::SeqCst);
    assert!(taken * PIECE_BYTES <= received + 2 * PIECE_BYTES, "took {taken} pieces for {received} bytes");
    body.flow_control().release_capacity(received).expect("released");
    assert!(body.data().await.expect("more").is_ok());
}

#[tokio::test]
async fn an_answer_of_which_nothing_is_taken_is_given_up_and_one_that_is_patient_is_not() {
    let unread = Duration::from_millis(50);
    let mut served = connected_within(Deadlines { unread, ..Deadlines::default() }).await;
    let (patient, _) = served.client.send_request(request("/patient"), true).expect("sent");
    let mut patient = patient.await.expect("an answer").into_body();
    // The connection's window is 65,535 bytes: what the one takes the other cannot.
    let mut received = 0;
    while received < 60_000 {
        received += patient.data().await.expect("data").expect("data").len();
    }
    let (endless, _) = served.client.send_request(request("/endless"), true).expect("sent");
    let mut endless = endless.await.expect("an answer").into_body();
    let given_up = loop {
        match endless.data().await.expect("more, or an error") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(given_up.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
    patient.flow_control().release_capacity(received).expect("released");
    assert!(patient.data().await.expect("more").is_ok());
}

#[tokio::test]
async fn a_stop_lets_calls_end_and_takes_no_more() {
    let mut served = connected().await;
    let (answer, mut body) = served.client.send_request(request("/echo"), false).expect("sent");
    let (echo, _) = served.client.send_request(request("/echo"), true).expect("sent");
    echo.await.expect("an answer");
    served.stop.send(true).expect("the listener is there");
    body.send_data(Bytes::from_static(b"late"), true).expect("queued");
    let mut body = answer.await.expect("an answer").into_body();
    assert_eq!(body.data().await.expect("data").expect("data"), "late");
    drop(body);
    served.connection.await.expect("joined").expect("closed in peace");
    served.listener.await.expect("joined");
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_left() {
    let short = Some(Duration::from_millis(50));
    let keepalive = KeepaliveConfig { client_interval_min: None, server_interval: short, server_timeout: short };
    let (seen, address, _stop, _listener) = serve(keepalive, Deadlines::default()).await;
    let stream = TcpStream::connect(address).await.expect("connected");
    let (mut client, mut connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let (_answer, _) = client.send_request(request("/never"), true).expect("sent");
    // Driven until the request is out, and never again: pings find nobody.
    std::future::poll_fn(|context| {
        _ = Pin::new(&mut connection).poll(context);
        Poll::Ready(())
    })
    .await;
    until(|| seen.given_up.load(Ordering::SeqCst) == 1).await;
}
