//! What one run has: its streams, files, clock, random numbers and limits. All of it is in memory and dies with the run.

use std::sync::Arc;

use wasmtime::{AsContextMut, ResourceLimiter};

use crate::sandbox::wire::{Exceeded, RunLimits};

/// Where the clock of every run starts: 2020-01-01T00:00:00Z.
const EPOCH_NS: u64 = 1_577_836_800_000_000_000;
/// Descriptors that a program may hold.
const DESCRIPTORS: usize = 256;
/// Elements of a table. Pythons have some 20,000 functions.
const TABLE: usize = 1 << 20;

/// Fuel that a call of the host costs, beside one for each byte that it moves: what a system call costs natively.
const CALL: u64 = 2000;

/// The folders that are open from the start, at descriptors 3 and 4.
const FOLDERS: [&str; 2] = ["/box", "/dev"];

/// Files of /box, by name.
pub type Files = Arc<Vec<(String, Vec<u8>)>>;

/// The program ended itself.
#[derive(Debug, thiserror::Error)]
#[error("exit {0}")]
pub struct Exit(pub u32);

/// A guest unwinds to its innermost `try`.
#[derive(Debug, thiserror::Error)]
#[error("thrown where nothing catches")]
pub struct Thrown;

#[derive(Debug, Clone)]
pub enum Descriptor {
    /// The test's input, from a position.
    Input {
        at: usize,
    },
    Stdout,
    Stderr,
    /// A file of /box, from a position.
    File {
        index: usize,
        at: usize,
    },
    Folder(&'static str),
}

pub struct State {
    pub arguments: Vec<String>,
    pub environment: Vec<String>,
    pub exceeded: Option<Exceeded>,
    /// Of stdout and stderr.
    pub output: [Vec<u8>; 2],
    /// Largest memory, in bytes.
    pub memory: usize,
    input: Arc<[u8]>,
    files: Files,
    descriptors: Vec<Option<Descriptor>>,
    limits: RunLimits,
    fuel: u64,
    /// Fuel that was left when the host's function that now runs was called.
    left: u64,
    /// Bytes that it has read or written.
    moved: u64,
    fuel_per_ms: u64,
    slept_ns: u64,
    drawn: u32,
    /// When each thing that a component waits for is ready, by its own clock.
    deadlines: Vec<Option<u64>>,
}

impl State {
    pub fn new(input: Arc<[u8]>, files: Files, limits: RunLimits, fuel_per_ms: u64) -> Self {
        let mut descriptors =
            vec![Some(Descriptor::Input { at: 0 }), Some(Descriptor::Stdout), Some(Descriptor::Stderr)];
        descriptors.extend(FOLDERS.map(|f| Some(Descriptor::Folder(f))));
        let fuel =
            u64::try_from(u128::from(limits.cpu_us) * u128::from(fuel_per_ms) / 1000).unwrap_or(u64::MAX);
        Self {
            arguments: Vec::new(),
            environment: Vec::new(),
            exceeded: None,
            output: [Vec::new(), Vec::new()],
            memory: 0,
            input,
            files,
            descriptors,
            limits,
            fuel,
            left: fuel,
            moved: 0,
            fuel_per_ms,
            slept_ns: 0,
            drawn: 0,
            deadlines: Vec::new(),
        }
    }

    /// Fuel that the CPU limit is worth.
    pub fn fuel(&self) -> u64 {
        self.fuel
    }

    /// CPU time that used fuel stands for, in nanoseconds.
    pub fn worth_ns(&self, left: u64) -> u64 {
        let used = u128::from(self.fuel.saturating_sub(left));
        u64::try_from(used * 1_000_000 / u128::from(self.fuel_per_ms.max(1))).unwrap_or(u64::MAX)
    }

    /// Begins a function of the host, which sees the run's time as it stands.
    pub fn enter(store: &mut impl AsContextMut<Data = Self>) {
        let mut store = store.as_context_mut();
        let left = store.get_fuel().unwrap_or(0);
        let state = store.data_mut();
        (state.left, state.moved) = (left, 0);
    }

    /// Ends it: what it did costs fuel, so that no work is done for nothing. Without fuel the run ends at its next step.
    pub fn leave(store: &mut impl AsContextMut<Data = Self>) {
        let mut store = store.as_context_mut();
        let state = store.data();
        let left = state.left.saturating_sub(CALL + state.moved);
        let _ = store.set_fuel(left);
    }

    /// The run's own time, in nanoseconds: its work, by fuel, and its sleep.
    pub fn now_ns(&self) -> u64 {
        self.worth_ns(self.left).saturating_add(self.slept_ns)
    }

    /// Clock 0 is the day's, every other starts with the run.
    pub fn clock(&self, id: u32) -> u64 {
        if id == 0 { EPOCH_NS + self.now_ns() } else { self.now_ns() }
    }

    pub fn sleep(&mut self, ns: u64) {
        self.slept_ns = self.slept_ns.saturating_add(ns);
        if self.now_ns() > self.limits.wall_us.saturating_mul(1000) {
            self.exceeded.get_or_insert(Exceeded::Wall);
        }
    }

    pub fn wait_for(&mut self, deadline: u64) -> u32 {
        let free = self.deadlines.iter().position(Option::is_none).unwrap_or(self.deadlines.len());
        if free == self.deadlines.len() {
            self.deadlines.push(None);
        }
        self.deadlines[free] = Some(deadline);
        free as u32
    }

    pub fn deadline(&self, place: u32) -> u64 {
        self.deadlines.get(place as usize).copied().flatten().unwrap_or(0)
    }

    pub fn forget(&mut self, place: u32) {
        if let Some(deadline) = self.deadlines.get_mut(place as usize) {
            *deadline = None;
        }
    }

    /// The same numbers in every run.
    pub fn random(&mut self, bytes: &mut [u8]) {
        self.moved += 8 * bytes.len() as u64; // more than a copy costs
        for chunk in bytes.chunks_mut(16) {
            let words = cognate_random::philox([0x6a75_6467, 0x6500_0000], [self.drawn, 0, 0, 0]);
            self.drawn = self.drawn.wrapping_add(1);
            for (part, word) in chunk.chunks_mut(4).zip(words) {
                part.copy_from_slice(&word.to_le_bytes()[..part.len()]);
            }
        }
    }

    /// `which`: 0 stdout, 1 stderr. Beyond the limit the run ends.
    pub fn write(&mut self, which: usize, bytes: &[u8]) {
        let room = (self.limits.output_bytes as usize).saturating_sub(self.output[which].len());
        self.output[which].extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.moved += bytes.len() as u64;
        if bytes.len() > room {
            self.exceeded.get_or_insert(Exceeded::Output);
        }
    }

    pub fn descriptor(&self, fd: u32) -> Option<&Descriptor> {
        self.descriptors.get(fd as usize)?.as_ref()
    }

    fn content(&self, descriptor: &Descriptor) -> Option<&[u8]> {
        match descriptor {
            Descriptor::Input { .. } => Some(&self.input),
            Descriptor::File { index, .. } => self.files.get(*index).map(|(_, bytes)| bytes.as_slice()),
            _ => None,
        }
    }

    pub fn size(&self, descriptor: &Descriptor) -> Option<usize> {
        self.content(descriptor).map(<[u8]>::len)
    }

    pub fn length(&self, fd: u32) -> Option<usize> {
        self.size(self.descriptor(fd)?)
    }

    pub fn position(&mut self, fd: u32) -> Option<&mut usize> {
        match self.descriptors.get_mut(fd as usize)?.as_mut()? {
            Descriptor::Input { at } | Descriptor::File { at, .. } => Some(at),
            _ => None,
        }
    }

    /// Bytes that were read; 0 at the end.
    pub fn read(&mut self, fd: u32, into: &mut [u8]) -> Option<usize> {
        let at = *self.position(fd)?;
        let content = self.content(self.descriptor(fd)?)?;
        let rest = content.get(at..).unwrap_or_default();
        let n = rest.len().min(into.len());
        into[..n].copy_from_slice(&rest[..n]);
        *self.position(fd)? += n;
        self.moved += n as u64;
        Some(n)
    }

    pub fn close(&mut self, fd: u32) -> Option<()> {
        self.descriptors.get_mut(fd as usize)?.take().map(drop)
    }

    /// The lowest free number, as POSIX has it.
    pub fn open(&mut self, descriptor: Descriptor) -> Option<u32> {
        let free = self.descriptors.iter().position(Option::is_none);
        let fd = free.unwrap_or(self.descriptors.len());
        if fd >= DESCRIPTORS {
            return None;
        }
        if fd == self.descriptors.len() {
            self.descriptors.push(None);
        }
        self.descriptors[fd] = Some(descriptor);
        Some(fd as u32)
    }

    pub fn preopened(&self, fd: u32) -> Option<&'static str> {
        let folder = FOLDERS.get((fd as usize).checked_sub(3)?)?;
        matches!(self.descriptor(fd), Some(Descriptor::Folder(name)) if name == folder).then_some(folder)
    }

    /// What a path below a folder names. There are no folders below.
    pub fn find(&self, folder: &'static str, path: &str) -> Option<Descriptor> {
        match (folder, path) {
            (_, "" | ".") => Some(Descriptor::Folder(folder)),
            ("/dev", "stdin") => Some(Descriptor::Input { at: 0 }),
            ("/dev", "stdout") => Some(Descriptor::Stdout),
            ("/dev", "stderr") => Some(Descriptor::Stderr),
            ("/box", name) => {
                let index = self.files.iter().position(|(n, _)| n == name)?;
                Some(Descriptor::File { index, at: 0 })
            }
            _ => None,
        }
    }
}

/// Memory beyond the limit ends the run; a program that catches a failed allocation is not asked.
impl ResourceLimiter for State {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired as u64 > self.limits.memory_bytes {
            self.exceeded.get_or_insert(Exceeded::Memory);
            return Err(wasmtime::Error::msg("memory limit"));
        }
        self.memory = self.memory.max(desired);
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE)
    }
}
