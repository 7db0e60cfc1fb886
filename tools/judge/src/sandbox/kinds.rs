//! Which sandbox a program gets: `--sandbox`, what this machine allows, and what the language can do in each.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use cognate_languages::{Language, Languages};

use super::container::{Container, Form, Host};
use super::oci::{Oci, OciBox};
use super::wasm::{self, Wasm, WasmBox};
use super::{Fault, Sandbox};
use crate::clean;
use crate::image::System;
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
    /// Landlock, seccomp and limits without namespaces, for machines that deny them: less is promised (SECURITY.md), so it
    /// is never chosen by itself
    Process,
    /// A container a run, made by an OCI runtime (runc, crun or youki), for those who must use one: slow, and never chosen
    /// by itself (SECURITY.md)
    Oci,
}

/// A sandbox that stands for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Container,
    Wasm,
    Process,
    Oci,
}

/// What all workers know about sandboxes.
pub struct Kinds {
    host: Host,
    /// Why there is no container here, where that was found out.
    no_container: Option<String>,
    /// The container that showed that there can be one; the first worker takes it.
    first: Mutex<Option<Container>>,
    wasm: Option<Arc<Wasm>>,
    oci: Option<Arc<Oci>>,
    /// What programs run in where it is not WebAssembly.
    native: Kind,
    /// Nobody asked for WebAssembly: there was nothing else.
    fell_back: bool,
}

/// Finds out what `choice` means on this machine, for this many workers: the toolchains as programs will be compiled
/// and run, and where. `runtime` is the OCI runtime to use, where one is named.
///
/// # Errors
/// When the sandbox that was asked for cannot be made.
pub fn open(
    choice: Choice,
    languages: Languages,
    fork_servers: bool,
    workers: usize,
    system: System,
    runtime: Option<&Path>,
) -> Result<(Toolchains, Kinds), Fault> {
    clean::sweep_all(false);
    let in_image = system.0.is_some();
    if in_image && !matches!(choice, Choice::Auto | Choice::Container) {
        return Err(Fault("--rootfs is for the container only".into()));
    }
    if runtime.is_some() && choice != Choice::Oci {
        return Err(Fault("--oci-runtime is for --sandbox oci only".into()));
    }
    let tools = Toolchains::of(languages.clone(), fork_servers, system);
    let mut kinds = Kinds {
        host: tools.host(),
        no_container: None,
        first: Mutex::default(),
        wasm: None,
        oci: None,
        native: Kind::Container,
        fell_back: false,
    };
    if choice == Choice::Process {
        // Nothing forks an interpreter into a namespace here.
        let tools = Toolchains::new(languages, false).without_mounts();
        (kinds.host, kinds.native) = (tools.host(), Kind::Process);
        let first = Container::start_as(Form::Plain, &kinds.host, 0)?;
        kinds.first = Mutex::new(Some(first));
        return Ok((tools, kinds));
    }
    if choice == Choice::Oci {
        let tools = Toolchains::new(languages, false);
        (kinds.host, kinds.native) = (tools.host(), Kind::Oci);
        kinds.oci = Some(Oci::open(runtime, &kinds.host, 0)?);
        return Ok((tools, kinds));
    }
    if choice == Choice::Auto {
        kinds.look_for_container();
    }
    if let (true, Some(reason)) = (in_image, &kinds.no_container) {
        return Err(Fault(format!("--rootfs needs a container: {reason}")));
    }
    if choice == Choice::Container || kinds.no_container.is_none() && choice == Choice::Auto {
        return Ok((tools, kinds));
    }
    kinds.fell_back = choice == Choice::Auto;
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

    /// What the user should know about the choice, in one line.
    pub fn notice(&self) -> Option<String> {
        let reason = self.no_container.as_ref().filter(|_| self.fell_back)?;
        Some(format!(
            "programs run in WebAssembly, since this machine lets nobody make a container: {reason}"
        ))
    }

    /// The sandbox that programs of this language get.
    ///
    /// # Errors
    /// Why there is none, with the cure.
    pub fn of(&self, language: &Language) -> Result<Kind, String> {
        match (&self.wasm, &self.no_container) {
            (None, _) => Ok(self.native),
            (Some(_), Some(reason)) if language.compile.is_some() => {
                Err(format!("its compiler needs a container, and there is none: {reason}"))
            }
            (Some(_), _) => Ok(Kind::Wasm),
        }
    }

    /// What is weaker than in the sandbox that would be chosen, where the user has asked for another.
    pub fn warning(&self) -> Option<String> {
        // SAFETY: only reads.
        let root = unsafe { libc::geteuid() } == 0;
        if let Some(oci) = &self.oci {
            return Some(format!(
                "--sandbox oci makes a container for each run, which is slow: {}; SECURITY.md says what it does not promise",
                oci.describe()
            ));
        }
        (self.native == Kind::Process).then(|| {
            format!(
                "warning: --sandbox process has no namespaces: programs see that files and processes of this machine exist, \
                 {}and what they start is found and killed one by one; SECURITY.md says what it does not promise",
                if root { "" } else { "run under your own user, " }
            )
        })
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
        if kind == Kind::Oci {
            let shared = self.oci.clone().ok_or_else(|| Fault("no OCI runtime was looked for".into()))?;
            return Ok(Box::new(OciBox::new(shared, self.host.clone(), index)?));
        }
        match (kind, &self.wasm) {
            (Kind::Wasm, Some(shared)) => {
                Ok(Box::new(WasmBox::new(shared.clone(), self.host.clone(), index)))
            }
            (Kind::Wasm, None) => Err(Fault("the WebAssembly sandbox was not started".into())),
            (Kind::Container | Kind::Process | Kind::Oci, _) => {
                let first =
                    self.first.lock().expect("no thread panics while it holds this").take_if(|_| index == 0);
                let form = if kind == Kind::Process { Form::Plain } else { Form::Contained };
                Ok(Box::new(first.map_or_else(|| Container::start_as(form, &self.host, index), Ok)?))
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
