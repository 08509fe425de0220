//! `--force-new-cluster`: a member whose others are lost for good becomes a cluster of its own, with all that it has.
//!
//! What removes the others stands in the log like any change of members, behind all that is there: one batch, which ends with
//! the commit index behind it. So a crash leaves the log as it was, or the whole of it, and the next start applies it as it
//! applies all else.
//!
//! etcd drops what the log holds beyond its durable commit index (`server/etcdserver/bootstrap.go`). Here that index is
//! durable one append late, and any of these entries may have been acknowledged: they are kept, as by the only voter of a
//! cluster; but not from one on that would remove this very member.

use basalt_proto::log::member_change::Kind as Change;
use basalt_proto::log::request::Kind;
use basalt_proto::log::{LogEntry, MemberChange, MemberPromotion, Request};
use basalt_proto::nesting::decode_log_entry;
use basalt_storage::disk::Disk;
use basalt_storage::job::{BUDGET_UNLIMITED, run};
use basalt_storage::wal::{Entry, HardState, Record, Recovered};
use raft::prelude::EntryType;
use tracing::warn;

use super::core::{CoreError, change_data, context_of};
use super::node_thread::ID_NOBODY;
use super::start_error::StartError;
use crate::apply::known::LOG_FORMAT_VERSION;
use crate::apply::members::Members;

/// Where a node stands that is to go on alone.
#[derive(Clone, Copy, Debug)]
pub struct Survivor<'a> {
    /// Its id.
    pub member_id: u64,
    /// The members at the last checkpoint.
    pub members: &'a Members,
    /// The last entry in it.
    pub applied: u64,
    /// The manifest of that checkpoint, durable.
    pub generation: u64,
}

/// Removes all other members at the end of the log, and commits the whole of it; gives who is removed. A member that is alone
/// already is left as it is. A learner votes from then on.
///
/// # Errors
/// [`StartError::ForceNewCluster`] of a member that cannot be a cluster, [`StartError`] of a log that cannot be read or written.
pub fn force_new_cluster(
    disk: &dyn Disk,
    survivor: Survivor<'_>,
    recovered: &mut Recovered,
) -> Result<Vec<u64>, StartError> {
    let Survivor { member_id, members, applied, generation } = survivor;
    let committed = recovered.hard_state.commit.max(applied);
    let (members, kept) = members_after(members, member_id, &recovered.entries, applied, committed)?;
    if members.get(member_id).is_none() {
        return Err(StartError::ForceNewCluster("it was removed from its cluster"));
    }
    if members.voters().is_empty() {
        return Err(StartError::ForceNewCluster("it was to join a cluster, and was not brought its state yet"));
    }
    let others: Vec<u64> = members.iter().map(|member| member.id).filter(|id| *id != member_id).collect();
    let changes = changes(&members, member_id, &others);
    if changes.is_empty() && kept == recovered.entries.len() {
        return Ok(others);
    }
    let mut records = Vec::new();
    if let Some(dropped) = recovered.entries.get(kept) {
        warn!(index = dropped.index, "an entry that would have removed this member is dropped, and all behind it");
        records.push(Record::TruncateFrom { index: dropped.index });
        recovered.entries.truncate(kept);
    }
    let last = recovered.entries.last().map_or(recovered.previous_index, |entry| entry.index);
    let term = recovered.hard_state.term;
    let rules = members.apply_version();
    let entries: Vec<Entry> =
        (last + 1..).zip(changes).map(|(index, change)| entry(index, term, rules, change)).collect();
    let commit = entries.last().map_or(last, |entry| entry.index);
    records.extend(entries.iter().cloned().map(Record::Entry));
    let hard_state = HardState { commit, ..recovered.hard_state };
    records.push(Record::HardState(hard_state));

    recovered.log.append(records, generation)?;
    let mut batch = recovered.log.start_batch().expect("something was appended");
    let durable = run(&mut batch, disk, BUDGET_UNLIMITED)?;
    recovered.log.finish_batch(&durable);
    recovered.entries.extend(entries);
    recovered.hard_state = hard_state;
    Ok(others)
}

/// The members behind all of the log, and how many entries are kept for that: all up to the first that is not known as
/// committed and removes this member.
fn members_after(
    members: &Members,
    member_id: u64,
    entries: &[Entry],
    applied: u64,
    committed: u64,
) -> Result<(Members, usize), StartError> {
    let mut members = members.clone();
    for (number, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.index > applied) {
        let mut next = members.clone();
        changes_of(entry)?.iter().for_each(|change| next.follow(change));
        if entry.index > committed && next.is_removed(member_id) {
            return Ok((members, number));
        }
        members = next;
    }
    Ok((members, entries.len()))
}

/// The changes of members that an entry of the log asks for.
fn changes_of(entry: &Entry) -> Result<Vec<Change>, CoreError> {
    let index = entry.index;
    let data = match entry.kind {
        _ if entry.data.is_empty() => return Ok(Vec::new()),
        kind if kind == EntryType::EntryNormal as u8 => entry.data.clone(),
        kind if kind == EntryType::EntryConfChangeV2 as u8 => {
            context_of(&entry.data).map_err(|cause| CoreError::MalformedChange { index, cause })?.into()
        }
        // Of no release of ours; nothing is applied of it.
        _ => return Ok(Vec::new()),
    };
    let entry = decode_log_entry(data).map_err(|cause| CoreError::Malformed { index, cause })?;
    let change = |request: Request| match request.kind {
        Some(Kind::MemberChange(MemberChange { kind })) => kind,
        _ => None,
    };
    Ok(entry.requests.into_iter().filter_map(change).collect())
}

/// What makes this member the only one: it has to vote before the last other that does is gone.
fn changes(members: &Members, member_id: u64, others: &[u64]) -> Vec<Change> {
    let promotion = Change::Promote(MemberPromotion { id: member_id, behind: false });
    let promotion = members.is_learner(member_id).then_some(promotion);
    promotion.into_iter().chain(others.iter().map(|id| Change::Remove(*id))).collect()
}

fn entry(index: u64, term: u64, apply_version: u32, change: Change) -> Entry {
    let kind = Some(Kind::MemberChange(MemberChange { kind: Some(change) }));
    let entry = LogEntry {
        format_version: LOG_FORMAT_VERSION,
        apply_version,
        // Of no member and no time: nobody waits for it, and the entry before says when it is.
        requests: vec![Request { id: ID_NOBODY, principal: None, kind }],
        ..LogEntry::default()
    };
    let data = change_data(&entry).expect("it changes who votes or who gets entries").into();
    Entry { index, term, kind: EntryType::EntryConfChangeV2 as u8, data }
}

#[cfg(test)]
#[path = "force_new_cluster_tests.rs"]
mod tests;
