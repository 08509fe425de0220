//! The targets, one a file.

mod bbolt;
mod certificates;
mod config;
mod discovery;
mod etcd_log;
mod gateway;
mod grpc_frames;
mod log;
mod manifest;
mod pages;
mod peer;
mod requests;
mod runs;
mod tokens;
mod transactions;
mod transfer;

// Of `transactions`.
mod answers;
mod naive;

/// A parser, or a chain of them, as a function of bytes.
pub struct Target {
    /// What it is called; its corpus stands in a folder of that name.
    pub name: &'static str,
    /// Takes any bytes.
    ///
    /// # Panics
    /// When a promise is broken.
    pub run: fn(&[u8]),
    /// Inputs that reach deep, made by code.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many changed inputs a replay runs, so that all take a minute together.
    pub replays: u32,
}

/// All of them.
#[rustfmt::skip]
pub const TARGETS: &[Target] = &[
    Target { name: "requests", run: requests::run, seeds: requests::seeds, replays: 6000 },
    Target { name: "transactions", run: transactions::run, seeds: transactions::seeds, replays: 1500 },
    Target { name: "log", run: log::run, seeds: log::seeds, replays: 1500 },
    Target { name: "pages", run: pages::run, seeds: pages::seeds, replays: 1000 },
    Target { name: "runs", run: runs::run, seeds: runs::seeds, replays: 4000 },
    Target { name: "manifest", run: manifest::run, seeds: manifest::seeds, replays: 1500 },
    Target { name: "bbolt", run: bbolt::run, seeds: bbolt::seeds, replays: 800 },
    Target { name: "peer", run: peer::run, seeds: peer::seeds, replays: 4000 },
    Target { name: "transfer", run: transfer::run, seeds: transfer::seeds, replays: 500 },
    Target { name: "gateway", run: gateway::run, seeds: gateway::seeds, replays: 3000 },
    Target { name: "config", run: config::run, seeds: config::seeds, replays: 3000 },
    Target { name: "tokens", run: tokens::run, seeds: tokens::seeds, replays: 3000 },
    Target { name: "certificates", run: certificates::run, seeds: certificates::seeds, replays: 1000 },
    Target { name: "grpc_frames", run: grpc_frames::run, seeds: grpc_frames::seeds, replays: 6000 },
    Target { name: "discovery", run: discovery::run, seeds: discovery::seeds, replays: 4000 },
    Target { name: "etcd_log", run: etcd_log::run, seeds: etcd_log::seeds, replays: 4000 },
];
