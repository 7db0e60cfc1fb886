//! `cog-judge languages`: what this machine can judge.

use std::path::Path;

use cognate_cli::{Common, rejected};
use cognate_languages::Languages;
use serde_json::json;

use crate::image::System;
use crate::sandbox::wasm;
use crate::toolchain::Toolchains;

/// # Errors
/// When the user's table is wrong, or the image is none.
pub fn show(common: &Common, table: Option<&Path>, names: bool, rootfs: Option<&Path>) -> anyhow::Result<()> {
    let languages = Languages::load(table).map_err(rejected)?;
    let tools = Toolchains::of(languages.clone(), true, System::open(rootfs)?);
    if names {
        for language in languages.iter().filter(|l| tools.usable(l).is_ok()) {
            println!("{}", language.name);
        }
        return Ok(());
    }
    let in_wasm = Toolchains::new(languages.in_wasm(wasm::guests_folder().as_deref()), false);
    let mut rows = Vec::new();
    for language in languages.iter() {
        // A toolchain that is there but does not answer is not usable.
        let state = tools.usable(language).and_then(|()| {
            tools
                .version(language)
                .ok_or_else(|| format!("its version command fails{}", tools.cure(language)))
        });
        let wasm = in_wasm.languages.get(&language.name).map_or(Ok(()), |l| in_wasm.usable(l));
        rows.push((language, state, wasm));
    }
    if common.json {
        let list: Vec<_> = rows
            .iter()
            .map(|(l, state, wasm)| {
                json!({
                    "name": l.name, "display": l.display, "usable": state.is_ok(), "version": state.as_ref().ok(),
                    "missing": state.as_ref().err(), "packages": l.packages, "npm": l.npm,
                    "fork_server": l.fork_server.is_some(), "wasm": wasm.is_ok(), "wasm_missing": wasm.as_ref().err(),
                })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&list)?);
        return Ok(());
    }
    println!("{:<12} {:<6} toolchain", "", "wasm");
    for (language, state, wasm) in &rows {
        let mark = if wasm.is_ok() { "yes" } else { "no" };
        match state {
            Ok(version) => println!("{:<12} {mark:<6} yes  {version}", language.name),
            Err(reason) => println!("{:<12} {mark:<6} no   {reason}", language.name),
        }
    }
    for (language, _, wasm) in rows {
        if let (Err(reason), Some(_)) = (wasm, &language.wasm) {
            println!("{}: no WebAssembly: {reason}", language.name);
        }
    }
    Ok(())
}
