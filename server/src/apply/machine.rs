//! The replicated state machine: entries in, answers and effects out. Pure: no clock, no I/O, no randomness; two members
//! that apply the same entries hold the same state.
//!
//! Invariants:
//! * A request is evaluated against the state after the one before it, gives effects or a refusal, and only its
//!   effects, installed whole, change anything.
//! * Time never goes back: an entry older than the one before takes that one's time.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::{AlarmRequest, LeaseCheckpointRequest, LeaseGrantRequest, TxnRequest};
use basalt_proto::log::{Authentication, LogEntry, MemberChange, MemberDescription, Request, request::Kind};
use basalt_proto::membershippb::ClusterMemberAttrSetRequest;
use basalt_storage::mvcc::key_range::KeyRange;
use basalt_storage::mvcc::store::Store;
use basalt_storage::mvcc::system::Table;
use basalt_storage::mvcc::transaction::{Change, ChangeKind, Transaction};
use basalt_storage::mvcc::view::LogPosition;

use super::alarms::{Alarm, AlarmKind, Alarms};
use super::answer::{Answer, Refusal};
use super::auth::error::AuthError;
use super::auth::state::{AuthRecord, AuthState};
use super::downgrade::Downgrade;
use super::effects::{Effect, Effects};
use super::lease_table::{LeaseRecord, LeaseTable};
use super::members::Members;
use super::next_version;
use super::query::{has_put, is_read_only};
use super::txn;
use super::values::Values;

/// Version of the rules by which this release applies entries.
pub const APPLY_VERSION: u32 = if cfg!(feature = "next-version") { 2 } else { 1 };

/// Longest lease, seconds (etcd-contract 33).
pub const LEASE_TTL_MAX: i64 = 9_000_000_000;

const KINDS_CHECKED: &str = "an entry is checked before it is applied, and holds only requests that have rules here";

/// What one entry came to.
#[derive(Debug, Default)]
pub struct Applied {
    /// By request id, in order.
    pub answers: Vec<(u64, Result<Answer, Refusal>)>,
    /// What changed.
    pub effects: Effects,
}

/// State and rules.
pub struct Machine {
    store: Store,
    leases: LeaseTable,
    alarms: Alarms,
    members: Arc<Members>,
    auth: Arc<AuthState>,
    downgrade: Downgrade,
}

impl Machine {
    /// A machine over a recovered store; leases and alarms come from its system tables, attachments from its index.
    ///
    /// # Panics
    /// When the store's members, users, roles or downgrade cannot be read: a start looks at them before
    /// ([`Members::decode`], [`AuthState::load`], [`Downgrade::load`]).
    pub fn new(mut store: Store) -> Self {
        let members = Arc::new(Members::decode(&store.conf_state).expect("looked at before"));
        let mut leases = LeaseTable::default();
        for (id, record) in store.system.table(Table::Lease).filter_map(|(_, bytes)| LeaseRecord::decode(bytes)) {
            leases.insert(id, record);
        }
        store.for_each_live(&KeyRange::ALL, |key, state| {
            leases.reattach(key, 0, state.lease);
            ControlFlow::Continue(())
        });
        let mut alarms = Alarms::default();
        for alarm in store.system.table(Table::Alarm).filter_map(|(key, _)| Alarm::from_key(key)) {
            alarms.set(alarm, true);
        }
        store.version = form_of_manifests(&members);
        let auth = Arc::new(AuthState::load(&store.system).expect("looked at before"));
        let downgrade = Downgrade::load(&store.system).expect("looked at before");
        Self { store, leases, alarms, members, auth, downgrade }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The store, for freezing, sweeping and finished checkpoints; keys change only through [`Self::apply`].
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// All leases.
    pub fn leases(&self) -> &LeaseTable {
        &self.leases
    }

    /// All alarms.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// Who belongs to the cluster.
    pub fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// Users, roles, and whether anybody asks for them.
    pub fn auth(&self) -> &Arc<AuthState> {
        &self.auth
    }

    /// What release the cluster says that it is.
    pub fn downgrade(&self) -> Downgrade {
        self.downgrade
    }

    /// Applies one entry.
    ///
    /// # Panics
    /// When `log` is not above the last applied entry, or the entry is one that [`super::known::check`] refuses.
    pub fn apply(&mut self, log: LogPosition, entry: &LogEntry, values: &mut dyn Values) -> Applied {
        assert!(log.index > self.store.applied.index, "entry {} after {}", log.index, self.store.applied.index);
        let mut applied = Applied::default();
        for request in &entry.requests {
            let answer = self.evaluate(request, entry.apply_version, values).map(|(effects, answer)| {
                self.install_all(&effects);
                applied.effects.effects.extend(effects);
                answer
            });
            applied.answers.push((request.id, answer));
        }
        self.pass(log, entry.time_unix_ns);
        applied.effects.log = log;
        applied.effects.time_unix_ns = self.store.time_unix_ns;
        applied.effects.revision = self.store.revision();
        applied
    }

    /// Applies an entry that holds no requests: a new leader's first, or a change of members.
    pub fn apply_empty(&mut self, log: LogPosition) {
        self.pass(log, 0);
    }

    /// Installs effects that another member or a backup recorded.
    ///
    /// # Panics
    /// When they do not follow this state.
    pub fn install(&mut self, batch: &Effects) {
        self.install_all(&batch.effects);
        self.pass(batch.log, batch.time_unix_ns);
        assert_eq!(self.store.revision(), batch.revision, "effects lead to another revision than recorded");
    }

    fn pass(&mut self, log: LogPosition, time_unix_ns: i64) {
        self.store.applied = log;
        self.store.time_unix_ns = self.store.time_unix_ns.max(time_unix_ns);
    }

    /// `rules` are those that the entry was made for.
    fn evaluate(
        &self,
        request: &Request,
        rules: u32,
        values: &mut dyn Values,
    ) -> Result<(Vec<Effect>, Answer), Refusal> {
        let Some(kind) = &request.kind else { unreachable!("{KINDS_CHECKED}") };
        self.check_alarms(kind)?;
        self.auth.check(request.principal.as_ref(), kind, &self.leases)?;
        match kind {
            Kind::Put(put) => {
                txn::check_put(put, &self.store, &self.leases)?;
                let mut transaction = self.store.begin();
                let answer = txn::put(&next_version::put_by(rules, put), &mut transaction, values);
                Ok((key_effects(transaction), Answer::Put(answer)))
            }
            Kind::DeleteRange(delete) => {
                let mut transaction = self.store.begin();
                let answer = txn::delete_range(delete, &mut transaction);
                Ok((key_effects(transaction), Answer::DeleteRange(answer)))
            }
            Kind::Txn(request) => self.evaluate_txn(request, values),
            Kind::Compaction(request) => {
                self.store.compactable(request.revision)?;
                let effect = Effect::Compaction { revision: request.revision };
                Ok((vec![effect], Answer::Compact { revision: self.store.revision() }))
            }
            Kind::LeaseGrant(grant) => self.evaluate_grant(grant),
            Kind::LeaseRevoke(revoke) => self.evaluate_revoke(revoke.id),
            Kind::LeaseCheckpoint(checkpoint) => self.evaluate_checkpoint(checkpoint),
            Kind::Alarm(alarm) => self.evaluate_alarm(alarm),
            Kind::MemberAttributesSet(request) => self.evaluate_description(described_by_etcds(request)),
            Kind::MemberDescription(description) => self.evaluate_description(description.clone()),
            Kind::ApplyVersionSet(set) => {
                let version = set.apply_version;
                let effect = self.members.may_apply_by(version).then_some(Effect::ApplyVersionRaised { version });
                Ok((effect.into_iter().collect(), Answer::Done { revision: self.store.revision() }))
            }
            Kind::DowngradeInfoSet(request) => self.downgrade.evaluate(request, self.store.revision()),
            Kind::MemberChange(change) => self.evaluate_member_change(change),
            // Who compares does so beside this: what is applied hangs on nobody's sums.
            Kind::HashMark(_) => Ok((Vec::new(), Answer::Done { revision: self.store.revision() })),
            // Who keeps tokens does so beside this.
            Kind::Authentication(login) => {
                self.check_login(login)?;
                Ok((Vec::new(), Answer::Done { revision: self.store.revision() }))
            }
            kind => {
                let Some(records) = self.auth.evaluate(kind) else { unreachable!("{KINDS_CHECKED}") };
                let effects = records?.into_iter().map(Effect::AuthChanged).collect();
                Ok((effects, Answer::Done { revision: self.store.revision() }))
            }
        }
    }

    /// Whether what a password was checked against still stands.
    fn check_login(&self, login: &Authentication) -> Result<(), AuthError> {
        if !self.auth.is_enabled() {
            return Err(AuthError::NotEnabled);
        }
        if self.auth.revision() != login.auth_revision {
            return Err(AuthError::OldRevision);
        }
        self.auth.user(&login.user).map(drop).ok_or(AuthError::AuthenticationFailed)
    }

    /// What armed alarms refuse (etcd-contract 42, 43).
    fn check_alarms(&self, kind: &Kind) -> Result<(), Refusal> {
        if self.alarms.any(AlarmKind::Corrupt) {
            let refused = match kind {
                Kind::Txn(txn) => !is_read_only(txn),
                Kind::Put(_)
                | Kind::DeleteRange(_)
                | Kind::Compaction(_)
                | Kind::LeaseGrant(_)
                | Kind::LeaseRevoke(_) => true,
                _ => false,
            };
            if refused {
                return Err(Refusal::Corrupt);
            }
        }
        if self.alarms.any(AlarmKind::NoSpace) {
            let refused = match kind {
                Kind::Put(_) | Kind::LeaseGrant(_) => true,
                Kind::Txn(txn) => has_put(txn),
                _ => false,
            };
            if refused {
                return Err(Refusal::NoSpace);
            }
        }
        Ok(())
    }

    fn evaluate_txn(&self, request: &TxnRequest, values: &mut dyn Values) -> Result<(Vec<Effect>, Answer), Refusal> {
        let path = txn::choose(request, &self.store, values);
        path.check(&self.store, &self.leases)?;
        let mut transaction = self.store.begin();
        let answer = path.execute(&mut transaction, values)?;
        Ok((key_effects(transaction), Answer::Txn(answer)))
    }

    /// The id was chosen by the proposer if the client left it open, and a time to live below the proposer's minimum was
    /// raised there: what is applied hangs on no member's flags, so that all members, and all lives of one, agree.
    fn evaluate_grant(&self, grant: &LeaseGrantRequest) -> Result<(Vec<Effect>, Answer), Refusal> {
        if grant.ttl > LEASE_TTL_MAX {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.leases.get(grant.id).is_some() {
            return Err(Refusal::LeaseExists);
        }
        let (id, ttl) = (grant.id, grant.ttl);
        let answer = Answer::LeaseGrant { revision: self.store.revision(), id, ttl };
        Ok((vec![Effect::LeaseGranted { id, ttl }], answer))
    }

    /// Deletes the attached keys in sorted order in one revision (etcd-contract 34).
    fn evaluate_revoke(&self, id: i64) -> Result<(Vec<Effect>, Answer), Refusal> {
        let lease = self.leases.get(id).ok_or(Refusal::LeaseNotFound)?;
        let mut transaction = self.store.begin();
        for key in &lease.keys {
            transaction.delete_range(&KeyRange::single(key));
        }
        let revision = transaction.revision();
        let mut effects = key_effects(transaction);
        effects.push(Effect::LeaseRevoked { id });
        Ok((effects, Answer::Done { revision }))
    }

    fn evaluate_checkpoint(&self, request: &LeaseCheckpointRequest) -> Result<(Vec<Effect>, Answer), Refusal> {
        let known = request.checkpoints.iter().filter(|checkpoint| self.leases.get(checkpoint.id).is_some());
        let effects = known
            .map(|checkpoint| Effect::LeaseCheckpointed { id: checkpoint.id, remaining_ttl: checkpoint.remaining_ttl });
        Ok((effects.collect(), Answer::Done { revision: self.store.revision() }))
    }

    /// Arming and disarming; neither NONE nor what is armed already changes anything (etcd-contract 42, 43).
    fn evaluate_alarm(&self, request: &AlarmRequest) -> Result<(Vec<Effect>, Answer), Refusal> {
        let kind = AlarmKind::from_number(request.alarm);
        let alarm = kind.map(|kind| Alarm { member_id: request.member_id, kind });
        let (effects, alarms) = match (AlarmAction::try_from(request.action), alarm) {
            (Ok(AlarmAction::Get), _) => (Vec::new(), self.alarms.list(kind)),
            (Ok(AlarmAction::Activate), Some(alarm)) => {
                let new = !self.alarms.contains(alarm);
                (new.then_some(Effect::AlarmRaised(alarm)).into_iter().collect(), vec![alarm])
            }
            (Ok(AlarmAction::Deactivate), Some(alarm)) if self.alarms.contains(alarm) => {
                (vec![Effect::AlarmCleared(alarm)], vec![alarm])
            }
            (Ok(AlarmAction::Activate | AlarmAction::Deactivate), _) => (Vec::new(), Vec::new()),
            (Err(_), _) => return Err(Refusal::UnknownAlarmAction),
        };
        Ok((effects, Answer::Alarm { revision: self.store.revision(), alarms }))
    }

    fn evaluate_member_change(&self, change: &MemberChange) -> Result<(Vec<Effect>, Answer), Refusal> {
        let Some(change) = &change.kind else { unreachable!("{KINDS_CHECKED}") };
        let effect = self.members.evaluate(change)?;
        let mut members = (*self.members).clone();
        change_members(&mut members, &effect);
        Ok((vec![effect], Answer::Members { revision: self.store.revision(), members: Arc::new(members) }))
    }

    /// A member that left says nothing any more.
    fn evaluate_description(&self, description: MemberDescription) -> Result<(Vec<Effect>, Answer), Refusal> {
        let done = Answer::Done { revision: self.store.revision() };
        let Some(member) = self.members.get(description.id) else { return Ok((Vec::new(), done)) };
        let is_other = member.incarnation != description.incarnation;
        if is_other && !member.incarnation.is_empty() && !description.incarnation.is_empty() {
            return Err(Refusal::MemberWiped);
        }
        self.members.check_description(&description)?;
        let mut effects = Vec::new();
        let alarm = Alarm { member_id: description.id, kind: AlarmKind::NoSpace };
        let stops_writes = description.disk_full && self.members.are_mostly_full_with(description.id);
        if stops_writes && !self.alarms.contains(alarm) {
            effects.push(Effect::AlarmRaised(alarm));
        }
        effects.push(Effect::MemberDescribed(description));
        Ok((effects, done))
    }

    /// Key changes of one transaction stand together in a batch; they are installed together. So are records of users and roles.
    fn install_all(&mut self, effects: &[Effect]) {
        let mut changes: Vec<Change> = Vec::new();
        let mut records: Vec<&AuthRecord> = Vec::new();
        for effect in effects {
            if let Effect::Key(change) = effect {
                if changes.last().is_some_and(|last| last.revision.main != change.revision.main) {
                    self.install_changes(&std::mem::take(&mut changes));
                }
                changes.push(change.clone());
                continue;
            }
            self.install_changes(&std::mem::take(&mut changes));
            match effect {
                Effect::AuthChanged(record) => records.push(record),
                effect => self.install_other(effect),
            }
        }
        self.install_changes(&changes);
        self.install_records(&records);
    }

    /// Nothing else that changes hangs on users and roles, so that these may come last.
    fn install_records(&mut self, records: &[&AuthRecord]) {
        if records.is_empty() {
            return;
        }
        for record in records {
            self.store.set_record(record.table, &record.key, record.value.clone());
        }
        Arc::make_mut(&mut self.auth).install_all(records.iter().copied());
    }

    fn install_changes(&mut self, changes: &[Change]) {
        // A transaction may change a key twice: then the lease before is that of the first change.
        let mut changed: BTreeMap<&[u8], i64> = BTreeMap::new();
        for change in changes {
            let stored = || self.store.get(&change.key).map_or(0, |state| state.lease);
            let before = changed.get(&*change.key).copied().unwrap_or_else(stored);
            let after = match &change.kind {
                ChangeKind::Put { lease, .. } => *lease,
                ChangeKind::Delete => 0,
            };
            self.leases.reattach(&change.key, before, after);
            changed.insert(&change.key, after);
        }
        self.store.install(changes);
    }

    fn install_other(&mut self, effect: &Effect) {
        match effect {
            Effect::Key(_) | Effect::AuthChanged(_) => unreachable!("these are installed together"),
            Effect::Compaction { revision } => self.store.compact(*revision),
            Effect::LeaseGranted { id, ttl } => {
                let record = LeaseRecord { ttl: *ttl, ..LeaseRecord::default() };
                self.store.set_record(Table::Lease, &id.to_be_bytes(), Some(record.encode(*id)));
                self.leases.insert(*id, record);
            }
            Effect::LeaseRevoked { id } => {
                self.store.set_record(Table::Lease, &id.to_be_bytes(), None);
                self.leases.remove(*id);
            }
            Effect::LeaseCheckpointed { id, remaining_ttl } => {
                if let Some(record) = self.leases.get_mut(*id) {
                    record.remaining_ttl = *remaining_ttl;
                    let bytes = record.encode(*id);
                    self.store.set_record(Table::Lease, &id.to_be_bytes(), Some(bytes));
                }
            }
            Effect::AlarmRaised(alarm) => {
                self.store.set_record(Table::Alarm, &alarm.to_key(), Some(bytes::Bytes::new()));
                self.alarms.set(*alarm, true);
            }
            Effect::AlarmCleared(alarm) => {
                self.store.set_record(Table::Alarm, &alarm.to_key(), None);
                self.alarms.set(*alarm, false);
            }
            Effect::DowngradeSet(downgrade) => {
                let (key, value) = downgrade.record();
                self.store.set_record(Table::Cluster, key, value);
                self.downgrade = *downgrade;
            }
            Effect::MemberDescribed(_)
            | Effect::ApplyVersionRaised { .. }
            | Effect::MemberAdded { .. }
            | Effect::MemberRemoved { .. }
            | Effect::MemberUrlsSet { .. }
            | Effect::MemberPromoted { .. } => {
                change_members(Arc::make_mut(&mut self.members), effect);
                self.store.conf_state = self.members.encode();
                self.store.version = form_of_manifests(&self.members);
            }
        }
    }
}

fn change_members(members: &mut Members, effect: &Effect) {
    match effect {
        Effect::MemberDescribed(description) => members.describe(description),
        Effect::ApplyVersionRaised { version } => members.raise_apply_version(*version),
        Effect::MemberAdded { member, learner } => members.add(member.clone(), *learner),
        Effect::MemberRemoved { id } => members.remove(*id),
        Effect::MemberUrlsSet { id, peer_urls } => members.set_urls(*id, peer_urls),
        Effect::MemberPromoted { id } => members.promote(*id),
        _ => {}
    }
}

/// The form of manifests that belongs to the rules that all members know.
fn form_of_manifests(members: &Members) -> u16 {
    u16::try_from(members.apply_version()).unwrap_or(u16::MAX)
}

/// What a member said of itself before it named its data directory.
fn described_by_etcds(request: &ClusterMemberAttrSetRequest) -> MemberDescription {
    let attributes = request.member_attributes.clone().unwrap_or_default();
    let (name, client_urls) = (attributes.name, attributes.client_urls);
    MemberDescription { id: request.member_id, name, client_urls, ..MemberDescription::default() }
}

fn key_effects(transaction: Transaction<'_>) -> Vec<Effect> {
    transaction.finish().into_iter().map(Effect::Key).collect()
}
