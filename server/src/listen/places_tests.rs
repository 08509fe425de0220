//! Who has a place among the connections, and for how long without a word.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::accept::{Deadlines, ListenOptions};
use super::tests::{Files, new_key, options, serve, serve_with, signed};
use super::tls::Tls;

#[tokio::test]
async fn connections_above_the_limit_are_closed_and_places_return() {
    let served = serve("http://127.0.0.1:0", None, 1);
    let mut first = TcpStream::connect(served.address).await.expect("connected");
    first.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    let mut answer = [0; 12];
    first.read_exact(&mut answer).await.expect("an answer");
    let mut second = TcpStream::connect(served.address).await.expect("in the backlog");
    let refused = second.read(&mut answer).await;
    assert!(matches!(refused, Ok(0) | Err(_)), "{refused:?}");
    drop(first);
    // The place returns when the server sees the end of the first one.
    loop {
        let mut third = TcpStream::connect(served.address).await.expect("connected");
        let _ = third.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        if third.read_exact(&mut answer).await.is_ok() {
            break;
        }
    }
}

#[tokio::test]
async fn silent_and_slow_clients_are_cut_at_the_deadline() {
    let files = Files::new(&new_key());
    let tls = Tls::load(files.tls(None)).expect("loaded");
    let deadline = Duration::from_millis(100);
    let options = ListenOptions {
        deadlines: Deadlines { handshake: deadline, first_bytes: deadline, ..Deadlines::default() },
        ..options(10)
    };
    let plain = serve_with("http://127.0.0.1:0", None, options.clone());
    let secure = serve_with("https://127.0.0.1:0", Some(&tls), options);
    let starts: [(SocketAddr, &[u8]); 4] =
        [(plain.address, b""), (plain.address, b"PRI * HTTP/2.0"), (plain.address, b"GET / HT"), (secure.address, b"")];
    for (address, sent) in starts {
        let since = Instant::now();
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(sent).await.expect("sent");
        // The end of the connection is what is waited for: without a deadline this never returns.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        assert!(since.elapsed() >= deadline, "{sent:?} took {:?}", since.elapsed());
    }
}

#[tokio::test]
async fn where_all_places_are_taken_the_silent_give_way_and_who_was_verified_does_not() {
    let files = Files::new(&new_key());
    let tls = Tls::load(files.tls(Some("ca.pem"))).expect("loaded");
    let silent = Duration::from_millis(50);
    let options = ListenOptions { deadlines: Deadlines { silent, ..Deadlines::default() }, ..options(1) };
    let served = serve_with("https://127.0.0.1:0", Some(&tls), options);
    let key = new_key();
    let (alice, pem) = (signed(&files.ca, "alice", 2, &key), key.serialize_pem());
    let alice = Some((&*alice, &*pem));
    let mut stranger = TcpStream::connect(served.address).await.expect("connected");
    // Each try is closed until the stranger has been silent for long enough.
    let answer = loop {
        if let Some(answer) = files.answers(served.address, alice).await {
            break answer;
        }
    };
    assert_eq!(answer, "HTTP/1.1 tls=true cn=Some(\"alice\")");
    let ended = stranger.read(&mut [0]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    // With a certificate the place is kept, said anything or not.
    let mut member = loop {
        if let Ok(member) = files.connect(served.address, &[], alice).await {
            break member;
        }
    };
    tokio::time::sleep(2 * silent).await;
    assert_eq!(files.answers(served.address, alice).await, None);
    member.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    member.read_exact(&mut [0; 12]).await.expect("an answer");
}
