//! What the node is told of the configuration.

use std::sync::Arc;

use thiserror::Error;

use super::texts;
use crate::auth::jwt::{JwtKeyError, JwtOptions, Method};
use crate::auth::{RotatingKeys, TokenKind};
use crate::config::{AuthConfig, AuthToken, Config};
use crate::memory::MemoryShares;
use crate::node::content::SNAPSHOT_UNREAD_MAX;
use crate::node::handle::Limits;
use crate::node::start::{First, NodeConfig};

pub(super) fn memory_shares(config: &Config) -> MemoryShares {
    config.memory_limit.map_or_else(MemoryShares::of_process, MemoryShares::of)
}

pub(super) fn node_config(config: &Config, first: First) -> Result<NodeConfig, TokenKindError> {
    Ok(NodeConfig {
        data_dir: config.data_dir.clone(),
        wal_dir: config.wal_dir.clone(),
        first,
        shard_map: config.initial_shards.clone(),
        heartbeat_interval: config.raft.heartbeat_interval,
        election_timeout: config.raft.election_timeout(),
        sweep_pause: config.compaction.sleep_interval,
        sweep_batch: config.compaction.batch_limit,
        hash_mark_interval: config.corrupt_check_time,
        slow_apply: config.slow_request.apply,
        memory: memory_shares(config),
        limits: Limits {
            request_bytes_max: config.limits.request_bytes_max,
            txn_operations_max: config.limits.txn_ops_max,
            quota_bytes: config.limits.quota_bytes,
            lease_ttl_min: config.raft.lease_ttl_min(),
            snapshot_unread: SNAPSHOT_UNREAD_MAX,
        },
        progress_notify_interval: config.watch_progress_notify_interval,
        pre_vote: config.raft.pre_vote,
        peer_urls: texts(&config.peer.advertise_urls),
        catchup_entries: config.raft.snapshot_catchup_entries,
        force_new_cluster: config.peer.force_new_cluster,
        tokens: tokens(&config.auth)?,
    })
}

fn tokens(config: &AuthConfig) -> Result<TokenKind, TokenKindError> {
    Ok(match &config.token {
        AuthToken::Simple => TokenKind::Simple { life: config.token_ttl },
        AuthToken::Jwt { method, private_key, public_key, life } => {
            let unknown = || TokenKindError::Method { name: method.clone() };
            let options = JwtOptions {
                method: Method::of_name(method).ok_or_else(unknown)?,
                private_key: private_key.clone(),
                public_key: public_key.clone(),
                life: *life,
            };
            TokenKind::Jwt(Arc::new(RotatingKeys::read(options)?))
        }
        AuthToken::None => TokenKind::None,
    })
}

/// Why there are no tokens of the kind that is asked for.
#[derive(Debug, Error)]
pub(super) enum TokenKindError {
    #[error(
        "--auth-token: there is no sign-method {name:?}; use HS256, RS256, PS256, ES256, one of these with 384 or 512, or EdDSA"
    )]
    Method { name: String },
    #[error(transparent)]
    Key(#[from] JwtKeyError),
}
