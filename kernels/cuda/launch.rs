//! What a launch is made of, whatever runs it: a kernel's name, a grid, arguments in
//! `cuLaunchKernel`'s manner, and matrices that say where in device memory they lie.

use std::ffi::c_void;

use bytemuck::{NoUninit, Zeroable};

/// What went wrong on the device, or on the way to it.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// The driver or NVRTC is not installed.
    #[error("{0} is not installed")]
    Missing(&'static str),
    #[error("no CUDA device {wanted}: this machine has {have}")]
    NoDevice { wanted: usize, have: usize },
    #[error("{what}: {wanted} bytes of device memory wanted, {free} of {all} free")]
    Memory { what: String, wanted: usize, free: usize, all: usize },
    #[error("{place}: {reason}")]
    Driver { place: String, reason: String },
    /// NVRTC's own message.
    #[error("{source_name}.cu: {log}")]
    Compile { source_name: String, log: String },
}

/// What a value of a matrix is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    Bf16,
    F32,
    F64,
    U16,
    U32,
    U64,
}

impl Element {
    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Element::Bf16 | Element::U16 => 2,
            Element::F32 | Element::U32 => 4,
            Element::F64 | Element::U64 => 8,
        }
    }

    /// Values in 16 bytes, what a thread loads at once.
    pub fn pack(self) -> usize {
        16 / self.size()
    }

    /// How kernels for this element end.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Element::Bf16 => "bf16",
            Element::F32 => "f32",
            other => panic!("no kernel computes in {other:?}"),
        }
    }
}

/// A dense row-major matrix in device memory. Kernels write through it, so it is a pointer in all
/// but name: cheap to copy, with no say about aliasing.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    address: u64,
    pub rows: usize,
    pub cols: usize,
    pub element: Element,
}

impl Matrix {
    /// The matrix at `address`.
    ///
    /// # Safety
    /// `rows * cols` values must lie there, aligned to 16 bytes, in the memory of every engine that
    /// it is launched on, until the engine has finished what was launched.
    pub unsafe fn new(address: u64, rows: usize, cols: usize, element: Element) -> Self {
        assert!(address.is_multiple_of(16), "device memory is aligned to 16 bytes");
        Matrix { address, rows, cols, element }
    }

    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bytes(&self) -> usize {
        self.len() * self.element.size()
    }

    /// `rows * cols` values of it from value `first` on, row-major.
    ///
    /// # Panics
    /// Beyond the end, or where that is not aligned to 16 bytes.
    pub fn part(self, first: usize, rows: usize, cols: usize) -> Matrix {
        assert!(
            first + rows * cols <= self.len(),
            "{first} + {rows} x {cols} values lie within the {} of a matrix",
            self.len()
        );
        let address = self.address + (first * self.element.size()) as u64;
        assert!(address.is_multiple_of(16), "device memory is aligned to 16 bytes");
        Matrix { address, rows, cols, element: self.element }
    }

    /// Its first `rows` rows.
    pub fn top(self, rows: usize) -> Matrix {
        self.part(0, rows, self.cols)
    }

    pub fn address(&self) -> u64 {
        self.address
    }

    /// Asserts what a kernel is about to take for granted.
    pub(crate) fn expect(self, name: &str, element: Element, rows: usize, cols: usize) -> Self {
        assert!(
            self.element == element && self.rows == rows && self.cols == cols,
            "{name} is {:?} [{}, {}], not {element:?} [{rows}, {cols}]",
            self.element,
            self.rows,
            self.cols,
        );
        self
    }

    /// Asserts that there are at least `values` values: for scratch.
    pub(crate) fn at_least(self, name: &str, element: Element, values: usize) -> Self {
        assert!(
            self.element == element && self.len() >= values,
            "{name} is {:?} with {} values, not {element:?} with {values}",
            self.element,
            self.len(),
        );
        self
    }
}

/// A matrix of 16-bit values as Hopper's copy engine reads it, in boxes of 64 × 64 with the 128-byte
/// swizzle, zeros beyond its end: made by the engine that it is launched on, which alone can read it.
#[derive(Clone, Copy, Debug, Zeroable, NoUninit)]
#[repr(C, align(64))]
pub struct TensorMap(pub [u64; 16]);

/// Blocks, threads a block, bytes of dynamic shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub grid: [u32; 3],
    pub block: u32,
    pub shared: u32,
}

/// A kernel's arguments by value, each in a slot of its own.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    slots: Vec<TensorMap>,
}

impl Arguments {
    /// Adds a value: an integer, a float, or a `repr(C)` struct of at most 128 bytes.
    #[must_use]
    pub fn value<T: NoUninit>(mut self, value: T) -> Self {
        let bytes = bytemuck::bytes_of(&value);
        let mut slot = [0u64; 16];
        bytemuck::bytes_of_mut(&mut slot)[..bytes.len()].copy_from_slice(bytes);
        // A slot is aligned as the largest of them wants.
        self.slots.push(TensorMap(slot));
        self
    }

    #[must_use]
    pub fn matrix(self, matrix: Matrix) -> Self {
        self.value(matrix.address)
    }

    /// A matrix that may be absent: a null pointer then.
    #[must_use]
    pub fn optional(self, matrix: Option<Matrix>) -> Self {
        self.value(matrix.map_or(0, |m| m.address))
    }

    /// A size, which kernels take as 32 bits.
    #[must_use]
    pub fn size(self, n: usize) -> Self {
        self.value(u32::try_from(n).expect("sizes of kernels fit 32 bits"))
    }

    /// As `cuLaunchKernel` takes them; valid while `self` is.
    pub fn pointers(&mut self) -> Vec<*mut c_void> {
        self.slots.iter_mut().map(|slot| std::ptr::from_mut(slot).cast()).collect()
    }
}

/// What runs kernels, in the order of the launches: a GPU's stream, or the CPU in place of it.
pub trait Engine {
    /// Launches kernel `name` of `source`.cu.
    fn launch(
        &self,
        source: &'static str,
        name: &str,
        shape: Shape,
        arguments: Arguments,
    ) -> Result<(), CudaError>;

    /// The map of a bf16 matrix for the kernels that take one (sm_90a).
    fn tensor_map(&self, matrix: Matrix) -> Result<TensorMap, CudaError>;
}
