//! A whole state on its way to another member.

use std::sync::Arc;
use std::time::Duration;

use basalt_proto::peer::snapshot_request::Kind;
use basalt_proto::peer::{SnapshotOpening, SnapshotPart, SnapshotPositionRequest, SnapshotRequest};
use basalt_storage::revision::Revision;
use bytes::Bytes;
use raft::prelude::Message;
use raft_prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{info, warn};

use super::connect::PeerConnector;
use super::frame::{Introduction, PartChecksum};
use super::meters::StateMeters;
use crate::node::handle::Unavailable;
use crate::node::readers::Readers;
use crate::transfer::{MemberSnapshot, SnapshotStream};

/// Streams that are tried before the node is told that the way ended.
const ATTEMPTS_MAX: u32 = 5;
/// Pause after the first that failed; then it doubles.
const BACKOFF: Duration = Duration::from_millis(200);
/// A receiver that takes nothing for so long is given up: it may have stopped.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the receiver may take to make the last of it durable, and Raft there to take it.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(300);
/// Revisions read in one go.
const READ_BUDGET: usize = 1024;
/// Parts ahead of what the connection takes.
const PARTS_AHEAD: usize = 2;

/// What the way to a member needs.
pub(super) struct Departure {
    pub(super) introduction: Introduction,
    pub(super) urls: Vec<String>,
    /// Where this member is reached.
    pub(super) own_urls: Vec<String>,
    pub(super) connector: PeerConnector,
    pub(super) readers: Readers,
    /// Bytes in a second, at most: what others do must not wait for it.
    pub(super) bytes_per_second: u64,
    /// Drawn for this state.
    pub(super) snapshot_id: u64,
    pub(super) meters: StateMeters,
}

impl Departure {
    /// Sends all of it, in as many streams as that takes; says whether it arrived.
    pub(super) async fn run(self, message: Message, snapshot: Arc<MemberSnapshot>) -> bool {
        let member_id = self.introduction.to;
        let index = snapshot.position().index;
        let began = Instant::now();
        info!(member_id = format_args!("{member_id:x}"), index, "sending the whole state to a member");
        for attempt in 0..ATTEMPTS_MAX {
            let url = &self.urls[attempt as usize % self.urls.len()];
            match self.stream(url, &message, &snapshot).await {
                Ok(bytes) => {
                    let seconds = began.elapsed().as_secs_f64();
                    info!(member_id = format_args!("{member_id:x}"), index, bytes, seconds, "the state arrived");
                    self.meters.arrived();
                    return true;
                }
                Err(error) => {
                    warn!(
                        member_id = format_args!("{member_id:x}"),
                        url, index, error, "sending the state was cut off"
                    );
                }
            }
            sleep(BACKOFF * 2u32.pow(attempt)).await;
        }
        false
    }

    /// One stream, from where the one before ended; gives how many bytes it brought.
    async fn stream(&self, url: &str, message: &Message, snapshot: &Arc<MemberSnapshot>) -> Result<u64, String> {
        let mut client = self.connector.connect(url).await?;
        let question =
            SnapshotPositionRequest { cluster_id: self.introduction.cluster_id, snapshot_id: self.snapshot_id };
        let position = timeout(STALL_TIMEOUT, client.snapshot_position(question)).await.map_err(|_| "no answer")?;
        let position = position.map_err(|status| status.message().to_owned())?.into_inner();
        let last = Revision::new(position.main, position.sub);
        let after = Some(last).filter(|last| position.known && *last != Revision::default());

        let (parts, outbox) = mpsc::channel(PARTS_AHEAD);
        let opening = SnapshotOpening {
            hello: Some(self.introduction.hello_message(&self.own_urls)),
            snapshot_id: self.snapshot_id,
            message: message.encode_to_vec().into(),
        };
        parts.try_send(SnapshotRequest { kind: Some(Kind::Opening(opening)) }).map_err(|error| error.to_string())?;
        let answer = client.snapshot(ReceiverStream::new(outbox));
        let sending = self.send_parts(snapshot.stream(after), parts);
        // The answer may come before the end: a refusal.
        tokio::pin!(answer, sending);
        let sent = tokio::select! {
            early = &mut answer => {
                return match early {
                    Err(status) => Err(status.message().to_owned()),
                    Ok(_) => Err("an answer before the end".to_owned()),
                };
            }
            sent = &mut sending => sent,
        };
        match timeout(INSTALL_TIMEOUT, answer).await {
            Ok(Ok(_)) => sent,
            Ok(Err(status)) => Err(status.message().to_owned()),
            Err(_) => Err("it did not say in time that it has all".to_owned()),
        }
    }

    async fn send_parts(
        &self,
        mut stream: SnapshotStream,
        parts: mpsc::Sender<SnapshotRequest>,
    ) -> Result<u64, String> {
        let (mut checksum, mut bytes, began) = (PartChecksum::new(self.snapshot_id), 0, Instant::now());
        loop {
            let (rest, chunk) = self.read(stream).await.map_err(|error| error.to_string())?;
            stream = rest;
            let Some(chunk) = chunk else { return Ok(bytes) };
            bytes += chunk.len() as u64;
            self.meters.part(chunk.len());
            let crc = checksum.add(&chunk);
            let part = SnapshotRequest { kind: Some(Kind::Part(SnapshotPart { chunk, crc })) };
            let sent = timeout(STALL_TIMEOUT, parts.send(part)).await;
            sent.map_err(|_| "it takes nothing any more")?.map_err(|_| "the stream ended")?;
            let earliest = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
            sleep(earliest.saturating_sub(began.elapsed())).await;
        }
    }

    /// The next chunk, read on a read thread.
    async fn read(&self, mut stream: SnapshotStream) -> Result<(SnapshotStream, Option<Bytes>), Unavailable> {
        let read = self.readers.submit(move |disk| {
            let chunk = crate::node::readers::run_through(&mut stream.next_chunk(), disk, READ_BUDGET)?;
            Ok((stream, chunk))
        });
        read.await.map_err(|_| Unavailable::Stopped)?
    }
}
