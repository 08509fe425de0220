//! Where a plan's pages are put, and which pages it gives back.

use super::allocator::{Allocator, AllocatorError, Extent, Stream};
use super::tree_plan::TreePlan;

/// Extents of a plan's new pages. Filled in step by step, because any call of the allocator may ask for a map page.
#[derive(Debug, Default)]
pub(super) struct Placement {
    pub leaves: Vec<Extent>,
    pub branches: Vec<Extent>,
    freed: usize,
}

impl Placement {
    /// Goes on until everything is placed.
    ///
    /// # Errors
    /// The allocator's. After a [`AllocatorError::Load`] that was answered, call again.
    pub fn advance(&mut self, plan: &TreePlan, allocator: &mut Allocator) -> Result<(), AllocatorError> {
        while let Some((stream, leaf)) = plan.leaves.get(self.leaves.len()) {
            self.leaves.push(allocator.allocate(*stream, leaf.pages())?);
        }
        while let Some(branch) = plan.branches.get(self.branches.len()) {
            self.branches.push(allocator.allocate(Stream::Branch, branch.pages())?);
        }
        while let Some(page) = plan.freed.get(self.freed) {
            allocator.free(page.extent, page.birth)?;
            self.freed += 1;
        }
        Ok(())
    }
}
