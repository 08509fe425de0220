//! Clients of a few registers that nobody else writes: each asks for one thing at a time, and all is written down with when it
//! was asked and answered, for a search that knows nothing of revisions.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::invariants::linearizable::{self, Operation, What};
use super::invariants::reads::Question;
use crate::ledger::Ledger;
use crate::node_sim::SimulatedNode;

const CLIENTS: usize = 4;
const REGISTERS: usize = 2;
/// Between two times that a client looks whether it may ask, at most.
const PAUSE: Duration = Duration::from_millis(600);
/// Then it gives up, and never knows.
const GIVES_UP: Duration = Duration::from_secs(3);

/// Numbers of reads that are theirs.
const READS: u64 = 1 << 62;

/// Whether a read is of this room.
pub fn is_of_register(read: u64) -> bool {
    read & READS != 0
}

struct Asked {
    number: u64,
    member: u64,
    operation: Operation,
}

/// All of them.
pub struct Registers {
    random: StdRng,
    clients: Vec<Option<Asked>>,
    history: Vec<Operation>,
    values: u64,
    reads: u64,
}

impl Registers {
    /// Clients of a seed, or none.
    pub fn new(seed: u64, any: bool) -> Self {
        let random = StdRng::seed_from_u64(seed ^ 0x4e61_57e4);
        let clients = (0..if any { CLIENTS } else { 0 }).map(|_| None).collect();
        Self { random, clients, history: Vec::new(), values: 0, reads: 0 }
    }

    /// How many clients there are.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Operations whose end is known.
    pub fn known(&self) -> u64 {
        self.history.iter().filter(|operation| operation.returned.is_some()).count() as u64
    }

    /// The key of a register.
    pub fn key(register: usize) -> Vec<u8> {
        format!("/registers/{register}").into_bytes()
    }

    /// A pause.
    pub fn pause(&mut self) -> Duration {
        PAUSE.mul_f64(self.random.random())
    }

    /// What a client does next: no value is written twice.
    pub fn draw(&mut self) -> (usize, What) {
        let register = self.random.random_range(0..REGISTERS);
        if self.random.random() {
            return (register, What::Read(None));
        }
        self.values += 1;
        (register, What::Write(self.values))
    }

    /// A number for a read.
    pub fn next_read(&mut self) -> u64 {
        self.reads += 1;
        READS | self.reads
    }

    /// A client asks.
    pub fn asks(&mut self, client: usize, number: u64, member: u64, (register, what): (usize, What), called: Duration) {
        let operation = Operation { register, what, called, returned: None };
        self.clients[client] = Some(Asked { number, member, operation });
    }

    /// Whether a client waits for its answer; it gives up in time.
    pub fn waits(&mut self, client: usize, now: Duration) -> bool {
        let asked = self.clients[client].take_if(|asked| now > asked.operation.called + GIVES_UP);
        self.never_knows(asked);
        self.clients[client].is_some()
    }

    /// A member is gone: who waited there never knows.
    pub fn forget(&mut self, member: u64) {
        for client in 0..self.clients.len() {
            let asked = self.clients[client].take_if(|asked| asked.member == member);
            self.never_knows(asked);
        }
    }

    /// A read that nobody answered says nothing, a write may have been.
    fn never_knows(&mut self, asked: Option<Asked>) {
        let operation = asked.map(|asked| asked.operation);
        self.history.extend(operation.filter(|operation| matches!(operation.what, What::Write(_))));
    }

    fn take(&mut self, number: u64) -> Option<Operation> {
        let asks = |client: &&mut Option<Asked>| client.as_ref().is_some_and(|asked| asked.number == number);
        self.clients.iter_mut().find(asks)?.take().map(|asked| asked.operation)
    }

    /// A write was answered; one that was refused was not.
    pub fn wrote(&mut self, number: u64, done: bool, now: Duration) {
        let operation = self.take(number).filter(|_| done);
        self.history.extend(operation.map(|operation| Operation { returned: Some(now), ..operation }));
    }

    /// A read may look at a member.
    pub fn read(&mut self, number: u64, node: &SimulatedNode, ledger: &Ledger, now: Duration) {
        let Some(operation) = self.take(number) else { return };
        let question = Question { key: Self::key(operation.register), range_end: Vec::new() };
        let (_, found) = question.ask(node, 0, ledger);
        let text = found.into_iter().next().and_then(|(_, version)| String::from_utf8(version.value?).ok());
        let value = text.map(|text| text.parse().expect("nobody else writes registers"));
        self.history.push(Operation { what: What::Read(value), returned: Some(now), ..operation });
    }

    /// Nobody answers a read.
    pub fn failed(&mut self, number: u64) {
        self.take(number);
    }

    /// Looks for an order that explains everything.
    ///
    /// # Panics
    /// When there is none.
    pub fn check(&mut self) {
        let waiting: Vec<Asked> = self.clients.iter_mut().filter_map(Option::take).collect();
        waiting.into_iter().for_each(|asked| self.never_knows(Some(asked)));
        (0..REGISTERS).for_each(|register| linearizable::check(&self.history, register));
    }
}
