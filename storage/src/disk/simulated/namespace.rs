//! Names: which the cache shows, which the platter has, and which changes lie between.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::power_cut::Fates;

/// A file, whatever it is called now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Inode(pub(super) u64);

/// One change of names. It persists as a whole or not at all.
#[derive(Clone, Debug)]
enum Change {
    Link { name: String, inode: Inode },
    Unlink { name: String },
    Move { from: String, to: String, inode: Inode },
    Exchange { one: String, other: String },
    MakeDirectory { name: String },
}

#[derive(Clone, Debug)]
struct Pending {
    change: Change,
    /// Directories that must still be synced before the change is durable.
    unsynced: BTreeSet<String>,
}

/// Names and directories as one of the two sides sees them.
#[derive(Clone, Debug, Default)]
struct Names {
    files: BTreeMap<String, Inode>,
    directories: BTreeSet<String>,
}

/// Invariant: every file and directory the cache shows has its parent directory there.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespace {
    cached: Names,
    durable: Names,
    pending: Vec<Pending>,
}

impl Namespace {
    pub(super) fn find(&self, name: &str) -> Option<Inode> {
        self.cached.files.get(name).copied()
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.cached.files.keys().map(String::as_str)
    }

    /// Files that have a name.
    pub(super) fn named(&self) -> BTreeSet<Inode> {
        self.cached.files.values().copied().collect()
    }

    /// Whether a file has a name, or some power cut could give it one.
    pub(super) fn reaches(&self, file: Inode) -> bool {
        let links = |pending: &Pending| match pending.change {
            Change::Link { inode, .. } | Change::Move { inode, .. } => inode == file,
            Change::Unlink { .. } | Change::Exchange { .. } | Change::MakeDirectory { .. } => false,
        };
        let mut names = self.cached.files.values().chain(self.durable.files.values());
        names.any(|inode| *inode == file) || self.pending.iter().any(links)
    }

    pub(super) fn link(&mut self, name: &str, inode: Inode) -> io::Result<()> {
        self.check_parent(name)?;
        self.check_no_directory(name)?;
        self.make(Change::Link { name: name.into(), inode });
        Ok(())
    }

    pub(super) fn unlink(&mut self, name: &str) -> io::Result<()> {
        self.find(name).ok_or(io::ErrorKind::NotFound)?;
        self.make(Change::Unlink { name: name.into() });
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let inode = self.find(from).ok_or(io::ErrorKind::NotFound)?;
        self.check_parent(to)?;
        self.check_no_directory(to)?;
        if from != to {
            self.make(Change::Move { from: from.into(), to: to.into(), inode });
        }
        Ok(())
    }

    pub(super) fn exchange(&mut self, one: &str, other: &str) -> io::Result<()> {
        for name in [one, other] {
            if self.find(name).is_none() && !self.cached.directories.contains(name) {
                return Err(io::ErrorKind::NotFound.into());
            }
        }
        if is_below(one, other) || is_below(other, one) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if one != other {
            self.make(Change::Exchange { one: one.into(), other: other.into() });
        }
        Ok(())
    }

    pub(super) fn make_directories(&mut self, name: &str) -> io::Result<()> {
        let ends = name.match_indices('/').map(|(end, _)| end).chain([name.len()]);
        for directory in ends.map(|end| &name[..end]) {
            if self.cached.files.contains_key(directory) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if !self.cached.directories.contains(directory) {
                self.make(Change::MakeDirectory { name: directory.into() });
            }
        }
        Ok(())
    }

    pub(super) fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.check_directory(directory)?;
        let all = self.cached.files.keys().chain(&self.cached.directories);
        let inside = all.filter(|name| parent(name) == directory).map(|name| last_part(name).to_owned());
        let sorted: BTreeSet<String> = inside.collect();
        Ok(sorted.into_iter().collect())
    }

    pub(super) fn sync(&mut self, directory: &str) -> io::Result<()> {
        self.check_directory(directory)?;
        for pending in self.settle(directory) {
            self.durable.apply(&pending.change);
        }
        Ok(())
    }

    /// The sync failed: what waited for it is durable or not, and no later sync tries again.
    pub(super) fn fail_sync(&mut self, directory: &str, fates: &mut Fates) {
        for pending in self.settle(directory) {
            if fates.survives() {
                self.durable.apply(&pending.change);
            }
        }
    }

    /// Changes of names that were not synced.
    pub(super) fn unsynced_changes(&self) -> usize {
        self.pending.len()
    }

    /// The names as the platter has them after a power cut.
    pub(super) fn after_power_cut(&self, fates: &mut Fates) -> Self {
        let mut durable = self.durable.clone();
        for pending in &self.pending {
            if fates.survives() {
                durable.apply(&pending.change);
            }
        }
        durable.drop_orphans();
        Self { cached: durable.clone(), durable, pending: Vec::new() }
    }

    fn make(&mut self, change: Change) {
        self.cached.apply(&change);
        let names: &[&String] = match &change {
            Change::Link { name, .. } | Change::Unlink { name } | Change::MakeDirectory { name } => &[name],
            Change::Move { from, to, .. } => &[from, to],
            Change::Exchange { one, other } => &[one, other],
        };
        let unsynced = names.iter().map(|name| parent(name).to_owned()).collect();
        self.pending.push(Pending { change, unsynced });
    }

    /// Takes out the changes that wait for nothing but a sync of `directory`, in order.
    fn settle(&mut self, directory: &str) -> Vec<Pending> {
        self.pending
            .extract_if(.., |pending| {
                pending.unsynced.remove(directory);
                pending.unsynced.is_empty()
            })
            .collect()
    }

    fn check_parent(&self, name: &str) -> io::Result<()> {
        self.check_directory(parent(name))
    }

    fn check_directory(&self, name: &str) -> io::Result<()> {
        let exists = name.is_empty() || self.cached.directories.contains(name);
        if exists { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn check_no_directory(&self, name: &str) -> io::Result<()> {
        let is_directory = self.cached.directories.contains(name);
        if is_directory { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(()) }
    }
}

impl Names {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Link { name, inode } => drop(self.files.insert(name.clone(), *inode)),
            Change::Unlink { name } => drop(self.files.remove(name)),
            Change::Move { to, inode, .. } => {
                // A file has one name: when an earlier change was lost, it moves from wherever it still is.
                self.files.retain(|_, named| named != inode);
                self.files.insert(to.clone(), *inode);
            }
            Change::Exchange { one, other } => {
                let exchanged = |name: String| exchanged(name, one, other);
                self.files =
                    std::mem::take(&mut self.files).into_iter().map(|(n, inode)| (exchanged(n), inode)).collect();
                self.directories = std::mem::take(&mut self.directories).into_iter().map(exchanged).collect();
            }
            Change::MakeDirectory { name } => drop(self.directories.insert(name.clone())),
        }
    }

    /// Drops what lies in directories that were lost.
    fn drop_orphans(&mut self) {
        // Sorted order visits a directory before what lies in it.
        let mut kept = BTreeSet::from([String::new()]);
        for directory in &self.directories {
            if kept.contains(parent(directory)) {
                kept.insert(directory.clone());
            }
        }
        self.files.retain(|name, _| kept.contains(parent(name)));
        kept.remove("");
        self.directories = kept;
    }
}

/// A name after `one` and `other`, and what lies below them, were exchanged.
fn exchanged(name: String, one: &str, other: &str) -> String {
    for (from, to) in [(one, other), (other, one)] {
        if name == from || is_below(&name, from) {
            return format!("{to}{}", &name[from.len()..]);
        }
    }
    name
}

fn is_below(name: &str, directory: &str) -> bool {
    name.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn last_part(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, last)| last)
}
