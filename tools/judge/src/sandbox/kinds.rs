//! Which sandbox a program gets: `--sandbox`, what this machine allows, and what the language can do in each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cognate_languages::{Language, Languages};

use super::container::{Container, Host};
use super::wasm::{self, Wasm, WasmBox};
use super::{Fault, Sandbox};
use crate::toolchain::Toolchains;

/// What the command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Choice {
    /// The container where this machine allows one, else WebAssembly for the languages that have it
    #[default]
    Auto,
    /// Linux namespaces, control groups, seccomp
    Container,
    /// WebAssembly
    Wasm,
}

/// A sandbox that stands for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Container,
    Wasm,
}

/// What all workers know about sandboxes.
pub struct Kinds {
    host: Host,
    /// Why there is no container here, where that was found out.
    no_container: Option<String>,
    /// The container that showed that there can be one; the first worker takes it.
    first: Mutex<Option<Container>>,
    wasm: Option<Arc<Wasm>>,
}

/// Finds out what `choice` means on this machine, for this many workers: the toolchains as programs will be compiled
/// and run, and where.
///
/// # Errors
/// When the sandbox that was asked for cannot be made.
pub fn open(
    choice: Choice,
    languages: Languages,
    fork_servers: bool,
    workers: usize,
) -> Result<(Toolchains, Kinds), Fault> {
    let tools = Toolchains::new(languages.clone(), fork_servers);
    let mut kinds = Kinds { host: tools.host(), no_container: None, first: Mutex::default(), wasm: None };
    if choice == Choice::Auto {
        kinds.look_for_container();
    }
    if choice == Choice::Container || kinds.no_container.is_none() && choice == Choice::Auto {
        return Ok((tools, kinds));
    }
    let tools = Toolchains::new(languages.in_wasm(wasm::guests_folder().as_deref()), false);
    kinds.host = tools.host();
    if choice == Choice::Wasm {
        kinds.look_for_container();
        kinds.first = Mutex::default();
    }
    kinds.wasm = Some(Wasm::start(&tools.languages, kinds.host.cache.clone(), workers)?);
    Ok((tools, kinds))
}

impl Kinds {
    fn look_for_container(&mut self) {
        match Container::start(&self.host, 0) {
            Ok(container) => self.first = Mutex::new(Some(container)),
            Err(fault) => self.no_container = Some(fault.0),
        }
    }

    /// The sandbox that programs of this language get.
    ///
    /// # Errors
    /// Why there is none, with the cure.
    pub fn of(&self, language: &Language) -> Result<Kind, String> {
        match (&self.wasm, &self.no_container) {
            (None, _) => Ok(Kind::Container),
            (Some(_), Some(reason)) if language.compile.is_some() => {
                Err(format!("its compiler needs a container, and there is none: {reason}"))
            }
            (Some(_), _) => Ok(Kind::Wasm),
        }
    }

    /// Stack that a worker's thread needs, in bytes.
    pub fn thread_stack(&self) -> usize {
        if self.wasm.is_some() { wasm::THREAD_STACK } else { 2 << 20 }
    }

    /// Starts a sandbox; `index` is nobody else's at the time.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn start(&self, kind: Kind, index: usize) -> Result<Box<dyn Sandbox>, Fault> {
        match (kind, &self.wasm) {
            (Kind::Wasm, Some(shared)) => {
                Ok(Box::new(WasmBox::new(shared.clone(), self.host.clone(), index)))
            }
            (Kind::Wasm, None) => Err(Fault("the WebAssembly sandbox was not started".into())),
            (Kind::Container, _) => {
                let first =
                    self.first.lock().expect("no thread panics while it holds this").take_if(|_| index == 0);
                Ok(Box::new(first.map_or_else(|| Container::start(&self.host, index), Ok)?))
            }
        }
    }
}

/// The sandboxes of one worker, each started when it is first needed.
#[derive(Default)]
pub struct Standing(BTreeMap<Kind, Box<dyn Sandbox>>);

impl Standing {
    /// # Errors
    /// When it cannot be built.
    pub fn get(&mut self, kinds: &Kinds, kind: Kind, index: usize) -> Result<&mut dyn Sandbox, Fault> {
        use std::collections::btree_map::Entry;
        Ok(match self.0.entry(kind) {
            Entry::Occupied(entry) => entry.into_mut().as_mut(),
            Entry::Vacant(entry) => entry.insert(kinds.start(kind, index)?).as_mut(),
        })
    }

    /// Takes down one that failed.
    pub fn drop(&mut self, kind: Kind) {
        self.0.remove(&kind);
    }
}
