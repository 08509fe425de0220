//! How large each load is.

use clap::{Args, ValueEnum};

/// A set of sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scale {
    /// The same callers, less data: all loads in three minutes.
    Small,
    /// The sizes that claims are made with.
    Full,
}

/// Bytes of a value in most writes.
pub(super) const PUT_VALUE_BYTES: usize = 256;
/// Bytes of a value that is read singly or updated.
pub(super) const OBJECT_VALUE_BYTES: usize = 1024;
/// Bytes of a value in lists.
pub const LIST_VALUE_BYTES: usize = 4096;
/// Keys in a page of a list: what an API server asks for.
pub const PAGE_KEYS: usize = 500;
/// Keys that are written and read singly.
pub(super) const OBJECT_KEYS: usize = 10_000;

/// Scale of the loads, and single sizes to set beside it.
#[derive(Args, Clone, Debug)]
pub struct Sizes {
    /// Sizes of all loads
    #[arg(long, value_enum, default_value = "small")]
    scale: Scale,
    /// Connections [default: 100]
    #[arg(long, value_parser = between(1, 1_000))]
    connections: Option<u64>,
    /// Callers of short calls [default: 1,000]
    #[arg(long, value_parser = between(1, 10_000))]
    callers: Option<u64>,
    /// Callers of lists and counts [default: 4]
    #[arg(long, value_parser = between(1, 100))]
    list_callers: Option<u64>,
    /// Keys of 4 KiB in a list [default: 2,000; full: 10,000]
    #[arg(long, value_parser = between(1, 10_000_000))]
    list_keys: Option<u64>,
    /// Keys that are counted [default: 20,000; full: 100,000]
    #[arg(long, value_parser = between(1, 1_000_000))]
    count_keys: Option<u64>,
    /// Watchers of one prefix [default: 200; full: 1,000]
    #[arg(long, value_parser = between(1, 10_000))]
    prefix_watchers: Option<u64>,
    /// Watchers with a key each [default: 2,000; full: 10,000]
    #[arg(long, value_parser = between(1, 100_000))]
    key_watchers: Option<u64>,
}

fn between(least: u64, most: u64) -> clap::builder::RangedU64ValueParser<u64> {
    clap::builder::RangedU64ValueParser::new().range(least..=most)
}

impl Sizes {
    /// Connections, over which callers and watch streams are spread.
    pub fn connections(&self) -> usize {
        self.pick(self.connections, 100, 100)
    }

    /// Callers of calls that cost the server microseconds.
    pub(super) fn callers(&self) -> usize {
        self.pick(self.callers, 1_000, 1_000)
    }

    /// Callers of calls that cost the server milliseconds.
    pub(super) fn list_callers(&self) -> usize {
        self.pick(self.list_callers, 4, 4)
    }

    /// Keys of a list.
    pub fn list_keys(&self) -> usize {
        self.pick(self.list_keys, 2_000, 10_000)
    }

    pub(super) fn count_keys(&self) -> usize {
        self.pick(self.count_keys, 20_000, 100_000)
    }

    pub(super) fn prefix_watchers(&self) -> usize {
        self.pick(self.prefix_watchers, 200, 1_000)
    }

    pub(super) fn key_watchers(&self) -> usize {
        self.pick(self.key_watchers, 2_000, 10_000)
    }

    fn pick(&self, set: Option<u64>, small: usize, full: usize) -> usize {
        let of_scale = match self.scale {
            Scale::Small => small,
            Scale::Full => full,
        };
        set.map_or(of_scale, |set| set as usize)
    }
}
