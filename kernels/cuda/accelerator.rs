//! What a model needs of a device besides launches: memory, copies, matrix products, an end to wait
//! for. A GPU is one ([`super::gpu::Cuda`]); in tests the CPU is another, which runs the same
//! kernels by the shim and the products by crate `gemm`, so that whole training steps and decode
//! loops are proven without a GPU.

use bytemuck::{AnyBitPattern, NoUninit};

use super::cublaslt::Product;
use super::launch::{CudaError, Engine, Matrix};

/// A device with memory. Everything happens in the order in which it was asked for.
pub trait Accelerator: Engine {
    /// Name and architecture, for the record.
    fn name(&self) -> String;

    /// Whether kernels of `*_sm90a.cu` may be launched.
    fn hopper(&self) -> bool;

    /// Bytes free, and in all.
    fn memory(&self) -> Result<(usize, usize), CudaError>;

    /// `bytes` bytes aligned to 256, not initialised; freed by [`Accelerator::free`].
    fn allocate(&self, bytes: usize) -> Result<u64, CudaError>;

    /// Frees after everything asked for so far.
    ///
    /// # Safety
    /// `address` came from [`Accelerator::allocate`] with `bytes`, and is not used again.
    unsafe fn free(&self, address: u64, bytes: usize) -> Result<(), CudaError>;

    /// Copies `data` to `address`. `data` may change when this returns, though the copy may not
    /// have happened yet.
    ///
    /// # Safety
    /// As many bytes were allocated there.
    unsafe fn write(&self, address: u64, data: &[u8]) -> Result<(), CudaError>;

    /// Copies from `address` to `data`, after everything asked for so far.
    ///
    /// # Safety
    /// As many bytes were allocated there.
    unsafe fn read(&self, address: u64, data: &mut [u8]) -> Result<(), CudaError>;

    /// Copies within the device; the ranges do not overlap.
    ///
    /// # Safety
    /// As many bytes were allocated at both places.
    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), CudaError>;

    /// Sets every byte to `value`.
    ///
    /// # Safety
    /// As many bytes were allocated there.
    unsafe fn fill(&self, address: u64, bytes: usize, value: u8) -> Result<(), CudaError>;

    /// `out (+)= left · right` in the sense of `product`, plus `bias` `[1, columns]` of the result's
    /// type; sums are fp32.
    fn product(
        &self,
        product: Product,
        out: Matrix,
        operands: (Matrix, Matrix),
        accumulate: bool,
        bias: Option<Matrix>,
    ) -> Result<(), CudaError>;

    /// Waits for everything asked for so far; errors of kernels show here.
    fn synchronize(&self) -> Result<(), CudaError>;

    /// Records the launches and products of `work` instead of doing them, to be replayed with the
    /// same addresses and other contents. `None`, and `work` is not called, where the device cannot.
    fn record(&self, work: &mut dyn FnMut() -> Result<(), CudaError>) -> Recorded {
        let _ = work;
        Ok(None)
    }
}

/// What [`Accelerator::record`] gives.
pub type Recorded = Result<Option<Box<dyn Replay>>, CudaError>;

/// Recorded work.
pub trait Replay {
    /// Does it once more, in order with everything else.
    fn replay(&self) -> Result<(), CudaError>;
}

/// Copies `data` to `to`, whose size it has.
pub fn write<T: NoUninit>(on: &dyn Accelerator, to: Matrix, data: &[T]) -> Result<(), CudaError> {
    let data = bytemuck::cast_slice::<T, u8>(data);
    assert_eq!(data.len(), to.bytes(), "as many bytes as the matrix has");
    if data.is_empty() {
        return Ok(());
    }
    // SAFETY: a matrix is where its maker promised, with this size.
    unsafe { on.write(to.address(), data) }
}

/// The values of `from`.
pub fn read<T: AnyBitPattern + NoUninit>(on: &dyn Accelerator, from: Matrix) -> Result<Vec<T>, CudaError> {
    let mut data = vec![T::zeroed(); from.bytes() / size_of::<T>()];
    if !data.is_empty() {
        // SAFETY: a matrix is where its maker promised, with this size.
        unsafe { on.read(from.address(), bytemuck::cast_slice_mut(&mut data)) }?;
    }
    Ok(data)
}

/// Sets all values to 0.
pub fn clear(on: &dyn Accelerator, matrix: Matrix) -> Result<(), CudaError> {
    if matrix.is_empty() {
        return Ok(());
    }
    // SAFETY: a matrix is where its maker promised, with this size.
    unsafe { on.fill(matrix.address(), matrix.bytes(), 0) }
}

/// Copies `from` to `to`, of the same size and not overlapping.
pub fn copy(on: &dyn Accelerator, to: Matrix, from: Matrix) -> Result<(), CudaError> {
    assert_eq!(to.bytes(), from.bytes(), "a copy keeps its size");
    if from.is_empty() {
        return Ok(());
    }
    // SAFETY: matrices are where their makers promised, with this size.
    unsafe { on.copy(to.address(), from.address(), from.bytes()) }
}
