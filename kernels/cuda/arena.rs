//! Device memory as one block, laid out before it is allocated: its size is known in advance, what
//! does not fit fails at the start and not in the middle of a run, addresses never change (recorded
//! work depends on them), and nothing is freed piece by piece.

use std::rc::Rc;

use super::accelerator::Accelerator;
use super::launch::{CudaError, Element, Matrix};

/// Alignment of every matrix, which is that of the allocation.
const LINE: u64 = 256;

/// Takes matrices one after another from a block.
#[derive(Debug, Default)]
pub struct Layout {
    next: u64,
}

impl Layout {
    pub fn take(&mut self, element: Element, rows: usize, cols: usize) -> Matrix {
        let at = self.next;
        self.next += ((rows * cols * element.size()) as u64).next_multiple_of(LINE);
        // SAFETY: within the arena for which this layout is run the second time; the first time the
        // matrix is only measured.
        unsafe { Matrix::new(at, rows, cols, element) }
    }
}

/// A block of device memory, freed with it. Matrices from it must not be launched afterwards: they
/// stay within the object that owns the arena.
pub struct Arena {
    on: Rc<dyn Accelerator>,
    address: u64,
    bytes: usize,
}

impl Arena {
    /// Runs `lay` once to measure and once on memory of that size, every bit set: NaN for whoever
    /// reads what nobody wrote.
    ///
    /// # Errors
    /// Too little memory: how much is wanted, and how much is free.
    pub fn new<T>(
        on: &Rc<dyn Accelerator>,
        what: &str,
        lay: impl Fn(&mut Layout) -> T,
    ) -> Result<(Arena, T), CudaError> {
        let mut measure = Layout::default();
        lay(&mut measure);
        let bytes = measure.next as usize;
        let (free, all) = on.memory()?;
        if bytes > free {
            return Err(CudaError::Memory { what: what.into(), wanted: bytes, free, all });
        }
        let address = on.allocate(bytes)?;
        let arena = Arena { on: Rc::clone(on), address, bytes };
        if bytes > 0 {
            // SAFETY: allocated above.
            unsafe { on.fill(address, bytes, 0xff) }?;
        }
        let parts = lay(&mut Layout { next: address });
        Ok((arena, parts))
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: from `allocate` with this size; matrices are not used after their arena. A failure
        // to free is nobody's to mend.
        let _ = unsafe { self.on.free(self.address, self.bytes) };
    }
}
