//! A CUDA device: its context and stream, kernels loaded when they are first launched, memory.
//!
//! The driver's library is opened when it is first asked for. cudarc panics where it is missing, so
//! its presence is asked before anything else.

use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::{Arc, Mutex, Once, PoisonError};

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use super::accelerator::Accelerator;
use super::compile::{architecture, cache_folder, cubin};
use super::gpu::Cuda;
use super::launch::{Arguments, CudaError, Element, Engine, Matrix, Shape, TensorMap};

/// Bytes of dynamic shared memory that a kernel may have without asking.
const SHARED_WITHOUT_ASKING: u32 = 48 << 10;

/// Where a program computes: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Choice {
    #[default]
    Auto,
    Cpu,
    /// A GPU, whichever: the first, or of several processes each one of its own.
    Gpu,
    Cuda(usize),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "auto" => Ok(Choice::Auto),
            "cpu" => Ok(Choice::Cpu),
            "cuda" => Ok(Choice::Gpu),
            _ => match s.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(n)) => Ok(Choice::Cuda(n)),
                _ => Err(format!("unknown device {s:?}: auto, cpu, cuda or cuda:N")),
            },
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Auto => f.write_str("auto"),
            Choice::Cpu => f.write_str("cpu"),
            Choice::Gpu => f.write_str("cuda"),
            Choice::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

impl Choice {
    /// The device, or `None` for the CPU. `auto` falls back to the CPU and says why through `say`,
    /// once a process; a GPU asked for by number must be there.
    pub fn open(self, say: impl FnOnce(&str)) -> Result<Option<Rc<dyn Accelerator>>, CudaError> {
        static SAID: Once = Once::new();
        let open = |n| Cuda::open(n).map(|cuda| Rc::new(cuda) as Rc<dyn Accelerator>);
        match self {
            Choice::Cpu => Ok(None),
            Choice::Gpu => open(0).map(Some),
            Choice::Cuda(n) => open(n).map(Some),
            Choice::Auto => match open(0) {
                Ok(device) => Ok(Some(device)),
                Err(error @ (CudaError::Missing(_) | CudaError::NoDevice { .. })) => {
                    SAID.call_once(|| say(&format!("{error}: using the CPU")));
                    Ok(None)
                }
                Err(error) => Err(error),
            },
        }
    }
}

/// Number of CUDA devices; an error where there is no driver.
pub fn devices() -> Result<usize, CudaError> {
    // SAFETY: opening NVIDIA's library runs its initialisers, which ask nothing of the caller.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::Missing("the CUDA driver (libcuda.so)"));
    }
    match CudaContext::device_count() {
        Ok(n) => Ok(usize::try_from(n).unwrap_or(0)),
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(0),
        Err(error) => Err(failed("counting devices", error)),
    }
}

pub(crate) fn failed(place: &str, error: impl fmt::Debug) -> CudaError {
    CudaError::Driver { place: place.into(), reason: format!("{error:?}") }
}

/// A loaded kernel, and the dynamic shared memory that it has been allowed.
#[derive(Clone, Copy)]
struct Loaded {
    function: sys::CUfunction,
    shared: u32,
}

// SAFETY: a handle of the driver, valid in every thread while the module is loaded, which is for
// the life of the context.
unsafe impl Send for Loaded {}

/// One GPU with one stream. Work runs in the order in which it was launched.
pub struct Gpu {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    architecture: String,
    cache: Option<PathBuf>,
    kernels: Mutex<HashMap<String, Loaded>>,
    modules: Mutex<HashMap<&'static str, usize>>,
}

impl Gpu {
    pub fn open(ordinal: usize) -> Result<Self, CudaError> {
        let have = devices()?;
        if ordinal >= have {
            return Err(CudaError::NoDevice { wanted: ordinal, have });
        }
        let context = CudaContext::new(ordinal).map_err(|e| failed("opening the device", e))?;
        // SAFETY: there is one stream, so nothing has to be ordered by events.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(|e| failed("making a stream", e))?;
        let (major, minor) = context.compute_capability().map_err(|e| failed("its capability", e))?;
        Ok(Gpu {
            context,
            stream,
            architecture: architecture(major, minor),
            cache: cache_folder(),
            kernels: Mutex::default(),
            modules: Mutex::default(),
        })
    }

    /// The device's name and architecture, for the record.
    pub fn name(&self) -> String {
        let name = self.context.name().unwrap_or_else(|_| "unnamed device".into());
        format!("{name} ({})", self.architecture)
    }

    /// As the compiler calls it, `sm_90a`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Waits for everything launched so far; errors of kernels show here.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.stream.synchronize().map_err(|e| failed("synchronising", e))
    }

    /// `bytes` of device memory, not initialised; freed by [`Gpu::free`].
    pub fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
        self.bind()?;
        // SAFETY: the context is current.
        unsafe { result::malloc_sync(bytes.max(1)) }.map_err(|e| failed("allocating", e))
    }

    /// Frees after everything launched so far.
    ///
    /// # Safety
    /// `address` came from [`Gpu::allocate`] and is not used again.
    pub unsafe fn free(&self, address: u64) -> Result<(), CudaError> {
        self.synchronize()?;
        self.bind()?;
        // SAFETY: promised by the caller; nothing runs that could use it.
        unsafe { result::free_sync(address) }.map_err(|e| failed("freeing", e))
    }

    /// Copies `data` to `address`, after everything launched so far.
    ///
    /// # Safety
    /// As many bytes were allocated there.
    pub unsafe fn write(&self, address: u64, data: &[u8]) -> Result<(), CudaError> {
        self.synchronize()?;
        self.bind()?;
        // SAFETY: promised by the caller.
        unsafe { result::memcpy_htod_sync(address, data) }.map_err(|e| failed("copying to the device", e))
    }

    /// Copies from `address` to `data`, after everything launched so far.
    ///
    /// # Safety
    /// As many bytes were allocated there.
    pub unsafe fn read(&self, address: u64, data: &mut [u8]) -> Result<(), CudaError> {
        self.synchronize()?;
        self.bind()?;
        // SAFETY: promised by the caller.
        unsafe { result::memcpy_dtoh_sync(data, address) }.map_err(|e| failed("copying from the device", e))
    }

    pub(crate) fn bind(&self) -> Result<(), CudaError> {
        self.context.bind_to_thread().map_err(|e| failed("binding the context", e))
    }

    fn load(&self, source: &'static str, name: &str) -> Result<Loaded, CudaError> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let module = match modules.get(source) {
            Some(&module) => module as sys::CUmodule,
            None => {
                let image = cubin(source, &self.architecture, self.cache.as_deref())?;
                // SAFETY: a whole cubin; it is copied, and the module is kept as long as the context.
                let module = unsafe { result::module::load_data(image.as_ptr().cast()) }
                    .map_err(|e| failed(&format!("loading {source}"), e))?;
                modules.insert(source, module as usize);
                module
            }
        };
        let c_name = CString::new(name).expect("names hold no zero byte");
        // SAFETY: the module is loaded.
        let function = unsafe { result::module::get_function(module, c_name) }
            .map_err(|e| failed(&format!("finding {name}"), e))?;
        Ok(Loaded { function, shared: SHARED_WITHOUT_ASKING })
    }
}

impl Engine for Gpu {
    fn launch(
        &self,
        source: &'static str,
        name: &str,
        shape: Shape,
        mut arguments: Arguments,
    ) -> Result<(), CudaError> {
        self.bind()?;
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        let mut loaded = match kernels.get(name) {
            Some(&loaded) => loaded,
            None => self.load(source, name)?,
        };
        if shape.shared > loaded.shared {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is loaded.
            unsafe {
                result::function::set_function_attribute(loaded.function, attribute, shape.shared as i32)
            }
            .map_err(|e| failed(&format!("{name}: {} bytes of shared memory", shape.shared), e))?;
            loaded.shared = shape.shared;
        }
        kernels.insert(name.to_owned(), loaded);
        drop(kernels);
        let [x, y, z] = shape.grid;
        // SAFETY: the launchers pass the arguments that the kernel takes, of matrices that whoever
        // made them promised to be there.
        unsafe {
            result::launch_kernel(
                loaded.function,
                (x, y, z),
                (shape.block, 1, 1),
                shape.shared,
                self.stream.cu_stream(),
                &mut arguments.pointers(),
            )
        }
        .map_err(|e| failed(&format!("launching {name}"), e))
    }

    fn tensor_map(&self, matrix: Matrix) -> Result<TensorMap, CudaError> {
        assert!(matrix.element == Element::Bf16 && matrix.cols.is_multiple_of(8), "rows of whole 16 bytes");
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // Innermost first: values a row, rows; bytes from row to row; the box, without gaps.
        let sizes = [matrix.cols as u64, matrix.rows as u64];
        let (strides, boxes, steps) = ([matrix.cols as u64 * 2], [64, 64], [1, 1]);
        // SAFETY: the arrays hold as many values as a map of rank 2 wants; the driver checks them, and
        // reads nothing of the matrix.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                sys::CUtensorMapDataType_enum::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2,
                matrix.address() as *mut std::ffi::c_void,
                sizes.as_ptr(),
                strides.as_ptr(),
                boxes.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle_enum::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        }
        .result()
        .map_err(|e| failed(&format!("a map of [{}, {}] values", matrix.rows, matrix.cols), e))?;
        Ok(TensorMap(map.opaque))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_chosen_by_name() {
        for (text, choice) in [
            ("auto", Choice::Auto),
            ("cpu", Choice::Cpu),
            ("cuda", Choice::Gpu),
            ("cuda:3", Choice::Cuda(3)),
            ("cuda:0", Choice::Cuda(0)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1"] {
            assert!(text.parse::<Choice>().is_err(), "{text:?} is no device");
        }
    }

    #[test]
    fn a_machine_without_gpu_says_so_once_and_goes_on() {
        if devices().is_ok_and(|n| n > 0) {
            eprintln!("NOT RUN: this machine has a GPU");
            return;
        }
        let mut said = Vec::new();
        for _ in 0..2 {
            let device = Choice::Auto.open(|text| said.push(text.to_owned())).expect("the CPU will do");
            assert!(device.is_none(), "no GPU was found");
        }
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].ends_with(": using the CPU"), "{said:?}");
        for asked in [Choice::Gpu, Choice::Cuda(0)] {
            assert!(asked.open(|_| ()).is_err(), "a GPU asked for must be there");
        }
        assert!(Choice::Cpu.open(|_| ()).is_ok_and(|d| d.is_none()));
    }
}
