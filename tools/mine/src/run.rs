//! The three commands: options in, files out, counts on stderr and in `--report`.

use std::path::Path;

use cognate_cli::Common;
use cognate_languages::Languages;
use cognate_records::{Error, Format, Group, Program, Provenance, Writer, WriterOptions};
use serde::Serialize;

use crate::candidates::{CandidateOptions, Chooser, known_problems};
use crate::cli::{Candidates, Cli, Command, Filter, Groups, Import, ProgramsFormat};
use crate::groups::{GroupOptions, Grouper};
use crate::intake::{Intake, IntakeOptions};
use crate::map::FieldMap;
use crate::programs::{Programs, record_schema};
use crate::spill::Spill;
use crate::{folder, mapped, programs, table};

pub fn run(cli: Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Import(args) => import(&cli.common, args),
        Command::Candidates(args) => candidates(&cli.common, args),
        Command::Groups(args) => groups(&cli.common, args),
    }
}

/// `--keep-going` holds for faults of the data alone.
fn skip(common: &Common, error: anyhow::Error) -> anyhow::Result<()> {
    match error.downcast::<Error>() {
        Ok(error) => common.skip(error),
        Err(error) => Err(error),
    }
}

fn provenance(common: &Common) -> Provenance {
    common.provenance("cog-mine", env!("CARGO_PKG_VERSION"))
}

/// The table of languages, and the names asked for checked against it.
fn languages(table: Option<&Path>, names: &[String]) -> anyhow::Result<Languages> {
    let table = Languages::load(table).map_err(|e| match e {
        cognate_languages::Error::Table { .. } => cognate_cli::rejected(e),
        e => e.into(),
    })?;
    for name in names {
        if table.get(name).is_none() {
            let known: Vec<_> = table.iter().map(|l| l.name.as_str()).collect();
            return Err(cognate_cli::usage(format!("unknown language {name:?}; known: {}", known.join(" "))));
        }
    }
    Ok(table)
}

fn write_report(path: Option<&Path>, report: &impl Serialize) -> anyhow::Result<()> {
    if let Some(path) = path {
        let text = serde_json::to_string_pretty(report)? + "\n";
        cognate_output::write_file(path, text.as_bytes()).map_err(|e| Error::io(path, e))?;
    }
    Ok(())
}

/// A table for people, or JSON, on stderr: stdout belongs to the records.
fn show(common: &Common, report: &impl Serialize, rows: &[Vec<String>]) -> anyhow::Result<()> {
    if common.json {
        cognate_cli::say(serde_json::to_string(report)?);
    } else {
        common.note(table::table(rows).trim_end());
    }
    Ok(())
}

fn import(common: &Common, args: &Import) -> anyhow::Result<()> {
    let table = languages(args.filter.languages_table.as_deref(), &args.filter.languages)?;
    let mut map = args.map.as_deref().map(FieldMap::parse).transpose()?;
    if let (Some(map), Some(corpus)) = (&mut map, &args.corpus) {
        map.corpus = Some(corpus.clone());
    }
    let mut history = provenance(common);
    for path in args.inputs.iter().filter(|p| !p.is_dir()) {
        history = history.input(path)?;
    }
    let format = match args.format {
        ProgramsFormat::Jsonl => Format::Jsonl,
        ProgramsFormat::Parquet => Format::Parquet,
    };
    let Filter { languages, max_source, .. } = &args.filter;
    let options =
        IntakeOptions { max_source: *max_source, languages: languages.clone(), format, provenance: history };
    let mut intake = Intake::create(&args.output, &table, options)?;
    for path in &args.inputs {
        let bad = |e| skip(common, e);
        if path.is_dir() {
            folder::import(path, args.corpus.as_deref(), &table, &mut intake, bad)?;
        } else if let Some(map) = &map {
            mapped::import(path, map, &mut intake, bad)?;
        } else if let Some(schema) = record_schema(path)? {
            programs::import(path, &schema, &mut intake, bad)?;
        } else {
            return Err(cognate_cli::usage(format!(
                "{}: neither a folder nor a record file; --map says how its rows become programs",
                path.display()
            )));
        }
    }
    let report = intake.finish()?;
    write_report(args.report.as_deref(), &report)?;
    let mut rows = vec![["language", "read", "written", "rejected"].map(str::to_owned).to_vec()];
    for (language, counts) in &report.languages {
        let rejected = table::tally(&counts.rejected);
        rows.push(vec![language.clone(), counts.read.to_string(), counts.written.to_string(), rejected]);
    }
    show(common, &report, &rows)?;
    common.note(format!(
        "{} problems, {} tests, {} programs{}{}",
        report.problems,
        report.tests,
        report.programs(),
        if report.problems_conflicting > 0 {
            format!("; {} problems with an id that stood for another before", report.problems_conflicting)
        } else {
            String::new()
        },
        if report.unknown_languages.is_empty() {
            String::new()
        } else {
            format!("; unknown languages: {}", table::tally(&report.unknown_languages))
        },
    ));
    Ok(())
}

fn candidates(common: &Common, args: &Candidates) -> anyhow::Result<()> {
    let table = languages(args.filter.languages_table.as_deref(), &args.filter.languages)?;
    let options = CandidateOptions {
        min_languages: args.min_languages,
        per_language: args.per_language,
        max_problems: args.max_problems,
        languages: args.filter.languages.clone(),
        splits: args.splits.clone(),
        claims: args.claims.clone(),
        max_source: args.filter.max_source,
        seed: common.seed,
    };
    let known = args.problems.as_deref().map(known_problems).transpose()?;
    let mut chooser = Chooser::new(options, known, Spill::beside(&args.output)?);
    for program in Programs::new(args.inputs.clone(), &table) {
        match program {
            Ok((_, program)) => chooser.add(&program)?,
            Err(e) => common.skip(e)?,
        }
    }
    let mut history = provenance(common);
    for path in args.inputs.iter().chain(&args.problems) {
        history = history.input(path)?;
    }
    let writer_options = WriterOptions { format: None, provenance: Some(history) };
    let mut writer = Writer::<Program>::create(&args.output, writer_options)?;
    let report = chooser.finish(|program| Ok(writer.write(program)?))?;
    writer.finish()?;
    write_report(args.report.as_deref(), &report)?;
    let mut rows = vec![["language", "read", "chosen", "passed over"].map(str::to_owned).to_vec()];
    for (language, counts) in &report.languages {
        let over = table::tally(&counts.passed_over);
        rows.push(vec![language.clone(), counts.read.to_string(), counts.chosen.to_string(), over]);
    }
    show(common, &report, &rows)?;
    common.note(format!(
        "{} candidates in {} of {} problems",
        report.programs_chosen, report.problems_chosen, report.problems_read
    ));
    Ok(())
}

fn groups(common: &Common, args: &Groups) -> anyhow::Result<()> {
    let table = languages(args.languages_table.as_deref(), &args.languages)?;
    let options = GroupOptions {
        evidence: args.evidence,
        min_languages: args.min_languages,
        min_tests: args.min_tests,
        per_language: args.per_language,
        languages: args.languages.clone(),
        seed: common.seed,
    };
    let mut grouper = Grouper::new(options, Spill::beside(&args.output)?);
    for program in Programs::new(args.inputs.clone(), &table) {
        let added = match program {
            Ok((place, program)) => grouper.add(&place, program),
            Err(e) => Err(e.into()),
        };
        if let Err(e) = added {
            skip(common, e)?;
        }
    }
    let mut history = provenance(common);
    for path in args.inputs.iter().chain(&args.problems) {
        history = history.input(path)?;
    }
    let writer_options = WriterOptions { format: None, provenance: Some(history) };
    let mut writer = Writer::<Group>::create(&args.output, writer_options)?;
    let report = grouper.finish(args.problems.as_deref(), |group| Ok(writer.write(group)?))?;
    writer.finish()?;
    write_report(args.report.as_deref(), &report)?;
    show(common, &report, &report.rows())?;
    let sizes =
        report.groups_by_languages.iter().map(|(k, n)| format!("{n} of {k}")).collect::<Vec<_>>().join(", ");
    common.note(format!("{} groups, by number of languages: {sizes}", report.groups));
    Ok(())
}
