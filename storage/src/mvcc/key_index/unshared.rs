//! How much memory an older version of the tree takes beside a newer one.

use std::collections::HashSet;
use std::sync::Arc;

use super::node::Node;

/// Bytes of the nodes of `old` that are not nodes of `new`; stops counting once above `enough`.
///
/// Walks both trees level by level and only below nodes that differ: O(nodes changed between them). A node keeps its
/// height above the leaves for life, so it is enough to compare level with level.
pub(super) fn unshared_bytes(old: &Node, new: &Node, enough: u64) -> u64 {
    let (mut old_level, mut new_level) = (vec![old], vec![new]);
    let (old_height, new_height) = (height(old), height(new));
    let mut bytes = 0;
    for level in (0..old_height.max(new_height)).rev() {
        if level < old_height.min(new_height) {
            let (of_old, of_new) = (addresses(&old_level), addresses(&new_level));
            old_level.retain(|node| !of_new.contains(&address(node)));
            new_level.retain(|node| !of_old.contains(&address(node)));
        }
        if level < old_height {
            bytes += old_level.iter().map(|node| node.own_bytes()).sum::<u64>();
            old_level = below(&old_level);
        }
        if level < new_height {
            new_level = below(&new_level);
        }
        if bytes > enough {
            break;
        }
    }
    bytes
}

/// Levels of a tree, 1 for a leaf.
fn height(mut node: &Node) -> usize {
    let mut levels = 1;
    while let Node::Inner(inner) = node {
        node = &inner.children().first().expect("only an empty root has no child, and that is a leaf").node;
        levels += 1;
    }
    levels
}

/// The children of all nodes of a level; none below leaves.
fn below<'a>(level: &[&'a Node]) -> Vec<&'a Node> {
    let inners = level.iter().filter_map(|node| match node {
        Node::Inner(inner) => Some(inner.children().iter().map(|child| &child.node)),
        Node::Leaf(_) => None,
    });
    inners.flatten().collect()
}

fn address(node: &Node) -> usize {
    match node {
        Node::Leaf(leaf) => Arc::as_ptr(leaf) as usize,
        Node::Inner(inner) => Arc::as_ptr(inner) as usize,
    }
}

fn addresses(level: &[&Node]) -> HashSet<usize> {
    level.iter().map(|node| address(node)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::key_index::KeyIndex;
    use crate::revision::Revision;

    fn all_nodes(root: &Node) -> Vec<&Node> {
        let levels =
            std::iter::successors(Some(vec![root]), |level| Some(below(level)).filter(|next| !next.is_empty()));
        levels.flatten().collect()
    }

    fn naive(old: &Node, new: &Node) -> u64 {
        let of_new = addresses(&all_nodes(new));
        let only_old = all_nodes(old).into_iter().filter(|node| !of_new.contains(&address(node)));
        only_old.map(|node| node.own_bytes()).sum()
    }

    #[test]
    fn equals_the_difference_of_all_nodes_also_between_heights() {
        let mut index = KeyIndex::new();
        let mut roots = vec![index.root()];
        for main in 1..=6_000i64 {
            let key = (main as u32).wrapping_mul(0x9e37_79b9).to_be_bytes();
            index.put(&key, Revision::new(main, 0), 0);
            if main.count_ones() == 1 || main % 977 == 0 {
                roots.push(index.root());
            }
        }
        for main in 1..=6_000i64 {
            index.delete(&(main as u32).wrapping_mul(0x9e37_79b9).to_be_bytes(), Revision::new(main + 6_000, 0));
        }
        roots.push(index.root());
        index.compact_step(6_500, None, usize::MAX);
        roots.push(index.root());
        index.compact_step(20_000, None, usize::MAX);
        roots.push(index.root());
        for old in &roots {
            for new in &roots {
                assert_eq!(unshared_bytes(&old.node, &new.node, u64::MAX), naive(&old.node, &new.node));
            }
        }
        let (small, large) = (&roots[0].node, &roots[12].node);
        assert!(unshared_bytes(large, small, 0) > 0, "it stops early, but above what was enough");
    }
}
