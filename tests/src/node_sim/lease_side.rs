//! Renewals of leases, as the API waits for them.

use std::time::Duration;

use basalt_proto::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest};
use basalt_proto::log::Request;
use basalt_proto::log::request::Kind;
use basalt_server::lease::{LeaseClock, Renewal};
use basalt_server::node::core::Leadership;

/// How long an expired lease waits for its revoke before it is looked at again.
const REVOKE_POLL: Duration = Duration::from_millis(100);
/// Who waited so long is told that nobody can say.
const TIMEOUT: Duration = Duration::from_secs(7);

/// A client that wants to renew a lease.
struct Call {
    number: u64,
    lease: i64,
    /// Under this id it may have a request ordered.
    request: u64,
    asked: Duration,
    /// Whether all was applied that anybody was told of before it came.
    is_caught_up: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    /// Until a quorum says that this node still leads this term, and all is applied that was committed by then.
    CatchingUp {
        term: u64,
    },
    /// Until a quorum says that this node still leads this term.
    Confirming {
        ttl: i64,
        term: u64,
    },
    /// Until the remainder is cleared.
    Clearing {
        ttl: i64,
        term: u64,
    },
    /// Until then.
    Expiring(Duration),
}

/// What became of a step.
pub(super) enum Step {
    Waits,
    Answer(u64, Option<i64>),
    Propose(Request),
    /// A read of this number is to be asked for.
    Confirm(u64),
}

/// Numbers of reads that no client asked for.
const CONFIRMATION: u64 = 1 << 63;

/// Whether a read is of this room.
pub(super) fn is_confirmation(read: u64) -> bool {
    read & CONFIRMATION != 0
}

/// All calls.
#[derive(Default)]
pub(super) struct LeaseSide {
    calls: Vec<Call>,
}

impl LeaseSide {
    pub(super) fn ask(&mut self, number: u64, lease: i64, request: u64, now: Duration) {
        self.calls.push(Call { number, lease, request, asked: now, is_caught_up: false, stage: Stage::New });
    }

    pub(super) fn may_go_on(&self, now: Duration) -> bool {
        self.next(now).is_some()
    }

    fn next(&self, now: Duration) -> Option<usize> {
        let ready = |call: &Call| match call.stage {
            Stage::New => true,
            Stage::CatchingUp { .. } | Stage::Clearing { .. } | Stage::Confirming { .. } => false,
            Stage::Expiring(until) => now >= until,
        };
        self.calls.iter().position(|call| ready(call) || now > call.asked + TIMEOUT)
    }

    /// Goes on with one of them, by the clock `leases` at `own`, its time.
    pub(super) fn go_on(
        &mut self,
        leases: &mut LeaseClock,
        leadership: Leadership,
        now: Duration,
        own: Duration,
    ) -> Step {
        let position = self.next(now).expect("one may go on");
        let mut call = self.calls.swap_remove(position);
        let Leadership { leads, term, .. } = leadership;
        if !leads || !leases.is_running() || now > call.asked + TIMEOUT {
            return Step::Answer(call.number, None);
        }
        let mut step = Step::Waits;
        match leases.renew(call.lease, own) {
            Renewal::Unknown if call.is_caught_up => return Step::Answer(call.number, Some(0)),
            Renewal::Unknown => {
                call.stage = Stage::CatchingUp { term };
                step = Step::Confirm(CONFIRMATION | call.number);
            }
            Renewal::Renewed { ttl } => {
                call.stage = Stage::Confirming { ttl, term };
                step = Step::Confirm(CONFIRMATION | call.number);
            }
            Renewal::CommitFirst { ttl } => {
                let checkpoints = vec![LeaseCheckpoint { id: call.lease, remaining_ttl: 0 }];
                let kind = Kind::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints });
                call.stage = Stage::Clearing { ttl, term };
                step = Step::Propose(Request { id: call.request, principal: None, kind: Some(kind) });
            }
            Renewal::Expiring => call.stage = Stage::Expiring(now + REVOKE_POLL),
        }
        self.calls.push(call);
        step
    }

    /// A quorum confirmed who leads: gives the answer of who waited for that, or has it try again.
    pub(super) fn confirmed(&mut self, read: u64, leadership: Leadership) -> Option<(u64, Option<i64>)> {
        let position = self.confirming(read)?;
        let call = &mut self.calls[position];
        let leads = |term| leadership.leads && leadership.term == term;
        match call.stage {
            Stage::Confirming { ttl, term } if leads(term) => {
                return Some((self.calls.swap_remove(position).number, Some(ttl)));
            }
            Stage::CatchingUp { term } => call.is_caught_up = leads(term),
            _ => {}
        }
        call.stage = Stage::New;
        None
    }

    /// Nobody confirmed it.
    pub(super) fn unconfirmed(&mut self, read: u64) -> Option<(u64, Option<i64>)> {
        let position = self.confirming(read)?;
        Some((self.calls.swap_remove(position).number, None))
    }

    fn confirming(&self, read: u64) -> Option<usize> {
        let waits = |call: &Call| {
            let asks = matches!(call.stage, Stage::CatchingUp { .. } | Stage::Confirming { .. });
            asks && CONFIRMATION | call.number == read
        };
        self.calls.iter().position(waits)
    }

    /// A request was answered: gives the number of a read that who waited for it is to ask for.
    pub(super) fn answered(&mut self, request: u64) -> Option<u64> {
        let waits = |call: &&mut Call| call.request == request && matches!(call.stage, Stage::Clearing { .. });
        let call = self.calls.iter_mut().find(waits)?;
        if let Stage::Clearing { ttl, term } = call.stage {
            call.stage = Stage::Confirming { ttl, term };
        }
        Some(CONFIRMATION | call.number)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}
