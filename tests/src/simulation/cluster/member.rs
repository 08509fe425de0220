//! One member, up or down.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_storage::disk::{PowerCut, SimulatedDisk};

use crate::node_sim::SimulatedNode;
use crate::opening::Place;

/// A turn of a healthy member takes this at most.
pub(super) const TURN: Duration = Duration::from_micros(400);

/// A healthy member does something again within this.
const SOON: Duration = Duration::from_secs(1);

/// A member and its disk.
pub(super) struct MemberPlace {
    pub(super) place: Place,
    pub(super) node: Option<SimulatedNode>,
    /// While it is down; `None` also when it left for good.
    pub(super) disk: Option<SimulatedDisk>,
    /// How often it was started.
    pub(super) life: u64,
    /// The first data directory of each other member that it heard in this life.
    pub(super) heard: BTreeMap<u64, u128>,
    /// Whether it lost its disk.
    pub(super) is_wiped: bool,
    pub(super) turn: Duration,
    /// It stands still until then.
    pub(super) paused_until: Duration,
    /// When it does something again, as it was last seen.
    turn_at: Option<Duration>,
    /// Of the lives before this.
    asked_again: usize,
    installs: usize,
}

impl MemberPlace {
    /// A member that was never started.
    pub(super) fn new(place: Place, disk: SimulatedDisk) -> Self {
        Self {
            place,
            node: None,
            disk: Some(disk),
            life: 0,
            heard: BTreeMap::new(),
            is_wiped: false,
            turn: TURN,
            paused_until: Duration::ZERO,
            turn_at: None,
            asked_again: 0,
            installs: 0,
        }
    }

    /// Whether this is the first data directory of a member that it hears, in this life.
    pub(super) fn is_first_incarnation(&mut self, member: u64, incarnation: u128) -> bool {
        *self.heard.entry(member).or_insert(incarnation) == incarnation
    }

    /// Whether it left for good.
    pub(super) fn is_gone(&self) -> bool {
        self.node.is_none() && self.disk.is_none()
    }

    /// Whether it is up, and nothing keeps it from its work; or it left for good.
    pub(super) fn is_healthy(&self, now: Duration) -> bool {
        // Who was told something while it stood still lives in the time after that, also if it was healed before (seed 5001420).
        let goes_on = self.turn_at.is_none_or(|at| at <= now + SOON);
        let works = |node: &SimulatedNode| self.paused_until <= now && goes_on && !node.is_stalled();
        self.is_gone() || self.node.as_ref().is_some_and(works)
    }

    /// When it does something again.
    pub(super) fn turn_at(&self) -> Option<Duration> {
        self.turn_at.map(|at| at.max(self.paused_until))
    }

    /// Whoever did something with the node says so.
    pub(super) fn look(&mut self) {
        self.turn_at = self.node.as_ref().map(SimulatedNode::next_turn);
    }

    /// The node, to be told something; who stands still hears it when it goes on.
    pub(super) fn awake(&mut self, now: Duration) -> Option<&mut SimulatedNode> {
        let node = self.node.as_mut()?;
        node.pass_until(now.max(self.paused_until));
        Some(node)
    }

    /// Its disk, whether it is up or down.
    pub(super) fn any_disk(&self) -> Option<&SimulatedDisk> {
        self.node.as_ref().map(SimulatedNode::disk).or(self.disk.as_ref())
    }

    /// It goes on, and its disk answers.
    pub(super) fn recover(&mut self) {
        self.paused_until = Duration::ZERO;
        if let Some(node) = &mut self.node {
            node.heal_disk();
        }
        self.look();
    }

    /// Its power goes.
    pub(super) fn lose_power(&mut self, power_cut: PowerCut) {
        self.disk = self.end().map(|node| node.crash(power_cut));
    }

    /// Its process ends, and its operating system lives on.
    pub(super) fn end_process(&mut self) {
        self.disk = self.end().map(SimulatedNode::restart);
    }

    /// It ends.
    pub(super) fn end(&mut self) -> Option<SimulatedNode> {
        let node = self.node.take()?;
        self.asked_again += node.overlaps.asked_again;
        self.installs += node.installs;
        self.turn_at = None;
        Some(node)
    }

    /// Requests that outlived their leader, and states that took the place of its own, in all its lives.
    pub(super) fn totals(&self) -> (usize, usize) {
        let again = self.node.as_ref().map_or(0, |node| node.overlaps.asked_again);
        let installs = self.node.as_ref().map_or(0, |node| node.installs);
        (self.asked_again + again, self.installs + installs)
    }

    /// In words.
    pub(super) fn state(&self) -> String {
        self.node.as_ref().map_or("down".to_owned(), SimulatedNode::state)
    }
}
