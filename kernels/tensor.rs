//! A tensor is a shape over a buffer that knows its device. Every op takes tensors, so that the
//! same model code drives the CPU and, later, a GPU; only `f32` on the CPU is stored so far.

use std::fmt;

use memmap2::MmapMut;

/// Where a tensor's buffer lives. A second device is a second variant here and a second arm in
/// each op's launcher; nothing else matches on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Device {
    /// Host memory, `f32`.
    #[default]
    Cpu,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
        }
    }
}

/// One cache line and one AVX-512 register of floats.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

// SAFETY: sixteen floats without padding; every bit pattern is a value.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above: `repr(C)`, 64 bytes of `f32`, alignment equal to size, so no padding.
unsafe impl bytemuck::Pod for Line {}

enum Storage {
    Cpu(Lines),
}

/// Host memory. What is large is mapped with a wish for huge pages, which spares a quarter of the
/// time where memory is walked at random (the decoder's cache); either way it comes from zero
/// pages, so that what is never used costs nothing.
enum Lines {
    Small(Vec<Line>),
    Large(MmapMut),
}

/// Lines from which memory is mapped: 4 MiB.
const LARGE: usize = (4 << 20) / 64;

impl Lines {
    fn zeros(lines: usize) -> Self {
        if lines >= LARGE
            && let Ok(map) = MmapMut::map_anon(lines * 64)
        {
            #[cfg(target_os = "linux")]
            // Only a wish: a kernel without huge pages refuses it, to no harm.
            let _ = map.advise(memmap2::Advice::HugePage);
            return Lines::Large(map);
        }
        Lines::Small(bytemuck::zeroed_vec(lines))
    }

    fn get(&self) -> &[Line] {
        match self {
            Lines::Small(lines) => lines,
            Lines::Large(map) => bytemuck::cast_slice(map),
        }
    }

    fn get_mut(&mut self) -> &mut [Line] {
        match self {
            Lines::Small(lines) => lines,
            Lines::Large(map) => bytemuck::cast_slice_mut(map),
        }
    }

    /// At least `lines` lines, the old ones kept.
    fn grow(&mut self, lines: usize) {
        if self.get().len() < lines {
            // Room to spare, so that a slowly growing batch does not copy every time.
            let mut larger = Lines::zeros(lines + lines / 4);
            larger.get_mut()[..self.get().len()].copy_from_slice(self.get());
            *self = larger;
        }
    }
}

/// A dense row-major matrix `[rows, cols]` (a vector is `[1, n]`), 64-byte aligned on the CPU.
///
/// The number of rows may change up to the capacity without touching memory, so that one arena
/// serves batches of every size.
pub struct Tensor {
    rows: usize,
    cols: usize,
    storage: Storage,
}

impl Tensor {
    /// A zero tensor `[rows, cols]`.
    pub fn zeros(device: Device, rows: usize, cols: usize) -> Self {
        match device {
            Device::Cpu => {
                let lines = (rows * cols).div_ceil(16);
                Tensor { rows, cols, storage: Storage::Cpu(Lines::zeros(lines)) }
            }
        }
    }

    /// Copies `data` (`rows * cols` values, row-major) to `device`.
    pub fn from_slice(device: Device, rows: usize, cols: usize, data: &[f32]) -> Self {
        assert_eq!(data.len(), rows * cols, "a tensor of {rows}x{cols} needs as many values");
        let mut tensor = Tensor::zeros(device, rows, cols);
        tensor.f32_mut().copy_from_slice(data);
        tensor
    }

    pub fn device(&self) -> Device {
        match self.storage {
            Storage::Cpu(_) => Device::Cpu,
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Number of values, `rows * cols`.
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held by the buffer, whatever the present number of rows.
    pub fn bytes(&self) -> usize {
        match &self.storage {
            Storage::Cpu(lines) => lines.get().len() * 64,
        }
    }

    /// Sets the number of rows; grows the buffer if it must (zero-filled), never shrinks it.
    /// What the rows held before is kept where it was.
    pub fn set_rows(&mut self, rows: usize) {
        self.rows = rows;
        match &mut self.storage {
            Storage::Cpu(lines) => {
                lines.grow((rows * self.cols).div_ceil(16));
            }
        }
    }

    /// Takes another shape over the same buffer, which grows if it must: for scratch, whose old
    /// values mean nothing.
    pub fn reshape(&mut self, rows: usize, cols: usize) {
        self.cols = cols;
        self.set_rows(rows);
    }

    /// The values, row-major, of a tensor on the CPU.
    pub fn f32(&self) -> &[f32] {
        match &self.storage {
            Storage::Cpu(lines) => &bytemuck::cast_slice(lines.get())[..self.rows * self.cols],
        }
    }

    /// The values, row-major and writable, of a tensor on the CPU.
    pub fn f32_mut(&mut self) -> &mut [f32] {
        match &mut self.storage {
            Storage::Cpu(lines) => &mut bytemuck::cast_slice_mut(lines.get_mut())[..self.rows * self.cols],
        }
    }

    /// Row `index` of a tensor on the CPU.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.f32()[index * self.cols..(index + 1) * self.cols]
    }
}

impl Clone for Tensor {
    fn clone(&self) -> Self {
        let mut copy = Tensor::zeros(self.device(), self.rows, self.cols);
        copy.f32_mut().copy_from_slice(self.f32());
        copy
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor[{}, {}] on {}", self.rows, self.cols, self.device())
    }
}
