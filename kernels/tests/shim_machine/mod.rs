//! The kernels on the CPU: their sources built with the shim into a shared library, with the address
//! and undefined-behaviour sanitizers, and launched on fibers in an order of choice. The address
//! sanitizer must be in a process before anything else, so a test runs its body in a child.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::DefaultHasher;
use std::ffi::c_void;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use cognate_kernels::cuda::accelerator::{Accelerator, Recorded, Replay};
use cognate_kernels::cuda::cublaslt::Product;
use cognate_kernels::cuda::launch::{Arguments, CudaError, Element, Engine, Matrix, Shape, TensorMap};
use cognate_kernels::{Device, Tensor, matmul};
use libloading::Library;

use crate::ops::machine::Machine;

/// In which order threads and blocks take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Forward,
    Reverse,
    Random(u64),
}

/// The kernels' library, in the order of one run.
pub struct Shim {
    library: &'static Library,
    order: Order,
    /// Whether it takes itself for a Hopper.
    pub hopper: bool,
    /// Hash of everything read back: results are the same bits in every order.
    pub digest: Cell<u64>,
    /// What is being recorded.
    tape: RefCell<Option<Vec<Asked>>>,
}

/// A launch or a product, to be done again.
#[derive(Clone)]
enum Asked {
    Launch(String, Shape, Arguments),
    Product(Product, Matrix, (Matrix, Matrix), bool, Option<Matrix>),
}

struct Tape {
    library: &'static Library,
    order: Order,
    commands: Vec<Asked>,
}

impl Shim {
    pub fn new(library: &'static Library, order: Order, hopper: bool) -> Self {
        Shim { library, order, hopper, digest: Cell::new(0), tape: RefCell::new(None) }
    }
}

/// The shim's threads are fibers of one set of globals.
static TURN: Mutex<()> = Mutex::new(());

type Thunk = unsafe extern "C" fn(*mut *mut c_void);
type Map = unsafe extern "C" fn(*mut TensorMap, *const c_void, u64, u64);
type Launch = unsafe extern "C" fn(Thunk, *const u32, *const u32, u32, *mut *mut c_void, u32, u64);

impl Engine for Shim {
    fn launch(
        &self,
        _source: &'static str,
        name: &str,
        shape: Shape,
        arguments: Arguments,
    ) -> Result<(), CudaError> {
        if let Some(tape) = &mut *self.tape.borrow_mut() {
            tape.push(Asked::Launch(name.into(), shape, arguments));
            return Ok(());
        }
        launch(self.library, self.order, name, shape, arguments)
    }

    fn tensor_map(&self, matrix: Matrix) -> Result<TensorMap, CudaError> {
        let mut map = TensorMap([0; 16]);
        // SAFETY: the library is the shim's; it writes as many bytes as a map has.
        unsafe {
            let make = self.library.get::<Map>(b"cognate_shim_map\0").map_err(missing)?;
            make(&raw mut map, matrix.address() as *const c_void, matrix.rows as u64, matrix.cols as u64);
        }
        Ok(map)
    }
}

fn launch(
    library: &Library,
    order: Order,
    name: &str,
    shape: Shape,
    mut arguments: Arguments,
) -> Result<(), CudaError> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (order, seed) = match order {
        Order::Forward => (0, 0),
        Order::Reverse => (1, 0),
        Order::Random(seed) => (2, seed),
    };
    let block = [shape.block, 1, 1];
    let mut pointers = arguments.pointers();
    // SAFETY: the library is the shim's; a kernel's thunk has this type, and the launchers pass
    // the arguments that the kernel takes: what these tests are about.
    unsafe {
        let thunk = library.get::<Thunk>(format!("launch_{name}\0").as_bytes()).map_err(missing)?;
        let launch = library.get::<Launch>(b"cognate_shim_launch\0").map_err(missing)?;
        launch(*thunk, shape.grid.as_ptr(), block.as_ptr(), shape.shared, pointers.as_mut_ptr(), order, seed);
    }
    Ok(())
}

impl Replay for Tape {
    fn replay(&self) -> Result<(), CudaError> {
        self.commands.iter().cloned().try_for_each(|command| match command {
            Asked::Launch(name, shape, arguments) => {
                launch(self.library, self.order, &name, shape, arguments)
            }
            Asked::Product(product, out, operands, accumulate, bias) => {
                multiply(product, out, operands, accumulate, bias);
                Ok(())
            }
        })
    }
}

fn missing(error: libloading::Error) -> CudaError {
    CudaError::Driver { place: "the shim's library".into(), reason: error.to_string() }
}

fn layout(bytes: usize) -> std::alloc::Layout {
    std::alloc::Layout::from_size_align(bytes.max(1), 256).expect("a size")
}

impl Machine for Shim {
    fn allocate(&self, bytes: usize) -> u64 {
        // SAFETY: the size is not zero. Exactly as many bytes, so that the sanitizer sees the ends.
        unsafe { std::alloc::alloc(layout(bytes)) as u64 }
    }

    fn free(&self, address: u64, bytes: usize) {
        // SAFETY: from `allocate`, of this size.
        unsafe { std::alloc::dealloc(address as *mut u8, layout(bytes)) }
    }

    fn write(&self, address: u64, data: &[u8]) {
        // SAFETY: callers write within what they allocated.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), address as *mut u8, data.len()) }
    }

    fn read(&self, address: u64, data: &mut [u8]) {
        // SAFETY: callers read within what they allocated.
        unsafe { std::ptr::copy_nonoverlapping(address as *const u8, data.as_mut_ptr(), data.len()) }
        let mut hasher = DefaultHasher::new();
        (self.digest.get(), &data).hash(&mut hasher);
        self.digest.set(hasher.finish());
    }
}

/// A device in all but speed: kernels by the shim, products by crate `gemm` over bf16 and fp32
/// operands in place. Results are the same bits in every order of the threads.
impl Accelerator for Shim {
    fn name(&self) -> String {
        format!("shim ({:?})", self.order)
    }

    fn hopper(&self) -> bool {
        self.hopper
    }

    fn memory(&self) -> Result<(usize, usize), CudaError> {
        Ok((1 << 30, 1 << 30))
    }

    fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
        Ok(Machine::allocate(self, bytes))
    }

    unsafe fn free(&self, address: u64, bytes: usize) -> Result<(), CudaError> {
        Machine::free(self, address, bytes);
        Ok(())
    }

    unsafe fn write(&self, address: u64, data: &[u8]) -> Result<(), CudaError> {
        Machine::write(self, address, data);
        Ok(())
    }

    unsafe fn read(&self, address: u64, data: &mut [u8]) -> Result<(), CudaError> {
        Machine::read(self, address, data);
        Ok(())
    }

    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), CudaError> {
        // SAFETY: promised by the caller.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) }
        Ok(())
    }

    unsafe fn fill(&self, address: u64, bytes: usize, value: u8) -> Result<(), CudaError> {
        // SAFETY: promised by the caller.
        unsafe { std::ptr::write_bytes(address as *mut u8, value, bytes) }
        Ok(())
    }

    fn product(
        &self,
        product: Product,
        out: Matrix,
        operands: (Matrix, Matrix),
        accumulate: bool,
        bias: Option<Matrix>,
    ) -> Result<(), CudaError> {
        match &mut *self.tape.borrow_mut() {
            Some(tape) => tape.push(Asked::Product(product, out, operands, accumulate, bias)),
            None => multiply(product, out, operands, accumulate, bias),
        }
        Ok(())
    }

    fn synchronize(&self) -> Result<(), CudaError> {
        Ok(())
    }

    fn record(&self, work: &mut dyn FnMut() -> Result<(), CudaError>) -> Recorded {
        *self.tape.borrow_mut() = Some(Vec::new());
        let done = work();
        let commands = self.tape.take().expect("what was recorded");
        done?;
        Ok(Some(Box::new(Tape { library: self.library, order: self.order, commands })))
    }
}

/// As cuBLASLt does it: operands as they are stored, sums in fp32.
fn multiply(
    product: Product,
    out: Matrix,
    (left, right): (Matrix, Matrix),
    accumulate: bool,
    bias: Option<Matrix>,
) {
    let (m, n, _) = product.sizes(left, right);
    assert_eq!((out.rows, out.cols), (m, n), "the product's shape");
    assert_eq!(left.element, right.element, "operands are of one type");
    let (left, right) = (values(left), values(right));
    let mut result = Tensor::zeros(Device::Cpu, m, n);
    match product {
        Product::Forward => matmul::forward(&mut result, &left, &right),
        Product::Input => matmul::backward_input(&mut result, &left, &right),
        Product::Weight => matmul::backward_weight(&mut result, &left, &right),
    }
    let mut sum = result.f32().to_vec();
    if let Some(bias) = bias {
        assert_eq!((bias.rows, bias.cols, bias.element), (1, n, out.element), "the bias");
        let bias = values(bias);
        sum.chunks_exact_mut(n).for_each(|row| row.iter_mut().zip(bias.f32()).for_each(|(x, b)| *x += b));
    }
    if accumulate {
        sum.iter_mut().zip(values(out).f32()).for_each(|(x, old)| *x += old);
    }
    let bytes: Vec<u8> = match out.element {
        Element::Bf16 => sum.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect(),
        _ => sum.iter().flat_map(|x| x.to_le_bytes()).collect(),
    };
    // SAFETY: the matrix is where its maker promised.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), out.address() as *mut u8, bytes.len()) }
}

/// A matrix of bf16 or fp32 as a tensor.
fn values(from: Matrix) -> Tensor {
    let mut bytes = vec![0u8; from.bytes()];
    // SAFETY: the matrix is where its maker promised.
    unsafe { std::ptr::copy_nonoverlapping(from.address() as *const u8, bytes.as_mut_ptr(), bytes.len()) }
    let values: Vec<f32> = match from.element {
        Element::Bf16 => bytes
            .chunks_exact(2)
            .map(|b| half::bf16::from_bits(u16::from_le_bytes([b[0], b[1]])).to_f32())
            .collect(),
        _ => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    };
    Tensor::from_slice(Device::Cpu, from.rows, from.cols, &values)
}

/// Runs `check` in four orders, and holds them to one result, bit for bit.
pub fn in_every_order(library: &'static Library, check: impl Fn(&dyn Machine)) {
    let digests = [Order::Forward, Order::Reverse, Order::Random(1), Order::Random(2)].map(|order| {
        let shim = Shim::new(library, order, false);
        check(&shim);
        shim.digest.get()
    });
    assert!(digests.iter().all(|d| *d == digests[0]), "results depend on the order of the threads");
    assert_ne!(digests[0], 0, "a check reads something");
}

/// A change to a source, for a fault that must be found: the kernels built with it, the file (theirs
/// or a header), what stands there once, what instead.
pub type Plant<'p> = (&'p str, &'p str, &'p str, &'p str);

const CHILD: &str = "COGNATE_SHIM_LIBRARY";

/// Runs `body` with the kernels' library in a child process under the sanitizers, and gives what the
/// child printed. In the child, `None`.
fn child(test: &str, plant: Option<Plant>, body: impl FnOnce(&'static Library)) -> Option<Output> {
    if let Some(path) = std::env::var_os(CHILD) {
        // SAFETY: the library has no initialisers beyond empty vectors.
        let library = unsafe { Library::new(path) }.expect("the library loads");
        // For as long as the process: recorded work refers to it.
        body(Box::leak(Box::new(library)));
        return None;
    }
    let library = build(plant);
    let compiler = compiler();
    let runtime = compiler.output_of(&["-print-file-name=libasan.so"]);
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, library)
        .env("LD_PRELOAD", runtime.trim())
        .env("ASAN_OPTIONS", "detect_leaks=0:abort_on_error=0")
        .env("UBSAN_OPTIONS", "print_stacktrace=0")
        .output()
        .expect("the child starts");
    Some(output)
}

/// Runs `body` under the sanitizers; it must pass.
pub fn sanitized(test: &str, body: impl FnOnce(&'static Library)) {
    if let Some(output) = child(test, None, body) {
        let log = log(&output);
        assert!(output.status.success(), "{log}");
        assert!(log.contains("1 passed"), "the child ran no test:\n{log}");
    }
}

/// Runs `body` on kernels with a planted fault; it must fail and say one of `signs`.
pub fn caught(test: &str, plant: Plant, signs: &[&str], body: impl FnOnce(&'static Library)) {
    if let Some(output) = child(test, Some(plant), body) {
        let log = log(&output);
        assert!(!output.status.success(), "the fault was not seen:\n{log}");
        assert!(signs.iter().any(|sign| log.contains(sign)), "seen, but not for what it is:\n{log}");
    }
}

fn log(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

struct Compiler(cc::Tool);

fn compiler() -> Compiler {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let tool = cc::Build::new()
        .cpp(true)
        .warnings(false)
        .cargo_metadata(false)
        .target(&target)
        .host(&target)
        .opt_level(1)
        .get_compiler();
    Compiler(tool)
}

impl Compiler {
    fn command(&self) -> Command {
        let mut command = Command::new(self.0.path());
        command.args([
            "-std=c++17",
            "-O1",
            "-g1",
            "-fPIC",
            // A device rounds a product and a sum apart or together; the CPU's ops do it apart.
            "-ffp-contract=off",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=undefined",
            "-DCOGNATE_SHIM",
        ]);
        command
    }

    fn output_of(&self, arguments: &[&str]) -> String {
        let output = Command::new(self.0.path()).args(arguments).output().expect("the compiler starts");
        String::from_utf8(output.stdout).expect("a path")
    }
}

static BUILD: Mutex<()> = Mutex::new(());

/// Builds the library, or gives the one built before from the same text. With a fault planted,
/// only the kernels that are to show it are built.
fn build(plant: Option<Plant>) -> PathBuf {
    let _one = BUILD.lock().unwrap_or_else(PoisonError::into_inner);
    let root = &kernels();
    let mut texts: Vec<(String, String)> = ["", "cuda", "shim", "lab/attention"]
        .into_iter()
        .flat_map(|folder| {
            let entries = std::fs::read_dir(root.join(folder)).expect("the folder is there");
            entries.filter_map(move |e| Some(Path::new(folder).join(e.ok()?.file_name())))
        })
        .filter(|path| path.extension().is_some_and(|e| ["cu", "cuh", "h", "cc"].iter().any(|x| e == *x)))
        .map(|path| {
            let text = std::fs::read_to_string(root.join(&path)).expect("sources are text");
            (path.to_string_lossy().into_owned(), text)
        })
        .collect();
    texts.sort();
    if let Some((_, file, from, to)) = plant {
        let (_, text) = texts.iter_mut().find(|(name, _)| name == file).expect("the file is there");
        assert_eq!(text.matches(from).count(), 1, "{file} has one place to plant the fault in");
        *text = text.replace(from, to);
    }
    let place = |what: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        what(&mut hasher);
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shim-{:016x}", hasher.finish()))
    };
    let folder = place(&|hasher| (&texts, plant.map(|(unit, ..)| unit)).hash(hasher));
    // The shim itself is the same for most faults: built once.
    let fibers = place(&|hasher| {
        texts.iter().filter(|(name, _)| name.starts_with("shim/")).for_each(|text| text.hash(hasher));
    });
    std::fs::create_dir_all(&fibers).expect("folders can be made");
    let library = folder.join("libkernels.so");
    if library.exists() {
        return library;
    }
    for (name, text) in &texts {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders can be made");
        std::fs::write(path, text).expect("sources can be written");
    }
    let units: Vec<&String> = texts
        .iter()
        .map(|(name, _)| name)
        .filter(|name| name.ends_with(".cc") || name.ends_with(".cu"))
        .filter(|name| plant.is_none_or(|(unit, ..)| *name == unit || name.ends_with(".cc")))
        .collect();
    let object = |unit: &str| match unit.strip_prefix("shim/") {
        Some(name) => fibers.join(format!("{name}.o")),
        None => folder.join(format!("{unit}.o")),
    };
    let compiler = compiler();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(units.len()) {
            scope.spawn(|| {
                while let Some(unit) = units.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let object = object(unit);
                    if object.exists() {
                        continue;
                    }
                    let unfinished = object.with_extension("unfinished");
                    let mut command = compiler.command();
                    command.args(["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-I."]);
                    command.args(["-x", "c++", "-c", unit, "-o"]).arg(&unfinished);
                    run(command.current_dir(&folder));
                    std::fs::rename(unfinished, object).expect("the object is in place");
                }
            });
        }
    });
    let mut command = compiler.command();
    command.args(["-shared", "-o", "linking.so"]).args(units.iter().map(|unit| object(unit)));
    run(command.current_dir(&folder));
    std::fs::rename(folder.join("linking.so"), &library).expect("the library is in place");
    library
}

fn run(command: &mut Command) {
    let output = command.output().expect("the compiler starts");
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// This crate's folder: the tests of the model use this file too.
fn kernels() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder
        .ancestors()
        .map(|dir| dir.join("kernels"))
        .find(|dir| dir.join("shim").is_dir())
        .expect("kernels/")
}
