//! Puts samples that end in any order back into the order of their prompts.

use std::collections::BTreeMap;

/// Holds what came too early. Memory: what ends while the oldest one is still running.
#[derive(Debug)]
pub struct Reorder<T> {
    next: (usize, usize),
    samples: usize,
    waiting: BTreeMap<(usize, usize), T>,
}

impl<T> Reorder<T> {
    /// `samples` for each job.
    pub fn new(samples: usize) -> Self {
        Self { next: (0, 0), samples, waiting: BTreeMap::new() }
    }

    pub fn push(&mut self, job: usize, index: usize, item: T) {
        self.waiting.insert((job, index), item);
    }

    /// The next item in order (job, then index), once it is there.
    pub fn pop(&mut self) -> Option<T> {
        let item = self.waiting.remove(&self.next)?;
        self.next = if self.next.1 + 1 < self.samples {
            (self.next.0, self.next.1 + 1)
        } else {
            (self.next.0 + 1, 0)
        };
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_order_in_one_order_out() {
        let mut wanted: Vec<(usize, usize)> = (0..20).flat_map(|job| (0..3).map(move |i| (job, i))).collect();
        let mut arriving = wanted.clone();
        cognate_random::Key::new(1).stream().shuffle(&mut arriving);
        let mut order = Reorder::new(3);
        let mut out = Vec::new();
        for (job, index) in arriving {
            order.push(job, index, (job, index));
            while let Some(item) = order.pop() {
                out.push(item);
            }
        }
        wanted.sort_unstable();
        assert_eq!(out, wanted);
    }
}
