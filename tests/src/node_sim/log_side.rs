//! The log thread, piece by piece: batches, and beside them segments that are prepared and recycled.

use std::collections::VecDeque;

use basalt_server::node::core::Append;
use basalt_server::node::log_thread::records;
use basalt_storage::disk::{Disk, SimulatedDisk};
use basalt_storage::wal::{BatchDurable, Log, LogJob, Prepared, Recycled, WalError};
use rand::rngs::StdRng;

use super::overlaps::Overlaps;
use crate::background::Background;
use crate::over::{Over, over};

/// The log and what it is busy with.
pub(super) struct LogSide {
    log: Log,
    inbox: VecDeque<Append>,
    /// Newest durable generation of the manifest.
    pub(super) generation: u64,
    /// Entries up to here are in a checkpoint, and their segments not yet given up.
    released: u64,
    appending: Option<(u64, Background<LogJob<BatchDurable>>)>,
    preparing: Option<Background<LogJob<Prepared>>>,
    is_prepared: bool,
    recycling: Option<Background<LogJob<Recycled>>>,
}

impl LogSide {
    pub(super) fn new(log: Log, generation: u64) -> Self {
        let (inbox, released) = (VecDeque::new(), 0);
        Self { log, inbox, generation, released, appending: None, preparing: None, is_prepared: false, recycling: None }
    }

    pub(super) fn push(&mut self, append: Append) {
        self.inbox.push_back(append);
    }

    pub(super) fn release(&mut self, index: u64) {
        self.released = index;
    }

    pub(super) fn has_appends(&self) -> bool {
        self.appending.is_some() || !self.inbox.is_empty()
    }

    pub(super) fn may_prepare(&self) -> bool {
        self.preparing.is_some() || !self.is_prepared
    }

    pub(super) fn may_recycle(&self) -> bool {
        self.recycling.is_some() || self.released > 0
    }

    pub(super) fn is_syncing(&self) -> bool {
        self.appending.as_ref().is_some_and(|(_, job)| job.is_syncing())
    }

    /// Goes on with an append; gives its number when it is durable.
    pub(super) fn append(&mut self, disk: &SimulatedDisk, random: &mut StdRng) -> Result<Option<u64>, Over> {
        let Some((number, job)) = &mut self.appending else {
            let append = self.inbox.pop_front().expect("there are appends");
            let number = append.number;
            let records = records(append, self.log.last_index());
            self.log.append(records, self.generation).expect("appends are small");
            let job = self.log.start_batch().expect("one append at a time");
            self.appending = Some((number, Background::new(job)));
            return Ok(None);
        };
        let Some(durable) = job.advance(disk, random)? else { return Ok(None) };
        let number = *number;
        self.log.finish_batch(&durable);
        self.appending = self.log.start_batch().map(|job| (number, Background::new(job)));
        if self.appending.is_some() {
            return Ok(None);
        }
        self.is_prepared = false;
        Ok(Some(number))
    }

    pub(super) fn prepare(
        &mut self,
        disk: &SimulatedDisk,
        random: &mut StdRng,
        seen: &mut Overlaps,
    ) -> Result<(), Over> {
        let Some(job) = &mut self.preparing else {
            self.preparing = self.log.prepare().map(Background::new);
            self.is_prepared = self.preparing.is_none();
            return Ok(());
        };
        match job.try_advance(disk, random) {
            Ok(None) => return Ok(()),
            Ok(Some(prepared)) => self.log.finish_prepare(prepared),
            Err(WalError::NoSpace { .. }) => {
                let job = self.preparing.take().expect("it failed just now").into_job();
                job.give_up().into_iter().for_each(|io| drop(disk.perform(io)));
                self.log.give_up_prepare();
                seen.unprepared += 1;
            }
            Err(error) => return Err(over("preparing a segment", &error)),
        }
        // One that was given up is tried again after the next batch.
        (self.preparing, self.is_prepared) = (None, true);
        Ok(())
    }

    pub(super) fn recycle(
        &mut self,
        disk: &SimulatedDisk,
        random: &mut StdRng,
        seen: &mut Overlaps,
    ) -> Result<(), Over> {
        let Some(job) = &mut self.recycling else {
            self.recycling = self.log.recycle_below(std::mem::take(&mut self.released)).map(Background::new);
            return Ok(());
        };
        if let Some(recycled) = job.advance(disk, random)? {
            self.log.finish_recycle(recycled);
            self.recycling = None;
            seen.recycles += 1;
        }
        Ok(())
    }

    /// Appends that are not durable yet.
    pub(super) fn is_busy(&self) -> bool {
        self.has_appends()
    }
}
