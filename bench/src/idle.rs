//! What connections cost that do nothing: memory of a server for each client that has asked once and waits since.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use basalt_proto::etcdserverpb::RangeRequest;
use clap::Args;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::server_process::{ServerKind, ServerProcess, ServerProgram, side_names};

/// For one connection and its answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Opened at a time: below what the servers let wait for accept.
const OPENED_AT_ONCE: usize = 64;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD_BYTES: usize = 9;
const FRAME_BYTES_MAX: usize = 16 << 10;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What the command line says.
#[derive(Args, Debug)]
pub struct IdleArgs {
    /// The server to compare with
    #[arg(long, value_name = "BIN")]
    left: PathBuf,
    /// The server to judge
    #[arg(long, value_name = "BIN")]
    right: PathBuf,
    /// Connections to each server; this program needs a descriptor for each, and so does the server
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    connections: u64,
    /// Seconds of rest before memory is looked at
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(0..=600))]
    rest: u64,
    /// Where the servers' temporary folders are made [default: the system's]
    #[arg(long, value_name = "FOLDER")]
    data_root: Option<PathBuf>,
}

impl IdleArgs {
    /// Measures one server after the other, and prints the table.
    ///
    /// # Errors
    /// A server cannot be started, or does not answer.
    pub async fn run(self) -> Result<bool> {
        let names = side_names(&self.left, &self.right);
        let mut bytes = [0.0; 2];
        println!(
            "| server | connections | resident before | with all of them | for each |\n| --- | --- | --- | --- | --- |"
        );
        for (side, binary) in [&self.left, &self.right].into_iter().enumerate() {
            let data_root = self.data_root.clone().unwrap_or_else(std::env::temp_dir);
            let program = ServerProgram { kind: ServerKind::Etcd(binary.clone()), flags: Vec::new(), data_root };
            let server = ServerProcess::start(&program).await?;
            let target = server.endpoint().trim_start_matches("http://").to_owned();
            // The first call makes room that every server needs.
            drop(open_idle(&target, 1).await?);
            sleep(Duration::from_secs(self.rest)).await;
            let before = server.process().memory()?.resident_bytes;
            let held = open_idle(&target, self.connections as usize).await?;
            sleep(Duration::from_secs(self.rest)).await;
            let after = server.process().memory()?.resident_bytes;
            bytes[side] = after.saturating_sub(before) as f64 / held.len() as f64;
            println!(
                "| {} | {} | {:.1} MiB | {:.1} MiB | {:.1} KiB |",
                names[side],
                held.len(),
                mebibytes(before),
                mebibytes(after),
                bytes[side] / 1024.0
            );
        }
        println!("\nratio of what each connection costs: {:.2}", bytes[1] / bytes[0]);
        Ok(true)
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Connections on each of which one get was answered.
async fn open_idle(target: &str, count: usize) -> Result<Vec<TcpStream>> {
    let mut open = Vec::with_capacity(count);
    while open.len() < count {
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..OPENED_AT_ONCE.min(count - open.len()) {
            let target = target.to_owned();
            opening.spawn(async move { timeout(ANSWER_MAX, ask_once(&target)).await });
        }
        while let Some(opened) = opening.join_next().await {
            let number = open.len();
            open.push(opened?.with_context(|| format!("connection {number} got no answer in {ANSWER_MAX:?}"))??);
        }
    }
    Ok(open)
}

/// Connects, gets a key, and reads the answer to its end.
async fn ask_once(target: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let body = RangeRequest { key: b"idle".to_vec().into(), ..Default::default() }.encode_to_vec();
    let mut message = vec![0];
    message.extend(u32::try_from(body.len())?.to_be_bytes());
    message.extend(body);
    let hello = [
        PREFACE.to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, END_HEADERS, 1, &request_head(target)),
        frame(DATA, END_STREAM, 1, &message),
    ];
    stream.write_all(&hello.concat()).await?;
    loop {
        let mut head = [0; FRAME_HEAD_BYTES];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
        stream.read_exact(&mut vec![0; length]).await?;
        match (head[3], head[4]) {
            (SETTINGS, flags) if flags & ACK == 0 => stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await?,
            (HEADERS, flags) if flags & END_STREAM != 0 => return Ok(stream),
            (DATA | HEADERS | SETTINGS | 6 | 8, _) => {}
            (kind, _) => bail!(io::Error::other(format!("a frame of kind {kind} in place of the answer"))),
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Headers of a get, each as a literal that no table keeps (RFC 7541, 6.2.2).
fn request_head(authority: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/etcdserverpb.KV/Range"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let text = |text: &str| [&[u8::try_from(text.len()).expect("below 127")], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}
