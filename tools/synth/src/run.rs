//! From the flags to the files.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use cognate_cli::{Common, usage};
use cognate_output::AtomicDir;
use cognate_records::{Checker, Origin, Program, Test, Visibility, Writer, WriterOptions};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::cli::{Cli, ProgramsFormat};
use crate::draw::Difficulty;
use crate::emit::{Emitter, emitter};
use crate::manifest::Manifest;
use crate::plan::Plan;
use crate::programs::programs;
use crate::split::Shares;
use crate::world::{self, Options, Problem, World};

/// Problems whose programs are written out in parallel before they go to the file.
const BATCH: usize = 512;

pub fn run(cli: Cli) -> anyhow::Result<()> {
    cli.common.threads();
    let (options, writing) = checked(&cli)?;
    let progress = cli.common.progress("problems", Some(options.problems as u64));
    let world = world::make(&options, |n| progress.inc(n)).map_err(|found| {
        usage(format!("only {found} distinct problems were found; ask for fewer, or for more operations"))
    })?;
    progress.finish();
    let manifest = match &cli.output {
        Some(output) if !cli.dry_run => write(&cli, output, &world, &writing)?,
        _ => {
            let mut manifest = Manifest::new(cli.common.seed, options_of(&cli), &world);
            each_program(&cli.common, &world, &writing, |program| {
                manifest.add_program(program);
                Ok(())
            })?;
            manifest
        }
    };
    if cli.common.json {
        println!("{}", serde_json::to_string_pretty(&manifest)?);
    } else {
        print!("{}", manifest.table());
    }
    Ok(())
}

struct Writing {
    languages: Vec<&'static dyn Emitter>,
    correct: Plan,
    wrong: Plan,
}

fn checked(cli: &Cli) -> anyhow::Result<(Options, Writing)> {
    let shares = Shares::parse(&cli.shares).map_err(usage)?;
    let languages = cli
        .languages
        .iter()
        .map(|name| emitter(name).ok_or_else(|| usage(format!("no programs can be written in {name:?}"))))
        .collect::<Result<Vec<_>, _>>()?;
    if cli.min_ops == 0 || cli.min_ops > cli.max_ops || cli.max_ops > 4 {
        return Err(usage("--min-ops and --max-ops must be within 1 and 4, in this order"));
    }
    if cli.public + cli.hidden < 4 || cli.public + cli.hidden > 16 {
        return Err(usage("--public and --hidden must sum to between 4 and 16 tests"));
    }
    if cli.problems == 0 || cli.paraphrases == 0 {
        return Err(usage("--problems and --paraphrases must be at least 1"));
    }
    if !(0.0..=1.0).contains(&cli.scalar_share) {
        return Err(usage(format!("--scalar-share {}: not a share", cli.scalar_share)));
    }
    if let Some(twice) = (1..cli.languages.len()).find(|&i| cli.languages[..i].contains(&cli.languages[i])) {
        return Err(usage(format!("language {:?} is named twice", cli.languages[twice])));
    }
    let options = Options {
        seed: cli.common.seed,
        problems: cli.problems,
        public: cli.public,
        hidden: cli.hidden,
        variety: cli.paraphrases,
        difficulty: Difficulty {
            level: cli.level,
            min_ops: cli.min_ops,
            max_ops: cli.max_ops,
            scalar_share: cli.scalar_share,
        },
        shares: shares.clone(),
    };
    let writing = Writing {
        languages,
        correct: Plan::parse(&cli.programs, &shares, &cli.languages).map_err(usage)?,
        wrong: Plan::parse(&cli.mutants, &shares, &cli.languages).map_err(usage)?,
    };
    Ok((options, writing))
}

/// The options that decide the bytes, for the manifest.
fn options_of(cli: &Cli) -> BTreeMap<String, Value> {
    let pairs = [
        ("problems", json!(cli.problems)),
        ("level", json!(format!("{:?}", cli.level).to_lowercase())),
        ("min-ops", json!(cli.min_ops)),
        ("max-ops", json!(cli.max_ops)),
        ("scalar-share", json!(cli.scalar_share)),
        ("paraphrases", json!(cli.paraphrases)),
        ("public", json!(cli.public)),
        ("hidden", json!(cli.hidden)),
        ("shares", json!(cli.shares)),
        ("languages", json!(cli.languages)),
        ("programs", json!(cli.programs)),
        ("mutants", json!(cli.mutants)),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn write(cli: &Cli, output: &Path, world: &World, writing: &Writing) -> anyhow::Result<Manifest> {
    let common = &cli.common;
    refuse_other_folders(output)?;
    let folder = AtomicDir::create(output).with_context(|| output.display().to_string())?;
    let provenance = || Some(common.provenance("cog-synth", env!("CARGO_PKG_VERSION")));
    let with = |provenance| WriterOptions { provenance, ..WriterOptions::default() };

    let mut problems = Writer::create(&folder.building().join("problems.jsonl"), with(provenance()))?;
    for problem in &world.problems {
        problems.write(&record(problem))?;
    }
    problems.finish()?;

    let mut manifest = Manifest::new(common.seed, options_of(cli), world);
    let name = match cli.format {
        ProgramsFormat::Parquet => "programs.parquet",
        ProgramsFormat::Jsonl => "programs.jsonl",
    };
    let mut out = Writer::create(&folder.building().join(name), with(provenance()))?;
    each_program(common, world, writing, |program| {
        manifest.add_program(program);
        Ok(out.write(program)?)
    })?;
    out.finish()?;

    let text = serde_json::to_string_pretty(&manifest)? + "\n";
    let path = folder.building().join("manifest.json");
    cognate_output::write_file(&path, text.as_bytes()).with_context(|| path.display().to_string())?;
    folder.commit().with_context(|| output.display().to_string())?;
    Ok(manifest)
}

/// An earlier world is replaced; a folder that holds anything else is not.
fn refuse_other_folders(output: &Path) -> anyhow::Result<()> {
    let known = |name: &str| {
        name.starts_with("problems.") || name.starts_with("programs.") || name == "manifest.json"
    };
    let Ok(entries) = std::fs::read_dir(output) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(known) {
            let name = name.to_string_lossy();
            return Err(usage(format!("{} holds {name:?} and is not replaced", output.display())));
        }
    }
    Ok(())
}

/// Makes the programs in parallel and hands them over in order.
fn each_program(
    common: &Common,
    world: &World,
    writing: &Writing,
    mut take: impl FnMut(&Program) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut of_split: BTreeMap<&str, usize> = BTreeMap::new();
    let indexed: Vec<(usize, &Problem)> = world
        .problems
        .iter()
        .map(|problem| {
            let next = of_split.entry(&problem.split).or_default();
            *next += 1;
            (*next - 1, problem)
        })
        .collect();
    let progress = common.progress("programs of problems", Some(indexed.len() as u64));
    for batch in indexed.chunks(BATCH) {
        let made: Vec<Vec<Program>> = batch
            .par_iter()
            .map(|&(index, problem)| {
                programs(problem, index, &writing.languages, &writing.correct, &writing.wrong, common.seed)
            })
            .collect();
        for program in made.iter().flatten() {
            take(program)?;
        }
        progress.inc(batch.len() as u64);
    }
    progress.finish();
    Ok(())
}

fn record(problem: &Problem) -> cognate_records::Problem {
    let tests = problem
        .tests
        .iter()
        .map(|case| Test {
            input: Some(case.input.clone()),
            output: Some(format!("{}\n", case.output)),
            visibility: if case.public { Visibility::Public } else { Visibility::Hidden },
            size: Some(case.size),
            ..Test::default()
        })
        .collect();
    let mut record = cognate_records::Problem {
        id: problem.id.clone(),
        statement: problem.statement.clone(),
        split: Some(problem.split.clone()),
        // Tokens would not tell one line from many.
        checker: Some(Checker::Lines),
        tests,
        tags: vec![format!("operations:{}", problem.pipeline.ops.len())],
        origin: Some(Origin { corpus: Some("synth".into()), ..Origin::default() }),
        ..cognate_records::Problem::default()
    };
    record.extra.insert("ir".into(), Value::from(problem.pipeline.to_string()));
    record
}
