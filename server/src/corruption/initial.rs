//! The check of a start (etcd `corruptionChecker.InitialCheck`).

use std::time::Duration;

use basalt_storage::hashes::HashKv;
use thiserror::Error;
use tracing::{info, warn};

use super::Answer;
use crate::node::handle::{NodeHandle, Unavailable};
use crate::peer::Peers;

/// Why a start goes no further.
#[derive(Debug, Error)]
pub enum Inconsistent {
    /// etcd's words, and what to do.
    #[error(
        "{member:x} found data inconsistency with peers; if all others agree with each other, give this member their data: \
         basaltctl reseed"
    )]
    Differs {
        /// This member.
        member: u64,
    },
    /// The own hash cannot be computed.
    #[error("{member:x} failed to fetch hash")]
    NoHash {
        /// This member.
        member: u64,
        /// Why.
        #[source]
        cause: Unavailable,
    },
}

/// Compares all of this member's data with that of every other one that answers within `timeout`.
///
/// # Errors
/// [`Inconsistent`]: at least one has other data at the same revision.
pub async fn initial_check(node: &NodeHandle, peers: &Peers, timeout: Duration) -> Result<(), Inconsistent> {
    let member = node.identity.member_id;
    info!(
        local_member_id = format_args!("{member:x}"),
        timeout_ms = timeout.as_millis() as u64,
        "starting initial corruption check"
    );
    let own = node.hash_kv(0).await.map_err(|cause| Inconsistent::NoHash { member, cause })?;
    let answers = peers.hashes_of_others(own.revision, timeout).await;
    if answers.iter().filter(|answer| differs(&own, answer)).count() > 0 {
        return Err(Inconsistent::Differs { member });
    }
    info!(local_member_id = format_args!("{member:x}"), "initial corruption checking passed; no corruption");
    Ok(())
}

/// Whether an answer proves that the data differs.
fn differs(own: &HashKv, (member, answer): &Answer) -> bool {
    let remote_peer_id = format_args!("{member:x}");
    match answer {
        Ok(theirs) if theirs.hash == own.hash => false,
        Ok(theirs) if theirs.compact_revision == own.compact_revision => {
            warn!(
                remote_peer_id,
                local_member_revision = own.revision,
                local_member_compact_revision = own.compact_revision,
                local_member_hash = own.hash,
                remote_peer_hash = theirs.hash,
                "found different hash values from remote peer"
            );
            true
        }
        Ok(theirs) => {
            warn!(
                remote_peer_id,
                local_member_compact_revision = own.compact_revision,
                remote_peer_compact_revision = theirs.compact_revision,
                "found different compact revision values from remote peer"
            );
            false
        }
        // Not there, slower than this one, or so far ahead that it has no hash of this revision any more.
        Err(status) => {
            warn!(
                remote_peer_id,
                local_member_revision = own.revision,
                error = status.message(),
                "cannot fetch hash from remote peer"
            );
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::etcdserverpb::HashKvResponse;

    use super::*;

    #[test]
    fn only_another_hash_under_the_same_compact_revision_proves_anything() {
        let own = HashKv { hash: 1, compact_revision: 5, revision: 9 };
        let answer = |hash, compact_revision| {
            (7, Ok(HashKvResponse { hash, compact_revision, hash_revision: 9, ..HashKvResponse::default() }))
        };
        assert!(!differs(&own, &answer(1, 5)));
        assert!(!differs(&own, &answer(1, 4)));
        assert!(differs(&own, &answer(2, 5)));
        assert!(!differs(&own, &answer(2, 6)));
        assert!(!differs(&own, &(7, Err(tonic::Status::unavailable("not there")))));
    }
}
