//! A GPU as a whole: kernels by the driver, products by cuBLASLt, one stream for both, and graphs of
//! what was launched on it.

use std::rc::Rc;

use cudarc::driver::{CudaGraph, result, sys};

use super::accelerator::{Accelerator, Recorded, Replay};
use super::compile::nvrtc_present;
use super::cublaslt::{Blas, Product};
use super::driver::{Gpu, failed};
use super::launch::{Arguments, CudaError, Engine, Matrix, Shape, TensorMap};

/// A GPU and its products.
pub struct Cuda {
    gpu: Rc<Gpu>,
    blas: Blas,
}

impl Cuda {
    pub fn open(ordinal: usize) -> Result<Self, CudaError> {
        Self::with(Gpu::open(ordinal)?)
    }

    pub fn with(gpu: Gpu) -> Result<Self, CudaError> {
        if !nvrtc_present() && !cfg!(feature = "cuda-prebuilt") {
            return Err(CudaError::Missing("NVRTC (libnvrtc.so)"));
        }
        let gpu = Rc::new(gpu);
        let blas = Blas::new(&gpu)?;
        Ok(Cuda { gpu, blas })
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn stream(&self) -> Result<sys::CUstream, CudaError> {
        self.gpu.bind()?;
        Ok(self.gpu.stream().cu_stream())
    }
}

impl Engine for Cuda {
    fn launch(
        &self,
        source: &'static str,
        name: &str,
        shape: Shape,
        arguments: Arguments,
    ) -> Result<(), CudaError> {
        self.gpu.launch(source, name, shape, arguments)
    }

    fn tensor_map(&self, matrix: Matrix) -> Result<TensorMap, CudaError> {
        self.gpu.tensor_map(matrix)
    }
}

impl Accelerator for Cuda {
    fn name(&self) -> String {
        self.gpu.name()
    }

    fn hopper(&self) -> bool {
        self.gpu.architecture() == "sm_90a"
    }

    fn memory(&self) -> Result<(usize, usize), CudaError> {
        self.gpu.bind()?;
        result::mem_get_info().map_err(|e| failed("asking for free memory", e))
    }

    fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
        self.gpu.allocate(bytes)
    }

    unsafe fn free(&self, address: u64, _bytes: usize) -> Result<(), CudaError> {
        // SAFETY: promised by the caller.
        unsafe { self.gpu.free(address) }
    }

    unsafe fn write(&self, address: u64, data: &[u8]) -> Result<(), CudaError> {
        let stream = self.stream()?;
        // From pageable memory the call returns when the data are staged, so they may change then.
        // SAFETY: promised by the caller.
        unsafe { result::memcpy_htod_async(address, data, stream) }
            .map_err(|e| failed("copying to the device", e))
    }

    unsafe fn read(&self, address: u64, data: &mut [u8]) -> Result<(), CudaError> {
        // SAFETY: promised by the caller.
        unsafe { self.gpu.read(address, data) }
    }

    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), CudaError> {
        let stream = self.stream()?;
        // SAFETY: promised by the caller.
        unsafe { result::memcpy_dtod_async(to, from, bytes, stream) }
            .map_err(|e| failed("copying on the device", e))
    }

    unsafe fn fill(&self, address: u64, bytes: usize, value: u8) -> Result<(), CudaError> {
        let stream = self.stream()?;
        // SAFETY: promised by the caller.
        unsafe { result::memset_d8_async(address, value, bytes, stream) }
            .map_err(|e| failed("filling memory", e))
    }

    fn product(
        &self,
        product: Product,
        out: Matrix,
        operands: (Matrix, Matrix),
        accumulate: bool,
        bias: Option<Matrix>,
    ) -> Result<(), CudaError> {
        self.blas.product(product, out, operands, accumulate, bias)
    }

    fn synchronize(&self) -> Result<(), CudaError> {
        self.gpu.synchronize()
    }

    /// A CUDA graph. `work` must have run once before: kernels are loaded and algorithms searched for
    /// at the first launch, which no recording takes.
    fn record(&self, work: &mut dyn FnMut() -> Result<(), CudaError>) -> Recorded {
        let stream = self.gpu.stream();
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).map_err(|e| failed("beginning a recording", e))?;
        let done = work();
        // Ended in any case, or the stream could not be used any more.
        let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0));
        done?;
        let graph = graph.map_err(|e| failed("ending a recording", e))?;
        Ok(graph.map(|graph| Box::new(Graph(graph)) as Box<dyn Replay>))
    }
}

struct Graph(CudaGraph);

impl Replay for Graph {
    fn replay(&self) -> Result<(), CudaError> {
        self.0.launch().map_err(|e| failed("launching a graph", e))
    }
}
