//! Checks each input in turn; the exit code is 3 when anything is wrong in any of them.

use std::io::Write;

use cognate_languages::Languages;

use crate::cli::Cli;
use crate::model;
use crate::records::{Checker, Options, Seen, problem_ids};

pub fn run(cli: Cli) -> anyhow::Result<()> {
    let table = Languages::load(cli.languages_table.as_deref()).map_err(|e| match e {
        cognate_languages::Error::Table { .. } => cognate_cli::rejected(e),
        e => e.into(),
    })?;
    let options = Options {
        schema: cli.schema.clone(),
        max_errors: cli.max_errors,
        provenance: cli.provenance,
        allow_empty: cli.allow_empty,
    };
    let problems = cli.problems.as_deref().map(problem_ids).transpose()?;
    let mut checker = Checker { table: &table, options: &options, problems, seen: Seen::default() };
    let mut out = std::io::stdout().lock();
    let (mut errors, mut bad) = (0, 0);
    for path in &cli.inputs {
        if !cli.together {
            checker.seen = Seen::default();
        }
        let report = if path.is_dir() { model::check(path, cli.max_errors)? } else { checker.file(path)? };
        errors += report.faults;
        bad += u64::from(report.faults > 0);
        if cli.common.json {
            writeln!(out, "{}", serde_json::to_string(&report)?)?;
        } else if !cli.common.quiet {
            write!(out, "{}", report.text())?;
            if let Some(history) = &report.provenance {
                writeln!(out, "{}", serde_json::to_string_pretty(history)?)?;
            }
        }
    }
    out.flush()?;
    if errors > 0 {
        let files = cli.inputs.len();
        let plural = if errors == 1 { "" } else { "s" };
        return Err(cognate_cli::rejected(anyhow::anyhow!(
            "{errors} fault{plural} in {bad} of {files} files"
        )));
    }
    Ok(())
}
