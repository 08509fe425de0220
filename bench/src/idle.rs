//! What connections cost that do nothing: memory of a server for each client that has asked once and waits since.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use basalt_proto::etcdserverpb::RangeRequest;
use bytes::Bytes;
use clap::Args;
use h2::client::SendRequest;
use http::{Request, Version, header};
use prost::Message;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::access::Access;
use crate::server_process::{ServerKind, ServerProcess, ServerProgram, side_names};

/// For one connection and its answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Opened at a time: below what the servers let wait for accept.
const OPENED_AT_ONCE: usize = 64;

/// A connection: the task that drives it, and what would open the next call, without which the client says goodbye.
type Held = (JoinSet<Result<(), h2::Error>>, SendRequest<Bytes>);

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
            let program = ServerProgram {
                kind: ServerKind::Etcd(binary.clone()),
                flags: Vec::new(),
                access: Access::Open,
                data_root,
            };
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
async fn open_idle(target: &str, count: usize) -> Result<Vec<Held>> {
    let mut open = Vec::with_capacity(count);
    while open.len() < count {
        let mut opening = JoinSet::new();
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

/// Connects, gets a key, and reads the answer to its end. What is given back holds the connection until it is dropped.
async fn ask_once(target: &str) -> Result<Held> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let (calls, connection) = h2::client::handshake(stream).await?;
    let mut held = JoinSet::new();
    held.spawn(connection);
    let request = Request::post(format!("http://{target}/etcdserverpb.KV/Range"))
        .version(Version::HTTP_2)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::USER_AGENT, "grpc-go/1.79.3")
        .header(header::TE, "trailers")
        .body(())?;
    let mut calls = calls.ready().await?;
    let (answer, mut message) = calls.send_request(request, false)?;
    message.send_data(framed(&RangeRequest { key: b"idle".to_vec().into(), ..Default::default() })?, true)?;
    let mut answer = answer.await?.into_body();
    while let Some(data) = answer.data().await {
        answer.flow_control().release_capacity(data?.len())?;
    }
    let trailers = answer.trailers().await?.context("no trailers")?;
    ensure!(trailers.get("grpc-status").is_some_and(|status| status == "0"), "refused: {trailers:?}");
    Ok((held, calls))
}

/// A message as gRPC sends it.
fn framed(message: &impl Message) -> Result<Bytes> {
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.encoded_len())?.to_be_bytes());
    message.encode(&mut frame)?;
    Ok(frame.into())
}
