//! `--config FILE`: a stage's preset. A flat TOML file whose keys are the long flags of the (sub)command; what stands
//! on the command line wins. So every stage has one file that says all it does, and no tool has a second way to be
//! configured.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Command;
use toml::Value;

use crate::exit::{rejected, usage};

/// Expands `--config FILE` (repeatable, later files win) into flags placed before the user's own.
pub(crate) fn expand(
    command: &Command,
    arguments: Vec<OsString>,
    tables: &[&str],
) -> anyhow::Result<Vec<OsString>> {
    // Built, so that a subcommand knows the options that are common to all.
    let mut command = command.clone();
    command.build();
    let (command, after) = subcommand(&command, &arguments);
    let files = config_files(&arguments[after..])?;
    if files.is_empty() {
        return Ok(arguments);
    }
    let mut merged = toml::Table::new();
    for file in &files {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| rejected(anyhow::anyhow!("{}: {e}", file.display())))?;
        for (key, value) in table {
            check_key(command, &key, &value, tables)
                .map_err(|e| usage(format!("{}: {e}", file.display())))?;
            merged.insert(key, value);
        }
    }
    let mut expanded = arguments[..after].to_vec();
    for (key, value) in merged {
        let flag = key.replace('_', "-");
        if !is_table(&value) && !given(command, &flag, &arguments[after..]) {
            expanded.extend(as_flag(&flag, &value).map_err(|e| usage(format!("key {key:?}: {e}")))?);
        }
    }
    expanded.extend_from_slice(&arguments[after..]);
    Ok(expanded)
}

/// The innermost subcommand that was named, and the index of the first argument after its name.
fn subcommand<'a>(command: &'a Command, arguments: &[OsString]) -> (&'a Command, usize) {
    let (mut command, mut after) = (command, 1);
    for (i, argument) in arguments.iter().enumerate().skip(1) {
        if let Some(inner) = argument.to_str().and_then(|name| command.find_subcommand(name)) {
            (command, after) = (inner, i + 1);
            if !inner.has_subcommands() {
                break;
            }
        }
    }
    (command, after.min(arguments.len()))
}

fn config_files(arguments: &[OsString]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        if text == "--" {
            break;
        }
        if text == "--config" {
            files.push(PathBuf::from(arguments.next().ok_or_else(|| usage("--config needs a file"))?));
        } else if let Some(file) = text.strip_prefix("--config=") {
            files.push(PathBuf::from(file));
        }
    }
    Ok(files)
}

fn is_table(value: &Value) -> bool {
    match value {
        Value::Table(_) => true,
        Value::Array(items) => items.iter().any(|i| matches!(i, Value::Table(_))),
        _ => false,
    }
}

fn check_key(command: &Command, key: &str, value: &Value, tables: &[&str]) -> Result<(), String> {
    if is_table(value) {
        if tables.contains(&key) {
            return Ok(());
        }
        return Err(format!("table {key:?} means nothing to {}", command.get_name()));
    }
    let flag = key.replace('_', "-");
    if command.get_arguments().any(|a| a.get_long() == Some(flag.as_str())) && flag != "config" {
        return Ok(());
    }
    let known: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    Err(format!("unknown key {key:?}; keys are the flags of {}: {}", command.get_name(), known.join(" ")))
}

/// Whether the user gave the flag, by its long or short name.
fn given(command: &Command, flag: &str, arguments: &[OsString]) -> bool {
    let short = command.get_arguments().find(|a| a.get_long() == Some(flag)).and_then(clap::Arg::get_short);
    arguments.iter().take_while(|a| *a != OsStr::new("--")).any(|a| {
        let text = a.to_string_lossy();
        if let Some(long) = text.strip_prefix("--") {
            long.split('=').next() == Some(flag)
        } else {
            short.is_some_and(|s| text.strip_prefix('-').is_some_and(|t| t.starts_with(s)))
        }
    })
}

fn as_flag(flag: &str, value: &Value) -> Result<Option<OsString>, String> {
    let text = match value {
        Value::Boolean(true) => return Ok(Some(format!("--{flag}").into())),
        Value::Boolean(false) => return Ok(None),
        Value::Array(items) => items.iter().map(scalar).collect::<Result<Vec<_>, _>>()?.join(","),
        other => scalar(other)?,
    };
    Ok(Some(format!("--{flag}={text}").into()))
}

fn scalar(value: &Value) -> Result<String, String> {
    match value {
        Value::String(s) => Ok(s.clone()),
        Value::Integer(i) => Ok(i.to_string()),
        Value::Float(f) => Ok(f.to_string()),
        other => Err(format!("a {} cannot be a flag's value", other.type_str())),
    }
}

/// The tables of the preset files given on the command line, for tools that name them in
/// [`Options::tables`](crate::Options); later files win.
///
/// # Errors
/// When a file cannot be read or is not TOML.
pub fn tables(files: &[PathBuf], name: &str) -> anyhow::Result<Option<Value>> {
    let mut found = None;
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let table = parse(file, &text)?;
        if let Some(value) = table.get(name) {
            found = Some(value.clone());
        }
    }
    Ok(found)
}

fn parse(file: &Path, text: &str) -> anyhow::Result<toml::Table> {
    text.parse().map_err(|e: toml::de::Error| rejected(anyhow::anyhow!("{}: {e}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    fn command() -> Command {
        let run = Command::new("sft")
            .arg(Arg::new("lr").long("lr").short('l').num_args(1))
            .arg(Arg::new("langs").long("langs").num_args(1))
            .arg(Arg::new("tie-head").long("tie-head").action(clap::ArgAction::SetTrue))
            .arg(Arg::new("config").long("config").num_args(1).action(clap::ArgAction::Append));
        let seed = Arg::new("seed").long("seed").num_args(1).global(true);
        Command::new("tool").arg(seed).subcommand(run)
    }

    fn expanded(toml: &str, rest: &[&str], tables: &[&str]) -> anyhow::Result<Vec<String>> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("cognate-config-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let file = dir.join("p.toml");
        std::fs::write(&file, toml)?;
        let config = format!("--config={}", file.display());
        let args =
            ["tool", "sft"].iter().chain(rest).map(OsString::from).chain([config.clone().into()]).collect();
        let out = expand(&command(), args, tables);
        std::fs::remove_dir_all(&dir)?;
        Ok(out?.into_iter().map(|a| a.to_string_lossy().into_owned()).filter(|a| *a != config).collect())
    }

    #[test]
    fn keys_become_flags_and_the_command_line_wins() {
        let toml = "lr = 1e-3\nlangs = [\"python\", \"lua\"]\ntie_head = true\n";
        let all = expanded(toml, &["data"], &[]).unwrap();
        assert_eq!(all, ["tool", "sft", "--langs=python,lua", "--lr=0.001", "--tie-head", "data"]);
        let won = expanded(toml, &["-l", "2", "--langs=c"], &[]).unwrap();
        assert_eq!(won, ["tool", "sft", "--tie-head", "-l", "2", "--langs=c"]);
    }

    #[test]
    fn options_common_to_all_subcommands_are_keys_too() {
        assert_eq!(expanded("seed = 7\n", &[], &[]).unwrap(), ["tool", "sft", "--seed=7"]);
        assert_eq!(expanded("seed = 7\n", &["--seed", "8"], &[]).unwrap(), ["tool", "sft", "--seed", "8"]);
    }

    #[test]
    fn what_means_nothing_is_refused() {
        assert!(expanded("rate = 1\n", &[], &[]).unwrap_err().to_string().contains("unknown key \"rate\""));
        assert!(
            expanded("[[arm]]\nname = \"x\"\n", &[], &[]).unwrap_err().to_string().contains("table \"arm\"")
        );
        assert!(expanded("[[arm]]\nname = \"x\"\n", &[], &["arm"]).is_ok());
        assert!(expanded("lr = \n", &[], &[]).is_err());
    }
}
