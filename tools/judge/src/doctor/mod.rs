//! `cog-judge doctor`: what this machine gives to each kind of sandbox, what is weaker without it, and how to get it.
//! Sandboxes are not guessed at: each is started once and taken down.

mod advice;
mod features;

use std::path::Path;

use cognate_cli::Common;
use cognate_languages::Languages;
use serde_json::{Value, json};

use crate::image::System;
use crate::sandbox::container::{Container, Form, Host};
use crate::sandbox::oci::{NO_RUNTIME, Oci};
use crate::sandbox::wasm;
use crate::toolchain::Toolchains;
use advice::Facts;

/// Number of the sandbox that is started for a look; no worker has it.
const LOOK: usize = 3999;

/// A kind of sandbox on this machine.
struct Kind {
    name: &'static str,
    /// Stands between a program and everything else; one that is not full promises less (SECURITY.md).
    full: bool,
    state: Result<String, String>,
    fix: Option<String>,
}

/// Something of the kernel or the system that a sandbox is made of.
struct Feature {
    name: &'static str,
    state: Result<String, String>,
    /// What is weaker without it.
    weaker: &'static str,
    fix: Option<String>,
}

/// # Errors
/// When no full sandbox stands (exit code 1).
pub fn run(common: &Common, rootfs: Option<&Path>) -> anyhow::Result<()> {
    let system = System::open(rootfs)?;
    let facts = Facts::gather();
    let kinds = kinds(&facts, system);
    let features = features::all(&facts);
    let full = kinds.iter().any(|kind| kind.full && kind.state.is_ok());
    if common.json {
        println!("{}", serde_json::to_string_pretty(&report(&facts, &kinds, &features, full))?);
    } else {
        print(&facts, &kinds, &features);
    }
    if full { Ok(()) } else { Err(anyhow::anyhow!("no full sandbox stands on this machine")) }
}

fn kinds(facts: &Facts, system: System) -> Vec<Kind> {
    let languages = Languages::builtin();
    let container = container(&Toolchains::of(languages.clone(), false, system).host());
    let plain = Toolchains::new(languages.clone(), false).without_mounts().host();
    let process = Container::start_as(Form::Plain, &plain, LOOK);
    let process =
        process.map(|_| "Landlock, seccomp, limits; less is promised, never chosen by itself".to_owned());
    let in_wasm = languages.clone().in_wasm(wasm::guests_folder().as_deref());
    let tools = Toolchains::new(in_wasm, false);
    let fix = container.as_ref().err().map(|reason| advice::namespaces(facts, reason));
    vec![
        Kind { name: "container", full: true, fix, state: container.clone() },
        in_webassembly(&tools, container.is_ok()),
        Kind {
            name: "process",
            full: false,
            fix: process.as_ref().err().map(|_| advice::landlock(facts)),
            state: process.map_err(|fault| fault.0),
        },
        in_oci(facts, &languages),
    ]
}

fn container(host: &Host) -> Result<String, String> {
    Container::start(host, LOOK).map(|_| "namespaces, seccomp, one launcher a worker".into()).map_err(|f| f.0)
}

/// With the first runtime on PATH.
fn in_oci(facts: &Facts, languages: &Languages) -> Kind {
    let host = Toolchains::new(languages.clone(), false).host();
    let state = Oci::open(None, &host, LOOK)
        .map(|shared| format!("{}; a container a run: slow, never chosen by itself", shared.describe()))
        .map_err(|fault| fault.0);
    let fix = state.as_ref().err().map(|reason| match reason.starts_with(NO_RUNTIME) {
        true => "apt install runc".into(),
        false => advice::namespaces(facts, reason),
    });
    Kind { name: "oci", full: false, state, fix }
}

/// A language stands when its guest is there, or its compiler and a container for that.
fn in_webassembly(tools: &Toolchains, has_container: bool) -> Kind {
    let mut there = Vec::new();
    let mut missing = Vec::new();
    for language in tools.languages.iter().filter(|l| l.wasm.is_some()) {
        match tools.usable(language) {
            Ok(()) if language.compile.is_none() || has_container => there.push(language.name.as_str()),
            Ok(()) => missing.push(format!("{} (its compiler needs a container)", language.name)),
            Err(reason) => missing.push(format!("{} ({reason})", language.name)),
        }
    }
    let fix =
        "make wasm builds the interpreters; apt install clang lld wasi-libc libclang-rt-dev-wasm32 brings C";
    Kind {
        name: "wasm",
        full: true,
        fix: (!missing.is_empty()).then(|| format!("{fix}; missing: {}", missing.join(", "))),
        state: if there.is_empty() { Err("no language".into()) } else { Ok(there.join(", ")) },
    }
}

fn report(facts: &Facts, kinds: &[Kind], features: &[Feature], full: bool) -> Value {
    let of = |name: &str, state: &Result<String, String>, fix: &Option<String>| json!({ "name": name, "there": state.is_ok(), "found": state.as_ref().ok(), "missing": state.as_ref().err(), "fix": fix });
    let sandboxes = kinds.iter().map(|kind| {
        let mut value = of(kind.name, &kind.state, &kind.fix);
        value["full"] = json!(kind.full);
        value
    });
    let features = features.iter().map(|feature| {
        let mut value = of(feature.name, &feature.state, &feature.fix);
        value["weaker"] = json!(feature.state.as_ref().err().map(|_| feature.weaker));
        value
    });
    json!({
        "kernel": facts.kernel, "architecture": std::env::consts::ARCH, "root": facts.root, "inside": facts.inside,
        "full": full, "sandboxes": sandboxes.collect::<Vec<_>>(), "features": features.collect::<Vec<_>>(),
    })
}

fn print(facts: &Facts, kinds: &[Kind], features: &[Feature]) {
    let user = if facts.root { "root" } else { "an ordinary user" };
    let inside = facts.inside.map_or_else(String::new, |what| format!(", inside {what}"));
    println!("Linux {} on {}, as {user}{inside}", facts.kernel, std::env::consts::ARCH);
    println!("\nsandboxes");
    for kind in kinds {
        let state = if kind.full { "yes" } else { "weak" };
        line(kind.name, state, &kind.state);
        if let Some(fix) = &kind.fix {
            println!("    fix: {fix}");
        }
    }
    println!("\nwhat they are made of");
    for feature in features {
        line(feature.name, "yes", &feature.state);
        if feature.state.is_err() {
            println!("    weaker: {}", feature.weaker);
        }
        if let Some(fix) = &feature.fix {
            println!("    fix: {fix}");
        }
    }
}

fn line(name: &str, yes: &str, state: &Result<String, String>) {
    match state {
        Ok(found) => println!("  {name:<16} {yes:<5} {found}"),
        Err(missing) => println!("  {name:<16} {:<5} {missing}", "no"),
    }
}
