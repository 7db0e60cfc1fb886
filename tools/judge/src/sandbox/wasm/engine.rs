//! The one wasmtime engine of a judge: pooled memory, fuel, a ticking epoch, and machine code of guests on disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, Module, PoolingAllocationConfig, Strategy,
};

use crate::sandbox::Fault;

/// Native stack of a run, in bytes: what deep recursion may use. Workers' threads have this and `SPARE` more.
const STACK: usize = 256 << 20;
const SPARE: usize = 8 << 20;
/// Memory, in bytes, that stays with each place for an instance between two runs.
const KEPT: usize = 8 << 20;
/// How often a run's CPU time is looked at.
pub const TICK: Duration = Duration::from_millis(20);

/// Stack that a thread needs to run programs here. Only what is touched is memory.
pub const THREAD_STACK: usize = STACK + SPARE;

pub fn fault(what: &str) -> impl FnOnce(wasmtime::Error) -> Fault + '_ {
    move |e| Fault(format!("{what}: {e:#}"))
}

/// What machine code depends on: the same in the judge and in its translators.
fn settings() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .consume_fuel(true)
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .max_wasm_stack(STACK)
        .async_stack_size(THREAD_STACK) // not used, but compared with the other
        .wasm_backtrace_max_frames(None);
    config
}

/// An engine that compiles, on this thread alone, and runs nothing.
///
/// # Errors
/// When wasmtime cannot start.
pub fn compiler() -> Result<Engine, Fault> {
    Engine::new(settings().parallel_compilation(false)).map_err(fault("starting wasmtime"))
}

/// # Errors
/// When this machine cannot reserve the memory.
pub fn start(workers: usize) -> Result<Engine, Fault> {
    let workers = workers as u32;
    let mut pool = PoolingAllocationConfig::new();
    // A component (Python) is made of some thirty modules with one memory between them.
    pool.total_core_instances(workers * 64)
        .total_component_instances(workers + 1)
        .max_core_instances_per_component(64)
        .max_memories_per_component(4)
        .max_tables_per_component(32)
        .max_core_instance_size(16 << 20)
        .max_component_instance_size(16 << 20)
        .total_memories(workers * 4 + 1)
        .total_tables(workers * 32 + 1)
        .table_elements(1 << 20)
        .max_memory_size(4 << 30)
        // A place once used keeps up to KEPT bytes: the judge shall not grow until every place has been.
        .max_unused_warm_slots(workers);
    // What a run touched is written over rather than given back, so that the next finds its pages there. Where the
    // kernel (before Linux 6.7) cannot tell which those are, it would be the first bytes of every memory: the far end
    // of the stack, which hardly a program reaches.
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(KEPT).table_keep_resident(KEPT);
    }
    let mut config = settings();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let engine = Engine::new(&config).map_err(fault("starting wasmtime"))?;
    let weak = engine.weak();
    std::thread::spawn(move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    });
    Ok(engine)
}

/// Raised when what is kept of a guest would be another: the functions that it calls, the time that it sees.
const SNAPSHOTS: u32 = 1;

/// A guest, ready to run.
pub enum Code {
    Module(Module),
    Component(Component),
}

/// Loads a guest's machine code, from the cache where it is there, compiled and put there where it is not, a module as
/// `take` leaves it. The name in the cache holds the guest's content, wasmtime's version and the processor's features.
///
/// # Errors
/// When the bytes are not WebAssembly for this system.
pub fn load(
    engine: &Engine,
    name: &str,
    bytes: Vec<u8>,
    take: impl FnOnce(Vec<u8>) -> wasmtime::Result<Vec<u8>>,
    cache: Option<&Path>,
) -> Result<Code, Fault> {
    let is_component = bytes.get(4..8) == Some(&[0x0d, 0, 1, 0]);
    let place = cache.map(|folder| folder.join("wasm").join(format!("{name}-{}.cwasm", key(engine, &bytes))));
    if let Some(place) = place.as_ref().filter(|p| p.is_file()) {
        // SAFETY: the file is ours: the folder belongs to this user alone, and its name tells version and content.
        let code = unsafe {
            if is_component {
                Component::deserialize_file(engine, place).map(Code::Component)
            } else {
                Module::deserialize_file(engine, place).map(Code::Module)
            }
        };
        match code {
            Ok(code) => return Ok(code),
            Err(_) => drop(fs::remove_file(place)),
        }
    }
    let code = if is_component {
        Component::new(engine, bytes).map(Code::Component)
    } else {
        take(bytes).and_then(|bytes| Module::new(engine, bytes)).map(Code::Module)
    };
    let code = code.map_err(fault(name))?;
    if let Some(place) = place {
        let machine = match &code {
            Code::Module(module) => module.serialize(),
            Code::Component(component) => component.serialize(),
        };
        // Without a cache the next judge compiles again; nothing else is lost.
        let _ = machine.map(|machine| keep(&place, &machine));
    }
    Ok(code)
}

fn key(engine: &Engine, bytes: &[u8]) -> String {
    use std::hash::{Hash, Hasher};
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    (SNAPSHOTS, engine.precompile_compatibility_hash()).hash(&mut hasher);
    bytes.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn keep(place: &PathBuf, machine: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let folder = place.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let part = place.with_extension(format!("{}.part", crate::owner::Owner::this()));
    fs::write(&part, machine)
        .and_then(|()| fs::rename(&part, place))
        .inspect_err(|_| drop(fs::remove_file(&part)))
}

/// An interpreter as WebAssembly: what `make wasm` put into the guests' folder, or what was built into this program.
///
/// # Errors
/// Why it is not there, with the cure.
pub fn guest(name: &str) -> Result<Vec<u8>, String> {
    if let Some(bytes) = guest_file(name).and_then(|file| fs::read(file).ok()) {
        return Ok(bytes);
    }
    has_guest(name).map(|()| BUILT_IN_LUA.to_vec())
}

/// # Errors
/// Why `guest` does not find it, with the cure.
pub fn has_guest(name: &str) -> Result<(), String> {
    if guest_file(name).is_some_and(|file| file.is_file()) || (name == "lua" && !BUILT_IN_LUA.is_empty()) {
        return Ok(());
    }
    let because = if name == "lua" { concat!("; not built in: ", env!("COGNATE_LUA_GUEST")) } else { "" };
    Err(format!("its interpreter is not built as WebAssembly (make wasm){because}"))
}

fn guest_file(name: &str) -> Option<PathBuf> {
    Some(guests_folder()?.join(format!("{name}.wasm")))
}

/// Empty where the machine that built this program has no clang for WebAssembly.
static BUILT_IN_LUA: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lua.wasm"));

/// Where `make wasm` puts guests: `COGNATE_GUESTS`, or `guests` in the user's cache folder.
pub fn guests_folder() -> Option<PathBuf> {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    path("COGNATE_GUESTS")
        .or_else(|| path("COGNATE_CACHE").map(|p| p.join("guests")))
        .or_else(|| path("XDG_CACHE_HOME").map(|p| p.join("cognate/guests")))
        .or_else(|| path("HOME").map(|p| p.join(".cache/cognate/guests")))
}
