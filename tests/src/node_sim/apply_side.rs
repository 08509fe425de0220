//! The apply thread, piece by piece: one entry at a time, and compactions between them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use basalt_proto::log::LogEntry;
use basalt_server::apply::answer::{Answer, Refusal};
use basalt_server::apply::effects::{Effect, Effects};
use basalt_server::apply::machine::Machine;
use basalt_server::apply::values::{Prefetched, Values};
use basalt_server::lease::{LeaseClock, LeaseClockConfig};
use basalt_server::node::core::{Committed, conf_change_of};
use basalt_server::node::watch_events::{applied, event_of};
use basalt_server::watch;
use basalt_storage::disk::SimulatedDisk;
use basalt_storage::job::{BUDGET_UNLIMITED, run};
use basalt_storage::mvcc::fetch::Fetch;
use basalt_storage::mvcc::range::Hit;
use basalt_storage::mvcc::view::{LogPosition, View};
use bytes::Bytes;
use raft::prelude::ConfChangeV2;

use super::auth_side::AuthSide;
use super::node::ELECTION_TIMEOUT;
use crate::opening::Place;
use crate::over::{Over, over};

/// What one applied entry came to.
#[derive(Debug)]
pub struct Outcome {
    /// Where it stands.
    pub position: LogPosition,
    /// Its requests; `None` for one without any.
    pub entry: Option<LogEntry>,
    /// By request.
    pub answers: Vec<(u64, Result<Answer, Refusal>)>,
    /// What changed.
    pub effects: Effects,
}

/// What apply is told.
pub(super) enum ApplyInput {
    Committed(Committed),
    Role {
        leads: bool,
    },
    /// Another member's state takes the place of this one.
    Install,
}

/// The machine and what follows from its effects.
pub(super) struct ApplySide {
    pub(super) machine: Machine,
    pub(super) leases: LeaseClock,
    inbox: VecDeque<ApplyInput>,
    pub(super) outcomes: Vec<Outcome>,
    /// What Raft is to be told of members, before it hears that their entry is applied.
    pub(super) changes: Vec<ConfChangeV2>,
    /// Whether it waits for another member's state to take the place of this one.
    pub(super) is_replaced: bool,
    is_watched: bool,
    pub(super) auth: AuthSide,
    former_life: u64,
    /// Whether anybody has users.
    has_users: bool,
    /// What watches are to be told, before anybody hears of the answers.
    pub(super) told: Vec<watch::Input>,
}

impl ApplySide {
    /// A member whose log ended at `former_life` when it started.
    pub(super) fn new(machine: Machine, place: &Place, former_life: u64) -> Self {
        let mut config = LeaseClockConfig::default();
        config.checkpoint_interval = place.lease_checkpoint_interval.unwrap_or(config.checkpoint_interval);
        Self {
            auth: AuthSide::new(&machine),
            former_life,
            has_users: place.has_users,
            is_watched: place.is_watched,
            machine,
            leases: LeaseClock::new(config),
            inbox: VecDeque::new(),
            outcomes: Vec::new(),
            changes: Vec::new(),
            is_replaced: false,
            told: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, input: ApplyInput) {
        self.inbox.push_back(input);
    }

    pub(super) fn has_inputs(&self) -> bool {
        !self.inbox.is_empty() && !self.is_replaced
    }

    /// Goes on with another member's state.
    pub(super) fn replace(&mut self, machine: Machine) {
        self.machine = machine;
        self.is_replaced = false;
        if self.has_users {
            self.told.extend(self.auth.replaced(&self.machine).map(watch::Input::Permissions));
        }
        let View { revision, compact_revision, .. } = self.machine.store().head();
        self.told.push(watch::Input::Restored { revision, compact_revision });
    }

    pub(super) fn view(&self) -> Arc<View> {
        Arc::new(self.machine.store().head())
    }

    /// Takes the next input by the clocks of the member; gives the index of an entry that was applied.
    pub(super) fn next(&mut self, disk: &SimulatedDisk, now: Duration, unix_ns: i64) -> Result<Option<u64>, Over> {
        match self.inbox.pop_front().expect("there are inputs") {
            ApplyInput::Committed(committed) => self.apply(disk, (now, unix_ns), committed).map(Some),
            ApplyInput::Install => {
                self.is_replaced = true;
                Ok(None)
            }
            ApplyInput::Role { leads: false } => {
                self.leases.demote();
                Ok(None)
            }
            ApplyInput::Role { leads: true } => {
                let table = self.machine.leases().iter().map(|(id, record)| (id, record.ttl, record.remaining_ttl));
                self.leases.promote(table, now, ELECTION_TIMEOUT);
                Ok(None)
            }
        }
    }

    fn apply(
        &mut self,
        disk: &SimulatedDisk,
        (now, unix_ns): (Duration, i64),
        Committed { position, entry }: Committed,
    ) -> Result<u64, Over> {
        let done = match &entry {
            None => {
                self.machine.apply_empty(position);
                Default::default()
            }
            Some(entry) => {
                let mut values = self.prefetch(disk, self.machine.needed_values(entry))?;
                self.machine.apply(position, entry, &mut values)
            }
        };
        done.effects.effects.iter().for_each(|effect| self.follow(effect, now));
        if let Some(entry) = entry.as_ref().filter(|_| self.has_users) {
            let is_old = position.index <= self.former_life;
            let age = if is_old { unix_ns.saturating_sub(entry.time_unix_ns).max(0).unsigned_abs() } else { 0 };
            let came_to = (&done.answers[..], &done.effects);
            let shown = self.auth.applied(&self.machine, entry, came_to, (Duration::from_nanos(age), now));
            // Before the first event after: whoever is told of it is judged by no older users and roles.
            self.told.extend(shown.map(watch::Input::Permissions));
        }
        self.tell_watches(&done.effects);
        self.outcomes.push(Outcome { position, entry, answers: done.answers, effects: done.effects });
        Ok(position.index)
    }

    fn tell_watches(&mut self, effects: &Effects) {
        if !self.is_watched {
            return;
        }
        let mut events = Vec::new();
        for effect in &effects.effects {
            match effect {
                Effect::Key(change) => events.push(event_of(change)),
                Effect::Compaction { revision } => {
                    self.told.extend(applied(&mut events, 0));
                    self.told.push(watch::Input::Compacted(*revision));
                }
                _ => {}
            }
        }
        self.told.extend(applied(&mut events, self.machine.store().revision()));
    }

    fn prefetch<'a>(&self, disk: &'a SimulatedDisk, hits: Vec<Hit>) -> Result<PrefetchedOnly<'a>, Over> {
        let values = run(&mut Fetch::new(self.view(), hits.clone()), disk, BUDGET_UNLIMITED);
        let values = values.map_err(|error| over("fetching for apply", &error))?;
        let mut prefetched = Prefetched::default();
        hits.into_iter().zip(values).for_each(|(hit, value)| prefetched.insert(hit, value));
        Ok(PrefetchedOnly { prefetched, view: self.view(), disk, has_users: self.has_users })
    }

    fn follow(&mut self, effect: &Effect, now: Duration) {
        match effect {
            Effect::LeaseGranted { id, ttl } => self.leases.grant(*id, *ttl, now),
            Effect::LeaseRevoked { id } => self.leases.forget(*id),
            Effect::LeaseCheckpointed { id, remaining_ttl } => self.leases.checkpointed(*id, *remaining_ttl),
            Effect::AuthChanged(_)
            | Effect::DowngradeSet(_)
            | Effect::Key(_)
            | Effect::Compaction { .. }
            | Effect::AlarmRaised(_)
            | Effect::AlarmCleared(_)
            | Effect::MemberDescribed(_)
            | Effect::ApplyVersionRaised { .. }
            | Effect::MemberUrlsSet { .. } => {}
            Effect::MemberAdded { .. } | Effect::MemberRemoved { .. } | Effect::MemberPromoted { .. } => {
                self.changes.extend(conf_change_of(effect));
            }
        }
    }
}

/// Apply must not need a disk beyond what [`Machine::needed_values`] named, unless an earlier request of its entry let a later
/// one in.
struct PrefetchedOnly<'a> {
    prefetched: Prefetched,
    view: Arc<View>,
    disk: &'a SimulatedDisk,
    has_users: bool,
}

impl Values for PrefetchedOnly<'_> {
    fn value(&mut self, hit: Hit) -> Bytes {
        if let Some(value) = self.prefetched.get(hit) {
            return value.clone();
        }
        assert!(self.has_users, "apply needs {hit:?}, which nobody named before");
        let read = run(&mut Fetch::new(self.view.clone(), vec![hit]), self.disk, BUDGET_UNLIMITED);
        read.expect("what is stored can be read").remove(0)
    }
}
