//! Reads in the order of the disk: what lies near each other is fetched together.

use std::io;

use bytes::Bytes;

use crate::disk::{FileId, Io, IoOutput};
use crate::job::Completions;

use super::allocator::PAGE_SIZE;
use super::error::PagesError;

/// Reads handed out at the same time.
pub const READS_IN_FLIGHT_MAX: usize = 32;
/// Two reads are joined across a gap up to this.
pub const READ_GAP_BYTES_MAX: u64 = 16 * 1024;
/// A joined read grows to this at most.
pub const READ_JOINED_BYTES_MAX: u64 = 1024 * 1024;

/// A piece of the file that somebody waits for; `token` says who.
#[derive(Debug)]
struct Want<T> {
    offset: u64,
    length: u64,
    token: T,
}

#[derive(Debug)]
struct JoinedRead<T> {
    offset: u64,
    length: u64,
    wants: Vec<Want<T>>,
}

/// Collects wants, hands them out joined and sorted by place, and gives each its bytes.
#[derive(Debug)]
pub(super) struct ReadQueue<T> {
    waiting: Vec<Want<T>>,
    in_flight: Vec<JoinedRead<T>>,
}

impl<T> ReadQueue<T> {
    pub fn new() -> Self {
        Self { waiting: Vec::new(), in_flight: Vec::new() }
    }

    /// Asks for a piece of the file.
    pub fn want(&mut self, offset: u64, length: usize, token: T) {
        self.waiting.push(Want { offset, length: length as u64, token });
    }

    /// How many wants were not handed out yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The next reads, lowest place first; `None` if nothing waits. What exceeds the number in flight waits on.
    pub fn submit(&mut self, file: FileId) -> Option<Vec<Io>> {
        assert!(self.in_flight.is_empty(), "reads are submitted before the last ones completed");
        self.waiting.sort_by_key(|want| std::cmp::Reverse(want.offset));
        while let Some(want) = self.waiting.pop() {
            let full = self.in_flight.len() == READS_IN_FLIGHT_MAX;
            match self.in_flight.last_mut() {
                Some(read) if read.takes(&want) => {
                    read.length = read.length.max(want.offset + want.length - read.offset);
                    read.wants.push(want);
                }
                _ if full => {
                    self.waiting.push(want);
                    break;
                }
                _ => self.in_flight.push(JoinedRead { offset: want.offset, length: want.length, wants: vec![want] }),
            }
        }
        let read = |read: &JoinedRead<T>| Io::Read { file, offset: read.offset, length: read.length as usize };
        (!self.in_flight.is_empty()).then(|| self.in_flight.iter().map(read).collect())
    }

    /// Takes the completions of the last [`Self::submit`]; returns each want's token and bytes.
    ///
    /// # Errors
    /// [`PagesError::Read`] for the first read that failed; the others' bytes are dropped with it.
    pub fn complete(&mut self, completions: Completions) -> Result<Vec<(T, Bytes)>, PagesError> {
        let reads = std::mem::take(&mut self.in_flight);
        assert_eq!(completions.len(), reads.len(), "one completion for each read");
        let mut answers = Vec::with_capacity(reads.len());
        for (read, completion) in reads.into_iter().zip(completions) {
            let bytes = read_bytes(completion, read.offset, read.length)?;
            for want in read.wants {
                let from = (want.offset - read.offset) as usize;
                answers.push((want.token, bytes.slice(from..from + want.length as usize)));
            }
        }
        Ok(answers)
    }
}

impl<T> JoinedRead<T> {
    fn takes(&self, want: &Want<T>) -> bool {
        let end = self.offset + self.length;
        let joined = (want.offset + want.length).max(end) - self.offset;
        want.offset <= end + READ_GAP_BYTES_MAX && joined <= READ_JOINED_BYTES_MAX.max(self.length)
    }
}

/// The bytes of a completed read of `length` at `offset`.
///
/// # Errors
/// [`PagesError::Read`] if it failed or is not a read of that length.
pub(super) fn read_bytes(completion: io::Result<IoOutput>, offset: u64, length: u64) -> Result<Bytes, PagesError> {
    let failed = |source| PagesError::Read { page: offset / PAGE_SIZE as u64, source };
    match completion.map_err(failed)? {
        IoOutput::Read(bytes) if bytes.len() as u64 == length => Ok(bytes),
        _ => Err(failed(io::ErrorKind::UnexpectedEof.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(reads: &[Io]) -> Vec<(u64, usize)> {
        let place = |io: &Io| match io {
            Io::Read { offset, length, .. } => (*offset, *length),
            other => panic!("{other:?} is no read"),
        };
        reads.iter().map(place).collect()
    }

    #[test]
    fn neighbours_are_joined_and_each_gets_its_piece() {
        let mut queue = ReadQueue::new();
        queue.want(100_000, 10, 'c');
        queue.want(20, 10, 'b');
        queue.want(0, 30, 'a');
        queue.want(30 + READ_GAP_BYTES_MAX, 5, 'd');
        let reads = queue.submit(FileId(1)).unwrap();
        assert_eq!(places(&reads), [(0, 35 + READ_GAP_BYTES_MAX as usize), (100_000, 10)]);
        let read = |length| Ok(IoOutput::Read(Bytes::from((0..length).map(|at| at as u8).collect::<Vec<_>>())));
        let answers = queue.complete(vec![read(35 + READ_GAP_BYTES_MAX as usize), read(10)]).unwrap();
        let firsts: Vec<_> = answers.iter().map(|(token, bytes)| (*token, bytes[0], bytes.len())).collect();
        assert_eq!(firsts, [('a', 0, 30), ('b', 20, 10), ('d', 30, 5), ('c', 0, 10)]);
        assert!(queue.submit(FileId(1)).is_none());
    }

    #[test]
    fn at_most_so_many_are_in_flight() {
        let mut queue = ReadQueue::new();
        (0..40).for_each(|number| queue.want(number * 1_000_000, 1, number));
        assert_eq!(queue.submit(FileId(1)).unwrap().len(), READS_IN_FLIGHT_MAX);
        assert_eq!(queue.waiting(), 40 - READS_IN_FLIGHT_MAX);
    }

    #[test]
    fn a_short_or_failed_read_is_an_error() {
        let mut queue = ReadQueue::new();
        for completion in [Ok(IoOutput::Read(Bytes::from_static(b"x"))), Err(io::ErrorKind::Other.into())] {
            queue.want(4096, 2, ());
            queue.submit(FileId(1)).unwrap();
            assert!(matches!(queue.complete(vec![completion]), Err(PagesError::Read { page: 1, .. })));
        }
    }
}
