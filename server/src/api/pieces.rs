//! Bytes of an answer on their way to a connection: several slices that are sent as one.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::listen::Part;

/// Slices in order, none of them copied. HTTP/2 cuts its frames across them, so that many small values fill a frame and
/// a frame is one write.
///
/// Neither `first` nor any of `rest` is empty, but for `first` when all is.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    first: Bytes,
    rest: VecDeque<Bytes>,
    remaining: usize,
}

impl Pieces {
    /// Appends a slice.
    pub fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.remaining += piece.len();
        if self.first.is_empty() {
            self.first = piece;
        } else {
            self.rest.push_back(piece);
        }
    }

    /// Appends all of another's.
    pub fn append(&mut self, other: Self) {
        self.push(other.first);
        self.extend(other.rest);
    }
}

impl From<Bytes> for Pieces {
    fn from(piece: Bytes) -> Self {
        Self { remaining: piece.len(), first: piece, rest: VecDeque::new() }
    }
}

impl Extend<Bytes> for Pieces {
    fn extend<I: IntoIterator<Item = Bytes>>(&mut self, pieces: I) {
        pieces.into_iter().for_each(|piece| self.push(piece));
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        &self.first
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = std::iter::once(&self.first).chain(&self.rest).filter(|piece| !piece.is_empty());
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "advanced by {count} of {} bytes", self.remaining);
        self.remaining -= count;
        while count >= self.first.len() && !self.first.is_empty() {
            count -= self.first.len();
            self.first = self.rest.pop_front().unwrap_or_default();
        }
        self.first.advance(count);
    }
}

impl Part for Pieces {
    fn split_to(&mut self, count: usize) -> Self {
        assert!(count <= self.remaining, "split at {count} of {} bytes", self.remaining);
        let mut part = Self::default();
        while part.remaining < count {
            let left = count - part.remaining;
            if left < self.first.len() {
                part.push(self.first.split_to(left));
                self.remaining -= left;
            } else {
                self.remaining -= self.first.len();
                part.push(std::mem::replace(&mut self.first, self.rest.pop_front().unwrap_or_default()));
            }
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_as_one_slice(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 0..8),
            steps in prop::collection::vec(0..7usize, 0..20),
        ) {
            let mut expected: &[u8] = &pieces.concat();
            let mut buffer = Pieces::default();
            buffer.extend(pieces.iter().cloned().map(Bytes::from));
            for step in steps {
                let mut slices = [IoSlice::new(&[]); 16];
                let filled = buffer.chunks_vectored(&mut slices);
                let seen = slices[..filled].iter().map(|slice| &**slice).collect::<Vec<_>>().concat();
                prop_assert_eq!(seen, expected);
                prop_assert_eq!(buffer.remaining(), expected.len());
                prop_assert_eq!(buffer.chunk().is_empty(), expected.is_empty());
                let step = step.min(expected.len());
                if step % 2 == 0 {
                    let mut part = buffer.split_to(step);
                    prop_assert_eq!(&*part.copy_to_bytes(step), &expected[..step]);
                    prop_assert!(!part.has_remaining());
                } else {
                    buffer.advance(step);
                }
                expected = &expected[step..];
            }
        }
    }
}
