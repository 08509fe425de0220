//! One bit a page of a region: 1 is free. Exactly one page of bytes.

use std::ops::Range;

use bytes::Bytes;

use super::layout::{PAGE_SIZE, REGION_PAGES};

/// Bits of a bitmap.
pub(super) const BITS: usize = REGION_PAGES as usize;
const WORDS: usize = BITS / 64;

/// The bitmap of one region.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Bitmap {
    words: [u64; WORDS],
}

impl Bitmap {
    /// No page free.
    pub(super) fn empty() -> Self {
        Self { words: [0; WORDS] }
    }

    /// Its form on disk: words in order, each little-endian, so that page `n` is bit `n % 8` of byte `n / 8`.
    pub(super) fn encode(&self) -> Bytes {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>().into()
    }

    /// Reads [`Self::encode`]'s form; `None` unless it is one page long.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != PAGE_SIZE {
            return None;
        }
        let mut bitmap = Self::empty();
        for (word, chunk) in bitmap.words.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut little_endian = [0; 8];
            little_endian.copy_from_slice(chunk);
            *word = u64::from_le_bytes(little_endian);
        }
        Some(bitmap)
    }

    /// How many bits are set.
    pub(super) fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Sets every bit of `span`.
    pub(super) fn set(&mut self, span: Range<usize>) {
        for_words(span, |word, mask| self.words[word] |= mask);
    }

    /// Clears every bit of `span`.
    pub(super) fn clear(&mut self, span: Range<usize>) {
        for_words(span, |word, mask| self.words[word] &= !mask);
    }

    /// The first set bit of `span`.
    pub(super) fn first_set(&self, span: Range<usize>) -> Option<usize> {
        let found = self.next_set(span.start);
        (found < span.end).then_some(found)
    }

    /// Whether every bit of `span` is set.
    pub(super) fn all_set(&self, span: Range<usize>) -> bool {
        self.next_clear(span.start) >= span.end
    }

    /// The lowest position in `starts` from which `length` bits are set; they may reach beyond `starts`. Otherwise
    /// an upper bound, below `length`, of the longest run that begins there.
    pub(super) fn first_run(&self, starts: Range<usize>, length: usize) -> Result<usize, usize> {
        if length <= 64 {
            // Walking the runs would tell how long the longest is, but costs ten times as much in shredded space.
            return self.first_short_run(starts, length).ok_or(length - 1);
        }
        self.first_long_run(starts, length)
    }

    /// [`Self::first_run`] by words instead of runs, which does not slow down where free space is in shreds.
    fn first_short_run(&self, starts: Range<usize>, length: usize) -> Option<usize> {
        for word in starts.start / 64..starts.end.div_ceil(64) {
            let next = self.words.get(word + 1).copied().unwrap_or(0);
            let mut begins = u128::from(next) << 64 | u128::from(self.words[word]);
            // Bit n stays set while as many bits as are covered follow from n on.
            let mut covered = 1;
            while covered < length {
                let step = covered.min(length - covered);
                begins &= begins >> step;
                covered += step;
            }
            let begins = begins as u64 & !low_mask(starts.start.saturating_sub(word * 64).min(63));
            let found = word * 64 + begins.trailing_zeros() as usize;
            if begins != 0 {
                return (found < starts.end).then_some(found);
            }
        }
        None
    }

    /// [`Self::first_run`] from run to run, with the exact length if there is none.
    fn first_long_run(&self, starts: Range<usize>, length: usize) -> Result<usize, usize> {
        let mut longest = 0;
        let mut position = starts.start;
        loop {
            let start = self.next_set(position);
            if start >= starts.end {
                return Err(longest);
            }
            let end = self.next_clear(start);
            if end - start >= length {
                return Ok(start);
            }
            longest = longest.max(end - start);
            position = end;
        }
    }

    /// The length of the longest run of set bits.
    pub(super) fn longest_run(&self) -> usize {
        self.first_long_run(0..BITS, BITS + 1).unwrap_or_else(|longest| longest)
    }

    /// The whole run of set bits around a set one.
    pub(super) fn run_around(&self, position: usize) -> Range<usize> {
        let mut word = position / 64;
        let mut clear_below = !self.words[word] & low_mask(position % 64);
        while clear_below == 0 && word > 0 {
            word -= 1;
            clear_below = !self.words[word];
        }
        let start = if clear_below == 0 { 0 } else { word * 64 + 64 - clear_below.leading_zeros() as usize };
        start..self.next_clear(position)
    }

    /// The first set bit at or above `position`, or [`BITS`].
    fn next_set(&self, position: usize) -> usize {
        self.next(position, |word| word)
    }

    /// The first clear bit at or above `position`, or [`BITS`].
    fn next_clear(&self, position: usize) -> usize {
        self.next(position, |word| !word)
    }

    fn next(&self, position: usize, view: impl Fn(u64) -> u64) -> usize {
        if position >= BITS {
            return BITS;
        }
        let mut word = position / 64;
        let mut bits = view(self.words[word]) & !low_mask(position % 64);
        while bits == 0 {
            word += 1;
            if word == WORDS {
                return BITS;
            }
            bits = view(self.words[word]);
        }
        word * 64 + bits.trailing_zeros() as usize
    }
}

/// The `bits` lowest bits, fewer than 64.
fn low_mask(bits: usize) -> u64 {
    (1 << bits) - 1
}

/// Calls `apply` with every word that `span` touches and the mask of its bits there.
fn for_words(span: Range<usize>, mut apply: impl FnMut(usize, u64)) {
    assert!(span.end <= BITS, "span {span:?} leaves the region");
    let mut position = span.start;
    while position < span.end {
        let (word, bit) = (position / 64, position % 64);
        let length = (64 - bit).min(span.end - position);
        let mask = if length == 64 { u64::MAX } else { low_mask(length) << bit };
        apply(word, mask);
        position += length;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(spans: &[(bool, Range<usize>)]) -> (Bitmap, Vec<bool>) {
        let (mut bitmap, mut bits) = (Bitmap::empty(), vec![false; BITS]);
        for (set, span) in spans {
            if *set {
                bitmap.set(span.clone())
            } else {
                bitmap.clear(span.clone())
            }
            bits[span.clone()].fill(*set);
        }
        (bitmap, bits)
    }

    fn spans() -> impl Strategy<Value = Vec<(bool, Range<usize>)>> {
        let span = (any::<bool>(), 0..BITS, 1..400usize)
            .prop_map(|(set, start, length)| (set, start..(start + length).min(BITS)));
        prop::collection::vec(span, 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn behaves_like_a_vector_of_bools(
            spans in spans(), probe in 0..BITS, width in 1..5000usize, length in prop_oneof![1..10usize, 1..300usize],
        ) {
            let (bitmap, bits) = naive(&spans);
            prop_assert_eq!(bitmap.count() as usize, bits.iter().filter(|bit| **bit).count());
            prop_assert_eq!(Bitmap::decode(&bitmap.encode()).as_ref().map(Bitmap::count), Some(bitmap.count()));
            let end = (probe + width).min(BITS);
            prop_assert_eq!(bitmap.first_set(probe..end), (probe..end).find(|at| bits[*at]));
            prop_assert_eq!(bitmap.all_set(probe..end), bits[probe..end].iter().all(|bit| *bit));
            let run_at = |at: usize| bits[at..].iter().take_while(|bit| **bit).count();
            let expected = (probe..end).find(|at| run_at(*at) >= length);
            prop_assert_eq!(bitmap.first_run(probe..end, length).ok(), expected);
            if expected.is_none() {
                let longest = (probe..end).map(run_at).max().unwrap_or(0);
                prop_assert_eq!(bitmap.first_long_run(probe..end, length), Err(longest));
                let bound = bitmap.first_run(probe..end, length);
                prop_assert!(bound.is_err_and(|bound| (longest..length).contains(&bound)));
            }
            if bits[probe] {
                let start = (0..=probe).rev().take_while(|at| bits[*at]).last();
                prop_assert_eq!(bitmap.run_around(probe), start.unwrap_or(probe)..probe + run_at(probe));
            }
        }
    }
}
