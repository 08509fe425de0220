//! Seeded changes of inputs, for runs that must come out the same every time.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Longest input that is made.
const BYTES_MAX: usize = 96 << 10;
/// Numbers at which lengths and counts turn.
const EDGES: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 62, i64::MAX as u64, u64::MAX];

/// Makes inputs out of others.
pub struct Mutation<'a> {
    random: StdRng,
    inputs: &'a [Vec<u8>],
}

impl<'a> Mutation<'a> {
    /// Of these inputs, at least one; equal seeds give equal changes.
    pub fn new(seed: u64, inputs: &'a [Vec<u8>]) -> Self {
        assert!(!inputs.is_empty(), "nothing to change");
        Self { random: StdRng::seed_from_u64(seed), inputs }
    }

    /// The next input: one of those given with one to six changes.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut bytes = self.pick().to_vec();
        for _ in 0..self.random.random_range(1..=6) {
            self.change(&mut bytes);
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }

    fn pick(&mut self) -> &'a [u8] {
        &self.inputs[self.random.random_range(0..self.inputs.len())]
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.random.random_range(0..=bytes.len());
        let length = self.random.random_range(0..=16.min(bytes.len() - at));
        match self.random.random_range(0..9) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..at + length)),
            2 => {
                let copied = bytes[at..at + length].to_vec();
                drop(bytes.splice(at..at, copied));
            }
            3 => {
                let fresh: Vec<u8> = (0..self.random.random_range(1..9)).map(|_| self.random.random()).collect();
                drop(bytes.splice(at..at, fresh));
            }
            4 => self.splice(bytes, at),
            5 if at < bytes.len() => bytes[at] ^= 1 << self.random.random_range(0..8),
            6 if at < bytes.len() => bytes[at] = self.random.random(),
            7 => {
                let edge = EDGES[self.random.random_range(0..EDGES.len())];
                let edge = edge.wrapping_add(self.random.random_range(0..3)).wrapping_sub(1).to_le_bytes();
                let width = [1, 2, 4, 8][self.random.random_range(0..4)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&edge[..width]);
            }
            _ if at < bytes.len() => {
                bytes[at] = bytes[at].wrapping_add([1, 255, 8, 248][self.random.random_range(0..4)])
            }
            _ => bytes.push(self.random.random()),
        }
    }

    /// Goes on as another input does.
    fn splice(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let other = self.pick();
        let from = self.random.random_range(0..=other.len());
        bytes.truncate(at);
        bytes.extend_from_slice(&other[from..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_inputs_and_others_differ() {
        let inputs = [b"abcdefgh".to_vec(), Vec::new()];
        let made = |seed| {
            let mut mutation = Mutation::new(seed, &inputs);
            (0..500).map(|_| mutation.next_input()).collect::<Vec<_>>()
        };
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
        assert!(made(3).iter().all(|input| input.len() <= BYTES_MAX));
    }
}
