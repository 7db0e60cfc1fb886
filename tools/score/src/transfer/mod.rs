//! `cog-score transfer`: does RL on one language carry over to others, and does the arm matter?

mod export;
mod facts;
mod page;
mod picture;
mod results;
mod study;

use cognate_cli::{Common, rejected, usage};

use crate::bootstrap::{Bootstrap, Over};
use crate::cli::{Draws, Transfer};
use crate::intake::{self, Choice};
use crate::names::{self, Names, order_arms};
use crate::outputs::Report;
use results::Plan;
use study::Study;

/// # Errors
/// When the input is at fault or a result cannot be written.
pub fn run(common: &Common, transfer: &Transfer) -> anyhow::Result<()> {
    transfer.outputs.check(common)?;
    let table = names::languages(transfer.which.languages_table.as_deref())?;
    for language in transfer.targets.iter().chain([&transfer.source]) {
        if table.get(language).is_none() {
            return Err(usage(format!("unknown language {language:?}")));
        }
    }
    let names = Names::new(&transfer.arms.names, table.clone()).map_err(usage)?;
    let contrasts = names::pairs(&transfer.arms.contrast).map_err(usage)?;
    let facts = match &transfer.manifest {
        Some(path) => Some(facts::read(path)?),
        None => None,
    };
    let choice = Choice {
        splits: transfer.which.split.clone(),
        tasks: vec![transfer.task.clone()],
        temperature: transfer.which.temperature,
    };
    let mut samples = intake::read(common, &transfer.which.files, &choice, &table)?;
    let mut notes = Vec::new();
    if samples.left_out > 0 {
        notes.push(format!("{} rollouts of other splits or tasks are left out.", samples.left_out));
    }
    let splits = std::mem::take(&mut samples.splits);
    let study = Study::new(samples)?;
    let plan = plan(transfer, &study, contrasts, &mut notes)?;
    let over = match transfer.interval {
        Draws::Problems => Over::Problems,
        Draws::Crossed => Over::ProblemsAndSeeds,
    };
    let intervals = &transfer.intervals;
    let resamples = usize::try_from(intervals.resamples)?;
    let mut bootstrap = Bootstrap::new(common.seed, resamples, intervals.confidence, over);
    let results = results::results(&study, &plan, &mut bootstrap);
    let page = page::Page {
        transfer,
        names: &names,
        study: &study,
        plan: &plan,
        results: &results,
        facts: facts.as_deref(),
        splits: splits.into_iter().collect(),
        notes,
    };
    let svg = match &transfer.outputs.svg {
        Some(_) => Some(picture::svg(&page)?),
        None => None,
    };
    let report = Report { markdown: page.markdown(), metrics: export::metrics(&study, &plan, &results), svg };
    let mut inputs = transfer.which.files.clone();
    inputs.extend(transfer.manifest.clone());
    transfer.outputs.write(common, &inputs, &report)
}

fn plan(
    transfer: &Transfer,
    study: &Study,
    contrasts: Vec<(String, String)>,
    notes: &mut Vec<String>,
) -> anyhow::Result<Plan> {
    let (arms, other_arms) = order_arms(&transfer.arms.arms, &study.arms());
    let found = study.languages();
    let mut languages = vec![transfer.source.clone()];
    if transfer.targets.is_empty() {
        languages.extend(found.iter().filter(|l| **l != transfer.source).cloned());
    } else {
        languages.extend(transfer.targets.iter().filter(|l| **l != transfer.source).cloned());
    }
    if !found.iter().any(|l| languages.contains(l)) {
        return Err(rejected(anyhow::anyhow!(
            "no rollouts in {}; the files hold {}",
            languages.join(", "),
            found.join(", ")
        )));
    }
    let found_temperatures = study.temperatures();
    let mut temperatures = transfer.temperatures.clone();
    temperatures.dedup();
    if temperatures.is_empty() {
        temperatures.clone_from(&found_temperatures);
    }
    let mut left_out = |what: &str, names: Vec<String>| {
        if !names.is_empty() {
            notes.push(format!("Not in the tables, though there are rollouts: {what} {}.", names.join(", ")));
        }
    };
    left_out("arm", other_arms);
    left_out("language", found.into_iter().filter(|l| !languages.contains(l)).collect());
    let other_temperatures = found_temperatures.iter().filter(|t| !temperatures.contains(t));
    left_out("temperature", other_temperatures.map(ToString::to_string).collect());
    Ok(Plan {
        arms,
        languages,
        temperatures,
        before: transfer.before.clone(),
        after: transfer.after.clone(),
        contrasts,
    })
}
