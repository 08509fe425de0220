//! The whole directory, file by file.

use thiserror::Error;

use crate::checkpoint::manifest::{MANIFEST_NAME, Manifest, ManifestError, ManifestFound, ShardManifest, read_job};
use crate::checkpoint::recovery::{GENERATION_WITHOUT_LOG, RecoveryError, first_remains, is_ours, list, load_system};
use crate::checkpoint::{PAGES_DIRECTORY, RUNS_DIRECTORY, page_file_name};
use crate::disk::Disk;
use crate::job::{BUDGET_UNLIMITED, run};
use crate::mvcc::shard_map::ShardMap;
use crate::mvcc::view::LogPosition;
use crate::runs::run_name;
use crate::wal::{EndReason, Identity, Inspected, WalError, inspect};

use super::finding::{Finding, Observer, Severity, causes};
use super::shard_check::{ShardCheck, ShardChecked, check_runs};

const LOG: &str = "wal";

/// Why nothing could be checked.
#[derive(Debug, Error)]
pub enum CheckError {
    /// There is no data of ours.
    #[error("there is no data of basalt")]
    NoData,
    /// The manifest cannot be read at all.
    #[error("reading the manifest")]
    Manifest(#[from] ManifestError),
    /// The disk does not answer.
    #[error("looking at the files")]
    Files(#[from] RecoveryError),
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The manifest's generation.
    pub generation: u64,
    /// The store's revision in it.
    pub revision: i64,
    /// The compact revision in it.
    pub compact_revision: i64,
    /// Keys that live.
    pub keys: u64,
    /// Revisions that are not marked dead.
    pub revisions: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Entries of the log behind the checkpoint.
    pub log_entries: u64,
    /// The last of the log, if that can be read. Of several members whose logs end differently the one with the higher position has
    /// what the other has, and more.
    pub log_end: Option<LogPosition>,
    /// How often [`Severity::Damage`] was found.
    pub damage: u64,
}

/// Counts damage on its way to the one who asked.
struct Counting<'a> {
    observer: &'a mut dyn Observer,
    damage: u64,
}

impl Observer for Counting<'_> {
    fn progress(&mut self, place: &str, done: u64, total: u64) {
        self.observer.progress(place, done, total);
    }

    fn found(&mut self, finding: Finding) {
        self.damage += u64::from(finding.severity == Severity::Damage);
        self.observer.found(finding);
    }
}

/// Checks the directory of `disk`, whose log lies in `log_disk`. The caller holds its lock.
///
/// # Errors
/// [`CheckError`]: there was nothing to check. Damage is no error.
pub fn check(disk: &dyn Disk, log_disk: &dyn Disk, observer: &mut dyn Observer) -> Result<Checked, CheckError> {
    let mut observer = Counting { observer, damage: 0 };
    let found = run(&mut read_job(), disk, BUDGET_UNLIMITED)?;
    let manifest = match &found.manifest {
        Some(manifest) => manifest.clone(),
        None if first_remains(disk)?.is_none() || found.is_torn_birth() => return Err(CheckError::NoData),
        None => {
            observer.found(Finding::damage(MANIFEST_NAME, "no copy of it can be read; nothing else can be checked"));
            return Ok(Checked { damage: observer.damage, ..Checked::default() });
        }
    };
    let mut checked = Checked {
        generation: manifest.generation,
        revision: manifest.revision,
        compact_revision: manifest.compact_revision,
        ..Checked::default()
    };
    let known = check_log(log_disk, &manifest, &mut observer);
    checked.log_end = known.map(|log| LogPosition { index: log.last_index, term: log.last_term });
    checked.log_entries = checked.log_end.map_or(0, |end| end.index.saturating_sub(manifest.applied_index));
    check_copies(&found, &manifest, &mut observer);
    let shard_map = match ShardMap::checked(manifest.shards.iter().map(ShardManifest::spec).collect()) {
        Ok(shard_map) => shard_map,
        Err(flaw) => {
            observer.found(Finding::damage(MANIFEST_NAME, format!("it names impossible shards: {flaw}")));
            return Ok(Checked { damage: observer.damage, ..checked });
        }
    };
    for shard in &manifest.shards {
        let check = ShardCheck { disk, manifest: &manifest, shard, shard_map: &shard_map };
        let ShardChecked { keys, revisions, bytes } = check.run(&mut observer);
        checked.keys += keys;
        checked.revisions += revisions;
        checked.bytes += bytes;
    }
    if let Err(error) = load_system(disk, &manifest.system_runs)
        && check_runs(disk, &manifest.system_runs, &mut observer) == 0
    {
        observer.found(Finding::damage("system tables", causes(&error)));
    }
    note_unnamed(disk, &manifest, &mut observer)?;
    checked.damage = observer.damage;
    Ok(checked)
}

/// A bad copy whose slot has a good one is repaired by the next start. A slot that is lost whole, or whose second copy is still
/// the one before, is what a crash leaves of the next manifest; what the log knows was compared.
fn check_copies(found: &ManifestFound, manifest: &Manifest, observer: &mut dyn Observer) {
    for copy in &found.bad_copies {
        let place = format!("{MANIFEST_NAME} at byte {}", copy.offset);
        let text = format!("{}; generation {} was read from another copy", copy.reason, manifest.generation);
        let may_be_of_crash = found.damaged || copy.is_outdated();
        observer.found(if may_be_of_crash { Finding::note(&place, text) } else { Finding::damage(&place, text) });
    }
}

fn check_log(disk: &dyn Disk, manifest: &Manifest, observer: &mut dyn Observer) -> Option<Inspected> {
    let mut bytes = 0;
    let inspected = inspect(disk, &mut |read| {
        bytes += read;
        observer.progress(LOG, bytes, bytes);
    });
    let log = match inspected {
        Ok(log) => log,
        Err(WalError::NotCreated) if manifest.generation == GENERATION_WITHOUT_LOG => return None,
        Err(error) => {
            observer.found(Finding::damage(LOG, causes(&error)));
            return None;
        }
    };
    let Manifest { cluster_id, member_id, incarnation, generation, applied_index, .. } = *manifest;
    let expected = Identity { cluster: cluster_id, member: member_id, incarnation };
    if log.identity != expected {
        observer.found(Finding::damage(LOG, WalError::ForeignIdentity { found: log.identity, expected }.to_string()));
    }
    if log.newest_manifest_generation > generation {
        let known = log.newest_manifest_generation;
        let text = format!("generation {generation} was found, the log knows {known}: the manifest was lost");
        observer.found(Finding::damage(MANIFEST_NAME, text));
    }
    if log.previous_index > applied_index {
        let text = format!(
            "it begins after entry {}, the checkpoint ends at {applied_index}: a part of it is missing",
            log.previous_index
        );
        observer.found(Finding::damage(LOG, text));
    }
    if log.last_index < applied_index {
        let text = format!("it ends at entry {}, the checkpoint at {applied_index}", log.last_index);
        observer.found(Finding::damage(LOG, text));
    }
    if let EndReason::TornTail { segment, offset } = log.end_reason {
        let text = format!("segment {segment:016x} ends at byte {offset} in a batch that was never acknowledged");
        observer.found(Finding::note(LOG, text));
    }
    Some(log)
}

/// Files of ours that the manifest does not name: a crash leaves them, and the next start removes runs.
fn note_unnamed(disk: &dyn Disk, manifest: &Manifest, observer: &mut dyn Observer) -> Result<(), RecoveryError> {
    let runs = manifest.runs().map(|run| run_name(RUNS_DIRECTORY, run.number));
    let pages = manifest.shards.iter().map(|shard| page_file_name(shard.page_file));
    let named: Vec<String> = runs.chain(pages).collect();
    for directory in [PAGES_DIRECTORY, RUNS_DIRECTORY] {
        for name in list(disk, directory)?.iter().filter(|name| is_ours(directory, name)) {
            let name = format!("{directory}/{name}");
            if !named.contains(&name) {
                observer.found(Finding::note(&name, "nothing names it"));
            }
        }
    }
    Ok(())
}
