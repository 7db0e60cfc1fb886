//! The kernels on the CPU: their sources built with the shim into a shared library, with the address
//! and undefined-behaviour sanitizers, and launched on fibers in an order of choice. The address
//! sanitizer must be in a process before anything else, so a test runs its body in a child.

use std::cell::Cell;
use std::collections::hash_map::DefaultHasher;
use std::ffi::c_void;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use cognate_kernels::cuda::launch::{Arguments, CudaError, Engine, Matrix, Shape, TensorMap};
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
pub struct Shim<'l> {
    library: &'l Library,
    order: Order,
    /// Hash of everything read back: results are the same bits in every order.
    pub digest: Cell<u64>,
}

/// The shim's threads are fibers of one set of globals.
static TURN: Mutex<()> = Mutex::new(());

type Thunk = unsafe extern "C" fn(*mut *mut c_void);
type Map = unsafe extern "C" fn(*mut TensorMap, *const c_void, u64, u64);
type Launch = unsafe extern "C" fn(Thunk, *const u32, *const u32, u32, *mut *mut c_void, u32, u64);

impl Engine for Shim<'_> {
    fn launch(
        &self,
        _source: &'static str,
        name: &str,
        shape: Shape,
        mut arguments: Arguments,
    ) -> Result<(), CudaError> {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let (order, seed) = match self.order {
            Order::Forward => (0, 0),
            Order::Reverse => (1, 0),
            Order::Random(seed) => (2, seed),
        };
        let block = [shape.block, 1, 1];
        let mut pointers = arguments.pointers();
        // SAFETY: the library is the shim's; a kernel's thunk has this type, and the launchers pass
        // the arguments that the kernel takes: what these tests are about.
        unsafe {
            let thunk = self.library.get::<Thunk>(format!("launch_{name}\0").as_bytes()).map_err(missing)?;
            let launch = self.library.get::<Launch>(b"cognate_shim_launch\0").map_err(missing)?;
            launch(
                *thunk,
                shape.grid.as_ptr(),
                block.as_ptr(),
                shape.shared,
                pointers.as_mut_ptr(),
                order,
                seed,
            );
        }
        Ok(())
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

fn missing(error: libloading::Error) -> CudaError {
    CudaError::Driver { place: "the shim's library".into(), reason: error.to_string() }
}

fn layout(bytes: usize) -> std::alloc::Layout {
    std::alloc::Layout::from_size_align(bytes.max(1), 256).expect("a size")
}

impl Machine for Shim<'_> {
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

/// Runs `check` in four orders, and holds them to one result, bit for bit.
pub fn in_every_order(library: &Library, check: impl Fn(&dyn Machine)) {
    let digests = [Order::Forward, Order::Reverse, Order::Random(1), Order::Random(2)].map(|order| {
        let shim = Shim { library, order, digest: Cell::new(0) };
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
fn child(test: &str, plant: Option<Plant>, body: impl FnOnce(&Library)) -> Option<Output> {
    if let Some(path) = std::env::var_os(CHILD) {
        // SAFETY: the library has no initialisers beyond empty vectors.
        let library = unsafe { Library::new(path) }.expect("the library loads");
        body(&library);
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
pub fn sanitized(test: &str, body: impl FnOnce(&Library)) {
    if let Some(output) = child(test, None, body) {
        let log = log(&output);
        assert!(output.status.success(), "{log}");
        assert!(log.contains("1 passed"), "the child ran no test:\n{log}");
    }
}

/// Runs `body` on kernels with a planted fault; it must fail and say one of `signs`.
pub fn caught(test: &str, plant: Plant, signs: &[&str], body: impl FnOnce(&Library)) {
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
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
