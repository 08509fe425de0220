//! Loads that read: one key, whole lists, counts.

use anyhow::Result;
use basalt_proto::etcdserverpb::RangeRequest;
use basalt_proto::etcdserverpb::kv_client::KvClient;
use bytes::{BufMut, Bytes, BytesMut};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tonic::Status;

use super::Sizes;
use super::key_space::KeySpace;
use super::load::Callers;
use super::sizes::{LIST_VALUE_BYTES, OBJECT_KEYS, OBJECT_VALUE_BYTES, PAGE_KEYS, PUT_VALUE_BYTES};
use crate::closed_loop::Caller;
use crate::connections::{Connections, Wire};

/// Gets any of the keys.
pub(super) struct Get {
    client: KvClient<Wire>,
    keys: KeySpace,
    serializable: bool,
    random: StdRng,
}

impl Get {
    pub(super) async fn callers(connections: &Connections, sizes: &Sizes, serializable: bool) -> Result<Callers<Self>> {
        let keys = KeySpace::new("gets", OBJECT_KEYS);
        keys.fill(connections, OBJECT_VALUE_BYTES).await?;
        let callers = (0..sizes.callers()).map(|number| {
            let random = StdRng::seed_from_u64(number as u64);
            Self { client: connections.kv(number), keys: keys.clone(), serializable, random }
        });
        Ok(Callers(callers.collect()))
    }
}

impl Caller for Get {
    async fn call(&mut self) -> Result<(), Status> {
        let key = self.keys.random_key(&mut self.random);
        let get = RangeRequest { key, serializable: self.serializable, ..Default::default() };
        let answer = self.client.range(get).await?.into_inner();
        expect_keys(answer.kvs.len(), 1)
    }
}

/// Reads all keys in pages at one revision: a list of an API server that was told to page.
pub(super) struct ListPages {
    client: KvClient<Wire>,
    keys: KeySpace,
}

impl ListPages {
    pub(super) async fn callers(connections: &Connections, sizes: &Sizes) -> Result<Callers<Self>> {
        let keys = filled_list(connections, sizes).await?;
        let callers = (0..sizes.list_callers()).map(|n| Self { client: connections.kv(n), keys: keys.clone() });
        Ok(Callers(callers.collect()))
    }
}

impl Caller for ListPages {
    async fn call(&mut self) -> Result<(), Status> {
        let (key, range_end) = self.keys.range();
        let mut page = RangeRequest { key, range_end, limit: PAGE_KEYS as i64, ..Default::default() };
        let mut found = 0;
        loop {
            let answer = self.client.range(page.clone()).await?.into_inner();
            found += answer.kvs.len();
            let (Some(last), true) = (answer.kvs.last(), answer.more) else { break };
            page.key = key_after(&last.key);
            page.revision = if page.revision == 0 { revision_of(answer.header.as_ref())? } else { page.revision };
        }
        expect_keys(found, self.keys.keys)
    }
}

/// Reads all keys as one stream.
pub(super) struct ListStream {
    client: KvClient<Wire>,
    keys: KeySpace,
}

impl ListStream {
    pub(super) async fn callers(connections: &Connections, sizes: &Sizes) -> Result<Callers<Self>> {
        let keys = filled_list(connections, sizes).await?;
        let callers = (0..sizes.list_callers()).map(|n| Self { client: connections.kv(n), keys: keys.clone() });
        Ok(Callers(callers.collect()))
    }
}

impl Caller for ListStream {
    async fn call(&mut self) -> Result<(), Status> {
        let (key, range_end) = self.keys.range();
        let request = RangeRequest { key, range_end, ..Default::default() };
        let mut answers = self.client.range_stream(request).await?.into_inner();
        let mut found = 0;
        while let Some(answer) = answers.message().await? {
            found += answer.range_response.map_or(0, |part| part.kvs.len());
        }
        expect_keys(found, self.keys.keys)
    }
}

/// Counts all keys without reading them.
pub(super) struct Count {
    client: KvClient<Wire>,
    keys: KeySpace,
}

impl Count {
    pub(super) async fn callers(connections: &Connections, sizes: &Sizes) -> Result<Callers<Self>> {
        let keys = KeySpace::new("counted", sizes.count_keys());
        keys.fill(connections, PUT_VALUE_BYTES).await?;
        let callers = (0..sizes.list_callers()).map(|n| Self { client: connections.kv(n), keys: keys.clone() });
        Ok(Callers(callers.collect()))
    }
}

impl Caller for Count {
    async fn call(&mut self) -> Result<(), Status> {
        let (key, range_end) = self.keys.range();
        let count = RangeRequest { key, range_end, count_only: true, ..Default::default() };
        let answer = self.client.range(count).await?.into_inner();
        expect_keys(usize::try_from(answer.count).unwrap_or(0), self.keys.keys)
    }
}

async fn filled_list(connections: &Connections, sizes: &Sizes) -> Result<KeySpace> {
    let keys = KeySpace::listed(sizes.list_keys());
    keys.fill(connections, LIST_VALUE_BYTES).await?;
    Ok(keys)
}

fn expect_keys(found: usize, expected: usize) -> Result<(), Status> {
    if found == expected {
        return Ok(());
    }
    Err(Status::data_loss(format!("{found} keys instead of {expected}")))
}

fn revision_of(header: Option<&basalt_proto::etcdserverpb::ResponseHeader>) -> Result<i64, Status> {
    header.map(|header| header.revision).ok_or_else(|| Status::data_loss("an answer without header"))
}

/// The least key above `key`.
fn key_after(key: &Bytes) -> Bytes {
    let mut after = BytesMut::with_capacity(key.len() + 1);
    after.extend_from_slice(key);
    after.put_u8(0);
    after.freeze()
}
