//! Clients of registers ask, and are answered.

use basalt_proto::etcdserverpb::PutRequest;
use basalt_proto::log::request::Kind;

use super::super::invariants::linearizable::What;
use super::super::invariants::permissions;
use super::super::registers::Registers;
use super::{Cluster, Event};
use crate::node_sim::Outcome;

impl Cluster {
    /// A client of a register asks for something, unless it still waits.
    pub(super) fn ask_register(&mut self, client: usize) {
        let pause = self.registers.pause();
        self.agenda.file(self.now + pause, Event::Register(client));
        let Some(id) = self.some_up().filter(|_| !self.registers.waits(client, self.now)) else { return };
        let root = self.accounts.root();
        let Some(asker) = self.asker(id, root) else { return };
        let now = self.now;
        let member = self.members.get_mut(&id).expect("it is up");
        let at = (id, member.life);
        let node = member.awake(now).expect("it is up");
        let (register, what) = self.registers.draw();
        let number = match what {
            What::Write(value) => {
                let (key, value) = (Registers::key(register), value.to_string());
                let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
                let kind = Kind::Put(put);
                let Ok(principal) = permissions::principal(node, &asker, &kind, &self.ledger) else { return };
                let request = self.clients.order(node, at, (kind, principal), now);
                self.ledger.sent(&request);
                request.id
            }
            What::Read(_) => {
                let number = self.registers.next_read();
                node.read_index(number);
                number
            }
        };
        member.look();
        self.registers.asks(client, number, id, (register, what), now);
    }

    /// Writes to registers are answered.
    pub(super) fn hear_registers(&mut self, id: u64, outcomes: &[Outcome]) {
        let own = |outcome: &&Outcome| outcome.entry.as_ref().is_some_and(|entry| entry.proposer == id);
        for (request, answer) in outcomes.iter().filter(own).flat_map(|outcome| &outcome.answers) {
            self.registers.wrote(*request, answer.is_ok(), self.now);
        }
    }

    /// Reads of registers are answered.
    pub(super) fn read_registers(&mut self, id: u64, ready: &[u64], failed: &[u64]) {
        let node = self.members[&id].node.as_ref().expect("it spoke just now");
        for read in ready {
            self.registers.read(*read, node, &self.ledger, self.now);
        }
        failed.iter().for_each(|read| self.registers.failed(*read));
    }
}
