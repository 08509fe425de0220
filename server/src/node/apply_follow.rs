//! Apply, and those who drink from its effects: watches, leases, alarms, compactions.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use basalt_storage::mvcc::view::View;
use tracing::{info, warn};

use super::apply_thread::ApplyThread;
use super::watch_events::{self, event_of};
use crate::apply::alarms::AlarmKind;
use crate::apply::downgrade::NEWEST;
use crate::apply::effects::Effect;
use crate::watch;

/// What was compacted before an entry.
#[derive(Clone, Copy)]
pub(super) struct Compacted {
    pub(super) revision: i64,
    pub(super) finished: bool,
}

impl ApplyThread {
    /// Hands effects to those who drink from them.
    pub(super) fn follow(&mut self, effects: &[Effect], view: &Arc<View>, mut compacted: Compacted) {
        let mut events = Vec::new();
        for effect in effects {
            match effect {
                Effect::Key(change) => events.push(event_of(change)),
                Effect::Compaction { revision } => {
                    self.compactions.begin(self.links.started.elapsed());
                    self.send_events(&mut events, 0);
                    drop(self.links.watches.send(watch::Input::Compacted(*revision)));
                    self.hash_compaction(view, *revision, compacted);
                    compacted = Compacted { revision: *revision, finished: false };
                }
                other => self.follow_lease_or_alarm(other),
            }
        }
        self.send_events(&mut events, view.revision);
    }

    /// A compaction leaves its own hash, by the revision compacted before; not while that one is unfinished
    /// (etcd-contract 52).
    fn hash_compaction(&mut self, view: &Arc<View>, revision: i64, before: Compacted) {
        if before.finished {
            self.compactions.hash_begun();
            self.links.hashes.begin(view.clone(), revision, before.revision, self.links.inbox.clone());
            self.links.hashes.set_pending(self.compactions.hashes());
        }
    }

    fn send_events(&self, events: &mut Vec<watch::Event>, revision: i64) {
        if let Some(applied) = watch_events::applied(events, revision) {
            drop(self.links.watches.send(applied));
        }
    }

    fn follow_lease_or_alarm(&self, effect: &Effect) {
        let now = self.links.started.elapsed();
        let clock = || self.links.leases.lock().expect("no one panics while holding the lease clock");
        match effect {
            Effect::LeaseGranted { id, ttl } => clock().grant(*id, *ttl, now),
            Effect::LeaseRevoked { id } => clock().forget(*id),
            Effect::LeaseCheckpointed { id, remaining_ttl } => clock().checkpointed(*id, *remaining_ttl),
            Effect::AlarmRaised(alarm) => {
                warn!(alarm = alarm.kind.name(), member_id = format_args!("{:x}", alarm.member_id), "alarm raised");
                self.show_alarms();
            }
            Effect::AlarmCleared(alarm) => {
                info!(alarm = alarm.kind.name(), member_id = format_args!("{:x}", alarm.member_id), "alarm disarmed");
                self.show_alarms();
            }
            Effect::MemberDescribed(_)
            | Effect::ApplyVersionRaised { .. }
            | Effect::MemberAdded { .. }
            | Effect::MemberRemoved { .. }
            | Effect::MemberUrlsSet { .. }
            | Effect::MemberPromoted { .. } => self.follow_member_change(effect),
            // Shown with the View.
            Effect::Key(_) | Effect::Compaction { .. } | Effect::AuthChanged(_) | Effect::DowngradeSet(_) => {}
        }
    }

    /// etcd's lines, which tools look for (etcd-contract 5), and what they do not say: how to go down.
    pub(super) fn show_downgrade(&self) {
        let (now, shown) = (self.machine.downgrade(), **self.links.downgrade.load());
        if now == shown {
            return;
        }
        self.links.downgrade.store(Arc::new(now));
        let (from, to) = (shown.cluster_version().minor_text(), now.cluster_version().minor_text());
        info!(from, to, "updated cluster version");
        if let Some(target) = now.target() {
            info!(
                target_version = %target,
                server_version = %NEWEST,
                next = "take a snapshot (etcdctl snapshot save) and restore it with etcdutl of that version; this program keeps its files",
                "The server is ready to downgrade"
            );
        }
    }

    /// Shows the alarms of a state that came as a whole.
    pub(super) fn show_every_alarm(&self) {
        self.links.metrics.alarms.reset();
        for alarm in self.machine.alarms().list(None) {
            self.counts.alarm(&alarm, 1);
        }
    }

    pub(super) fn show_alarms(&self) {
        let alarms = self.machine.alarms();
        self.links.gauges.no_space.store(alarms.any(AlarmKind::NoSpace), Ordering::Relaxed);
        self.links.gauges.corrupt.store(alarms.any(AlarmKind::Corrupt), Ordering::Relaxed);
    }
}
