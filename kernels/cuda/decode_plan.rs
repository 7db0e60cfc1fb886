//! How decode attention is shared out: contexts are split at fixed places, and sequences that share
//! a split's pages are computed together. See `decode_attention.cu` for what each list means.

use std::collections::HashMap;

use crate::decode_attention::{PAGE, Span};

/// Positions of context in one item. Fixed, so that a sequence's sums do not depend on the batch.
pub const SPLIT: usize = 256;

/// The work of one decode step, as the kernel reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Tables of pages of all sequences, one after another.
    pub pages: Vec<u32>,
    /// `[n, 5]`: place in `pages`, positions, split, place in `members`, sequences.
    pub items: Vec<u32>,
    /// Sequences of the items.
    pub members: Vec<u32>,
    /// `[B + 1]`: the first part of each sequence's partial results.
    pub parts_first: Vec<u32>,
}

impl Plan {
    /// Plans one step for `spans`, one a row of the batch, with `ratio` query heads a key head.
    pub fn new(spans: &[Span], ratio: usize) -> Self {
        let together = 16 / ratio;
        let mut plan = Plan::default();
        let mut parts = 0;
        // The item, still open for more members, of a split of given pages.
        let mut open: HashMap<(usize, &[u32]), usize> = HashMap::new();
        let mut groups: Vec<([u32; 3], Vec<u32>)> = Vec::new();
        for (sequence, span) in spans.iter().enumerate() {
            plan.parts_first.push(parts);
            let place = plan.pages.len();
            plan.pages.extend_from_slice(span.pages);
            for (split, start) in (0..span.length).step_by(SPLIT).enumerate() {
                parts += 1;
                let positions = SPLIT.min(span.length - start);
                let first = start / PAGE;
                let head = [(place + first) as u32, positions as u32, split as u32];
                let pages = &span.pages[first..first + positions.div_ceil(PAGE)];
                // Two sequences have the same last pages only if they are one: those are written to.
                let shared = (positions == SPLIT).then_some((split, pages));
                let found = shared.and_then(|key| open.get(&key).copied());
                match found {
                    Some(group) if groups[group].1.len() < together => groups[group].1.push(sequence as u32),
                    _ => {
                        if let Some(key) = shared {
                            open.insert(key, groups.len());
                        }
                        groups.push((head, vec![sequence as u32]));
                    }
                }
            }
        }
        plan.parts_first.push(parts);
        // Longest first, otherwise as they came.
        groups.sort_by_key(|([_, positions, _], _)| std::cmp::Reverse(*positions));
        for (head, members) in groups {
            plan.items.extend(head);
            plan.items.extend([plan.members.len() as u32, members.len() as u32]);
            plan.members.extend(members);
        }
        plan
    }

    /// Adds items of nobody until there are `count`, so that a launch has the same shape for many plans.
    pub fn pad(&mut self, count: usize) {
        let items = self.items.len().max(5 * count);
        self.items.resize(items, 0);
    }

    /// Number of items.
    pub fn count(&self) -> usize {
        self.items.len() / 5
    }

    /// Partial results over all sequences.
    pub fn parts(&self) -> usize {
        self.parts_first.last().map_or(0, |&n| n as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_prefix_is_one_item_and_own_pages_are_not() {
        // Three samples of one prompt of 256 positions, then a page each.
        let prompt: Vec<u32> = (0..16).collect();
        let tables: Vec<Vec<u32>> = (0..3).map(|i| [&prompt[..], &[20 + i]].concat()).collect();
        let spans: Vec<Span> = tables.iter().map(|pages| Span { pages, length: 260 }).collect();
        let plan = Plan::new(&spans, 4);
        assert_eq!((plan.count(), plan.parts()), (4, 6));
        assert_eq!(plan.items[1..5], [256, 0, 0, 3]);
        assert_eq!(plan.members, [0, 1, 2, 0, 1, 2]);
        // Eight query heads a key head leave room for two sequences.
        assert_eq!(Plan::new(&spans, 8).count(), 5);
    }
}
