//! What the processes ("ranks") of a data-parallel run do together, behind one trait: in host memory
//! that they share ([`SharedMemory`]), or between GPUs by NCCL ([`Nccl`]).
//!
//! In shared memory sums are taken over the ranks in ascending order, element by element, so that a
//! result is a function of the ranks' values alone; NCCL's order is its own. All ranks call the same
//! operations in the same order. A rank that ends meanwhile makes the others' calls fail with
//! [`CollectiveError::Gone`]; none waits for ever.

mod device;
mod error;
mod futex;
mod memory;
mod nccl;
mod rendezvous;

use std::ops::Range;

pub use device::{DeviceSlice, Element};
pub use error::CollectiveError;
pub use memory::SharedMemory;
pub use nccl::Nccl;
pub use rendezvous::Member;

/// The operations, over values in a kind of memory. A rank's share is [`share`] of `[f32]`, and
/// [`DeviceSlice::share`] of device memory.
pub trait Collective {
    /// Values as the ranks hold them: `[f32]` in host memory, a [`DeviceSlice`] on a GPU.
    type Values: ?Sized;

    /// This process among the others, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Every rank's `values` become their sum.
    fn all_reduce(&mut self, values: &mut Self::Values) -> Result<(), CollectiveError>;

    /// This rank's share of `values` becomes the sum of that share over all ranks; the rest is left as
    /// it was.
    fn reduce_scatter(&mut self, values: &mut Self::Values) -> Result<(), CollectiveError>;

    /// Every rank's share of its `values` comes to all the others.
    fn all_gather(&mut self, values: &mut Self::Values) -> Result<(), CollectiveError>;

    /// `values` of rank `root` come to all the others.
    fn broadcast(&mut self, values: &mut Self::Values, root: usize) -> Result<(), CollectiveError>;

    /// Returns when every rank has come here.
    fn barrier(&mut self) -> Result<(), CollectiveError>;
}

/// What of `n` values is rank `rank`'s among `size`: consecutive, in order, in lengths that differ by at most 1.
pub fn share(n: usize, rank: usize, size: usize) -> Range<usize> {
    let bound = |r: usize| (n as u128 * r as u128 / size as u128) as usize;
    bound(rank)..bound(rank + 1)
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn shares_cover_everything_once_and_evenly() {
        for n in [0, 1, 2, 5, 16, 1001] {
            for size in 1..9 {
                let shares: Vec<_> = (0..size).map(|rank| share(n, rank, size)).collect();
                assert_eq!((shares[0].start, shares[size - 1].end), (0, n));
                assert!(shares.windows(2).all(|w| w[0].end == w[1].start));
                let lengths = || shares.iter().map(ExactSizeIterator::len);
                assert!(lengths().max().unwrap() - lengths().min().unwrap() <= 1);
            }
        }
    }
}
