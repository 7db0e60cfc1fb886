//! `cog-judge languages`: what this machine can judge.

use std::path::Path;

use cognate_cli::{Common, rejected};
use cognate_languages::Languages;
use serde_json::json;

use crate::toolchain::Toolchains;

/// # Errors
/// When the user's table is wrong.
pub fn show(common: &Common, table: Option<&Path>, names: bool) -> anyhow::Result<()> {
    let languages = Languages::load(table).map_err(rejected)?;
    let tools = Toolchains::new(languages.clone(), true);
    if names {
        for language in languages.iter().filter(|l| tools.usable(l).is_ok()) {
            println!("{}", language.name);
        }
        return Ok(());
    }
    let mut rows = Vec::new();
    for language in languages.iter() {
        // A toolchain that is there but does not answer is not usable.
        let state = tools.usable(language).and_then(|()| {
            tools
                .version(language)
                .ok_or_else(|| format!("its version command fails{}", tools.cure(language)))
        });
        rows.push((language, state));
    }
    if common.json {
        let list: Vec<_> = rows
            .iter()
            .map(|(l, state)| {
                json!({
                    "name": l.name, "display": l.display, "usable": state.is_ok(), "version": state.as_ref().ok(),
                    "missing": state.as_ref().err(), "packages": l.packages, "npm": l.npm,
                    "fork_server": l.fork_server.is_some(),
                })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&list)?);
        return Ok(());
    }
    for (language, state) in rows {
        match state {
            Ok(version) => println!("{:<12} yes  {version}", language.name),
            Err(reason) => println!("{:<12} no   {reason}", language.name),
        }
    }
    Ok(())
}
