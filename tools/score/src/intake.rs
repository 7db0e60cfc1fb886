//! Judged rollouts in, cells out. Only counts are kept, and one hash a sample to notice a file given twice.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use anyhow::bail;
use cognate_cli::{Common, rejected};
use cognate_languages::Languages;
use cognate_records::{Error, Finish, Format, Lines, Reader, Record, Rollout, StepEnd, detect_format};
use xxhash_rust::xxh3::xxh3_128;

use crate::cell::{Cell, Slot, Temperature};
use crate::labels;

/// Which samples count.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Splits to count; all if empty.
    pub splits: Vec<String>,
    /// Tasks to count; all if empty. A rollout without a task is a generation.
    pub tasks: Vec<String>,
    /// Temperature of rollouts that do not state theirs.
    pub temperature: Option<Temperature>,
}

#[derive(Debug, Default)]
pub struct Samples {
    pub cells: BTreeMap<Slot, Cell>,
    /// Rollouts of other splits or tasks.
    pub left_out: u64,
    /// Splits of the samples that count.
    pub splits: BTreeSet<String>,
    /// Where a rollout without a temperature was seen first.
    pub without_temperature: Option<String>,
}

/// # Errors
/// A data error with `file:line` for a rollout without verdict, without a known language, with damaged labels, or given twice; and
/// when there is nothing to count.
pub fn read(
    common: &Common,
    files: &[PathBuf],
    choice: &Choice,
    table: &Languages,
) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    let mut seen = HashSet::new();
    let progress = common.progress("reading rollouts", None);
    for file in files {
        each_rollout(common, file, |rollout, place| {
            progress.inc(1);
            samples.add(rollout, choice, table, &mut seen, place)
        })?;
    }
    progress.finish();
    if samples.cells.is_empty() {
        let names: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
        let why = match samples.left_out {
            0 => "no rollouts".to_string(),
            n => format!("no rollouts of the asked split and task among {n}"),
        };
        return Err(rejected(anyhow::anyhow!("{}: {why}", names.join(", "))));
    }
    Ok(samples)
}

/// Calls `take` with every rollout and its place. Step ends, which stand in a saved stream of the RL pipe, are
/// passed over.
fn each_rollout(
    common: &Common,
    file: &Path,
    mut take: impl FnMut(Rollout, &str) -> Result<(), Error>,
) -> anyhow::Result<()> {
    if file.as_os_str() != "-" && detect_format(file)? == Format::Parquet {
        for (row, rollout) in (1u64..).zip(Reader::<Rollout>::open(file)?) {
            let place = format!("{}: row {row}", file.display());
            if let Err(e) = rollout.and_then(|r| take(r, &place)) {
                common.skip(e)?;
            }
        }
        return Ok(());
    }
    for line in Lines::open(file)? {
        let taken = line.and_then(|line| {
            if line.schema() == Some(StepEnd::SCHEMA) {
                return Ok(());
            }
            take(line.decode()?, &line.place())
        });
        if let Err(e) = taken {
            common.skip(e)?;
        }
    }
    Ok(())
}

impl Samples {
    fn add(
        &mut self,
        rollout: Rollout,
        choice: &Choice,
        table: &Languages,
        seen: &mut HashSet<u128>,
        place: &str,
    ) -> Result<(), Error> {
        let wrong = |reason: String| Error::data(place, reason);
        let task = rollout.task.as_deref().unwrap_or("generation");
        let split = rollout.split.as_deref();
        if !admits(&choice.tasks, Some(task)) || !admits(&choice.splits, split) {
            self.left_out += 1;
            return Ok(());
        }
        let verdict = rollout
            .verdict
            .as_ref()
            .ok_or_else(|| wrong("rollout without verdict; run cog-judge on it".into()))?;
        let language = rollout.language.clone().ok_or_else(|| wrong("rollout without language".into()))?;
        if table.get(&language).is_none() {
            return Err(wrong(format!("unknown language {language:?}")));
        }
        let mut labels = labels::parse(rollout.model.as_deref().unwrap_or_default()).map_err(wrong)?;
        // Unlike things are never pooled: a second task or split is a label like any other.
        if task != "generation" && choice.tasks.len() != 1 {
            labels.entry("task".into()).or_insert_with(|| task.into());
        }
        if let Some(split) = split
            && choice.splits.len() != 1
        {
            labels.entry("split".into()).or_insert_with(|| split.into());
        }
        let temperature = match &rollout.parameters {
            Some(p) => Some(
                Temperature::new(p.temperature)
                    .ok_or_else(|| wrong(format!("temperature {} is not one", p.temperature)))?,
            ),
            None => choice.temperature,
        };
        if temperature.is_none() && self.without_temperature.is_none() {
            self.without_temperature = Some(place.into());
        }
        let seed = rollout.parameters.as_ref().map(|p| p.seed);
        let slot = Slot { labels, language, temperature };
        let sample = format!("{slot:?} {:?} {} {:?} {seed:?}", rollout.prompt, rollout.index, rollout.round);
        if !seen.insert(xxh3_128(sample.as_bytes())) {
            return Err(wrong(format!(
                "sample {} of prompt {:?} was counted already (model {:?}); is a file given twice?",
                rollout.index,
                rollout.prompt,
                rollout.model.as_deref().unwrap_or_default()
            )));
        }
        if let Some(split) = split
            && !self.splits.contains(split)
        {
            self.splits.insert(split.into());
        }
        let asked = verdict.detected_language.as_ref().map(|found| *found == slot.language);
        let truncated = rollout.finish.map(|f| f == Finish::Length);
        let status = verdict.status;
        let problem = rollout.problem.unwrap_or(rollout.prompt);
        self.cells
            .entry(slot)
            .or_default()
            .problems
            .entry(problem)
            .or_default()
            .add(status, asked, truncated);
        Ok(())
    }

    /// # Errors
    /// When a rollout states no temperature, in tables whose blocks are temperatures.
    pub fn require_temperature(&self) -> anyhow::Result<()> {
        if let Some(place) = &self.without_temperature {
            bail!(rejected(anyhow::anyhow!(
                "{place}: rollout without parameters.temperature; --temperature says it for all such rollouts"
            )));
        }
        Ok(())
    }
}

fn admits(asked: &[String], found: Option<&str>) -> bool {
    asked.is_empty() || found.is_some_and(|f| asked.iter().any(|a| a == f))
}
