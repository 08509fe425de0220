//! The leader's comparison of what compactions hashed (etcd `corruptionChecker.CompactHashCheck`).
//!
//! Compactions are ordered by the log, and each leaves a hash of what it left: members compare without a walk over their data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use basalt_proto::etcdserverpb::{AlarmRequest, alarm_request};
use basalt_proto::log::request::Kind;
use basalt_storage::hashes::HashKv;
use tracing::{error, info, warn};

use super::Answer;
use crate::apply::alarms::AlarmKind;
use crate::apply::auth::check::cluster_principal;
use crate::node::handle::NodeHandle;
use crate::peer::Peers;

/// Compares, while it leads.
pub struct CompactHashChecker {
    node: Arc<NodeHandle>,
    peers: Arc<Peers>,
    /// How long one member may take.
    timeout: Duration,
    /// Of which revision all members are known to agree.
    checked: i64,
}

/// What the hashes of one revision say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// All members have the same.
    Equal,
    /// Those that can be compared have the same; an older revision may be known to more.
    Unknown,
    /// These differ from the majority; a 0 is for everybody, where there is none.
    Corrupt(Vec<u64>),
}

impl CompactHashChecker {
    /// For one node.
    pub fn new(node: Arc<NodeHandle>, peers: Arc<Peers>, timeout: Duration) -> Self {
        Self { node, peers, timeout, checked: 0 }
    }

    /// Looks every so often, for ever.
    pub async fn run(mut self, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            if self.node.gauges.leads.load(Ordering::Relaxed) {
                self.check().await;
            }
        }
    }

    /// The newest compaction that all members have hashed is what counts.
    async fn check(&mut self) {
        info!("starting compact hash check");
        let mut looked_at = 0;
        for own in self.node.compaction_hashes().into_iter().rev().filter(|hash| hash.revision > self.checked) {
            let answers = self.peers.hashes_of_others(own.revision, self.timeout).await;
            if answers.is_empty() {
                continue;
            }
            looked_at += 1;
            match judge(self.node.identity.member_id, &own, &answers) {
                Finding::Equal => {
                    self.checked = own.revision;
                    let (checked, revision) = (answers.len(), own.revision);
                    info!(number_of_peers_checked = checked, revision, "successfully checked hash on whole cluster");
                    break;
                }
                Finding::Unknown => {
                    warn!(
                        revision = own.revision,
                        "skipped revision in compaction hash check; was not able to check all peers"
                    );
                }
                Finding::Corrupt(members) => {
                    members.into_iter().for_each(|member| self.raise(member, &own));
                    break;
                }
            }
        }
        info!(number_of_hashes_checked = looked_at, "finished compaction hash check");
    }

    fn raise(&self, member: u64, own: &HashKv) {
        error!(
            member_id = format_args!("{member:x}"),
            leader_revision = own.revision,
            leader_compact_revision = own.compact_revision,
            leader_hash = own.hash,
            "Detected compaction hash mismatch"
        );
        let alarm = AlarmRequest {
            action: alarm_request::AlarmAction::Activate as i32,
            member_id: member,
            alarm: AlarmKind::Corrupt.number(),
        };
        match self.node.propose(Kind::Alarm(alarm), Some(cluster_principal())) {
            // It is found again at the next look, if it does not come to be.
            Ok(raised) => drop(tokio::spawn(raised)),
            Err(error) => warn!(%error, "the alarm cannot be raised now"),
        }
    }
}

/// What the own hash and the answers of all others come to.
pub fn judge(own_id: u64, own: &HashKv, answers: &[Answer]) -> Finding {
    let mut members: BTreeMap<u32, Vec<u64>> = BTreeMap::from([(own.hash, vec![own_id])]);
    let mut compared = 0;
    for (member, answer) in answers {
        match answer {
            Ok(theirs) if theirs.compact_revision == own.compact_revision => {
                members.entry(theirs.hash).or_default().push(*member);
                compared += 1;
            }
            Ok(theirs) => {
                let (theirs, own) = (theirs.compact_revision, own.compact_revision);
                warn!(
                    peer_id = format_args!("{member:x}"),
                    compact_revision = theirs,
                    leader = own,
                    "Skipped peer's hash"
                );
            }
            Err(status) => {
                warn!(peer_id = format_args!("{member:x}"), error = status.message(), "Skipped peer's hash");
            }
        }
    }
    if members.len() == 1 {
        return if compared == answers.len() { Finding::Equal } else { Finding::Unknown };
    }
    let quorum = answers.len().div_ceil(2) + 1;
    let majority = members.iter().find(|(_, members)| members.len() >= quorum).map(|(hash, _)| *hash);
    match majority {
        // Nobody knows who is right.
        None => Finding::Corrupt(vec![0]),
        Some(hash) => {
            members.remove(&hash);
            Finding::Corrupt(members.into_values().flatten().collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::etcdserverpb::HashKvResponse;

    use super::*;

    fn answer(member: u64, hash: u32, compact_revision: i64) -> Answer {
        (member, Ok(HashKvResponse { hash, compact_revision, ..HashKvResponse::default() }))
    }

    fn silent(member: u64) -> Answer {
        (member, Err(tonic::Status::unavailable("not there")))
    }

    #[test]
    fn the_minority_is_corrupt() {
        let own = HashKv { hash: 1, compact_revision: 3, revision: 8 };
        let finding = |answers: &[Answer]| judge(10, &own, answers);
        assert_eq!(finding(&[answer(11, 1, 3), answer(12, 1, 3)]), Finding::Equal);
        assert_eq!(finding(&[answer(11, 1, 3), silent(12)]), Finding::Unknown);
        assert_eq!(finding(&[answer(11, 1, 3), answer(12, 2, 4)]), Finding::Unknown);
        assert_eq!(finding(&[answer(11, 1, 3), answer(12, 2, 3)]), Finding::Corrupt(vec![12]));
        assert_eq!(finding(&[answer(11, 2, 3), answer(12, 2, 3)]), Finding::Corrupt(vec![10]));
        // Three opinions, or two of two, are no majority.
        assert_eq!(finding(&[answer(11, 2, 3), answer(12, 3, 3)]), Finding::Corrupt(vec![0]));
        assert_eq!(finding(&[answer(11, 2, 3)]), Finding::Corrupt(vec![0]));
        assert_eq!(finding(&[answer(11, 2, 3), silent(12)]), Finding::Corrupt(vec![0]));
        let five = [answer(11, 1, 3), answer(12, 1, 3), answer(13, 2, 3), answer(14, 5, 3)];
        assert_eq!(finding(&five), Finding::Corrupt(vec![13, 14]));
    }
}
