//! Loads on leases: granting them and keeping them alive.

use anyhow::{Context, Result};
use basalt_proto::etcdserverpb::lease_client::LeaseClient;
use basalt_proto::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Sizes;
use super::load::Callers;
use crate::closed_loop::Caller;
use crate::connections::{Connections, Wire};

/// Longer than any run: nothing expires while it is measured.
const LEASE_TTL_SECONDS: i64 = 24 * 3600;

/// Grants leases; they stay.
pub(super) struct Grant {
    client: LeaseClient<Wire>,
}

impl Grant {
    pub(super) fn callers(connections: &Connections, sizes: &Sizes) -> Callers<Self> {
        Callers((0..sizes.callers()).map(|number| Self { client: connections.lease(number) }).collect())
    }
}

impl Caller for Grant {
    async fn call(&mut self) -> Result<(), Status> {
        grant(&mut self.client).await.map(|_| ())
    }
}

async fn grant(client: &mut LeaseClient<Wire>) -> Result<i64, Status> {
    let granted = client.lease_grant(LeaseGrantRequest { ttl: LEASE_TTL_SECONDS, id: 0 }).await?.into_inner();
    if granted.error.is_empty() { Ok(granted.id) } else { Err(Status::internal(granted.error)) }
}

/// Keeps its own lease alive over its own stream, one request after the other.
pub(super) struct KeepAlive {
    lease: i64,
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: Streaming<LeaseKeepAliveResponse>,
}

impl KeepAlive {
    pub(super) async fn callers(connections: &Connections, sizes: &Sizes) -> Result<Callers<Self>> {
        let mut callers = Vec::with_capacity(sizes.callers());
        for number in 0..sizes.callers() {
            callers.push(Self::open(connections.lease(number)).await.context("open a keepalive stream")?);
        }
        Ok(Callers(callers))
    }

    async fn open(mut client: LeaseClient<Wire>) -> Result<Self, Status> {
        let lease = grant(&mut client).await?;
        let (requests, stream) = mpsc::channel(1);
        // A server may withhold even the headers until the first request.
        send(&requests, lease).await?;
        let answers = client.lease_keep_alive(ReceiverStream::new(stream)).await?.into_inner();
        let mut opened = Self { lease, requests, answers };
        opened.receive().await?;
        Ok(opened)
    }

    async fn receive(&mut self) -> Result<(), Status> {
        let answer = self.answers.message().await?.ok_or_else(|| Status::unavailable("keepalive stream ended"))?;
        if answer.id == self.lease && answer.ttl > 0 { Ok(()) } else { Err(Status::not_found("the lease is gone")) }
    }
}

impl Caller for KeepAlive {
    async fn call(&mut self) -> Result<(), Status> {
        send(&self.requests, self.lease).await?;
        self.receive().await
    }
}

async fn send(requests: &mpsc::Sender<LeaseKeepAliveRequest>, id: i64) -> Result<(), Status> {
    let sent = requests.send(LeaseKeepAliveRequest { id }).await;
    sent.map_err(|_| Status::unavailable("keepalive stream closed"))
}
