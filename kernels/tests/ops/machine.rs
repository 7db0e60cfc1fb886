//! Memory on whatever runs the kernels, and random values in it.

use cognate_kernels::cuda::launch::{Element, Engine, Matrix};
use cognate_kernels::{Device, Tensor};
use cognate_random::{Key, Stream};

/// What runs kernels and holds their memory.
pub trait Machine: Engine {
    /// `bytes` bytes, aligned to 256.
    fn allocate(&self, bytes: usize) -> u64;
    fn free(&self, address: u64, bytes: usize);
    fn write(&self, address: u64, data: &[u8]);
    /// After everything launched so far.
    fn read(&self, address: u64, data: &mut [u8]);
}

/// A matrix that frees its memory.
pub struct Buffer<'m> {
    machine: &'m dyn Machine,
    pub matrix: Matrix,
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        self.machine.free(self.matrix.address(), self.bytes());
    }
}

impl<'m> Buffer<'m> {
    /// Filled with NaN (every bit set).
    pub fn poisoned(machine: &'m dyn Machine, element: Element, rows: usize, cols: usize) -> Self {
        let bytes = rows * cols * element.size();
        let address = machine.allocate(bytes);
        machine.write(address, &vec![0xff; bytes]);
        // SAFETY: allocated above, freed when the buffer is dropped; `read` waits for what was launched.
        let matrix = unsafe { Matrix::new(address, rows, cols, element) };
        Buffer { machine, matrix }
    }

    pub fn raw(
        machine: &'m dyn Machine,
        element: Element,
        rows: usize,
        cols: usize,
        data: &[impl bytemuck::NoUninit],
    ) -> Self {
        let buffer = Buffer::poisoned(machine, element, rows, cols);
        let data = bytemuck::cast_slice::<_, u8>(data);
        assert_eq!(data.len(), buffer.bytes());
        machine.write(buffer.matrix.address(), data);
        buffer
    }

    /// Values as `element`: bf16 is rounded to nearest.
    pub fn floats(
        machine: &'m dyn Machine,
        element: Element,
        rows: usize,
        cols: usize,
        data: &[f32],
    ) -> Self {
        match element {
            Element::Bf16 => {
                let bits: Vec<u16> = data.iter().map(|&x| half::bf16::from_f32(x).to_bits()).collect();
                Buffer::raw(machine, element, rows, cols, &bits)
            }
            _ => Buffer::raw(machine, element, rows, cols, data),
        }
    }

    pub fn of(machine: &'m dyn Machine, element: Element, tensor: &Tensor) -> Self {
        Buffer::floats(machine, element, tensor.rows(), tensor.cols(), tensor.f32())
    }

    /// A list of 32-bit integers.
    pub fn list(machine: &'m dyn Machine, data: &[u32]) -> Self {
        Buffer::raw(machine, Element::U32, 1, data.len(), data)
    }

    fn bytes(&self) -> usize {
        self.matrix.len() * self.matrix.element.size()
    }

    pub fn read_bytes(&self) -> Vec<u8> {
        let mut data = vec![0; self.bytes()];
        self.machine.read(self.matrix.address(), &mut data);
        data
    }

    /// bf16 or fp32 values.
    pub fn read(&self) -> Vec<f32> {
        let bytes = self.read_bytes();
        match self.matrix.element {
            Element::Bf16 => bytes
                .chunks_exact(2)
                .map(|b| half::bf16::from_bits(u16::from_le_bytes([b[0], b[1]])).to_f32())
                .collect(),
            Element::F32 => {
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            other => panic!("{other:?} are not floats"),
        }
    }
}

/// Random values of one check.
pub struct Draw(Stream);

impl Draw {
    pub fn new(seed: u64) -> Self {
        Draw(Key::new(seed).with("kernel check").stream())
    }

    /// Normal values, rounded to `element`.
    pub fn tensor(&mut self, element: Element, rows: usize, cols: usize, std: f32) -> Tensor {
        let mut tensor = Tensor::zeros(Device::Cpu, rows, cols);
        tensor.f32_mut().iter_mut().for_each(|x| *x = round(element, self.0.normal() as f32 * std));
        tensor
    }

    pub fn below(&mut self, n: usize) -> u32 {
        self.0.below(n as u64) as u32
    }

    pub fn list(&mut self, count: usize, below: usize) -> Vec<u32> {
        (0..count).map(|_| self.below(below)).collect()
    }

    pub fn bits(&mut self) -> u64 {
        self.0.bits()
    }

    pub fn uniform(&mut self) -> f32 {
        self.0.uniform() as f32
    }
}

/// `x` as `element` holds it.
pub fn round(element: Element, x: f32) -> f32 {
    match element {
        Element::Bf16 => half::bf16::from_f32(x).to_f32(),
        _ => x,
    }
}
