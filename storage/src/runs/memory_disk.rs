//! A disk in memory for unit tests: everything is durable at once, nothing fails unless a test damaged it or filled
//! it up.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard};

use crate::disk::{Disk, FileId, Io, IoOutput};

/// Files by name; an id is the position of its name in `open`.
#[derive(Default)]
pub(crate) struct MemoryDisk {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    open: BTreeMap<u64, String>,
    opened: u64,
    trace: Vec<String>,
    longest_write: usize,
    /// Files, by the beginning of their names, and how many more requests for space they are granted.
    space: Option<(String, usize)>,
}

impl MemoryDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a test that panics ends")
    }

    /// The bytes of a file.
    pub(crate) fn get(&self, name: &str) -> Vec<u8> {
        self.state().files[name].clone()
    }

    /// Replaces a file.
    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        self.state().files.insert(name.to_owned(), bytes);
    }

    /// Grants files whose names begin so `requests` more for space, then the disk is full for them; `None` ends that.
    pub(crate) fn limit(&self, space: Option<(&str, usize)>) {
        self.state().space = space.map(|(names, requests)| (names.to_owned(), requests));
    }

    /// How many files are open.
    pub(crate) fn open_files(&self) -> usize {
        self.state().open.len()
    }

    /// Bytes of the longest write.
    pub(crate) fn longest_write(&self) -> usize {
        self.state().longest_write
    }

    /// What was asked for so far, one word each; the trace starts over.
    pub(crate) fn trace(&self) -> String {
        std::mem::take(&mut self.state().trace).join(" ")
    }
}

impl Disk for MemoryDisk {
    fn perform(&self, io: Io) -> io::Result<IoOutput> {
        let mut state = self.state();
        let (word, file) = match &io {
            Io::Open { .. } => ("open", None),
            Io::Close { file } => ("close", Some(file)),
            Io::Read { file, .. } => ("read", Some(file)),
            Io::Write { file, .. } => ("write", Some(file)),
            Io::Truncate { file, .. } => ("truncate", Some(file)),
            Io::Allocate { file, .. } => ("allocate", Some(file)),
            Io::Remove { .. } => ("remove", None),
            Io::CreateDir { .. } => ("create-dir", None),
            Io::List { .. } => ("list", None),
            Io::Sync { file } => ("sync", Some(file)),
            Io::SyncDir { .. } => ("sync-dir", None),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        state.trace.push(word.to_owned());
        let name = match file {
            Some(FileId(id)) => state.open.get(id).cloned().ok_or(io::ErrorKind::NotFound)?,
            None => String::new(),
        };
        if matches!(word, "allocate" | "write")
            && let Some((names, requests)) = &mut state.space
            && name.starts_with(names.as_str())
        {
            *requests = requests.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        }
        match io {
            Io::Open { name, create } => {
                if !create && !state.files.contains_key(&name) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                state.opened += 1;
                let id = state.opened;
                let length = state.files.entry(name.clone()).or_default().len() as u64;
                state.open.insert(id, name);
                return Ok(IoOutput::Opened { file: FileId(id), length });
            }
            Io::Remove { name } => {
                state.files.remove(&name).ok_or(io::ErrorKind::NotFound)?;
            }
            Io::Close { file } => {
                state.open.remove(&file.0);
            }
            Io::Read { offset, length, .. } => {
                let bytes = state.files[&name].get(offset as usize..offset as usize + length);
                return bytes
                    .map(|bytes| IoOutput::Read(bytes.to_vec().into()))
                    .ok_or(io::ErrorKind::UnexpectedEof.into());
            }
            Io::Write { offset, bytes, .. } => {
                state.longest_write = state.longest_write.max(bytes.len());
                let content = state.files.get_mut(&name).expect("an open file has bytes");
                let end = offset as usize + bytes.len();
                content.resize(content.len().max(end), 0);
                content[offset as usize..end].copy_from_slice(&bytes);
            }
            Io::Allocate { offset, length, .. } => {
                let content = state.files.get_mut(&name).expect("an open file has bytes");
                content.resize(content.len().max((offset + length) as usize), 0);
            }
            Io::List { directory } => {
                let prefix = format!("{directory}/");
                let names = state.files.keys().filter_map(|name| name.strip_prefix(&prefix)).map(str::to_owned);
                return Ok(IoOutput::Names(names.collect()));
            }
            Io::Truncate { length, .. } => {
                state.files.get_mut(&name).expect("an open file has bytes").resize(length as usize, 0);
            }
            _ => {}
        }
        Ok(IoOutput::Done)
    }
}
