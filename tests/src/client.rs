//! A client of a simulated node: its requests, and what it remembers of the answers over all lives of the node.

use std::time::Duration;

use basalt_proto::log::Request;
use basalt_proto::log::request::Kind;
use basalt_storage::disk::SimulatedDisk;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::ledger::Ledger;
use crate::node_sim::SimulatedNode;
use crate::over::Over;
use crate::workload::Workload;

/// Of the turns of a busy node, one in so many begins with a request.
const TURNS_PER_REQUEST: u32 = 8;
/// Of the requests, one in so many comes with a snapshot, unless one is under way.
const REQUESTS_PER_SNAPSHOT: u32 = 8;
/// As many come with a defragmentation.
const REQUESTS_PER_DEFRAGMENTATION: u32 = 16;

/// A client, its knowledge, and what it will do next.
pub struct Client {
    /// What it knows.
    pub ledger: Ledger,
    /// For choices of the test.
    pub random: StdRng,
    workload: Workload,
    checkpoint_interval: Duration,
}

impl Client {
    /// The client of a seed, of nodes with this interval of checkpoints.
    pub fn new(seed: u64, checkpoint_interval: Duration) -> Self {
        let (ledger, workload) = (Ledger::default(), Workload::new(seed));
        Self { ledger, workload, random: StdRng::seed_from_u64(seed), checkpoint_interval }
    }

    /// Opens a healthy disk, waits for the node and looks for everything.
    pub fn open(&mut self, disk: SimulatedDisk) -> SimulatedNode {
        let seed = self.random.random();
        let mut node = SimulatedNode::open(disk, seed, self.checkpoint_interval).expect("the disk is healthy");
        self.rest_and_check(&mut node);
        node
    }

    /// Waits until the node has answered everything, and looks for everything.
    ///
    /// # Panics
    /// When something is missing, or there that should not be.
    pub fn rest_and_check(&mut self, node: &mut SimulatedNode) {
        self.rest(node).expect("the disk is healthy");
        self.ledger.check(node);
    }

    /// Waits until the node has answered everything, or is over.
    ///
    /// # Errors
    /// [`Over`]; the node is.
    pub fn rest(&mut self, node: &mut SimulatedNode) -> Result<(), Over> {
        let rested = node.rest();
        self.hear(node);
        rested
    }

    /// Sends the next request.
    pub fn send(&mut self, node: &mut SimulatedNode) {
        let request = self.workload.next_request(self.ledger.revision());
        self.propose(node, request);
        if self.random.random_ratio(1, REQUESTS_PER_SNAPSHOT) {
            node.begin_snapshot();
        }
        if self.random.random_ratio(1, REQUESTS_PER_DEFRAGMENTATION) {
            node.begin_defragmentation();
        }
    }

    /// Sends a request of the test's own.
    pub fn send_kind(&mut self, node: &mut SimulatedNode, kind: Kind) {
        let request = self.workload.request(kind);
        self.propose(node, request);
    }

    fn propose(&mut self, node: &mut SimulatedNode, request: Request) {
        self.ledger.sent(&request);
        node.propose(request);
    }

    /// The node goes on by a turn, and what it answers is heard, also when that turn is its last.
    ///
    /// # Errors
    /// [`Over`]; the node is.
    pub fn turn(&mut self, node: &mut SimulatedNode) -> Result<(), Over> {
        let turn = node.turn();
        self.hear(node);
        turn
    }

    /// Sends requests while the node works, until `count` were sent or the node is over.
    ///
    /// # Errors
    /// [`Over`]; the node is.
    pub fn work(&mut self, node: &mut SimulatedNode, count: usize) -> Result<(), Over> {
        let mut left = count;
        while left > 0 {
            if self.random.random_ratio(1, TURNS_PER_REQUEST) {
                self.send(node);
                left -= 1;
            }
            self.turn(node)?;
        }
        Ok(())
    }

    /// Sends requests until `checkpoints` more ended, to a healthy disk.
    pub fn work_for_checkpoints(&mut self, node: &mut SimulatedNode, checkpoints: usize) {
        let wanted = node.overlaps.checkpoints + checkpoints;
        while node.overlaps.checkpoints < wanted {
            self.work(node, 1).expect("the disk is healthy");
        }
    }

    fn hear(&mut self, node: &mut SimulatedNode) {
        self.ledger.take(node.take_outcomes());
        for snapshot in node.take_snapshots() {
            self.ledger.check_snapshot(snapshot);
        }
    }
}
