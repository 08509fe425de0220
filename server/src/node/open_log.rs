//! Opening the log that belongs to a manifest, and what Raft sees of it.

use basalt_storage::checkpoint::recovery::{self, Opened};
use basalt_storage::disk::Disk;
use basalt_storage::job::{BUDGET_UNLIMITED, run};
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::planted::{Bug, is_planted};
use basalt_storage::wal::{Identity, Log, LogOptions, Record, Recovered, Recovery, WalError};
use raft::prelude::{ConfState, Entry, EntryType, HardState};
use tracing::warn;

use super::log_store::LogStore;
use super::start_error::StartError;

/// Opens the log that belongs to the manifest. A directory whose birth was interrupted has none yet.
///
/// # Errors
/// [`StartError`]; nothing was lost.
pub fn open_log(
    disk: &dyn Disk,
    opened: &Opened,
    options: LogOptions,
    salt_seed: u64,
) -> Result<Recovered, StartError> {
    let manifest = opened.checkpointer.manifest();
    let identity =
        Identity { cluster: manifest.cluster_id, member: manifest.member_id, incarnation: manifest.incarnation };
    let mut recovery = Recovery::new(Some(identity), options, salt_seed);
    let mut recovered = match run(&mut recovery, disk, BUDGET_UNLIMITED) {
        Err(WalError::NotCreated) if manifest.generation == recovery::GENERATION_WITHOUT_LOG => {
            // An imported state goes on behind the log that it came from.
            let (index, term) = (manifest.applied_index, manifest.applied_term);
            let mut create = Log::create_after(identity, index, term, options, salt_seed);
            run(&mut create, disk, BUDGET_UNLIMITED)?
        }
        other => other?,
    };
    if recovered.newest_manifest_generation > manifest.generation {
        let known = recovered.newest_manifest_generation;
        return Err(StartError::ManifestLost { known, found: manifest.generation });
    }
    if recovered.previous_index > manifest.applied_index {
        let (log, checkpoint) = (recovered.previous_index, manifest.applied_index);
        return Err(StartError::LogGap { log, checkpoint });
    }
    let applied = LogPosition { index: manifest.applied_index, term: manifest.applied_term };
    if !holds(&recovered, applied) {
        if !manifest.log_restarts {
            let last = recovered.entries.last().map_or(recovered.previous_index, |entry| entry.index);
            return Err(StartError::LogBehind { log: last, checkpoint: applied.index });
        }
        restart_log(disk, &mut recovered, applied, manifest.generation)?;
    }
    if let basalt_storage::wal::EndReason::TornTail { segment, offset } = recovered.end_reason {
        warn!(segment, offset, "the log ended in a batch that was never acknowledged; it was cut off");
    }
    Ok(recovered)
}

/// Whether an entry stands in a log, or right before it.
fn holds(recovered: &Recovered, position: LogPosition) -> bool {
    let before = LogPosition { index: recovered.previous_index, term: recovered.previous_term };
    let at = |entry: &basalt_storage::wal::Entry| LogPosition { index: entry.index, term: entry.term };
    before == position || recovered.entries.iter().map(at).any(|entry| entry == position)
}

/// The state came whole from another member, and the node stopped before the log followed.
fn restart_log(
    disk: &dyn Disk,
    recovered: &mut Recovered,
    applied: LogPosition,
    generation: u64,
) -> Result<(), WalError> {
    let LogPosition { index, term } = applied;
    recovered.log.append(vec![Record::StartAfter { index, term }], generation)?;
    let mut batch = recovered.log.start_batch().expect("something was appended");
    let durable = run(&mut batch, disk, BUDGET_UNLIMITED)?;
    recovered.log.finish_batch(&durable);
    recovered.entries.clear();
    (recovered.previous_index, recovered.previous_term) = (index, term);
    Ok(())
}

/// The log as Raft wants it. The commit index is durable one append late; what is checkpointed was committed.
pub fn log_store(recovered: &Recovered, conf_state: ConfState, applied: u64) -> LogStore {
    let entry = |entry: &basalt_storage::wal::Entry| Entry {
        index: entry.index,
        term: entry.term,
        entry_type: match entry.kind {
            1 => EntryType::EntryConfChange as i32,
            2 => EntryType::EntryConfChangeV2 as i32,
            _ => EntryType::EntryNormal as i32,
        },
        data: entry.data.to_vec(),
        ..Entry::default()
    };
    let state = &recovered.hard_state;
    let commit = state.commit.max(applied);
    let vote = if is_planted(Bug::VoteForgotten) { 0 } else { state.vote };
    let before = (recovered.previous_index, recovered.previous_term);
    let mut entries: Vec<Entry> = recovered.entries.iter().map(entry).collect();
    if is_planted(Bug::LastEntryForgotten) {
        entries.pop();
    }
    let last = entries.last().map_or(before.0, |entry| entry.index);
    let commit = if is_planted(Bug::LastEntryForgotten) { commit.min(last) } else { commit };
    LogStore::new(before, entries, HardState { term: state.term, vote, commit }, conf_state)
}
