//! Where the outputs of a node's core go.

use basalt_server::node::core::{Input, Output};
use basalt_server::transfer::MemberSnapshot;
use basalt_server::watch;

use super::apply_side::ApplyInput;
use super::lease_side::is_confirmation;
use super::node::SimulatedNode;
use super::said::Appended;
use crate::opening::CLUSTER_ID;

impl SimulatedNode {
    pub(super) fn take_input(&mut self) {
        let input = self.inbox.pop_front().expect("runnable");
        self.step_core(input);
    }

    pub(super) fn step_core(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.core.step(input, &mut outputs).expect("raft goes on");
        self.carry(outputs);
    }

    pub(super) fn carry(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Append(append) => {
                    if self.is_observed {
                        self.said.appended.push(Appended::of(&append));
                    }
                    self.log.push(append);
                }
                Output::Apply(all) => {
                    let last = all.last().map(|committed| committed.position);
                    self.said.committed = last.map(|last| (last, self.leadership.term)).or(self.said.committed);
                    all.into_iter().for_each(|committed| self.apply.push(ApplyInput::Committed(committed)));
                }
                Output::Role(leadership) => {
                    if leadership.leads != self.leadership.leads {
                        self.apply.push(ApplyInput::Role { leads: leadership.leads });
                    }
                    if leadership.term != self.leadership.term {
                        self.watch(watch::Input::Term(leadership.term));
                    }
                    self.leadership = leadership;
                    self.said.roles.push(leadership);
                }
                Output::Lost(requests) => {
                    self.overlaps.asked_again += requests.len();
                    self.proposals.extend(requests);
                }
                Output::Send(messages) => self.said.messages.extend(messages),
                Output::SnapshotWanted(to) => {
                    let snapshot = MemberSnapshot::of(&self.apply.machine, CLUSTER_ID);
                    self.inbox.push_back(self.transfers.made(to, snapshot));
                }
                Output::SendSnapshot(message) => match self.transfers.take_made(&message) {
                    Some(snapshot) => self.said.snapshots.push((*message, snapshot)),
                    None => self.snapshot_sent(message.to, false),
                },
                Output::Install(_) => self.apply.push(ApplyInput::Install),
                Output::Discard => self.transfers.discard(&self.disk),
                // Whom the lead goes to hears it from the core itself.
                Output::DiskTooSlow { .. } => {}
                Output::Left => self.said.left = true,
                Output::ReadsReady(reads) => {
                    let (own, others): (Vec<u64>, Vec<u64>) =
                        reads.into_iter().partition(|read| is_confirmation(*read));
                    self.said.reads.extend(others);
                    for read in own {
                        self.said.renewals.extend(self.leases.confirmed(read, self.leadership));
                    }
                }
                Output::ReadsFailed(reads) => {
                    let (own, others): (Vec<u64>, Vec<u64>) =
                        reads.into_iter().partition(|read| is_confirmation(*read));
                    self.said.failed_reads.extend(others);
                    for read in own {
                        self.said.renewals.extend(self.leases.unconfirmed(read));
                    }
                }
                Output::Refused { cause, .. } => self.said.refused.push(cause),
            }
        }
    }
}
