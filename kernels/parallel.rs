//! Rows shared out over threads in blocks whose bounds depend on the shape alone, never on the
//! number of threads, so that every partial sum is the same whoever computes it.

use rayon::prelude::*;

/// Rows a task takes: enough work (about `1 << 15` values) to be worth a wake-up, few enough to
/// balance two cores.
pub(crate) fn block_rows(cols: usize) -> usize {
    ((1 << 15) / cols.max(1)).clamp(1, 256)
}

/// Calls `f(block)` for every block in `0..blocks`, in parallel when there are several.
#[inline]
pub(crate) fn for_each(blocks: usize, f: impl Fn(usize) + Sync + Send) {
    if blocks <= 1 || rayon::current_num_threads() == 1 {
        (0..blocks).for_each(f);
    } else {
        (0..blocks).into_par_iter().with_max_len(1).for_each(f);
    }
}

/// A pointer that tasks share; each writes only the range it owns.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(*mut T, usize);

// SAFETY: the tasks of one op write disjoint ranges; see `Shared::slice`.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Shared(slice.as_mut_ptr(), slice.len())
    }

    /// The range `start..start + len`.
    ///
    /// # Safety
    /// No two live slices may overlap, and the slice this was made from must outlive them.
    #[expect(clippy::mut_from_ref, reason = "disjoint ranges of one buffer, one a task")]
    #[inline(always)]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start + len <= self.1, "a task's range lies within the buffer");
        // SAFETY: in bounds by the assertion; disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }

    /// The first value, for callers that address blocks by strides; the same promise holds.
    pub(crate) fn pointer(&self) -> *mut T {
        self.0
    }
}
