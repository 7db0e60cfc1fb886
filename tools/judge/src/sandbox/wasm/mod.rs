//! The WebAssembly sandbox: a program is a module in this process, with no system behind it (`preview1`), and every
//! run a fresh instance of it. It needs nothing of the kernel, so it stands where namespaces are forbidden.
//!
//! Interpreted languages run in a guest, an interpreter as WebAssembly, which is compiled once and kept. Compiled ones
//! are compiled by clang, go … in another sandbox that can hold a compiler, and the module comes back on its stdout.
//!
//! A run is a function of program, input and limits: the CPU limit is counted in fuel (executed instructions of
//! WebAssembly) at the language's rate, and clock and random numbers are the run's own. The epoch is only the backstop
//! for work that fuel does not see.

mod engine;
mod preview1;
mod preview2;
mod snapshot;
mod stack;
mod state;
pub mod translator;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use cognate_languages::{Languages, Wasm as Route};
use wasmtime::{Engine, InstancePre, Linker, Module, Store, Trap, UpdateDeadline};

use self::engine::{Code, fault};
use self::preview2::ComponentPre;
use self::state::{Exit, Files, State};
use self::translator::Translator;
use super::container::{Container, Host};
use super::wire::{Exceeded, Kind, Outcome, Run, RunLimits, Server};
use super::{Fault, Finished, Sandbox};

pub use self::engine::{THREAD_STACK, guests_folder, has_guest};

/// What compilers make.
const MODULE: &str = "/box/main.wasm";
/// Largest module that a compiler may make, in bytes.
const MAX_MODULE: u64 = 24 << 20;
/// A run may take this many times the CPU that its fuel stands for before the backstop ends it.
const PATIENCE: u64 = 16;

/// What all workers' sandboxes share.
pub struct Wasm {
    engine: Engine,
    linker: Linker<State>,
    /// With what only guests of ours may call.
    guest_linker: Linker<State>,
    routes: HashMap<String, Route>,
    guests: Mutex<HashMap<String, Program>>,
    cache: Option<PathBuf>,
}

#[derive(Clone)]
enum Program {
    Module(InstancePre<State>),
    Component(ComponentPre),
}

impl Wasm {
    /// # Errors
    /// When this machine cannot reserve the memory.
    pub fn start(languages: &Languages, cache: Option<PathBuf>, workers: usize) -> Result<Arc<Self>, Fault> {
        let engine = engine::start(workers)?;
        let mut linker = Linker::new(&engine);
        preview1::add_to(&mut linker).map_err(fault("linking WASI"))?;
        let mut guest_linker = linker.clone();
        preview1::add_unwinding_to(&mut guest_linker).map_err(fault("linking WASI"))?;
        let routes = languages.iter().filter_map(|l| Some((l.name.clone(), l.wasm.clone()?))).collect();
        Ok(Arc::new(Self { engine, linker, guest_linker, routes, guests: Mutex::default(), cache }))
    }

    fn guest(&self, name: &str) -> Result<Program, Fault> {
        let mut guests = self.guests.lock().expect("no thread panics while it holds this");
        if let Some(program) = guests.get(name) {
            return Ok(program.clone());
        }
        let bytes = engine::guest(name).map_err(Fault)?;
        let cache = self.cache.as_deref();
        let take = |guest| snapshot::taken(&self.engine, &self.guest_linker, guest);
        let program = match engine::load(&self.engine, name, bytes, take, cache)? {
            Code::Module(module) => {
                Program::Module(self.guest_linker.instantiate_pre(&module).map_err(fault(name))?)
            }
            Code::Component(component) => {
                Program::Component(ComponentPre::new(&self.engine, &component).map_err(fault(name))?)
            }
        };
        guests.insert(name.to_owned(), program.clone());
        Ok(program)
    }
}

/// One worker's sandbox.
pub struct WasmBox {
    shared: Arc<Wasm>,
    files: Files,
    /// The program that the last compilation made.
    compiled: Option<InstancePre<State>>,
    compiler: Compiler,
    translator: Translator,
}

/// The container that holds compilers, started when the first is needed.
struct Compiler {
    host: Host,
    index: usize,
    standing: Option<Container>,
}

impl Compiler {
    fn container(&mut self) -> Result<&mut Container, Fault> {
        if self.standing.is_none() {
            self.standing = Some(Container::start(&self.host, self.index)?);
        }
        self.standing.as_mut().ok_or_else(|| Fault("no container".into()))
    }
}

impl WasmBox {
    /// For worker `index`, whose compilers may see what `host` shows.
    pub fn new(shared: Arc<Wasm>, host: Host, index: usize) -> Self {
        let compiler = Compiler { host, index, standing: None };
        Self { shared, files: Files::default(), compiled: None, compiler, translator: Translator::default() }
    }

    fn compile(&mut self, run: &Run) -> Result<Finished, Fault> {
        let compiler = self.compiler.container()?;
        let files: Vec<(&str, &[u8])> = self.files.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
        compiler.place(&files, None)?;
        let mut finished = compiler.run(run, b"")?;
        if finished.outcome.exit != Some(0) || finished.outcome.exceeded.is_some() {
            return Ok(finished);
        }
        let fetch = Run {
            arguments: ["/bin/cat", MODULE].map(str::to_owned).to_vec(),
            kind: Kind::Test,
            limits: RunLimits { output_bytes: MAX_MODULE, ..run.limits },
            ..run.clone()
        };
        let fetched = compiler.run(&fetch, b"")?;
        let loaded = match fetched.outcome.exceeded {
            None => self.load(&fetched.stdout)?,
            Some(_) => Err(format!("more than {} MiB of WebAssembly", MAX_MODULE >> 20)),
        };
        match loaded {
            Ok(module) => self.compiled = Some(module),
            // The source made the compiler write something else, or the program asks for what this system lacks.
            Err(reason) => {
                finished.outcome.exit = Some(1);
                finished.stderr.extend(format!("not a program for this sandbox: {reason}\n").into_bytes());
            }
        }
        Ok(finished)
    }

    /// A module that can be run, or why it cannot be.
    fn load(&mut self, bytes: &[u8]) -> Result<Result<InstancePre<State>, String>, Fault> {
        let code = match self.translator.translate(bytes)? {
            Ok(code) => code,
            Err(reason) => return Ok(Err(reason)),
        };
        // SAFETY: the bytes are those that a process of this same program made and sent through its own socket.
        let module = unsafe { Module::deserialize(&self.shared.engine, code) };
        let ready = module.and_then(|module| self.shared.linker.instantiate_pre(&module));
        Ok(ready.map_err(|error| format!("{error:#}")))
    }

    fn test(&self, run: &Run, stdin: &[u8]) -> Result<Finished, Fault> {
        let shared = &self.shared;
        let program = run.arguments.first().map_or("", String::as_str);
        let name = program.strip_prefix("/box/").and_then(|n| n.strip_suffix(".wasm")).unwrap_or(program);
        let route =
            shared.routes.get(name).ok_or_else(|| Fault(format!("no WebAssembly route for {name:?}")))?;
        let program = match (&route.guest, &self.compiled) {
            (Some(guest), _) => shared.guest(guest)?,
            (None, Some(module)) => Program::Module(module.clone()),
            (None, None) => return Err(Fault("nothing was compiled".into())),
        };
        let mut state = State::new(stdin.into(), self.files.clone(), run.limits, route.fuel_per_ms);
        state.arguments.clone_from(&run.arguments);
        state.environment.clone_from(&run.environment);
        let fuel = state.fuel();
        let started = Instant::now();
        let mut store = Store::new(&shared.engine, state);
        store.limiter(|state| state);
        store.set_fuel(fuel).map_err(fault("fuel"))?;
        store.set_epoch_deadline(1);
        let (begun, patience) = (thread_cpu_us(), run.limits.cpu_us.saturating_mul(PATIENCE) + 1_000_000);
        store.epoch_deadline_callback(move |_| {
            if thread_cpu_us().saturating_sub(begun) > patience {
                return Ok(UpdateDeadline::Interrupt);
            }
            Ok(UpdateDeadline::Continue(1))
        });
        let ended = match &program {
            Program::Module(module) => start(module, &mut store),
            Program::Component(component) => component.start(&mut store, &self.files),
        };
        stack::release();
        let left = store.get_fuel().unwrap_or(0);
        let state = store.into_data();
        Ok(finish(state, left, ended, started))
    }
}

fn start(module: &InstancePre<State>, store: &mut Store<State>) -> wasmtime::Result<()> {
    let instance = module.instantiate(&mut *store)?;
    instance.get_typed_func::<(), ()>(&mut *store, "_start")?.call(store, ())
}

/// CPU time of this thread, in microseconds.
fn thread_cpu_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// The signal that a native program would have got where WebAssembly traps.
fn signal(trap: Trap) -> i32 {
    match trap {
        Trap::IntegerDivisionByZero | Trap::IntegerOverflow | Trap::BadConversionToInteger => libc::SIGFPE,
        Trap::UnreachableCodeReached => libc::SIGABRT,
        Trap::IndirectCallToNull | Trap::BadSignature => libc::SIGILL,
        _ => libc::SIGSEGV,
    }
}

fn finish(state: State, left: u64, ended: wasmtime::Result<()>, started: Instant) -> Finished {
    let cpu_us = state.worth_ns(left) / 1000;
    let memory_kb = state.memory as u64 / 1024;
    let [stdout, mut stderr] = state.output;
    let (mut exit, mut killed, mut exceeded) = (None, None, state.exceeded);
    match ended {
        _ if exceeded.is_some() => {}
        Ok(()) => exit = Some(0),
        Err(error) => match (error.downcast_ref::<Exit>(), error.downcast_ref::<Trap>()) {
            (Some(Exit(code)), _) => exit = Some((code & 0xff) as i32),
            (_, Some(Trap::OutOfFuel)) => exceeded = Some(Exceeded::Cpu),
            (_, Some(Trap::Interrupt)) => exceeded = Some(Exceeded::Wall),
            (_, trap) => {
                killed = Some(trap.map_or(libc::SIGABRT, |trap| signal(*trap)));
                stderr.extend(format!("wasm: {error:#}\n").into_bytes());
            }
        },
    }
    let outcome = Outcome {
        exit,
        signal: killed,
        exceeded,
        cpu_us,
        wall_us: started.elapsed().as_micros() as u64,
        memory_kb,
    };
    Finished { outcome, stdout, stderr }
}

impl Sandbox for WasmBox {
    fn place(&mut self, files: &[(&str, &[u8])], _server: Option<&Server>) -> Result<Option<String>, Fault> {
        self.files =
            Arc::new(files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect());
        self.compiled = None;
        Ok(None)
    }

    fn run(&mut self, run: &Run, stdin: &[u8]) -> Result<Finished, Fault> {
        match run.kind {
            Kind::Compile => self.compile(run),
            Kind::Prepare => {
                let compiler = self.compiler.container()?;
                compiler.place(&[], None)?;
                compiler.run(run, stdin)
            }
            Kind::Test => self.test(run, stdin),
        }
    }
}
