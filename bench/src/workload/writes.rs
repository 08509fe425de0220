//! Loads that write: plain puts, and updates in the way of an API server.

use anyhow::Result;
use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::kv_client::KvClient;
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tonic::Status;

use super::Sizes;
use super::key_space::{KeySpace, put_op, random_value};
use super::load::Callers;
use super::sizes::{OBJECT_KEYS, OBJECT_VALUE_BYTES, PUT_VALUE_BYTES};
use crate::closed_loop::Caller;
use crate::connections::{Connections, Wire};

/// Puts one value again and again, to any of the keys.
pub struct Put {
    client: KvClient<Wire>,
    keys: KeySpace,
    value: Bytes,
    random: StdRng,
}

impl Put {
    /// So many callers, each with a value of its own.
    pub fn callers(connections: &Connections, count: usize) -> Vec<Self> {
        let keys = KeySpace::new("puts", OBJECT_KEYS);
        let callers = (0..count).map(|number| {
            let mut random = StdRng::seed_from_u64(number as u64);
            let value = random_value(&mut random, PUT_VALUE_BYTES);
            Self { client: connections.kv(number), keys: keys.clone(), value, random }
        });
        callers.collect()
    }
}

impl Caller for Put {
    async fn call(&mut self) -> Result<(), Status> {
        let key = self.keys.random_key(&mut self.random);
        self.client.put(PutRequest { key, value: self.value.clone(), ..Default::default() }).await?;
        Ok(())
    }
}

/// Reads its own key and replaces the value if nobody did so in between: guaranteed update.
pub(super) struct Update {
    client: KvClient<Wire>,
    key: Bytes,
    value: Bytes,
}

impl Update {
    pub(super) async fn callers(connections: &Connections, sizes: &Sizes) -> Result<Callers<Self>> {
        let keys = KeySpace::new("updates", sizes.callers());
        keys.fill(connections, OBJECT_VALUE_BYTES).await?;
        let callers = (0..keys.keys).map(|number| {
            let value = random_value(&mut StdRng::seed_from_u64(number as u64), OBJECT_VALUE_BYTES);
            Self { client: connections.kv(number), key: keys.key(number), value }
        });
        Ok(Callers(callers.collect()))
    }
}

impl Caller for Update {
    async fn call(&mut self) -> Result<(), Status> {
        let get = RangeRequest { key: self.key.clone(), ..Default::default() };
        let found = self.client.range(get.clone()).await?.into_inner();
        let current = found.kvs.first().ok_or_else(|| Status::data_loss("the key to update is missing"))?;
        let unchanged = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: self.key.clone(),
            target_union: Some(TargetUnion::ModRevision(current.mod_revision)),
            ..Default::default()
        };
        let update = TxnRequest {
            compare: vec![unchanged],
            success: vec![put_op(self.key.clone(), self.value.clone())],
            failure: vec![RequestOp { request: Some(Request::RequestRange(get)) }],
        };
        let answer = self.client.txn(update).await?.into_inner();
        if answer.succeeded { Ok(()) } else { Err(Status::aborted("a key with one writer had changed")) }
    }
}
