//! The hints of where free runs are: a max-tree over all blocks of a file.

use super::layout::REGION_PAGES;

/// Pages of a block, the unit of a hint: 64 words of a bitmap.
pub(super) const BLOCK_PAGES: usize = 4096;
/// Blocks of a region.
pub(super) const REGION_BLOCKS: usize = REGION_PAGES as usize / BLOCK_PAGES;

/// Upper bounds, one a block, on the longest run of available pages that *begins* in the block (it may reach into the
/// next ones of the same region), and their maxima as an implicit binary tree.
///
/// A hint that says too much costs one scan of its block, after which it is below what was asked; the free that
/// raised it pays for that. 2 to 4 bytes a block: 13 to 26 KB for 100 GB.
pub(super) struct RunTree {
    /// `hints[1]` is the root, `hints[width..]` are the blocks; blocks that do not exist hold 0.
    hints: Vec<u16>,
    width: usize,
}

impl RunTree {
    /// A tree for so many blocks, all hints 0.
    pub(super) fn new(blocks: usize) -> Self {
        let width = blocks.next_power_of_two();
        Self { hints: vec![0; 2 * width], width }
    }

    /// Makes room for so many blocks; new ones hold 0.
    pub(super) fn reserve(&mut self, blocks: usize) {
        if blocks <= self.width {
            return;
        }
        let mut wider = Self::new(blocks);
        wider.hints[wider.width..wider.width + self.width].copy_from_slice(&self.hints[self.width..]);
        for node in (1..wider.width).rev() {
            wider.hints[node] = wider.hints[2 * node].max(wider.hints[2 * node + 1]);
        }
        *self = wider;
    }

    /// Replaces the hint of a block.
    pub(super) fn set(&mut self, block: usize, hint: u16) {
        let mut node = self.width + block;
        self.hints[node] = hint;
        while node > 1 {
            node /= 2;
            let highest = self.hints[2 * node].max(self.hints[2 * node + 1]);
            if self.hints[node] == highest {
                return;
            }
            self.hints[node] = highest;
        }
    }

    /// Raises the hint of a block to at least `hint`.
    pub(super) fn raise(&mut self, block: usize, hint: u16) {
        if self.hints[self.width + block] < hint {
            self.set(block, hint);
        }
    }

    /// The lowest block at or above `from` whose hint is at least `hint`, which is not 0.
    pub(super) fn first_at_least(&self, from: usize, hint: u16) -> Option<usize> {
        if from >= self.width {
            return None;
        }
        let mut node = self.width + from;
        while self.hints[node] < hint {
            // Climb while there is nothing to the right below the same parent; the root is odd and leads to 0.
            while node % 2 == 1 {
                node /= 2;
            }
            if node == 0 {
                return None;
            }
            node += 1;
        }
        while node < self.width {
            node *= 2;
            if self.hints[node] < hint {
                node += 1;
            }
        }
        Some(node - self.width)
    }

    /// The highest block below `before` whose hint is at least `hint`, which is not 0.
    pub(super) fn last_at_least(&self, before: usize, hint: u16) -> Option<usize> {
        let mut node = self.width + before.min(self.width).checked_sub(1)?;
        while self.hints[node] < hint {
            // Climb while there is nothing to the left below the same parent; the root is odd.
            while node.is_multiple_of(2) {
                node /= 2;
            }
            if node == 1 {
                return None;
            }
            node -= 1;
        }
        while node < self.width {
            node = 2 * node + 1;
            if self.hints[node] < hint {
                node -= 1;
            }
        }
        Some(node - self.width)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn finds_what_a_scan_finds(
            sets in prop::collection::vec((0..100usize, 0..50u16), 0..200),
            from in 0..140usize,
            hint in 1..50u16,
        ) {
            let (mut tree, mut naive) = (RunTree::new(8), vec![0; 100]);
            for (block, value) in sets {
                tree.reserve(block + 1);
                tree.set(block, value);
                naive[block] = value;
            }
            let expected = (from..100).find(|block| naive[*block] >= hint);
            prop_assert_eq!(tree.first_at_least(from, hint), expected);
            let expected = (0..from.min(100)).rfind(|block| naive[*block] >= hint);
            prop_assert_eq!(tree.last_at_least(from, hint), expected);
        }
    }
}
