//! Whose turn it is in a node, and what each does in one.

use std::time::Duration;

use basalt_proto::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest};
use basalt_proto::log::request::Kind;
use basalt_proto::log::{MemberDescription, Request};
use basalt_server::admission::Proposal;
use basalt_server::apply::alarms::AlarmKind;
use basalt_server::apply::auth::check::cluster_principal;
use basalt_server::apply::machine::{APPLY_VERSION, Machine};
use basalt_server::node::core::Input;
use basalt_server::watch;
use basalt_storage::disk::InjectedFault;
use bytes::Bytes;
use rand::Rng;

use super::checkpoint_side::Ended;
use super::lease_side::Step as RenewalStep;
use super::node::{HEARTBEAT_INTERVAL, SimulatedNode};
use crate::over::Over;

/// How long the virtual clock moves in one turn, at most.
const TURN: Duration = Duration::from_millis(4);

/// Between two times that a member tells the cluster who it is.
const DESCRIBE_PAUSE: Duration = Duration::from_secs(1);

/// What can advance.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Node,
    Tick,
    Propose,
    Log,
    Prepare,
    Recycle,
    Apply,
    Sweep,
    Checkpoint,
    Install,
    Snapshot,
    Watch,
    WatchRead,
    Renew,
}

const TURNS: usize = 14;

impl SimulatedNode {
    /// Something that can advance does so by one step or one request to the disk.
    ///
    /// # Errors
    /// [`Over`]; the node is.
    pub fn turn(&mut self) -> Result<(), Over> {
        self.turn_of(TURN)
    }

    /// The same, of a node whose turns take other time.
    ///
    /// # Errors
    /// As [`Self::turn`].
    pub fn turn_of(&mut self, longest: Duration) -> Result<(), Over> {
        if let Some(over) = self.over {
            return Err(over);
        }
        self.now += longest.mul_f64(self.random.random());
        let (mut runnable, mut count) = ([Turn::Node; TURNS], 0);
        for (turn, ready) in self.candidates() {
            runnable[count] = turn;
            count += usize::from(ready);
        }
        if count == 0 {
            // Nothing but time can bring anything.
            self.now = self.next_turn();
            return Ok(());
        }
        let (disk, random, seen) = (&self.disk, &mut self.random, &mut self.overlaps);
        match runnable[random.random_range(0..count)] {
            Turn::Node => self.take_input(),
            Turn::Tick => self.tick(),
            Turn::Propose => self.propose_some(),
            Turn::Log => self.inbox.extend(self.log.append(disk, random)?.map(Input::Persisted)),
            Turn::Prepare => self.log.prepare(disk, random, seen)?,
            Turn::Recycle => self.log.recycle(disk, random, seen)?,
            Turn::Apply => self.apply_next()?,
            Turn::Sweep => self.sweep(),
            Turn::Checkpoint => self.advance_checkpoint()?,
            Turn::Install => self.install()?,
            Turn::Snapshot => self.snapshots.advance(disk, random, seen)?,
            Turn::Watch => self.take_watch_input(),
            Turn::WatchRead => self.watches.as_mut().expect("it has a reading").read(disk, random),
            Turn::Renew => self.go_on_with_renewal(),
        }
        // Work that may fail without harm meets a stopped disk too: the power is gone for everything.
        if self.disk.is_stopped() { Err(Over(InjectedFault::Stopped)) } else { Ok(()) }
    }

    /// Whether anything can advance now.
    pub(super) fn may_advance(&self) -> bool {
        self.candidates().iter().any(|(_, ready)| *ready)
    }

    fn candidates(&self) -> [(Turn, bool); TURNS] {
        let disk = self.now >= self.disk_stalls_until;
        let applies = !self.apply.is_replaced;
        let watches = self.watches.as_ref();
        [
            (Turn::Node, !self.inbox.is_empty()),
            (Turn::Tick, self.now >= self.next_tick),
            (Turn::Propose, !self.proposals.is_empty()),
            (Turn::Log, disk && self.log.has_appends()),
            (Turn::Prepare, disk && self.log.may_prepare()),
            (Turn::Recycle, disk && self.log.may_recycle()),
            (Turn::Apply, self.apply.has_inputs()),
            (Turn::Sweep, applies && self.machine().store().is_sweeping()),
            (Turn::Checkpoint, disk && self.may_checkpoint()),
            (Turn::Install, disk && self.apply.is_replaced && !self.checkpoints.is_running()),
            (Turn::Snapshot, disk && self.snapshots.is_running()),
            (Turn::Watch, watches.is_some_and(|watches| watches.has_inputs())),
            (Turn::WatchRead, disk && watches.is_some_and(|watches| watches.has_readings())),
            (Turn::Renew, self.leases.may_go_on(self.now)),
        ]
    }

    fn tick(&mut self) {
        self.next_tick = self.now + self.clock.until(HEARTBEAT_INTERVAL);
        let over = self.leader_losses.look(self.leadership.leader != 0, self.now, self.clock);
        over.iter().for_each(|stream| self.watch(watch::Input::Close(*stream)));
        self.said.leaderless.extend(over);
        self.step_core(Input::Tick);
        self.watch(watch::Input::Tick);
        self.describe();
        let own = self.clock.monotonic(self.now);
        let revoke = |id| Kind::LeaseRevoke(LeaseRevokeRequest { id });
        let leases = &mut self.apply.leases;
        let mut kinds: Vec<_> = leases.expired(own, 8).into_iter().map(revoke).collect();
        self.overlaps.expired += kinds.len();
        let remainders = leases.checkpoints(own, 8).into_iter();
        let checkpoints: Vec<_> = remainders.map(|(id, remaining_ttl)| LeaseCheckpoint { id, remaining_ttl }).collect();
        if !checkpoints.is_empty() {
            kinds.push(Kind::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints }));
        }
        let principal = self.has_users.then(cluster_principal);
        let request = |kind| Request { id: 0, principal: principal.clone(), kind: Some(kind) };
        self.proposals.extend(kinds.into_iter().map(request));
    }

    /// Tells the cluster who this member is, and that its disk has room, unless it knows; again until it does, once a life.
    fn describe(&mut self) {
        let is_due = self.is_observed && self.describes_at.is_some_and(|due| self.now >= due);
        let Some(member) = self.machine().members().get(self.member_id).filter(|_| is_due) else { return };
        let incarnation = Bytes::copy_from_slice(&self.incarnation.to_le_bytes());
        if member.incarnation == incarnation && !member.disk_full {
            self.describes_at = None;
            return;
        }
        self.describes_at = Some(self.now + self.clock.until(DESCRIBE_PAUSE));
        let (id, apply_version) = (self.member_id, APPLY_VERSION);
        let description = MemberDescription { id, incarnation, apply_version, ..MemberDescription::default() };
        self.proposals.push_back(Request { id: 0, principal: None, kind: Some(Kind::MemberDescription(description)) });
    }

    fn propose_some(&mut self) {
        let count = self.random.random_range(1..=self.proposals.len().min(3));
        let time_unix_ns = self.clock.unix_ns(self.now);
        let shards = self.apply.machine.store().shard_map();
        let proposals = self.proposals.drain(..count).map(|request| Proposal::new(request, shards)).collect();
        self.step_core(Input::Propose { proposals, time_unix_ns });
    }

    fn apply_next(&mut self) -> Result<(), Over> {
        let own = self.clock.monotonic(self.now);
        let Some(index) = self.apply.next(&self.disk, own, self.clock.unix_ns(self.now))? else { return Ok(()) };
        self.tell_watches();
        self.answer_renewals();
        self.checkpoints.is_dirty = true;
        let changes = std::mem::take(&mut self.apply.changes).into_iter();
        self.inbox.extend(changes.map(|change| Input::ConfChange(Box::new(change))));
        self.inbox.push_back(Input::Applied(index));
        let seen = &mut self.overlaps;
        seen.applied_in_checkpoint += usize::from(self.checkpoints.is_running());
        seen.applied_in_checkpoint_sync += usize::from(self.checkpoints.is_syncing());
        seen.applied_in_log_sync += usize::from(self.log.is_syncing());
        seen.applied_in_sweep += usize::from(self.apply.machine.store().is_sweeping());
        seen.applied_in_snapshot += usize::from(self.snapshots.is_running());
        Ok(())
    }

    fn sweep(&mut self) {
        let store = self.apply.machine.store_mut();
        store.sweep(0);
        self.overlaps.swept_in_checkpoint += usize::from(self.checkpoints.is_running());
        if !store.is_sweeping() {
            self.checkpoints.is_dirty = true;
            self.overlaps.compactions += 1;
        }
    }

    fn advance_checkpoint(&mut self) -> Result<(), Over> {
        let store = self.apply.machine.store_mut();
        let ended = self.checkpoints.advance(&self.disk, &mut self.random, self.now, store, &mut self.overlaps)?;
        match ended {
            None => {}
            Some(Ended::Durable { applied_index, generation }) => {
                self.log.generation = generation;
                self.log.release(applied_index);
                if self.machine().members().get(self.member_id).is_some_and(|member| member.disk_full) {
                    self.tell_disk(false);
                }
            }
            Some(Ended::Refused) => {
                self.tell_disk(true);
                let members = self.machine().members();
                if members.voters().len() > 1 && members.has_room() && !self.machine().alarms().any(AlarmKind::NoSpace)
                {
                    self.inbox.push_back(Input::HandOver);
                }
            }
        }
        Ok(())
    }

    /// Tells the others whether the disk here has room.
    fn tell_disk(&mut self, is_full: bool) {
        if let Some(description) = self.machine().members().with_disk(self.member_id, is_full) {
            self.proposals.push_back(Request {
                id: 0,
                principal: None,
                kind: Some(Kind::MemberDescription(description)),
            });
        }
    }

    /// One that runs goes on; none begins while another state takes the place of this one.
    fn may_checkpoint(&self) -> bool {
        self.checkpoints.is_running() || (!self.apply.is_replaced && self.checkpoints.may_advance(self.now))
    }

    fn tell_watches(&mut self) {
        for input in std::mem::take(&mut self.apply.told) {
            self.watch(input);
        }
    }

    fn take_watch_input(&mut self) {
        let (view, own) = (self.view(), self.clock.monotonic(self.now));
        if let Some(watches) = &mut self.watches {
            self.said.watched.extend(watches.take_input(own, &view));
        }
    }

    /// Who waited for what was applied last is told.
    fn answer_renewals(&mut self) {
        let Some(outcome) = self.apply.outcomes.last().filter(|_| !self.leases.is_empty()) else { return };
        let is_own = outcome.entry.as_ref().is_some_and(|entry| entry.proposer == self.member_id);
        for (request, _) in outcome.answers.iter().filter(|_| is_own) {
            self.inbox.extend(self.leases.answered(*request).map(|read| Input::Reads(vec![read])));
        }
    }

    fn go_on_with_renewal(&mut self) {
        let own = self.clock.monotonic(self.now);
        match self.leases.go_on(&mut self.apply.leases, self.leadership, self.now, own) {
            RenewalStep::Waits => {}
            RenewalStep::Confirm(read) => self.inbox.push_back(Input::Reads(vec![read])),
            RenewalStep::Answer(number, ttl) => self.said.renewals.push((number, ttl)),
            RenewalStep::Propose(request) => {
                self.said.requests.push(request.clone());
                self.proposals.push_back(request);
            }
        }
    }

    fn install(&mut self) -> Result<(), Over> {
        let filled = self.transfers.take_filled();
        let (store, generation) = self.checkpoints.install(&self.disk, filled)?;
        self.apply.replace(Machine::new(store));
        self.tell_watches();
        self.log.generation = generation;
        self.installs += 1;
        self.said.has_installed = self.has_users;
        self.inbox.push_back(Input::Installed);
        Ok(())
    }
}
