//! The simulated disk itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use super::faults::Faults;
use super::file::SimulatedFile;
use super::namespace::{Inode, Namespace};
use super::power_cut::{Fates, PowerCut};
use crate::disk::{Disk, FileId, Io, IoOutput, name};

/// Capacity of a new disk: bounds what a wrong offset can make the test allocate.
const CAPACITY_BYTES: u64 = 16 << 30;

/// A disk in memory. Clones are handles to the same disk; [`SimulatedDisk::crash`] and
/// [`SimulatedDisk::restart`] make another one and leave this as it was, so that one state can be cut in many ways.
#[derive(Clone)]
pub struct SimulatedDisk {
    device: Arc<Mutex<Device>>,
}

struct Device {
    namespace: Namespace,
    files: BTreeMap<Inode, SimulatedFile>,
    open: BTreeMap<FileId, Inode>,
    /// Files without a name: some are open, or a power cut may bring their names back.
    unnamed: BTreeSet<Inode>,
    /// Never reused, also across crashes: an id of an earlier life is invalid, not somebody else's.
    file_ids: u64,
    inodes: u64,
    operations: u64,
    /// Of `operations`, those that may change what a power cut leaves, by how many were performed before each.
    changing: Vec<u64>,
    capacity_bytes: u64,
    faults: Faults,
    random: StdRng,
}

impl SimulatedDisk {
    /// An empty disk. `seed` decides which pages a failed sync had already written.
    pub fn new(seed: u64) -> Self {
        Self::with(Device {
            namespace: Namespace::default(),
            files: BTreeMap::new(),
            open: BTreeMap::new(),
            unnamed: BTreeSet::new(),
            file_ids: 0,
            inodes: 0,
            operations: 0,
            changing: Vec::new(),
            capacity_bytes: CAPACITY_BYTES,
            faults: Faults::default(),
            random: StdRng::seed_from_u64(seed),
        })
    }

    fn with(device: Device) -> Self {
        Self { device: Arc::new(Mutex::new(device)) }
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk after a power cut at this moment: no file open, no fault armed, counters at zero.
    pub fn crash(&self, power_cut: PowerCut) -> Self {
        let device = self.device();
        let mut fates = Fates::new(power_cut);
        let namespace = device.namespace.after_power_cut(&mut fates);
        let named = namespace.named();
        let survivors = device.files.iter().filter(|(inode, _)| named.contains(inode));
        let files = survivors.map(|(inode, file)| (*inode, file.after_power_cut(&mut fates))).collect();
        Self::with(device.reborn(namespace, files))
    }

    /// How many changes a power cut at this moment decides about, one by one: sectors, lengths and names that were not
    /// synced.
    pub fn unsynced_changes(&self) -> usize {
        let device = self.device();
        let of_files: usize = device.files.values().map(SimulatedFile::unsynced_changes).sum();
        device.namespace.unsynced_changes() + of_files
    }

    /// The disk after the process died and the operating system lived on: the cache keeps everything, also what
    /// was never synced or whose sync failed. No file open, no fault armed, counters at zero.
    pub fn restart(&self) -> Self {
        let device = self.device();
        Self::with(device.reborn(device.namespace.clone(), device.files.clone()))
    }

    /// Requests performed since the disk was made, failed ones included but not those after a stop.
    pub fn operations(&self) -> u64 {
        self.device().operations
    }

    /// Of the requests performed, those that may change what a power cut leaves, writes and syncs and changes of names:
    /// for each how many were performed before it, which is what [`SimulatedDisk::stop_after`] takes to stop there.
    pub fn changing_operations(&self) -> Vec<u64> {
        self.device().changing.clone()
    }

    /// Lets `operations` requests succeed, counted from when the disk was made; every later one fails and does
    /// nothing ([`InjectedFault::Stopped`](crate::disk::InjectedFault::Stopped)).
    pub fn stop_after(&self, operations: u64) {
        self.device().faults.stop_after = Some(operations);
    }

    /// Whether a request was refused because the disk was stopped.
    pub fn is_stopped(&self) -> bool {
        self.device().faults.is_stopped
    }

    /// Makes the `nth` sync from now, of a file or directory, counted from 1, fail. Its pages are dropped as Linux
    /// drops them: still readable, not durable, and the next sync succeeds.
    pub fn fail_sync(&self, nth: u64) {
        let faults = &mut self.device().faults;
        (faults.syncs_to_failure, faults.sync_says_full) = (nth, false);
    }

    /// The same, with an error that says that the disk is full: what a file system says that finds no block for
    /// what it had promised to write.
    pub fn fail_sync_as_full(&self, nth: u64) {
        let faults = &mut self.device().faults;
        (faults.syncs_to_failure, faults.sync_says_full) = (nth, true);
    }

    /// Makes the `nth` write from now, counted from 1, fail and do nothing.
    pub fn fail_write(&self, nth: u64) {
        self.device().faults.writes_to_failure = nth;
    }

    /// Syncs and writes that failed because a test asked for it, and requests refused for lack of space.
    pub fn faults_met(&self) -> u64 {
        self.device().faults.met
    }

    /// Makes every read that covers byte `offset` of `name` fail; `false` when there is no such file.
    pub fn fail_reads_at(&self, name: &str, offset: u64) -> bool {
        let mut device = self.device();
        let inode = device.namespace.find(name);
        device.faults.unreadable.extend(inode.map(|inode| (inode, offset)));
        inode.is_some()
    }

    /// Flips bit `bit` (0 to 7) of byte `offset` of `name`, in the cache and for good; `false` when there is no
    /// such byte.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) -> bool {
        let mut device = self.device();
        let inode = device.namespace.find(name);
        inode.and_then(|inode| device.files.get_mut(&inode)).is_some_and(|file| file.flip(offset, bit % 8))
    }

    /// Sets the capacity, in bytes of allocated blocks. Requests that would exceed it fail with `StorageFull`;
    /// lowering it below what is used fails every growing request.
    pub fn set_capacity(&self, bytes: u64) {
        self.device().capacity_bytes = bytes;
    }

    /// Bytes of allocated blocks of all files that have a name or are open.
    pub fn used_bytes(&self) -> u64 {
        self.device().used_bytes()
    }

    /// Names of all files, sorted, with their path.
    pub fn files(&self) -> Vec<String> {
        self.device().namespace.files().map(str::to_owned).collect()
    }

    /// The bytes of `name` as a reader sees them.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let device = self.device();
        let file = device.files.get(&device.namespace.find(name)?)?;
        let mut bytes = vec![0; usize::try_from(file.length()).ok()?];
        file.read(0, &mut bytes);
        Some(bytes)
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SimulatedDisk").field("files", &self.files()).finish_non_exhaustive()
    }
}

impl Disk for SimulatedDisk {
    fn perform(&self, io: Io) -> io::Result<IoOutput> {
        let mut device = self.device();
        let performed = device.operations;
        device.faults.check_stop(performed)?;
        device.operations += 1;
        let changes = match &io {
            Io::Read { .. } | Io::Stat { .. } | Io::List { .. } | Io::Close { .. } => false,
            Io::Open { name, create } => *create && device.namespace.find(name).is_none(),
            _ => true,
        };
        if changes {
            device.changing.push(performed);
        }
        match io {
            Io::Open { name, create } => device.open(&name, create),
            Io::Read { file, offset, length } => device.read(file, offset, length),
            Io::Stat { file } => {
                let file = device.file(file)?.1;
                Ok(IoOutput::Stat { length: file.length(), allocated: file.allocated_bytes() })
            }
            Io::List { directory } => {
                name::check_directory(&directory)?;
                Ok(IoOutput::Names(device.namespace.list(&directory)?))
            }
            plain => device.perform_plain(plain).map(|()| IoOutput::Done),
        }
    }
}

impl Device {
    fn reborn(&self, namespace: Namespace, files: BTreeMap<Inode, SimulatedFile>) -> Self {
        let named = namespace.named();
        let mut device = Self {
            unnamed: files.keys().filter(|inode| !named.contains(inode)).copied().collect(),
            namespace,
            files,
            open: BTreeMap::new(),
            file_ids: self.file_ids,
            inodes: self.inodes,
            operations: 0,
            changing: Vec::new(),
            capacity_bytes: self.capacity_bytes,
            faults: Faults::default(),
            random: self.random.clone(),
        };
        device.forget_unreachable();
        device
    }

    fn perform_plain(&mut self, io: Io) -> io::Result<()> {
        let unlinks = matches!(io, Io::Close { .. } | Io::Rename { .. } | Io::Remove { .. } | Io::SyncDir { .. });
        match io {
            Io::Close { file } => self.open.remove(&file).map(drop).ok_or_else(not_open)?,
            Io::Write { file, offset, bytes } => self.write(file, offset, &bytes)?,
            Io::Sync { file } => self.sync(file)?,
            Io::Truncate { file, length } => self.file(file)?.1.truncate(length),
            Io::Allocate { file, offset, length } => self.allocate(file, offset, length)?,
            Io::PunchHole { file, offset, length } => {
                let file = self.file(file)?.1;
                file.punch(offset, end(offset, length)?.min(file.length().max(offset)));
            }
            Io::Rename { from, to } => {
                name::check_file(&from)?;
                name::check_file(&to)?;
                let replaced = self.namespace.find(&to).filter(|_| from != to);
                self.namespace.rename(&from, &to)?;
                self.unnamed.extend(replaced);
            }
            Io::Exchange { one, other } => {
                name::check_file(&one)?;
                name::check_file(&other)?;
                self.namespace.exchange(&one, &other)?;
            }
            Io::Remove { name } => {
                name::check_file(&name)?;
                let inode = self.namespace.find(&name);
                self.namespace.unlink(&name)?;
                self.unnamed.extend(inode);
            }
            Io::CreateDir { name } => {
                name::check_file(&name)?;
                self.namespace.make_directories(&name)?;
            }
            Io::SyncDir { directory } => self.sync_directory(&directory)?,
            Io::Open { .. } | Io::Read { .. } | Io::Stat { .. } | Io::List { .. } => {
                unreachable!("`perform` answers these itself")
            }
        }
        if unlinks {
            self.forget_unreachable();
        }
        Ok(())
    }

    fn file(&mut self, id: FileId) -> io::Result<(Inode, &mut SimulatedFile)> {
        let inode = *self.open.get(&id).ok_or_else(not_open)?;
        Ok((inode, self.files.get_mut(&inode).expect("an open file is kept")))
    }

    fn open(&mut self, name: &str, create: bool) -> io::Result<IoOutput> {
        name::check_file(name)?;
        let inode = match self.namespace.find(name) {
            Some(inode) => inode,
            None if create => {
                let inode = Inode(self.inodes + 1);
                self.namespace.link(name, inode)?;
                self.inodes += 1;
                self.files.insert(inode, SimulatedFile::default());
                inode
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        self.file_ids += 1;
        let file = FileId(self.file_ids);
        self.open.insert(file, inode);
        Ok(IoOutput::Opened { file, length: self.files[&inode].length() })
    }

    fn read(&mut self, file: FileId, offset: u64, length: usize) -> io::Result<IoOutput> {
        let end = end(offset, length as u64)?;
        let (inode, file) = self.file(file)?;
        if end > file.length() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        file.read(offset, &mut bytes);
        self.faults.check_read(inode, offset, end)?;
        Ok(IoOutput::Read(Bytes::from(bytes)))
    }

    fn write(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = end(offset, bytes.len() as u64)?;
        if let Some(error) = self.faults.take_write() {
            return Err(error);
        }
        self.check_space(file, offset, end)?;
        self.file(file)?.1.write(offset, bytes);
        Ok(())
    }

    fn allocate(&mut self, file: FileId, offset: u64, length: u64) -> io::Result<()> {
        let end = end(offset, length)?;
        if length == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.check_space(file, offset, end)?;
        self.file(file)?.1.allocate(offset, end);
        Ok(())
    }

    fn sync(&mut self, file: FileId) -> io::Result<()> {
        if let Some(error) = self.faults.take_sync() {
            let mut fates = Fates::new(PowerCut::Seeded(self.random.next_u64()));
            self.file(file)?.1.fail_sync(&mut fates);
            return Err(error);
        }
        self.file(file)?.1.sync();
        Ok(())
    }

    fn sync_directory(&mut self, directory: &str) -> io::Result<()> {
        name::check_directory(directory)?;
        if let Some(error) = self.faults.take_sync() {
            let mut fates = Fates::new(PowerCut::Seeded(self.random.next_u64()));
            self.namespace.fail_sync(directory, &mut fates);
            return Err(error);
        }
        self.namespace.sync(directory)
    }

    fn check_space(&mut self, file: FileId, offset: u64, end: u64) -> io::Result<()> {
        let missing = self.file(file)?.1.missing_bytes(offset, end);
        // Most disks are far from full: what all files take together is quicker to say.
        let fits = |used: u64| used.saturating_add(missing) <= self.capacity_bytes;
        if missing > 0 && !fits(self.allocated_bytes()) && !fits(self.used_bytes()) {
            return Err(self.faults.full());
        }
        Ok(())
    }

    /// Of all files, also those that nothing but a power cut would bring back.
    fn allocated_bytes(&self) -> u64 {
        self.files.values().map(SimulatedFile::allocated_bytes).sum()
    }

    fn used_bytes(&self) -> u64 {
        let mut counted = self.namespace.named();
        counted.extend(self.open.values());
        counted.iter().filter_map(|inode| self.files.get(inode)).map(SimulatedFile::allocated_bytes).sum()
    }

    /// Drops files that nobody holds open and that no power cut could bring back.
    fn forget_unreachable(&mut self) {
        let Self { namespace, files, open, unnamed, .. } = self;
        unnamed.retain(|inode| {
            let is_kept = namespace.reaches(*inode) || open.values().any(|opened| opened == inode);
            if !is_kept {
                files.remove(inode);
            }
            is_kept
        });
    }
}

/// End of a range, within what a file offset can express.
fn end(offset: u64, length: u64) -> io::Result<u64> {
    let end = offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok());
    end.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn not_open() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "file is not open")
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
