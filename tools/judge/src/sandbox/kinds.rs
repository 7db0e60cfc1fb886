//! Which sandbox a program gets: `--sandbox`, what this machine allows, and what the language can do in each.

use std::collections::BTreeMap;
use std::sync::Mutex;

use cognate_languages::Language;

use super::container::{Container, Host};
use super::{Fault, Sandbox};

/// What the command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Choice {
    /// The container where this machine allows one, else WebAssembly for the languages that have it
    #[default]
    Auto,
    /// Linux namespaces, control groups, seccomp, Landlock
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
    choice: Choice,
    host: Host,
    /// Why there is no container here, where that was asked for and found out.
    no_container: Option<String>,
    /// The container that showed that there can be one; the first worker takes it.
    first: Mutex<Option<Container>>,
}

impl Kinds {
    /// Finds out what `auto` means on this machine.
    pub fn new(choice: Choice, host: Host) -> Self {
        let mut kinds = Self { choice, host, no_container: None, first: Mutex::default() };
        if choice == Choice::Auto {
            match Container::start(&kinds.host, 0) {
                Ok(container) => kinds.first = Mutex::new(Some(container)),
                Err(fault) => kinds.no_container = Some(fault.0),
            }
        }
        kinds
    }

    /// The sandbox that programs of this language get.
    ///
    /// # Errors
    /// Why there is none, with the cure.
    pub fn of(&self, language: &Language) -> Result<Kind, String> {
        match (self.choice, &self.no_container) {
            (Choice::Container, _) | (Choice::Auto, None) => Ok(Kind::Container),
            (Choice::Wasm, _) => wasm(language).map(|()| Kind::Wasm),
            (Choice::Auto, Some(reason)) => wasm(language).map(|()| Kind::Wasm).map_err(|why| {
                format!("no container ({reason}), no WebAssembly ({why}); cog-judge doctor says more")
            }),
        }
    }

    /// Starts a sandbox; `index` is nobody else's at the time.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn start(&self, kind: Kind, index: usize) -> Result<Box<dyn Sandbox>, Fault> {
        match kind {
            Kind::Container => {
                let first =
                    self.first.lock().expect("no thread panics while it holds this").take_if(|_| index == 0);
                Ok(Box::new(first.map_or_else(|| Container::start(&self.host, index), Ok)?))
            }
            Kind::Wasm => Err(Fault("this build has no WebAssembly sandbox".into())),
        }
    }
}

/// # Errors
/// Why programs of this language cannot run in WebAssembly.
fn wasm(language: &Language) -> Result<(), String> {
    Err(format!("this build has no WebAssembly route for {}", language.display))
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
